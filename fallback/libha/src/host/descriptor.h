/*
 * The library's own descriptors.
 *
 * They lie out of the way, at high numbers, so that connections get the lowest ones (B33, B34), and they are
 * registered: a forked child closes them all (D13). All that make or close one do it under one lock, which a fork waits
 * for.
 */
#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

/* Each returns a descriptor, or -1 with errno set. */
int descriptor_socket(int type);
int descriptor_accept(int listener);
int descriptor_eventfd(void);
int descriptor_epoll(void);
int descriptor_timerfd(clockid_t clock);
int descriptor_open(int directory, const char *path, int flags, mode_t mode);
/* A sealed memory file that cannot shrink. */
int descriptor_window(uint64_t size);
/* An empty memory file. */
int descriptor_memory(void);

/* Each returns 0, or -1 with errno set. */
int descriptor_pipe(int ends[2], int flags);
int descriptor_socketpair(int ends[2], int type);

enum lost {
    LOST_NOTHING,
    LOST_UNWANTED, /* there were more than wanted, or others */
    LOST_NO_ROOM   /* the process has no descriptors left for all that came */
};

/*
 * recvmsg of at most `size` bytes; registers the descriptors that came with them, at most `*count`, and stores their
 * number. *lost tells whether others were closed.
 */
ssize_t descriptor_receive(int sock, void *bytes, size_t size, int *fds, size_t *count, enum lost *lost);

/* Sends a frame and passes descriptors with it, without waiting. 0 or an errno. */
int descriptor_pass(int sock, const void *frame, size_t size, const int *fds, size_t count);

/*
 * read and writev on what somebody has passed: he has the same open file, so that non-blocking it may be or not. A pipe was
 * given one of its own (descriptor_is_stream).
 */
ssize_t descriptor_read(int fd, bool is_socket, void *bytes, size_t size);
ssize_t descriptor_put(int fd, bool is_socket, const struct iovec *parts, int count);
bool descriptor_is_socket(int fd);

/* The lowest number of a descriptor of the library; those below are used when there is no other left. */
int descriptor_floor(void);

/* Sees to it that descriptor_open_surely has one to give up. */
void descriptor_fill_reserve(void);
/* Whether it has: if not, the process has used up its descriptors. */
bool descriptor_has_reserve(void);
/* The same as descriptor_open, also when the process has used up its descriptors. */
int descriptor_open_surely(const char *path, int flags);

/* Closes a descriptor of the library; nothing if it is -1. */
void descriptor_close(int fd);
/*
 * Whether it still is what it was when it was made, as far as inodes tell: the program may have closed it behind our back
 * and opened another. Then it is left alone.
 */
bool descriptor_is_still(int fd);
/* Whether the other end of a socket is closed, or has sent its last, or it is none any more. */
bool descriptor_has_ended(int sock);
/* Something else was put under the number on purpose. */
void descriptor_renew(int fd);

/*
 * Whether a descriptor that somebody has passed is a pipe open in this direction (O_RDONLY, O_WRONLY) or a socket; makes it
 * non-blocking. Reading anything else might block, or worse.
 */
bool descriptor_is_stream(int fd, int direction);

/* Whether it is an ordinary file, open for reading and writing, as a window has to be. */
bool descriptor_is_file(int fd);

/* Gives a descriptor away: whoever has it now closes it. */
void descriptor_surrender(int fd);

/* writev that never raises SIGPIPE. */
ssize_t descriptor_writev(int fd, const struct iovec *parts, int count);
ssize_t descriptor_write(int fd, const void *bytes, size_t size);

/*
 * Placeholders: what lies under the number of a connection. They can be neither read nor written, and are told from
 * anything else by their file position, the cookie.
 */

/* Puts a placeholder under the lowest free number from `index` on. */
int placeholder_place(int index, off_t cookie);
bool placeholder_is(int number, off_t cookie);
/*
 * Whether a number is a descriptor, but no placeholder at all. (One that the table does not know is that of a
 * connection which another thread is making or ending.)
 */
bool descriptor_is_foreign(int number);
void placeholder_close(int number);
off_t placeholder_cookie(void);

/* Random bytes. */
void random_bytes(void *bytes, size_t size);

/* Around fork. */
void descriptor_before_fork(void);
void descriptor_after_fork_in_parent(void);
void descriptor_after_fork_in_child(void);

#endif
