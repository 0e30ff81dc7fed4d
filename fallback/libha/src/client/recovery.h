/*
 * Which connections are HA-aware, and when to recover them.
 *
 * A call on an HA-aware connection that fails with EBADF or ESRCH has lost its server (B361, B362). The recovery
 * function is called, by one thread at a time (D9), and if it returns the connection's own number, the call is made
 * again.
 */
#ifndef RECOVERY_H
#define RECOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "ha_posix.h"

struct attachment;
struct number;

/*
 * What a call reads before it is made. A generation is a number that no other attachment has, and that an attachment
 * changes with every recovery: so a thread can tell whether its failure is older than the last recovery.
 */
struct ticket {
    uint64_t generation; /* 0: the connection does not recover, for this thread */
    bool answered;       /* the server has answered */
};

void ticket_read(struct ticket *ticket, int coid);
/* The same under the number's lock. */
void ticket_read_locked(struct ticket *ticket, const struct number *number);

/* Whether a call that has failed with this error is to be made again; recovers the connection if need be. */
bool recover(int coid, const struct ticket *ticket, int error);
/* Starts the count of HA_RECOVERY_ICOUNT anew. */
void recovery_got_through(int coid, const struct ticket *ticket);

/* These return 0 or an errno. */
int attachment_check(RFp function, unsigned flags);
/* Of a number that is open, with arguments that are checked. */
int attachment_attach(int coid, RFp function, void *handle, unsigned flags);
int attachment_detach(int coid);
int attachment_share(int coid, int duplicate);
int attachment_control(int coid, int command, int limit);
bool attachment_exists(int coid);

/*
 * Ends the attachment of a number whose connection ends or that is another's now (D24): not inside its own recovery
 * function. Returns it for attachment_give_back or attachment_drop; NULL if there is none.
 */
struct attachment *attachment_take(int coid);
void attachment_give_back(int coid, struct attachment *attachment);
void attachment_drop(struct attachment *attachment);

void recovery_after_fork_in_child(void);

#endif
