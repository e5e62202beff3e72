// SPDX-License-Identifier: Apache-2.0
// Callers that mean harm to the ethosu node: hostile MODE. Prints "MODE: survived" and what it saw.
#define _GNU_SOURCE
#include "ethosu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int fd;
static volatile int stop;
static unsigned char seen[256];

static void count(int result) { seen[result < 0 ? errno : 0] = 1; }

static void report(const char *mode) {
    printf("%s:", mode);
    for (int i = 0; i < 256; i++) if (seen[i]) printf(" %s", i ? strerrorname_np(i) : "0");
    printf("\n");
}

static void *scribble(void *place) {
    unsigned seed = 1;
    while (!stop) for (int i = 0; i < 24; i++) ((volatile unsigned char *)place)[i] = rand_r(&seed);
    return NULL;
}

static void *toggle(void *page) {
    while (!stop) mprotect(page, 4096, PROT_NONE), mprotect(page, 4096, PROT_READ | PROT_WRITE);
    return NULL;
}

static void *swap(void *other) {
    while (!stop) dup2(*(int *)other, 40), dup2(fd, 40), close(40);
    return NULL;
}

static void alongside(void *(*what)(void *), void *argument, void (*calls)(void)) {
    pthread_t id;
    pthread_create(&id, NULL, what, argument);
    calls();
    stop = 1;
    pthread_join(id, NULL);
}

static struct cmdstream *shared;
static void submit_shared(void) { for (int i = 0; i < 3000; i++) count(ioctl(fd, CMDSTREAM, shared)); }
static void query_page(void) {
    struct dev_query q = {.size = 12, .pointer = (uintptr_t)shared};
    for (int i = 0; i < 3000; i++) count(ioctl(fd, DEV_QUERY, &q)), q.size = 12;
}
static void call_40(void) {
    uint64_t cap[2] = {5};
    for (int i = 0; i < 5000; i++) count(ioctl(40, GET_CAP, cap));
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    fd = open("/dev/accel/accel0", O_RDWR);
    if (fd < 0) { perror("open"); return 1; }
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!strcmp(mode, "changing")) {
        alongside(scribble, shared, submit_shared);
    } else if (!strcmp(mode, "vanishing")) {
        alongside(toggle, shared, query_page);
    } else if (!strcmp(mode, "reused")) {
        int other = open("/dev/null", O_RDWR);
        alongside(swap, &other, call_40);
    } else if (!strcmp(mode, "limits")) {
        uint64_t sizes[] = {0, 1, 4095, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 45, 1ull << 63, ~0ull};
        for (unsigned i = 0; i < sizeof sizes / 8; i++) {
            struct bo_create bo = {.size = sizes[i]};
            if (sizes[i] < 1 << 20 || sizes[i] > 1ull << 40) count(ioctl(fd, BO_CREATE, &bo));
            for (unsigned j = 0; j < sizeof sizes / 8; j++) {
                struct cmdstream c = {.size = sizes[i], .data = sizes[j]};
                struct submit s = {.jobs = sizes[j], .count = sizes[i]};
                struct dev_query q = {.size = sizes[i], .pointer = sizes[j]};
                struct version v = {.name_len = sizes[i], .name = sizes[j]};
                count(ioctl(fd, CMDSTREAM, &c)), count(ioctl(fd, SUBMIT, &s));
                count(ioctl(fd, DEV_QUERY, &q)), count(ioctl(fd, VERSION, &v));
                count(ioctl(fd, GET_CAP, (void *)sizes[j]));
                mmap(NULL, sizes[i], PROT_READ, MAP_SHARED, fd, sizes[j] & ~4095ull);
            }
        }
    } else if (!strcmp(mode, "huge")) {
        // A reservation costs its owner nothing; copying it would cost the supervisor everything.
        char *reserved = mmap(NULL, 1ull << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        struct submit s = {.jobs = (uintptr_t)reserved, .count = 0xffffffff};
        count(ioctl(fd, SUBMIT, &s));
    } else if (!strcmp(mode, "bomb")) {
        for (int i = 0; i < 100; i++)
            if (!fork()) {
                uint64_t cap[2] = {5};
                for (int j = 0; j < 300; j++) if (ioctl(fd, GET_CAP, cap)) _exit(1);
                if (i % 3 == 0) kill(getpid(), SIGKILL);
                _exit(0);
            }
        int status, bad = 0;
        while (wait(&status) > 0) bad += WIFEXITED(status) && WEXITSTATUS(status);
        seen[bad ? EIO : 0] = 1;
    } else if (!strcmp(mode, "many files")) {
        for (int i = 0; i < 30000; i++) {
            int more = open("/dev/accel/accel0", O_RDWR);
            count(more);
            if (more < 0) break;
        }
    } else if (!strcmp(mode, "many mappings")) {
        for (int i = 0; i < 500; i++) {
            struct bo_create bo = {.size = 1 << 20};
            if (ioctl(fd, BO_CREATE, &bo) < 0) { count(-1); break; }
            struct bo_mmap_offset at = {.handle = bo.handle};
            count(ioctl(fd, BO_MMAP_OFFSET, &at));
            char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at.offset);
            if (map == MAP_FAILED) { count(-1); break; }
            memset(map, i, 1 << 20);
            struct gem_close done = {.handle = bo.handle};
            count(ioctl(fd, GEM_CLOSE, &done));
            if (map[77] != (char)i) return 1;
            munmap(map, 1 << 20);
        }
    }
    report(mode);
    // The supervisor still answers.
    uint64_t cap[2] = {5};
    for (int i = 3; i < 20; i++) if (i != fd) close(i);
    return ioctl(fd, GET_CAP, cap) == 0 && cap[1] == 3 ? 0 : 1;
}
