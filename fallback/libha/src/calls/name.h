/* Names of servers. */
#ifndef NAME_H
#define NAME_H

#include <sys/types.h>

#define NAME_PREFIX "/dev/name/local/"

/* open() of a path below /dev/name/local/: in place of *fd, if that is not negative. 0 or an errno. */
int name_open_path(const char *name, int oflag, mode_t mode, int *fd);

/* At the end of the process, gives the names up. */
void name_at_exit(void);
void name_after_fork_in_child(void);

#endif
