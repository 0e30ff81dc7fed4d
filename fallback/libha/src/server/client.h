/* A client of a channel: its trunk, from the server's side. */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "server/rcvid.h"
#include "server/source.h"
#include "wire.h"

struct channel;
struct heard;
struct server_lane;

/* A pipe with pulses. */
struct pulse_lane {
    struct pulse_lane *next;
    struct source source;
    struct client *client;
    int fd;
    bool is_socket;
    bool is_paused;
};

/* As many groups as there is room for in what ConnectClientInfo tells. */
#define IDENTITY_GROUPS 8

/* Who a client is. */
struct identity {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    size_t group_count; /* of further groups; these, and the first of them, are found by client_identify only */
    gid_t groups[IDENTITY_GROUPS];
};

/* Under its channel's lock; once it has left, under that of its scoid's number. */
struct client {
    struct client *next; /* among the clients of the channel */
    struct client *next_leaving;
    struct source source;
    struct channel *channel;
    int sock;
    int scoid; /* 0 until it has said HELLO */
    struct identity who;
    unsigned descriptors;   /* that it has here */
    bool is_leaving;        /* its trunk has ended */
    bool is_ending;         /* a thread is seeing to its lanes */
    bool must_wait;         /* with leaving, until there is memory for the pulses that it has sent */
    struct pulse *farewell; /* the disconnect pulse, until it is queued */
    bool has_left;
    struct heard *said; /* in which it says which connections it has; NULL: it gets no events */
    int outlet;         /* by which it gets them; -1 until there is one */
    struct rcvids rcvids;
    struct server_lane *lanes;
    struct pulse_lane *pulse_lanes;
    unsigned char frame[TRUNK_FRAME];
    size_t frame_length;
    int fds[3]; /* that came with it */
    size_t fd_count;
};

/* Under the channel's lock. A new client; the socket is closed if that fails. */
void client_add(struct channel *channel, int sock);
/* Under the lock: reads what the client says on its trunk. */
void client_read(struct client *client);
/* Under the lock: queues the client's pulses, up to a limit if `bounded`. */
void pulse_lane_read(struct pulse_lane *lane, bool bounded);
/* Under the lock: reads pulses that were left unread, if there is room again. */
void client_resume_pulses(struct channel *channel);
/* Under the lock: does what there was no memory for. */
void client_try_again(struct channel *channel);

/* Without any lock: ends what is left of a client whose trunk has ended. */
void client_leave(struct client *client);
/* Under the lock: it does not take what it has asked for, so its trunk is to be ended. */
void client_give_up(struct client *client);
/* Under the lock: a lane of the client's has ended. */
void client_lane_ended(struct client *client);
/* Under the lock, which it lets go of in between: ends all clients and their lanes when the channel is destroyed. */
void client_end_all(struct channel *channel);

/*
 * Of the client with a scoid. 0; EINVAL if there is none, or it has gone; EFAULT if it has gone and the channel hears of
 * that, so that its number is still taken (B72).
 */
int client_identify(int scoid, struct identity *who);

/* ConnectDetach of a client that has left (B61). 0, EINVAL if it has not, or EBADF if it is no client. */
int client_release(int scoid);
/* When a channel is destroyed: forgets all of its clients that have left. */
void client_release_all(struct channel *channel);

#endif
