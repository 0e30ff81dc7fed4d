/* The room `paths` of the runtime directory: who serves which path. */
#ifndef PATHS_H
#define PATHS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/runtime.h"

/* An attachment: a path, or with _RESMGR_FLAG_DIR all that is below it, that a server serves. */
struct served {
    struct served *next;
    struct address address;
    int id; /* in its process */
    int file_type;
    unsigned flags; /* _RESMGR_FLAG_... */
    uint64_t time;
    size_t length; /* of the path that it is attached to */
    char *file;    /* in the room */
};

/* These return 0 or an errno. */

/*
 * Enters what `served` says of the attachment of a plain path; sets its file, and its time if that is 0. *claim is a descriptor of
 * the library that holds it.
 */
int paths_attach(const char *path, struct served *served, int *claim);
/*
 * Who serves a plain path, in the order in which they are asked: on the path itself, then above it, the nearest first. An empty
 * list if there is no such directory yet.
 */
int paths_find(const char *path, struct served **list);

/* Whether it is in the room. */
bool paths_has(const struct served *served, int claim);
/* Takes it out of the room. `claim` may be -1: then it is only removed. */
void paths_detach(const struct served *served, int claim);
/* Whether its process has ended, or is about to; one that has ended is taken out of the room. */
bool paths_is_left(const struct served *served);
void paths_forget(struct served *list);

#endif
