// SPDX-License-Identifier: Apache-2.0
// System calls on a served node of the reference driver, one line each: "name: result" (errno names).
// rules [full] : with "full" also the calls that only a full-fidelity launch answers.
#define _GNU_SOURCE
#include "ethosu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/select.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define NODE "/dev/accel/accel0"
struct bo { uint64_t size; uint32_t handle, pad; uint64_t offset; };
#define CREATE IOWR(0x40, sizeof(struct bo))

static void say(const char *name, long result) {
    if (result < 0) printf("%s: %s\n", name, strerrorname_np(errno));
    else printf("%s: %ld\n", name, result);
}

static void say_map(const char *name, void *map) {
    if (map == MAP_FAILED) printf("%s: %s\n", name, strerrorname_np(errno));
    else printf("%s: mapped\n", name);
}

static int is_node(const struct stat *st) { return S_ISCHR(st->st_mode) && st->st_rdev == makedev(261, 0); }

int main(int argc, char **argv) {
    int full = argc > 1;
    long page = sysconf(_SC_PAGESIZE);
    int fd = open(NODE, O_RDWR);
    uint64_t cap[2] = {5, 9};
    say("open", fd);
    say("GET_CAP", ioctl(fd, GET_CAP, cap));
    printf("value: %lu\n", (unsigned long)cap[1]);

    say("NULL", ioctl(fd, GET_CAP, NULL));
    say("kernel address", ioctl(fd, GET_CAP, (void *)0xffff800000000000));
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + page, page, PROT_NONE);
    say("straddling", ioctl(fd, GET_CAP, pages + page - 8));
    say("no access", ioctl(fd, GET_CAP, pages + page));
    memcpy(pages, (uint64_t[]){5, 9}, 16);
    mprotect(pages, page, PROT_READ);
    say("read-only", ioctl(fd, GET_CAP, pages));
    printf("unchanged: %lu\n", (unsigned long)((uint64_t *)pages)[1]);

    cap[0] = 0x77;
    say("unknown capability", ioctl(fd, GET_CAP, cap));
    say("unknown core", ioctl(fd, IOWR(0xf0, 16), cap));
    say("unknown driver", ioctl(fd, IOWR(0x9f, 16), cap));
    cap[0] = 5;
    say("sign-extended", syscall(SYS_ioctl, fd, (long)(int)GET_CAP, cap));
    say("other type", ioctl(fd, 0x6500, cap));
    say("size 0", ioctl(fd, 0x640c, cap));
    int count;
    say("FIONREAD", ioctl(fd, FIONREAD, &count));
    say("TCGETS", ioctl(fd, 0x5401, pages));
    say("FIONBIO", ioctl(fd, FIONBIO, &(int){1}));
    say("our ioctl on fd 0", ioctl(0, GET_CAP, cap));
    say("our ioctl on fd 99", ioctl(99, GET_CAP, cap));
    say("our ioctl on fd -1", ioctl(-1, GET_CAP, cap));

    int reused = dup(fd), null = open("/dev/null", O_RDWR);
    say("dup", ioctl(reused, GET_CAP, cap));
    dup2(null, reused);
    say("number reused", ioctl(reused, GET_CAP, cap));
    dup2(fd, reused);
    say("and back", ioctl(reused, GET_CAP, cap));
    close(reused);
    say("closed", ioctl(reused, GET_CAP, cap));

    say("O_RDONLY", open(NODE, O_RDONLY));
    say("O_WRONLY", open(NODE, O_WRONLY));
    say("O_EXCL", open(NODE, O_RDWR | O_EXCL));
    say("O_CREAT|O_EXCL", open(NODE, O_RDWR | O_CREAT | O_EXCL, 0600));
    say("O_CREAT", open(NODE, O_RDWR | O_CREAT, 0600));
    say("O_DIRECTORY", open(NODE, O_RDWR | O_DIRECTORY));
    say("O_PATH ioctl", ioctl(open(NODE, O_PATH), GET_CAP, cap));
    say("accel1", open("/dev/accel/accel1", O_RDWR));
    int dir = open("/dev/accel", O_RDONLY | O_DIRECTORY);
    int relative = openat(dir, "accel0", O_RDWR);
    say("relative", ioctl(relative, GET_CAP, cap));
    say("dotted", ioctl(open("/dev/./accel//../accel/accel0", O_RDWR), GET_CAP, cap));
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int again = open(self, O_RDWR);
    say("reopened", ioctl(again, GET_CAP, cap));
    struct bo mine = {.size = 5000};
    say("CREATE", ioctl(fd, CREATE, &mine));
    struct gem_close other = {.handle = mine.handle};
    say("a file of its own", ioctl(again, GEM_CLOSE, &other));
    FILE *stream = fopen(NODE, "r+");
    say("fopen", stream ? ioctl(fileno(stream), GET_CAP, cap) : -1);

    struct stat by_fd, by_path;
    say("fstat", fstat(fd, &by_fd));
    say("stat", stat(NODE, &by_path));
    printf("nodes: %d %d, same: %d\n", is_node(&by_fd), is_node(&by_path),
           by_fd.st_dev == by_path.st_dev && by_fd.st_ino == by_path.st_ino);
    struct statx extended;
    say("statx", statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &extended));
    printf("statx node: %d\n", S_ISCHR(extended.stx_mode) && extended.stx_rdev_major == 261);
    printf("flags: %d\n", fcntl(fd, F_GETFL) & O_ACCMODE);
    printf("cloexec: %d %d\n", fcntl(fd, F_GETFD), fcntl(open(NODE, O_RDWR | O_CLOEXEC), F_GETFD));
    say("ftruncate", ftruncate(fd, 0));
    say("fallocate", fallocate(fd, 0, 0, 4096));

