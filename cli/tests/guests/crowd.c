/* Threads map, write, protect, advise, move and unmap in one space while others fork.
 *
 *     crowd SECONDS [THREADS]
 *
 * Every word that is written carries its thread, round and address. The arena is slots with locks:
 * whoever has a slot's lock knows what is in it. Children and passers-by, who have no lock, know
 * that each word is 0 or of its address, and that a page is at most two rounds of one writer. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define WORDS (PAGE / 8)
#define SLOTS 24
#define PAGES 6 /* of a slot */
#define ARENA 0x300000000000UL

enum kind { NOTHING, PRIVATE, SHARED, FILED };

static struct slot {
    pthread_mutex_t lock;
    enum kind kind;
    uint64_t word[PAGES]; /* what each page is full of, but for the address; 0: zeroes */
} slots[SLOTS];

static volatile int over, failed;
static int file; /* a page for each page of the arena */
static __thread sigjmp_buf back;
static __thread volatile int guarded;

static void handler(int number) {
    if (guarded) siglongjmp(back, 1);
    static const char text[] = "crowd: a fault where none can be\n";
    write(2, text, sizeof text - 1);
    _exit(3);
}

static uint64_t *page_of(int slot, int page) { return (uint64_t *)(ARENA + (slot * PAGES + page) * PAGE); }
static uint64_t stamp(unsigned thread, unsigned round) { return (uint64_t)thread << 56 | (uint64_t)(round & 0xffffff) << 32; }
static uint64_t at(const uint64_t *word) { return ((uintptr_t)word - ARENA) / 8 + 1; }

static void fail(const char *what, int slot, int page, unsigned i, uint64_t got, uint64_t wanted) {
    char text[200];
    int n = snprintf(text, sizeof text, "crowd: %s: slot %d page %d word %u: %#lx, not %#lx (process %d)\n", what, slot, page, i,
                     got, wanted, getpid());
    write(2, text, n);
    failed = 1;
}

static void fill(int slot, int page, uint64_t value) {
    volatile uint64_t *words = page_of(slot, page);
    for (unsigned i = 0; i < WORDS; i++) words[i] = value | at((uint64_t *)words + i);
    slots[slot].word[page] = value;
}

static void verify(const char *what, int slot, int page) {
    volatile uint64_t *words = page_of(slot, page);
    uint64_t value = slots[slot].word[page];
    for (unsigned i = 0; i < WORDS; i++) {
        uint64_t wanted = value ? value | at((uint64_t *)words + i) : 0, got = words[i];
        if (got != wanted) return fail(what, slot, page, i, got, wanted);
    }
}

/* Without the lock. */
static void glance(const char *what, int slot, int page) {
    volatile uint64_t *words = page_of(slot, page);
    static __thread int changes;
    static __thread uint64_t last;
    changes = 0;
    guarded = 1;
    if (!sigsetjmp(back, 1)) {
        last = words[0] & ~0xffffffffUL;
        for (unsigned i = 0; i < WORDS; i++) {
            uint64_t got = words[i], wanted = at((uint64_t *)words + i);
            if (got && (got & 0xffffffff) != wanted) {
                fail(what, slot, page, i, got, wanted);
                break;
            }
            if ((got & ~0xffffffffUL) != last) last = got & ~0xffffffffUL, changes++;
        }
    }
    guarded = 0;
}

static void zero(int slot) { memset(slots[slot].word, 0, sizeof slots[slot].word); }

static void map(int slot, unsigned draw) {
    char *place = (char *)page_of(slot, 0);
    enum kind kind = 1 + draw % 3;
    int flags = MAP_FIXED | (kind == PRIVATE ? MAP_PRIVATE : MAP_SHARED);
    off_t offset = slot * PAGES * PAGE;
    if (kind != FILED) flags |= MAP_ANONYMOUS;
    else if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, PAGES * PAGE)) perror("crowd: fallocate"), failed = 1;
    if (draw & 64) flags |= MAP_POPULATE;
    char *got = mmap(place, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, kind == FILED ? file : -1, kind == FILED ? offset : 0);
    if (got != place) {
        perror("crowd: mmap");
        failed = 1;
        return;
    }
    slots[slot].kind = kind;
    zero(slot);
}

static void protect(int slot, int prot) {
    if (mprotect(page_of(slot, 0), PAGES * PAGE, prot)) perror("crowd: mprotect"), failed = 1;
}

