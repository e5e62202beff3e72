/* SPDX-License-Identifier: Apache-2.0 */
/* A program of /dev/neuron0: device info, memory, copies, descriptor rings of its own in coherent memory,
 * notifications through a mapping, semaphores. Ends with 0 if every answer and every byte is right. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "neuron.h"

enum { RING = 64, MIB = 1 << 20, FIRST = 1 << 26, LAST = 1 << 27, COPY = 0x01080003, EVENT_QUEUE = 2, ERROR_QUEUE = 3, ADDRESS_ERROR = 6 };

static int fd;

static void fail(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(int right, const char *what)
{
    if (!right) {
        printf("%s is wrong\n", what);
        exit(1);
    }
}

static void call(unsigned number, void *argument, const char *what)
{
    if (ioctl(fd, number, argument) != 0)
        fail(what);
}

static uint64_t allocate(uint64_t size, int host)
{
    uint64_t handle = 0;
    struct neuron_mem_alloc args = {.size = size, .host_memory = host, .mem_handle = &handle};
    call(NEURON_MEM_ALLOC, &args, "MEM_ALLOC");
    return handle;
}

static uint64_t address_of(uint64_t handle)
{
    uint64_t address = 0;
    struct neuron_mem_get_pa args = {.mem_handle = handle, .pa = &address};
    call(NEURON_MEM_GET_PA, &args, "MEM_GET_PA");
    return address;
}

static unsigned char *map(uint64_t address, uint64_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)address);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

static void copy(uint64_t source, uint64_t destination, uint64_t size)
{
    struct neuron_mem_copy64 args = {.src_mem_handle = source, .dst_mem_handle = destination, .size = size};
    call(NEURON_MEM_COPY64, &args, "MEM_COPY64");
}

static void pause_at(int turn, const char *what)
{
    struct timespec pause = {.tv_nsec = 100000};
    check(turn < 200000, what);
    nanosleep(&pause, NULL);
}

/* Wait until `*word` is `value`: by looking, as the device never interrupts. */
static void await(volatile uint32_t *word, uint32_t value, const char *what)
{
    for (int i = 0; *word != value; i++)
        pause_at(i, what);
}

/* Wait for the first or second entry of a notification queue: its phase bit is written last. */
static void await_entry(volatile unsigned char *queue, int entry, const char *what)
{
    for (int i = 0; !(queue[16 * entry + 1] & 1); i++)
        pause_at(i, what);
}

static void device(void)
{
    struct neuron_device_driver_info driver = {0};
    struct neuron_device_info info = {0};
    call(NEURON_DRIVER_INFO_GET, &driver, "DRIVER_INFO_GET");
    call(NEURON_DEVICE_INFO, &info, "DEVICE_INFO");
    check(driver.architecture == 1 && driver.size == 24 && driver.feature_flags1 == 0xff, "driver info");
    check(info.architecture == 1 && info.bar_size[0] == 8 * MIB && info.bar_size[1] == 256 * MIB, "device info");
}

static void copies(void)
{
    uint64_t host = allocate(MIB, 1), one = allocate(MIB, 0), other = allocate(MIB, 0);
    unsigned char *seen = map(address_of(host), MIB), *dram = map(address_of(other), MIB), *back = malloc(MIB);
    for (int i = 0; i < MIB; i++)
        seen[i] = (unsigned char)(i * 13 + (i >> 9));
    copy(host, one, MIB);
    copy(one, other, MIB);
    check(memcmp(dram, seen, MIB) == 0, "device memory, mapped");
    struct neuron_mem_buf_copy64 out = {.mem_handle = other, .buffer = back, .size = MIB};
    call(NEURON_MEM_BUF_COPY64, &out, "MEM_BUF_COPY64");
    check(memcmp(back, seen, MIB) == 0, "device memory, copied out");
    memset(seen, 0, MIB);
    copy(other, host, MIB);
    check(memcmp(back, seen, MIB) == 0, "host memory, copied back");
    free(back);
}

