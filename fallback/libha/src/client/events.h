/* Events that servers deliver to this process: they are passed on as pulses of its own. */
#ifndef EVENTS_H
#define EVENTS_H

#include <stdbool.h>

/* Under the table's lock: what can be read when there may be some, for channels to watch. -1 and errno. */
int events_epoll(void);

/* Without any lock: passes on what has come; whether there may be more. */
bool events_take(void);

void events_after_fork_in_child(void);

#endif
