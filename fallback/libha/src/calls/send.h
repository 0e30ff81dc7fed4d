/* Messages on connections: plain, and covered by recovery. */
#ifndef SEND_H
#define SEND_H

#include <stdbool.h>
#include <stddef.h>

#include "client/recovery.h"
#include "host/vector.h"

/* A message and the reply to it, on whatever connection. */
struct request {
    struct vector message;
    struct vector reply;
    bool cancellable;
};

/* MsgSend without recovery. 0 and a status, or an errno. Fills in the ticket. */
int send_plain(int coid, const struct request *request, struct ticket *ticket, long *status);

/* The same with recovery: the cover. */
int send_covered(int coid, const struct request *request, long *status);

/* A message of the library's own, without reply data, without recovery. */
int send_bytes(int coid, const void *message, size_t size, long *status);

struct io_connect;
/* An _IO_CONNECT message, with the path that it speaks of. *answered: what is returned is what the server says. */
int send_connect(int coid, const struct io_connect *message, const char *path, bool *answered, long *status);

#endif
