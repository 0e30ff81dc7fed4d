/* Time, as the wire and timeouts count it: nanoseconds of CLOCK_MONOTONIC. */
#ifndef CLOCK_H
#define CLOCK_H

#include <errno.h>
#include <stdint.h>
#include <time.h>

#define CLOCK_SECOND INT64_C(1000000000)
#define CLOCK_MILLISECOND INT64_C(1000000)
#define CLOCK_NEVER INT64_MAX

static inline int64_t clock_read(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return now.tv_sec * CLOCK_SECOND + now.tv_nsec;
}

static inline int64_t clock_now(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

/* A point of time that lies `span` after another, or CLOCK_NEVER if that is beyond all time. */
static inline int64_t clock_after(int64_t start, uint64_t span)
{
    return span >= (uint64_t)(CLOCK_NEVER - start) ? CLOCK_NEVER : start + (int64_t)span;
}

/* How long it is until a point of time; 0 if it has passed. */
static inline uint64_t clock_until(int64_t time)
{
    int64_t now = clock_now();
    return time > now ? (uint64_t)(time - now) : 0;
}

static inline struct timespec clock_spec(int64_t time)
{
    return (struct timespec){.tv_sec = time / CLOCK_SECOND, .tv_nsec = time % CLOCK_SECOND};
}

/* 0, or EINTR if a signal handler ran meanwhile. */
static inline int clock_sleep(int64_t span)
{
    struct timespec time = clock_spec(span);
    return nanosleep(&time, NULL) ? EINTR : 0;
}

#endif
