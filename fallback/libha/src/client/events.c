#include "client/events.h"

#include <pthread.h>
#include <stddef.h>

#include "client/connection.h"
#include "client/said.h"
#include "client/trunk.h"
#include "number.h"
#include "wire.h"

/* What is passed on in one go, so that no flood of events keeps a thread for ever. */
#define EVENTS_AT_ONCE 128
#define ROUNDS 64

/* One thread passes on at a time, so that the order stays. Taken before the table's lock. */
static pthread_mutex_t passing = PTHREAD_MUTEX_INITIALIZER;

static void watch_trunk(struct trunk *trunk, void *argument)
{
    (void)argument;
    trunk_watch_events(trunk);
}

int events_epoll(void)
{
    int is_new, epoll = said_epoll(&is_new);
    if (is_new)
        trunk_each(watch_trunk, NULL);
    return epoll;
}

/* Sends what a server has delivered as if it were a pulse of our own. Nobody is told what becomes of it (D91). */
static void pass_on(const struct pulse_frame *pulse)
{
    struct use use;
    struct ticket ticket;
    if (pulse->kind != FRAME_PULSE || pulse->priority < 1 || pulse->priority > 255)
        return;
    if (!connection_begin_made(pulse->coid, 0, &use, &ticket)) {
        trunk_pulse(use.connection->trunk, pulse);
        connection_end(&use);
    }
}

bool events_take(void)
{
    struct pulse_frame frames[EVENTS_AT_ONCE];
    struct trunk *ready = NULL;
    pthread_mutex_lock(&passing);
    for (int i = 0; i < ROUNDS; i++) {
        table_lock(); /* The trunk is there as long as it is held; what is passed on needs the table. */
        ready = said_ready();
        size_t count = ready ? trunk_take_events(ready, frames, EVENTS_AT_ONCE) : 0;
        table_unlock();
        if (!ready)
            break;
        for (size_t j = 0; j < count; j++)
            pass_on(&frames[j]);
    }
    pthread_mutex_unlock(&passing);
    return ready;
}

void events_after_fork_in_child(void)
{
    pthread_mutex_init(&passing, NULL);
}
