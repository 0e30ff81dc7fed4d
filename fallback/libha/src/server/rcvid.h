/* Which rcvid stands for which lane. A number is not used again before two thousand million others (D16). */
#ifndef RCVID_H
#define RCVID_H

struct block;
struct client;
struct server_lane;

/*
 * A lane takes its rcvids from blocks of numbers, each twice as large as the one before: so a few blocks tell whose message
 * it was that had a rcvid, also when it is answered (B155).
 */

/* What a client has of them. */
struct rcvids {
    struct client *client;
    int chid;
    struct block *blocks, *spare;
};

/* A new rcvid for a lane, which is held by it, from its block or another one of its client; 0 if there is no memory. */
int rcvid_make(struct server_lane *lane, struct block **block, struct rcvids *rcvids);
/* The lane of a rcvid, held; NULL if there is none. */
struct server_lane *rcvid_find(int rcvid);
/* The same, and it is forgotten: what held the lane goes to the caller. */
struct server_lane *rcvid_take(int rcvid);

/* The client whose message had a rcvid, and its channel's number; NULL if it has gone. Safe under the channel's lock. */
struct client *rcvid_client(int rcvid, int *chid);
/* Under the channel's lock: a lane has ended, and its block is for others of the client. */
void rcvid_spare(struct rcvids *rcvids, struct block *block);
/* Under the channel's lock: a client has gone. */
void rcvid_forget(struct rcvids *rcvids);

/* At the start of the process: they begin anywhere, so that nobody else can guess them. */
void rcvid_start(void);
void rcvid_after_fork_in_child(void);

#endif
