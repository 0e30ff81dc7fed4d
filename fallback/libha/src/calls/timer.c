/* TimerCreate() and its kind (B441 to B450), and what POSIX makes of them. */
#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

#include "calls/call.h"
#include "ha_posix.h"
#include "host/clock.h"
#include "host/runtime.h"
#include "timers.h"

static int set(int id, int flags, const struct _itimer *itime, struct _itimer *oitime)
{
    struct _itimer before;
    if (!itime)
        return EFAULT;
    int error = timers_set(id, flags & HA_POSIX_TIMER_ABSTIME, itime, &before);
    if (!error && oitime)
        *oitime = before;
    return error;
}

static int tell(int32_t pid, int id, int flags, struct _timer_info *info)
{
    if (flags)
        return EINVAL;
    int error = process_check_own(pid);
    if (error)
        return error;
    return info ? timers_info(id, info) : EFAULT;
}

HA_EXPORT int TimerCreate(clockid_t id, const struct ha_posix_sigevent *notify)
{
    struct call call = call_begin();
    int made = 0, error = timers_create(id, notify, &made);
    return (int)call_end(&call, error, made);
}

HA_EXPORT int TimerCreate_r(clockid_t id, const struct ha_posix_sigevent *notify)
{
    struct call call = call_begin();
    int made = 0, error = timers_create(id, notify, &made);
    return (int)call_end_negative(&call, error, made);
}

HA_EXPORT int TimerSettime(int id, int flags, const struct _itimer *itime, struct _itimer *oitime)
{
    struct call call = call_begin();
    return (int)call_end(&call, set(id, flags, itime, oitime), 0);
}

HA_EXPORT int TimerSettime_r(int id, int flags, const struct _itimer *itime, struct _itimer *oitime)
{
    struct call call = call_begin();
    return call_end_positive(&call, set(id, flags, itime, oitime));
}

HA_EXPORT int TimerInfo(int32_t pid, int id, int flags, struct _timer_info *info)
{
    struct call call = call_begin();
    return (int)call_end(&call, tell(pid, id, flags, info), id);
}

HA_EXPORT int TimerInfo_r(int32_t pid, int id, int flags, struct _timer_info *info)
{
    struct call call = call_begin();
    return (int)call_end_negative(&call, tell(pid, id, flags, info), id);
}

HA_EXPORT int TimerDestroy(int id)
{
    struct call call = call_begin();
    return (int)call_end(&call, timers_destroy(id), 0);
}

HA_EXPORT int TimerDestroy_r(int id)
{
    struct call call = call_begin();
    return call_end_positive(&call, timers_destroy(id));
}

/* In seconds and nanoseconds. */

static int to_nanoseconds(const struct timespec *time, uint64_t *nanoseconds)
{
    if (time->tv_sec < 0 || time->tv_nsec < 0 || time->tv_nsec >= CLOCK_SECOND)
        return EINVAL;
    *nanoseconds = (uint64_t)clock_after(time->tv_nsec, (uint64_t)time->tv_sec > INT64_MAX / CLOCK_SECOND
                                                            ? INT64_MAX
                                                            : (uint64_t)time->tv_sec * CLOCK_SECOND);
    return 0;
}

static struct itimerspec to_spec(const struct _itimer *times)
{
    return (struct itimerspec){.it_value = clock_spec((int64_t)times->nsec),
                               .it_interval = clock_spec((int64_t)times->interval_nsec)};
}

HA_EXPORT int ha_posix_timer_create(clockid_t clock, const struct ha_posix_sigevent *event, int *id)
{
    struct call call = call_begin();
    int made = 0, error = id ? timers_create(clock, event, &made) : EFAULT;
    if (!error)
        *id = made;
    return (int)call_end(&call, error, 0);
}

HA_EXPORT int ha_posix_timer_settime(int id, int flags, const struct itimerspec *value, struct itimerspec *before)
{
    struct call call = call_begin();
    struct _itimer times, old;
    int error = value ? 0 : EFAULT;
    if (!error)
        error = to_nanoseconds(&value->it_value, &times.nsec);
    if (!error)
        error = to_nanoseconds(&value->it_interval, &times.interval_nsec);
    if (!error)
        error = timers_set(id, flags & (HA_POSIX_TIMER_ABSTIME | TIMER_ABSTIME), &times, &old);
    if (!error && before)
        *before = to_spec(&old);
    return (int)call_end(&call, error, 0);
}

HA_EXPORT int ha_posix_timer_gettime(int id, struct itimerspec *value)
{
    struct call call = call_begin();
    struct _timer_info info;
    int error = value ? timers_info(id, &info) : EFAULT;
    if (!error)
        *value = to_spec(&info.otime);
    return (int)call_end(&call, error, 0);
}

HA_EXPORT int ha_posix_timer_getoverrun(int id)
{
    struct call call = call_begin();
    struct _timer_info info;
    return (int)call_end(&call, timers_info(id, &info), 0);
}

HA_EXPORT int ha_posix_timer_delete(int id)
{
    return TimerDestroy(id);
}
