/*
 * What the numbers of this process stand for.
 *
 * A connection ID below _NTO_SIDE_CHANNEL is the number of a descriptor. All other IDs, those of channels, of side
 * channels and of clients (scoids), share one table of slots (B12); the latter two carry _NTO_SIDE_CHANNEL as well.
 *
 * A record, once made, stays for good at its place, so it is found without a lock. Its own locks guard what it points
 * to, the connection's list of lanes, and the channel as a whole.
 */
#ifndef NUMBER_H
#define NUMBER_H

#include <pthread.h>
#include <stdbool.h>

struct attachment;
struct channel;
struct client;
struct connection;
struct inherited;

struct number {
    pthread_mutex_t lock; /* taken after channel_lock, if both are */
    int id;               /* with _NTO_SIDE_CHANNEL for a slot */
    struct connection *connection;
    struct inherited *inherited;
    struct attachment *attachment;
    struct client *client;

    pthread_mutex_t channel_lock; /* of the channel under this number, whichever it is */
    struct channel *channel;
};

/* The lock of the table of connections: of the list of trunks, and of which number is which connection. */
void table_lock(void);
void table_unlock(void);

/* The record of an ID; NULL if nothing was ever there. A channel ID is found as _NTO_SIDE_CHANNEL | chid. */
struct number *number_find(int id);

/* The record of an ID, made if need be; NULL if there is no memory, or no such ID. */
struct number *number_make(int id);

/* Calls a function for every record, in the order of their IDs. */
void number_each(void (*function)(struct number *number, void *argument), void *argument);

/* The lowest free slot; -1 if all are taken. */
int slot_take(void);
/* A certain slot; false if it is taken. */
bool slot_take_exactly(int slot);
void slot_release(int slot);

/*
 * In a forked child: what a thread of the parent may have been changing can be neither used nor freed. It is kept where
 * leak checkers find it.
 */
void number_put_aside(void *what);
void number_after_fork_in_child(void);

#endif
