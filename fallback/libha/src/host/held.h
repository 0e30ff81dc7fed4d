/*
 * Files of the runtime directory that stand for a name or a path. Each is locked by its owner as long as that lives.
 */
#ifndef HELD_H
#define HELD_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* All return 0 or an errno. */

/*
 * Where a room keeps what stands for the first `length` bytes of a name: percent-encoded, in pieces that are not longer
 * than what a host allows for a file, with `end` behind the last one. All but the last are directories. With `make`, the
 * room is made if need be.
 */
int held_path(char path[PATH_MAX], const char *room, const char *name, size_t length, const char *end, bool make);
/* Makes the directories that lie between the room and the last piece. EACCES: one of them is another user's. */
int held_make_directories(char *path);

/*
 * Opens a file, making it if it is not there, and locks it: it is this process's until the descriptor is closed. EEXIST
 * if somebody else has it, EAGAIN if it was removed meanwhile, EACCES if another user may have it, or has left it.
 */
int held_take(const char *path, int *fd);
/* Writes what a file that was taken stands for, in place of what it holds. */
int held_write(int fd, const char *text);
/* Lets other users read it, where there are any. */
int held_show(const char *path, const char *text);
/* Removes it for everybody. */
void held_remove(const char *path);
/* Removes what a dead owner has left, unless the file says something else by now: then a successor has taken it. */
void held_remove_left(const char *path, const char *text);
/* What a file says, and to which user it belongs. */
int held_read(const char *path, char *text, size_t size, uid_t *owner);

/*
 * Whether a file's owner lives: looked at by a shared lock, so that nobody who looks is taken for the owner. False if
 * there is no such file; true if it is another user's, who lets nobody try. With `remove`, the file of an owner that does not live is removed.
 */
bool held_by_the_living(const char *path, bool remove);

#endif
