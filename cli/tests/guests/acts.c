/* One act each, by name. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int is(char **v, const char *name) { return !strcmp(v[1], name); }

static void *churn(void *a) {
    char *m = malloc(100000);
    memset(m, 1, 100000);
    free(m);
    return a;
}

static volatile int taken;
static void *taker(void *p) {
    for (int i = 0; i < 3000; i++) madvise(p, 4096, MADV_DONTNEED);
    taken = 1;
    return 0;
}

int main(int c, char **v) {
    if (c < 2) return 2;
    if (is(v, "touch")) {
        size_t n = strtoul(v[2], 0, 10) * 4096;
        char *p = mmap(0, n ? n : 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return 3;
        for (size_t i = 0; i < n; i += 4096) p[i] = 1;
        return 0;
    }
    if (is(v, "huge")) {
        if (mmap(0, 1ul << 60, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
            puts(strerror(errno));
        puts("still here");
        return 0;
    }
    if (is(v, "jump")) ((void (*)(void))0)();
    if (is(v, "overflow")) {
        char b[4096];
        memset(b, 1, sizeof b);
        return main(c, v) + b[5];
    }
    if (is(v, "maps")) {
        static char b[1 << 16];
        FILE *f = fopen("/proc/self/maps", "r");
        fwrite(b, 1, fread(b, 1, sizeof b, f), stdout);
        fclose(f);
        return 0;
    }
    if (is(v, "churn")) {
        for (int round = 0; round < 20; round++) {
            pthread_t t[4];
            for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, churn, 0);
            for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
        }
        puts("all joined");
        return 0;
    }
    if (is(v, "inherit")) {
        volatile char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        long r = syscall(1250, p, 4096, 0);
        if (!fork()) {
            p[0] = p[4096] = 99;
            _exit(0);
        }
        wait(0);
        printf("%ld %d %d\n", r, p[0], p[4096]);
        printf("%ld %ld\n", syscall(1250, p, 4096, 9), syscall(1250, p + 1, 4096, 0));
        return 0;
    }
    if (is(v, "kpmap")) {
        int fd = open("/dev/kpmap", O_RDONLY);
        printf("%d %d\n", fd > 2, open("/dev/kpmap", O_RDWR));
        printf("%d\n", mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED);
        printf("%d\n", mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
        char *p = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
        unsigned short *header = (void *)p;
        long *real = 0, *up = 0;
        for (; header[0]; header += 2) {
            if (header[0] == 1) printf("%d\n", *(int *)(p + header[1]));
            if (header[0] == 2) up = (void *)(p + header[1]);
            if (header[0] == 3) real = (void *)(p + header[1]);
        }
        close(fd);
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        getppid();
        printf("%d\n", now.tv_sec - real[0] < 3 && real[0] - now.tv_sec < 3);
        long before = up[0] * 1000000000 + up[1];
        /* Not even a program that says so gets a copy of it. */
        printf("%ld\n", syscall(1250, p, 4096, 2));
        fflush(stdout);
        if (!fork()) {
            getppid();
            printf("%d\n", up[0] * 1000000000 + up[1] > before);
            fflush(stdout);
            _exit(0);
        }
        wait(0);
        return 0;
    }
    if (is(v, "again")) { /* one instruction, one address, a page that is new each time */
        volatile char *p = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int i = 0; i < 2000; i++) {
            *p = 1;
            if (munmap((void *)p, 4096) || mmap((void *)p, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != p) return 3;
        }
        pthread_t t; /* and one that another thread takes away */
        pthread_create(&t, 0, taker, (void *)p);
        while (!taken) *p = 1;
        pthread_join(t, 0);
        puts("done");
        return 0;
    }
    if (is(v, "tables")) {
        enum { VALID = 1, WRITABLE = 2, ACCESSED = 32, MODIFIED = 64 };
        int fd = memfd_create("tables", 0);
        if (ftruncate(fd, 64 * 4096)) return 3;
        unsigned long *m = mmap(0, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        for (int level = 1; level < 4; level++) m[level * 512] = (level + 1) * 4096 | VALID | WRITABLE;
        m[4 * 512 + 2] = 10 * 4096 | VALID | WRITABLE;
        m[10 * 512] = 1010;
        m[11 * 512] = 1111;
        volatile unsigned long *t = (void *)syscall(1252, 0, 8 * 4096, fd, 0);
        printf("%d\n", t == (void *)-1);
        printf("%ld\n", syscall(1251, t, 8 * 4096, 11, 4096 | VALID | WRITABLE));
        printf("%lu\n", t[2 * 512]);
        printf("%lx\n", m[4 * 512 + 2] & 0xfff);
        t[2 * 512] = 5;
        printf("%lu %lx\n", m[10 * 512], m[4 * 512 + 2] & 0xfff);
        m[4 * 512 + 2] = 11 * 4096 | VALID;
        printf("%lu", t[2 * 512]);
        printf(" %ld", syscall(1251, t, 8 * 4096, 10, 0));
        printf(" %lu\n", t[2 * 512]);
        long r = syscall(1251, m, 4096, 11, 4096 | VALID);
        printf("%ld %d\n", r, errno == EINVAL);
        errno = 0;
        r = syscall(1251, t, 4096, 99, 0);
        printf("%ld %d\n", r, errno == EINVAL);
        if (!fork()) {
            t[2 * 512] = 6; /* not writable */
            _exit(0);
        }
        int status;
        wait(&status);
        printf("%d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
        return 0;
    }
    return 2;
}
