/* Making and ending connections as the calls do it: with arguments checked, and attachments seen to (D24). */
#ifndef CONNECT_H
#define CONNECT_H

#include <stdint.h>
#include <sys/types.h>

/* All return 0 or an errno. */
int connect_attach(uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags, int *coid);
/* In place of an old connection (D6). */
int connect_attach_at(int coid, uint32_t nd, int32_t pid, int chid, unsigned flags);
int connect_detach(int coid);

/* Opens a path (open.c); under the number *fd, if that is not negative. */
int file_open(const char *path, int oflag, mode_t mode, int *fd);
int file_close(int fd);
int file_dup(int fd, int *copy);

#endif
