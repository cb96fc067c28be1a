/* Sockets of one machine: streams, datagrams, packets; names; what travels beside the bytes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, long r) { printf("%s: %ld %s\n", what, r, r < 0 ? strerrorname_np(errno) : ""); fflush(stdout); }
static int ready(int fd) { struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0}; poll(&p, 1, 0); return p.revents & ~(POLLRDNORM | POLLWRNORM | POLLWRBAND); }
static socklen_t named(struct sockaddr_un *a, const char *name) {
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (name[0] == '@') { memcpy(a->sun_path + 1, name + 1, strlen(name) - 1); return 2 + strlen(name); }
    strcpy(a->sun_path, name);
    return sizeof *a;
}
static void shown(const char *what, struct sockaddr_un *a, socklen_t len) {
    printf("%s: len %u family %d ", what, len, len >= 2 ? a->sun_family : -1);
    for (unsigned i = 0; i + 2 < len && i < 60; i++) putchar(a->sun_path[i] ? a->sun_path[i] : '.');
    puts("");
}
static void made(void) {
    say("family", socket(99, SOCK_STREAM, 0));
    say("internet", socket(AF_INET6 + 100, SOCK_STREAM, 0));
    say("kind", socket(AF_UNIX, 7, 0));
    say("kind beyond", socket(AF_UNIX, 12, 0));
    say("flag", socket(AF_UNIX, SOCK_STREAM | 0x100, 0));
    say("protocol", socket(AF_UNIX, SOCK_STREAM, 5));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, AF_UNIX);
    printf("%d %d\n", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL) == (O_RDWR | O_NONBLOCK));
    struct stat st;
    fstat(fd, &st);
    printf("%o %d\n", st.st_mode, ready(fd));
    say("not a socket", listen(0, 1));
    say("no descriptor", listen(99, 1));
    say("listen without name", listen(fd, 1));
    say("read unconnected", read(fd, &st, 1));
    say("write unconnected", write(fd, "x", 1));
    say("peer", getpeername(fd, (void *)&st, &(socklen_t){10}));
    say("accept", accept(fd, 0, 0));
    close(fd);
}
static void pairs(int kind) {
    int p[2], n;
    char b[64];
    printf("kind %d\n", kind);
    say("pair", socketpair(AF_UNIX, kind, 0, p));
    say("bad place", socketpair(AF_UNIX, kind, 0, (int *)8));
    printf("%x %x\n", ready(p[0]), ready(p[1]));
    say("send", send(p[0], "hello", 5, 0));
    say("send", send(p[0], "world", 5, 0));
    ioctl(p[1], FIONREAD, &n);
    printf("%d %x\n", n, ready(p[1]));
    say("peek", recv(p[1], b, 64, MSG_PEEK));
    say("peek two", recv(p[1], b, 2, MSG_PEEK | MSG_TRUNC));
    say("recv 2", recv(p[1], b, 2, 0));
    say("recv", recv(p[1], b, 64, MSG_DONTWAIT));
    say("recv", recv(p[1], b, 64, MSG_DONTWAIT));
    say("recv", recv(p[1], b, 64, MSG_DONTWAIT));
    say("nothing", write(p[0], "", 0));
    say("recv nothing", recv(p[1], b, 64, MSG_DONTWAIT));
    say("out of band", recv(p[1], b, 1, MSG_OOB | MSG_DONTWAIT) < 0);
    struct { struct iovec v[2]; struct msghdr m; } x = {{{"ab", 2}, {"cde", 3}}};
    x.m.msg_iov = x.v; x.m.msg_iovlen = 2;
    say("sendmsg", sendmsg(p[0], &x.m, 0));
    char c1[2], c2[8];
    struct iovec v[2] = {{c1, 2}, {c2, 8}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    say("recvmsg", recvmsg(p[1], &m, 0));
    printf("%.2s %.3s %x\n", c1, c2, m.msg_flags);
    struct mmsghdr mm[3] = {{.msg_hdr = {.msg_iov = &x.v[0], .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &x.v[1], .msg_iovlen = 1}}};
    say("sendmmsg", sendmmsg(p[0], mm, 2, 0));
    printf("%u %u\n", mm[0].msg_len, mm[1].msg_len);
    struct iovec w = {b, 64};
    struct mmsghdr rm[3] = {{.msg_hdr = {.msg_iov = &w, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &w, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &w, .msg_iovlen = 1}}};
    say("recvmmsg", recvmmsg(p[1], rm, 3, MSG_DONTWAIT, 0));
    say("shut", shutdown(p[0], SHUT_WR));
    printf("%x %x\n", ready(p[0]), ready(p[1]));
    say("send after", send(p[0], "x", 1, MSG_NOSIGNAL));
    if (kind != SOCK_DGRAM) say("read end", recv(p[1], b, 5, MSG_DONTWAIT));
    say("other way", send(p[1], "back", 4, 0));
    say("read back", recv(p[0], b, 10, 0));
    say("how", shutdown(p[0], 9));
    say("shut in", shutdown(p[0], SHUT_RD));
    printf("%x %x\n", ready(p[0]), ready(p[1]));
    say("to the deaf", send(p[1], "x", 1, MSG_NOSIGNAL));
    close(p[0]);
    printf("%x\n", ready(p[1]));
    say("to nobody", send(p[1], "x", 1, MSG_NOSIGNAL));
    close(p[1]);
    socketpair(AF_UNIX, kind, 0, p);
    send(p[0], "unread", 6, 0);
    close(p[1]);
    printf("%x\n", ready(p[0]));
    say("reset", recv(p[0], b, 10, MSG_DONTWAIT));
    say("after reset", recv(p[0], b, 10, MSG_DONTWAIT));
    close(p[0]);
}
static void connections(const char *name, int kind) {
    struct sockaddr_un a, b;
    socklen_t len = named(&a, name), got;
    printf("name %s\n", name[0] == '@' ? name : "path");
    int s = socket(AF_UNIX, kind, 0), c = socket(AF_UNIX, kind, 0);
    say("nobody there", connect(c, (void *)&a, len));
    say("bind", bind(s, (void *)&a, len));
    say("again", bind(s, (void *)&a, len));
    int o = socket(AF_UNIX, kind, 0);
    say("taken", bind(o, (void *)&a, len));
    say("not listening", connect(c, (void *)&a, len));
    got = sizeof b;
    say("name", getsockname(s, (void *)&b, &got));
    if (name[0] == '@') shown("name", &b, got); else printf("%u\n", got);
    say("listen", listen(s, 1));
    printf("%x\n", ready(s));
    say("connect", connect(c, (void *)&a, len));
    say("connected already", connect(c, (void *)&a, len));
    printf("%x %x\n", ready(s), ready(c));
    say("sent early", send(c, "early", 5, 0));
    got = sizeof b;
    int d = accept(s, (void *)&b, &got);
    say("accept", d >= 0);
    shown("client", &b, got);
    char t[16];
    say("read", recv(d, t, 16, 0));
    got = sizeof b;
    getpeername(c, (void *)&b, &got);
    printf("%u\n", got);
    struct ucred u;
    got = sizeof u;
    getsockopt(d, SOL_SOCKET, SO_PEERCRED, &u, &got);
    printf("%d %d %d\n", u.pid == getpid(), u.uid == getuid(), got);
    int n;
    got = sizeof n;
    getsockopt(s, SOL_SOCKET, SO_ACCEPTCONN, &n, &got);
    printf("%d\n", n);
    int e = socket(AF_UNIX, SOCK_DGRAM, 0);
    say("other kind", connect(e, (void *)&a, len));
    fcntl(s, F_SETFL, O_NONBLOCK);
    say("accept none", accept(s, 0, 0));
    int q[4];
    for (int i = 0; i < 4; i++) {
        q[i] = socket(AF_UNIX, kind | SOCK_NONBLOCK, 0);
        say("fill", connect(q[i], (void *)&a, len));
    }
    close(s);
    printf("%x\n", ready(q[0]));
    say("closed listener", recv(q[0], t, 1, 0));
    say("gone", connect(q[3], (void *)&a, len));
    for (int i = 0; i < 4; i++) close(q[i]);
    close(c); close(d); close(e); close(o);
}
static void datagrams(void) {
    struct sockaddr_un a, b;
    socklen_t la = named(&a, "@dgram-a"), lb = named(&b, "@dgram-b"), got;
    int s = socket(AF_UNIX, SOCK_DGRAM, 0), c = socket(AF_UNIX, SOCK_DGRAM, 0);
    char t[16];
    printf("%x\n", ready(s));
    bind(s, (void *)&a, la);
    bind(c, (void *)&b, lb);
    say("send unconnected", send(c, "x", 1, 0));
    say("sendto", sendto(c, "hi", 2, 0, (void *)&a, la));
    got = sizeof b;
    say("recvfrom", recvfrom(s, t, 1, MSG_TRUNC, (void *)&b, &got));
    shown("from", &b, got);
    lb = got;
    say("connect", connect(c, (void *)&a, la));
    say("send", send(c, "again", 5, 0));
    say("recv", recv(s, t, 16, 0));
    say("connect back", connect(s, (void *)&b, lb));
    int o = socket(AF_UNIX, SOCK_DGRAM, 0);
    say("third", sendto(o, "x", 1, 0, (void *)&a, la));
    say("unnamed", bind(o, (void *)&a, 2));
    got = sizeof b;
    getsockname(o, (void *)&b, &got);
    printf("%u %d\n", got, b.sun_path[0]);
    say("listen", listen(o, 1));
    say("accept", accept(o, 0, 0));
    struct sockaddr un = {AF_UNSPEC};
    say("disconnect", connect(s, &un, sizeof un));
    say("third now", sendto(o, "x", 1, 0, (void *)&a, la));
    static char big[300000];
    say("too long", send(c, big, sizeof big, 0));
    close(s);
    say("lost", send(c, "x", 1, 0));
    say("lost for good", send(c, "x", 1, 0));
    say("short address", sendto(c, "x", 1, 0, (void *)&a, 1));
    say("long address", bind(c, (void *)&a, 200));
    say("no family", sendto(c, "x", 1, 0, &un, sizeof un));
    close(c); close(o);
}
static void beside(void) {
    int p[2], pipes[2], n;
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    pipe(pipes);
    char c = 'x', buf[16];
    struct iovec v = {&c, 1};
    union { struct cmsghdr h; char b[256]; } k;
    memset(&k, 0, sizeof k);
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &k, .msg_controllen = CMSG_SPACE(8)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(8);
    memcpy(CMSG_DATA(h), pipes, 8);
    say("send files", sendmsg(p[0], &m, 0));
    close(pipes[0]);
    memset(&k, 0, sizeof k);
    m.msg_controllen = sizeof k;
    say("receive files", recvmsg(p[1], &m, MSG_CMSG_CLOEXEC));
    h = CMSG_FIRSTHDR(&m);
    int got[2];
    memcpy(got, CMSG_DATA(h), 8);
    printf("%zu %d %d %zu %x %d\n", (size_t)m.msg_controllen, h->cmsg_level, h->cmsg_type, (size_t)h->cmsg_len, m.msg_flags & ~MSG_CMSG_CLOEXEC, fcntl(got[0], F_GETFD));
    say("through them", write(got[1], "pipe", 4));
    say("and back", read(got[0], buf, 16));
    memset(&k, 0, sizeof k);
    m.msg_controllen = CMSG_SPACE(8);
    h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(8);
    got[1] = 999;
    memcpy(CMSG_DATA(h), got, 8);
    say("no such file", sendmsg(p[0], &m, 0));
    got[1] = got[0];
    memcpy(CMSG_DATA(h), got, 8);
    say("send again", sendmsg(p[0], &m, 0));
    m.msg_controllen = CMSG_LEN(4);
    say("room for one", recvmsg(p[1], &m, 0));
    printf("%zu %x\n", (size_t)m.msg_controllen, m.msg_flags);
    m.msg_controllen = CMSG_SPACE(8);
    h->cmsg_level = SOL_SOCKET; h->cmsg_type = 77; h->cmsg_len = CMSG_LEN(8);
    say("odd kind", sendmsg(p[0], &m, 0));
    h->cmsg_type = SCM_RIGHTS; h->cmsg_len = 3;
    say("odd length", sendmsg(p[0], &m, 0));
    n = 1;
    say("want senders", setsockopt(p[1], SOL_SOCKET, SO_PASSCRED, &n, sizeof n));
    say("plain", send(p[0], "y", 1, 0));
    memset(&k, 0, sizeof k);
    m.msg_controllen = sizeof k;
    say("receive", recvmsg(p[1], &m, 0));
    h = CMSG_FIRSTHDR(&m);
    struct ucred *u = (void *)CMSG_DATA(h);
    printf("%d %zu %d %d\n", h->cmsg_type, (size_t)h->cmsg_len, u->pid == getpid(), u->uid == getuid());
    struct { struct ucred u; } lie = {{1, 0, 0}};
    if (!fork()) {
        setresgid(65534, 65534, 65534);
        setresuid(65534, 65534, 65534);
        m.msg_controllen = CMSG_SPACE(sizeof lie);
        h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_CREDENTIALS; h->cmsg_len = CMSG_LEN(sizeof lie);
        memcpy(CMSG_DATA(h), &lie, sizeof lie);
        say("a lie", sendmsg(p[0], &m, 0));
        lie.u.pid = getpid(); lie.u.uid = getuid(); lie.u.gid = getgid();
        memcpy(CMSG_DATA(h), &lie, sizeof lie);
        say("the truth", sendmsg(p[0], &m, 0));
        _exit(0);
    }
    wait(0);
}
static void options(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), n = 1;
    socklen_t len;
    int names[] = {SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_REUSEADDR, SO_KEEPALIVE, SO_PASSCRED, SO_ACCEPTCONN, SO_PEERSEC, 999};
    for (int i = 0; i < sizeof names / sizeof *names; i++) {
        len = 4;
        n = -1;
        int r = getsockopt(fd, SOL_SOCKET, names[i], &n, &len);
        printf("%d: %d %d %u %s\n", names[i], r, n, len, r ? strerrorname_np(errno) : "");
    }
    n = 1;
    say("reuse", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &n, sizeof n));
    len = 4;
    getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &n, &len);
    printf("%d\n", n);
    n = 100;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &n, sizeof n);
    getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &n, &len);
    printf("%d\n", n);
    struct timeval t = {0, 50000};
    say("time", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    say("short", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, 4));
    t.tv_usec = 2000000;
    say("odd time", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    say("level", setsockopt(fd, 6, 1, &n, sizeof n));
    say("unknown", setsockopt(fd, SOL_SOCKET, 999, &n, sizeof n));
    say("pointer", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, (void *)8, 4));
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    t.tv_usec = 20000;
    setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    say("in time", recv(p[0], &n, 4, 0));
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    static char b[4096];
    long sum = 0, r;
    while ((r = write(p[0], b, sizeof b)) > 0) sum += r;
    printf("%d %d %x\n", errno == EAGAIN, sum > 65536, ready(p[0]));
    while (sum > 0 && (r = read(p[1], b, sizeof b)) > 0) sum -= r;
    printf("%ld %x\n", sum, ready(p[0]));
    /* Less fits where the sender said so. */
    static char large[1 << 16];
    int q[2];
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, q);
    n = 1;
    setsockopt(q[0], SOL_SOCKET, SO_SNDBUF, &n, sizeof n);
    r = write(q[0], large, sizeof large);
    printf("%d %d\n", r > 0, r < 16384);
    say("full", write(q[0], large, sizeof large));
    printf("%x\n", ready(q[0]));
    printf("%d\n", write(q[1], large, sizeof large) == sizeof large);
    while (read(q[1], large, sizeof large) > 0);
    printf("%x\n", ready(q[0]));
}
int main(void) {
    char path[100];
    signal(SIGPIPE, SIG_IGN);
    sprintf(path, "/tmp/bsdvm-test-socket-%d", getpid());
    made();
    pairs(SOCK_STREAM);
    pairs(SOCK_SEQPACKET);
    pairs(SOCK_DGRAM);
    connections("@abstract", SOCK_STREAM);
    connections(path, SOCK_STREAM);
    struct sockaddr_un a;
    socklen_t len = named(&a, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct stat st;
    stat(path, &st);
    printf("%o\n", st.st_mode & ~0777);
    say("stale", connect(fd, (void *)&a, len));
    say("occupied", bind(fd, (void *)&a, len));
    say("unlink", unlink(path));
    say("missing", connect(fd, (void *)&a, len));
    say("fresh", bind(fd, (void *)&a, len));
    unlink(path);
    connections("@packets", SOCK_SEQPACKET);
    len = named(&a, "/etc/passwd");
    say("a file", connect(fd, (void *)&a, len));
    len = named(&a, "/no/such/dir/s");
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    say("no directory", bind(fd, (void *)&a, len));
    datagrams();
    beside();
    options();
    return 0;
}
