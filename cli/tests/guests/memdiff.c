/* Random memory calls in an arena, from a seed. What is printed is the same on every Linux: results,
 * error numbers, contents, faults, and the map of the arena. What a system may choose (addresses,
 * how it splits what looks alike) is left out. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define PAGES 48UL
#define VIEW 96UL /* what is looked at: mappings may grow behind the arena */
/* Bytes of a page that are touched: what is behind the end of a file stays untouched, as systems may
 * keep or clear what was stored there. */
#define SEEN (PAGE - 256)
#define ARENA ((char *)0x200000000000UL)
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static uint64_t state;
static uint32_t rnd(uint32_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}
static int one_in(uint32_t n) { return rnd(n) == 0; }
#define PICK(list) list[rnd(sizeof list / sizeof *list)]

static char out[1 << 16];
static size_t used;
static void flush(void) {
    for (size_t at = 0; at < used;) {
        ssize_t n = write(1, out + at, used - at);
        if (n <= 0) _exit(9);
        at += n;
    }
    used = 0;
}
static void say(const char *form, ...) {
    va_list list;
    va_start(list, form);
    if (used > sizeof out - 4096) flush();
    used += vsnprintf(out + used, 4096, form, list);
    va_end(list);
}

static sigjmp_buf back;
static volatile int caught, code;
static volatile uintptr_t where;
static void handler(int number, siginfo_t *info, void *context) {
    caught = number, code = info->si_code, where = (uintptr_t)info->si_addr;
    siglongjmp(back, 1);
}

/* One byte read or written, with what came of it. */
static int touch(volatile char *at, int value, int write, unsigned char *got) {
    caught = 0;
    if (!sigsetjmp(back, 0)) {
        if (write) *at = value;
        *got = *at;
    }
    return caught;
}

static void say_touch(char *at, int value, int write) {
    unsigned char got;
    if (touch(at, value, write, &got))
        say("  %c %lx: signal %d code %d at %+ld\n", write ? 'w' : 'r', (at - ARENA), caught, code,
            (long)(where - (uintptr_t)at));
    else
        say("  %c %lx: %d\n", write ? 'w' : 'r', (at - ARENA), got);
}

static uint64_t page_hash(char *page) {
    uint64_t hash = 1469598103934665603UL;
    caught = 0;
    if (sigsetjmp(back, 0)) return caught << 8 | (code & 255);
    for (unsigned i = 0; i < SEEN; i += 8) hash = (hash ^ *(volatile uint64_t *)(page + i)) * 1099511628211UL;
    return hash;
}

static void say_contents(char *from, unsigned long pages) {
    uint64_t hash = 0;
    for (unsigned long i = 0; i < pages; i++) hash = hash * 31 + page_hash(from + i * PAGE);
    say("  contents %016lx\n", hash);
}

static int verbose;
static void say_pages(void) {
    for (unsigned long p = 0; p < VIEW; p++) say("   page %lx %lx\n", p * PAGE, page_hash(ARENA + p * PAGE));
}

/* The lines of the arena, neighbours that look alike as one. */
static int text_fd;
static void say_maps(void) {
    static char text[1 << 18];
    size_t n = 0;
    ssize_t got;
    lseek(text_fd, 0, SEEK_SET);
    while (n < sizeof text - 1 && (got = read(text_fd, text + n, sizeof text - 1 - n)) > 0) n += got;
    text[n] = 0;
    unsigned long last_end = 0, last_start = 0, last_ino = 0, last_next = 0;
    char last_prot[8] = "", last_name[256] = "";
    unsigned long low = (unsigned long)ARENA, high = low + VIEW * PAGE;
    for (char *line = text; *line;) {
        char *end = strchr(line, '\n');
        if (!end) break;
        *end = 0;
        unsigned long start, stop, offset, ino;
        char prot[8], name[256] = "";
        unsigned major, minor;
        if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu %255[^\n]", &start, &stop, prot, &offset, &major, &minor, &ino, name) >= 7
            && start >= low && start < high) {
            int named = name[0] == '/';
            if (named && strncmp(name, "/memfd:", 7)) {
                int gone = strstr(name, " (deleted)") != 0;
                strcpy(name, gone ? "/file (deleted)" : "/file");
            }
            if (last_end == start && !strcmp(prot, last_prot) && !strcmp(name, last_name)
                && (!named || offset == last_next)) {
                last_end = stop;
            } else {
                if (last_end) say("  map %lx-%lx %s %s\n", last_start - low, last_end - low, last_prot, last_name);
                last_start = start, last_end = stop;
                strcpy(last_prot, prot), strcpy(last_name, name);
                if (named) say("  at %lx\n", offset);
            }
            last_next = offset + (stop - start);
        }
        line = end + 1;
    }
    if (last_end) say("  map %lx-%lx %s %s\n", last_start - low, last_end - low, last_prot, last_name);
}

