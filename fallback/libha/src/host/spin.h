/* Waiting awake: a thread looks again and again for a while before it sleeps (fallback/spinning.py says why and when). */
#ifndef SPIN_H
#define SPIN_H

#include <stdatomic.h>
#include <stdint.h>

/* Whether it pays for one lane or one channel; all zero at first. */
struct spinner {
    atomic_uint misses;
    atomic_uint skipped; /* so many of the next waits sleep at once */
};

/*
 * Looks until a descriptor can be read, for at most HA_QNX_SPIN_US microseconds and not beyond a deadline, if that pays;
 * not at all without that variable. 0 whether or not it can be read; EINTR if a signal handler ran that ends the
 * thread's call.
 */
int spin_on(struct spinner *spinner, int fd, int64_t deadline);

#endif
