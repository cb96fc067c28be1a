/* Children: what clone shares, who waits for whom, groups, sessions, and orders of checks. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char stack[65536] __attribute__((aligned(16)));
#define TOP (stack + sizeof stack)
static int number, fds[2];

static void say(const char *what, long r) { printf("%s: %ld %s\n", what, r, r < 0 ? strerrorname_np(errno) : ""); fflush(stdout); }
static void nop(int s) { (void)s; }

static int changes(void *a) {
    number = 7;
    chdir("/usr");
    umask(0123);
    close(fds[0]);
    struct sigaction act = {.sa_handler = nop};
    sigaction(SIGUSR1, &act, 0);
    return 5;
}

static void shares(const char *what, int flags) {
    number = 1;
    chdir("/");
    umask(022);
    signal(SIGUSR1, SIG_DFL);
    pipe(fds);
    int pid = clone(changes, TOP, flags | SIGCHLD, 0), status = 0;
    waitpid(pid, &status, 0);
    char at[64];
    struct sigaction act;
    getcwd(at, sizeof at);
    int mask = umask(022), open = fcntl(fds[0], F_GETFD);
    sigaction(SIGUSR1, 0, &act);
    printf("%s: status %x memory %d cwd %s umask %o file %d handler %d\n", what, status, number, at, mask, open, act.sa_handler == nop);
    if (open >= 0) close(fds[0]);
    close(fds[1]);
}

static int ends(void *a) { return (long)a; }

static long clone3(unsigned long flags, unsigned long exit_signal, size_t size) {
    struct clone_args args = {.flags = flags, .exit_signal = exit_signal};
    long r = syscall(SYS_clone3, &args, size);
    if (r == 0) {
        struct sigaction act;
        sigaction(SIGUSR1, 0, &act);
        _exit(act.sa_handler == nop ? 1 : act.sa_handler == SIG_IGN ? 2 : 3);
    }
    return r > 0 ? 1 : r;
}

static void waits(void) {
    int status;
    struct rusage usage;
    siginfo_t info;
    /* a child that sends no signal is a "clone" child */
    int pid = clone(ends, TOP, CLONE_VM, (void *)3);
    say("plain wait", waitpid(pid, &status, 0));
    say("wait with __WCLONE", waitpid(pid, &status, __WCLONE) == pid);
    printf("%x\n", status);
    pid = clone(ends, TOP, CLONE_VM | SIGUSR2, (void *)4);
    signal(SIGUSR2, SIG_IGN);
    say("wait with __WALL", waitpid(pid, &status, __WALL) == pid);
    signal(SIGUSR2, SIG_DFL);
    pid = fork();
    if (!pid) _exit(6);
    say("ordinary child with __WCLONE", waitpid(pid, &status, __WCLONE));
    say("waitid leaves it", waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    printf("%d %d %d %d\n", info.si_signo, info.si_code == CLD_EXITED, info.si_status, info.si_pid == pid);
    say("waitid takes it", waitid(P_ALL, 0, &info, WEXITED));
    say("nobody left", waitid(P_ALL, 0, &info, WEXITED));
    say("no event", waitid(P_ALL, 0, &info, WNOHANG));
    say("bad kind", waitid(77, 0, &info, WEXITED));
    say("bad pid", waitid(P_PID, 0, &info, WEXITED));
    say("bad option", wait4(-1, &status, 0x10, 0));
    say("least number", wait4((int)0x80000000, &status, 0, 0));
    int go[2];
    pipe(go);
    pid = fork();
    if (!pid) {
        char c;
        close(go[1]);
        raise(SIGSTOP);
        read(go[0], &c, 1); /* it goes on only once that has been told */
        _exit(8);
    }
    say("stopped", waitpid(pid, &status, WUNTRACED) == pid);
    printf("%x\n", status);
    say("told once", waitpid(pid, &status, WUNTRACED | WNOHANG));
    kill(pid, SIGCONT);
    say("continued", waitpid(pid, &status, WCONTINUED) == pid);
    printf("%x\n", status);
    close(go[1]);
    say("ended", wait4(pid, &status, 0, &usage) == pid);
    printf("%x\n", status);
    pid = fork();
    if (!pid) pause();
    kill(pid, SIGKILL);
    say("killed", waitid(P_PID, pid, &info, WEXITED));
    printf("%d %d\n", info.si_code == CLD_KILLED, info.si_status);
    pid = fork();
    if (!pid) _exit(0);
    say("bad status", wait4(pid, (int *)8, 0, 0));
    say("and it is gone", waitpid(pid, &status, 0));
    signal(SIGCHLD, SIG_IGN);
    pid = fork();
    if (!pid) _exit(0);
    say("ignored children", waitpid(pid, &status, 0));
    signal(SIGCHLD, SIG_DFL);
}

