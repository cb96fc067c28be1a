/* Locks with owners in their words, robust ones among them, and waits for several words. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

static void say(const char *what, long r) { printf("%s: %ld %s\n", what, r, r < 0 ? strerrorname_np(errno) : ""); fflush(stdout); }
static void err(const char *what, int e) { printf("%s: %s\n", what, e ? strerrorname_np(e) : "0"); fflush(stdout); }
static long futex(volatile unsigned *w, int op, unsigned v, const struct timespec *t, void *w2, unsigned v3) { return syscall(SYS_futex, w, op, v, t, w2, v3); }

static pthread_mutex_t lock;
static long counter;
static void *adds(void *a) {
    for (int i = 0; i < 5000; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
    }
    return 0;
}

static void make(pthread_mutex_t *m, int robust, int shared) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
    if (robust) pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    if (shared) pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    err("init", pthread_mutex_init(m, &a));
}

static void *dies(void *m) { pthread_mutex_lock(m); return 0; }
static void *holds(void *m) { pthread_mutex_lock(m); usleep(300000); pthread_mutex_unlock(m); return 0; }

static volatile unsigned words[3];
static void *wakes(void *a) {
    /* until somebody sleeps there */
    while (futex(&words[1], FUTEX_WAKE, 1, 0, 0, 0) == 0) usleep(1000);
    return 0;
}

/* What the first thread starts goes on without it, and may become another program. */
static pthread_t first;
static int is_joined;
static void *outlives(void *unused) {
    if (is_joined) printf("first thread: %d\n", pthread_join(first, 0));
    fflush(stdout);
    execl("/bin/echo", "echo", "another program", (char *)0);
    return 0;
}

int main(int argc, char **argv) {
    is_joined = argc == 1;
    pthread_t t[4];
    make(&lock, 0, 0);
    for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, adds, 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    say("counted", counter);
    pthread_mutex_lock(&lock);
    err("again", pthread_mutex_lock(&lock));
    err("unlock", pthread_mutex_unlock(&lock));
    err("not mine", pthread_mutex_unlock(&lock));
    pthread_create(&t[0], 0, holds, &lock);
    while (pthread_mutex_trylock(&lock) == 0) { pthread_mutex_unlock(&lock); usleep(1000); }
    err("held", pthread_mutex_trylock(&lock));
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += 20000000;
    if (at.tv_nsec >= 1000000000) { at.tv_sec++; at.tv_nsec -= 1000000000; }
    err("in time", pthread_mutex_timedlock(&lock, &at));
    err("at last", pthread_mutex_lock(&lock));
    pthread_mutex_unlock(&lock);
    pthread_join(t[0], 0);

    pthread_mutex_t r;
    make(&r, 1, 0);
    pthread_create(&t[0], 0, dies, &r);
    pthread_join(t[0], 0);
    err("owner died", pthread_mutex_lock(&r));
    err("consistent", pthread_mutex_consistent(&r));
    err("unlock", pthread_mutex_unlock(&r));

    pthread_mutex_t *s = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long *n = (long *)(s + 1);
    make(s, 1, 1);
    for (int i = 0; i < 3; i++)
        if (!fork()) {
            for (int k = 0; k < 2000; k++) {
                int e = pthread_mutex_lock(s);
                if (e == EOWNERDEAD) pthread_mutex_consistent(s);
                ++*n;
                if (i == 0 && k == 1000) _exit(0); /* with the lock */
                pthread_mutex_unlock(s);
            }
            _exit(0);
        }
    while (wait(0) > 0);
    say("by processes", *n);
    int e = pthread_mutex_lock(s);
    printf("then %d\n", e == 0 || e == EOWNERDEAD);

    volatile unsigned w = 0;
    say("lock", futex(&w, FUTEX_LOCK_PI, 0, 0, 0, 0));
    printf("%d\n", w == gettid());
    say("lock again", futex(&w, FUTEX_LOCK_PI, 0, 0, 0, 0));
    say("try again", futex(&w, FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
    say("unlock", futex(&w, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    printf("%u\n", w);
    say("unlock again", futex(&w, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    w = 999999;
    say("owner is nobody", futex(&w, FUTEX_LOCK_PI, 0, 0, 0, 0));
    say("odd place", futex((void *)((char *)&w + 1), FUTEX_LOCK_PI, 0, 0, 0, 0));
    say("bad place", futex((void *)8, FUTEX_LOCK_PI, 0, 0, 0, 0));
    w = 5;
    say("changed", futex(&w, FUTEX_WAIT, 4, 0, 0, 0));
    struct timespec bad = {0, -1}, zero = {0, 0};
    say("bad time", futex(&w, FUTEX_WAIT, 5, &bad, 0, 0));
    say("no time", futex(&w, FUTEX_WAIT, 5, &zero, 0, 0));
    say("no bits", futex(&w, FUTEX_WAIT_BITSET, 5, 0, 0, 0));
    say("unknown", futex(&w, 77, 5, 0, 0, 0));
    say("requeue negative", futex(&w, FUTEX_REQUEUE, -1, 0, (void *)&words[0], 0));
    say("compare", futex(&w, FUTEX_CMP_REQUEUE, 1, 0, (void *)&words[0], 6));

    struct { unsigned long value, at; unsigned flags, reserved; } v[3];
    for (int i = 0; i < 3; i++) { v[i].value = 0; v[i].at = (long)&words[i]; v[i].flags = 2 | 128; v[i].reserved = 0; }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    say("several, no time", syscall(SYS_futex_waitv, v, 3, 0, &now, CLOCK_MONOTONIC));
    say("none", syscall(SYS_futex_waitv, v, 0, 0, &now, CLOCK_MONOTONIC));
    say("too many", syscall(SYS_futex_waitv, v, 129, 0, &now, CLOCK_MONOTONIC));
    say("flags", syscall(SYS_futex_waitv, v, 3, 1, &now, CLOCK_MONOTONIC));
    say("clock", syscall(SYS_futex_waitv, v, 3, 0, &now, CLOCK_BOOTTIME));
    v[2].value = 1;
    say("one has changed", syscall(SYS_futex_waitv, v, 3, 0, 0, 0));
    v[2].value = 0;
    v[1].reserved = 1;
    say("reserved", syscall(SYS_futex_waitv, v, 3, 0, 0, 0));
    v[1].reserved = 0;
    for (int i = 0; i < 3; i++) v[i].flags = 2;
    pthread_create(&t[0], 0, wakes, 0);
    say("woken", syscall(SYS_futex_waitv, v, 3, 0, 0, 0));
    pthread_join(t[0], 0);

    void *head;
    size_t len;
    say("own list", syscall(SYS_get_robust_list, 0, &head, &len));
    printf("%zu\n", len);
    say("of nobody", syscall(SYS_get_robust_list, 999999, &head, &len));
    say("bad head", syscall(SYS_get_robust_list, 0, 8, &len));
    say("list size", syscall(SYS_set_robust_list, head, 23));
    first = pthread_self();
    pthread_create(&t[0], 0, outlives, 0);
    if (!is_joined) pthread_join(t[0], 0);
    pthread_exit(0);
}
