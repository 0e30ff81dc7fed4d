/* Where threads wait. They can be cancelled here, if the call is a cancellation point. */
#ifndef WAIT_H
#define WAIT_H

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/clock.h"
#include "host/signals.h"

/* What a cancelled thread does before it ends. */
struct rescue {
    bool cancellable;
    void (*function)(void *argument);
    void *argument;
};

/*
 * Waits until a descriptor is ready, and lets signals through meanwhile that are held back. 0; ETIMEDOUT at the deadline;
 * EINTR if a signal handler ran, with SA_RESTART or without (B230), unless thread_goes_on. poll starts again by itself if
 * the process was only stopped and continued.
 */
int wait_readable(int fd, int64_t deadline, const struct held_signals *held, const struct rescue *rescue);

/*
 * Waits until a descriptor is ready, and lets signals through meanwhile that are held back; then reads from it. 0 and
 * what read returned (0: the end); or an errno, of the wait or of read.
 */
int wait_and_read(int fd, void *buffer, size_t size, int64_t deadline, const struct held_signals *held,
                  const struct rescue *rescue, size_t *length);

/* Takes a pause, and lets signals through meanwhile that are held back. 0, or EINTR. */
int wait_a_while(int64_t span, const struct held_signals *held);

/* The same for a semaphore. */
int wait_semaphore(sem_t *semaphore, int64_t deadline, const struct rescue *rescue);

#endif