static int files[2], read_only, zero;
static const char *const file_names[] = {"memfd", "file", "read-only", "zero"};
static int file_of(unsigned i) { return i < 2 ? files[i] : i == 2 ? read_only : zero; }

static const int prots[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                            PROT_READ | PROT_EXEC, PROT_WRITE};

static char *place(void) { return ARENA + rnd(PAGES) * PAGE; }
static unsigned long length(void) {
    unsigned long pages = one_in(8) ? 1 + rnd(PAGES) : 1 + rnd(8);
    return one_in(6) ? pages * PAGE - rnd(PAGE) : pages * PAGE;
}
static long rel(void *p) {
    char *c = p;
    if (p == MAP_FAILED) return -1;
    return c >= ARENA && c < ARENA + VIEW * PAGE ? c - ARENA : -2;
}
static int inside(void *p) { return rel(p) >= 0; }

/* Which mapping a page came with, or which call changed it last: Linux may keep apart what looks
 * alike, and mremap tells. */
static unsigned origin[2 * VIEW], origins;
static void came(long at, unsigned long len) {
    origins++;
    for (unsigned long i = 0; i * PAGE < len; i++)
        if (at >= 0 && at / PAGE + i < 2 * VIEW) origin[at / PAGE + i] = origins;
}
static void changed(long at, unsigned long len) {
    origins++;
    for (unsigned long i = 0; i * PAGE < len; i++)
        if (at >= 0 && at / PAGE + i < 2 * VIEW) origin[at / PAGE + i] = origin[at / PAGE + i] * 1000003 + origins;
}
static int of_one(long at, unsigned long len) {
    for (unsigned long i = 1; i * PAGE < len && at / PAGE + i < 2 * VIEW; i++)
        if (origin[at / PAGE + i] != origin[at / PAGE]) return 0;
    return 1;
}

/* MREMAP_DONTUNMAP unlocks more on Linux than it moves, and does not count it: locks are for runs
 * without. */
static int locking;

/* Stacks that were moved or split keep states that no map shows: they are for runs without mremap. */
static int stacks;

static void op_mmap(void) {
    static const int extra[] = {0, 0, 0, 0, MAP_NORESERVE, MAP_POPULATE, MAP_STACK, MAP_LOCKED, MAP_NONBLOCK | MAP_POPULATE,
                                MAP_DENYWRITE, MAP_EXECUTABLE, MAP_GROWSDOWN};
    char *at = place();
    unsigned long len = length();
    int prot = PICK(prots), flags = one_in(3) ? MAP_SHARED : MAP_PRIVATE, fd = -1;
    unsigned long offset = 0;
    if (one_in(20)) flags = MAP_SHARED_VALIDATE;
    if (one_in(60)) flags = rnd(8);
    flags |= PICK(extra);
    if (!stacks) flags &= ~MAP_GROWSDOWN;
    if (!locking) flags &= ~MAP_LOCKED;
    const char *what = "anonymous";
    if (one_in(2)) {
        flags |= MAP_ANONYMOUS;
    } else {
        unsigned i = rnd(8) ? rnd(2) : 2 + rnd(2);
        fd = file_of(i), what = file_names[i];
        flags &= ~MAP_GROWSDOWN;
        /* Private memory of the zero device has a name on Linux, which tells nobody anything. */
        if (i == 3) flags = (flags & ~MAP_TYPE) | MAP_SHARED;
        offset = rnd(7) * PAGE;
        if (one_in(50)) offset += 1 + rnd(4095);
        if (i < 2 && one_in(50)) offset = (unsigned long)-1 & ~(PAGE * (1 + rnd(3)) - 1);
    }
    if (one_in(40)) at += 1 + rnd(4095);
    if (one_in(60)) len = one_in(2) ? 0 : -(unsigned long)rnd(3 * PAGE);
    switch (rnd(4)) {
    case 0: break;
    case 1: flags |= MAP_FIXED_NOREPLACE; break;
    default: flags |= MAP_FIXED;
    }
    errno = 0;
    char *got = mmap(at, len, prot, flags, fd, offset);
    say("mmap %lx %lx prot %d flags %x %s %lx = %ld %d\n", at - ARENA, len, prot, flags, what, offset, rel(got), errno);
    if (got != MAP_FAILED) came(rel(got), len);
    if (got != MAP_FAILED && !inside(got)) munmap(got, len);
}

