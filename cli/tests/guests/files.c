/* Locks, limits of size, copies, attributes, and what is refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

static char dir[] = "/tmp/filesXXXXXX";
static int lock(int f, int cmd, int type, long start, long len) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(f, cmd, &l);
}
static void ask(int f, int type, long start, long len) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    int r = fcntl(f, F_GETLK, &l);
    printf("ask %d: %d %ld %ld %d\n", r, l.l_type, l.l_start, l.l_len, l.l_pid == getppid());
}
static void in_child(void (*act)(int), int f) {
    fflush(stdout);
    if (!fork()) {
        act(f);
        fflush(stdout);
        _exit(0);
    }
    wait(0);
}
static void others(int f) {
    ask(f, F_RDLCK, 0, 0);
    ask(f, F_WRLCK, 0, 0);
    ask(f, F_WRLCK, 30, 10);
    ask(f, F_WRLCK, 100, 0);
    SAY(lock(f, F_SETLK, F_WRLCK, 15, 1));
    SAY(lock(f, F_SETLK, F_RDLCK, 50, 5));
    SAY(lock(f, F_SETLK, F_WRLCK, 50, 5));
    SAY(lock(f, F_SETLK, F_WRLCK, 200, 5));
    SAY(flock(f, LOCK_EX | LOCK_NB));
    int g = open("locked", O_RDWR);
    SAY(flock(g, LOCK_EX | LOCK_NB));
    SAY(flock(g, LOCK_SH | LOCK_NB));
    SAY(lock(g, F_OFD_SETLK, F_WRLCK, 15, 1));
}
static void locks(void) {
    int f = open("locked", O_RDWR | O_CREAT, 0600), r = open("locked", O_RDONLY);
    SAY(lock(f, F_SETLK, F_WRLCK, 10, 20));
    SAY(lock(f, F_SETLK, F_RDLCK, 50, 10));
    SAY(lock(r, F_SETLK, F_WRLCK, 0, 1));
    SAY(lock(f, F_SETLK, 9, 0, 1));
    SAY(lock(f, F_SETLK, F_WRLCK, -5, 1));
    SAY(lock(99, F_SETLK, F_WRLCK, 0, 1));
    SAY(fcntl(f, F_SETLK, 1));
    SAY(flock(f, LOCK_EX));
    SAY(flock(f, 77));
    SAY(flock(99, LOCK_SH));
    in_child(others, f);
    SAY(flock(r, LOCK_SH | LOCK_NB));
    SAY(flock(f, LOCK_SH));
    SAY(flock(r, LOCK_SH | LOCK_NB));
    SAY(flock(f, LOCK_UN));
    in_child(others, f);
    /* Closing any descriptor of the file drops the locks of the process. */
    close(r);
    in_child(others, f);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 5, .l_pid = 3};
    SAY(fcntl(f, F_OFD_SETLK, &l));
    l.l_pid = 0;
    SAY(fcntl(f, F_OFD_SETLK, &l));
    SAY(lock(f, F_SETLK, F_WRLCK, 0, 5));
    l.l_type = F_UNLCK;
    SAY(fcntl(f, F_GETLK, &l));
    SAY(fcntl(f, F_OFD_SETLK, &l));
    /* An open file asks for its own locks. */
    SAY(lock(f, F_OFD_SETLK, F_RDLCK, 3, 4));
    l.l_start = l.l_len = 0;
    SAY(fcntl(f, F_OFD_GETLK, &l));
    printf("own: %d %ld %ld %d\n", l.l_type, l.l_start, l.l_len, l.l_pid);
    SAY(lock(f, F_OFD_SETLK, F_UNLCK, 0, 0));
    l = (struct flock){.l_type = F_UNLCK, .l_whence = SEEK_SET};
    SAY(fcntl(f, F_OFD_GETLK, &l));
    printf("own: %d %ld %ld %d\n", l.l_type, l.l_start, l.l_len, l.l_pid);
    /* Waiting, a signal, and a circle. */
    int go[2], back[2];
    pipe(go);
    pipe(back);
    fflush(stdout);
    lock(f, F_SETLK, F_WRLCK, 0, 1);
    pid_t c = fork();
    char x;
    if (!c) {
        lock(f, F_SETLK, F_WRLCK, 1, 1);
        write(back[1], "x", 1);
        int r = lock(f, F_SETLKW, F_WRLCK, 0, 1);
        _exit(r ? 9 : 3);
    }
    read(back[0], &x, 1);
    /* Whoever comes second is told. */
    int e = lock(f, F_SETLKW, F_WRLCK, 1, 1) ? errno : 0, s;
    SAY(lock(f, F_SETLK, F_UNLCK, 0, 1));
    waitpid(c, &s, 0);
    printf("%d\n", (e == EDEADLK) + (s == 0x900));
    flock(f, LOCK_UN);
    c = fork();
    if (!c) {
        flock(open("locked", O_RDWR), LOCK_EX);
        write(back[1], "x", 1);
        usleep(20000);
        _exit(0);
    }
    read(back[0], &x, 1);
    SAY(flock(f, LOCK_EX));
    waitpid(c, 0, 0);
}

