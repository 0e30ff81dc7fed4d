/* Buffers in parts. */
#ifndef VECTOR_H
#define VECTOR_H

#include <stddef.h>
#include <sys/uio.h>

struct vector {
    const struct iovec *parts;
    size_t count;
    size_t size; /* of all parts together */
};

/* A vector of parts that a caller has given. 0, or EFAULT, or EOVERFLOW (B346 to B350). */
int vector_from_parts(struct vector *vector, const struct iovec *parts, size_t count);

/* A vector of one buffer; *part must live as long as it. 0, EFAULT or EOVERFLOW. */
int vector_from_buffer(struct vector *vector, struct iovec *part, const void *buffer, size_t size);

/* Copies from a position in the vector; returns how many bytes there were. */
size_t vector_gather(const struct vector *vector, size_t offset, void *to, size_t length);

/* Copies to a position in the vector; returns for how many bytes there was room. */
size_t vector_scatter(const struct vector *vector, size_t offset, const void *from, size_t length);

/*
 * The first `length` bytes of the vector as at most `limit` parts for readv and writev. Returns their number, or -1 if
 * there are more.
 */
int vector_head(const struct vector *vector, size_t length, struct iovec *parts, int limit);

#endif
