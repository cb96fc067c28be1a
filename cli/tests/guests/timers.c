/* Timers, clocks, and descriptors of timers, signals, events and processes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

static volatile int rang, code, value, overruns;
static void ring(int s, siginfo_t *i, void *u) {
    rang++;
    code = i->si_code;
    value = i->si_value.sival_int;
    overruns = i->si_overrun;
}
static void on(int s) {
    struct sigaction a = {.sa_sigaction = ring, .sa_flags = SA_SIGINFO};
    sigaction(s, &a, 0);
}
static void wait_for(int n) { while (rang < n) usleep(1000); }
static void burn(void) {
    for (volatile int i = 0; i < 1000000; i++) { }
}

static void intervals(void) {
    struct itimerval v = {{0, 0}, {0, 20000}}, o;
    on(SIGALRM);
    on(SIGVTALRM);
    on(SIGPROF);
    SAY(setitimer(ITIMER_REAL, &v, &o));
    printf("%ld %ld\n", o.it_value.tv_sec, o.it_value.tv_usec);
    wait_for(1);
    printf("code %d\n", code == SI_KERNEL);
    v.it_interval.tv_usec = 5000;
    rang = 0;
    SAY(setitimer(ITIMER_REAL, &v, 0));
    wait_for(3);
    v.it_value.tv_usec = 0;
    SAY(setitimer(ITIMER_REAL, &v, &o));
    printf("%ld\n", o.it_interval.tv_usec);
    SAY(getitimer(ITIMER_REAL, &o));
    printf("%ld %ld\n", o.it_value.tv_sec, o.it_value.tv_usec);
    SAY(setitimer(7, &v, 0));
    SAY(getitimer(7, &v));
    SAY(setitimer(ITIMER_REAL, (void *)1, 0));
    v.it_value.tv_usec = 1000000;
    SAY(setitimer(ITIMER_REAL, &v, 0));
    v.it_value.tv_usec = -1;
    SAY(setitimer(ITIMER_REAL, &v, 0));
    v = (struct itimerval){{0, 0}, {0, 10000}};
    rang = 0;
    SAY(setitimer(ITIMER_VIRTUAL, &v, 0));
    while (!rang) burn();
    rang = 0;
    SAY(setitimer(ITIMER_PROF, &v, 0));
    while (!rang) burn();
    SAY(alarm(100));
    SAY(alarm(0));
    SAY(alarm(0));
}

static void posix(void) {
    timer_t t;
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 42};
    on(SIGRTMIN + 3);
    SAY(timer_create(CLOCK_MONOTONIC, &e, &t));
    struct itimerspec s = {{0, 0}, {0, 10000000}}, o;
    rang = 0;
    SAY(timer_settime(t, 0, &s, 0));
    wait_for(1);
    printf("%d %d %d\n", code == SI_TIMER, value, overruns);
    SAY(timer_gettime(t, &o));
    printf("%ld %ld\n", o.it_value.tv_sec, o.it_value.tv_nsec);
    SAY(timer_getoverrun(t));
    /* Missed while blocked. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &set, 0);
    s.it_interval.tv_nsec = 1000000;
    rang = 0;
    SAY(timer_settime(t, 0, &s, 0));
    usleep(60000);
    struct itimerspec stop = {0};
    siginfo_t i;
    int got = sigwaitinfo(&set, &i);
    SAY(timer_settime(t, 0, &stop, 0));
    printf("%d %d\n", got == SIGRTMIN + 3, i.si_overrun > 5);
    struct timespec none = {0, 0};
    sigtimedwait(&set, &i, &none);
    sigprocmask(SIG_UNBLOCK, &set, 0);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    timer_t r;
    SAY(timer_create(CLOCK_REALTIME, &e, &r));
    s = (struct itimerspec){{0, 0}, {now.tv_sec - 5, 0}};
    rang = 0;
    SAY(timer_settime(r, TIMER_ABSTIME, &s, 0));
    wait_for(1);
    SAY(timer_delete(r));
    SAY(timer_delete(r));
    SAY(timer_settime(t, 0, 0, 0));
    s.it_value.tv_nsec = -1;
    SAY(timer_settime(t, 0, &s, 0));
    SAY(timer_delete(t));
    e.sigev_signo = 70;
    SAY(timer_create(CLOCK_MONOTONIC, &e, &t));
    SAY(timer_create(77, 0, &t));
    SAY(syscall(SYS_timer_create, CLOCK_MONOTONIC, 1, &t));
    SAY(syscall(SYS_timer_create, CLOCK_MONOTONIC, 0, 1));
    e = (struct sigevent){.sigev_notify = 99};
    SAY(timer_create(CLOCK_MONOTONIC, &e, &t));
    e = (struct sigevent){.sigev_notify = SIGEV_NONE};
    SAY(timer_create(CLOCK_PROCESS_CPUTIME_ID, &e, &t));
    s = (struct itimerspec){{0, 0}, {100, 0}};
    SAY(timer_settime(t, 0, &s, 0));
    SAY(timer_gettime(t, &o));
    printf("%d\n", o.it_value.tv_sec == 99 || o.it_value.tv_sec == 100);
    SAY(timer_delete(t));
    e = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3};
    SAY(timer_create(CLOCK_PROCESS_CPUTIME_ID, &e, &t));
    s = (struct itimerspec){{0, 0}, {0, 10000000}};
    rang = 0;
    SAY(timer_settime(t, 0, &s, 0));
    while (!rang) burn();
    SAY(timer_delete(t));
}

static void timerfds(void) {
    int f = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    uint64_t n = 0;
    struct itimerspec s = {{0, 0}, {0, 5000000}}, o;
    SAY(read(f, &n, 8));
    SAY(read(f, &n, 7));
    SAY(timerfd_settime(f, 0, &s, &o));
    struct pollfd p = {f, POLLIN | POLLOUT};
    SAY(poll(&p, 1, -1));
    printf("%x\n", p.revents);
    SAY(read(f, &n, 8));
    printf("%lu\n", n);
    SAY(read(f, &n, 8));
    s.it_interval.tv_nsec = 1000000;
    SAY(timerfd_settime(f, 0, &s, 0));
    usleep(30000);
    SAY(read(f, &n, 100));
    printf("%d\n", n > 5);
    SAY(timerfd_gettime(f, &o));
    printf("%ld\n", o.it_interval.tv_nsec);
    fcntl(f, F_SETFL, 0);
    SAY(read(f, &n, 8));
    s = (struct itimerspec){{0, 0}, {1, 0}};
    SAY(timerfd_settime(f, TFD_TIMER_ABSTIME, &s, 0));
    SAY(read(f, &n, 8));
    printf("%lu\n", n);
    SAY(write(f, &n, 8));
    SAY(lseek(f, 0, SEEK_SET));
    SAY(timerfd_settime(f, 8, &s, 0));
    s.it_value.tv_nsec = 1000000000;
    SAY(timerfd_settime(f, 0, &s, 0));
    SAY(timerfd_settime(0, 0, &s, 0));
    SAY(timerfd_settime(99, 0, &s, 0));
    SAY(timerfd_gettime(f, (void *)1));
    SAY(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0));
    SAY(timerfd_create(CLOCK_MONOTONIC, 1));
    int e = epoll_create1(0);
    struct epoll_event ev = {EPOLLIN, {.u32 = 3}}, got;
    SAY(epoll_ctl(e, EPOLL_CTL_ADD, f, &ev));
    s = (struct itimerspec){{0, 0}, {0, 5000000}};
    SAY(timerfd_settime(f, 0, &s, 0));
    SAY(epoll_wait(e, &got, 1, -1));
    close(e);
    char name[64] = "";
    char link[64];
    sprintf(link, "/proc/self/fd/%d", f);
    readlink(link, name, 63);
    puts(name);
    close(f);
}

static void signalfds(void) {
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGUSR1);
    sigaddset(&s, SIGRTMIN + 1);
    sigaddset(&s, SIGCHLD);
    sigprocmask(SIG_BLOCK, &s, 0);
    int f = signalfd(-1, &s, SFD_NONBLOCK);
    struct signalfd_siginfo i[3];
    SAY(read(f, i, sizeof i));
    kill(getpid(), SIGUSR1);
    union sigval v = {.sival_int = 77};
    sigqueue(getpid(), SIGRTMIN + 1, v);
    struct pollfd p = {f, POLLIN};
    SAY(poll(&p, 1, -1));
    SAY(read(f, i, 127));
    SAY(read(f, i, sizeof i) / 128);
    printf("%d %d %d %d\n", i[0].ssi_signo, i[0].ssi_code, i[0].ssi_pid == getpid(), i[0].ssi_uid == getuid());
    printf("%d %d %d\n", i[1].ssi_signo == SIGRTMIN + 1, i[1].ssi_code == SI_QUEUE, i[1].ssi_int);
    fcntl(f, F_SETFL, 0);
    pid_t c = fork();
    if (!c) _exit(7);
    SAY(read(f, i, sizeof i));
    printf("%d %d %d %d\n", i[0].ssi_signo, i[0].ssi_code, i[0].ssi_pid == c, i[0].ssi_status);
    wait(0);
    sigdelset(&s, SIGUSR1);
    SAY(signalfd(f, &s, 0) == f);
    kill(getpid(), SIGUSR1);
    fcntl(f, F_SETFL, O_NONBLOCK);
    SAY(read(f, i, sizeof i));
    SAY(signalfd(0, &s, 0));
    SAY(signalfd(99, &s, 0));
    SAY(signalfd(-1, &s, 1));
    SAY(syscall(SYS_signalfd4, -1, &s, 4, 0));
    SAY(syscall(SYS_signalfd4, -1, 1, 8, 0));
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    sigwaitinfo(&one, 0);
    sigprocmask(SIG_UNBLOCK, &s, 0);
    close(f);
}

static void eventfds(void) {
    int f = eventfd(3, EFD_NONBLOCK | EFD_SEMAPHORE), g = eventfd(0, EFD_NONBLOCK);
    uint64_t n = 0;
    SAY(read(f, &n, 8));
    printf("%lu\n", n);
    SAY(read(f, &n, 8));
    SAY(read(f, &n, 8));
    SAY(read(f, &n, 8));
    n = UINT64_MAX;
    SAY(write(g, &n, 8));
    n--;
    SAY(write(g, &n, 8));
    n = 1;
    SAY(write(g, &n, 8));
    SAY(write(g, &n, 7));
    struct pollfd p = {g, POLLIN | POLLOUT};
    SAY(poll(&p, 1, 0));
    printf("%x\n", p.revents);
    SAY(read(g, &n, 7));
    SAY(read(g, &n, 16));
    printf("%lx\n", n);
    SAY(eventfd(0, 2));
    close(f);
    close(g);
}

static void pidfds(void) {
    pid_t c = fork();
    if (!c) {
        pause();
        _exit(1);
    }
    int f = syscall(SYS_pidfd_open, c, 0);
    struct pollfd p = {f, POLLIN};
    SAY(poll(&p, 1, 0));
    SAY(fcntl(f, F_GETFD));
    SAY(syscall(SYS_pidfd_send_signal, f, 0, 0, 0));
    SAY(syscall(SYS_pidfd_send_signal, f, 99, 0, 0));
    SAY(syscall(SYS_pidfd_send_signal, f, 0, 0, 64));
    SAY(syscall(SYS_pidfd_send_signal, 0, 0, 0, 0));
    int g = syscall(SYS_pidfd_getfd, f, 1, 0);
    SAY(g >= 0);
    SAY(syscall(SYS_pidfd_getfd, f, 99, 0));
    SAY(syscall(SYS_pidfd_send_signal, f, SIGKILL, 0, 0));
    SAY(poll(&p, 1, -1));
    siginfo_t i;
    SAY(waitid(P_PIDFD, f, &i, WEXITED));
    printf("%d %d\n", i.si_pid == c, i.si_status);
    SAY(syscall(SYS_pidfd_send_signal, f, 0, 0, 0));
    SAY(waitid(P_PIDFD, 0, &i, WEXITED));
    SAY(syscall(SYS_pidfd_open, c, 0));
    SAY(syscall(SYS_pidfd_open, -1, 0));
    SAY(syscall(SYS_pidfd_open, getpid(), 1));
    close(f);
    int h = -1;
    struct clone_args a = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&h, .exit_signal = SIGCHLD};
    c = syscall(SYS_clone3, &a, sizeof a);
    if (!c) _exit(3);
    SAY(h > 2);
    SAY(waitid(P_PIDFD, h, &i, WEXITED));
    printf("%d\n", i.si_status);
    close(h);
}

static void clocks(void) {
    struct timespec t, bad = {0, -1}, zero = {0, 0};
    for (int c = 0; c < 13; c++) if (c < 8 || c > 9) printf("%d: %ld %ld\n", c, syscall(SYS_clock_gettime, c, &t), syscall(SYS_clock_getres, c, &t));
    SAY(clock_gettime(-1, &t));
    SAY(syscall(SYS_clock_gettime, CLOCK_REALTIME, 1));
    SAY(clock_settime(CLOCK_MONOTONIC, &t));
    SAY(clock_settime(CLOCK_REALTIME, &bad));
    for (int c = 0; c < 13; c++) if (c < 8 || c > 9) printf("%d: %d\n", c, clock_nanosleep(c, 0, &zero, 0));
    printf("%d\n", clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, 0));
    printf("%d\n", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &zero, 0));
    clockid_t id;
    SAY(clock_getcpuclockid(0, &id));
    SAY(clock_gettime(id, &t));
    SAY(pthread_getcpuclockid(pthread_self(), &id));
    SAY(clock_gettime(id, &t));
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    do {
        burn();
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    } while (b.tv_sec <= a.tv_sec && b.tv_nsec <= a.tv_nsec);
    struct timex x = {0};
    SAY(clock_adjtime(CLOCK_MONOTONIC, &x));
    SAY(adjtimex((void *)1));
    struct rusage u;
    do {
        burn();
        getrusage(RUSAGE_SELF, &u);
    } while (!u.ru_utime.tv_usec);
    printf("%d %d\n", u.ru_maxrss > 100, u.ru_minflt > 10);
    SAY(getrusage(RUSAGE_THREAD, &u));
    SAY(getrusage(5, &u));
    SAY(getrusage(0, (void *)1));
    struct tms m;
    do burn();
    while (times(&m), !m.tms_utime);
    if (!fork()) {
        do burn();
        while (times(&m), !m.tms_utime);
        _exit(0);
    }
    wait(0);
    times(&m);
    printf("%d\n", m.tms_cutime > 0);
}

static void limits(void) {
    struct rlimit l;
    on(SIGXCPU);
    rang = 0;
    l = (struct rlimit){1, 2};
    if (!fork()) {
        SAY(setrlimit(RLIMIT_CPU, &l));
        fflush(stdout);
        while (!rang) burn();
        write(1, "warned\n", 7);
        for (;;) burn();
    }
    int s;
    wait(&s);
    printf("%x\n", s);
    SAY(getrlimit(16, &l));
    SAY(setrlimit(16, &l));
    l = (struct rlimit){5, 4};
    SAY(setrlimit(RLIMIT_CORE, &l));
    SAY(setrlimit(RLIMIT_CORE, (void *)1));
    l = (struct rlimit){5, 1ul << 40};
    SAY(setrlimit(RLIMIT_NOFILE, &l));
    SAY(prlimit(99999999, RLIMIT_CORE, 0, &l));
    pid_t c = fork();
    if (!c) {
        pause();
        _exit(0);
    }
    struct rlimit n = {33, 44};
    SAY(prlimit(c, RLIMIT_CORE, &n, 0));
    SAY(prlimit(c, RLIMIT_CORE, 0, &l));
    printf("%lu %lu\n", l.rlim_cur, l.rlim_max);
    kill(c, SIGKILL);
    wait(0);
}

/* Lists within lists: one is ready when something on it is. */
static void lists(void) {
    struct epoll_event in = {EPOLLIN, {.u32 = 3}}, alone = {EPOLLIN | EPOLLEXCLUSIVE, {.u32 = 4}}, got;
    int counter = eventfd(0, EFD_NONBLOCK), inner = epoll_create1(0), outer = epoll_create1(0), last = outer, p[2];
    uint64_t one = 1;
    SAY(epoll_ctl(inner, EPOLL_CTL_ADD, inner, &in));
    SAY(epoll_ctl(inner, EPOLL_CTL_ADD, counter, &in));
    SAY(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &in));
    SAY(epoll_ctl(inner, EPOLL_CTL_ADD, outer, &in));
    SAY(epoll_wait(outer, &got, 1, 0));
    struct pollfd asked = {outer, POLLIN, 0};
    SAY(poll(&asked, 1, 0));
    fflush(stdout);
    if (!fork()) {
        write(counter, &one, 8);
        _exit(0);
    }
    SAY(epoll_wait(outer, &got, 1, -1));
    SAY(poll(&asked, 1, -1));
    printf("%x\n", asked.revents);
    wait(0);
    read(counter, &one, 8);
    SAY(epoll_wait(outer, &got, 1, 0));
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec soon = {{0, 0}, {0, 1000000}};
    timerfd_settime(timer, 0, &soon, 0);
    SAY(epoll_ctl(inner, EPOLL_CTL_ADD, timer, &in));
    SAY(epoll_wait(outer, &got, 1, -1));
    for (int i = 0; i < 5; i++) {
        int next = epoll_create1(0);
        SAY(epoll_ctl(next, EPOLL_CTL_ADD, last, &in));
        last = next;
    }
    pipe(p);
    SAY(epoll_ctl(outer, EPOLL_CTL_ADD, p[0], &alone));
    SAY(epoll_ctl(outer, EPOLL_CTL_MOD, p[0], &in));
    SAY(epoll_ctl(outer, EPOLL_CTL_MOD, inner, &alone));
    alone.events |= EPOLLONESHOT;
    SAY(epoll_ctl(outer, EPOLL_CTL_ADD, p[1], &alone));
}

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    void (*all[])(void) = {intervals, posix, timerfds, signalfds, eventfds, lists, pidfds, clocks, limits};
    for (int i = 0; i < 9; i++) {
        all[i]();
        fflush(stdout);
    }
    return 0;
}
