/* What ends the waits of a thread: TimerTimeout() (B208 to B227, D20), and signal handlers. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "calls/call.h"
#include "client/exchange.h"
#include "ha_posix.h"
#include "host/clock.h"
#include "host/thread.h"
#include "timers.h"

#define KNOWN_STATES (_NTO_TIMEOUT_SEND | _NTO_TIMEOUT_RECEIVE | _NTO_TIMEOUT_REPLY)

/* Arms a timeout; stores the flags of the one before. */
static int arm(clockid_t id, int flags, const struct ha_posix_sigevent *notify, const uint64_t *ntime, int *before)
{
    struct thread *thread = thread_self();
    bool absolute = flags & HA_POSIX_TIMER_ABSTIME;
    int states = flags & ~HA_POSIX_TIMER_ABSTIME;
    if (id != CLOCK_MONOTONIC && id != CLOCK_REALTIME)
        return EINVAL;
    if (states & ~KNOWN_STATES)
        return EINVAL;
    if (notify && (notify->sigev_notify & EVENT_TYPE) != (HA_POSIX_SIGEV_UNBLOCK & EVENT_TYPE))
        return ENOTSUP; /* 6.x and 8.0 have the number without its mark. Other events would not end the call (B220). */
    *before = thread->armed_flags;
    thread->armed_flags = states;
    thread->armed_nanoseconds = ntime ? *ntime : 0;
    thread->armed_is_absolute = absolute && ntime && *ntime;
    if (thread->armed_is_absolute && id == CLOCK_REALTIME) {
        int64_t late = clock_read(CLOCK_REALTIME) - clock_now();
        thread->armed_nanoseconds = *ntime > (uint64_t)late ? *ntime - (uint64_t)late : 1;
    }
    return 0;
}

HA_EXPORT int ha_posix_interrupt_main_only(int main_only)
{
    return thread_interrupt_main_only(main_only);
}

HA_EXPORT int ha_posix_unblock(pthread_t thread)
{
    struct call call = call_begin();
    thread_visit(thread, exchange_interrupt);
    return (int)call_end(&call, 0, 0);
}

/* TimerTimeout(), B208 to B227, D20. otime would matter for _NTO_TIMEOUT_NANOSLEEP only (B224). */
HA_EXPORT int TimerTimeout(clockid_t id, int flags, const struct ha_posix_sigevent *notify, const uint64_t *ntime,
                           uint64_t *otime)
{
    struct call call = call_begin();
    int before = 0;
    (void)otime;
    int error = arm(id, flags, notify, ntime, &before);
    return (int)call_end(&call, error, before);
}

HA_EXPORT int TimerTimeout_r(clockid_t id, int flags, const struct ha_posix_sigevent *notify, const uint64_t *ntime,
                             uint64_t *otime)
{
    struct call call = call_begin();
    int before = 0;
    (void)otime;
    int error = arm(id, flags, notify, ntime, &before);
    return (int)call_end_negative(&call, error, before);
}