static volatile int hit;
static void over(int s) { hit = s; }

static void sizes(void) {
    struct rlimit l = {10, RLIM_INFINITY};
    int f = open("small", O_RDWR | O_CREAT, 0600);
    signal(SIGXFSZ, over);
    SAY(setrlimit(RLIMIT_FSIZE, &l));
    SAY(write(f, "123456", 6));
    SAY(write(f, "123456", 6));
    SAY(write(f, "1", 1));
    printf("%d\n", hit == SIGXFSZ);
    hit = 0;
    SAY(pwrite(f, "1", 1, 20));
    SAY(pwrite(f, "1", 1, 5));
    SAY(ftruncate(f, 11));
    printf("%d\n", hit == SIGXFSZ);
    SAY(ftruncate(f, 9));
    SAY(truncate("small", 12));
    SAY(posix_fallocate(f, 0, 20));
    int m = memfd_create("m", 0);
    SAY(ftruncate(m, 20));
    int p[2];
    pipe(p);
    SAY(write(p[1], "123456789012", 12));
    fflush(stdout);
    if (!fork()) {
        signal(SIGXFSZ, SIG_DFL);
        write(f, "12345678901234567890", 20);
        lseek(f, 10, SEEK_SET);
        write(f, "1", 1);
        _exit(0);
    }
    int s;
    wait(&s);
    printf("%x\n", s & ~0x80);
    l.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &l);
}

static void copies(void) {
    int a = open("a", O_RDWR | O_CREAT, 0600), b = open("b", O_RDWR | O_CREAT, 0600), p[2], q[2];
    pipe(p);
    pipe(q);
    write(a, "0123456789", 10);
    off_t in = 2, out = 1;
    char t[32] = "";
    SAY(copy_file_range(a, &in, b, &out, 5, 0));
    printf("%ld %ld\n", in, out);
    SAY(pread(b, t, 20, 0));
    printf("%s\n", t + 1);
    SAY(copy_file_range(a, 0, b, 0, 5, 0));
    SAY(copy_file_range(a, &in, b, 0, 5, 1));
    SAY(copy_file_range(p[0], 0, b, 0, 5, 0));
    SAY(copy_file_range(99, 0, b, 0, 5, 0));
    in = 0;
    out = 3;
    SAY(copy_file_range(a, &in, a, &out, 5, 0));
    in = 1;
    SAY(splice(a, &in, p[1], 0, 4, 0));
    printf("%ld\n", in);
    SAY(tee(p[0], q[1], 10, 0));
    SAY(read(q[0], t, 20));
    SAY(splice(p[0], 0, b, 0, 100, 0));
    SAY(splice(p[0], 0, b, 0, 100, SPLICE_F_NONBLOCK));
    SAY(splice(a, 0, b, 0, 4, 0));
    SAY(splice(p[0], &in, b, 0, 4, 0));
    SAY(splice(p[0], 0, p[1], 0, 4, 0));
    SAY(splice(p[0], 0, b, 0, 4, 64));
    SAY(tee(p[0], b, 4, 0));
    struct iovec v = {"xyz", 3}, w = {t, 20};
    SAY(vmsplice(p[1], &v, 1, 0));
    SAY(vmsplice(a, &v, 1, 0));
    SAY(read(p[0], t, 20));
    SAY(preadv2(a, &w, 1, 3, 0));
    SAY(preadv2(a, &w, 1, 3, 0x1000));
    lseek(a, 0, SEEK_END);
    SAY(pwritev2(a, &v, 1, -1, RWF_DSYNC));
    SAY(pwritev2(a, &v, 1, 0, RWF_APPEND));
    struct stat st;
    fstat(a, &st);
    printf("%ld\n", st.st_size);
    SAY(sync_file_range(a, 0, 10, 2));
    SAY(sync_file_range(a, 0, 10, 8));
    SAY(sync_file_range(a, -1, 10, 2));
    SAY(sync_file_range(p[0], 0, 10, 2));
    SAY(syncfs(a));
    SAY(syncfs(99));
    SAY(readahead(a, 0, 10));
    SAY(readahead(p[0], 0, 10));
    SAY(readahead(99, 0, 10));
}

