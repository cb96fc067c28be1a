/* What calls about files and processes answer at the edges. Compared with the host's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

static char b[1 << 16];
static int p[2];
static int file(void) {
    char name[] = "/tmp/edgesXXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    return fd;
}

static void told(int fd) {
    uint64_t hint = 99;
    struct f_owner_ex owner = {9, 0}, got = {9, 9};
    SAY(fcntl(fd, F_GETOWN));
    SAY(fcntl(fd, F_SETOWN, INT_MIN));
    SAY(fcntl(fd, F_SETOWN, 1 << 22));
    SAY(fcntl(fd, F_SETOWN, -getpgrp()));
    SAY(fcntl(fd, F_GETOWN_EX, &got));
    printf("%d %d\n", got.type, got.pid == getpgrp());
    SAY(fcntl(fd, F_SETOWN_EX, &owner));
    owner = (struct f_owner_ex){F_OWNER_TID, gettid()};
    SAY(fcntl(fd, F_SETOWN_EX, &owner));
    SAY(fcntl(fd, F_GETOWN) == gettid());
    SAY(fcntl(fd, F_SETOWN, 0));
    SAY(fcntl(fd, F_GETOWN));
    SAY(fcntl(fd, F_SETSIG, 65));
    SAY(fcntl(fd, F_SETSIG, SIGUSR1));
    SAY(fcntl(fd, F_GETSIG));
    SAY(fcntl(fd, F_SET_RW_HINT, &hint));
    hint = RWH_WRITE_LIFE_SHORT;
    SAY(fcntl(fd, F_SET_RW_HINT, &hint));
    hint = 0;
    SAY(fcntl(fd, F_GET_RW_HINT, &hint));
    printf("%d\n", (int)hint);
    SAY(fcntl(fd, 1027, dup(fd)));
    SAY(fcntl(fd, 1027, file()));
    SAY(fcntl(fd, 1027, 9999));
}

static void transfers(int fd) {
    struct iovec wide[2] = {{b, LONG_MAX}, {b, 1}}, minus = {b, -1};
    off_t minus_one = -1;
    int pathly = open("/etc/passwd", O_PATH), appended = file();
    fcntl(appended, F_SETFL, O_APPEND);
    SAY(write(fd, "abc", 3));
    SAY(pread(fd, b, -1, 0));
    SAY(readv(fd, wide, 2));
    SAY(readv(fd, &minus, 1));
    SAY(ftruncate(pathly, 0));
    SAY(ftruncate(fd, -1));
    SAY(fallocate(p[1], 0, 0, 1));
    SAY(posix_fadvise(fd, 0, 0, 99));
    SAY(posix_fadvise(fd, 0, -1, POSIX_FADV_NORMAL));
    SAY(lseek(fd, 0, SEEK_SET));
    SAY(sendfile(appended, fd, 0, 1));
    SAY(copy_file_range(fd, &minus_one, appended, 0, 1, 0));
    SAY(fcntl(p[0], F_SETPIPE_SZ, 0));
    SAY(ioctl(p[0], FIOASYNC, &(int){1}));
    SAY(fcntl(p[0], F_GETFL));
    SAY(memfd_create("holes", 0) >= 0);
}

static void places(int fd) {
    struct statfs fs;
    struct stat st;
    for (int i = 0; i < 3; i++) {
        int which = i == 0 ? p[0] : i == 1 ? memfd_create("m", 0) : open("/proc/self/status", O_RDONLY);
        SAY(fstatfs(which, &fs));
        printf("%lx\n", (long)fs.f_type);
    }
    int dir = open("/etc", O_RDONLY | O_DIRECTORY);
    SAY(syscall(SYS_getdents64, dir, 8, 4096));
    SAY(syscall(SYS_getdents64, dir, b, sizeof b) > 0);
    SAY(syscall(SYS_faccessat2, dir, "", R_OK, AT_EMPTY_PATH));
    SAY(fchownat(fd, "", -1, -1, AT_EMPTY_PATH));
    SAY(utimensat(AT_FDCWD, "/nowhere", 0, 9));
    SAY(syscall(SYS_statx, AT_FDCWD, "/nowhere", 0x6000, 0, b));
    SAY(mknod("/tmp/edges-none", 077777777, 0));
    SAY(fstat(fd, &st));
    SAY(close_range(900, 910, CLOSE_RANGE_UNSHARE));
}

static void attributes(void) {
    char name[] = "/tmp/edges-attributesXXXXXX";
    int fd = mkstemp(name);
    struct { uint64_t value; uint32_t size, flags; } put = {(uintptr_t)"value", 5, 0}, get = {(uintptr_t)b, sizeof b, 0};
    enum { SET = 463, GET, LIST, REMOVE };
    SAY(syscall(SET, fd, "", AT_EMPTY_PATH, "user.edges", &put, sizeof put));
    SAY(syscall(SET, fd, "", 0, "user.edges", &put, sizeof put));
    SAY(syscall(SET, fd, "", 1, "user.edges", &put, sizeof put));
    SAY(syscall(SET, fd, "", AT_EMPTY_PATH, "user.edges", &put, 8));
    SAY(syscall(GET, fd, "", AT_EMPTY_PATH, "user.edges", &get, sizeof get));
    SAY(syscall(LIST, fd, "", AT_EMPTY_PATH, b, sizeof b));
    SAY(syscall(REMOVE, fd, "", AT_EMPTY_PATH, "user.edges"));
    SAY(syscall(SET, AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, "user.edges", &put, sizeof put));
    SAY(syscall(GET, open("/tmp", O_RDONLY), strrchr(name, '/') + 1, 0, "user.edges", &get, sizeof get));
    SAY(syscall(GET, AT_FDCWD, "/nowhere", 0, "user.edges", &get, sizeof get));
    unlink(name);
}

static void waits(void) {
    struct timeval time = {0, 1}, much = {0, 2000000};
    fd_set set;
    FD_ZERO(&set);
    SAY(select(0, 0, 0, 0, &time));
    printf("%ld %ld\n", (long)time.tv_sec, (long)time.tv_usec);
    FD_SET(900, &set);
    SAY(select(901, &set, 0, 0, &time));
    SAY(select(1 << 20, 0, 0, 0, &time));
    SAY(select(-1, 0, 0, 0, &time));
    FD_ZERO(&set);
    FD_SET(p[1], &set);
    SAY(select(p[1] + 1, 0, &set, 0, &much));
    printf("%d\n", much.tv_sec == 1);
    signal(SIGPIPE, SIG_IGN);
    close(p[0]);
    SAY(write(p[1], b, 0));
    SAY(write(p[1], b, 1));
}

static long make(long flags, int *at) {
    long pid = syscall(SYS_clone, flags, 0, at, 0, 0);
    if (!pid) _exit(0);
    if (pid > 0) waitpid(pid, 0, __WALL);
    return pid > 0 ? 1 : pid;
}

static void processes(void) {
    siginfo_t info;
    int fd = syscall(SYS_pidfd_open, getpid(), 0), at;
    char *none[] = {"x", 0};
    SAY(waitid(P_PIDFD, -1, &info, WEXITED));
    SAY(make(CLONE_PIDFD | CLONE_PARENT_SETTID, &at));
    SAY(make(CLONE_FS | CLONE_NEWNS, 0));
    for (int flag = 1; flag <= 16; flag *= 2) SAY(syscall(SYS_pidfd_send_signal, fd, 0, 0, flag));
    SAY(syscall(SYS_execveat, AT_FDCWD, "", none, 0, AT_EMPTY_PATH));
    SAY(syscall(SYS_execveat, AT_FDCWD, "/proc/self/exe", none, 0, AT_SYMLINK_NOFOLLOW));
    SAY(sethostname("x", -1));
    SAY(syscall(SYS_getrandom, b, 1, 6));
}

/* No file is written while it is executed, nor executed while it is written. */
static void busy(void) {
    char name[] = "/tmp/edges-busyXXXXXX", *none[] = {name, 0};
    int status, fd = mkstemp(name), self = open("/proc/self/exe", O_RDONLY);
    while (sendfile(fd, self, 0, 1 << 20) > 0) {}
    fchmod(fd, 0700);
    SAY(execv(name, none));
    close(fd);
    pipe(p);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        dup2(p[0], 0);
        close(p[0]);
        close(p[1]);
        execl(name, "wait", NULL);
        _exit(1);
    }
    close(p[0]);
    /* That nobody reads any more says that it runs. */
    signal(SIGPIPE, SIG_IGN);
    while (write(p[1], "x", 1) == 1) {}
    SAY(open(name, O_WRONLY));
    SAY(open(name, O_RDWR | O_TRUNC));
    SAY(truncate(name, 0));
    SAY(open(name, O_RDONLY) >= 0);
    kill(child, SIGKILL);
    wait(&status);
    SAY(open(name, O_WRONLY) >= 0);
    unlink(name);
}

