/*
 * What keeps the entries of this process in the runtime directory: somebody who cleans up may remove them under a living
 * server. A server that waits looks now and then whether its channels, its names and its paths can still be found, and
 * enters again what is gone.
 */
#ifndef KEEPER_H
#define KEEPER_H

struct channel;

/* What looks after the names and the paths, without any lock. */
void keeper_looks_after(void (*names)(void), void (*paths)(void));
/* Under the table's lock and the channel's: has a channel that others can find look, when a thread waits there. */
void keeper_watch(struct channel *channel);
void keeper_after_fork_in_child(void);

#endif
