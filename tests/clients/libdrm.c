// SPDX-License-Identifier: Apache-2.0
// What libdrm makes of a served node, one line each: libdrm calls | restart
// A negative result shows its errno's name; libdrm itself returns either -1 and errno, or -errno.
// "restart" needs the reference driver, whose WAIT ends at a time on CLOCK_MONOTONIC.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <xf86drm.h>

#define NODE "/dev/accel/accel0"
#define BO_CREATE DRM_IOWR(0x41, struct bo)
#define WAIT DRM_IOWR(0x45, uint64_t)
struct bo { uint64_t size; uint32_t flags, handle; };

static volatile int hits;

static void hit(int number) { (void)number; hits++; }

static void say(const char *name, long result) {
    if (result < 0) printf("%s: %s\n", name, strerrorname_np(result == -1 ? errno : (int)-result));
    else printf("%s: %ld\n", name, result);
}

static void say_text(const char *name, char *text) {
    printf("%s: %s\n", name, text ? text : "NULL");
    drmFree(text);
}

static void calls(int fd) {
    drmVersionPtr version = drmGetVersion(fd);
    if (!version) { say("drmGetVersion", -1); return; }
    printf("version: %d.%d.%d\n", version->version_major, version->version_minor, version->version_patchlevel);
    printf("name: %d %s\n", version->name_len, version->name);
    printf("date: %d %s\n", version->date_len, version->date);
    printf("desc: %d %s\n", version->desc_len, version->desc);
    drmFreeVersion(version);

    const struct { const char *name; uint64_t number; } caps[] = {
        {"PRIME", DRM_CAP_PRIME}, {"TIMESTAMP_MONOTONIC", DRM_CAP_TIMESTAMP_MONOTONIC},
        {"SYNCOBJ", DRM_CAP_SYNCOBJ}, {"SYNCOBJ_TIMELINE", DRM_CAP_SYNCOBJ_TIMELINE},
        {"DUMB_BUFFER", DRM_CAP_DUMB_BUFFER}, {"ADDFB2_MODIFIERS", DRM_CAP_ADDFB2_MODIFIERS},
    };
    for (unsigned i = 0; i < sizeof caps / sizeof *caps; i++) {
        uint64_t value = 99;
        int result = drmGetCap(fd, caps[i].number, &value);
        say(caps[i].name, result ? result : (long)value);
    }
    say("drmSetClientCap", drmSetClientCap(fd, DRM_CLIENT_CAP_ATOMIC, 1));

    struct bo bo = {.size = 5000};
    say("BO_CREATE", drmIoctl(fd, BO_CREATE, &bo));
    printf("size: %lu, handle: %u\n", (unsigned long)bo.size, bo.handle);
    int exported = -1;
    uint32_t imported = 0, syncobj = 0;
    struct stat file;
    say("drmPrimeHandleToFD", drmPrimeHandleToFD(fd, bo.handle, DRM_CLOEXEC | DRM_RDWR, &exported));
    if (exported >= 0) printf("dma-buf: %d bytes\n", fstat(exported, &file) ? -1 : (int)file.st_size);
    say("drmPrimeFDToHandle", drmPrimeFDToHandle(fd, exported < 0 ? fd : exported, &imported));
    if (exported >= 0) printf("same handle: %d\n", imported == bo.handle), close(exported);
    say("drmPrimeHandleToFD of no handle", drmPrimeHandleToFD(fd, 77, DRM_CLOEXEC, &exported));
    say("drmCloseBufferHandle", drmCloseBufferHandle(fd, bo.handle));
    say("drmCloseBufferHandle again", drmCloseBufferHandle(fd, bo.handle));
    say("drmSyncobjCreate", drmSyncobjCreate(fd, 0, &syncobj));

    drm_magic_t magic = 0;
    say("drmIsMaster", drmIsMaster(fd));
    say("drmGetMagic", drmGetMagic(fd, &magic));
    say_text("drmGetBusid", drmGetBusid(fd));

    drmDevicePtr device, devices[4];
    say("drmGetNodeTypeFromFd", drmGetNodeTypeFromFd(fd));
    say("drmGetDevice2", drmGetDevice2(fd, 0, &device));
    say("drmGetDevices2", drmGetDevices2(0, devices, 4));
    say_text("drmGetDeviceNameFromFd2", drmGetDeviceNameFromFd2(fd));
    say_text("drmGetRenderDeviceNameFromFd", drmGetRenderDeviceNameFromFd(fd));
    say("drmAvailable", drmAvailable());
    say("drmClose", drmClose(fd));
    say("drmGetVersion after it", drmGetVersion(fd) ? 0 : -1);
}

static uint64_t in(int ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec + ms * 1000000ull;
}

static void restart(int fd) {
    struct sigaction action = {.sa_handler = hit};  // no SA_RESTART: the call itself ends with EINTR
    struct itimerval every = {{.tv_usec = 30000}, {.tv_usec = 30000}}, never = {{0}, {0}};
    uint64_t end = in(400);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    say("ioctl", ioctl(fd, WAIT, &end));
    int once = hits;
    say("drmIoctl", drmIoctl(fd, WAIT, &end));
    uint64_t after = in(0);
    setitimer(ITIMER_REAL, &never, NULL);
    printf("interrupted: %d, more than once: %d, in time: %d\n", once == 1, hits > 2, after >= end);
}

int main(int argc, char **argv) {
    int fd = open(NODE, O_RDWR | O_CLOEXEC);
    if (fd < 0 || argc != 2) { perror(NODE); return 1; }
    if (!strcmp(argv[1], "calls")) calls(fd);
    else restart(fd);
    return 0;
}
