/* SPDX-License-Identifier: Apache-2.0 */
/* What these clients need of the ABI of /dev/neuron<N> (facts, neuron.md 3.2, 3.3). */
#ifndef NEURON_H
#define NEURON_H

#include <stdint.h>

#define NEURON_DEVICE_INFO 0x80084E03u
#define NEURON_DEVICE_APP_PID 0x80044E06u
#define NEURON_MEM_ALLOC 0x80084E15u
#define NEURON_MEM_FREE 0x80084E16u
#define NEURON_MEM_COPY64 0x80284E17u
#define NEURON_MEM_BUF_COPY64 0xC0284E18u
#define NEURON_MEM_GET_PA 0x80084E19u
#define NEURON_DMA_QUEUE_INIT 0x80084E21u
#define NEURON_DMA_QUEUE_COPY_START 0x80084E23u
#define NEURON_DMA_ACK_COMPLETED 0x80084E24u
#define NEURON_DMA_COPY_DESCRIPTORS 0x80084E26u
#define NEURON_SEMAPHORE_INCREMENT 0x80084E29u
#define NEURON_SEMAPHORE_DECREMENT 0x80084E2Au
#define NEURON_SEMAPHORE_READ 0xC0084E2Bu
#define NEURON_SEMAPHORE_WRITE 0x80084E2Cu
#define NEURON_EVENT_SET 0x80084E2Du
#define NEURON_EVENT_GET 0xC0084E2Eu
#define NEURON_NOTIFICATIONS_INIT_V1 0x80084E33u
#define NEURON_CRWL_WRITER_ENTER 0x40084E53u
#define NEURON_CRWL_NC_RANGE_MARK 0x40084E55u
#define NEURON_DRIVER_INFO_GET 0x80184E6Eu

struct neuron_mem_alloc {
    uint64_t size;
    uint32_t host_memory;
    uint32_t dram_channel;
    uint32_t dram_region;
    uint32_t nc_id;
    void *mem_handle;
};

struct neuron_mem_get_pa {
    uint64_t mem_handle;
    void *pa;
};

struct neuron_mem_free {
    uint64_t mem_handle;
};

struct neuron_mem_copy64 {
    uint64_t src_mem_handle;
    uint64_t dst_mem_handle;
    uint64_t size;
    uint64_t src_offset;
    uint64_t dst_offset;
};

struct neuron_mem_buf_copy64 {
    uint64_t mem_handle;
    void *buffer;
    uint64_t size;
    uint64_t offset;
    uint32_t copy_to_mem_handle;
};

struct neuron_dma_copy_descriptors {
    uint64_t mem_handle;
    void *buffer;
    uint32_t num_descs;
    uint32_t offset;
    uint32_t queue_type;
};

struct neuron_dma_queue_init {
    uint32_t eng_id;
    uint32_t qid;
    uint32_t tx_desc_count;
    uint32_t rx_desc_count;
    uint64_t tx_handle;
    uint64_t rx_handle;
    uint64_t rxc_handle;
    uint32_t axi_port;
};

struct neuron_dma_ack_completed {
    uint32_t eng_id;
    uint32_t qid;
    uint32_t count;
};

struct neuron_dma_queue_copy_start {
    uint32_t eng_id;
    uint32_t qid;
    uint32_t tx_desc_count;
    uint32_t rx_desc_count;
};

struct neuron_semaphore {
    uint32_t nc_id;
    uint32_t semaphore_index;
    uint32_t value;
};

struct neuron_event {
    uint32_t nc_id;
    uint32_t event_index;
    uint32_t value;
};

struct neuron_notifications_init_v1 {
    uint32_t nc_id;
    uint32_t nq_type;
    uint32_t engine_index;
    uint32_t size;
    uint64_t mmap_offset;
};

struct neuron_crwl_nc_map {
    uint32_t nc_count;
    uint32_t start_nc_index;
    uint32_t end_nc_index;
    uint32_t max_nc_available;
    uint64_t bitmap;
};

struct neuron_device_info {
    uint32_t architecture;
    uint32_t revision;
    uint32_t connected_device_count;
    uint32_t connected_devices[8];
    uint64_t bar_address[2];
    uint64_t bar_size[2];
};

struct neuron_device_driver_info {
    uint32_t architecture;
    uint32_t revision;
    uint32_t version;
    uint32_t size;
    uint64_t feature_flags1;
};

struct neuron_descriptor {
    uint32_t control;
    uint32_t meta;
    uint64_t address;
};

#endif