#define MAP(name, length, prot, flags, offset) say_map(name, mmap(NULL, length, prot, flags, fd, offset))
    int rw = PROT_READ | PROT_WRITE;
    char *map = mmap(NULL, 5000, rw, MAP_SHARED, fd, mine.offset);
    say_map("mmap", map);
    MAP("mmap too long", 8193, rw, MAP_SHARED, mine.offset);
    MAP("mmap middle", 4096, rw, MAP_SHARED, mine.offset + 4096);
    MAP("mmap offset 0", 4096, rw, MAP_SHARED, 0);
    MAP("mmap private", 4096, rw, MAP_PRIVATE, mine.offset);
    say_map("mmap of another file", mmap(NULL, 4096, rw, MAP_SHARED, again, mine.offset));
    strcpy(map, "still here");
    struct gem_close mine_close = {.handle = mine.handle};
    say("GEM_CLOSE", ioctl(fd, GEM_CLOSE, &mine_close));
    say("GEM_CLOSE twice", ioctl(fd, GEM_CLOSE, &mine_close));
    MAP("mmap after close", 4096, rw, MAP_SHARED, mine.offset);
    struct bo next = {.size = 4096};
    say("CREATE beside a mapping", ioctl(fd, CREATE, &next));
    printf("other pages: %d\n", next.offset != mine.offset);
    close(fd);
    printf("mapping: %s\n", map);
    say("after close", ioctl(fd, GET_CAP, cap));
    fd = open(NODE, O_RDWR);
    pid_t child = fork();
    if (child == 0) _exit(ioctl(fd, CREATE, &next) == 0 ? 17 : 1);
    int status;
    waitpid(child, &status, 0);
    printf("child: %d\n", WEXITSTATUS(status));
    struct gem_close childs = {.handle = next.handle};
    say("the child's handle", ioctl(fd, GEM_CLOSE, &childs));

    char byte;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    say("read", read(fd, &byte, 1));
    say("write", write(fd, "x", 1));
    say("lseek", lseek(fd, 100, SEEK_SET));
    say("pread", pread(fd, &byte, 1, 1ll << 32));
    say("pwrite", pwrite(fd, "x", 1, 1ll << 32));
    printf("F_GETFL: %#o\n", fcntl(fd, F_GETFL));
    int copies[] = {dup(fd), fcntl(fd, F_DUPFD, 3), fcntl(fd, F_DUPFD_CLOEXEC, 700)};
    for (int i = 0; i < 3; i++) {
        int kind = fstat(copies[i], &by_fd) ? -1 : is_node(&by_fd);
        printf("copy: %d, cloexec %d\n", kind, fcntl(copies[i], F_GETFD));
    }
    printf("in order: %d\n", copies[2] >= 700);

    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    say("poll", poll(&p, 1, 10));
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    FD_SET(1, &out);
    struct timeval soon = {.tv_sec = 1};
    say("select", select(fd + 1, &in, &out, 0, &soon));
    printf("selected: %d %d %d, in time: %d\n", FD_ISSET(fd, &in), FD_ISSET(fd, &out), FD_ISSET(1, &out), soon.tv_sec == 0);
    FD_CLR(1, &out);
    FD_SET(fd, &in);
    soon = (struct timeval){.tv_usec = 10000};
    say("select in vain", select(fd + 1, &in, &out, 0, &soon));
    printf("left: %ld\n", (long)soon.tv_usec);
    FD_SET(copies[2] - 1, &in);
    FD_SET(fd, &in);
    say("select of a closed file", select(1024, &in, 0, 0, &soon));

    if (full) {
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        char text[64] = "";
        say("readlink", readlink(self, text, sizeof text - 1));
        printf("link: %s\n", text);
        say("O_RDONLY|O_CLOEXEC", ioctl(open(NODE, O_RDONLY | O_CLOEXEC), GET_CAP, cap));
        int low = dup2(fd, 30);
        fstat(low, &by_fd);
        printf("dup2: %d\n", is_node(&by_fd));
        say("pwrite at a low number", pwrite(low, "x", 1, 1ll << 32));
    }
    return 0;
}
