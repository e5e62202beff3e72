// SPDX-License-Identifier: Apache-2.0
// Ioctls at random, from a table: fuzz TABLE SEED COUNT...   ("python -m tests.serve.million" writes TABLE.)
// Processes of two threads each, that share descriptors, are interrupted by signals, and of which every fourth
// is killed. After each COUNT calls, when all is closed, it prints a line and waits for one. Ends with a line
// for each row of the table: name, calls, successes, the slowest call in us, errno=count...
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NODE, DMA_BUF, SYNC_FILE, SW_SYNC, SYNCOBJ, CLASSES };
enum { ROWS = 96, FIELDS = 16, ERRNOS = 256, POOL = 12, NODES = 4, HEAVIEST = 4, PROCESSES = 4, LIFE = 4000, FILLED = 512, LARGEST = 1 << 14, ROOM = 1 << 16 };
enum { PRIME_TO_FD = 0x2d, SYNCOBJ_TO_FD = 0xc1 };
#define STUCK 60000000000LL

struct field { int offset, size; char kind; };
struct row { char name[64]; int class, weight, gives, fd_at, mmap_at, fields; uint32_t number; struct field field[FIELDS]; };
struct shared {
    atomic_long calls, leaked;
    atomic_long counts[ROWS][ERRNOS], slowest[ROWS];
};

static struct row rows[ROWS];
static int row_count, mmap_row, poll_row, other_row, bare_count, shared_node, event;
static uint32_t bare[256];
static char node_path[64];
static struct shared *shared;
static unsigned char stream[1 << 16];
static uint32_t stream_size;
static atomic_int pool[CLASSES][POOL];
static _Atomic uint64_t mmap_offset;
static unsigned char *room;
static _Thread_local uint64_t state;
static const uint64_t LIMITS[] = {0, 1, 2, 3, 5, 16, 4095, 4096, 4097, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
static const uint64_t BAD[] = {0, 8, 1ull << 47, UINT64_MAX - 7, 0xffff800000000000};
#define PICK(array) array[dice(sizeof(array) / sizeof(*array))]

static uint64_t dice(uint64_t sides) {  // xorshift64*
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (state * 0x2545f4914f6cdd1d >> 16) % sides;
}

static int chance(int percent) { return (int)dice(100) < percent; }

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) { perror(what), exit(1); }

static void load(const char *path) {
    FILE *file = fopen(path, "r");
    char word[16];
    if (!file || fscanf(file, "%63s", node_path) != 1) die(path);
    while (fscanf(file, "%15s", word) == 1) {
        struct row *row = &rows[row_count];
        if (!strcmp(word, "bare") && fscanf(file, "%x", &bare[bare_count++]) == 1) continue;
        if (!strcmp(word, "stream") && fscanf(file, "%u", &stream_size) == 1) {
            for (uint32_t i = 0; i < stream_size; i++)
                if (fscanf(file, "%2hhx", &stream[i]) != 1) die(path);
            continue;
        }
        if (fscanf(file, "%63s %d %d %x %d %d %d %d", row->name, &row->class, &row->weight, &row->number, &row->gives,
                   &row->fd_at, &row->mmap_at, &row->fields) != 8 || row_count >= ROWS - 4 || row->fields > FIELDS) die(path);
        for (int i = 0; i < row->fields; i++)
            if (fscanf(file, "%d %d %c", &row->field[i].offset, &row->field[i].size, &row->field[i].kind) != 3) die(path);
        row_count++;
    }
    fclose(file);
    strcpy(rows[mmap_row = row_count++].name, "mmap");
    strcpy(rows[poll_row = row_count++].name, "poll");
    strcpy(rows[other_row = row_count++].name, "other-numbers");
}

static int any(int class) {
    for (int i = 0, at = dice(POOL); i < POOL; i++) {
        int fd = pool[class][(at + i) % POOL];
        if (fd >= 0) return fd;
    }
    return -1;
}

static void put(int class, int fd) {
    int old = atomic_exchange(&pool[class][dice(class == NODE ? NODES : POOL)], fd);
    if (old >= 0) close(old);
}

static uint64_t place(void) { return (uintptr_t)room + 512 + dice(ROOM - 8192) / 8 * 8; }

static uint64_t handles(void) {
    uint32_t *words = (uint32_t *)place();
    for (int i = 0; i < 8; i++) words[i] = chance(95) ? 1 + dice(5) : dice(7);
    return (uintptr_t)words;
}

static uint64_t points(void) {
    uint64_t *words = (uint64_t *)place();
    for (int i = 0; i < 8; i++) words[i] = chance(95) ? dice(6) : PICK(LIMITS);
    return (uintptr_t)words;
}

static uint64_t jobs(void) {  // room for two struct drm_ethosu_job
    uint32_t *words = (uint32_t *)place();
    for (int i = 0; i < 20; i++) words[i] = 1 + dice(7);
    if (chance(80)) for (int job = 0; job < 2; job++) words[10 * job + 1] = 0, words[10 * job + 4] = 0, memset(&words[10 * job + 5], 0, 20);
    return (uintptr_t)words;
}

