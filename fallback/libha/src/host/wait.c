#include "host/wait.h"

#include <errno.h>
#include <unistd.h>

#include "host/thread.h"

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

static int read_now(int fd, void *buffer, size_t size, size_t *length)
{
    ssize_t got = read(fd, buffer, size);
    *length = got < 0 ? 0 : (size_t)got;
    return got < 0 ? errno : 0;
}

/* A thread that goes on after handlers can do both in one call, if there is no deadline. */
static int read_until(int fd, void *buffer, size_t size, int64_t deadline, const struct held_signals *held,
                      size_t *length)
{
    int error = 0;
    if (held->are_held || deadline != CLOCK_NEVER || !thread_goes_on()) {
        error = poll_until(fd, deadline, held);
        return error ? error : read_now(fd, buffer, size, length);
    }
    do
        error = read_now(fd, buffer, size, length);
    while (error == EINTR);
    return error;
}

int wait_and_read(int fd, void *buffer, size_t size, int64_t deadline, const struct held_signals *held,
                  const struct rescue *rescue, size_t *length)
{
    int error;
    if (!rescue->cancellable)
        return read_until(fd, buffer, size, deadline, held, length);
    pthread_cleanup_push(rescue->function, rescue->argument);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    error = read_until(fd, buffer, size, deadline, held, length);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cleanup_pop(0);
    return error;
}

int wait_a_while(int64_t span, const struct held_signals *held)
{
    struct timespec time = clock_spec(span);
    return ppoll(NULL, 0, &time, held->are_held ? &held->before : NULL) < 0 && held->are_held ? EINTR : 0;
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
