/* The runtime directory, where processes meet: its rooms, and the sockets of channels. */
#ifndef RUNTIME_H
#define RUNTIME_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TOKEN_SIZE 16

/* A channel of some process. */
struct address {
    pid_t pid;
    int chid;
    char token[TOKEN_SIZE + 1]; /* "" if it is not known */
};

/* All return 0 or an errno. */

/* A new address for a channel of this process. */
void address_make(struct address *address, int chid);
/* As text: "PID.CHID.TOKEN". */
#define ADDRESS_SIZE (3 * 11 + TOKEN_SIZE + 1)
void address_format(char text[ADDRESS_SIZE], const struct address *address);
bool address_parse(struct address *address, const char *text);
bool address_equal(const struct address *one, const struct address *other);

/* What a file or a socket is that was entered here: somebody may remove it, and make another one in its place. */
struct entry {
    dev_t device;
    ino_t number;
};

/* Binds a listening socket for a channel. *listener is a descriptor of the library; *entry is what others find. */
int runtime_listen(const struct address *address, int *listener, struct entry *entry);
/*
 * Whether the directory is the one where this process was entered first, be it removed or not. Else the environment, or where the
 * process works, is another by now, and what it has belongs elsewhere.
 */
bool runtime_is_where_it_was(void);
/* Whether others find it. */
bool runtime_has_channel(const struct address *address, const struct entry *entry);
/* Whether there is, at a path, what an open descriptor leads to. */
bool runtime_has_file(const char *path, int fd);
/*
 * Has the directory locked, as far as that can be had, as long as this process lives: cleaners of temporary files leave alone what
 * lies below.
 */
void runtime_keep(void);
/*
 * Says on stderr what was removed, and that it is there again, or by which errno it is not: that once, until it is. *is_lost
 * is whether it was not when that was tried last.
 */
void runtime_tell(const char *what, int error, bool *is_lost);
void runtime_remove_channel(const struct address *address);

/*
 * Connects to a channel; without a token, to any with the same numbers, and the token is stored. ESRCH if there is
 * none, EAGAIN if its backlog is full.
 */
int runtime_connect(struct address *address, int *sock);

/*
 * The path of an entry in a room of the directory, such as "names". With `make`, room and directory are made if they are
 * not there; else ENOENT if the directory is not.
 */
int runtime_entry(char path[PATH_MAX], const char *room, const char *entry, bool make);
/* How long the path of the directory is that an entry was looked for in last. */
size_t runtime_length(void);
/* Whether it was set up for several users, as was seen when an entry was looked for last. */
bool runtime_is_shared(void);
/* Whether the socket of a channel, if it is there, was made by the owner of an entry: nobody else answers for it. */
bool runtime_is_of(uid_t owner, const struct address *address);
/* Calls a function with the name of every entry of a directory, until it returns false. */
int runtime_each(const char *path, bool (*function)(const char *entry, void *argument), void *argument);

bool process_is_gone(pid_t pid);
/* Only a process itself knows its connections and timers; QNX's kernel knows everybody's (B69). 0 is this one. */
int process_check_own(pid_t pid);
/*
 * Whether it has ended or is about to: it was killed, it is in exit, it is a zombie. Costs a look into /proc; nobody who
 * meets a server that is ending should be told anything else than who meets none (B40).
 */
bool process_is_ending(pid_t pid);
/* Whether one of its threads runs or waits for a processor, where the host shows it. */
bool process_is_busy(pid_t pid);

void runtime_before_fork(void);
void runtime_after_fork(void);
void runtime_after_fork_in_child(void);

#endif
