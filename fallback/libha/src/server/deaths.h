/*
 * What the channel with _NTO_CHF_COID_DISCONNECT or _NTO_CHF_THREAD_DEATH hears: that a server has gone which this
 * process is connected to, that a thread has ended. A process has one such channel (B24).
 */
#ifndef DEATHS_H
#define DEATHS_H

#include <stdbool.h>

#include "server/source.h"

struct pulse;

/*
 * Under the table's lock: which channel it is; 0 for none. When it has heard of ends, it calls the function, without any
 * lock, which is to say whose they are.
 */
void deaths_report_to(int chid, void (*report)(void));
int deaths_reported_to(void);

/* Under the table's lock: watches a socket, or no longer, if the channel wants to hear of servers that go. */
void deaths_watch(struct watch *watch, int sock);
void deaths_forget(struct watch *watch);
/*
 * Under the table's lock: whether it has heard of the end of this one, or would if it looked now. It tells so once.
 */
bool deaths_heard_of(struct watch *watch, bool looks);

/* Without any channel's lock: queues the pulse for a connection whose server has gone (B203, B204), which is taken over. */
void deaths_of_connection(int coid, struct pulse *pulse);
/* The same for a thread that has ended (B207). */
void deaths_of_thread(int tid);

void deaths_after_fork_in_child(void);

#endif
