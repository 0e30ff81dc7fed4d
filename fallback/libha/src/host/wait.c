#include "host/wait.h"

#include <errno.h>

#include "host/thread.h"

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};

void signals_hold(struct held_signals *held)
{
    sigset_t all;
    held->are_held = !thread_goes_on();
    if (!held->are_held)
        return;
    sigfillset(&all);
    /* What tells of a fault in what the thread does itself is for it at once. */
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_BLOCK, &all, &held->before);
}

void signals_release(struct held_signals *held)
{
    if (held->are_held)
        pthread_sigmask(SIG_SETMASK, &held->before, NULL);
    held->are_held = false;
}

static int poll_once(int fd, int64_t deadline, const struct held_signals *held)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    const sigset_t *let_through = held && held->are_held ? &held->before : NULL;
    int count;
    if (deadline == CLOCK_NEVER) {
        count = let_through ? ppoll(&entry, 1, NULL, let_through) : poll(&entry, 1, -1);
    } else {
        struct timespec time = clock_spec((int64_t)clock_until(deadline));
        count = ppoll(&entry, 1, &time, let_through);
    }
    return count > 0 ? 0 : count == 0 ? ETIMEDOUT : errno;
}

static int poll_until(int fd, int64_t deadline, const struct held_signals *held)
{
    int error;
    do
        error = poll_once(fd, deadline, held);
    while (error == EINTR && thread_goes_on());
    return error;
}

int wait_readable(int fd, int64_t deadline, const struct held_signals *held, const struct rescue *rescue)
{
    int error;
    if (!rescue->cancellable)
        return poll_until(fd, deadline, held);
    pthread_cleanup_push(rescue->function, rescue->argument);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    error = poll_until(fd, deadline, held);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cleanup_pop(0);
    return error;
}

static int await_semaphore(sem_t *semaphore, int64_t deadline)
{
    /* sem_timedwait goes by the other clock. sem_wait would start again after a handler with SA_RESTART (B230). */
    struct timespec end = clock_spec(clock_after(clock_read(CLOCK_REALTIME), clock_until(deadline)));
    int error;
    do
        error = sem_timedwait(semaphore, &end) ? errno : 0;
    while (error == EINTR && thread_goes_on());
    return error;
}

int wait_semaphore(sem_t *semaphore, int64_t deadline, const struct rescue *rescue)
{
    int error;
    if (!rescue->cancellable)
        return await_semaphore(semaphore, deadline);
    pthread_cleanup_push(rescue->function, rescue->argument);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    error = await_semaphore(semaphore, deadline);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cleanup_pop(0);
    return error;
}
