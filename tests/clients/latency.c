// SPDX-License-Identifier: Apache-2.0
// Prints the time of each of COUNT 32-byte in/out ioctls on PATH, in ns: latency PATH COUNT PAUSE_US [N]
// With N, so many processes make COUNT calls each, and it prints how many a second that were in all.
// GET_CAP takes any size: its 16 bytes come first, the rest comes back as sent.
#include "ethosu.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
    int count = atoi(argv[2]), pause = atoi(argv[3]);
    int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    if (argc < 4 || fd < 0) { perror(argv[1]); return 1; }
    if (argc > 4) {
        int64_t begin = now();
        int processes = atoi(argv[4]), status, bad = 0;
        for (int i = 0; i < processes; i++)
            if (!fork()) {
                uint64_t arg[4] = {5};
                for (int j = 0; j < count; j++) if (ioctl(fd, IOWR(0x0c, 32), arg)) _exit(1);
                _exit(0);
            }
        while (wait(&status) > 0) bad |= status;
        printf("%lld\n", 1000000000LL * count * processes / (long long)(now() - begin));
        return bad != 0;
    }
    int64_t *times = malloc(count * sizeof *times);
    for (int i = 0; i < count; i++) {
        uint64_t arg[4] = {5, 99, 7, 8};
        if (pause) usleep(pause);
        int64_t start = now();
        int result = ioctl(fd, IOWR(0x0c, 32), arg);
        times[i] = now() - start;
        if (result == 0 && (arg[1] != 3 || arg[3] != 8)) { fprintf(stderr, "wrong answer\n"); return 1; }
    }
    for (int i = 0; i < count; i++) printf("%lld\n", (long long)times[i]);
    return 0;
}