/* Descriptors that are closed in a table that others have as well. */
static void ranges(void) {
    int f = dup2(1, 700);
    fflush(stdout);
    pid_t c = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (!c) {
        SAY(syscall(SYS_close_range, 699, 800, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC));
        SAY(fcntl(f, F_GETFD));
        SAY(syscall(SYS_close_range, 699, ~0u, CLOSE_RANGE_UNSHARE));
        SAY(fcntl(f, F_GETFD));
        fflush(stdout);
        _exit(0);
    }
    waitpid(c, 0, 0);
    SAY(fcntl(f, F_GETFD));
    SAY(syscall(SYS_close_range, 700, 700, 9));
    SAY(syscall(SYS_close_range, 700, 700, 0));
    SAY(fcntl(f, F_GETFD));
}

static void execute(int dir, const char *path, int flags) {
    char *v[] = {(char *)path, 0};
    fflush(stdout);
    pid_t c = fork();
    if (!c) {
        syscall(SYS_execveat, dir, path, v, environ, flags);
        _exit(errno);
    }
    int status;
    waitpid(c, &status, 0);
    printf("execveat %s: %x\n", path, status);
}

/* Programs by a directory and a name: a script's interpreter finds it as well. */
static void programs(void) {
    mkdir("d", 0700);
    int s = open("d/script", O_WRONLY | O_CREAT, 0700), d = open("d", O_RDONLY);
    dprintf(s, "#!/bin/sh\nexit 42\n");
    close(s);
    symlink("script", "d/link");
    execute(d, "script", 0);
    execute(d, "link", 0);
    execute(d, "link", AT_SYMLINK_NOFOLLOW);
    execute(d, "script", AT_SYMLINK_NOFOLLOW);
    execute(d, "missing", AT_SYMLINK_NOFOLLOW);
    execute(d, "script", 2);
    execute(99, "script", 0);
    execute(1, "script", 0);
    close(d);
}

/* Places before the beginning. */
static void places(void) {
    int f = open("/dev/null", O_RDWR), g = open("a", O_RDONLY);
    SAY(lseek(f, -5, SEEK_SET));
    SAY(lseek(f, 500, SEEK_SET));
    SAY(lseek(g, -5, SEEK_SET));
    SAY(lseek(g, -5, SEEK_CUR));
    close(f);
    close(g);
}

