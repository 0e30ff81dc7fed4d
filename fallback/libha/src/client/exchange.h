/* One message and its answer, from the client's side. */
#ifndef EXCHANGE_H
#define EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

#include "client/connection.h"
#include "host/signals.h"
#include "host/thread.h"
#include "host/vector.h"

struct exchange {
    struct use *use;
    struct thread *thread;
    const struct vector *message;
    const struct vector *reply;
    struct timeout timeout; /* for SEND and REPLY */
    bool cancellable;
    bool answered; /* the server has answered */
    long status;   /* of the reply */
    /* How things stand. */
    int64_t deadline; /* of the state that it is in */
    int64_t latest;   /* when a receiver that may wait gets no more grace */
    struct held_signals held;
    bool has_faulted;   /* the reply went where the caller has no memory (B108) */
    struct lane *outer; /* of the exchange in whose wait a signal handler has begun this one */
    int unblock_reason; /* what the server was asked to free the client with; 0: it was not */
};

/* Lets a thread give up that sends a message, as for a signal; it may be about to do something else. Never blocks. */
void exchange_interrupt(struct thread *thread);

/*
 * Sends a message and waits for the answer. 0 and a status, or an errno: EBADF, ESRCH, EINTR, ETIMEDOUT, what the
 * server gave to MsgError, what the host says.
 */
int exchange_run(struct exchange *exchange);

/* The same for a message without reply data, no timeout, no cancellation; the status is not looked at. */
int exchange_bytes(struct use *use, const void *message, size_t size);

#endif
