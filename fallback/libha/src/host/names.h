/* The room `names` of the runtime directory: which channel has which name. */
#ifndef NAMES_H
#define NAMES_H

#include <limits.h>
#include <stdbool.h>

#include "host/runtime.h"

/* All return 0 or an errno. */

/*
 * A name without its empty and "." components (B289, B291). EINVAL if it begins with a slash, or nothing is left; EINVAL
 * also for NULL.
 */
int names_tidy(const char *name, char tidy[PATH_MAX]);
/* Whether it has a ".." that would lead out of it (B290). */
bool names_climbs(const char *name);

/* Takes a tidy name. *claim is a descriptor of the library that holds it. EEXIST if a live server has it. */
int names_claim(const char *name, const struct address *address, int *claim);
/* Whether it still leads here: somebody may have removed its file, and another server may have made one since. */
bool names_has(const char *name, int claim);
void names_release(const char *name, int claim);
/* ENOENT if nobody has it. The owner may be dead by now. */
int names_find(const char *name, struct address *address);
/*
 * What name_open fails with if the channel that has a name is not there: ESRCH if its process lives, else ENOENT, and what it has
 * left is removed.
 */
int names_without_channel(const char *name, const struct address *address);

#endif
