/* The client's end of a lane: what carries one message at a time, and its reply. */
#ifndef LANE_H
#define LANE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/spin.h"
#include "wire.h"

struct trunk;

struct lane {
    struct lane *next; /* in its connection's list of all */
    struct lane *next_idle;
    int out;                    /* messages go in here */
    int in;                     /* replies come out here */
    bool is_spoilt;             /* not to be used again */
    atomic_bool is_interrupted; /* a frame of our own was put among what the server says */
    unsigned char *window;
    uint64_t window_size; /* 0: none */
    struct spinner spinner;
    size_t have; /* bytes in the buffer */
    unsigned char buffer[FRAME_MAX];
};

/*
 * Windows have sizes that are powers of two, from the smallest up to this one, so that they can be used again, and are
 * kept when their message is answered: to have the host give the memory anew costs several times what it costs to copy a
 * message into it. Memory is not held for rare larger ones, which are as large as they need to be.
 */
#define WINDOW_KEPT (UINT64_C(1) << 26)
/* Of those that are larger than this, one connection keeps one. */
#define WINDOW_LARGE (UINT64_C(1) << 24)

/* The size a window needs; 0 if a message and a reply of these sizes do without. UINT64_MAX: there is none so large. */
uint64_t lane_window_needed(uint64_t size, uint64_t room);

/* Opens a lane with a window at least this large. 0 or an errno, see trunk_pass. */
int lane_open(struct trunk *trunk, int coid, uint64_t window, int64_t deadline, struct lane **lane);
void lane_close(struct lane *lane);

/*
 * Reads a message back out of its lane, so that the server cannot receive it any more. False if the server was faster: the
 * client is REPLY-blocked. Where the lane cannot be read from this side, closing it has to do.
 */
bool lane_take_back(const struct lane *lane);
/* Wakes the thread that waits for a reply on the lane: it reads a frame of this kind. */
void lane_poke(const struct lane *lane, enum frame_kind kind);

#endif
