// SPDX-License-Identifier: Apache-2.0
// Calls that block, and what ends them: blocked MODE. The reference driver's WAIT is ended by SIGNAL.
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
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WAIT IOWR(0x45, 8)
#define SIGNAL IOWR(0x46, 8)

static int fd;
static volatile int hits;

static void hit(int number) { (void)number; hits++; }

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void say(const char *name, long result) {
    printf("%s: %s\n", name, result < 0 ? strerrorname_np(errno) : "0");
    fflush(stdout);
}

static void *waiter(void *unused) {
    uint64_t forever = 0;
    return (void *)(long)(ioctl(fd, WAIT, &forever) == 0 ? 0 : errno);
}

static void handle(int flags) {
    struct sigaction action = {.sa_handler = hit, .sa_flags = flags};
    sigaction(SIGALRM, &action, NULL);
}

static void alarm_in(int ms) {
    struct itimerval timer = {.it_value = {.tv_usec = ms * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

int main(int argc, char **argv) {
    (void)argc;
    fd = open("/dev/accel/accel0", O_RDWR);
    uint64_t value = 0, end = now() + 100000000;
    if (!strcmp(argv[1], "deadline")) {
        say("past", ioctl(fd, WAIT, &(uint64_t){1}));
        say("100 ms", ioctl(fd, WAIT, &end));
        printf("in time: %d\n", now() >= (int64_t)end && now() < (int64_t)end + 60000000);
    } else if (!strcmp(argv[1], "threads")) {
        pthread_t ids[20];
        for (int i = 0; i < 20; i++) pthread_create(&ids[i], NULL, waiter, NULL);
        do usleep(1000), ioctl(fd, SIGNAL, &value); while (value < 20);
        void *result;
        long errors = 0;
        for (int i = 0; i < 20; i++) pthread_join(ids[i], &result), errors += (long)result;
        printf("errors: %ld\n", errors);
    } else if (!strcmp(argv[1], "eintr")) {
        handle(0), alarm_in(50);
        say("WAIT", ioctl(fd, WAIT, &value));
        printf("handled: %d\n", hits);
    } else if (!strcmp(argv[1], "restart")) {
        handle(SA_RESTART), alarm_in(30);
        say("WAIT", ioctl(fd, WAIT, &end));
        printf("handled: %d, in time: %d\n", hits, now() >= (int64_t)end);
    } else if (!strcmp(argv[1], "storm")) {
        // 5000 CREATEs, or as many as 1000 signals need, under a storm of signals: each is carried out once.
        struct { uint64_t size; uint32_t handle, pad; uint64_t offset; } bo = {.size = 4096};
        handle(SA_RESTART);
        pid_t child = fork();
        if (!child) for (;;) usleep(20), kill(getppid(), SIGALRM);
        int good = 1;
        for (uint32_t i = 0; i < 5000 || (hits <= 1000 && i < 1000000); i++) {
            struct gem_close done;
            good &= ioctl(fd, IOWR(0x40, sizeof bo), &bo) == 0 && bo.handle == 1;
            done = (struct gem_close){.handle = bo.handle};
            good &= ioctl(fd, GEM_CLOSE, &done) == 0;
            bo.size = 4096;
        }
        kill(child, SIGKILL), waitpid(child, NULL, 0);
        printf("once each: %d, many signals: %d\n", good, hits > 1000);
    } else if (!strcmp(argv[1], "stop")) {
        pid_t child = fork();
        if (!child) _exit((long)waiter(NULL));
        usleep(50000), kill(child, SIGSTOP), usleep(50000), kill(child, SIGCONT), usleep(50000);
        ioctl(fd, SIGNAL, &value);
        int status;
        waitpid(child, &status, 0);
        printf("status: %#x\n", status);
    } else if (!strcmp(argv[1], "kill")) {
        int64_t worst = 0;
        for (int i = 0; i < 50; i++) {
            pid_t child = fork();
            if (!child) _exit((long)waiter(NULL));
            usleep(5000);
            int64_t start = now();
            kill(child, SIGKILL), waitpid(child, NULL, 0);
            if (now() - start > worst) worst = now() - start;
        }
        printf("prompt: %d\n", worst < 100000000);
    } else if (!strcmp(argv[1], "forever")) {
        printf("waiting\n"), fflush(stdout);
        ioctl(fd, WAIT, &value);
    }
    return 0;
}