static void fifo(void) {
    char c, name[] = "/tmp/edges-fifoXXXXXX";
    close(mkstemp(name));
    unlink(name);
    mkfifo(name, 0600);
    int reader = open(name, O_RDONLY | O_NONBLOCK);
    SAY(read(reader, &c, 1));
    int writer = open(name, O_WRONLY);
    SAY(read(reader, &c, 1));
    write(writer, "x", 1);
    SAY(read(reader, &c, 1));
    close(writer);
    SAY(read(reader, &c, 1));
    unlink(name);
}

/* The first of all processes is there, and is nobody's to reach. */
static void on_alarm(int number) { (void)number; }

/* An end is opened when there is another, and a signal ends the wait for it. */
static void ends(void) {
    char c[2], name[] = "/tmp/edges-endsXXXXXX";
    int status, fd;
    close(mkstemp(name));
    unlink(name);
    mkfifo(name, 0600);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, 0);
    for (int flags = O_RDONLY; flags <= O_WRONLY; flags++) {
        struct itimerval soon = {{0}, {0, 20000}};
        setitimer(ITIMER_REAL, &soon, 0);
        SAY(open(name, flags));
    }
    SAY(open(name, O_WRONLY | O_NONBLOCK));
    SAY((fd = open(name, O_RDWR)) >= 0);
    close(fd);
    fflush(stdout);
    for (int early = 0; early < 2; early++) {
        pid_t child = fork();
        if (!child) {
            if (!early) usleep(20000);
            fd = open(name, O_WRONLY);
            if (early) usleep(20000);
            _exit(write(fd, "hi", 2) != 2);
        }
        if (early) usleep(20000);
        fd = open(name, O_RDONLY);
        SAY(fcntl(fd, F_GETFL) & O_NONBLOCK);
        SAY(read(fd, c, 2));
        SAY(read(fd, c, 2));
        close(fd);
        wait(&status);
        printf("%x\n", status);
    }
    pid_t child = fork();
    if (!child) {
        open(name, O_RDONLY);
        _exit(1);
    }
    usleep(20000);
    kill(child, SIGKILL);
    wait(&status);
    printf("%x\n", status);
    unlink(name);
}

