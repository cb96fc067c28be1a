/* Identities: what changes them, and what they decide. Run by the superuser, the whole of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

static void who(void) {
    uid_t a, b, c;
    gid_t d, e, f;
    getresuid(&a, &b, &c);
    getresgid(&d, &e, &f);
    printf("%u %u %u  %u %u %u  groups %d\n", a, b, c, d, e, f, getgroups(0, 0));
}

static void caps(void) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    SAY(syscall(SYS_capget, &h, d));
    printf("effective %s, permitted %s\n", d[0].effective ? "some" : "none", d[0].permitted ? "some" : "none");
}

static void in_child(void (*act)(void)) {
    fflush(stdout);
    pid_t p = fork();
    if (!p) {
        act();
        fflush(stdout);
        _exit(0);
    }
    int s;
    waitpid(p, &s, 0);
    printf("status %x\n", s);
}

static char dir[] = "/tmp/idsXXXXXX";
static pid_t parent;

static void drop_all(void) {
    SAY(setgroups(0, 0));
    SAY(setgid(65534));
    SAY(setuid(65534));
    who();
    caps();
    SAY(setuid(0));
    SAY(seteuid(0));
    SAY(setgid(0));
    SAY(setgroups(0, 0));
    SAY(setresuid(-1, 1, -1));
    SAY(kill(parent, 0));
    SAY(kill(parent, SIGCONT));
    SAY(setpriority(PRIO_PROCESS, 0, -1));
    SAY(setpriority(PRIO_PROCESS, parent, 5));
    SAY(open("secret", O_RDONLY));
    SAY(open("open", O_WRONLY));
    SAY(open("new", O_CREAT | O_WRONLY, 0600));
    SAY(chmod("open", 0777));
    SAY(chown("open", 65534, 65534));
    SAY(unlink("open"));
    SAY(mkdir("sub", 0777));
    SAY(access("secret", R_OK));
    SAY(access("open", R_OK));
    SAY(access("open", W_OK));
    SAY(chdir("shut"));
    SAY(mkdir("wide/sub", 0755));
    struct stat st = {0};
    SAY(stat("wide/sub", &st));
    printf("%u %u\n", st.st_uid, st.st_gid);
    SAY(rmdir("wide/sub"));
    struct rlimit l = {10, 1u << 31};
    getrlimit(RLIMIT_NOFILE, &l);
    l.rlim_max++;
    SAY(setrlimit(RLIMIT_NOFILE, &l));
    SAY(execl("./secret", "x", NULL));
}

static void effective(void) {
    SAY(setegid(5));
    SAY(seteuid(7));
    who();
    caps();
    SAY(open("secret", O_RDONLY));
    SAY(access("secret", R_OK));
    SAY(setuid(9));
    SAY(setreuid(-1, 0));
    who();
    caps();
    SAY(open("secret", O_RDONLY));
    SAY(setreuid(3, 4));
    who();
    SAY(setreuid(4, 3));
    who();
    SAY(setreuid(0, -1));
}

static void files_only(void) {
    SAY(setfsuid(65534));
    SAY(setfsuid(-1));
    SAY(open("secret", O_RDONLY));
    SAY(setfsgid(12));
    SAY(setfsgid(-1));
    SAY(setfsuid(0));
    SAY(setfsuid(-1));
    SAY(open("secret", O_RDONLY) >= 0);
}

static void kept(void) {
    SAY(prctl(PR_SET_KEEPCAPS, 1));
    SAY(prctl(PR_GET_KEEPCAPS));
    SAY(setresuid(1, 1, 1));
    caps();
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    syscall(SYS_capget, &h, d);
    d[0].effective = d[0].permitted & (1 << CAP_SETUID);
    d[1].effective = 0;
    SAY(syscall(SYS_capset, &h, d));
    SAY(setuid(0));
    who();
    h.pid = 1;
    SAY(syscall(SYS_capset, &h, d));
    h.pid = 0;
    h.version = 0;
    SAY(syscall(SYS_capget, &h, d));
    SAY(h.version == _LINUX_CAPABILITY_VERSION_3);
    SAY(syscall(SYS_capget, &h, 0));
}

static void groups(void) {
    gid_t g[3] = {30, 10, 20}, got[8];
    SAY(setgroups(3, g));
    SAY(getgroups(8, got));
    printf("%u %u %u\n", got[0], got[1], got[2]);
    SAY(getgroups(2, got));
    SAY(getgroups(-1, got));
    SAY(setgroups(65537, g));
    SAY(setgroups(3, (gid_t *)1));
    SAY(chown("grouped", 0, 20));
    SAY(chmod("grouped", 0640));
    SAY(setresuid(65534, 65534, 65534));
    SAY(open("grouped", O_RDONLY) >= 0);
}

static void *thread(void *a) {
    printf("thread %u %u\n", getuid(), geteuid());
    errno = 0;
    int f = open("secret", O_RDONLY);
    printf("thread open %d %d\n", f, errno);
    return a;
}

static void threads(void) {
    pthread_t t;
    SAY(setuid(65534));
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, 0);
    fflush(stdout);
    if (!fork()) {
        thread(0);
        fflush(stdout);
        _exit(0);
    }
    wait(0);
    execlp("id", "id", "-u", NULL);
}

int main(void) {
    parent = getpid();
    if (!mkdtemp(dir) || chdir(dir)) return 2;
    chmod(".", 0755);
    umask(0);
    close(open("secret", O_CREAT | O_WRONLY, 0600));
    close(open("open", O_CREAT | O_WRONLY, 0644));
    close(open("grouped", O_CREAT | O_WRONLY, 0600));
    mkdir("shut", 0700);
    mkdir("wide", 0777);
    SAY(setuid(-1));
    SAY(setresuid(-1, -1, -1));
    SAY(setreuid(-1, -1));
    SAY(setgid(-1));
    in_child(drop_all);
    in_child(effective);
    in_child(files_only);
    in_child(kept);
    in_child(groups);
    in_child(threads);
    who();
    if (system("rm -r /tmp/ids??????")) return 3;
    return 0;
}
