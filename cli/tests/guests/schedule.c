/* Policies and priorities: what is asked for is told again, and what makes no sense is refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
    uint32_t low, high;
};

static long set(struct attributes a) { return syscall(SYS_sched_setattr, 0, &a, 0); }

static void told(void) {
    struct sched_param param;
    struct attributes a = {0};
    SAY(sched_getscheduler(0));
    SAY(sched_getparam(0, &param));
    SAY(syscall(SYS_sched_getattr, 0, &a, sizeof a, 0));
    printf("%d, %u %llu %d %u %llu\n", param.sched_priority, a.policy, (long long)a.flags, a.nice, a.priority, (long long)a.deadline);
}

static void policies(void) {
    struct sched_param none = {0}, five = {5}, much = {100};
    struct timespec slice;
    SAY(sched_setscheduler(0, SCHED_FIFO, &none));
    SAY(sched_setscheduler(0, SCHED_RR, &much));
    SAY(sched_setscheduler(0, SCHED_OTHER, &five));
    SAY(sched_setscheduler(0, 4, &none));
    SAY(sched_setscheduler(0, -1, &none));
    SAY(sched_setscheduler(-1, SCHED_OTHER, &none));
    SAY(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, 0));
    SAY(sched_getscheduler(-1));
    SAY(sched_getscheduler(1 << 22));
    SAY(syscall(SYS_sched_getparam, 0, 0));
    SAY(sched_setscheduler(0, SCHED_FIFO, &five));
    told();
    SAY(sched_setparam(0, &much));
    SAY(sched_rr_get_interval(0, &slice));
    printf("%ld\n", slice.tv_nsec);
    SAY(sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none));
    told();
    for (int policy = -1; policy < 9; policy++) printf("%d: %d %d\n", policy, sched_get_priority_min(policy), sched_get_priority_max(policy));
}

static void children(void) {
    struct sched_param five = {5}, none = {0};
    sched_setscheduler(0, SCHED_RR, &five);
    for (int reset = 0; reset < 2; reset++) {
        if (reset) sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &five);
        fflush(stdout);
        if (!fork()) {
            told();
            if (setuid(65534)) return;
            SAY(sched_setscheduler(0, SCHED_FIFO, &five));
            SAY(sched_setscheduler(0, SCHED_OTHER, &none));
            SAY(sched_setscheduler(getppid(), SCHED_OTHER, &none));
            fflush(stdout);
            _exit(0);
        }
        wait(0);
    }
    sched_setscheduler(0, SCHED_OTHER, &none);
}

static void attributes(void) {
    SAY(set((struct attributes){sizeof(struct attributes), .nice = 3}));
    told();
    SAY(set((struct attributes){sizeof(struct attributes), .policy = SCHED_FIFO, .priority = 7, .flags = 1}));
    told();
    SAY(set((struct attributes){sizeof(struct attributes), .policy = SCHED_BATCH, .flags = 8 | 16}));
    told();
    SAY(set((struct attributes){sizeof(struct attributes), .policy = 6, .runtime = 1}));
    SAY(set((struct attributes){sizeof(struct attributes), .policy = 99}));
    SAY(set((struct attributes){20}));
    SAY(set((struct attributes){sizeof(struct attributes)}));
}

static void devices(void) {
    enum { PROCESS = 1, GROUP, BEST = 2 << 13, IDLE = 3 << 13 };
    SAY(syscall(SYS_ioprio_get, PROCESS, 0));
    SAY(syscall(SYS_ioprio_set, PROCESS, 0, BEST | 3));
    SAY(syscall(SYS_ioprio_get, PROCESS, getpid()));
    SAY(syscall(SYS_ioprio_set, PROCESS, 0, IDLE));
    SAY(syscall(SYS_ioprio_get, PROCESS, 0));
    SAY(syscall(SYS_ioprio_set, PROCESS, 0, 4 << 13));
    SAY(syscall(SYS_ioprio_set, PROCESS, 0, 1));
    SAY(syscall(SYS_ioprio_set, 9, 0, BEST));
    SAY(syscall(SYS_ioprio_get, PROCESS, 1 << 22));
    SAY(syscall(SYS_ioprio_set, PROCESS, 0, 0));
}

int main(void) {
    policies();
    children();
    attributes();
    devices();
}
