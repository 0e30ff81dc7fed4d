/*
 * What a program leaves to the one that its process becomes by exec: its connections that are not close-on-exec (B278).
 *
 * The word goes by the environment, which other threads may be reading: it is changed only when there is such a
 * connection, and by default there is none (D13).
 */
#ifndef SUCCESSOR_H
#define SUCCESSOR_H

#include <sys/types.h>

struct address;

/* Under the table's lock: leaves word. */
void successor_tell(void);
/* At the start of a program: calls a function for each connection that the one before it has left. */
typedef void take_over(int coid, const struct address *address, unsigned flags, off_t cookie);
void successor_is_told(take_over *function);

#endif