/* A file that has no name yet. */
static void nameless(void) {
    char own[40];
    struct stat st;
    int f = open(".", O_TMPFILE | O_RDWR, 0600);
    sprintf(own, "/proc/self/fd/%d", f);
    SAY(linkat(AT_FDCWD, own, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    SAY(linkat(AT_FDCWD, own, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    SAY(fstat(f, &st));
    printf("%ld %d\n", (long)st.st_nlink, access("named", F_OK));
    SAY(posix_fadvise(f, 0, 0, 77));
    SAY(posix_fadvise(f, 0, -1, 0));
    SAY(posix_fadvise(f, 0, 0, POSIX_FADV_DONTNEED));
    close(f);
}

static void names(void) {
    struct open_how h = {.flags = O_PATH | O_CLOEXEC | 0100000};
    SAY(syscall(SYS_openat2, AT_FDCWD, "a", &h, sizeof h));
    h.flags = O_RDONLY;
    int f = syscall(SYS_openat2, AT_FDCWD, "a", &h, sizeof h);
    SAY(f > 0);
    close(f);
    SAY(syscall(SYS_openat2, AT_FDCWD, "a", &h, 8));
    SAY(syscall(SYS_openat2, AT_FDCWD, "a", &h, 5000));
    h.mode = 0600;
    SAY(syscall(SYS_openat2, AT_FDCWD, "a", &h, sizeof h));
    h = (struct open_how){.flags = 1ul << 40};
    SAY(syscall(SYS_openat2, AT_FDCWD, "a", &h, sizeof h));
    symlink("a", "l");
    h = (struct open_how){.flags = O_RDONLY, .resolve = RESOLVE_NO_SYMLINKS};
    SAY(syscall(SYS_openat2, AT_FDCWD, "l", &h, sizeof h));
    h.resolve = RESOLVE_BENEATH;
    SAY(syscall(SYS_openat2, AT_FDCWD, "../x", &h, sizeof h));
    SAY(syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &h, sizeof h));
    h.resolve = 1 << 10;
    SAY(syscall(SYS_openat2, AT_FDCWD, "a", &h, sizeof h));
    struct utimbuf u = {100, 200};
    struct stat st;
    SAY(utime("a", &u));
    stat("a", &st);
    printf("%ld %ld\n", st.st_atime, st.st_mtime);
    struct timeval v[2] = {{300, 5}, {400, 6}};
    SAY(utimes("a", v));
    stat("a", &st);
    printf("%ld %ld %ld\n", st.st_atime, st.st_mtime, st.st_mtim.tv_nsec);
    v[1].tv_usec = 1000000;
    SAY(syscall(SYS_utimes, "a", v));
    SAY(syscall(SYS_futimesat, AT_FDCWD, "none", 0));
    SAY(setxattr("a", "user.k", "value", 5, 0));
    char t[64] = "";
    SAY(getxattr("a", "user.k", t, 64));
    puts(t);
    SAY(getxattr("a", "user.k", t, 2));
    SAY(setxattr("a", "user.k", "v", 1, XATTR_CREATE));
    SAY(setxattr("a", "user.n", "v", 1, XATTR_REPLACE));
    SAY(setxattr("a", "user.n", "v", 1, 8));
    SAY(listxattr("a", t, 64));
    SAY(listxattr("a", 0, 0));
    f = open("a", O_RDWR);
    SAY(fsetxattr(f, "user.f", "w", 1, 0));
    SAY(fgetxattr(f, "user.f", t, 64));
    SAY(fremovexattr(f, "user.f"));
    SAY(removexattr("a", "user.none"));
    SAY(removexattr("none", "user.k"));
    SAY(setxattr("a", "", "v", 1, 0));
    close(f);
    f = open(".", O_RDONLY | O_DIRECTORY);
    long n, total = 0;
    while ((n = syscall(SYS_getdents, f, t, 64)) > 0)
        for (char *p = t; p < t + n; p += *(unsigned short *)(p + 16)) total++;
    printf("%d %ld\n", n == 0, total);
    lseek(f, 0, SEEK_SET);
    SAY(syscall(SYS_getdents, f, t, 4));
    SAY(syscall(SYS_getdents, f, (void *)1, 64));
    close(f);
}

static void watches(void) {
    char t[4096];
    int f = inotify_init1(IN_NONBLOCK);
    int w = inotify_add_watch(f, ".", IN_CREATE | IN_DELETE);
    SAY(w > 0);
    SAY(read(f, t, sizeof t));
    close(open("new", O_CREAT | O_WRONLY, 0600));
    unlink("new");
    struct pollfd p = {f, POLLIN};
    SAY(poll(&p, 1, -1));
    long n = read(f, t, sizeof t);
    for (char *at = t; at < t + n;) {
        struct inotify_event *e = (void *)at;
        printf("%d %x %s\n", e->wd == w, e->mask, e->name);
        at += sizeof *e + e->len;
    }
    SAY(read(f, t, 3));
    SAY(inotify_add_watch(f, "none", IN_CREATE));
    SAY(inotify_add_watch(f, ".", 0));
    SAY(inotify_rm_watch(f, w));
    SAY(inotify_rm_watch(f, w));
    SAY(inotify_add_watch(0, ".", IN_CREATE));
    SAY(inotify_add_watch(99, ".", IN_CREATE));
    SAY(inotify_init1(1));
    close(f);
}

static void remaps(void) {
    int r = open("remapped", O_RDWR | O_CREAT, 0600);
    ftruncate(r, 4 * 4096);
    char *p = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r, 0);
    for (int i = 0; i < 4; i++) p[i * 4096] = 'a' + i;
    SAY(remap_file_pages(p, 4096, 0, 3, 0));
    SAY(remap_file_pages(p + 3 * 4096, 4096, 0, 0, 0));
    printf("%c%c%c%c\n", p[0], p[4096], p[8192], p[12288]);
    p[0] = 'z';
    SAY(remap_file_pages(p + 4096, 4096, 0, 3, 0));
    printf("%c%c%c%c\n", p[0], p[4096], p[8192], p[12288]);
    SAY(remap_file_pages(p, 4096, PROT_READ, 0, 0));
    SAY(remap_file_pages(p, 0, 0, 0, 0));
    char *q = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SAY(remap_file_pages(q, 4096, 0, 0, 0));
    munmap(q, 4096);
    SAY(remap_file_pages(q, 4096, 0, 0, 0));
    int f = syscall(SYS_pidfd_open, getpid(), 0);
    struct iovec v[2] = {{p, 8192}, {p + 8192, 4096}}, hole = {q, 4096};
    SAY(syscall(SYS_process_madvise, f, v, 2, MADV_COLD, 0));
    SAY(syscall(SYS_process_madvise, f, v, 2, MADV_COLD, 1));
    SAY(syscall(SYS_process_madvise, f, &hole, 1, MADV_COLD, 0));
    SAY(syscall(SYS_process_madvise, f, v, 2, 99, 0));
    SAY(syscall(SYS_process_madvise, 99, v, 2, MADV_COLD, 0));
    SAY(syscall(SYS_process_madvise, 0, v, 2, MADV_COLD, 0));
    close(f);
}

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    if (!mkdtemp(dir) || chdir(dir)) return 2;
    locks();
    sizes();
    copies();
    names();
    places();
    nameless();
    ranges();
    programs();
    watches();
    remaps();
    fflush(stdout);
    return system("rm -r /tmp/files??????");
}
