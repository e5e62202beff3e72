// SPDX-License-Identifier: Apache-2.0
// Runs a prepared job in the order of calls of Mesa's Teflon: mesa_like JOB OUTPUT [THREADS]
// JOB: six u32 (stream, constants, arena, SRAM, input and output sizes), two u32 (their arena offsets),
// then stream, constants, input. Probes accel0..255 twice, closing twice, as Mesa's loader does.
#include "ethosu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define CHECK(x) do { if (!(x)) { fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, strerror(errno)); exit(1); } } while (0)

static struct { uint32_t stream, constants, arena, sram, input, output, input_at, output_at; } head;
static unsigned char *stream, *constants, *input, **results;
static int screen;

static int call(int fd, unsigned long request, void *arg) {
    int result;
    do result = ioctl(fd, request, arg); while (result < 0 && (errno == EINTR || errno == EAGAIN));
    return result;
}

static int is_ethosu(int fd) {
    char name[64] = "", date[64], desc[128];
    struct version v = {0};
    if (call(fd, VERSION, &v) < 0) return 0;
    v.name = (uintptr_t)name, v.date = (uintptr_t)date, v.desc = (uintptr_t)desc;
    CHECK(v.name_len < sizeof name && v.desc_len < sizeof desc);
    CHECK(call(fd, VERSION, &v) == 0);
    return strcmp(name, "ethosu") == 0;
}

static int probe(void) {
    int found = -1;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < 256; i++) {
            char path[64];
            snprintf(path, sizeof path, "/dev/accel/accel%d", i);
            int fd = open(path, O_RDWR | O_CLOEXEC);
            if (fd < 0) { CHECK(errno == ENOENT); continue; }
            if (pass == 1 && is_ethosu(fd)) { found = fd; continue; }
            close(fd);
            CHECK(close(fd) < 0 && errno == EBADF);
        }
    return found;
}

static uint32_t create(uint64_t size, void **map) {
    struct bo_create bo = {.size = size};
    CHECK(call(screen, BO_CREATE, &bo) == 0);
    struct bo_mmap_offset at = {.handle = bo.handle};
    CHECK(call(screen, BO_MMAP_OFFSET, &at) == 0);
    *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, screen, at.offset);
    CHECK(*map != MAP_FAILED);
    return bo.handle;
}

static void wait_for(uint32_t handle) {
    struct bo_wait w = {.handle = handle, .timeout_ns = FOREVER};
    CHECK(call(screen, BO_WAIT, &w) == 0);
}

static void *run(void *result) {
    void *coefs = NULL, *io;
    struct cmdstream cmd = {.size = head.stream, .data = (uintptr_t)stream};
    CHECK(call(screen, CMDSTREAM, &cmd) == 0);
    uint32_t coefs_bo = head.constants ? create(head.constants, &coefs) : 0;
    uint32_t io_bo = create(head.arena, &io);
    if (coefs_bo) wait_for(coefs_bo), memcpy(coefs, constants, head.constants);
    wait_for(io_bo);
    memcpy((char *)io + head.input_at, input, head.input);
    struct job job = {.cmd_bo = cmd.handle, .sram_size = head.sram, .regions = {coefs_bo, io_bo}};
    struct submit submit = {.jobs = (uintptr_t)&job, .count = 1};
    CHECK(call(screen, SUBMIT, &submit) == 0);
    struct gem_close close_cmd = {.handle = cmd.handle};
    CHECK(call(screen, GEM_CLOSE, &close_cmd) == 0);
    wait_for(io_bo);
    memcpy(result, (char *)io + head.output_at, head.output);
    if (coefs) munmap(coefs, head.constants);
    munmap(io, head.arena);
    struct gem_close close_coefs = {.handle = coefs_bo}, close_io = {.handle = io_bo};
    if (coefs_bo) CHECK(call(screen, GEM_CLOSE, &close_coefs) == 0);
    CHECK(call(screen, GEM_CLOSE, &close_io) == 0);
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc > 3 ? atoi(argv[3]) : 1;
    FILE *file = fopen(argv[1], "rb");
    CHECK(file && fread(&head, sizeof head, 1, file) == 1);
    stream = malloc(head.stream), constants = malloc(head.constants + 1), input = malloc(head.input);
    CHECK(fread(stream, head.stream, 1, file) == 1);
    CHECK(!head.constants || fread(constants, head.constants, 1, file) == 1);
    CHECK(fread(input, head.input, 1, file) == 1);

    int fd = probe();
    if (fd < 0) { fprintf(stderr, "no ethosu node\n"); return 1; }
    screen = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    CHECK(screen >= 3 && close(fd) == 0);
    struct stat st;
    CHECK(fstat(screen, &st) == 0 && S_ISCHR(st.st_mode) && major(st.st_rdev) == 261);
    struct npu_info info;
    struct dev_query query = {.size = sizeof info, .pointer = (uintptr_t)&info};
    CHECK(call(screen, DEV_QUERY, &query) == 0 && info.id >> 28 == 1);

    pthread_t ids[threads];
    results = calloc(threads, sizeof *results);
    for (int i = 0; i < threads; i++) {
        results[i] = malloc(head.output);
        CHECK(pthread_create(&ids[i], NULL, run, results[i]) == 0);
    }
    FILE *out = fopen(argv[2], "wb");
    for (int i = 0; i < threads; i++) {
        CHECK(pthread_join(ids[i], NULL) == 0);
        CHECK(fwrite(results[i], head.output, 1, out) == 1);
    }
    CHECK(fclose(out) == 0);
    CHECK(close(screen) == 0);
    return 0;
}
