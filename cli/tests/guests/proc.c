/* What /proc says of a process. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

static char b[1 << 16];
static long slurp_at(int dir, const char *name) {
    int f = openat(dir, name, O_RDONLY);
    if (f < 0) return -1;
    long n = 0, r;
    while ((r = read(f, b + n, sizeof b - 1 - n)) > 0) n += r;
    b[n] = 0;
    close(f);
    return r < 0 ? -1 : n;
}
static long slurp(const char *name) { return slurp_at(AT_FDCWD, name); }
static long put(const char *name, const char *text) {
    int f = open(name, O_WRONLY);
    if (f < 0) return -1;
    long r = write(f, text, strlen(text));
    int e = errno;
    close(f);
    errno = e;
    return r;
}
static long field(const char *label) {
    char *at = strstr(b, label);
    return at ? strtol(at + strlen(label), 0, 10) : -1;
}
/* A label of the mapping that begins at p. */
static long of_mapping(char *p, const char *label) {
    char want[32];
    slurp("/proc/self/smaps");
    sprintf(want, "%lx-", (long)p);
    char *at = strstr(b, want);
    return at && (at = strstr(at, label)) ? strtol(at + strlen(label), 0, 10) : -1;
}

static void *named(void *a) {
    char name[64];
    prctl(PR_SET_NAME, "other");
    sprintf(name, "/proc/self/task/%d/comm", gettid());
    slurp(name);
    printf("%s", b);
    slurp("/proc/thread-self/comm");
    printf("%s", b);
    slurp("/proc/self/comm");
    printf("%s", b);
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    while (readdir(d)) n++;
    closedir(d);
    printf("tasks %d\n", n - 2);
    return a;
}

