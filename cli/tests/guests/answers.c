/* What memory calls answer at the edges: limits, seals, flags, tails. Compared with the host's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define BOTH (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define SAY(expr) (errno = 0, r = (long)(expr), printf("%s = %s %d\n", #expr, r == -1 ? "-1" : "ok", errno))
static long r;
static sigjmp_buf back;
static volatile int code;

static void handler(int number, siginfo_t *info, void *context) {
    code = number * 100 + info->si_code;
    siglongjmp(back, 1);
}
static int touch(volatile char *at, int write) {
    code = 0;
    if (!sigsetjmp(back, 1)) {
        if (write) *at = 1;
        else (void)*at;
    }
    return code;
}
static char *map(unsigned long n, int prot, int flags) { return mmap(0, n, prot, flags, -1, 0); }

static void in_child(const char *name, void (*act)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        printf("-- %s\n", name);
        act();
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("-- ended %x\n", status);
}

static void limit(int which, unsigned long bytes) {
    struct rlimit now;
    getrlimit(which, &now);
    now.rlim_cur = bytes;
    SAY(setrlimit(which, &now));
}

static void flags(void) {
    int fd = memfd_create("flags", 0), ro = open("/etc/passwd", O_RDONLY), wo = open("/dev/null", O_WRONLY);
    ftruncate(fd, 4 * PAGE);
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED_VALIDATE, fd, 0));
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0));
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED_VALIDATE | 1 << 21, fd, 0));
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED | MAP_SYNC, fd, 0));
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0));
    SAY(mmap(0, PAGE, BOTH, ANON | MAP_HUGETLB, -1, 0));
    SAY(mmap(0, PAGE, BOTH, ANON | MAP_HUGETLB | 13 << 26, -1, 0));
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED | MAP_HUGETLB, fd, 0));
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED | MAP_GROWSDOWN, fd, 0));
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED, ro, 0));
    SAY(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, wo, 0));
    SAY(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, open("/dev/null", O_RDWR), 0));
    SAY(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, open("/etc/passwd", O_PATH), 0));
    SAY(mmap((void *)0x7ffffffff000, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0));
    SAY(mmap((void *)-PAGE, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0));
    SAY(mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, -PAGE));
    char *low = map(PAGE, BOTH, ANON | MAP_32BIT);
    printf("low %d\n", (unsigned long)low < 0x80000000);
    SAY(munmap((void *)0x7fffffffe000, PAGE));
    SAY(munmap((void *)0x7ffffffff000, PAGE));
    SAY(munmap(low, -PAGE));
    unsigned char v[4];
    SAY(mincore(low, PAGE, (void *)8));
    SAY(mincore(low, PAGE, (void *)-8));
    SAY(mincore((void *)0x7ffffffff000, PAGE, v));
    SAY(mincore(low, 0, 0));
    SAY(syscall(SYS_remap_file_pages, low, PAGE, 0, 0, 0));
    char *p = mmap(0, 4 * PAGE, BOTH, MAP_SHARED, fd, 0);
    for (int i = 0; i < 4; i++) p[i * PAGE] = 'a' + i;
    SAY(syscall(SYS_remap_file_pages, p, PAGE, 0, 3, 0));
    SAY(syscall(SYS_remap_file_pages, p, PAGE, PROT_READ, 3, 0));
    printf("%c%c\n", p[0], p[PAGE]);
    SAY(syscall(SYS_pkey_mprotect, p, PAGE, PROT_READ, -1));
    SAY(madvise(p, PAGE, MADV_WIPEONFORK));
    SAY(madvise(p, PAGE, MADV_FREE));
    SAY(madvise(p, PAGE, MADV_REMOVE));
    printf("%d %d\n", p[0], p[PAGE]);
}

static void seals(void) {
    int fd = memfd_create("seals", MFD_ALLOW_SEALING), plain = memfd_create("plain", 0);
    ftruncate(fd, 2 * PAGE);
    SAY(memfd_create("x", 0x100));
    SAY(memfd_create("x", MFD_CLOEXEC | 0x18));
    SAY(memfd_create((char *)8, 0));
    char name[260];
    memset(name, 'n', sizeof name);
    name[249] = 0;
    SAY(memfd_create(name, 0));
    name[249] = 'n', name[250] = 0;
    SAY(memfd_create(name, 0));
    printf("%d %d\n", fcntl(fd, F_GET_SEALS), fcntl(plain, F_GET_SEALS));
    SAY(fcntl(plain, F_ADD_SEALS, F_SEAL_GROW));
    SAY(fcntl(0, F_GET_SEALS));
    SAY(fcntl(fd, F_ADD_SEALS, 0x1000));
    char *p = mmap(0, PAGE, BOTH, MAP_SHARED, fd, 0);
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    *p = 5;
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED, fd, 0));
    SAY(write(fd, "x", 1));
    char *q = mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    SAY(mprotect(q, PAGE, BOTH));
    munmap(p, PAGE);
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW));
    SAY(ftruncate(fd, 3 * PAGE));
    SAY(ftruncate(fd, PAGE));
    SAY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
    SAY(mmap(0, PAGE, BOTH, MAP_PRIVATE, fd, 0));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL));
    SAY(ftruncate(fd, 0));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    printf("%x\n", fcntl(fd, F_GET_SEALS));
    char path[40];
    sprintf(path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY);
    SAY(mmap(0, PAGE, BOTH, MAP_SHARED, again, 0));
    SAY(fcntl(again, F_ADD_SEALS, 0));
}

static void tails(void) {
    char name[] = "/tmp/bsdvm-answers-XXXXXX", b[PAGE];
    int fd = mkstemp(name);
    unlink(name);
    write(fd, "tail", 4);
    char *p = mmap(0, 3 * PAGE, BOTH, MAP_SHARED, fd, 0);
    printf("%d %d %d\n", p[3], p[4], p[PAGE - 1]);
    p[5] = 'x';
    printf("beyond %d %d\n", touch(p + PAGE, 0), touch(p + 2 * PAGE, 1));
    msync(p, PAGE, MS_SYNC);
    munmap(p, 3 * PAGE);
    printf("%zd\n", pread(fd, b, PAGE, 0));
    ftruncate(fd, 3 * PAGE);
    p = mmap(0, 3 * PAGE, BOTH, MAP_PRIVATE, fd, 0);
    printf("grown %d %d\n", p[5], p[2 * PAGE]);
    p[PAGE] = 9;
    ftruncate(fd, 100);
    printf("cut %d\n", touch(p + PAGE, 0));
    ftruncate(fd, 2 * PAGE);
    printf("back %d\n", p[PAGE]);
    printf("kernel %zd %d\n", write(1, p + 2 * PAGE, 4), errno);
}

static void space_limit(void) {
    map(PAGE, BOTH, ANON);
    limit(RLIMIT_AS, 64 << 20);
    SAY(map(128 << 20, BOTH, ANON));
    SAY(map(PAGE, BOTH, ANON));
    char *p = map(4 * PAGE, BOTH, ANON);
    SAY(mremap(p, 4 * PAGE, 128 << 20, MREMAP_MAYMOVE));
    SAY(sbrk(128 << 20));
}

static void data_limit(void) {
    limit(RLIMIT_DATA, 16 << 20);
    SAY(sbrk(64 << 20));
    SAY(map(64 << 20, BOTH, ANON));
    char *p = map(64 << 20, PROT_READ, ANON);
    SAY(p);
    SAY(mprotect(p, 64 << 20, BOTH));
    SAY(map(64 << 20, BOTH, MAP_SHARED | MAP_ANONYMOUS));
}

static void lock_limit(void) {
    limit(RLIMIT_MEMLOCK, 4 * PAGE);
    setuid(65534);
    char *p = map(16 * PAGE, BOTH, ANON);
    SAY(mlock(p, 8 * PAGE));
    SAY(mlock(p, 4 * PAGE));
    SAY(mlock(p, 4 * PAGE));
    SAY(mlock(p + 8 * PAGE, PAGE));
    SAY(mlockall(MCL_CURRENT));
    SAY(map(PAGE, BOTH, ANON | MAP_LOCKED));
    SAY(mremap(p, 4 * PAGE, 5 * PAGE, MREMAP_MAYMOVE));
    SAY(munlock(p, 4 * PAGE));
    SAY(mlockall(MCL_FUTURE));
    SAY(map(8 * PAGE, BOTH, ANON));
    SAY(map(2 * PAGE, BOTH, ANON));
    SAY(sbrk(64 * PAGE));
    SAY(munlockall());
    limit(RLIMIT_MEMLOCK, 0);
    SAY(mlock(p, PAGE));
    SAY(mlockall(MCL_CURRENT));
    SAY(map(PAGE, BOTH, ANON | MAP_LOCKED));
    SAY(munlock(p, PAGE));
}

static void locks(void) {
    char *p = map(4 * PAGE, BOTH, ANON);
    SAY(mlockall(0));
    SAY(mlockall(MCL_ONFAULT));
    SAY(mlockall(8));
    SAY(mlock(p, PAGE));
    SAY(madvise(p, PAGE, MADV_DONTNEED));
    SAY(madvise(p, PAGE, 24));
    SAY(madvise(p, PAGE, MADV_FREE));
    SAY(msync(p, PAGE, MS_INVALIDATE));
    SAY(mlock(map(PAGE, PROT_NONE, ANON), PAGE));
    SAY(mlock2(p + PAGE, PAGE, MLOCK_ONFAULT));
    unsigned char v[2];
    mincore(p, 2 * PAGE, v);
    printf("%d %d\n", v[0], v[1]);
    SAY(mlock2(p, PAGE, 2));
    SAY(munlock(p - 64, 128 * PAGE * PAGE));
}

static void stack(void) {
    char *room = map(2048 * PAGE, PROT_NONE, ANON);
    munmap(room, 2048 * PAGE);
    char *p = mmap(room + 1024 * PAGE, 4 * PAGE, BOTH, ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    printf("grows %d %d\n", touch(p - PAGE, 1), touch(p - 300 * PAGE, 0));
    mmap(room, PAGE, BOTH, ANON | MAP_FIXED, -1, 0);
    printf("guard %d %d\n", touch(room + 200 * PAGE, 1), touch(room + 300 * PAGE, 1));
    SAY(mprotect(p + PAGE, PAGE, PROT_READ | PROT_GROWSDOWN));
    printf("protected %d %d\n", touch(p + PAGE, 1), touch(p + 2 * PAGE, 1));
    SAY(mprotect(p, PAGE, PROT_READ | PROT_GROWSUP));
    SAY(mprotect(room, PAGE, PROT_READ | PROT_GROWSDOWN));
    limit(RLIMIT_STACK, 900 * PAGE);
    mprotect(room + 300 * PAGE, 728 * PAGE, BOTH);
    munmap(room, PAGE);
    printf("limit %d %d\n", touch(room + 100 * PAGE, 1), touch(room + 200 * PAGE, 1));
}

/* No two of these are one mapping: there is an end to them. */
static void count(void) {
    int n = 0;
    while (map(1, n & 1 ? PROT_READ : BOTH, ANON) != MAP_FAILED) n++;
    printf("%d %d\n", n > 65000 && n <= 65531, errno);
}

int main(void) {
    static char area[65536];
    stack_t alternate = {.ss_sp = area, .ss_size = sizeof area};
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaltstack(&alternate, 0);
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    in_child("flags", flags);
    in_child("seals", seals);
    in_child("tails", tails);
    in_child("address space", space_limit);
    in_child("data", data_limit);
    in_child("locked memory", lock_limit);
    in_child("locks", locks);
    in_child("stacks", stack);
    in_child("count", count);
    return 0;
}