static void groups(void) {
    int pid = fork(), status;
    if (!pid) {
        say("own group", setpgid(0, 0));
        say("is it mine", getpgrp() == getpid());
        say("negative", setpgid(0, -5));
        say("nobody", setpgid(999999, 0));
        say("parent", setpgid(getppid(), 0));
        say("no such group", setpgid(0, 999999));
        say("leader cannot leave", setsid());
        say("group of nobody", getpgid(999999));
        say("session of nobody", getsid(999999));
        int child = fork();
        if (!child) {
            say("new session", setsid() == getpid());
            say("again", setsid());
            say("leader of a session", setpgid(0, 0));
            say("group", getpgid(0) == getpid());
            say("terminal", open("/dev/tty", O_RDWR));
            _exit(0);
        }
        waitpid(child, &status, 0);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    int p[2];
    char c;
    pipe(p);
    pid = fork();
    if (!pid) { dup2(p[1], 1); execl("/bin/sh", "sh", "-c", "echo; kill -STOP $$", (char *)0); _exit(1); }
    close(p[1]);
    read(p[0], &c, 1); /* the other program says so */
    say("after exec", setpgid(pid, pid));
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

static void sending(void) {
    int pid = fork();
    if (!pid) { pause(); _exit(0); }
    say("kill 0", kill(pid, 0));
    say("kill 65", kill(pid, 65));
    say("kill -1", kill(pid, -1));
    say("nobody", kill(999999, SIGTERM));
    say("nobody, and no signal", kill(999999, 99));
    say("no group", kill(-999999, 0));
    say("least number", kill((int)0x80000000, 0));
    say("tgkill", syscall(SYS_tgkill, pid, pid, 0));
    say("tgkill wrong group", syscall(SYS_tgkill, getpid(), pid, 0));
    say("tgkill 0", syscall(SYS_tgkill, 0, pid, 0));
    say("tkill 0", syscall(SYS_tkill, 0, 0));
    say("tkill nobody", syscall(SYS_tkill, 999999, 99));
    kill(pid, SIGTERM);
    siginfo_t info;
    waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
    say("kill a zombie", kill(pid, SIGTERM));
    waitpid(pid, 0, 0);
    say("kill a ghost", kill(pid, SIGTERM));
    info.si_code = 0;
    info.si_signo = 0;
    say("queue as kill", syscall(SYS_rt_sigqueueinfo, getppid(), 0, &info));
    info.si_code = SI_QUEUE;
    say("queue nobody", syscall(SYS_rt_sigqueueinfo, 999999, 0, &info));
    say("queue bad", syscall(SYS_rt_sigqueueinfo, getpid(), 70, &info));
    say("queue bad pointer", syscall(SYS_rt_sigqueueinfo, getpid(), 10, 8));
}

static void sets(void) {
    struct { void *h; unsigned long f; void *r; unsigned long m; } act = {SIG_IGN, ~0ul, 0, ~0ul}, old;
    say("size", syscall(SYS_rt_sigaction, SIGUSR1, &act, 0, 4));
    say("kill", syscall(SYS_rt_sigaction, SIGKILL, &act, 0, 8));
    say("kill is looked at", syscall(SYS_rt_sigaction, SIGKILL, 0, &old, 8));
    say("zero", syscall(SYS_rt_sigaction, 0, 0, &old, 8));
    say("bad pointer first", syscall(SYS_rt_sigaction, 99, 8, 0, 8));
    say("set", syscall(SYS_rt_sigaction, SIGUSR1, &act, 0, 8));
    say("get", syscall(SYS_rt_sigaction, SIGUSR1, 0, &old, 8));
    printf("%lx %lx\n", old.f & ~0x04000000ul, old.m);
    act.f = 0;
    syscall(SYS_rt_sigaction, SIGUSR1, &act, 0, 8);
    unsigned long set = ~0ul, was;
    say("mask size", syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, 0, 4));
    say("mask how", syscall(SYS_rt_sigprocmask, 9, &set, 0, 8));
    say("mask how without set", syscall(SYS_rt_sigprocmask, 9, 0, &was, 8));
    say("mask pointer", syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, 0, 8));
    say("mask", syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, 0, 8));
    say("mask back", syscall(SYS_rt_sigprocmask, SIG_SETMASK, 0, &was, 8));
    printf("%lx\n", was);
    set = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, 0, 8);
    say("pending size", syscall(SYS_rt_sigpending, &set, 16));
    say("pending pointer", syscall(SYS_rt_sigpending, 8, 8));
    struct timespec t = {0, -1};
    say("wait time", syscall(SYS_rt_sigtimedwait, &set, 0, &t, 8));
    say("wait size", syscall(SYS_rt_sigtimedwait, &set, 0, &t, 4));
    t.tv_nsec = 0;
    say("wait", syscall(SYS_rt_sigtimedwait, &set, 0, &t, 8));
    say("suspend size", syscall(SYS_rt_sigsuspend, &set, 4));
    say("suspend pointer", syscall(SYS_rt_sigsuspend, 8, 8));
    stack_t ss = {.ss_sp = stack, .ss_size = 100, .ss_flags = 0}, os;
    say("small stack", sigaltstack(&ss, 0));
    ss.ss_size = sizeof stack;
    ss.ss_flags = 77;
    say("odd stack", sigaltstack(&ss, 0));
    ss.ss_flags = 0;
    say("stack", sigaltstack(&ss, &os));
    printf("%d\n", os.ss_flags);
    ss.ss_flags = SS_DISABLE;
    say("no stack", sigaltstack(&ss, &os));
    printf("%d %zu\n", os.ss_flags, os.ss_size);
    say("bad stack", sigaltstack((void *)8, 0));
}

