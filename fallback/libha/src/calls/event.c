/* MsgDeliverEvent() and its kind (B155 to B157, B460 to B465). */
#include <errno.h>

#include "calls/call.h"
#include "client/connection.h"
#include "ha_posix.h"
#include "server/outlet.h"

static int deliver(int rcvid, const struct ha_posix_sigevent *event)
{
    return event ? deliver_event(rcvid, event) : EFAULT;
}

HA_EXPORT int MsgDeliverEvent(int rcvid, const struct ha_posix_sigevent *event)
{
    struct call call = call_begin();
    return (int)call_end(&call, deliver(rcvid, event), 0);
}

HA_EXPORT int MsgDeliverEvent_r(int rcvid, const struct ha_posix_sigevent *event)
{
    struct call call = call_begin();
    return call_end_positive(&call, deliver(rcvid, event));
}

/* Nothing has to be registered here: the errors are all there is of it (D93). */

HA_EXPORT int MsgRegisterEvent(struct ha_posix_sigevent *event, int coid)
{
    struct call call = call_begin();
    int error = !event ? EFAULT : coid >= 0 && coid != SYSMGR_COID && !connection_is_open(coid) ? EBADF : 0;
    return (int)call_end(&call, error, 0);
}

HA_EXPORT int MsgUnregisterEvent(const struct ha_posix_sigevent *event)
{
    struct call call = call_begin();
    return (int)call_end(&call, event ? 0 : EFAULT, 0);
}
