/* The frames of the wire, as fallback/PROTOCOL.md describes them, in the byte order of the host. */
#ifndef WIRE_H
#define WIRE_H

#include <signal.h>
#include <stdint.h>
#include <string.h>

enum { WIRE_VERSION = 3 };
#define WIRE_MAGIC "HAQX"

/* Every frame on the trunk and every pulse has this size. */
#define TRUNK_FRAME 32
/* No frame is longer: Linux takes it into a pipe in one piece. */
#define FRAME_MAX 4096

enum frame_kind {
    FRAME_HELLO = 1,
    FRAME_WELCOME = 2,
    FRAME_REFUSED = 3,
    FRAME_LANE = 4,
    FRAME_EVENTS = 5,
    FRAME_MESSAGE = 16,
    FRAME_UNBLOCK = 17,
    FRAME_PULSE = 18,
    FRAME_MESSAGE_TELL = 19,
    FRAME_MESSAGE_EXPIRED = 20,
    FRAME_REPLY = 32,
    FRAME_ERROR = 33,
    FRAME_WRITE = 34,
    FRAME_RECEIVED = 35,
    /* Not of the wire: a client writes it to itself, to wake a thread whose connection another thread has detached. */
    FRAME_DETACHED = 0xffff,
    /* Likewise, to wake one that another thread wants to stop waiting. */
    FRAME_INTERRUPTED = 0xfffe
};

enum lane_carries { LANE_MESSAGES = 0, LANE_PULSES = 1 };

struct hello_frame {
    uint16_t kind;
    uint16_t version;
    char magic[4];
    uint32_t passes; /* 1: a file comes with it */
    uint8_t zero[20];
};

struct welcome_frame {
    uint16_t kind;
    uint16_t version;
    int32_t scoid;
    uint32_t flags;
    uint8_t zero[20];
};

struct refused_frame {
    uint16_t kind;
    uint16_t version;
    int32_t reason; /* an errno; 0: another version is spoken */
    uint8_t zero[24];
};

struct lane_frame {
    uint16_t kind;
    uint16_t carries;
    int32_t coid;
    uint64_t window;
    uint8_t zero[16];
};

struct message_frame {
    uint16_t kind;
    uint16_t priority;
    int32_t tid;
    uint64_t size;
    uint64_t room;
    uint64_t time;
};

struct unblock_frame {
    uint16_t kind;
    uint16_t zero;
    int32_t reason;
    uint8_t zeros[24];
};

struct pulse_frame {
    uint16_t kind;
    uint16_t priority;
    int32_t code;
    int32_t value;
    int32_t coid;
    uint64_t time;
    uint32_t rest; /* of an address, which begins with the value */
    uint8_t zero[4];
};

/* REPLY, ERROR, WRITE and RECEIVED. */
struct answer_frame {
    uint16_t kind;
    uint16_t zero;
    int32_t error;
    int64_t status; /* WRITE: offset */
    uint64_t length;
};

/* What a pulse carries: a number, or an address. */
static inline union sigval pulse_number(int value)
{
    union sigval number = {.sival_ptr = NULL};
    number.sival_int = value;
    return number;
}

static inline void pulse_frame_carry(struct pulse_frame *frame, union sigval value)
{
    memcpy(&frame->value, &value, sizeof frame->value);
    memcpy(&frame->rest, (const char *)&value + sizeof frame->value, sizeof frame->rest);
}

static inline union sigval pulse_frame_value(const struct pulse_frame *frame)
{
    union sigval value;
    memcpy(&value, &frame->value, sizeof frame->value);
    memcpy((char *)&value + sizeof frame->value, &frame->rest, sizeof frame->rest);
    return value;
}

_Static_assert(sizeof(struct hello_frame) == TRUNK_FRAME, "layout");
_Static_assert(sizeof(struct welcome_frame) == TRUNK_FRAME, "layout");
_Static_assert(sizeof(struct refused_frame) == TRUNK_FRAME, "layout");
_Static_assert(sizeof(struct lane_frame) == TRUNK_FRAME, "layout");
_Static_assert(sizeof(struct pulse_frame) == TRUNK_FRAME, "layout");
_Static_assert(sizeof(struct message_frame) == 32, "layout");
_Static_assert(sizeof(struct unblock_frame) == 32, "layout");
_Static_assert(sizeof(struct answer_frame) == 24, "layout");

/* What fits into a lane without a window: a message, a piece of its reply, the room for all of the reply. */
#define INLINE_SIZE (FRAME_MAX - sizeof(struct message_frame))
#define INLINE_PIECE (FRAME_MAX - sizeof(struct answer_frame))
#define INLINE_ROOM (8 * FRAME_MAX)

/* Where the reply begins in a window behind a message of this size. */
static inline uint64_t reply_start(uint64_t size)
{
    return (size + 7) & ~(uint64_t)7;
}

#endif