static void first(void) {
    SAY(openat(open("/proc", O_RDONLY | O_DIRECTORY), "version", O_RDONLY) >= 0);
    SAY(open("/proc/sys/vm/drop_caches", O_RDONLY));
    fflush(stdout);
    if (!fork()) {
        if (setuid(65534)) exit(0);
        SAY(kill(1, 0));
        SAY(syscall(SYS_tkill, 1, 0));
        SAY(syscall(SYS_prlimit64, 1, 0, 0, 0));
        exit(0);
    }
    wait(0);
}

static void kinship(void) {
    pid_t parent = getpid();
    const int kinds[] = {KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_IO, KCMP_SYSVSEM, 20};
    SAY(syscall(SYS_kcmp, parent, parent, KCMP_FILE, 1, dup(1)));
    SAY(syscall(SYS_kcmp, parent, parent, KCMP_FILE, 1, 999));
    SAY(syscall(SYS_kcmp, parent, 1 << 22, KCMP_VM, 0, 0));
    fflush(stdout);
    if (!fork()) {
        SAY(syscall(SYS_kcmp, getpid(), parent, KCMP_FILE, 1, 1));
        for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            errno = 0;
            long r = syscall(SYS_kcmp, getpid(), parent, kinds[i], 0, 0);
            printf("%d: %d %d\n", kinds[i], r > 0 ? 1 : (int)r, errno);
        }
        exit(0);
    }
    wait(0);
}

int main(int argc, char **argv) {
    if (!strcmp(argv[0], "wait")) {
        close(0);
        pause();
    }
    int fd = file();
    pipe(p);
    told(fd);
    transfers(fd);
    places(fd);
    attributes();
    waits();
    processes();
    busy();
    fifo();
    ends();
    first();
    kinship();
}
