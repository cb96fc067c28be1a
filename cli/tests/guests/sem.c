/* System V semaphores and messages. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

union semun { int val; struct semid_ds *buf; unsigned short *array; struct seminfo *info; };
static int op(int id, int n, int by, int flags) {
    struct sembuf b = {n, by, flags};
    return semop(id, &b, 1);
}
static void ring(int s) { }

static void semaphores(void) {
    key_t key = 0x52000000 | (getpid() & 0xffff);
    SAY(semget(IPC_PRIVATE, 0, 0600));
    SAY(semget(IPC_PRIVATE, -1, 0600));
    SAY(semget(IPC_PRIVATE, 40000, 0600));
    SAY(semget(key, 1, 0600));
    int id = semget(key, 3, IPC_CREAT | 0600);
    SAY(semget(key, 4, 0600));
    SAY(semget(key, 0, 0600) == id);
    SAY(semget(key, 3, IPC_CREAT | IPC_EXCL | 0600));
    struct semid_ds ds;
    unsigned short values[3] = {1, 2, 3}, got[3];
    SAY(semctl(id, 0, IPC_STAT, &ds));
    printf("%lu %o %d %d\n", ds.sem_nsems, ds.sem_perm.mode, ds.sem_otime != 0, ds.sem_ctime != 0);
    SAY(semctl(id, 0, SETALL, values));
    SAY(semctl(id, 0, GETALL, got));
    printf("%d %d %d\n", got[0], got[1], got[2]);
    SAY(semctl(id, 1, GETVAL));
    SAY(semctl(id, 3, GETVAL));
    SAY(semctl(id, -1, GETVAL));
    SAY(semctl(id, 1, SETVAL, 40000));
    SAY(semctl(id, 1, SETVAL, -1));
    SAY(semctl(id, 3, SETVAL, 1));
    SAY(semctl(id, 1, SETVAL, 5));
    SAY(semctl(id, 1, GETPID) == getpid());
    SAY(semctl(id, 2, GETPID) == getpid());
    SAY(op(id, 1, -6, IPC_NOWAIT));
    SAY(op(id, 1, -5, IPC_NOWAIT));
    SAY(op(id, 1, 0, IPC_NOWAIT));
    SAY(op(id, 0, 0, IPC_NOWAIT));
    SAY(op(id, 0, 32767, IPC_NOWAIT));
    SAY(op(id, 3, 1, 0));
    SAY(op(-1, 0, 1, 0));
    SAY(op(id + 1, 0, 1, 0));
    SAY(semop(id, (void *)1, 1));
    SAY(semop(id, 0, 0));
    struct sembuf many[600] = {{0}};
    SAY(semop(id, many, 600));
    struct sembuf two[2] = {{0, -1, IPC_NOWAIT}, {1, -1, IPC_NOWAIT}};
    SAY(semop(id, two, 2));
    SAY(semctl(id, 0, GETVAL));
    struct timespec t = {0, 20000000}, bad = {0, -1};
    struct sembuf wait1 = {1, -1, 0};
    SAY(semtimedop(id, &wait1, 1, &t));
    SAY(semtimedop(id, &wait1, 1, &bad));
    SAY(semtimedop(id, &wait1, 1, (void *)1));
    signal(SIGALRM, ring);
    struct sigaction sa = {.sa_handler = ring, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &sa, 0);
    alarm(1);
    SAY(semop(id, &wait1, 1));
    fflush(stdout);
    /* Somebody waits, is counted, and is let go. */
    int s;
    pid_t child = fork();
    if (!child) {
        int r = op(id, 1, -1, 0);
        _exit(r ? 9 : 4);
    }
    while (semctl(id, 1, GETNCNT) != 1) usleep(1000);
    SAY(semctl(id, 1, GETNCNT));
    SAY(semctl(id, 1, GETZCNT));
    SAY(op(id, 1, 1, 0));
    waitpid(child, &s, 0);
    printf("%x %d\n", s, semctl(id, 1, GETNCNT));
    semctl(id, 1, SETVAL, 1);
    child = fork();
    if (!child) _exit(op(id, 1, 0, 0) ? 9 : 5);
    while (semctl(id, 1, GETZCNT) != 1) usleep(1000);
    SAY(semctl(id, 1, SETVAL, 0));
    waitpid(child, &s, 0);
    printf("%x\n", s);
    /* What ends take back. */
    semctl(id, 0, SETVAL, 5);
    child = fork();
    if (!child) {
        op(id, 0, -3, SEM_UNDO);
        _exit(semctl(id, 0, GETVAL));
    }
    waitpid(child, &s, 0);
    printf("%x %d %d\n", s, semctl(id, 0, GETVAL), semctl(id, 0, GETPID) == child);
    struct seminfo info;
    SAY(semctl(0, 0, IPC_INFO, &info) >= 0);
    printf("%d %d %d %d %d %d %d %d %d %d\n", info.semmap, info.semmni, info.semmns, info.semmnu, info.semmsl,
           info.semopm, info.semume, info.semusz, info.semvmx, info.semaem);
    ds.sem_perm.mode = 0400;
    SAY(semctl(id, 0, IPC_SET, &ds));
    fflush(stdout);
    if (!getuid() && !fork()) {
        setuid(65534);
        SAY(semget(key, 0, 0400));
        SAY(op(id, 0, 1, 0));
        SAY(semctl(id, 0, GETVAL));
        SAY(semctl(id, 0, SETVAL, 1));
        SAY(semctl(id, 9, SETVAL, 1));
        SAY(semctl(id, 0, IPC_RMID));
        fflush(stdout);
        _exit(0);
    }
    wait(&s);
    ds.sem_perm.mode = 0600;
    semctl(id, 0, IPC_SET, &ds);
    semctl(id, 0, SETVAL, 0);
    child = fork();
    if (!child) {
        op(id, 0, -1, 0);
        _exit(errno == EIDRM);
    }
    while (semctl(id, 0, GETNCNT) != 1) usleep(1000);
    SAY(semctl(id, 0, IPC_RMID));
    waitpid(child, &s, 0);
    printf("%x\n", s);
    SAY(semctl(id, 0, IPC_RMID));
    SAY(semctl(id, 0, 99));
    SAY(op(id, 0, 1, 0));
}

