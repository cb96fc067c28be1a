/* System V shared memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)
#define ASK(call) do { errno = 0; long r_ = (long)(call); printf("%s %s %s\n", #call, r_ < 0 ? "-1" : "ok", r_ < 0 ? strerrorname_np(errno) : ""); } while (0)
#define PAGE 4096

static jmp_buf out;
static void fault(int s) { siglongjmp(out, s); }
static int touch(volatile char *p, int write) {
    int s = sigsetjmp(out, 1);
    if (s) return s;
    if (write) *p = 1;
    else (void)*p;
    return 0;
}

static struct shmid_ds d;
static void show(int id) {
    int r = shmctl(id, IPC_STAT, &d);
    if (r) { printf("stat %s\n", strerrorname_np(errno)); return; }
    printf("size %zu attached %lu mode %o uid %d cuid %d cpid %d lpid %d a %d d %d c %d\n", d.shm_segsz,
           d.shm_nattch, d.shm_perm.mode, d.shm_perm.uid, d.shm_perm.cuid, d.shm_cpid == getpid(),
           d.shm_lpid == getpid() ? 1 : d.shm_lpid ? 2 : 0, d.shm_atime != 0, d.shm_dtime != 0, d.shm_ctime != 0);
}

int main(void) {
    signal(SIGSEGV, fault);
    signal(SIGBUS, fault);
    key_t key = 0x51000000 | (getpid() & 0xffff);
    SAY(shmget(IPC_PRIVATE, 0, 0600));
    SAY(shmget(key, PAGE, 0600));
    SAY(shmget(IPC_PRIVATE, -1, 0600));
    SAY(shmget(IPC_PRIVATE, 1ul << 62, 0600));
    int id = shmget(key, 3 * PAGE - 5, IPC_CREAT | 0640);
    ASK(id);
    SAY(shmget(key, 0, IPC_CREAT | IPC_EXCL | 0640));
    SAY(shmget(key, 3 * PAGE, 0640));
    SAY(shmget(key, 0, 0) == id);
    show(id);
    char *p = shmat(id, 0, 0);
    ASK(p);
    show(id);
    printf("%d %d\n", touch(p + 3 * PAGE - 1, 1), p[PAGE]);
    p[0] = 'a';
    char *q = shmat(id, 0, SHM_RDONLY);
    show(id);
    printf("%c %d\n", q[0], touch(q, 1));
    SAY(mprotect(q, PAGE, PROT_READ | PROT_WRITE));
    p[1] = 'b';
    printf("%c\n", q[1]);
    SAY(shmat(-1, 0, 0));
    SAY(shmat(id + 1, 0, 0));
    SAY(shmat(id, p + 1, 0));
    SAY(shmat(id, p, 0));
    SAY(shmat(id, 0, SHM_REMAP));
    SAY(shmat(id, (void *)100, SHM_RND | SHM_REMAP));
    char *room = mmap(0, 16 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SAY(shmat(id, room + PAGE, 0));
    SAY(shmat(id, room + PAGE, SHM_REMAP) == room + PAGE);
    munmap(room + 8 * PAGE, 8 * PAGE);
    SAY(shmat(id, room + 8 * PAGE + 77, SHM_RND) == room + 8 * PAGE);
    SAY(shmat(id, room + 12 * PAGE + 77, 0));
    show(id);
    SAY(shmdt(room + 8 * PAGE + 1));
    SAY(shmdt(room + 8 * PAGE));
    SAY(shmdt(room + 8 * PAGE));
    SAY(shmdt(room));
    show(id);
    /* A part of it goes, and what is left counts. */
    SAY(munmap(room + 2 * PAGE, PAGE));
    show(id);
    printf("%c %d %d\n", room[PAGE], touch(room + 2 * PAGE, 0), touch(room + 3 * PAGE, 0));
    SAY(shmdt(room + PAGE));
    printf("%d\n", touch(room + 3 * PAGE, 0));
    show(id);
    SAY(shmdt(q));
    show(id);
    fflush(stdout);
    int s;
    if (!fork()) {
        show(id);
        p[0] = 'c';
        SAY(shmdt(p));
        show(id);
        fflush(stdout);
        _exit(0);
    }
    wait(&s);
    printf("%c\n", p[0]);
    show(id);
    if (!fork()) {
        p[0] = 'd';
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    wait(&s);
    printf("%c %d\n", p[0], s);
    show(id);
    d.shm_perm.mode = 0604;
    SAY(shmctl(id, IPC_SET, &d));
    show(id);
    SAY(shmctl(id, IPC_SET, (void *)1));
    SAY(shmctl(id, IPC_STAT, (void *)1));
    SAY(shmctl(id, 99, 0));
    SAY(shmctl(-1, IPC_STAT, &d));
    SAY(shmctl(id, -1, &d));
    struct shminfo info;
    ASK(shmctl(0, IPC_INFO, (void *)&info));
    printf("%lu %lu %lu %lu %lu\n", info.shmmax, info.shmmin, info.shmmni, info.shmseg, info.shmall);
    struct shm_info used;
    int top = shmctl(0, SHM_INFO, (void *)&used);
    printf("%d %d\n", used.used_ids >= 1, used.shm_tot >= 3);
    int found = 0;
    for (int i = 0; i <= top; i++) found += shmctl(i, SHM_STAT, &d) == id;
    printf("found %d\n", found);
    SAY(shmctl(id, SHM_LOCK, 0));
    show(id);
    SAY(shmctl(id, SHM_UNLOCK, 0));
    show(id);
    /* The maps name it. */
    char line[300], want[40];
    sprintf(want, "/SYSV%08x (deleted)", key);
    FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, f))
        if (strstr(line, want)) printf("named %c\n", strchr(line, 's') ? 's' : 'p');
    fclose(f);
    /* Removed while attached: it goes with the last use. */
    SAY(shmctl(id, IPC_RMID, 0));
    show(id);
    SAY(shmget(key, 0, 0));
    char *again = shmat(id, 0, 0);
    ASK(again);
    printf("%c\n", again[0]);
    SAY(shmdt(again));
    show(id);
    SAY(shmdt(p));
    show(id);
    SAY(shmctl(id, IPC_RMID, 0));
    /* The rights of others. */
    fflush(stdout);
    id = shmget(key, PAGE, IPC_CREAT | 0604);
    if (!getuid() && !fork()) {
        setgid(65534);
        setuid(65534);
        SAY(shmget(key, 0, 0600));
        SAY(shmget(key, 0, 0400) == id);
        SAY(shmat(id, 0, 0));
        ASK(shmat(id, 0, SHM_RDONLY));
        SAY(shmctl(id, IPC_STAT, &d));
        SAY(shmctl(id, IPC_SET, &d));
        SAY(shmctl(id, IPC_RMID, 0));
        SAY(shmctl(id, SHM_LOCK, 0));
        fflush(stdout);
        _exit(0);
    }
    wait(&s);
    SAY(shmctl(id, IPC_RMID, 0));
    SAY(shmctl(id, IPC_STAT, &d));
    /* Left behind on purpose, in a child that ends with it attached. */
    if (!fork()) {
        id = shmget(IPC_PRIVATE, PAGE, 0600);
        p = shmat(id, 0, 0);
        SAY(shmctl(id, IPC_RMID, 0));
        *p = 1;
        fflush(stdout);
        _exit(0);
    }
    wait(&s);
    return 0;
}
