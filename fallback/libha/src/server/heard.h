/* The files in which client processes say which connections they have (PROTOCOL.md). */
#ifndef HEARD_H
#define HEARD_H

struct heard;

/* Takes over a descriptor that a client has passed. 0; EINVAL, it is no file, or ENOMEM, and it is not taken over. */
int heard_adopt(int fd, struct heard **heard);
void heard_release(struct heard *file);
int heard_file(const struct heard *file);

void heard_after_fork_in_child(void);

#endif
