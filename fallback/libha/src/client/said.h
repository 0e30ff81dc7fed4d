/*
 * What this process says of its connections to servers that deliver events (PROTOCOL.md), and what reports that one has
 * delivered something.
 */
#ifndef SAID_H
#define SAID_H

/* What it says of a number. */
enum said { SAID_NO_CONNECTION = 0, SAID_CONNECTION = 1, SAID_CHANNEL_GONE = 2 };

/* Under the table's lock: the file that says so, which is there from the first trunk on; -1 if there is no room. */
int said_file(void);
/* Under the table's lock. */
void said_say(int coid, enum said state);
/* Where the byte of a number lies in such a file. */
long said_place(int coid);

/* Under the table's lock: what can be read when a server has said something; -1 and errno. *is_new: it was made now. */
int said_epoll(int *is_new);
/* Lets it report on a descriptor of a trunk, if it is there, or no longer. */
void said_watch(void *trunk, int fd);
void said_forget(int fd);
/* The trunk that it reports on first; NULL if it reports nothing. */
void *said_ready(void);

void said_after_fork_in_child(void);

#endif