int main(int c, char **v, char **env) {
    SAY(slurp("/proc/self/comm"));
    printf("%s", b);
    SAY(put("/proc/self/comm", "a name that is long"));
    slurp("/proc/self/comm");
    printf("%s", b);
    SAY(put("/proc/self/comm", "short\n"));
    slurp("/proc/self/comm");
    printf("%s", b);
    SAY(put("/proc/self/maps", "x"));
    SAY(put("/proc/self/oom_score_adj", "500"));
    slurp("/proc/self/oom_score_adj");
    printf("%s", b);
    SAY(put("/proc/self/oom_score_adj", "2000"));
    SAY(put("/proc/self/oom_score_adj", "x"));
    SAY(put("/proc/self/clear_refs", "1"));
    SAY(put("/proc/self/clear_refs", "9"));
    SAY(slurp("/proc/self/nothing"));
    SAY(slurp("/proc/99999999/stat"));
    SAY(slurp("/proc/self/environ") > 0);
    printf("%d\n", !env[0] || !strcmp(b, env[0]));
    SAY(slurp("/proc/self/cmdline") == strlen(v[0]) + 1);
    slurp("/proc/self/limits");
    fputs(b, stdout);
    /* One line of numbers. */
    slurp("/proc/self/stat");
    int fields = 1;
    for (char *p = strrchr(b, ')'); *p; p++) fields += *p == ' ';
    char state;
    int ppid, pgrp, threads;
    long start, resident;
    sscanf(strrchr(b, ')'), ") %c %d %d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d %*d %ld %*u %ld", &state, &ppid, &pgrp, &threads, &start, &resident);
    printf("%d fields, %c %d %d %d %d\n", fields, state, ppid == getppid(), threads, start > 0, resident > 10);
    slurp("/proc/self/status");
    printf("%d %ld %d %d %ld\n", field("\nPid:\t") == getpid(), field("\nThreads:\t"), field("\nVmRSS:") > 40, field("\nVmHWM:") > 40, field("\nUid:\t"));
    slurp("/proc/self/statm");
    long size, rss;
    sscanf(b, "%ld %ld", &size, &rss);
    printf("%d %d\n", size > rss, rss > 10);
    /* What is reserved and not there takes no time to count. */
    size_t huge = 1ull << 44;
    char *shadow = mmap(0, huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    shadow[huge / 2] = 1;
    slurp("/proc/self/status");
    slurp("/proc/self/statm");
    printf("%ld %ld\n", of_mapping(shadow, "Size:"), of_mapping(shadow, "Rss:"));
    SAY(munmap(shadow, huge));
    /* Memory, page by page. */
    char *p = mmap(0, 10 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(p + 9 * 4096, 4096, PROT_NONE);
    printf("%ld %ld\n", of_mapping(p, "Size:"), of_mapping(p, "Rss:"));
    p[0] = p[4096] = p[5 * 4096] = 1;
    printf("%ld %ld %ld %ld\n", of_mapping(p, "Rss:"), of_mapping(p, "Anonymous:"), of_mapping(p, "Private_Dirty:"), of_mapping(p, "Swap:"));
    mlock(p, 4096 * 9);
    printf("%ld %ld\n", of_mapping(p, "Rss:"), of_mapping(p, "Locked:"));
    munlock(p, 4096 * 9);
    madvise(p, 4096 * 4, MADV_DONTNEED);
    int f = open("/proc/self/pagemap", O_RDONLY);
    uint64_t w[10];
    SAY(pread(f, w, 80, (long)p / 4096 * 8));
    for (int i = 0; i < 10; i++) printf("%d", (int)(w[i] >> 63));
    puts("");
    SAY(pread(f, w, 7, 0));
    SAY(pread(f, w, 8, 4));
    SAY(lseek(f, (long)p / 4096 * 8, SEEK_SET) == (long)p / 4096 * 8);
    SAY(read(f, w, 80));
    close(f);
    f = open("/proc/self/mem", O_RDWR);
    strcpy(p, "written by me");
    char t[32] = "";
    SAY(pread(f, t, 14, (long)p));
    puts(t);
    SAY(pwrite(f, "READ", 4, (long)p));
    puts(p);
    SAY(pread(f, t, 14, 16));
    close(f);
    /* Descriptors. */
    f = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    lseek(f, 5, SEEK_SET);
    char name[64];
    sprintf(name, "/proc/self/fdinfo/%d", f);
    slurp(name);
    printf("%ld %ld\n", field("pos:\t"), strtol(strstr(b, "flags:\t") + 7, 0, 8) & (O_CLOEXEC | O_ACCMODE));
    sprintf(name, "/proc/self/fd/%d", f);
    SAY(readlink(name, b, 100));
    printf("%.11s\n", b);
    int e = eventfd(7, 0);
    sprintf(name, "/proc/self/fdinfo/%d", e);
    slurp(name);
    printf("%ld\n", field("eventfd-count:"));
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(d)) n++;
    closedir(d);
    printf("%d\n", n >= 8);
    /* From a directory, and from within. */
    int dir = open("/proc/self", O_RDONLY | O_DIRECTORY);
    SAY(slurp_at(dir, "comm"));
    struct stat st;
    SAY(fstatat(dir, "status", &st, 0));
    printf("%o %d\n", st.st_mode, st.st_uid == getuid());
    SAY(fstatat(dir, "none", &st, 0));
    SAY(faccessat(dir, "maps", R_OK, 0));
    SAY(readlinkat(dir, "root", b, 10));
    SAY(stat("/proc/self/fd/", &st));
    printf("%o\n", st.st_mode & S_IFMT);
    SAY(lstat("/proc/self", &st));
    printf("%o\n", st.st_mode);
    SAY(lstat("/proc/self/", &st));
    printf("%o\n", st.st_mode);
    SAY(chdir("/proc/self"));
    SAY(slurp("comm"));
    SAY(slurp("../self/comm"));
    SAY(chdir("/proc"));
    SAY(slurp("self/comm"));
    char *cwd = getcwd(0, 0);
    puts(cwd);
    SAY(fchdir(dir));
    SAY(slurp("comm"));
    SAY(chdir("/"));
    SAY(slurp("proc/self/comm"));
    /* Another process. */
    pid_t child = fork();
    if (!child) {
        pause();
        _exit(0);
    }
    sprintf(name, "/proc/%d/comm", child);
    SAY(slurp(name));
    sprintf(name, "/proc/%d/mem", child);
    strcpy(p, "the parent's");
    f = open(name, O_RDONLY);
    SAY(pread(f, t, 13, (long)p));
    puts(t);
    close(f);
    int seen = 0;
    d = opendir("/proc");
    for (struct dirent *x; (x = readdir(d));) seen += atoi(x->d_name) == child;
    closedir(d);
    printf("seen %d\n", seen);
    kill(child, SIGKILL);
    sprintf(name, "/proc/%d/stat", child);
    do slurp(name);
    while (!strstr(b, ") Z "));
    puts("zombie");
    waitpid(child, 0, 0);
    SAY(slurp(name));
    pthread_t th;
    pthread_create(&th, 0, named, 0);
    pthread_join(th, 0);
    /* System V. */
    int id = shmget(IPC_PRIVATE, 12283, IPC_CREAT | 0604);
    char *s = shmat(id, 0, 0);
    f = open("/proc/sysvipc/shm", O_RDONLY);
    FILE *in = fdopen(f, "r");
    fgets(b, sizeof b, in);
    fputs(b, stdout);
    while (fgets(b, sizeof b, in)) {
        unsigned long bytes, attached;
        int i, perms;
        sscanf(b, "%*d %d %o %lu %*d %*d %lu", &i, &perms, &bytes, &attached);
        if (i == id) printf("%o %lu %lu\n", perms, bytes, attached);
    }
    fclose(in);
    shmctl(id, IPC_RMID, 0);
    SAY(slurp("/proc/sys/vm/overcommit_memory"));
    SAY(slurp("/proc/sys/kernel/pid_max") > 0);
    SAY(slurp("/proc/sys/kernel/osrelease") > 0);
    SAY(slurp("/proc/sys/vm/nothing"));
    SAY(slurp("/proc/meminfo") > 500);
    printf("%d %d\n", field("MemTotal:") > field("MemFree:"), field("Hugepagesize:") > 0);
    SAY(open("/proc/self/maps", O_RDONLY | O_DIRECTORY));
    SAY(open("/proc/self", O_WRONLY));
    SAY(open("/proc/self/exe", O_RDONLY | O_NOFOLLOW));
    SAY(unlink("/proc/self/maps") < 0);
    return 0;
}
