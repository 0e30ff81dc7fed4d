/*
 * The connections of this process: using one (connection.c), making and ending them by number (table.c), making those
 * anew that a fork or an exec has left (inherited.c).
 */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/recovery.h"
#include "host/runtime.h"
#include "host/vector.h"

struct lane;
struct number;
struct pulse;
struct trunk;

struct connection {
    struct number *number; /* whose lock guards what follows, as far as it changes */
    struct trunk *trunk;   /* NULL once it is detached and not in use */
    struct address address;
    int coid;
    unsigned flags;         /* _NTO_COF_... */
    off_t cookie;           /* the position of the placeholder; 0 for a side channel */
    uint64_t since;         /* when it was made */
    struct pulse *obituary; /* says that its server has gone, until it is queued (B203) */
    unsigned users;
    bool in_table;
    bool detached; /* for good; a number may still lead here, for then it stays taken (D6) */
    struct lane *lanes;
    struct lane *idle; /* the last one that was used first */
    unsigned idle_count;
    unsigned idle_least; /* so many have been idle all the time since they were counted */
    unsigned idle_surplus;
    int64_t idle_counted;
    struct lane *idle_windows;
    unsigned idle_window_count;
    int64_t large_used; /* when the last message was answered that needed a large window; 0: never */
};

/* A connection that this process was left by a fork or an exec and has not used yet (D13, B278). */
struct inherited {
    struct inherited *next; /* in the list of all, for ever */
    struct address address;
    unsigned flags;
    off_t cookie;
    bool is_copy;         /* of one of the parent; an exec copies nothing */
    int pid, coid, scoid; /* who it was in the parent */
    pthread_mutex_t reviving;
};

/* What a thread holds of a connection while it uses it. */
struct use {
    struct connection *connection;
    struct lane *lane; /* NULL if it has none yet */
};

/*
 * Finds a connection for use, with an idle lane that has a window of `window` bytes or more, if there is one. Fills in
 * `ticket`, in any case. 0; EBADF; ENOSYS for an ordinary descriptor (D32); what a server says to the copy of a
 * connection that a forked child uses for the first time.
 */
int connection_begin(int coid, uint64_t window, struct use *use, struct ticket *ticket);
/* The same, but an inherited connection is not made anew: it tells of it. */
int connection_begin_made(int coid, uint64_t window, struct use *use, struct ticket *ticket);
#define CONNECTION_INHERITED (-1) /* no errno */
/* Gives the use a new lane. 0 or an errno; EBADF if the connection was detached meanwhile. */
int connection_add_lane(struct use *use, uint64_t window, int64_t deadline);
/* Closes the lane of the use: it does not go back to the connection. */
void connection_drop_lane(struct use *use);
void connection_end(struct use *use);
/* In a forked child, which has none of its parent's lanes. */
void windows_after_fork_in_child(void);

/* Where pulses on a connection go. */
struct way {
    struct address address;
    int scoid; /* this client's, 0 until it is known */
    uint64_t since;
};
/* False if there is no such connection, or none any more. */
bool connection_way(int coid, struct way *way);
/* Under the table's lock: says of the connections to a channel of this process that it is no more. */
void connection_say_destroyed(struct address *address);
/* At the start of a program: what is called, without any lock, before a connection ends that is detached. */
void connection_before_detach(void (*function)(int coid));

/* Whether another thread has detached the connection. */
bool connection_is_detached(struct connection *connection);

/*
 * A new connection under the lowest number from `index` on, which is returned in *coid, or in place of *coid if that is
 * not negative (D6). 0 or an errno.
 */
int connection_attach(struct address *address, unsigned index, unsigned flags, int *coid);
/* Ends a connection. EBADF if there is none, or something else has its number. */
int connection_detach(int coid);
/* The same, but its number stays taken: for one that has failed to come back (D6). */
void connection_kill(int coid);
/* The host has given this number to a new descriptor: what had it before was closed behind our back. */
void connection_give_way(int coid);
/* Another connection to the same channel, from `index` on, or exactly there. */
int connection_copy(int coid, int index, bool exactly, int *copy);

/*
 * Under the table's lock and the number's, which is one of an inherited connection: that is a dead one from now on, which
 * keeps its number (D6). False if there is no memory: it is as it was.
 */
bool connection_dies_unused(struct number *number);
/* If it is an inherited connection, makes it anew. 0 or an errno. */
int connection_revive(int coid);

/* Whether a number is a connection of this library, be it alive or not. */
bool connection_is_ours(int coid);
/* Whether a number is a connection, or any other descriptor. */
bool connection_is_open(int coid);
/* 0 if its server is still there, else ESRCH; of an inherited connection that cannot be made anew, why. */
int connection_check(int coid);

/* The channel and the server's number for this client, of a connection that is alive. EBADF if it is none. */
int connection_describe(int coid, int *chid, int *scoid);

/*
 * Before another connection, or a descriptor of the host, is put under a number: whatever connection has it dies, but
 * keeps it. EBADF if something else has it.
 */
int connection_make_room(int coid);

/*
 * Puts a descriptor of the host under a number, in place of the connection or descriptor that has it. 0, or EBADF if
 * the number belongs to something else.
 */
int connection_replace(int coid, int fd);

/* Without any lock: pulses for the connections on trunks whose end the channel has heard of that wants to (B203). */
void connection_report_deaths(void);

/* A connection that nothing leads to yet; NULL if there is no memory. */
struct connection *connection_new(struct trunk *trunk, const struct address *address, unsigned flags);
void connection_free(struct connection *connection);
/* Under the table's lock and the number's: puts a connection, or none, under a number; returns what it had. */
struct connection *connection_put(struct number *number, struct connection *connection);
/* The flags of a connection under a number, of which the host may have changed one (fcntl). */
unsigned connection_flags(int coid, unsigned flags, off_t cookie);
/* How many numbers have one. */
unsigned connection_count(void);
/* False if something else has its number by now (D17). */
bool connection_has_its_number(const struct connection *connection);
/* Detaches it: no thread uses it any more but those that wait for a reply, and they are woken. */
void connection_sever(struct connection *connection, bool keep_number);
/*
 * The same, of one that has no number any more, and ends a use of it: where threads that wait do not go on waiting (B58), they
 * have left when this returns, as far as they wake in time, and are not answered any more (D132).
 */
void connection_leave(struct connection *connection);

/* At the start of a program: a connection that the one before it has left open, if it still has its number. */
void connection_inherit(int coid, const struct address *address, unsigned flags, off_t cookie);
void connection_after_fork_in_child(pid_t parent);

#endif
