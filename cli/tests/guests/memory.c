/* Memory calls with answers that can be compared with the host's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(expr) (errno = 0, r = (long)(expr), printf("%s = %s %d\n", #expr, r == -1 ? "-1" : "ok", errno))
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
static long r;

static char *map(size_t n, int prot, int flags) { return mmap(0, n, prot, flags, -1, 0); }

static void arguments(char *p) {
    SAY(mmap(0, 0, PROT_READ, ANON, -1, 0));
    SAY(mmap(0, 1UL << 60, PROT_READ, ANON, -1, 0));
    SAY(mmap(0, 4096, PROT_READ, MAP_ANONYMOUS, -1, 0));
    SAY(mmap(0, 4096, PROT_READ, MAP_PRIVATE, 99, 0));
    SAY(mmap(0, 4096, PROT_READ, ANON, -1, 1));
    SAY(mmap(p + 1, 4096, PROT_READ, ANON | MAP_FIXED, -1, 0));
    SAY(mmap(p, 4096, PROT_READ, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    SAY(munmap(p + 1, 4096));
    SAY(munmap(p, 0));
    SAY(mprotect(p + 1, 4096, PROT_READ));
    SAY(mprotect(p, 0, PROT_READ));
    SAY(mprotect(p, 4096, 0x100));
    SAY(madvise(p, 4096, 77));
    SAY(madvise(p + 1, 4096, MADV_DONTNEED));
    SAY(msync(p, 4096, MS_SYNC | MS_ASYNC));
    SAY(mremap(p, 4096, 0, MREMAP_MAYMOVE));
    SAY(mremap(p, 4096, 4096, MREMAP_FIXED, p));
    SAY(brk((void *)1));
}

static void holes(char *p) {
    munmap(p + 4096, 4096);
    SAY(mprotect(p, 3 * 4096, PROT_READ));
    SAY(madvise(p, 3 * 4096, MADV_DONTNEED));
    SAY(msync(p, 3 * 4096, MS_SYNC));
    SAY(mlock(p, 3 * 4096));
    unsigned char v[3];
    SAY(mincore(p, 3 * 4096, v));
    SAY(munmap(p, 3 * 4096));
    SAY(munmap(p, 3 * 4096));
}

static void files(void) {
    char name[] = "/tmp/bsdvm-guest-XXXXXX", b[8] = {0};
    int fd = mkstemp(name);
    unlink(name);
    write(fd, "hello file\n", 11);
    char *s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    p[0] = 'P';
    s[1] = 'S';
    pread(fd, b, 5, 0);
    printf("read %s private %.5s shared %.5s tail %d\n", b, p, s, s[11]);
    pwrite(fd, "W", 1, 2);
    printf("after write: private %.5s shared %.5s\n", p, s);
    ftruncate(fd, 2);
    printf("after truncation: shared %d %d %d\n", s[0], s[1], s[2]);
    int ro = open("/etc/passwd", O_RDONLY);
    SAY(mmap(0, 4096, PROT_WRITE, MAP_SHARED, ro, 0));
    char *m = mmap(0, 4096, PROT_READ, MAP_SHARED, ro, 0);
    SAY(mprotect(m, 4096, PROT_READ | PROT_WRITE));
    SAY(mmap(0, 4096, PROT_READ, MAP_PRIVATE, open("/", O_RDONLY), 0));
    int mem = memfd_create("guest", 0);
    ftruncate(mem, 8192);
    char *q = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, mem, 0);
    q[4096] = 7;
    lseek(mem, 4096, SEEK_SET);
    printf("memfd %zd %d\n", read(mem, b, 1), b[0]);
}

static void sharing(void) {
    char *s = map(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    char *p = map(3 * 4096, PROT_READ | PROT_WRITE, ANON);
    s[0] = p[0] = p[4096] = 1;
    madvise(p + 4096, 4096, MADV_WIPEONFORK);
    madvise(p + 8192, 4096, MADV_DONTFORK);
    fflush(stdout);
    if (!fork()) {
        printf("child sees %d %d %d\n", s[0], p[0], p[4096]);
        s[0] = p[0] = 42;
        fflush(stdout);
        p[8192] = 1;
        _exit(0);
    }
    int st;
    wait(&st);
    printf("child died of %d; %d %d\n", WTERMSIG(st), s[0], p[0]);
    p[0] = 5;
    madvise(p, 4096, MADV_DONTNEED);
    printf("discarded %d\n", p[0]);
}

int main(void) {
    char *p = map(4 * 4096, PROT_READ | PROT_WRITE, ANON);
    p[0] = 9;
    arguments(p);
    char *n = mremap(p, 4096, 16384, MREMAP_MAYMOVE);
    printf("moved %d %d\n", n != p, n[0]);
    n = mremap(n, 16384, 4096, 0);
    printf("shrunk %d\n", n[0]);
    holes(map(3 * 4096, PROT_READ | PROT_WRITE, ANON));
    files();
    sharing();
    return 0;
}
