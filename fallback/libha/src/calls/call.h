/* What every exported call does first and last. */
#ifndef CALL_H
#define CALL_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "host/thread.h"

#define HA_EXPORT __attribute__((visibility("default")))

/*
 * Inside the library no thread can be cancelled but where it waits for a message or a reply (wait.h): it would leave
 * locks and descriptors behind.
 */
struct call {
    int saved_errno;
    int cancel_state;
};

static inline struct call call_begin(void)
{
    struct call call = {.saved_errno = errno, .cancel_state = PTHREAD_CANCEL_ENABLE};
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &call.cancel_state);
    thread_self(); /* From its first call on, a thread has a number. */
    return call;
}

static inline bool call_cancellable(const struct call *call)
{
    return call->cancel_state == PTHREAD_CANCEL_ENABLE;
}

/* A call that fails takes the timeout with it that the thread has armed (B212). */
static inline void call_failed(void)
{
    thread_disarm(thread_self());
}

/* Plain calls return -1 and set errno; otherwise errno stays what it was. */
static inline long call_end(const struct call *call, int error, long result)
{
    pthread_setcancelstate(call->cancel_state, NULL);
    if (error)
        call_failed();
    errno = error ? error : call->saved_errno;
    return error ? -1 : result;
}

/* Calls with _r return the negative errno and leave errno alone (B2 to B5, B7). */
static inline long call_end_negative(const struct call *call, int error, long result)
{
    pthread_setcancelstate(call->cancel_state, NULL);
    if (error)
        call_failed();
    errno = call->saved_errno;
    return error ? -(long)error : result;
}

/* Some calls with _r return the errno as it is (B6). */
static inline int call_end_positive(const struct call *call, int error)
{
    pthread_setcancelstate(call->cancel_state, NULL);
    if (error)
        call_failed();
    errno = call->saved_errno;
    return error;
}

#endif
