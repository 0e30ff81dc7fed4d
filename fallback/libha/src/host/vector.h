/* Buffers in parts. */
#ifndef VECTOR_H
#define VECTOR_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

struct vector {
    const struct iovec *parts;
    size_t count;
    size_t size;   /* of all parts together */
    bool has_null; /* a part of some length is NULL */
};

/*
 * A vector of parts that a caller has given. 0, or EFAULT, or EOVERFLOW (B346 to B349). If all that is wrong with it is
 * a part that is NULL, the vector can be used where that is not touched: vector_untouched lets this pass.
 */
int vector_from_parts(struct vector *vector, const struct iovec *parts, size_t count);

/* The same of one buffer; *part must live as long as the vector. */
int vector_from_buffer(struct vector *vector, struct iovec *part, const void *buffer, size_t size);

static inline int vector_untouched(int error, const struct vector *vector)
{
    return error == EFAULT && vector->has_null ? 0 : error;
}

/* Whether none of the bytes from a position on lies in a part that is NULL. */
bool vector_has_memory(const struct vector *vector, size_t offset, size_t length);

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