/* Rings in coherent memory that the program itself writes, over several laps of them. */
static void rings(void)
{
    uint64_t tx = allocate(RING * 16, 1), rx = allocate(RING * 16, 1), host = allocate(MIB, 1), dram = allocate(MIB, 0);
    struct neuron_descriptor *sources = (void *)map(address_of(tx), 4096);
    struct neuron_descriptor *destinations = (void *)map(address_of(rx), 4096);
    unsigned char *from = map(address_of(host), MIB), *to = map(address_of(dram), MIB);
    struct neuron_dma_queue_init queue = {.eng_id = 1, .qid = 3, .tx_desc_count = RING, .rx_desc_count = RING,
                                          .tx_handle = tx, .rx_handle = rx};
    call(NEURON_DMA_QUEUE_INIT, &queue, "DMA_QUEUE_INIT");
    volatile uint32_t *done = (volatile uint32_t *)(to + MIB - 4);
    unsigned at = 0;
    for (uint32_t turn = 1; turn <= 30; turn++) {
        unsigned count = 1 + turn % 9;
        for (int i = 0; i < MIB; i++)
            from[i] = (unsigned char)(i * turn);
        *(uint32_t *)(from + MIB - 4) = turn;
        for (unsigned i = 0; i <= count; i++, at++) {
            int last = i == count;
            uint32_t length = last ? 4 : 1000 + 37 * i, lap = (1 + at / RING) & 3;
            uint64_t offset = last ? MIB - 4 : i * 4096;
            sources[at % RING] = (struct neuron_descriptor){length | lap << 24 | FIRST | LAST, COPY, address_of(host) + offset};
            destinations[at % RING] = (struct neuron_descriptor){length | lap << 24, 0, address_of(dram) + offset};
        }
        struct neuron_dma_queue_copy_start start = {.eng_id = 1, .qid = 3, .tx_desc_count = count + 1, .rx_desc_count = count + 1};
        call(NEURON_DMA_QUEUE_COPY_START, &start, "DMA_QUEUE_COPY_START");
        await(done, turn, "the copy's completion");
        for (unsigned i = 0; i < count; i++)
            check(memcmp(to + i * 4096, from + i * 4096, 1000 + 37 * i) == 0, "what the ring copied");
        struct neuron_dma_ack_completed ack = {.eng_id = 1, .qid = 3, .count = count + 1};
        call(NEURON_DMA_ACK_COMPLETED, &ack, "DMA_ACK_COMPLETED");
    }
}

/* An event that is set makes a notification; so does a descriptor that leads nowhere. */
static void notifications(void)
{
    struct neuron_notifications_init_v1 events = {.nc_id = 0, .nq_type = EVENT_QUEUE, .size = 4096};
    struct neuron_notifications_init_v1 errors = {.nc_id = 0, .nq_type = ERROR_QUEUE, .size = 4096};
    call(NEURON_NOTIFICATIONS_INIT_V1, &events, "NOTIFICATIONS_INIT_V1");
    call(NEURON_NOTIFICATIONS_INIT_V1, &errors, "NOTIFICATIONS_INIT_V1");
    unsigned char *event = map(events.mmap_offset, 4096), *error = map(errors.mmap_offset, 4096);
    await_entry(event, 0, "the first event notification");
    await_entry(error, 0, "the first error notification");
    check(memcmp(event, "NQ0 EVENT", 9) == 0 && memcmp(error, "NQ0 ERROR", 9) == 0, "a queue's first entry");
    struct neuron_event set = {.nc_id = 0, .event_index = 7, .value = 1};
    call(NEURON_EVENT_SET, &set, "EVENT_SET");
    await_entry(event, 1, "the event's notification");
    check(event[16] == EVENT_QUEUE && *(uint32_t *)(event + 20) == (1u << 31 | 7), "the event's kind and number");

    uint64_t tx = allocate(RING * 16, 1), rx = allocate(RING * 16, 1), dram = allocate(4096, 0);
    struct neuron_descriptor *source = (void *)map(address_of(tx), 4096), *destination = (void *)map(address_of(rx), 4096);
    struct neuron_dma_queue_init queue = {.eng_id = 2, .qid = 5, .tx_desc_count = RING, .rx_desc_count = RING,
                                          .tx_handle = tx, .rx_handle = rx};
    call(NEURON_DMA_QUEUE_INIT, &queue, "DMA_QUEUE_INIT");
    *source = (struct neuron_descriptor){64 | 1 << 24 | FIRST | LAST, COPY, 1ull << 46 | 0x1000};
    *destination = (struct neuron_descriptor){64 | 1 << 24, 0, address_of(dram)};
    struct neuron_dma_queue_copy_start start = {.eng_id = 2, .qid = 5, .tx_desc_count = 1, .rx_desc_count = 1};
    call(NEURON_DMA_QUEUE_COPY_START, &start, "DMA_QUEUE_COPY_START");
    await_entry(error, 1, "the error's notification");
    check(error[16] == ERROR_QUEUE && *(uint16_t *)(error + 18) == (2 << 4 | 5), "the error's kind and source");
    check(*(uint32_t *)(error + 20) == ADDRESS_ERROR, "the error's code");
}

static void semaphores(void)
{
    struct neuron_semaphore args = {.nc_id = 3, .semaphore_index = 31, .value = 100};
    call(NEURON_SEMAPHORE_WRITE, &args, "SEMAPHORE_WRITE");
    args.value = 7;
    call(NEURON_SEMAPHORE_INCREMENT, &args, "SEMAPHORE_INCREMENT");
    args.value = 110;
    call(NEURON_SEMAPHORE_DECREMENT, &args, "SEMAPHORE_DECREMENT");
    call(NEURON_SEMAPHORE_READ, &args, "SEMAPHORE_READ");
    check((int32_t)args.value == -3, "the semaphore");
    args.semaphore_index = 32;
    check(ioctl(fd, NEURON_SEMAPHORE_READ, &args) == -1 && errno == EINVAL, "a semaphore that does not exist");
}

int main(void)
{
    fd = open("/dev/neuron0", O_RDWR);
    if (fd < 0)
        fail("open");
    device();
    copies();
    rings();
    notifications();
    semaphores();
    close(fd);
    puts("all right");
    return 0;
}
