/* Device commands (B480 to B484). */
#include <errno.h>
#include <limits.h>

#include "calls/call.h"
#include "calls/send.h"
#include "client/io_message.h"
#include "ha_posix.h"

#define TO_SERVER 0x80000000u
#define FROM_SERVER 0x40000000u

/* 0 and what the server says, or an errno. */
static int command(int fd, uint32_t dcmd, void *data, size_t bytes, long *status, int *info)
{
    if (bytes > INT_MAX)
        return EINVAL;
    struct io_devctl message = {_IO_DEVCTL, sizeof message, dcmd, (uint32_t)bytes, 0};
    struct io_devctl_reply reply = {0};
    struct iovec out[2] = {{&message, sizeof message}, {data, bytes}}, in[2] = {{&reply, sizeof reply}, {data, bytes}};
    struct request request = {.cancellable = false};
    int error = vector_from_parts(&request.message, out, dcmd & TO_SERVER ? 2 : 1);
    if (!error)
        error = vector_untouched(vector_from_parts(&request.reply, in, dcmd & FROM_SERVER ? 2 : 1), &request.reply);
    if (!error)
        error = send_covered(fd, &request, status);
    *info = reply.ret_val;
    return error;
}

/* devctl() returns its errno, and leaves errno alone. */
HA_EXPORT int devctl(int fd, int dcmd, void *data, size_t bytes, int *info)
{
    struct call call = call_begin();
    long status = 0;
    int told = 0, error = command(fd, (uint32_t)dcmd, data, bytes, &status, &told);
    if (!error && info)
        *info = told;
    return call_end_positive(&call, error == ENOSYS ? ENOTTY : error ? error : (int)-status);
}
