#include "host/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/registry.h"

#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x100
#endif

/* More messages than a socket holds, so that reading them comes to an end though somebody may go on writing. */
#define UNREAD_MAX 1024
/* Sockets that lie in sockets: so deep does Linux let them. */
#define NESTING_MAX 5

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static struct registry registry;
/* A sealed memory file, of which every placeholder is a description of its own; -1 until it is needed. */
static int sealed = -1;
/* Given up when a descriptor is needed and there is no other; -1 if there is none. */
static int reserve = -1;

static void enter(void)
{
    pthread_mutex_lock(&gate);
}

static void leave(void)
{
    int error = errno;
    pthread_mutex_unlock(&gate);
    errno = error;
}

static void close_keeping_errno(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
}

/* The lowest number for a descriptor of the library: half of what the process may have, or of the usual 1024. */
static int floor_number(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur / 2 > 512)
        return 512;
    return (int)(limit.rlim_cur / 2);
}

/* Moves a new descriptor out of the way, if there is room, and registers it. */
static int keep(int fd)
{
    if (fd < 0)
        return -1;
    int floor = floor_number();
    if (fd < floor) {
        int high = fcntl(fd, F_DUPFD_CLOEXEC, floor);
        if (high >= 0) {
            close(fd);
            fd = high;
        }
    }
    struct stat status;
    if (fstat(fd, &status) || !registry_add(&registry, fd, status.st_ino)) {
        close(fd);
        errno = EMFILE;
        return -1;
    }
    return fd;
}

/* As many descriptors as Linux passes with one message. */
union passed {
    struct cmsghdr header;
    char room[CMSG_SPACE(253 * sizeof(int))];
};

/* Takes the descriptors out of a message that came with some: calls a function for each. */
static void each_passed(struct msghdr *message, void (*function)(int fd, void *argument), void *argument)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        size_t count = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS
                           ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int)
                           : 0;
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            function(fd, argument);
        }
    }
}

static void close_at_once(int fd, int depth);

static void close_passed(int fd, void *depth)
{
    close_at_once(fd, *(int *)depth);
}

/*
 * Takes out what lies in a socket unread, and what waits at one that listens: descriptors may be among it, and the host
 * would close them with it in its own way.
 */
