#include "host/wait.h"

#include <errno.h>

#include "host/thread.h"

static int poll_once(int fd, int64_t deadline)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    int count;
    if (deadline == CLOCK_NEVER) {
        count = poll(&entry, 1, -1);
    } else {
        struct timespec time = clock_spec((int64_t)clock_until(deadline));
        count = ppoll(&entry, 1, &time, NULL);
    }
    return count > 0 ? 0 : count == 0 ? ETIMEDOUT : errno;
}

static int poll_until(int fd, int64_t deadline)
{
    int error;
    do
        error = poll_once(fd, deadline);
    while (error == EINTR && thread_goes_on());
    return error;
}

int wait_readable(int fd, int64_t deadline, const struct rescue *rescue)
{
    int error;
    if (!rescue->cancellable)
        return poll_until(fd, deadline);
    pthread_cleanup_push(rescue->function, rescue->argument);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    error = poll_until(fd, deadline);
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