struct note { long type; char text[9000]; };

static void messages(void) {
    struct note n = {1, "hello"};
    key_t key = 0x53000000 | (getpid() & 0xffff);
    SAY(msgget(key, 0600));
    int id = msgget(key, IPC_CREAT | 0600);
    SAY(msgget(key, 0) == id);
    SAY(msgget(key, IPC_CREAT | IPC_EXCL));
    SAY(msgsnd(id, &n, 6, 0));
    n.type = 7;
    strcpy(n.text, "seven");
    SAY(msgsnd(id, &n, 6, 0));
    n.type = 3;
    strcpy(n.text, "three");
    SAY(msgsnd(id, &n, 6, IPC_NOWAIT));
    struct msqid_ds ds;
    SAY(msgctl(id, IPC_STAT, &ds));
    printf("%lu %lu %lu %d %d\n", ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes, ds.msg_lspid == getpid(), ds.msg_lrpid);
    SAY(msgrcv(id, &n, 3, 7, 0));
    SAY(msgrcv(id, &n, 3, 7, MSG_NOERROR));
    printf("%ld %.3s\n", n.type, n.text);
    SAY(msgrcv(id, &n, 100, 7, IPC_NOWAIT));
    SAY(msgrcv(id, &n, 100, 1, IPC_NOWAIT | MSG_COPY));
    printf("%ld %s\n", n.type, n.text);
    SAY(msgrcv(id, &n, 100, 1, MSG_COPY));
    SAY(msgrcv(id, &n, 100, 1, MSG_EXCEPT));
    printf("%ld %s\n", n.type, n.text);
    SAY(msgrcv(id, &n, 100, -5, 0));
    printf("%ld %s\n", n.type, n.text);
    SAY(msgrcv(id, &n, 100, 0, IPC_NOWAIT));
    n.type = 0;
    SAY(msgsnd(id, &n, 1, 0));
    n.type = 1;
    SAY(msgsnd(id, &n, 9000, 0));
    SAY(msgsnd(id, &n, -1, 0));
    SAY(msgsnd(-1, &n, 1, 0));
    SAY(msgsnd(id, 0, 1, 0));
    SAY(msgsnd(id + 1, &n, 1, 0));
    SAY(msgrcv(id, &n, -1, 0, 0));
    SAY(msgsnd(id, &n, 8192, IPC_NOWAIT));
    SAY(msgsnd(id, &n, 8192, IPC_NOWAIT));
    SAY(msgsnd(id, &n, 1, IPC_NOWAIT));
    fflush(stdout);
    int s;
    pid_t child = fork();
    if (!child) {
        msgsnd(id, &n, 8192, 0);
        n.type = 9;
        _exit(msgsnd(id, &n, 3, 0) ? 1 : 8);
    }
    for (int i = 0; i < 4; i++) SAY(msgrcv(id, &n, 9000, 0, 0));
    waitpid(child, &s, 0);
    printf("%x\n", s);
    alarm(1);
    SAY(msgrcv(id, &n, 1, 0, 0));
    msgctl(id, IPC_STAT, &ds);
    ds.msg_qbytes = 100;
    SAY(msgctl(id, IPC_SET, &ds));
    SAY(msgsnd(id, &n, 101, IPC_NOWAIT));
    struct msginfo info;
    SAY(msgctl(0, IPC_INFO, (void *)&info) >= 0);
    printf("%d %d %d %d %d %d %d %d\n", info.msgpool, info.msgmap, info.msgmax, info.msgmnb, info.msgmni > 0, info.msgssz, info.msgtql, info.msgseg);
    fflush(stdout);
    if (!getuid() && !fork()) {
        setuid(65534);
        SAY(msgsnd(id, &n, 1, 0));
        SAY(msgrcv(id, &n, 1, 0, IPC_NOWAIT));
        SAY(msgctl(id, IPC_STAT, &ds));
        SAY(msgctl(id, IPC_RMID, 0));
        fflush(stdout);
        _exit(0);
    }
    wait(&s);
    SAY(msgctl(id, IPC_RMID, 0));
    SAY(msgctl(id, IPC_RMID, 0));
    SAY(msgrcv(id, &n, 1, 0, 0));
}

int main(void) {
    semaphores();
    messages();
    return 0;
}
