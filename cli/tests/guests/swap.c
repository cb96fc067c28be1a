/* More memory than there is: swap WHAT MIB [ROUNDS]. What is printed is the same wherever the pages
 * are. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/swap.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))

static void fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t pattern(uint64_t page, uint64_t salt) {
    uint64_t x = (page + 1) * 0x9e3779b97f4a7c15u ^ salt * 0xbf58476d1ce4e5b9u;
    return x ^ x >> 29;
}

/* A page says in its first, middle and last word which one it is. */
static void fill(uint64_t *at, uint64_t page, uint64_t salt) {
    at[0] = at[WORDS / 2] = at[WORDS - 1] = pattern(page, salt);
}

static int holds(const uint64_t *at, uint64_t page, uint64_t salt) {
    uint64_t want = pattern(page, salt);
    return at[0] == want && at[WORDS / 2] == want && at[WORDS - 1] == want;
}

static void fill_all(uint64_t *at, uint64_t pages, uint64_t salt) {
    for (uint64_t i = 0; i < pages; i++) fill(at + i * WORDS, i, salt);
}

static uint64_t wrong(const uint64_t *at, uint64_t pages, uint64_t salt) {
    uint64_t bad = 0;
    for (uint64_t i = 0; i < pages; i++) bad += !holds(at + i * WORDS, i, salt);
    return bad;
}

static uint64_t *anonymous(uint64_t pages, int flags) {
    void *at = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) fail("mmap");
    return at;
}

/* Private memory, filled, read in order, backwards and at random. */
static void private(uint64_t pages) {
    uint64_t *at = anonymous(pages, MAP_PRIVATE);
    fill_all(at, pages, 1);
    printf("forwards %lu\n", wrong(at, pages, 1));
    uint64_t bad = 0, state = 88172645463325252u;
    for (uint64_t i = pages; i-- > 0;) bad += !holds(at + i * WORDS, i, 1);
    printf("backwards %lu\n", bad);
    for (uint64_t n = 0; n < pages; n++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint64_t i = state % pages;
        bad += !holds(at + i * WORDS, i, 1);
        if (n % 4 == 0) fill(at + i * WORDS, i, 1);
    }
    printf("at random %lu\n", bad);
}

/* A child and its parent write what they share, each its own third. */
static void copies(uint64_t pages) {
    uint64_t *at = anonymous(pages, MAP_PRIVATE);
    uint64_t third = pages / 3;
    fill_all(at, pages, 2);
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) fail("fork");
    for (uint64_t i = 0; i < third; i++) {
        uint64_t page = child ? i : third + i;
        fill(at + page * WORDS, page, child ? 3 : 4);
    }
    uint64_t bad = 0;
    for (uint64_t i = 0; i < pages; i++) {
        int mine = child ? i < third : i >= third && i < 2 * third;
        bad += !holds(at + i * WORDS, i, mine ? (child ? 3 : 4) : 2);
    }
    if (!child) _exit(bad != 0);
    int status;
    waitpid(child, &status, 0);
    printf("parent %lu child %d\n", bad, status);
    child = fork();
    if (!child) _exit(wrong(at + third * WORDS, 0, 2) != 0 || !holds(at, 0, 3));
    waitpid(child, &status, 0);
    printf("another child %d\n", status);
}

