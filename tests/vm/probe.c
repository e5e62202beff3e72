/* SPDX-License-Identifier: Apache-2.0 */
/* Runs in the guest as its only program: finds the Inferentia in sysfs, maps its BARs and uses them. Offsets:
 * the project's facts (neuron.md §1, §6, §8). Prints "name value" lines for the test to judge. */

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HOST (1ull << 46)
#define MISC 0x78E000
#define M2S 0x41000 /* engine 0, queue 0 */
#define S2M 0x61000
#define RINGS 0x100000
#define LENGTH 32

static char slot[300];

static int open_in(const char *name, int flags) {
    char path[600];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", slot, name);
    return open(path, flags);
}

static void show(const char *name) {
    char text[64] = "";
    int fd = open_in(name, O_RDONLY);
    ssize_t got = read(fd, text, sizeof text - 1);
    if (got > 0)
        printf("%s %s", name, text);
    close(fd);
}

static int find(void) {
    DIR *all = opendir("/sys/bus/pci/devices");
    struct dirent *entry;
    while (all && (entry = readdir(all))) {
        char text[16] = "";
        snprintf(slot, sizeof slot, "%s", entry->d_name);
        int fd = open_in("vendor", O_RDONLY);
        if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && !strncmp(text, "0x1d0f", 6)) {
            close(fd);
            return 1;
        }
        close(fd);
    }
    return 0;
}

static volatile void *bar(const char *name, size_t size, off_t offset) {
    int fd = open_in(name, O_RDWR | O_SYNC);
    void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
    close(fd);
    if (at == MAP_FAILED) {
        printf("failed to map %s\n", name);
        exit(1);
    }
    return at;
}

static void enable(void) {
    uint16_t command = 0;
    int fd = open_in("enable", O_WRONLY);
    if (write(fd, "1", 1) != 1)
        puts("failed to enable");
    close(fd);
    fd = open_in("config", O_RDWR);
    pread(fd, &command, 2, 4);
    command |= 6; /* memory, bus master */
    pwrite(fd, &command, 2, 4);
    pread(fd, &command, 2, 4);
    printf("command %#x\n", command & 6);
    close(fd);
}

static uint64_t physical(void *page) {
    uint64_t entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    pread(fd, &entry, 8, (uintptr_t)page / 4096 * 8);
    close(fd);
    return (entry & ((1ull << 55) - 1)) * 4096;
}

static void queue(volatile uint32_t *apb, uint32_t base, uint32_t sw_ctrl, uint32_t ring) {
    apb[(base + 0x20) / 4] = 0x03000000;
    apb[(base + sw_ctrl) / 4] = 0x100;
    apb[(base + 0x28) / 4] = ring;
    apb[(base + 0x2C) / 4] = 0;
    apb[(base + 0x30) / 4] = LENGTH;
    apb[(base + 0x20) / 4] = 0x03030000;
}

static void descriptor(volatile uint64_t *ring, int at, uint64_t control, uint64_t meta, uint64_t address) {
    ring[at * 2] = control | meta << 32;
    ring[at * 2 + 1] = address;
}

/* Host page -> DRAM -> host page, then a word into a semaphore; rings in DRAM. */
static void copies(volatile uint32_t *apb, volatile uint8_t *dram) {
    uint8_t *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    volatile uint32_t *source = (void *)page, *target = (void *)(page + 4096);
    mlock(page, 8192);
    for (int at = 0; at < 1024; at++)
        source[at] = 0xC0DE0000 + at;
    volatile uint64_t *tx = (void *)(dram + RINGS), *rx = (void *)(dram + RINGS + 4096);
    uint64_t from = HOST | physical(page), to = HOST | physical(page + 4096);
    queue(apb, M2S, 0xB0, RINGS);
    queue(apb, S2M, 0x64, RINGS + 4096);
    descriptor(tx, 0, 4096 | 0x0D000000, 0x01080003, from);
    descriptor(rx, 0, 4096 | 0x01000000, 0, 0x2000);
    descriptor(tx, 1, 4096 | 0x4D000000, 0x01080003, 0x2000);
    descriptor(rx, 1, 4096 | 0x01000000, 0, to);
    descriptor(tx, 2, 4 | 0x0D000000, 0x01080003, from);
    descriptor(rx, 2, 4 | 0x01000000, 0, 0x0FFFC2701200ull + 7 * 4);
    apb[(S2M + 0x38) / 4] = 3;
    apb[(M2S + 0x38) / 4] = 3;
    for (int tries = 0; apb[(M2S + 0x34) / 4] != 0x40000003 && tries < 100000; tries++)
        usleep(100);
    printf("head %#x\n", apb[(M2S + 0x34) / 4]);
    printf("copied %d\n", !memcmp(page, page + 4096, 4096) && target[0] == 0xC0DE0000);
    printf("dram %#x\n", *(volatile uint32_t *)(dram + 0x2004));
}

int main(void) {
    if (!find()) {
        puts("no chip");
        return 1;
    }
    printf("slot %s\n", slot);
    const char *names[] = {"vendor", "device", "revision", "class"};
    for (int at = 0; at < 4; at++)
        show(names[at]);
    enable();
    volatile uint32_t *apb = bar("resource0", 8 << 20, 0), *axi = bar("resource2", 256 << 20, 0);
    volatile uint8_t *dram = bar("resource4", 4 << 20, 0);
    volatile uint32_t *channel1 = bar("resource4", 4096, 4ll << 30);
    printf("status %#x\n", apb[(MISC + 0x1C) / 4]);
    apb[(MISC + 0x24) / 4] = 5;
    printf("device_id %#x\n", apb[(MISC + 0x24) / 4]);
    axi[(0x2701100 + 7 * 4) / 4] = 10;
    axi[(0x2701300 + 7 * 4) / 4] = 3;
    printf("semaphore %#x\n", axi[(0x2701000 + 7 * 4) / 4]);
    channel1[3] = 0xFEEDF00D;
    copies(apb, dram);
    printf("semaphore_by_dma %#x\n", axi[(0x2701000 + 7 * 4) / 4]);
    printf("end 0\n");
    return 0;
}
