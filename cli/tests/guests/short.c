// Calls that never reach the supervisor: numbers that the thread knows, and clocks.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int ticks;

static void tick(int s) { ticks++; }

static int leads(void) { return syscall(SYS_getpid) == syscall(SYS_gettid); }

static void *second(void *arg) {
    printf("thread leads %d\n", leads());
    if (arg) execl("/proc/self/exe", "short", arg, (char *)0);
    return 0;
}

static long long ns(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }

// What libc says lies between what the calls say before and after.
static int agrees(clockid_t clock) {
    for (int i = 0; i < 1000; i++) {
        struct timespec a, b, c;
        if (syscall(SYS_clock_gettime, clock, &a) || clock_gettime(clock, &b) ||
            syscall(SYS_clock_gettime, clock, &c))
            return -1;
        if (ns(a) > ns(b) || ns(b) > ns(c)) return 0;
    }
    return 1;
}

static void clocks(void) {
    static const clockid_t all[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW,
                                    CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_REALTIME_COARSE,
                                    CLOCK_MONOTONIC_COARSE, CLOCK_PROCESS_CPUTIME_ID,
                                    CLOCK_THREAD_CPUTIME_ID};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        printf("clock %d agrees %d\n", all[i], agrees(all[i]));
    struct timespec t, u;
    for (unsigned i = 0; i < 7; i++) {
        syscall(SYS_clock_getres, all[i], &t);
        clock_getres(all[i], &u);
        printf("of %ld and %ld ns\n", t.tv_nsec, u.tv_nsec);
    }
    printf("no such clock %d\n", clock_gettime(99, &t));
    struct timeval v;
    time_t before = time(0);
    gettimeofday(&v, 0);
    printf("day %d\n", v.tv_sec >= before && v.tv_sec <= before + 1);
    unsigned cpu = -1;
    printf("cpu %d %d\n", getcpu(&cpu, 0), cpu < 4096);
}

// A signal arrives while nothing but such calls is made.
static void interrupted(void) {
    struct itimerval every = {{0, 10000}, {0, 10000}};
    struct timespec t;
    signal(SIGALRM, tick);
    setitimer(ITIMER_REAL, &every, 0);
    while (ticks < 5) {
        syscall(SYS_getpid);
        clock_gettime(CLOCK_MONOTONIC, &t);
    }
    while (ticks < 10) sched_yield();
    memset(&every, 0, sizeof every);
    setitimer(ITIMER_REAL, &every, 0);
    printf("ticked\n");
}

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IONBF, 0);
    if (argc > 1) {
        printf("%s: leads %d\n", argv[1], leads());
        return 4;
    }
    printf("vdso %d\n", getauxval(AT_SYSINFO_EHDR) != 0);
    clocks();
    printf("yield %ld\n", syscall(SYS_sched_yield));
    printf("ids %d %d %d %d\n", getuid(), geteuid(), getgid(), getegid());
    pid_t me = getpid(), child = fork();
    if (!child) {
        printf("child is itself %d, leads %d\n", getpid() != me && getppid() == me, leads());
        pthread_t t;
        pthread_create(&t, 0, second, 0);
        pthread_join(t, 0);
        interrupted();
        pthread_create(&t, 0, second, "executed");
        pthread_join(t, 0);
    }
    int st;
    printf("waited %d", waitpid(child, &st, 0) == child);
    printf(" for %d\n", WEXITSTATUS(st));
    if (!vfork()) _exit(getpid() == me);
    wait(&st);
    printf("vfork %d\n", WEXITSTATUS(st));
    return leads() ? 0 : 1;
}