static void empty(int fd, int depth)
{
    int sock;
    union passed control;
    char bytes[2048];
    shutdown(fd, SHUT_RDWR); /* From here on, nothing more can come. */
    for (int i = 0; i < UNREAD_MAX; i++) {
        struct iovec part = {bytes, sizeof bytes};
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (length < 0 || (!length && !message.msg_controllen))
            break;
        each_passed(&message, close_passed, &depth); /* Even an empty packet may have some. */
    }
    while ((sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close_at_once(sock, depth);
}

/* Closes a descriptor; one that somebody has passed must not hold up its close (SO_LINGER). */
static void close_at_once(int fd, int depth)
{
    const struct linger none = {0, 0};
    int domain = AF_UNSPEC;
    socklen_t size = sizeof domain;
    bool is_socket = !setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    if (is_socket && depth < NESTING_MAX && !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_UNIX)
        empty(fd, depth + 1);
    close(fd);
}

/* Whether a descriptor still is what it was when it was registered: the program may have closed it, and opened another. */
static bool is_still(int fd)
{
    struct stat status;
    return !fstat(fd, &status) && registry_has(&registry, fd, status.st_ino);
}

static void discard(int fd)
{
    int error = errno;
    bool is_ours = is_still(fd);
    registry_remove(&registry, fd);
    if (is_ours)
        close_at_once(fd, 0);
    errno = error;
}

static void fill_reserve(void)
{
    if (reserve < 0)
        reserve = keep(eventfd(0, EFD_CLOEXEC));
}

static int keep_pair(int ends[2])
{
    ends[0] = keep(ends[0]);
    if (ends[0] < 0) {
        close_keeping_errno(ends[1]);
        return -1;
    }
    ends[1] = keep(ends[1]);
    if (ends[1] < 0) {
        discard(ends[0]);
        return -1;
    }
    return 0;
}

int descriptor_socket(int type)
{
    enter();
    int fd = keep(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    leave();
    return fd;
}

/* Gives up the reserve, if a call has failed for want of a descriptor. Whether it is worth another try. */
static bool spend_reserve(void)
{
    bool has_one = (errno == EMFILE || errno == ENFILE) && reserve >= 0;
    if (has_one)
        discard(reserve);
    reserve = has_one ? -1 : reserve;
    return has_one;
}

int descriptor_accept(int listener)
{
    enter();
    fill_reserve();
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && spend_reserve())
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    fd = keep(fd);
    leave();
    return fd;
}

int descriptor_eventfd(void)
{
    enter();
    int fd = keep(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    leave();
    return fd;
}

int descriptor_timerfd(clockid_t clock)
{
    enter();
    int fd = keep(timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK));
    leave();
    return fd;
}

int descriptor_epoll(void)
{
    enter();
    int fd = keep(epoll_create1(EPOLL_CLOEXEC));
    leave();
    return fd;
}

int descriptor_open(int directory, const char *path, int flags, mode_t mode)
{
    enter();
    int fd = keep(openat(directory, path, flags | O_CLOEXEC, mode));
    leave();
    return fd;
}

static int sealed_file(const char *name, uint64_t size, int seals)
{
    int fd = keep(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (fd < 0)
        return -1;
    if (size > INT64_MAX || ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, seals)) {
        if (size > INT64_MAX)
            errno = ENOMEM;
        discard(fd);
        return -1;
    }
    return fd;
}

int descriptor_window(uint64_t size)
{
    enter();
    int fd = sealed_file("ha_qnx window", size, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    leave();
    return fd;
}

int descriptor_memory(void)
{
    enter();
    int fd = keep(memfd_create("ha_qnx coids", MFD_CLOEXEC));
    leave();
    return fd;
}

int descriptor_pipe(int ends[2], int flags)
{
    enter();
    int result = pipe2(ends, flags | O_CLOEXEC) ? -1 : keep_pair(ends);
    leave();
    return result;
}

int descriptor_socketpair(int ends[2], int type)
{
    enter();
    int result = socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) ? -1 : keep_pair(ends);
    leave();
    return result;
}

/* Whether one end of a socket has no name. */
static bool is_unnamed(int fd, int (*ask)(int, struct sockaddr *, socklen_t *))
{
    struct sockaddr_un name;
    socklen_t size = sizeof name;
    return !ask(fd, (struct sockaddr *)&name, &size) && name.sun_family == AF_UNIX &&
           size <= offsetof(struct sockaddr_un, sun_path);
}

static int ask_peer(int fd, struct sockaddr *name, socklen_t *size)
{
    return getpeername(fd, name, size);
}

static int ask_self(int fd, struct sockaddr *name, socklen_t *size)
{
    return getsockname(fd, name, size);
}

/* Pipes, files, and sockets without names: who passes its end of a trunk would otherwise never be seen to leave. */
static bool is_acceptable(int fd)
{
    struct stat status;
    if (fstat(fd, &status))
        return false;
    if (S_ISSOCK(status.st_mode))
        return is_unnamed(fd, ask_peer) && is_unnamed(fd, ask_self);
    return S_ISFIFO(status.st_mode) || S_ISREG(status.st_mode);
}

/* Where passed descriptors go. */
struct sink {
    int *fds;
    size_t count, room;
    bool has_more; /* more than there is room for, or some that are not acceptable */
};

static void take_passed(int fd, void *argument)
{
    struct sink *sink = argument;
    if (sink->count < sink->room && is_acceptable(fd) && (fd = keep(fd)) >= 0) {
        sink->fds[sink->count++] = fd;
        return;
    }
    sink->has_more = true;
    if (fd >= 0)
        close_at_once(fd, 0);
}

ssize_t descriptor_receive(int sock, void *bytes, size_t size, int *fds, size_t *count, enum lost *lost)
{
    union passed control;
    struct iovec part = {bytes, size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct sink sink = {.fds = fds, .room = *count};
    enter();
    ssize_t length = recvmsg(sock, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (length >= 0)
        each_passed(&message, take_passed, &sink);
    leave();
    *count = sink.count;
    *lost = length >= 0 && message.msg_flags & MSG_CTRUNC ? LOST_NO_ROOM : sink.has_more ? LOST_UNWANTED : LOST_NOTHING;
    return length;
}

int descriptor_pass(int sock, const void *frame, size_t size, const int *fds, size_t count)
{
    union passed control;
    struct iovec part = {(void *)(uintptr_t)frame, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof *fds);
        memcpy(CMSG_DATA(header), fds, count * sizeof *fds);
    }
    return sendmsg(sock, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? errno : 0;
}

ssize_t descriptor_read(int fd, bool is_socket, void *bytes, size_t size)
{
    size_t count = 0;
    enum lost lost;
    ssize_t length;
    if (!is_socket) {
        while ((length = read(fd, bytes, size)) < 0 && errno == EINTR)
            ;
        return length;
    }
    length = descriptor_receive(fd, bytes, size, NULL, &count, &lost);
    return length > 0 && lost != LOST_NOTHING ? 0 : length; /* Nobody passes descriptors there. */
}

ssize_t descriptor_put(int fd, bool is_socket, const struct iovec *parts, int count)
{
    const struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)count};
    return is_socket ? sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) : descriptor_writev(fd, parts, count);
}

int descriptor_floor(void)
{
    return floor_number();
}

void descriptor_fill_reserve(void)
{
    enter();
    fill_reserve();
    leave();
}

bool descriptor_has_reserve(void)
{
    descriptor_fill_reserve();
    return reserve >= 0;
}

int descriptor_open_surely(const char *path, int flags)
{
    enter();
    int fd = keep(open(path, flags | O_CLOEXEC));
    if (fd < 0 && spend_reserve())
        fd = keep(open(path, flags | O_CLOEXEC));
    leave();
    return fd;
}

void descriptor_close(int fd)
{
    if (fd < 0)
        return;
    enter();
    discard(fd);
    leave();
}

bool descriptor_is_still(int fd)
{
    enter();
    bool is = is_still(fd);
    leave();
    return is;
}

bool descriptor_has_ended(int sock)
{
    struct pollfd entry = {.fd = sock, .events = POLLRDHUP};
    return poll(&entry, 1, 0) > 0 && entry.revents;
}

void descriptor_renew(int fd)
{
    struct stat status;
    enter();
    if (!fstat(fd, &status))
        registry_add(&registry, fd, status.st_ino);
    leave();
}

bool descriptor_is_socket(int fd)
{
    struct stat status;
    return !fstat(fd, &status) && S_ISSOCK(status.st_mode);
}

bool descriptor_is_stream(int fd, int direction)
{
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    /* A description of its own: who has passed a pipe shares the other, and could make it blocking again. */
    if (flags >= 0 && !fstat(fd, &status) && S_ISFIFO(status.st_mode)) {
        if ((flags & O_ACCMODE) != direction)
            return false;
        char path[32];
        format_descriptor_path(path, sizeof path, fd);
        enter();
        int own = open(path, direction | O_NONBLOCK | O_CLOEXEC);
        bool is_withheld = own < 0 && errno == EACCES; /* By another user, who could make it wait. */
        bool is_own = own >= 0 && dup3(own, fd, O_CLOEXEC) == fd;
        close_keeping_errno(own);
        leave();
        /* If nobody reads from it any more, it cannot be opened, and does not block either. */
        return is_own || (!is_withheld && !fcntl(fd, F_SETFL, flags | O_NONBLOCK));
    }
    return flags >= 0 && !fstat(fd, &status) && S_ISSOCK(status.st_mode) && !fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

bool descriptor_is_file(int fd)
{
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    return !fstat(fd, &status) && S_ISREG(status.st_mode) && flags >= 0 && (flags & O_ACCMODE) == O_RDWR;
}

void descriptor_surrender(int fd)
{
    enter();
    registry_remove(&registry, fd);
    leave();
}

/* writev with SIGPIPE held back, for kernels that cannot leave it out. */
static ssize_t write_quietly(int fd, const struct iovec *parts, int count)
{
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    sigemptyset(&pending);
    sigpending(&pending);
    ssize_t length = writev(fd, parts, count);
    int error = errno;
    if (length < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE)) {
        const struct timespec now = {0, 0};
        while (sigtimedwait(&pipe_signal, NULL, &now) < 0 && errno == EINTR)
            ;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return length;
}

ssize_t descriptor_writev(int fd, const struct iovec *parts, int count)
{
#ifdef SYS_pwritev2
    static atomic_bool lacks_nosignal;
    if (!atomic_load_explicit(&lacks_nosignal, memory_order_relaxed)) {
        /* Since Linux 6.18. Where it is refused, nothing was written. */
        ssize_t length = syscall(SYS_pwritev2, fd, parts, (long)count, -1L, -1L, RWF_NOSIGNAL);
        if (length >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL))
            return length;
        if (errno != EINVAL)
            atomic_store_explicit(&lacks_nosignal, true, memory_order_relaxed);
    }
#endif
    return write_quietly(fd, parts, count);
}

ssize_t descriptor_write(int fd, const void *bytes, size_t size)
{
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    return descriptor_writev(fd, &part, 1);
}

/* A description of its own of the sealed file, for writing only, at the position `cookie`; not registered. */
static int placeholder_make(off_t cookie)
{
    char path[32];
    if (sealed < 0)
        sealed = sealed_file("ha_qnx placeholder", 0, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    if (sealed < 0)
        return -1;
    format_descriptor_path(path, sizeof path, sealed);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    /* Out of the way, or it would itself take the number that is looked for. */
    int high = fcntl(fd, F_DUPFD_CLOEXEC, floor_number());
    if (high >= 0) {
        close(fd);
        fd = high;
    }
    if (lseek(fd, cookie, SEEK_SET) != cookie) {
        close_keeping_errno(fd);
        return -1;
    }
    return fd;
}

int placeholder_place(int index, off_t cookie)
{
    int number = -1;
    enter();
    int fd = placeholder_make(cookie);
    if (fd >= 0) {
        number = fcntl(fd, F_DUPFD_CLOEXEC, index);
        close_keeping_errno(fd);
    }
    leave();
    return number;
}

bool placeholder_is(int number, off_t cookie)
{
    return lseek(number, 0, SEEK_CUR) == cookie;
}

bool descriptor_is_foreign(int number)
{
    struct stat ours, other;
    enter();
    bool is_open = !fstat(number, &other);
    bool is_placeholder = is_open && sealed >= 0 && !fstat(sealed, &ours) && ours.st_dev == other.st_dev &&
                          ours.st_ino == other.st_ino;
    leave();
    return is_open && !is_placeholder;
}

void placeholder_close(int number)
{
    enter();
    close(number);
    leave();
}

off_t placeholder_cookie(void)
{
    uint64_t cookie;
    random_bytes(&cookie, sizeof cookie);
    return (off_t)(cookie >> 2 | (uint64_t)1 << 40);
}

void random_bytes(void *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = getrandom((char *)bytes + done, size - done, 0);
        if (got > 0)
            done += (size_t)got;
        else if (errno != EINTR)
            break;
    }
    if (done < size) { /* A kernel without getrandom. Names must differ, no more: no secret hangs on them. */
        uint64_t mixed = (uint64_t)clock_now() * 0x9e3779b97f4a7c15 + (uint64_t)getpid();
        for (; done < size; done++, mixed = mixed * 6364136223846793005 + 1)
            ((unsigned char *)bytes)[done] = (unsigned char)(mixed >> 56);
    }
}

void descriptor_before_fork(void)
{
    enter();
}

void descriptor_after_fork_in_parent(void)
{
    leave();
}

void descriptor_after_fork_in_child(void)
{
    struct stat status;
    uint64_t inode;
    for (int fd; (fd = registry_take_any(&registry, &inode)) >= 0;)
        if (!fstat(fd, &status) && status.st_ino == inode)
            close(fd);
    sealed = reserve = -1;
    leave();
}
