/* Asking a server what is ready, and to be told when it becomes so (B490 to B493). */
#include <errno.h>

#include "calls/call.h"
#include "calls/send.h"
#include "client/io_message.h"
#include "ha_posix.h"

/* 0 and what the server says, or an errno. */
static int ask(int fd, const struct io_notify *message, int *flags)
{
    /* The reply takes the place of the message, of which something is left where it is short. */
    union {
        struct io_notify message;
        struct io_notify_reply reply;
    } room = {*message};
    struct iovec out, in;
    struct request request = {.cancellable = false};
    long status = 0;
    vector_from_buffer(&request.message, &out, message, sizeof *message);
    vector_from_buffer(&request.reply, &in, &room, sizeof room);
    int error = send_covered(fd, &request, &status);
    *flags = room.reply.flags;
    return error;
}

HA_EXPORT int ionotify(int fd, int action, int flags, const struct ha_posix_sigevent *event)
{
    struct call call = call_begin();
    struct io_notify message = {.type = _IO_NOTIFY64, .combine_len = sizeof message, .action = action, .flags = flags};
    int found = 0;
    if (event)
        message.event = *event;
    int error = ask(fd, &message, &found);
    return (int)call_end(&call, error, found);
}
