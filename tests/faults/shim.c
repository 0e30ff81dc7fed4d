/* A library to preload: counts the calls of the C library that a process makes, and kills it at the n-th, or fails that.

   Both twins make these calls, CPython's modules and libha_posix alike. What to do stands in a page of memory that the
   process shares with whoever attacks it, who reads there how far it came.

   Here, each call has six arguments, of which the real one takes its own. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* shim.py reads the names from these lists. Of the second, glibc has one with a 64 behind it, too. */
/* clang-format off */
#define CALLS(X) \
    X(accept4) X(bind) X(connect) X(dup) X(dup2) X(dup3) X(epoll_create1) X(epoll_ctl) X(epoll_wait) X(eventfd) \
    X(flock) X(getpeername) X(getrandom) X(getsockname) X(getsockopt) X(ioctl) X(listen) X(memfd_create) X(mkdir) \
    X(pipe2) X(poll) X(ppoll) X(read) X(recv) X(recvmsg) X(rename) X(rmdir) X(send) X(sendmsg) X(setsockopt) \
    X(shutdown) X(socket) X(socketpair) X(tee) X(timerfd_create) X(timerfd_settime) X(unlink) X(write) X(writev)
#define CALLS64(X) \
    X(fcntl) X(fstat) X(ftruncate) X(lseek) X(lstat) X(mmap) X(open) X(openat) X(pread) X(pwrite) X(stat)
#define CALLS_OF_DIRECTORIES(X) X(fdopendir) X(opendir)
#define CALLS_OF_MEMORY(X) X(calloc) X(malloc) X(realloc)
/* clang-format on */

#define NUMBER(name) NR_##name,
enum { CALLS(NUMBER) CALLS64(NUMBER) CALLS_OF_DIRECTORIES(NUMBER) CALLS_OF_MEMORY(NUMBER) NR_close, NR_ALL };

enum { IDLE, COUNT, KILL, FAIL };

/* Plan of shim.py. */
static struct plan {
    int32_t action;
    int32_t pid;  /* Its calls count, those of its children do not. */
    int32_t call; /* Which one, or -1 for any. */
    int32_t nth;
    int32_t error;
    _Atomic int32_t met; /* so many that could be the n-th */
    _Atomic int32_t fired;
    _Atomic int32_t counts[NR_ALL];
} *plan;

/* Where the code of libha_posix lies: of memory, only what that asks for fails. */
static uintptr_t library_begin, library_end;

static int find_library(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size, (void)argument;
    for (int i = 0; strstr(info->dlpi_name, "libha_posix") && i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            library_begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            library_end = library_begin + info->dlpi_phdr[i].p_memsz;
        }
    return 0;
}

void shim_use(void *page)
{
    dl_iterate_phdr(find_library, NULL);
    plan = page;
}

/* Most commands of fcntl cannot fail; and memory that is no file's is asked for by the interpreter, not by us. */
static int can_fail(int call, long second, long fifth)
{
    if (call == NR_mmap)
        return (int)fifth >= 0;
    return call != NR_fcntl || second == F_DUPFD || second == F_DUPFD_CLOEXEC || second == F_SETPIPE_SZ;
}

/* Nobody gets EAGAIN from a descriptor that blocks. */
static int can_say_again(int call, long fd, long third, long fourth)
{
    if ((call == NR_recvmsg || call == NR_sendmsg) && third & MSG_DONTWAIT)
        return 1;
    if ((call == NR_recv || call == NR_send) && fourth & MSG_DONTWAIT)
        return 1;
    return (syscall(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK) != 0;
}

static int moves_data(int call)
{
    return call == NR_read || call == NR_write || call == NR_writev || call == NR_recv || call == NR_recvmsg ||
           call == NR_send || call == NR_sendmsg;
}

/* Count a call; whether it shall fail. */
static int is_to_fail(int call, long first, long second, long third, long fourth, long fifth)
{
    if (!can_fail(call, second, fifth) || !plan || plan->action == IDLE || plan->pid != syscall(SYS_getpid))
        return 0;
    atomic_fetch_add(&plan->counts[call], 1);
    if (plan->action == COUNT || (plan->call >= 0 && plan->call != call))
        return 0;
    if (plan->error == EAGAIN && moves_data(call) && !can_say_again(call, first, third, fourth))
        return 0;
    if (atomic_fetch_add(&plan->met, 1) + 1 != plan->nth)
        return 0;
    atomic_store(&plan->fired, call + 1);
    if (plan->action == KILL)
        syscall(SYS_kill, plan->pid, SIGKILL);
    return 1;
}

#define PARAMETERS long a, long b, long c, long d, long e, long f

#define WRAP_SYMBOL(symbol, number, failed, close_first)            \
    long shim_##symbol(PARAMETERS) __asm__(#symbol);                \
    long shim_##symbol(PARAMETERS)                                  \
    {                                                               \
        static long (*real)(PARAMETERS);                            \
        if (!real)                                                  \
            real = (long (*)(PARAMETERS))dlsym(RTLD_NEXT, #symbol); \
        if (!is_to_fail(number, a, b, c, d, e))                     \
            return real(a, b, c, d, e, f);                          \
        if (close_first)                                            \
            real(a, b, c, d, e, f);                                 \
        errno = plan->error;                                        \
        return failed;                                              \
    }
#define WRAP(name) WRAP_SYMBOL(name, NR_##name, -1, 0)
#define WRAP64(name) WRAP(name) WRAP_SYMBOL(name##64, NR_##name, -1, 0)
#define WRAP_DIRECTORY(name) WRAP_SYMBOL(name, NR_##name, 0, 0)

static int has_no_memory(int call, void *caller)
{
    int is_ours = (uintptr_t)caller >= library_begin && (uintptr_t)caller < library_end;
    /* It is no call of the host's, at which somebody would be killed. */
    if (!is_ours || !plan || plan->action == KILL || !is_to_fail(call, 0, 0, 0, 0, 0))
        return 0;
    errno = ENOMEM;
    return 1;
}

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

void *malloc(size_t size)
{
    return has_no_memory(NR_malloc, __builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return has_no_memory(NR_calloc, __builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return has_no_memory(NR_realloc, __builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}

CALLS(WRAP)
CALLS64(WRAP64)
CALLS_OF_DIRECTORIES(WRAP_DIRECTORY)
/* What close fails to say, it has done all the same. */
WRAP_SYMBOL(close, NR_close, -1, 1)
WRAP_SYMBOL(preadv64v2, NR_pread, -1, 0)
WRAP_SYMBOL(pwritev64v2, NR_pwrite, -1, 0)
