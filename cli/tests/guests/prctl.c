/* What a process says of itself, and what comes of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

static int died;

static void ended(int s) { died = s; }

static void *named(void *a) {
    char n[17] = "";
    prctl(PR_SET_NAME, "a thread of its own");
    prctl(PR_GET_NAME, n);
    printf("%s\n", n);
    return a;
}

int main(void) {
    int v = 7;
    char n[17] = "";
    SAY(prctl(PR_GET_NAME, n));
    puts(n);
    SAY(prctl(PR_SET_NAME, "first"));
    pthread_t t;
    pthread_create(&t, 0, named, 0);
    pthread_join(t, 0);
    SAY(prctl(PR_GET_NAME, n));
    puts(n);
    SAY(prctl(PR_SET_NAME, 1));
    SAY(prctl(PR_SET_NAME, ""));
    SAY(prctl(PR_GET_NAME, n));
    puts(n);
    SAY(prctl(PR_SET_PDEATHSIG, 65));
    SAY(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    SAY(prctl(PR_GET_PDEATHSIG, &v));
    printf("%d\n", v);
    SAY(prctl(PR_GET_PDEATHSIG, 1));
    SAY(prctl(PR_GET_DUMPABLE));
    SAY(prctl(PR_SET_DUMPABLE, 2));
    SAY(prctl(PR_SET_DUMPABLE, 0));
    SAY(prctl(PR_GET_DUMPABLE));
    SAY(prctl(PR_GET_TIMERSLACK));
    SAY(prctl(PR_SET_TIMERSLACK, 1234));
    SAY(prctl(PR_GET_TIMERSLACK));
    SAY(prctl(PR_SET_TIMERSLACK, 0));
    SAY(prctl(PR_GET_TIMERSLACK));
    SAY(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SAY(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0));
    SAY(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SAY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SAY(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SAY(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SAY(prctl(PR_CAPBSET_READ, CAP_CHOWN));
    SAY(prctl(PR_CAPBSET_READ, 64));
    SAY(prctl(PR_SET_KEEPCAPS, 2));
    SAY(prctl(PR_SET_THP_DISABLE, 1, 1, 0, 0));
    SAY(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    SAY(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    SAY(prctl(PR_GET_THP_DISABLE, 1, 0, 0, 0));
    SAY(prctl(PR_SET_TIMING, 1));
    SAY(prctl(PR_GET_TIMING));
    SAY(prctl(PR_GET_TSC, &v));
    printf("%d\n", v);
    SAY(prctl(PR_SET_SECCOMP, 7));
    SAY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0));
    SAY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0));
    SAY(prctl(PR_CAP_AMBIENT, 9, 0, 0, 0));
    SAY(prctl(12345));
    SAY(personality(0xffffffff));
    SAY(personality(ADDR_NO_RANDOMIZE));
    SAY(personality(0xffffffff));
    SAY(prctl(PR_SET_CHILD_SUBREAPER, 1));
    v = 0;
    SAY(prctl(PR_GET_CHILD_SUBREAPER, &v));
    printf("%d\n", v);
    fflush(stdout);
    /* A grandchild whose parent ends: it is told, and becomes ours. */
    int ready[2];
    pipe(ready);
    if (!fork()) {
        if (!fork()) {
            sigset_t s, old;
            sigemptyset(&s);
            sigaddset(&s, SIGUSR2);
            sigprocmask(SIG_BLOCK, &s, &old);
            signal(SIGUSR2, ended);
            SAY(prctl(PR_GET_PDEATHSIG, &v));
            printf("%d\n", v);
            prctl(PR_SET_PDEATHSIG, SIGUSR2);
            write(ready[1], "x", 1);
            while (!died) sigsuspend(&old);
            printf("told %d\n", died == SIGUSR2);
            fflush(stdout);
            _exit(5);
        }
        char c;
        read(ready[0], &c, 1);
        _exit(4);
    }
    int s, sum = 0;
    while (wait(&s) > 0) sum += WEXITSTATUS(s);
    printf("sum %d\n", sum);
    return 0;
}