static void op_munmap(void) {
    char *at = place();
    unsigned long len = length();
    if (one_in(30)) at += 1 + rnd(4095);
    if (one_in(40)) len = one_in(2) ? 0 : -(unsigned long)rnd(3 * PAGE);
    errno = 0;
    int r = munmap(at, len);
    say("munmap %lx %lx = %d %d\n", at - ARENA, len, r, errno);
}

static void op_mprotect(void) {
    char *at = place();
    unsigned long len = length();
    int prot = PICK(prots);
    if (one_in(30)) at += 1 + rnd(4095);
    if (one_in(30)) prot |= one_in(2) ? PROT_GROWSDOWN : PROT_GROWSUP;
    if (one_in(60)) prot |= 1 << (4 + rnd(4));
    if (one_in(60)) len = one_in(2) ? 0 : -(unsigned long)rnd(3 * PAGE);
    errno = 0;
    if (len < PAGES * PAGE) changed(at - ARENA, len);
    int r = mprotect(at, len, prot);
    say("mprotect %lx %lx prot %x = %d %d\n", at - ARENA, len, prot, r, errno);
}

static void op_mremap(void) {
    if (stacks) return;
    char *from = place(), *to = place();
    unsigned long len = length(), new_len = one_in(2) ? len : length();
    int flags = rnd(4) ? MREMAP_MAYMOVE : 0;
    if (one_in(2)) flags |= MREMAP_FIXED;
    if (one_in(10) && !locking) flags |= MREMAP_DONTUNMAP;
    if (one_in(60)) flags |= 8;
    if (one_in(15)) len = 0;
    if (one_in(40)) new_len = 0;
    if (one_in(40)) from += 1 + rnd(4095);
    if (one_in(40)) to += 1 + rnd(4095);
    if (one_in(60)) new_len = -(unsigned long)rnd(3 * PAGE);
    long start = (from - ARENA) / PAGE * PAGE;
    if (!(flags & MREMAP_FIXED && len == new_len) && len < PAGES * PAGE && !of_one(start, len ? len : 1)) return;
    errno = 0;
    char *got = mremap(from, len, new_len, flags, to);
    say("mremap %lx %lx %lx flags %x to %lx = %ld %d\n", from - ARENA, len, new_len, flags, to - ARENA, rel(got), errno);
    if (got != MAP_FAILED && flags & MREMAP_FIXED && len == new_len) {
        /* Whatever was there has moved as it was. */
        unsigned moved[VIEW], pages = (len + PAGE - 1) / PAGE;
        for (unsigned i = 0; i < pages && i < VIEW; i++) moved[i] = origin[start / PAGE + i];
        for (unsigned i = 0; i < pages && i < VIEW; i++) origin[rel(got) / PAGE + i] = moved[i];
        changed(rel(got), len);
    } else if (got != MAP_FAILED) came(rel(got), new_len);
    if (got == MAP_FAILED || inside(got)) return;
    say_contents(got, (new_len + PAGE - 1) / PAGE);
    if (one_in(2)) {
        errno = 0;
        char *again = mremap(got, new_len, new_len, MREMAP_MAYMOVE | MREMAP_FIXED, place());
        say("  and back = %ld %d\n", rel(again), errno);
        if (again != MAP_FAILED) came(rel(again), new_len);
        if (again != MAP_FAILED) return;
    }
    munmap(got, new_len);
}

