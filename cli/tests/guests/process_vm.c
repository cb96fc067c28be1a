/* Other processes' memory, and barriers. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ < 0 ? strerrorname_np(errno) : ""); } while (0)

int main(void) {
    char *shared = mmap(0, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int go[2];
    pipe(go);
    strcpy(shared, "parent's");
    munmap(shared + 8192, 4096);
    mprotect(shared + 12288, 4096, PROT_READ);
    pid_t child = fork();
    if (!child) {
        strcpy(shared, "child's own text");
        memset(shared + 4096, 'x', 4096);
        write(go[1], "r", 1);
        pause();
        _exit(1);
    }
    char c;
    read(go[0], &c, 1);
    char a[64] = "", b[10000];
    struct iovec here[3] = {{a, 5}, {a + 32, 3}, {b, 100}}, there[2] = {{shared, 6}, {shared + 10, 4}};
    SAY(process_vm_readv(child, here, 2, there, 2, 0));
    printf("[%.5s] [%.3s]\n", a, a + 32);
    SAY(process_vm_readv(child, here, 3, there, 2, 0));
    struct iovec all = {b, 10000}, hole = {shared + 4090, 8000}, in = {shared + 8192, 10}, none = {b, 0};
    SAY(process_vm_readv(child, &all, 1, &hole, 1, 0));
    SAY(process_vm_readv(child, &all, 1, &in, 1, 0));
    SAY(process_vm_readv(child, &none, 1, &in, 1, 0));
    SAY(process_vm_readv(child, &all, 0, &in, 1, 0));
    SAY(process_vm_readv(child, &all, 1, &in, 0, 0));
    SAY(process_vm_readv(child, &all, 1, &in, 1, 1));
    SAY(process_vm_readv(child, &all, 1025, &in, 1, 0));
    SAY(process_vm_readv(child, (void *)1, 1, &in, 1, 0));
    SAY(process_vm_readv(child, &all, 1, (void *)1, 1, 0));
    SAY(process_vm_readv(99999999, &all, 1, &hole, 1, 0));
    struct iovec bad = {(void *)8, 10}, start = {shared, 10}, huge = {b, -1};
    SAY(process_vm_readv(child, &bad, 1, &start, 1, 0));
    SAY(process_vm_readv(child, &huge, 1, &start, 1, 0));
    strcpy(a, "written");
    struct iovec from = {a, 7}, ro = {shared + 12288, 7};
    SAY(process_vm_writev(child, &from, 1, &start, 1, 0));
    struct iovec back = {b, 16};
    struct iovec whole = {shared, 16};
    SAY(process_vm_readv(child, &back, 1, &whole, 1, 0));
    printf("%.16s %s\n", b, shared);
    SAY(process_vm_writev(child, &from, 1, &ro, 1, 0));
    SAY(process_vm_writev(getpid(), &from, 1, &start, 1, 0));
    puts(shared);
    fflush(stdout);
    if (!getuid() && !fork()) {
        setgid(65534);
        setuid(65534);
        SAY(process_vm_readv(child, &back, 1, &whole, 1, 0));
        SAY(process_vm_writev(child, &from, 1, &start, 1, 0));
        fflush(stdout);
        _exit(0);
    }
    if (!getuid()) wait(0);
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    SAY(process_vm_readv(child, &back, 1, &whole, 1, 0));
    long q = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    printf("%d\n", q > 0 && q & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 1, 0));
    SAY(syscall(SYS_membarrier, 1 << 30, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
    return 0;
}
