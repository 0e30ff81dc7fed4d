#include "host/spin.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "host/clock.h"
#include "host/signals.h"

#define VARIABLE "HA_QNX_SPIN_US"
/* The most that it may say. */
#define SPIN_MAX 10000
/* After looking in vain, so many waits at most sleep at once. */
#define SKIPPED 64

static int64_t nanoseconds;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_variable(void)
{
    const char *text = getenv(VARIABLE);
    char *end;
    unsigned long value = text && *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
    if (value && value <= SPIN_MAX && !*end)
        nanoseconds = (int64_t)value * 1000;
}

/* With one processor, looking keeps from running whom it waits for. */
static bool has_processors(void)
{
    cpu_set_t set;
    return !sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) > 1;
}

static bool can_be_read(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    return poll(&entry, 1, 0) > 0;
}

static bool look(int fd, int64_t deadline)
{
    int64_t end = clock_now() + nanoseconds;
    while (clock_now() < (end < deadline ? end : deadline))
        if (can_be_read(fd))
            return true;
    return false;
}

static void count(struct spinner *spinner, bool paid)
{
    unsigned misses = paid ? 0 : atomic_load_explicit(&spinner->misses, memory_order_relaxed) + 1;
    atomic_store_explicit(&spinner->misses, misses, memory_order_relaxed);
    atomic_store_explicit(&spinner->skipped, paid ? 0 : misses < 6 ? 1U << misses : SKIPPED, memory_order_relaxed);
}

/* Whether this wait is one that sleeps at once. */
static bool is_skipped(struct spinner *spinner)
{
    unsigned skipped = atomic_load_explicit(&spinner->skipped, memory_order_relaxed);
    if (!skipped)
        return false;
    skipped--;
    atomic_store_explicit(&spinner->skipped, skipped || has_processors() ? skipped : SKIPPED, memory_order_relaxed);
    return true;
}

int spin_on(struct spinner *spinner, int fd, int64_t deadline)
{
    struct held_signals held;
    pthread_once(&once, read_variable);
    if (!nanoseconds || is_skipped(spinner) || !signals_hold_awake(&held))
        return 0;
    bool paid = look(fd, deadline), was_interrupted = !paid && signals_wait(&held);
    signals_release(&held);
    count(spinner, paid);
    return was_interrupted ? EINTR : 0;
}
