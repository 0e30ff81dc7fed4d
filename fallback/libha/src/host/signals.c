#include "host/signals.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/descriptor.h"
#include "host/thread.h"

/* A handler that was installed within this time may not be known yet. To look costs a hundredth of it. */
#define LOOK_AGAIN (1 * CLOCK_MILLISECOND)
#define STATUS_FILE "/proc/self/status"
#define CAUGHT "\nSigCgt:"

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};

static sigset_t mask; /* of all that are held back */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic(int64_t) looked_at;
static atomic_bool has_handlers = true;
static atomic_int status_file = -1;

/* What tells of a fault in what the thread does itself is for it at once; SIGRTMIN and below belong to the C library. */
static bool is_held(int number)
{
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (number == faults[i])
            return false;
    return number <= 31 || number >= SIGRTMIN;
}

static void make_mask(void)
{
    sigemptyset(&mask);
    for (int number = 1; number <= SIGRTMAX; number++)
        if (is_held(number))
            sigaddset(&mask, number);
}

/* Opens the file that tells of handlers, unless another thread has meanwhile. */
static int open_status(void)
{
    int none = -1, fd = descriptor_open(AT_FDCWD, STATUS_FILE, O_RDONLY, 0);
    if (fd >= 0 && !atomic_compare_exchange_strong(&status_file, &none, fd)) {
        descriptor_close(fd);
        fd = none;
    }
    return fd;
}

/* Whether any signal that would be held back has a handler; true if that cannot be found out. */
static bool look_for_handlers(void)
{
    char text[4096];
    int fd = atomic_load(&status_file);
    if (fd < 0)
        fd = open_status();
    ssize_t length = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    text[length < 0 ? 0 : length] = '\0';
    const char *caught = strstr(text, CAUGHT);
    unsigned long long handlers = caught ? strtoull(caught + sizeof CAUGHT - 1, NULL, 16) : ~0ULL;
    bool is_interpreter = thread_interrupts_main_only();
    for (int number = 1; handlers && number <= 64; number++, handlers >>= 1)
        if (handlers & 1 && is_held(number) && !(is_interpreter && number == SIGINT))
            return true;
    return false;
}

static bool handlers_may_run(int64_t now)
{
    if (now - atomic_load_explicit(&looked_at, memory_order_relaxed) > LOOK_AGAIN) {
        atomic_store_explicit(&looked_at, now, memory_order_relaxed);
        atomic_store_explicit(&has_handlers, look_for_handlers(), memory_order_relaxed);
    }
    return atomic_load_explicit(&has_handlers, memory_order_relaxed);
}

static void hold(struct held_signals *held)
{
    pthread_once(&once, make_mask);
    pthread_sigmask(SIG_BLOCK, &mask, &held->before);
    held->are_held = true;
}

void signals_hold(struct held_signals *held, int64_t now)
{
    held->are_held = false;
    if (!thread_goes_on() && handlers_may_run(now))
        hold(held);
}

void signals_hold_all(struct held_signals *held)
{
    if (!held->are_held && !thread_goes_on())
        hold(held);
}

bool signals_hold_awake(struct held_signals *held)
{
    held->are_held = false;
    if (thread_goes_on())
        return true;
    if (handlers_may_run(clock_now()))
        return false;
    hold(held);
    return true;
}

bool signals_wait(const struct held_signals *held)
{
    sigset_t pending;
    if (!held->are_held || sigpending(&pending))
        return false;
    for (int number = 1; number <= SIGRTMAX; number++)
        if (sigismember(&pending, number) == 1 && is_held(number) && sigismember(&held->before, number) == 0)
            return true;
    return false;
}

void signals_release(struct held_signals *held)
{
    if (held->are_held)
        pthread_sigmask(SIG_SETMASK, &held->before, NULL);
    held->are_held = false;
}

void signals_after_fork_in_child(void)
{
    atomic_store(&status_file, -1); /* It was closed with all other descriptors of the library. */
    atomic_store(&looked_at, 0);
}