static void op_madvise(void) {
    static const int advice[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED, MADV_DONTNEED,
                                 MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK,
                                 MADV_KEEPONFORK, MADV_DONTDUMP, MADV_DODUMP, 20, 21, 22, 23, 24 /* DONTNEED_LOCKED */, 5, 7, 26,
                                 55, -1};
    char *at = place();
    unsigned long len = length();
    int what = PICK(advice);
    if (one_in(30)) at += 1 + rnd(4095);
    if (one_in(30)) len = one_in(2) ? 0 : -(unsigned long)rnd(3 * PAGE);
    errno = 0;
    if (len < PAGES * PAGE) changed(at - ARENA, len);
    int r = madvise(at, len, what);
    say("madvise %lx %lx %d = %d %d\n", at - ARENA, len, what, r, errno);
}

static void op_mincore(void) {
    char *at = place();
    unsigned long len = length();
    unsigned char v[PAGES + 1];
    if (one_in(20)) at += 1 + rnd(4095);
    errno = 0;
    int r = mincore(at, len, v);
    say("mincore %lx %lx = %d %d\n", at - ARENA, len, r, errno);
}

static void op_msync(void) {
    char *at = place();
    unsigned long len = length();
    int flags = rnd(8);
    if (one_in(20)) at += 1 + rnd(4095);
    if (one_in(20)) flags = rnd(16);
    errno = 0;
    int r = msync(at, len, flags);
    say("msync %lx %lx %d = %d %d\n", at - ARENA, len, flags, r, errno);
}

static void op_lock(void) {
    if (!locking) return;
    char *at = place();
    unsigned long len = length();
    if (one_in(10)) at += 1 + rnd(4095);
    if (one_in(40)) len = one_in(2) ? 0 : -(unsigned long)rnd(3 * PAGE);
    unsigned which = rnd(6);
    errno = 0;
    int flags = which == 2 ? rnd(3) : 0;
    if (len < PAGES * PAGE) changed((at - ARENA) / PAGE * PAGE, len + PAGE);
    long r = which < 2 ? mlock(at, len) : which == 2 ? syscall(SYS_mlock2, at, len, flags) : munlock(at, len);
    say("lock %u %lx %lx %d = %ld %d\n", which, at - ARENA, len, flags, r, errno);
}

static void op_locked(void) {
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    char *line = strstr(text, "VmLck:");
    say("locked %.*s\n", line ? (int)strcspn(line, "\n") : 0, line ? line : "");
}

static void op_file(void) {
    int fd = files[rnd(2)];
    unsigned long size = rnd(7 * PAGE), at = rnd(6 * PAGE), len = 1 + rnd(2 * PAGE);
    size = size / PAGE * PAGE;
    if (one_in(2)) size += SEEN + rnd(256);
    at = at / PAGE * PAGE, len = len / PAGE * PAGE + (one_in(2) ? SEEN + rnd(256) : PAGE);
    static char bytes[3 * PAGE];
    unsigned what = rnd(4);
    struct stat stat;
    fstat(fd, &stat);
    if ((what == 0 && size > stat.st_size) || (what == 1 && at + len > stat.st_size))
        ftruncate(fd, stat.st_size / PAGE * PAGE);
    errno = 0;
    long r;
    switch (what) {
    case 0:
        r = ftruncate(fd, size);
        say("truncate %d %lx = %ld %d\n", fd == files[1], size, r, errno);
        break;
    case 1:
        memset(bytes, 1 + rnd(255), sizeof bytes);
        r = pwrite(fd, bytes, len, at);
        say("pwrite %d %lx = %ld %d\n", fd == files[1], at, r, errno);
        break;
    default:
        memset(bytes, 0, sizeof bytes);
        r = pread(fd, bytes, sizeof bytes, at);
        uint64_t hash = 7;
        for (unsigned i = 0; i < sizeof bytes; i++) hash = hash * 31 + (unsigned char)bytes[i];
        say("pread %d %lx = %ld %d %lx\n", fd == files[1], at, r, errno, hash);
    }
}

