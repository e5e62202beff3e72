/* SPDX-License-Identifier: Apache-2.0 */
/* Takes memory, a core, a lock and a ring of /dev/neuron0, forks a child that keeps the descriptor, says
 * "ready", and sleeps until it is killed; the child lives until its stdin ends. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "neuron.h"

struct crwl {
    uint32_t nc_id;
    unsigned char uuid[32];
};

static void call(int fd, unsigned number, void *argument, const char *what)
{
    if (ioctl(fd, number, argument) != 0) {
        perror(what);
        _exit(1);
    }
}

static uint64_t allocate(int fd, uint64_t size, int host)
{
    uint64_t handle = 0;
    struct neuron_mem_alloc args = {.size = size, .host_memory = host, .mem_handle = &handle};
    call(fd, NEURON_MEM_ALLOC, &args, "MEM_ALLOC");
    return handle;
}

int main(void)
{
    int fd = open("/dev/neuron0", O_RDWR);
    struct neuron_crwl_nc_map mark = {.nc_count = 2, .end_nc_index = 3};
    struct crwl lock = {.nc_id = 0};
    memset(lock.uuid, 7, sizeof lock.uuid);
    call(fd, NEURON_CRWL_NC_RANGE_MARK, &mark, "CRWL_NC_RANGE_MARK");
    call(fd, NEURON_CRWL_WRITER_ENTER, &lock, "CRWL_WRITER_ENTER");
    allocate(fd, 1 << 30, 0);
    struct neuron_dma_queue_init queue = {.eng_id = 0, .qid = 1, .tx_desc_count = 64, .rx_desc_count = 64,
                                          .tx_handle = allocate(fd, 1024, 1), .rx_handle = allocate(fd, 1024, 1)};
    call(fd, NEURON_DMA_QUEUE_INIT, &queue, "DMA_QUEUE_INIT");
    if (fork() == 0) {
        char byte;
        while (read(0, &byte, 1) > 0)
            ;
        _exit(0);
    }
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (;;)
        pause();
}
