// SPDX-License-Identifier: Apache-2.0
// 64 threads in waits on sync objects of the reference driver: syncobj_waits points|deadlines|kill|idle|long
// [eintr|restart]. Prints "lost 0 early 0", what else went wrong, and how often a signal interrupted a wait.
// A wait that is stuck ends with SIGALRM.
#define _GNU_SOURCE
#include "ethosu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 64, ROUNDS = 20, FOR_SUBMIT = 2, PATIENCE = 100 };
#define MS 1000000LL

struct create { uint32_t handle, flags; };
struct array { uint64_t handles; uint32_t count, pad; };
struct points { uint64_t handles, points; uint32_t count, flags; };
struct waiting { uint64_t handles; int64_t timeout; uint32_t count, flags, first, pad; uint64_t deadline; };
struct point_wait { uint64_t handles, points; int64_t timeout; uint32_t count, flags, first, pad; uint64_t deadline; };
#define CREATE IOWR(0xbf, sizeof(struct create))
#define WAIT IOWR(0xc3, sizeof(struct waiting))
#define RESET IOWR(0xc4, sizeof(struct array))
#define SIGNAL IOWR(0xc5, sizeof(struct array))
#define POINT_WAIT IOWR(0xca, sizeof(struct point_wait))
#define POINT_SIGNAL IOWR(0xcd, sizeof(struct points))

static int fd;
static uint32_t objects[THREADS], shared;
static pthread_t threads[THREADS];
static void (*part)(int number);
static atomic_int lost, early, interrupted, hits, turns[THREADS], finished, over;

static void hit(int number) { (void)number; hits++; }

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t for_long(void) { return now() + 2 * PATIENCE * 1000 * MS; }

// As libdrm does: what a signal interrupted is asked again.
static int call(unsigned request, void *args) {
    int result;
    while ((result = ioctl(fd, request, args)) && errno == EINTR) interrupted++;
    return result ? errno : 0;
}

static void expect(int error, int result) {
    if (result == error) return;
    fprintf(stderr, "%s instead of %s\n", result ? strerrorname_np(result) : "0", error ? strerrorname_np(error) : "0");
    lost++;
}

static void change(unsigned request, uint32_t handle) {
    struct array args = {(uintptr_t)&handle, 1, 0};
    expect(0, call(request, &args));
}

static int wait_for(uint32_t first, uint32_t second, int64_t until) {
    uint32_t handles[] = {first, second};
    struct waiting args = {(uintptr_t)handles, until, second ? 2 : 1, FOR_SUBMIT, 0, 0, 0};
    return call(WAIT, &args);
}

static void follow(int turn, int round) { while (turns[turn] < round) usleep(200); }

// Odd threads signal points, one after the other, even ones wait for each.
static void points(int number) {
    uint32_t handle = objects[number / 2];
    unsigned seed = number;
    for (uint64_t point = 1; point <= ROUNDS; point++) {
        struct points signal = {(uintptr_t)&handle, (uintptr_t)&point, 1, 0};
        struct point_wait wait = {(uintptr_t)&handle, (uintptr_t)&point, for_long(), 1, FOR_SUBMIT, 0, 0, 0};
        if (number % 2) usleep(rand_r(&seed) % 5000), expect(0, call(POINT_SIGNAL, &signal)), follow(number / 2, point);
        else expect(0, call(POINT_WAIT, &wait)), turns[number / 2]++;
    }
}

// Half of the threads wait in vain; of the others every second waits and its neighbour signals.
static void deadlines(int number) {
    unsigned seed = number;
    for (int round = 1; round <= ROUNDS; round++) {
        int patience = 1 + rand_r(&seed) % 20;
        int64_t until = now() + patience * MS;
        switch (number % 4) {
        case 0: expect(0, wait_for(objects[number], 0, for_long())), change(RESET, objects[number]), turns[number]++; break;
        case 1: usleep(patience * 500), change(SIGNAL, objects[number - 1]), follow(number - 1, round); break;
        default: expect(ETIME, wait_for(objects[number], 0, until)), early += now() < until;
        }
    }
}

static void common(int number) { expect(0, wait_for(objects[number], shared, number % 2 ? INT64_MAX : for_long())); }

static void *work(void *number) {
    part((long)number);
    finished++;
    while (!over) usleep(1000);
    return NULL;
}

static void start(void (*what)(int)) {
    part = what;
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)i);
}

// A signal for one of the threads each 200 us, as long as one of them works.
static void finish(const char *signals) {
    struct sigaction action = {.sa_handler = hit, .sa_flags = signals && !strcmp(signals, "restart") ? SA_RESTART : 0};
    sigaction(SIGUSR1, &action, NULL);
    for (unsigned i = 0; finished < THREADS; i++) {
        usleep(200);
        if (signals) pthread_kill(threads[i % THREADS], SIGUSR1);
    }
    over = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    printf("interrupted: %d, signals: %d\n", interrupted, hits > 0);
}

// Processes wait for a common object, half of them are killed.
static void killed(void) {
    pid_t ids[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (!(ids[i] = fork())) common(i), _exit(lost);
    usleep(300000);
    for (int i = 0; i < THREADS; i += 2) kill(ids[i], SIGKILL);
    usleep(100000);
    change(SIGNAL, shared);
    for (int i = 0; i < THREADS; i++) {
        int status;
        waitpid(ids[i], &status, 0);
        if (status == (i % 2 ? 0 : SIGKILL)) continue;
        fprintf(stderr, "process %d ended with %#x\n", i, status);
        lost++;
    }
}

// A wait of seconds, which nobody looks after often, ends soon after a signal.
static void long_wait(void) {
    struct sigaction action = {.sa_handler = hit};
    struct waiting args = {(uintptr_t)&shared, for_long(), 1, FOR_SUBMIT, 0, 0, 0};
    int64_t end = now() + 2000 * MS;
    sigaction(SIGALRM, &action, NULL), alarm(2);
    expect(EINTR, ioctl(fd, WAIT, &args) ? errno : 0);
    early = now() < end;
    printf("prompt: %d\n", now() < end + 1000 * MS);
}

int main(int argc, char **argv) {
    alarm(PATIENCE);
    fd = open("/dev/accel/accel0", O_RDWR | O_CLOEXEC);
    for (int i = 0; i <= THREADS; i++) {
        struct create made = {0};
        expect(0, call(CREATE, &made));
        *(i < THREADS ? &objects[i] : &shared) = made.handle;
    }
    const char *signals = argc > 2 ? argv[2] : NULL;
    if (!strcmp(argv[1], "points")) start(points), finish(signals);
    else if (!strcmp(argv[1], "deadlines")) start(deadlines), finish(signals);
    else if (!strcmp(argv[1], "kill")) killed();
    else if (!strcmp(argv[1], "long")) long_wait();
    else if (!strcmp(argv[1], "idle")) {
        start(common);
        usleep(500000), printf("idle\n"), fflush(stdout), getchar();
        change(SIGNAL, shared);
        finish(NULL);
    }
    printf("lost %d early %d\n", lost, early);
    return lost || early;
}
