/* Where threads wait. They can be cancelled here, if the call is a cancellation point. */
#ifndef WAIT_H
#define WAIT_H

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "host/clock.h"

/*
 * Signals that are held back from a thread, so that none of their handlers can run unnoticed between a message and the
 * wait for its reply: only wait_readable lets them through.
 */
struct held_signals {
    bool are_held;
    sigset_t before;
};

/* Holds them back, unless the thread goes on after a handler anyway (thread_goes_on). */
void signals_hold(struct held_signals *held);
void signals_release(struct held_signals *held);

/* What a cancelled thread does before it ends. */
struct rescue {
    bool cancellable;
    void (*function)(void *argument);
    void *argument;
};

/*
 * Waits until a descriptor is ready; `held` may be NULL. 0; ETIMEDOUT at the deadline; EINTR if a signal handler ran, with SA_RESTART or
 * without (B230), unless thread_goes_on. poll starts again by itself if the process was only stopped and continued.
 */
int wait_readable(int fd, int64_t deadline, const struct held_signals *held, const struct rescue *rescue);

/* The same for a semaphore. */
int wait_semaphore(sem_t *semaphore, int64_t deadline, const struct rescue *rescue);

#endif
