/* What both sides of an attack need: an input that is read bit by bit, frames and descriptors that are made of it. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is left of an input. When it is used up, all that it gives is 0. */
struct input {
    const uint8_t *data;
    size_t size;
};

bool input_is_over(const struct input *input);
uint8_t input_byte(struct input *input);
/* Below a limit. */
unsigned input_below(struct input *input, unsigned limit);
/* A number that is likely to be a limit of something. */
uint64_t input_number(struct input *input);
/* So many bytes, or as many as are left; the others are 0. */
void input_bytes(struct input *input, void *bytes, size_t size);

/* Changes a number somewhere in a frame, most of the time not. */
void input_mutate(struct input *input, void *frame, size_t size);

/* Descriptors that one side holds open; no call that uses them waits. */
#define ENDS 24
struct ends {
    int fds[ENDS];
    size_t count;
};

/* Holds it; closes it if there are too many. What it is. */
int ends_add(struct ends *ends, int fd);
/* One of them; -1 if there is none. */
int ends_pick(const struct ends *ends, struct input *input);
/* Closes one of them. */
void ends_close_one(struct ends *ends, struct input *input);
void ends_close(struct ends *ends);
/* Reads what lies in them, and forgets it. */
void ends_drain(const struct ends *ends);

/* A descriptor of any kind, which the caller closes. Its other end, if there is one, becomes one of `near`. */
int hostile_descriptor(struct input *input, struct ends *near);
/* A pipe; one end is for the caller to pass and close, the other one of `near`. */
int hostile_pipe(struct ends *near, bool is_read_by_us);

/* Writes, if somebody reads and there is room. The library's own SIGPIPE is a fault, and ends the process. */
void hostile_write(int fd, const void *bytes, size_t size);
/* Sends bytes on a socket, with descriptors. */
void hostile_send(int sock, const void *bytes, size_t size, const int *fds, size_t count);
/* A frame for the trunk, with descriptors, some of them right. */
void hostile_trunk_frame(struct input *input, int sock, struct ends *near);

/* Ends the process, which libFuzzer reports, unless something holds. */
void must(bool holds, const char *what);
/* Plays an input, and again if a descriptor was left open: what is made once is kept. What a target returns. */
int hostile_leaks(void (*play)(const uint8_t *data, size_t size), const uint8_t *data, size_t size);
/* The path of an entry in a room of the runtime directory. */
void hostile_entry(char path[512], const char *room, const char *name);

#endif