/* Memory that several see: a segment, a memfd, shared anonymous memory, which a child changes. */
static void shared(uint64_t pages) {
    uint64_t *at[3];
    int id = shmget(IPC_PRIVATE, pages * PAGE, IPC_CREAT | 0600);
    if (id < 0) fail("shmget");
    at[0] = shmat(id, 0, 0);
    shmctl(id, IPC_RMID, 0);
    int fd = memfd_create("swap", 0);
    if (ftruncate(fd, pages * PAGE)) fail("ftruncate");
    at[1] = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    at[2] = anonymous(pages, MAP_SHARED);
    for (int n = 0; n < 3; n++) fill_all(at[n], pages, 10 + n);
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (!child) {
        uint64_t bad = 0;
        for (int n = 0; n < 3; n++) {
            bad += wrong(at[n], pages, 10 + n);
            fill_all(at[n], pages / 2, 20 + n);
        }
        _exit(bad != 0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", status);
    for (int n = 0; n < 3; n++) {
        uint64_t half = pages / 2, bad = wrong(at[n], half, 20 + n);
        for (uint64_t i = half; i < pages; i++) bad += !holds(at[n] + i * WORDS, i, 10 + n);
        printf("kind %d %lu\n", n, bad);
    }
    uint64_t page[WORDS], bad = 0;
    for (uint64_t i = pages / 2; i < pages; i++) {
        if (pread(fd, page, PAGE, i * PAGE) != PAGE) fail("pread");
        bad += !holds(page, i, 11);
    }
    printf("by pread %lu\n", bad);
}

static uint64_t *common;
static uint64_t each;

static void *worker(void *argument) {
    uint64_t n = (uintptr_t)argument, bad = 0;
    uint64_t *mine = common + n * each * WORDS;
    for (uint64_t round = 0; round < 3; round++) {
        fill_all(mine, each, 100 * n + round);
        bad += wrong(mine, each, 100 * n + round);
    }
    return (void *)bad;
}

/* Threads fault while pages of all of them go out. */
static void threads(uint64_t pages) {
    pthread_t thread[4];
    each = pages / 4;
    common = anonymous(pages, MAP_PRIVATE);
    for (uintptr_t n = 0; n < 4; n++) pthread_create(thread + n, 0, worker, (void *)n);
    for (int n = 0; n < 4; n++) {
        void *bad;
        pthread_join(thread[n], &bad);
        printf("thread %d %lu\n", n, (unsigned long)(uintptr_t)bad);
    }
}

static long field(const char *file, const char *name) {
    char line[256];
    long value = -1;
    FILE *f = fopen(file, "r");
    if (!f) fail(file);
    while (value < 0 && fgets(line, sizeof line, f)) {
        if (!strncmp(line, name, strlen(name))) value = atol(line + strlen(name));
    }
    fclose(f);
    return value;
}

static uint64_t pagemap(const void *at) {
    uint64_t word = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    if (pread(fd, &word, 8, (uintptr_t)at / PAGE * 8) != 8) fail("pagemap");
    close(fd);
    return word;
}

static long swap_of(const void *at) {
    char line[256], start[32];
    int inside = 0;
    long value = -1;
    FILE *f = fopen("/proc/self/smaps", "r");
    snprintf(start, sizeof start, "%lx-", (unsigned long)(uintptr_t)at);
    while (value < 0 && fgets(line, sizeof line, f)) {
        if (!strncmp(line, start, strlen(start))) inside = 1;
        if (inside && !strncmp(line, "Swap:", 5)) value = atol(line + 5);
    }
    fclose(f);
    return value;
}

/* What a program finds out about it. Every line is what a system with free swap answers. */
static void seen(uint64_t pages) {
    struct sysinfo info;
    struct rusage before, after;
    unsigned char vec[16];
    sysinfo(&info);
    printf("swap %d\n", info.totalswap > 0 && info.freeswap > 0);
    printf("as meminfo %d\n", field("/proc/meminfo", "SwapTotal:") * 1024UL == info.totalswap);
    uint64_t *at = anonymous(16, MAP_PRIVATE), *locked = at + 12 * WORDS;
    fill_all(at, 16, 7);
    if (mlock(locked, 4 * PAGE)) fail("mlock");
    printf("a locked one %d\n", madvise(locked, PAGE, MADV_PAGEOUT) ? errno : 0);
    printf("cold %d\n", madvise(at, 12 * PAGE, MADV_COLD));
    printf("out %d\n", madvise(at, 12 * PAGE, MADV_PAGEOUT));
    printf("VmSwap %ld kB, Swap %ld kB\n", field("/proc/self/status", "VmSwap:"), swap_of(at));
    mincore(at, 16 * PAGE, vec);
    for (int i = 0; i < 16; i++) putchar('0' + (vec[i] & 1));
    printf("\npagemap %d%d %d%d\n", (int)(pagemap(at) >> 63), (int)(pagemap(at) >> 62 & 1),
           (int)(pagemap(locked) >> 63), (int)(pagemap(locked) >> 62 & 1));
    getrusage(RUSAGE_SELF, &before);
    printf("back %lu\n", wrong(at, 16, 7));
    getrusage(RUSAGE_SELF, &after);
    printf("major faults %d\n", after.ru_majflt > before.ru_majflt);
    printf("VmSwap %ld kB\n", field("/proc/self/status", "VmSwap:"));
    uint64_t *much = anonymous(pages, MAP_PRIVATE);
    fill_all(much, pages, 8);
    mincore(locked, 4 * PAGE, vec);
    printf("locked stays %d%d%d%d\n", vec[0] & 1, vec[1] & 1, vec[2] & 1, vec[3] & 1);
    printf("much %lu, locked %lu\n", wrong(much, pages, 8), wrong(at, 16, 7));
}

/* Waits for a word on standard input with its memory on swap, then looks at it. */
static void wait_and_look(uint64_t pages) {
    char word;
    uint64_t *at = anonymous(pages, MAP_PRIVATE);
    fill_all(at, pages, 9);
    madvise(at, pages * PAGE, MADV_PAGEOUT);
    printf("out\n");
    fflush(stdout);
    if (read(0, &word, 1) != 1) fail("read");
    printf("wrong %lu\n", wrong(at, pages, 9));
}

int main(int c, char **v) {
    if (c < 3) return 2;
    uint64_t pages = (uint64_t)atoi(v[2]) << 8;
    if (!strcmp(v[1], "private")) private(pages);
    else if (!strcmp(v[1], "copies")) copies(pages);
    else if (!strcmp(v[1], "shared")) shared(pages / 3);
    else if (!strcmp(v[1], "threads")) threads(pages);
    else if (!strcmp(v[1], "seen")) seen(pages);
    else if (!strcmp(v[1], "wait")) wait_and_look(pages);
    else return 2;
    return 0;
}
