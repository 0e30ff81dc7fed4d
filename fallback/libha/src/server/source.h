/* What a channel's epoll descriptor reports on; every event leads to one of these. */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdbool.h>
#include <stddef.h>

enum source_kind {
    SOURCE_BELL,     /* another thread wants the one that waits */
    SOURCE_LISTENER, /* a process connects */
    SOURCE_CLIENT,   /* the trunk of a client */
    SOURCE_LANE,     /* a lane that carries messages */
    SOURCE_PULSES,   /* a lane that carries pulses */
    SOURCE_WATCH,    /* a socket of this process, whose end the channel wants to hear of */
    SOURCE_ALARM,    /* a timer is due */
    SOURCE_TICKER,   /* it is time to look whether the channel can still be found */
    SOURCE_EVENTS    /* servers of this process have said something */
};

struct source {
    enum source_kind kind;
};

struct watch {
    struct source source;
    int sock;
    bool is_on;     /* under the table's lock */
    bool has_ended; /* and was heard of; under the lock of the channel that it is on */
};

#define SOURCE_OF(SOURCE, TYPE, MEMBER) ((TYPE *)(void *)((char *)(SOURCE) - offsetof(TYPE, MEMBER)))

#endif