int main(void) {
    shares("nothing", 0);
    shares("memory", CLONE_VM);
    shares("all", CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND);
    shares("roots", CLONE_FS);
    shares("files", CLONE_FILES | CLONE_VM);
    struct sigaction act = {.sa_handler = nop};
    int status;
    sigaction(SIGUSR1, &act, 0);
    say("clone3", clone3(0, SIGCHLD, sizeof(struct clone_args))); wait(&status); printf("%x\n", status);
    say("clone3 clears", clone3(CLONE_CLEAR_SIGHAND, SIGCHLD, sizeof(struct clone_args))); wait(&status); printf("%x\n", status);
    say("clone3 clears and shares", clone3(CLONE_CLEAR_SIGHAND | CLONE_SIGHAND | CLONE_VM, SIGCHLD, sizeof(struct clone_args)));
    say("clone3 small", clone3(0, SIGCHLD, 56));
    say("clone3 huge", clone3(0, SIGCHLD, 5000));
    say("clone3 signal in flags", clone3(SIGCHLD, 0, sizeof(struct clone_args)));
    say("clone3 bad signal", clone3(0, 65, sizeof(struct clone_args)));
    say("clone3 thread that signals", clone3(CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, SIGCHLD, sizeof(struct clone_args)));
    say("clone3 unknown", clone3(1ul << 40, SIGCHLD, sizeof(struct clone_args)));
    say("handlers without memory", syscall(SYS_clone, CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0));
    say("thread without handlers", syscall(SYS_clone, CLONE_THREAD | CLONE_VM | SIGCHLD, 0, 0, 0, 0));
    signal(SIGUSR1, SIG_DFL);
    say("unshare", unshare(CLONE_FS | CLONE_FILES));
    say("unshare odd", unshare(1));
    waits();
    groups();
    sending();
    sets();
    return 0;
}