static uint64_t value(char kind) {
    static const uint64_t SIZES[] = {0, 1, 4096, 5000, 65536, 65536, 1 << 20, 1 << 20, 1 << 20, UINT64_MAX};
    static const uint64_t COUNTS[] = {0, 1, 1, 1, 1, 2, 3, 8, UINT32_MAX};
    static const uint64_t FLAGS[] = {0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 8, O_CLOEXEC, UINT32_MAX};
    switch (kind) {
    case 'p': return chance(90) ? place() : PICK(BAD);
    case 'H': return chance(95) ? handles() : PICK(BAD);
    case 'P': return chance(95) ? points() : PICK(BAD);
    case 'J': return chance(95) ? jobs() : PICK(BAD);
    case 'D': return chance(90) ? (uintptr_t)stream : place();
    case 'S': return chance(90) ? stream_size : PICK(SIZES);
    case 'f': return chance(80) ? (uint64_t)any(1 + dice(CLASSES - 1)) : chance(90) ? (uint64_t)event : PICK(LIMITS);
    case 'e': return chance(80) ? (uint64_t)event : value('f');
    case 'h': return chance(90) ? 1 + dice(5) : PICK(LIMITS);
    case 'z': return PICK(SIZES);
    case 'c': return PICK(COUNTS);
    case 'g': return PICK(FLAGS);
    case 'd': return chance(2);
    case 't': return chance(30) ? 0 : chance(90) ? (uint64_t)now() + dice(1000000) : chance(50) ? INT64_MAX : PICK(LIMITS);
    default: return chance(90) ? dice(6) : PICK(LIMITS);
    }
}

static void record(int row, int result, int64_t start) {
    int64_t time = now() - start;
    atomic_fetch_add(&shared->counts[row][result < 0 ? errno : 0], 1);
    if (time > shared->slowest[row]) shared->slowest[row] = time;
    atomic_fetch_add(&shared->calls, 1);
}

static void map_one(void) {
    int buffer = chance(30) ? any(DMA_BUF) : -1, fd = buffer >= 0 ? buffer : any(NODE);
    int64_t start = now();
    unsigned char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, buffer >= 0 ? 0 : (off_t)mmap_offset);
    record(mmap_row, map == MAP_FAILED ? -1 : 0, start);
    if (map == MAP_FAILED) return;
    map[dice(4096)]++;
    munmap(map, 4096);
}

static void poll_one(void) {
    struct pollfd file = {.fd = any(SYNC_FILE), .events = POLLIN};
    int64_t start = now();
    record(poll_row, poll(&file, 1, dice(2)), start);
}

// What gives a descriptor is asked in full, so that none is given unseen.
static int gives_fd(uint32_t number) {
    return (number >> 8 & 0xff) == 'd' && ((number & 0xff) == PRIME_TO_FD || (number & 0xff) == SYNCOBJ_TO_FD);
}

static void ioctl_one(unsigned char *argument) {
    int class = chance(55) ? NODE : dice(CLASSES), fd = any(class), at = dice(row_count - 3);
    if (fd < 0) fd = any(class = NODE);
    while (rows[at].class != class || rows[at].weight <= (int)dice(HEAVIEST)) at = dice(row_count - 3);
    struct row *row = &rows[at];
    uint32_t number = row->number;
    int counted = at;
    for (int i = 0; i < FILLED / 8; i++) ((uint64_t *)argument)[i] = chance(90) ? 0 : dice(UINT64_MAX);
    for (int i = 0; i < row->fields; i++) {
        uint64_t chosen = value(row->field[i].kind);
        memcpy(argument + row->field[i].offset, &chosen, row->field[i].size);
    }
    if (chance(6)) {
        static const uint32_t OTHER[] = {0, 4, 8, 12, 24, 64, 200};
        counted = other_row;
        switch (dice(4)) {
        case 0: number = (number & 0xc000ffff) | PICK(OTHER) << 16; break;
        case 1: number = (number & 0x3fffffff) | (uint32_t)dice(4) << 30; break;
        case 2: number = bare[dice(bare_count)]; break;
        default: number = (uint32_t)dice(UINT32_MAX) << 16 | (chance(90) ? 0x6400 : dice(256) << 8) | dice(256);
        }
        if (gives_fd(number) || row->gives != -1) number = row->number, counted = at;
        if (gives_fd(number) && row->gives == -1) return;
    }
    uint64_t address = chance(98) ? (uintptr_t)argument : PICK(BAD);
    int64_t start = now();
    int result = ioctl(fd, number, address);
    record(counted, result, start);
    if (result || address != (uintptr_t)argument) return;
    if (row->gives != -1) {
        int given, exported = argument[4] & 1;
        memcpy(&given, argument + row->fd_at, sizeof given);
        put(row->gives == -2 ? exported ? SYNC_FILE : SYNCOBJ : row->gives, given);
    }
    if (row->mmap_at >= 0) {
        uint64_t offset;
        memcpy(&offset, argument + row->mmap_at, sizeof offset);
        mmap_offset = offset;
    }
}