/* The kernel's own hands in the arena. */
static void op_copy(void) {
    static int scratch = -1;
    static char bytes[8 * PAGE];
    if (scratch < 0) scratch = memfd_create("scratch", 0);
    char *at = place() + (one_in(2) ? rnd(PAGE) : 0);
    unsigned long len = length();
    memset(bytes, rnd(256), sizeof bytes);
    pwrite(scratch, bytes, sizeof bytes, 0);
    if (len > sizeof bytes) len = sizeof bytes;
    errno = 0;
    long r = one_in(2) ? pread(scratch, at, len, 0) : pwrite(scratch, at, len, 0);
    say("copy %lx %lx = %ld %d\n", at - ARENA, len, r, errno);
}

static void op_touch(void) {
    for (unsigned n = 1 + rnd(6); n--;) {
        char *at = place() + rnd(SEEN);
        say_touch(at, rnd(256), rnd(3) > 0);
    }
}

static void op_fork(void) {
    flush();
    pid_t child = fork();
    if (child < 0) {
        say("fork %d\n", errno);
        return;
    }
    uint32_t draw = rnd(1 << 30);
    if (!child) {
        text_fd = open("/proc/self/maps", O_RDONLY);
        state ^= draw;
        say("child\n");
        if (verbose > 1) say_pages();
        op_locked();
        say_contents(ARENA, VIEW);
        for (int i = 0; i < 4; i++) op_touch();
        if (one_in(3)) {
            op_madvise();
            op_mprotect();
            op_munmap();
            op_mremap();
        }
        say_contents(ARENA, VIEW);
        say_maps();
        flush();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    say("child ended %x\n", status);
    op_touch();
}

int main(int argc, char **argv) {
    unsigned seed = argc > 1 ? strtoul(argv[1], 0, 0) : 1, rounds = argc > 2 ? strtoul(argv[2], 0, 0) : 1000;
    verbose = argc - 3;
    stacks = seed % 4 == 0;
    locking = seed % 2;
    state = seed * 0x9e3779b97f4a7c15UL + 0x1234567;
    for (int i = 0; i < 8; i++) rnd(2);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, 0);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    char name[64];
    snprintf(name, sizeof name, "/tmp/bsdvm-memdiff-%d-XXXXXX", getpid());
    files[0] = memfd_create("guest", 0);
    files[1] = mkstemp(name);
    read_only = open(name, O_RDONLY);
    zero = open("/dev/zero", O_RDWR);
    unlink(name);
    for (int i = 0; i < 2; i++) {
        char bytes[5 * PAGE - 100];
        for (unsigned j = 0; j < sizeof bytes; j++) bytes[j] = 1 + (j / 512 + i) % 200;
        pwrite(files[i], bytes, sizeof bytes, 0);
        if (i == 0) ftruncate(files[i], 5 * PAGE);
    }
    text_fd = open("/proc/self/maps", O_RDONLY);
    static void (*const ops[])(void) = {op_mmap, op_mmap, op_mmap, op_mmap, op_munmap, op_mprotect, op_mprotect, op_mremap,
                                        op_mremap, op_madvise, op_madvise, op_mincore, op_msync, op_lock, op_file, op_copy,
                                        op_touch, op_touch, op_touch, op_touch, op_locked};
    for (unsigned i = 0; i < rounds; i++) {
        say("%u ", i);
        if (one_in(60)) op_fork();
        else PICK(ops)();
        if (i % 32 == 31 || verbose > 0) {
            say_maps();
            if (verbose > 1) {
                op_locked();
                static char bytes[16 * PAGE];
                for (int f = 0; f < 2; f++) {
                    long n = pread(files[f], bytes, sizeof bytes, 0);
                    for (long p = 0; p < n; p += PAGE) {
                        uint64_t hash = 7;
                        for (long j = p; j < p + PAGE && j < n; j++) hash = hash * 31 + (unsigned char)bytes[j];
                        say("   file %d %lx/%lx %lx\n", f, p, n, hash);
                    }
                }
            }
            if (verbose > 1) say_pages();
            if (i % 32 == 31) say_contents(ARENA, VIEW);
        }
    }
    say_maps();
    say_contents(ARENA, VIEW);
    flush();
    return 0;
}
