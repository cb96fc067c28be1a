/* Signals, threads, stops and interrupted calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char *page;
static volatile int count, got;

static void repair(int s, siginfo_t *i, void *c) {
    (void)s, (void)c;
    char here;
    count++;
    if (i->si_addr != page || i->si_code != SEGV_ACCERR) _exit(9);
    volatile double x = 1.0;
    for (int k = 0; k < 100; k++) x = x * 1.5 + (unsigned char)here % 2;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static void note(int s) { (void)s, got++; }

static void *work(void *a) {
    volatile double x = 1.0;
    for (int i = 0; i < 100000; i++) x = x * 1.0000001 + (long)a;
    char *m = malloc(100000);
    memset(m, 1, 100000);
    free(m);
    return (void *)((long)a * 2);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int shared;
static void *add(void *a) {
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&lock);
        shared++;
        pthread_mutex_unlock(&lock);
    }
    return a;
}

static void threads(void) {
    pthread_t t[4];
    void *v;
    long sum = 0;
    for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, work, (void *)i);
    for (int i = 0; i < 4; i++) pthread_join(t[i], &v), sum += (long)v;
    for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, add, 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    printf("threads %ld %d\n", sum, shared);
}

static void handle(int flags) {
    struct sigaction sa = {0};
    sa.sa_handler = note;
    sa.sa_flags = flags;
    sigaction(SIGUSR1, &sa, 0);
    int p[2];
    char b = 0;
    pipe(p);
    fflush(stdout);
    pid_t me = getpid();
    if (!fork()) {
        usleep(50000);
        kill(me, SIGUSR1);
        usleep(50000);
        write(p[1], "x", 1);
        _exit(0);
    }
    errno = 0;
    long n = read(p[0], &b, 1);
    printf("read %ld %d\n", n, n < 0 ? errno : b);
    wait(0);
}

int main(void) {
    int st;
    page = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction sa = {0};
    sa.sa_sigaction = repair;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    stack_t ss = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&ss, 0);
    sigaction(SIGSEGV, &sa, 0);
    double d = 3.25;
    page[0] = 1;
    printf("repaired %d %g\n", count, d * 2);
    threads();
    handle(SA_RESTART);
    handle(0);
    got = 0;
    fflush(stdout);
    pid_t me = getpid();
    if (!fork()) {
        usleep(50000);
        kill(me, SIGUSR1);
        _exit(0);
    }
    while (!got) { }
    wait(0);
    printf("spun\n");
    fflush(stdout);
    pid_t p = fork();
    if (!p) pause();
    kill(p, SIGTERM);
    waitpid(p, &st, 0);
    printf("killed by %d\n", WTERMSIG(st));
    fflush(stdout);
    p = fork();
    if (!p) {
        raise(SIGSTOP);
        _exit(5);
    }
    waitpid(p, &st, WUNTRACED);
    printf("stopped %d by %d, ", WIFSTOPPED(st), WSTOPSIG(st));
    kill(p, SIGCONT);
    waitpid(p, &st, 0);
    printf("then status %d\n", WEXITSTATUS(st));
    signal(SIGALRM, note);
    alarm(1);
    pause();
    printf("alarm\n");
    fflush(stdout);
    printf("system %d\n", WEXITSTATUS(system("echo from a shell; exit 4")));
    return 3;
}