/* One thing done to a slot whose lock the caller has. */
static void act(int slot, unsigned thread, unsigned round, unsigned draw) {
    struct slot *s = &slots[slot];
    int page = draw % PAGES;
    if (s->kind == NOTHING) return map(slot, draw >> 4);
    switch (draw >> 8 & 15) {
    case 0: case 1: case 2: case 3:
        fill(slot, page, stamp(thread, round));
        verify("just written", slot, page);
        break;
    case 4: case 5: case 6:
        for (page = 0; page < PAGES; page++) verify("survivor", slot, page);
        break;
    case 7:
        protect(slot, PROT_READ);
        verify("read only", slot, page);
        protect(slot, PROT_READ | PROT_WRITE);
        break;
    case 8:
        protect(slot, PROT_NONE);
        protect(slot, PROT_READ | PROT_WRITE);
        verify("closed and opened", slot, page);
        break;
    case 9:
        madvise(page_of(slot, 0), PAGES * PAGE, MADV_DONTNEED);
        if (s->kind == PRIVATE) zero(slot);
        verify("given up", slot, page);
        break;
    case 10:
        madvise(page_of(slot, 0), PAGES * PAGE, draw & 1 << 20 ? MADV_SEQUENTIAL : draw & 1 << 21 ? MADV_COLD : MADV_WILLNEED);
        verify("advised", slot, page);
        break;
    case 11:
        mlock(page_of(slot, 0), PAGES * PAGE);
        verify("locked", slot, page);
        munlock(page_of(slot, 0), PAGES * PAGE);
        break;
    case 12: {
        uint64_t words[WORDS], value = stamp(thread, round);
        int ends[2];
        for (unsigned i = 0; i < WORDS; i++) words[i] = value | at(page_of(slot, page) + i);
        if (pipe(ends)) break;
        if (write(ends[1], words, PAGE) != PAGE || read(ends[0], page_of(slot, page), PAGE) != PAGE)
            fail("through a pipe", slot, page, 0, errno, PAGE);
        close(ends[0]), close(ends[1]);
        s->word[page] = value;
        verify("through a pipe", slot, page);
        break;
    }
    case 13:
        munmap(page_of(slot, 0), PAGES * PAGE);
        s->kind = NOTHING;
        break;
    default:
        map(slot, draw >> 4);
        verify("fresh", slot, page);
    }
}

/* Words carry their address: what is moved away is looked at there and moved back. */
static void move(int slot) {
    if (slots[slot].kind == NOTHING) return;
    char *place = (char *)page_of(slot, 0);
    char *away = mremap(place, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place + (1UL << 32));
    if (away != place + (1UL << 32)) {
        perror("crowd: mremap");
        failed = 1;
        return;
    }
    if (mremap(away, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) != place) perror("crowd: back"), failed = 1;
    for (int page = 0; page < PAGES; page++) verify("moved", slot, page);
}

static void *worker(void *number) {
    unsigned thread = (uintptr_t)number, round = 0, draw = thread * 2654435761u + 1;
    while (!over && !failed) {
        draw ^= draw << 13, draw ^= draw >> 17, draw ^= draw << 5;
        int slot = (draw >> 24) % SLOTS;
        if (pthread_mutex_trylock(&slots[slot].lock)) {
            glance("passer-by", slot, draw % PAGES);
            continue;
        }
        round++;
        if ((draw >> 12 & 15) == 3) move(slot);
        else act(slot, thread, round, draw);
        pthread_mutex_unlock(&slots[slot].lock);
    }
    return 0;
}

static void child(unsigned round) {
    for (int slot = 0; slot < SLOTS; slot++)
        for (int page = 0; page < PAGES; page++) glance("child", slot, page);
    /* What is the child's own is its own. */
    uint64_t *own = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < 4 * WORDS; i++) {
        if (own[i]) fail("child's fresh", 0, 0, i, own[i], 0);
        own[i] = round + i;
    }
    for (unsigned i = 0; i < 4 * WORDS; i++)
        if (own[i] != round + i) fail("child's own", 0, 0, i, own[i], round + i);
    _exit(failed ? 4 : 0);
}

static void *forker(void *number) {
    /* A slot of its own, which it alone writes: the child has to see all of it. */
    volatile uint64_t *own = mmap(0, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned round = 1; !over && !failed; round++) {
        for (unsigned i = 0; i < 8 * WORDS; i += 64) own[i] = (uint64_t)round << 32 | i;
        pid_t pid = fork();
        if (pid < 0) {
            perror("crowd: fork");
            failed = 1;
            break;
        }
        if (!pid) {
            for (unsigned i = 0; i < 8 * WORDS; i += 64)
                if (own[i] != ((uint64_t)round << 32 | i)) fail("forker's", 0, 0, i, own[i], (uint64_t)round << 32 | i);
            child(round);
        }
        own[0] = 0;
        int status;
        if (waitpid(pid, &status, 0) != pid || status) {
            fprintf(stderr, "crowd: a child ended with %#x\n", status);
            failed = 1;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    unsigned seconds = argc > 1 ? atoi(argv[1]) : 5, workers = argc > 2 ? atoi(argv[2]) : 4;
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    file = memfd_create("crowd", 0);
    ftruncate(file, SLOTS * PAGES * PAGE);
    for (int i = 0; i < SLOTS; i++) pthread_mutex_init(&slots[i].lock, 0);
    pthread_t threads[64];
    unsigned count = 0;
    for (unsigned i = 0; i < workers && i < 60; i++) pthread_create(&threads[count++], 0, worker, (void *)(uintptr_t)(i + 1));
    for (unsigned i = 0; i < 2; i++) pthread_create(&threads[count++], 0, forker, 0);
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    while (!failed && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, 0) == EINTR) {}
    over = 1;
    for (unsigned i = 0; i < count; i++) pthread_join(threads[i], 0);
    for (int slot = 0; slot < SLOTS; slot++)
        for (int page = 0; page < PAGES && slots[slot].kind; page++) verify("at the end", slot, page);
    puts(failed ? "crowd: failed" : "crowd: every word is where it belongs");
    return failed;
}
