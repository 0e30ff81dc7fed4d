/* Which rcvid stands for which lane. A number is not used again before two thousand million others (D16). */
#ifndef RCVID_H
#define RCVID_H

struct server_lane;

/* A new rcvid for a lane, which is held by it; 0 if there is no memory. */
int rcvid_make(struct server_lane *lane);
/* The lane of a rcvid, held; NULL if there is none. */
struct server_lane *rcvid_find(int rcvid);
/* The same, and it is forgotten: what held the lane goes to the caller. */
struct server_lane *rcvid_take(int rcvid);

/* At the start of the process: they begin anywhere, so that nobody else can guess them. */
void rcvid_start(void);
void rcvid_after_fork_in_child(void);

#endif
