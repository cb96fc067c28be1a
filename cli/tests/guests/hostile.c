/* A guest that misbehaves on purpose.
 *
 *     hostile arguments         bad pointers and lengths in every argument of every call
 *     hostile races SECONDS     buffers that change under the calls that use them
 *     hostile fuzz SEED CALLS   random calls with random arguments, some at a time in a child
 *     hostile secrets           looks for what others left in memory
 *
 * Children may end as they like; the parent says what it knows and ends with 0. */
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
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define COUNT(list) (sizeof list / sizeof *list)

static uint64_t state = 88172645463325252UL;
static uint64_t draw(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

/* Calls that take a pointer, or change memory, and whose effects stay with the caller. */
static const short calls[] = {
    SYS_read, SYS_write, SYS_fstat, SYS_poll, SYS_lseek, SYS_mmap, SYS_mprotect, SYS_munmap, SYS_brk, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_ioctl, SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev, SYS_access, SYS_pipe, SYS_select,
    SYS_mremap, SYS_msync, SYS_mincore, SYS_madvise, SYS_dup, SYS_nanosleep, SYS_getitimer, SYS_sendfile, SYS_socketpair,
    SYS_uname, SYS_fcntl, SYS_fsync, SYS_ftruncate, SYS_getdents, SYS_getcwd, SYS_readlink, SYS_gettimeofday, SYS_getrlimit,
    SYS_getrusage, SYS_sysinfo, SYS_times, SYS_getgroups, SYS_getresuid, SYS_capget, SYS_rt_sigpending, SYS_sigaltstack,
    SYS_stat, SYS_lstat, SYS_statfs, SYS_fstatfs, SYS_sched_getparam, SYS_mlock, SYS_munlock, SYS_mlockall, SYS_munlockall,
    SYS_prctl, SYS_arch_prctl, SYS_futex, SYS_sched_getaffinity, SYS_getdents64, SYS_set_tid_address, SYS_timer_create,
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_openat,
    SYS_newfstatat, SYS_readlinkat, SYS_faccessat, SYS_pselect6, SYS_ppoll, SYS_set_robust_list, SYS_get_robust_list,
    SYS_splice, SYS_vmsplice, SYS_eventfd2, SYS_fallocate, SYS_timerfd_settime, SYS_signalfd4, SYS_dup3, SYS_pipe2,
    SYS_preadv, SYS_pwritev, SYS_recvmsg, SYS_sendmsg, SYS_recvfrom, SYS_sendto, SYS_prlimit64, SYS_process_vm_readv,
    SYS_process_vm_writev, SYS_getrandom, SYS_memfd_create, SYS_membarrier, SYS_mlock2, SYS_copy_file_range, SYS_preadv2,
    SYS_pwritev2, SYS_pkey_mprotect, SYS_statx, SYS_rseq, SYS_remap_file_pages, SYS_rt_sigtimedwait, SYS_wait4, SYS_waitid,
    SYS_execve, SYS_getcpu, SYS_clone3, 1250, 1251, 1252,
};

static char *good, *closed, *edge, *read_only;
static int fds[8];
static uint64_t addresses[24];
static unsigned address_count;

/* Buffers of each kind, and descriptors whose loss hurts nobody. */
static void prepare(void) {
    int ends[2];
    good = mmap(0, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    closed = mmap(0, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    read_only = mmap(0, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    edge = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(edge + PAGE, 3 * PAGE);
    memset(good, 0x41, 8 * PAGE);
    strcpy(good, "/dev/null");
    fds[0] = open("/dev/null", O_RDWR);
    fds[1] = open("/dev/zero", O_RDWR);
    fds[2] = memfd_create("hostile", MFD_ALLOW_SEALING);
    ftruncate(fds[2], 5 * PAGE + 100);
    pipe2(ends, O_NONBLOCK);
    fds[3] = ends[0], fds[4] = ends[1];
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends);
    fds[5] = ends[0];
    fds[6] = open("/proc/self/maps", O_RDONLY);
    fds[7] = open("/", O_RDONLY | O_DIRECTORY);
    char *beyond = mmap(0, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[2], 0);
    uint64_t list[] = {0, 1, 8, PAGE - 1, PAGE, (uint64_t)good, (uint64_t)good + 1, (uint64_t)good + PAGE - 3,
                       (uint64_t)closed, (uint64_t)closed - 8, (uint64_t)edge, (uint64_t)edge + PAGE - 4, (uint64_t)edge + PAGE - 1,
                       (uint64_t)read_only, (uint64_t)beyond + 6 * PAGE, 0x7fff00000000UL - 8, 0x7fff00000000UL,
                       0x7ffffffff000UL - 1, 0x7ffffffff000UL, 0x800000000000UL, 0xffff800000000000UL, 0xffffffffff600000UL,
                       -(uint64_t)PAGE, -1UL};
    memcpy(addresses, list, sizeof list);
    address_count = COUNT(list);
}

static int wait_bounded(pid_t pid, int tenths) {
    int status;
    for (int i = 0; i < tenths * 20; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) return status;
        usleep(5000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return status;
}

static void begin_child(void) {
    /* What a call makes of itself dies with it. */
    struct rlimit none = {0, 0};
    struct itimerval soon = {.it_value.tv_usec = 200000};
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 26, 1 << 26});
    for (int fd = 0; fd < 3; fd++) dup2(fds[0], fd);
    setitimer(ITIMER_REAL, &soon, 0);
}

/* Who comes back from a call as another process has nothing to do here. */
static long call(long number, uint64_t *a) {
    pid_t me = getpid();
    long r = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (getpid() != me) _exit(0);
    return r;
}

static int is_wait(long number) { return number == SYS_wait4 || number == SYS_waitid; }

static void arguments(void) {
    static const uint64_t lengths[] = {0, 1, 4, PAGE, PAGE + 1, 1UL << 31, 1UL << 47, 1UL << 63, -1UL};
    prepare();
    for (unsigned c = 0; c < COUNT(calls); c++) {
        for (unsigned position = 0; position < 6; position++) {
            fflush(stdout);
            pid_t pid = fork();
            if (!pid) {
                begin_child();
                for (unsigned i = 0; i < address_count; i++)
                    for (unsigned l = 0; l < COUNT(lengths); l += 1 + (position > 1)) {
                        uint64_t a[6] = {fds[2], (uint64_t)good, 64, 0, 0, 0};
                        if (c % 2) a[0] = (uint64_t)good, a[1] = 64;
                        if (is_wait(calls[c])) a[2] = WNOHANG, a[3] = WNOHANG | WEXITED;
                        a[position] = addresses[i];
                        if (position < 5) a[position + 1] = lengths[l];
                        call(calls[c], a);
                    }
                _exit(0);
            }
            wait_bounded(pid, 20);
        }
    }
    printf("hostile: every argument was bad\n");
}

static void fuzz(uint64_t seed, unsigned count) {
    state = seed * 0x9e3779b97f4a7c15UL + 77;
    for (unsigned i = 0; i < 8; i++) draw();
    prepare();
    for (unsigned done = 0; done < count; done += 25) {
        uint64_t own = draw();
        pid_t pid = fork();
        if (!pid) {
            begin_child();
            state = own;
            for (unsigned i = 0; i < 25; i++) {
                uint64_t a[6];
                for (unsigned j = 0; j < 6; j++) {
                    uint64_t r = draw();
                    switch (r >> 60) {
                    case 0: case 1: case 2: a[j] = addresses[(r >> 8) % address_count]; break;
                    case 3: case 4: case 5: a[j] = fds[(r >> 8) % 8]; break;
                    case 6: case 7: a[j] = (uint64_t)good + (r >> 8) % (16 * PAGE); break;
                    case 8: case 9: a[j] = (r >> 8) % 64; break;
                    case 10: a[j] = 1UL << (r >> 8) % 64; break;
                    case 11: a[j] = (r >> 8) % (1 << 20); break;
                    case 12: a[j] = -(uint64_t)((r >> 8) % 5000); break;
                    case 13: a[j] = (r >> 8) % 32 * PAGE; break;
                    case 14: a[j] = (uint64_t)good + (r >> 8) % 16 * PAGE; break;
                    default: a[j] = r;
                    }
                }
                long number = calls[draw() % COUNT(calls)];
                if (is_wait(number)) a[2] |= WNOHANG, a[3] |= WNOHANG;
                call(number, a);
            }
            _exit(0);
        }
        wait_bounded(pid, 20);
    }
    printf("hostile: %u random calls\n", count);
}

static volatile int over;
static char *target;

static void *changer(void *number) {
    uint64_t own = (uintptr_t)number * 7919 + 3;
    int file = memfd_create("target", 0);
    ftruncate(file, 16 * PAGE);
    while (!over) {
        own ^= own << 13, own ^= own >> 7, own ^= own << 17;
        char *at = target + own % 16 * PAGE;
        unsigned long len = (1 + (own >> 8) % 4) * PAGE;
        if (at + len > target + 16 * PAGE) len = PAGE;
        int fixed = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, both = PROT_READ | PROT_WRITE;
        switch (own >> 16 & 7) {
        case 0: munmap(at, len); break;
        case 1: mprotect(at, len, PROT_NONE); break;
        case 2: mprotect(at, len, PROT_READ); break;
        case 3: mprotect(at, len, both); break;
        case 4: madvise(at, len, MADV_DONTNEED); break;
        case 5: mmap(at, len, both, MAP_FIXED | MAP_SHARED, file, own % 16 * PAGE); break;
        case 6: ftruncate(file, (own >> 20) % 16 * PAGE); break;
        default: mmap(at, len, both, fixed, -1, 0);
        }
    }
    return 0;
}

static void *user(void *number) {
    uint64_t own = (uintptr_t)number * 104729 + 11;
    int ends[2], scratch = memfd_create("scratch", 0), pair[2];
    static char bytes[16 * PAGE];
    pwrite(scratch, bytes, sizeof bytes, 0);
    pipe2(ends, O_NONBLOCK);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);
    while (!over) {
        own ^= own << 13, own ^= own >> 7, own ^= own << 17;
        char *at = target + own % (15 * PAGE);
        unsigned long len = (own >> 20) % (3 * PAGE);
        struct timespec none = {0, 1000};
        struct iovec vectors[2] = {{at, len / 2}, {target + (own >> 32) % (14 * PAGE), len / 2}};
        switch (own >> 16 & 15) {
        case 0: pread(scratch, at, len, 0); break;
        case 1: pwrite(scratch, at, len, 0); break;
        case 2: write(ends[1], at, len); break;
        case 3: read(ends[0], at, len); break;
        case 4: syscall(SYS_futex, (uintptr_t)at & ~3UL, 0, 0, &none, 0, 0); break;
        case 5: syscall(SYS_futex, (uintptr_t)at & ~3UL, 1 | 128, 1, 0, 0, 0); break;
        case 6: syscall(SYS_getcwd, at, len); break;
        case 7: syscall(SYS_clock_gettime, 0, at); break;
        case 8: preadv(scratch, vectors, 2, 0); break;
        case 9: pwritev(scratch, vectors, 2, 0); break;
        case 10: syscall(SYS_uname, at); break;
        case 11: send(pair[0], at, len, MSG_DONTWAIT); break;
        case 12: recv(pair[1], at, len, MSG_DONTWAIT); break;
        case 13: process_vm_readv(getpid(), vectors, 1, vectors + 1, 1, 0); break;
        case 14: syscall(SYS_getrandom, at, len, 0); break;
        default: syscall(SYS_stat, at, at + 100);
        }
    }
    return 0;
}

static void races(unsigned seconds) {
    pthread_t threads[6];
    target = mmap(0, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (uintptr_t i = 0; i < 6; i++) pthread_create(&threads[i], 0, i < 3 ? changer : user, (void *)(i + 1));
    sleep(seconds);
    over = 1;
    for (int i = 0; i < 6; i++) pthread_join(threads[i], 0);
    printf("hostile: the buffers were pulled away\n");
}

#define SECRET 0x5ec4e75ec4e75ec4UL
static unsigned found;

static void look(const char *where, char *at, unsigned long len) {
    for (unsigned long i = 0; i + 8 <= len; i += 8)
        if (*(volatile uint64_t *)(at + i)) {
            printf("hostile: %s: %#lx at %#lx\n", where, *(uint64_t *)(at + i), i);
            found++;
            return;
        }
}

static void keep_secret(unsigned long len) {
    char *p = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned long i = 0; i < len; i += 8) *(uint64_t *)(p + i) = SECRET;
    int file = memfd_create("secret", 0);
    for (unsigned long i = 0; i < len; i += PAGE) write(file, p, PAGE);
    munmap(p, len / 2);
}

static void deep(int depth) {
    volatile char frame[PAGE];
    look("a new stack page", (char *)frame, 8);
    if (depth) deep(depth - 1);
    frame[depth % PAGE] = 0;
}

static void secrets(void) {
    unsigned long len = 512 * PAGE;
    int both = PROT_READ | PROT_WRITE;
    for (int round = 0; round < 6; round++) {
        pid_t pid = fork();
        if (!pid) keep_secret(len), _exit(0);
        waitpid(pid, 0, 0);
        pid = fork();
        if (pid) {
            int status;
            waitpid(pid, &status, 0);
            if (status) found++;
            continue;
        }
        look("private memory", mmap(0, len, both, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), len);
        look("shared memory", mmap(0, len, both, MAP_SHARED | MAP_ANONYMOUS, -1, 0), len);
        char *heap = sbrk(len);
        look("the heap", heap, len);
        int file = memfd_create("found", 0);
        ftruncate(file, len);
        char *shown = mmap(0, len, both, MAP_SHARED, file, 0);
        look("a memory file", shown, len);
        static char bytes[64 * PAGE];
        memset(bytes, 0x77, sizeof bytes);
        ftruncate(file, 0);
        ftruncate(file, len);
        if (pread(file, bytes, sizeof bytes, 0) != sizeof bytes) found++;
        look("what was cut and grew", bytes, sizeof bytes);
        memset(heap, 0x77, len);
        madvise((char *)((uintptr_t)heap + PAGE - 1 & -PAGE), len - PAGE, MADV_DONTNEED);
        look("what was given up", (char *)((uintptr_t)heap + PAGE - 1 & -PAGE), len - PAGE);
        char name[] = "/tmp/bsdvm-hostile-XXXXXX";
        int tail = mkstemp(name);
        unlink(name);
        write(tail, "abc", 3);
        char *page = mmap(0, PAGE, both, MAP_SHARED, tail, 0);
        look("behind the end of a file", page + 8, PAGE - 8);
        page = mmap(0, PAGE, both, MAP_PRIVATE, tail, 0);
        look("behind the end of a private file", page + 8, PAGE - 8);
        deep(100);
        _exit(found);
    }
    /* Across a hole: as much as there is, or an error. */
    char *p = mmap(0, 4 * PAGE, both, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, 4 * PAGE);
    munmap(p + PAGE, PAGE);
    int file = memfd_create("holes", 0);
    printf("hostile: write %zd", write(file, p + 10, 2 * PAGE));
    printf(" then %zd", write(file, p + PAGE + 10, PAGE));
    char other[3 * PAGE];
    struct iovec to = {other, sizeof other}, from = {p + 10, 3 * PAGE};
    printf(", other %zd", process_vm_readv(getpid(), &to, 1, &from, 1, 0));
    struct iovec two[2] = {{p, PAGE}, {p + PAGE, PAGE}};
    printf(", vectors %zd", writev(file, two, 2));
    lseek(file, 0, SEEK_SET);
    printf(", read %zd\n", read(file, p + 100, 2 * PAGE));
    printf("hostile: %u secrets found\n", found);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    setvbuf(stdout, 0, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (!strcmp(what, "arguments")) arguments();
    if (!strcmp(what, "races")) races(argc > 2 ? atoi(argv[2]) : 3);
    if (!strcmp(what, "fuzz")) fuzz(argc > 2 ? strtoul(argv[2], 0, 0) : 1, argc > 3 ? atoi(argv[3]) : 1000);
    if (!strcmp(what, "secrets")) secrets();
    return found != 0;
}
