/* Channels: what is queued on them, and the threads that wait for it. */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "host/runtime.h"
#include "host/signals.h"
#include "host/spin.h"
#include "host/thread.h"
#include "server/queue.h"
#include "server/source.h"

/* So many pulses are queued; the others wait where they come from. */
#define PULSES_MAX 65536
/* So many are taken in at once, and a channel keeps the memory of so many. */
#define PULSES_AT_ONCE 128

struct client;
struct number;
struct server_lane;

struct pulse {
    struct queued queued;
    int priority; /* which its receiver takes over; it is queued by another if it comes before everything else */
    int8_t code;
    union sigval value;
    int32_t scoid;
};

/* A thread in MsgReceive or MsgReceivePulse that waits for another thread, the leader, to take in what arrives. */
struct receiver {
    struct receiver *newer, *older;
    bool pulses_only;
    bool is_waiting;
    bool is_called; /* something is there for it */
    /* Nothing is held back before it has been woken for nothing: that would cost each message two system calls. */
    struct held_signals held;
    sem_t wake;
};

/* From the first to the last thread that began to wait. */
struct receivers {
    struct receiver *oldest, *newest;
};

/* All members are under the channel's lock, that of its number. */
struct channel {
    struct number *number;
    int chid;
    unsigned flags;
    struct address address;
    unsigned users; /* threads inside, and the table */
    bool destroyed;

    int epoll;
    struct spinner spinner; /* of the leader */
    int bell;
    int listener; /* -1: private */
    int peek[2];  /* a pipe, to look at messages in lanes */
    struct source bell_source;
    struct source listener_source;
    struct entry entry; /* of the listener in the runtime directory */
    bool is_lost;       /* it was removed there, and could not be made again */

    struct client *clients;
    bool must_accept;          /* processes wait that the host had no descriptors for */
    struct queue messages;     /* of lanes, whose message was looked at */
    struct server_lane *fresh; /* lanes with something that was not */
    unsigned fresh_count;
    struct queue pulses;
    struct pulse *spares; /* by queued.next */
    size_t spare_count;
    bool is_short; /* something waits for memory */
    uint64_t arrivals;
    unsigned paused; /* lanes whose pulses are left unread for now */

    /* What the intake leaves to be done without the lock. */
    struct server_lane *touched;
    struct client *leaving;
    bool has_deaths;
    void (*report_deaths)(void); /* set before it can have any */

    /* Events that servers deliver to this process, whichever channel they are for; set before it can have any. */
    bool has_events;
    int events; /* what reports on them */
    struct source events_source;
    bool (*take_events)(void); /* passes them on, without any lock; whether there may be more */

    /* What is entered in the runtime directory; set before it has to be looked after. */
    bool must_look;
    struct source ticker_source;
    void (*look)(void); /* without any lock */

    /* Timers whose pulses come here; set before it can have any. */
    bool has_due;
    void (*queue_due)(struct channel *channel); /* queues the pulses that are due */
    void (*end_home)(struct channel *channel);

    struct receiver *leader;  /* waits in poll for something to arrive */
    struct receiver *watcher; /* in MsgReceivePulse, see receivers.c */
    bool was_left;            /* a thread has left MsgReceive since the watcher has looked */
    struct receivers receivers;
    struct receivers pulse_receivers;
    unsigned called; /* receivers that are awake, but did not yet look */
};

/* Finds a channel of this process and takes its lock; NULL if there is none. */
struct channel *channel_enter(int chid);
void channel_lock(struct channel *channel);
void channel_unlock(struct channel *channel);

/* Whether there is this channel in this process, as far as can be told without its lock. */
bool channel_is_there(const struct address *address);

/* One that is not queued; NULL if there is no memory. */
struct pulse *pulse_new(void);
/* Under the lock: sees to the memory for pulses of others; for how many there is some. */
size_t channel_make_room(struct channel *channel, size_t wanted);
/* Under the lock, and if there is room: queues a pulse of somebody's, who has sent it at a time. */
void channel_add_pulse_of(struct channel *channel, int code, union sigval value, int scoid, int priority,
                          uint64_t time);
/* Under the lock: queues a pulse of the library's own, whose memory was there before it had to be sent. */
void channel_add_pulse(struct channel *channel, struct pulse *pulse, int code, int value, int scoid, int priority);
/* The same without it. */
void channel_send_pulse(struct channel *channel, struct pulse *pulse, int code, int value, int scoid, int priority);
/* Under the lock: takes an unblock pulse that nobody has received out of the queue (B135, B189); NULL if there is none. */
struct pulse *channel_withdraw_unblock(struct channel *channel, int rcvid);
/* Under the lock: keeps the memory of a pulse that was received, or gives it back. */
void channel_free_pulse(struct channel *channel, struct pulse *pulse);
/*
 * Under the lock: calls the threads that something is there for, and sees to it that one of those that wait is the
 * leader. `self` is the thread that calls this, if it waits itself.
 */
void channel_dispatch(struct channel *channel, const struct receiver *self);
/* Under the lock: takes in what has arrived. */
void channel_take_in(struct channel *channel);
/* Under the lock: takes in those that want to connect. */
void channel_accept(struct channel *channel);
/* Under the lock: lets epoll report on a descriptor. */
bool channel_watch(struct channel *channel, int fd, struct source *source, uint32_t events);
/* Under the lock, which it lets go of: ends the use of a channel, for which `users` was increased. */
void channel_leave(struct channel *channel);

/* What MsgReceive or MsgReceivePulse gets: one of the two. The lane is held. */
struct arrival {
    bool is_pulse;
    struct pulse pulse;
    struct server_lane *lane;
    bool takes_priority; /* the thread takes over the priority of what it receives (B30) */
};

/*
 * Waits for a message or a pulse, or for a pulse only. 0; ESRCH if there is no such channel, or none any more; EINTR;
 * ETIMEDOUT.
 */
int channel_wait(int chid, bool pulses_only, const struct timeout *timeout, bool cancellable, struct arrival *arrival);

/* Under the table's lock. 0 or an errno. */
int channel_create(unsigned flags, int *chid);
int channel_destroy(int chid);
/* Completes the address of a channel of this process; false if there is none like that. */
bool channel_address(int chid, struct address *address);
/* Whether a thread of this process waits for a message on the channel; false if it is none of this process. */
bool channel_is_waited_on(const struct address *address);
/* Takes in what has arrived at a channel of this process, if it is one. Without any lock. */
void channel_hear(const struct address *address);
/* Hands a trunk over inside the process; false if the channel is gone, and the socket is closed. */
bool channel_adopt(const struct address *address, int sock);

/* Under the lock: sees to it that others can find a channel, if they are to. */
void channel_keep(struct channel *channel);

/* At the end of the process, removes what others could find. */
void channel_at_exit(void);

#endif
