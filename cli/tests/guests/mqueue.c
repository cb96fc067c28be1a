/* Queues of messages of POSIX: names, order, limits, and who is told. Compared with the host's. */
#define _GNU_SOURCE
#include <errno.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

static char name[64], b[256];
static mqd_t q;
static unsigned priority;
static volatile int got, code, value;
static sem_t told;

static void on_signal(int number, siginfo_t *info, void *context) {
    got = number;
    code = info->si_code;
    value = info->si_value.sival_int;
}
static void on_thread(union sigval v) {
    value = v.sival_int;
    sem_post(&told);
}
static mqd_t make(long messages, long bytes) {
    struct mq_attr attr = {0, messages, bytes, 0};
    return mq_open("/bsdvm-limits", O_CREAT | O_RDWR, 0600, &attr);
}
static int ready(void) {
    struct pollfd p = {q, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    return p.revents;
}

static void names(void) {
    struct mq_attr attr = {0, 3, 16, 0};
    char longest[300] = "/";
    memset(longest + 1, 'n', 256);
    SAY(mq_open(name, O_RDWR));
    SAY((q = mq_open(name, O_CREAT | O_RDWR, 0640, &attr)) >= 0);
    SAY(mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr));
    SAY(mq_open("no-slash", O_RDWR));
    SAY(mq_open("/a/b", O_CREAT | O_RDWR, 0600, 0));
    SAY(mq_open("/..", O_CREAT | O_RDWR, 0600, 0));
    SAY(mq_open(longest, O_CREAT | O_RDWR, 0600, 0));
    SAY(syscall(SYS_mq_open, "", O_CREAT | O_RDWR, 0600, 0));
    SAY(syscall(SYS_mq_open, 8, O_CREAT | O_RDWR, 0600, 0));
    SAY(make(0, 16));
    SAY(make(1, -1));
    SAY(make(65537, 16));
    SAY(make(1, (16 << 20) + 1));
    SAY(mq_unlink("/bsdvm-none"));
}

static void messages(void) {
    struct timespec past = {0, 0}, wrong = {0, -1};
    SAY(mq_send(q, "low", 3, 1));
    SAY(mq_send(q, "high", 4, 9));
    SAY(mq_send(q, "later", 5, 1));
    SAY(mq_timedsend(q, "full", 4, 1, &past));
    SAY(mq_send(q, b, 17, 1));
    SAY(mq_send(q, "x", 1, 32768));
    SAY(mq_send(1, "x", 1, 0));
    SAY(syscall(SYS_mq_timedsend, q, 8, 1, 0, 0));
    printf("%x\n", ready());
    SAY(mq_receive(q, b, 15, &priority));
    for (int i = 0; i < 3; i++) {
        memset(b, 0, sizeof b);
        SAY(mq_receive(q, b, 16, &priority));
        printf("%s %u %x\n", b, priority, ready());
    }
    SAY(mq_timedreceive(q, b, 16, 0, &past));
    SAY(mq_timedreceive(q, b, 16, 0, &wrong));
}

static void descriptors(void) {
    struct mq_attr attr, old;
    struct stat st;
    struct statfs fs;
    mqd_t reads = mq_open(name, O_RDONLY | O_NONBLOCK);
    SAY(mq_send(reads, "x", 1, 0));
    SAY(mq_receive(reads, b, 16, 0));
    SAY(mq_getattr(reads, &attr));
    printf("%ld %ld %ld %ld\n", attr.mq_flags, attr.mq_maxmsg, attr.mq_msgsize, attr.mq_curmsgs);
    attr.mq_flags = 0;
    SAY(mq_setattr(reads, &attr, &old));
    printf("%ld\n", old.mq_flags);
    attr.mq_flags = 1;
    SAY(mq_setattr(reads, &attr, 0));
    SAY(mq_getattr(1, &attr));
    SAY(fstat(q, &st));
    SAY(fstatfs(q, &fs));
    printf("%o %ld %lx\n", st.st_mode, (long)st.st_size, (long)fs.f_type);
    SAY(fcntl(q, F_GETFD));
    SAY(fcntl(q, F_GETFL));
    SAY(write(q, "x", 1));
    mq_send(q, "four", 4, 0);
    memset(b, 0, sizeof b);
    SAY(read(q, b, sizeof b));
    printf("%s", b);
    mq_receive(q, b, 16, 0);
    mq_close(reads);
}

static void notices(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 77};
    struct itimerval soon = {{0, 0}, {0, 20000}};
    sigaction(SIGUSR1, &action, 0);
    sigaction(SIGALRM, &action, 0);
    SAY(mq_notify(q, &event));
    SAY(mq_notify(q, &event));
    mq_send(q, "n", 1, 0);
    printf("%d %d %d\n", got, code, value);
    SAY(mq_notify(q, &event));
    got = 0;
    mq_send(q, "n", 1, 0);
    printf("%d\n", got);
    SAY(mq_notify(q, 0));
    event.sigev_notify = 99;
    SAY(mq_notify(q, &event));
    event = (struct sigevent){.sigev_notify = SIGEV_NONE};
    SAY(mq_notify(q, &event));
    close(mq_open(name, O_RDONLY));
    SAY(mq_notify(q, &event));
    while (mq_getattr(q, (struct mq_attr *)b), ((struct mq_attr *)b)->mq_curmsgs) mq_receive(q, b, 16, 0);
    mq_notify(q, 0);
    sem_init(&told, 0, 0);
    event = (struct sigevent){.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread, .sigev_value.sival_int = 55};
    SAY(mq_notify(q, &event));
    mq_send(q, "n", 1, 0);
    sem_wait(&told);
    printf("%d\n", value);
    mq_receive(q, b, 16, 0);
    setitimer(ITIMER_REAL, &soon, 0);
    SAY(mq_receive(q, b, 16, 0));
}

static void others(void) {
    struct mq_attr much = {0, 11, 16, 0};
    struct rlimit none = {0, 0};
    fflush(stdout);
    if (!fork()) {
        SAY(mq_receive(q, b, 16, &priority));
        printf("%u\n", priority);
        if (setuid(65534)) exit(1);
        SAY(mq_open(name, O_RDWR));
        SAY(mq_unlink(name));
        SAY(mq_open("/bsdvm-much", O_CREAT | O_RDWR, 0600, &much));
        setrlimit(RLIMIT_MSGQUEUE, &none);
        SAY(mq_open("/bsdvm-much", O_CREAT | O_RDWR, 0600, 0));
        exit(0);
    }
    mq_send(q, "for the child", 13, 5);
    wait(0);
}

int main(void) {
    sprintf(name, "/bsdvm-%d", getpid());
    names();
    messages();
    descriptors();
    notices();
    others();
    SAY(mq_unlink(name));
    SAY(mq_unlink(name));
    SAY(mq_send(q, "still", 5, 0));
    SAY(mq_close(q));
    SAY(mq_close(q));
}
