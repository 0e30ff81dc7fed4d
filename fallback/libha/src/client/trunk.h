/*
 * The client's trunks: one stream socket to every channel that this process is connected to.
 *
 * To the server, the trunk is the client. All connections to a channel share one; a connection with _NTO_COF_NOSHARE
 * has its own at first; a later one without may share it.
 */
#ifndef TRUNK_H
#define TRUNK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/runtime.h"
#include "server/source.h"
#include "wire.h"

struct trunk {
    struct trunk *next; /* in the list of all; under the table's lock, like the next ones */
    unsigned references;
    bool shared;
    struct watch watch; /* by the channel that wants to hear of its end */
    struct address address;
    int sock;
    atomic_bool dead;
    atomic_int pulses; /* the end that pulses go into; -1 until there is one */

    pthread_mutex_t lock; /* of what follows */
    bool is_welcome;
    int scoid;
    uint32_t channel_flags;
    unsigned char news[TRUNK_FRAME];
    size_t news_length;
    int passed; /* a descriptor that came with the frame; 0: none */
    int inlet;  /* by which events come; -1: none did yet */
    bool pulses_enlarged;
    unsigned refusals; /* of what it has asked for since it was welcome; or before */
    int refusal;       /* the reason of the last one */
    atomic_bool pulses_refused;
};

/*
 * Finds a trunk to a channel, an existing one if `shared`, and calls a function with it, all under the table's lock.
 * Waits if the server's backlog is full: ETIMEDOUT when a timeout for SEND-blocked ends that, EINTR if a signal handler does
 * (D126). The reference to the trunk goes to the function, unless that returns an errno. 0, what the function returns, or an
 * errno. `address` may lack its token.
 */
int trunk_use(struct address *address, bool shared, int (*use_it)(struct trunk *trunk, void *argument), void *argument);
/* Under the table's lock. */
void trunk_hold(struct trunk *trunk);
/* Without it: closes the trunk if nobody uses it any more. */
void trunk_release(struct trunk *trunk);

/* Reads what the server has said, without waiting; whether it is still there. */
bool trunk_is_alive(struct trunk *trunk);
/* The errno with which the server has refused what has just ended; 0 if it has not, or is gone itself. */
int trunk_refusal(struct trunk *trunk);
/* The flags of the channel, as far as they are known. */
uint32_t trunk_channel_flags(struct trunk *trunk);
/* The server's number for this client; 0 until it is known (D28). */
int trunk_scoid(struct trunk *trunk);

/*
 * Passes the far ends of a lane to the server, trying until `deadline` if the host takes no more. 0, EBADF if the
 * server is gone, ETIMEDOUT, EINTR, EAGAIN.
 */
int trunk_pass(struct trunk *trunk, const struct lane_frame *frame, const int *ends, int count, int64_t deadline);

/* Sends a pulse. 0, EBADF, EAGAIN and what opening a lane can say. */
int trunk_pulse(struct trunk *trunk, const struct pulse_frame *pulse);

/* Under the table's lock: lets events.c hear of what the server says. */
void trunk_watch_events(struct trunk *trunk);
/* Under the table's lock: hears what the server says, and takes some of the events that it has delivered. */
size_t trunk_take_events(struct trunk *trunk, struct pulse_frame *frames, size_t most);

/* Under the table's lock: calls a function for every trunk. */
void trunk_each(void (*function)(struct trunk *trunk, void *argument), void *argument);

/* Under the table's lock: there is a channel now that wants to hear of the end of each; there will be none. */
void trunk_watch_all(void);
void trunk_forget_all(void);

/* Under the table's lock, before a fork: what servers have said is for the child to know, too. */
void trunk_hear_all(void);
void trunk_after_fork_in_child(void);

#endif