static void ignore(int number) { (void)number; }

static void tick(int number, int ms, int flags) {
    struct sigaction action = {.sa_handler = ignore, .sa_flags = flags};
    struct sigevent to = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = number};
    struct itimerspec time = {{0, ms * 1000000}, {0, ms * 1000000}};
    timer_t timer;
    to._sigev_un._tid = gettid();
    sigaction(number, &action, NULL);
    if (timer_create(CLOCK_MONOTONIC, &to, &timer) || timer_settime(timer, 0, &time, NULL)) die("timer");
}

static void *work(void *seed) {
    state = (uintptr_t)seed;
    unsigned char *argument = mmap(NULL, LARGEST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tick(SIGUSR1, 10, 0);
    if (chance(50)) tick(SIGUSR2, 3, SA_RESTART);
    for (int i = 0; i < LIFE / 2; i++) {
        int what = dice(1000);
        if (what < 5) map_one();
        else if (what < 15) poll_one();
        else if (what < 18) put(NODE, open(node_path, O_RDWR | O_CLOEXEC));
        else if (what < 21) put(SW_SYNC, open("/dev/sw_sync", O_RDWR | O_CLOEXEC));
        else ioctl_one(argument);
    }
    return NULL;
}

static int open_files(void) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void live(uint64_t seed) {
    pthread_t other;
    state = seed;
    memset(pool, -1, sizeof pool);
    int before = open_files();
    event = eventfd(0, EFD_NONBLOCK);
    for (int i = 0; i < 2; i++) put(NODE, open(node_path, O_RDWR)), put(SW_SYNC, open("/dev/sw_sync", O_RDWR));
    put(NODE, dup(shared_node));
    if (pthread_create(&other, NULL, work, (void *)(seed * 3 + 1))) die("pthread_create");
    work((void *)(seed * 5 + 2));
    pthread_join(other, NULL);
    for (int class = 0; class < CLASSES; class++)
        for (int i = 0; i < POOL; i++) if (pool[class][i] >= 0) close(pool[class][i]);
    close(event);
    atomic_fetch_add(&shared->leaked, open_files() - before);
    exit(0);
}

static int run(long count, uint64_t *seed) {
    pid_t ids[PROCESSES] = {0};
    int64_t born[PROCESSES] = {0}, dies[PROCESSES] = {0};
    long end = shared->calls + count;
    shared_node = open(node_path, O_RDWR);
    if (shared_node < 0) die(node_path);
    for (int alive = 0; alive || shared->calls < end; usleep(1000)) {
        alive = 0;
        for (int i = 0; i < PROCESSES; i++) {
            int status = 0;
            if (ids[i] && waitpid(ids[i], &status, WNOHANG) == ids[i]) {
                if (status && (!dies[i] || WTERMSIG(status) != SIGKILL)) { printf("a client ended with %#x\n", status); return 1; }
                ids[i] = 0;
            }
            if (!ids[i] && shared->calls < end) {
                ++*seed;
                born[i] = now(), dies[i] = *seed % 4 ? 0 : born[i] + (int64_t)(*seed * 7919 % 400) * 1000000;
                fflush(stdout);
                if (!(ids[i] = fork())) live(*seed * 0x9e3779b97f4a7c15);
            }
            alive += ids[i] != 0;
            if (ids[i] && dies[i] && now() > dies[i]) kill(ids[i], SIGKILL);
            if (ids[i] && now() > born[i] + STUCK) { printf("a client is stuck\n"); return 1; }
        }
    }
    close(shared_node);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    load(argv[1]);
    room = mmap(NULL, 2 * ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(room, ROOM, PROT_READ | PROT_WRITE);  // what runs past the end is EFAULT
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t seed = strtoull(argv[2], NULL, 0) * 1000003;
    for (int i = 3; i < argc; i++) {
        if (run(atol(argv[i]), &seed)) return 1;
        printf("closed %ld %ld\n", (long)shared->calls, (long)shared->leaked), fflush(stdout);
        if (getchar() != '\n') return 1;
    }
    for (int row = 0; row < row_count; row++) {
        long calls = 0;
        for (int i = 0; i < ERRNOS; i++) calls += shared->counts[row][i];
        printf("%s %ld %ld %ld", rows[row].name, calls, (long)shared->counts[row][0], (long)shared->slowest[row] / 1000);
        for (int i = 1; i < ERRNOS; i++)
            if (shared->counts[row][i]) printf(" %s=%ld", strerrorname_np(i), (long)shared->counts[row][i]);
        printf("\n");
    }
    return 0;
}
