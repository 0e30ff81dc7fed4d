/* The server's end of a lane. */
#ifndef SERVER_LANE_H
#define SERVER_LANE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ha_posix.h"
#include "host/vector.h"
#include "server/queue.h"
#include "server/ranges.h"
#include "server/source.h"
#include "wire.h"

struct channel;
struct client;

enum lane_state {
    LANE_IDLE,     /* no message was received that is not answered */
    LANE_RECEIVED, /* the client is REPLY-blocked */
    LANE_CLOSED
};

/* The most that a client writes before it is read: an unblock frame that came too late, a message, another one. */
#define LANE_BUFFER (FRAME_MAX + 2 * sizeof(struct unblock_frame))

struct server_lane {
    /* Under the channel's lock. */
    struct source source;
    struct queued queued;
    struct server_lane *next; /* among the lanes of its client */
    struct server_lane *next_fresh;
    struct server_lane *next_touched;
    size_t queued_bytes; /* of the message that was looked at */
    bool is_fresh;
    bool is_touched;
    bool is_broken;    /* it has ended, or breaks the rules */
    bool is_withdrawn; /* an unblock frame lies behind a message that nobody has received */
    bool is_late;      /* an unblock frame lies first in it, perhaps from before its last answer */
    bool was_told;     /* that its client's trunk has ended */

    atomic_uint references;
    _Atomic(enum lane_state) state; /* changes under the lane's lock only */
    struct channel *channel;        /* until it is closed, like the client */
    struct client *client;
    int coid;
    int scoid;
    pid_t pid;

    /* Under its own lock, which is taken before the channel's. */
    pthread_mutex_t lock;
    int in; /* changes under both locks, like `out`: the channel looks at it, too */
    int out;
    bool in_is_socket;
    bool out_is_socket;
    unsigned char *window; /* NULL: it is not mapped */
    int window_fd;         /* -1: there is none, or it is mapped */
    uint64_t window_size;
    struct message_frame message;
    int rcvid;           /* of the message, while it is received */
    struct block *block; /* where the next ones are from; NULL: none were taken yet */
    size_t msglen;
    int unblock_reason;      /* 0: the client has not asked to be freed */
    struct pulse *unblock;   /* that says so, as long as it is not queued */
    bool client_gone;        /* the answer goes nowhere */
    struct written *written; /* by MsgWrite, without a window; NULL if there was never any */
    struct ranges placed;    /* by MsgWrite, in the window */
    size_t data;             /* where the message lies in the buffer */
    unsigned char buffer[LANE_BUFFER];
};

/*
 * Under the channel's lock: a new lane of a client, with descriptors that came with its LANE frame. 0; EINVAL if they are
 * not what they should be, or ENOMEM.
 */
int server_lane_add(struct client *client, const struct lane_frame *frame, const int *fds, size_t count);

void server_lane_hold(struct server_lane *lane);
void server_lane_drop(struct server_lane *lane);

/* Under the channel's lock: something happened on the lane; epoll's events. */
void server_lane_event(struct server_lane *lane, uint32_t events);
/* Under the channel's lock: looks at the messages of all fresh lanes, and queues them. */
void server_lane_look_at_fresh(struct channel *channel);
/* Under the channel's lock: takes a lane out of whatever queue it is in. */
void server_lane_unqueue(struct server_lane *lane);

/* Without the channel's lock: does what server_lane_event left to do. */
void server_lane_see_to(struct server_lane *lane);
/* Without any lock: the client has gone. */
void server_lane_lose(struct server_lane *lane);
/* Without any lock: ends it, whatever it does. */
void server_lane_end(struct server_lane *lane);

/*
 * Receives the message of a lane that was chosen. A rcvid; 0 if there is none after all; -1 if the host has no memory.
 */
int server_lane_receive(struct server_lane *lane, const struct vector *sink, struct _msg_info64 *info);

/* A message that is received and not answered. */
struct server_lane *server_lane_of(int rcvid);        /* with its lock, and held; NULL if there is none */
struct server_lane *server_lane_to_answer(int rcvid); /* the same, and nobody else will find it */
void server_lane_leave(struct server_lane *lane);

/* With the lane's lock. 0 or an errno. */
int server_lane_reply(struct server_lane *lane, int64_t status, const struct vector *data);
int server_lane_error(struct server_lane *lane, int error);
void server_lane_unblock(struct server_lane *lane, int reason); /* as if its client had asked to be freed */
int server_lane_read(struct server_lane *lane, const struct vector *sink, size_t offset, size_t *done);
int server_lane_write(struct server_lane *lane, const struct vector *data, size_t offset, size_t *done);
void server_lane_info(struct server_lane *lane, struct _msg_info64 *info);

#endif
