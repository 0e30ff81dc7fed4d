/*
 * What a program leaves to the one that its process becomes by exec: its connections that are not close-on-exec (B278).
 *
 * The word goes by the environment, which other threads may be reading: it is changed only when there is such a
 * connection, and by default there is none (D13).
 */
#ifndef SUCCESSOR_H
#define SUCCESSOR_H

/* Under the table's lock: leaves word. */
void successor_tell(void);
/* At the start of a program: takes over what the one before it has left. */
void successor_is_told(void);

#endif
