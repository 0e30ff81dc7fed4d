/*
 * Who may come in: a runtime directory is private to its user, or it was set up for several users on purpose and is
 * named by HA_QNX_RUNTIME. Then its rooms are sticky, so that entries belong to who has made them; what another user may
 * read of an entry is a symbolic link beside it, which cannot be locked.
 */
#ifndef DOOR_H
#define DOOR_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* These return 0 or an errno. */

/* Whether others may enter the runtime directory, and `own`, what lies in it; EACCES if this user may not. */
int door_is_shared(const char *root, const char *own, bool *shared);
/* Whether nobody else can change what is in a directory: EPERM, ENOTDIR. */
int door_check_private(const char *path);
/* Whether a shared directory, and all above it, is such that nobody but its owner can change what belongs to others. */
int door_check_shared(const char *root);
/* The same for a part of it: a room is sticky where others may write. */
int door_check_part(const char *root, const char *path, bool is_room);
/* Makes a directory, for this user alone to change. EACCES: there is one of another user, or this one may attach nothing. */
int door_make_own(const char *path, bool shared);

/* Lets other users read what an entry says. */
int door_show(const char *file, const char *text);
/* Takes that away. */
void door_hide(const char *file);
/* What an entry of another user says, and whose it is. */
int door_read_shown(const char *file, char *text, size_t size, uid_t *owner);
bool door_shows(const char *file);

/* Whether the process that listens at the other end of a socket is one that may say it is process `pid`. */
bool door_is_who_it_should_be(int sock, pid_t pid);

#endif
