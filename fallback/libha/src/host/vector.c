#include "host/vector.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

int vector_from_parts(struct vector *vector, const struct iovec *parts, size_t count)
{
    size_t size = 0;
    bool has_null = false;
    *vector = (struct vector){0};
    if (count && !parts)
        return EFAULT;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].iov_len > SSIZE_MAX - size)
            return EOVERFLOW;
        has_null |= parts[i].iov_len && !parts[i].iov_base;
        size += parts[i].iov_len;
    }
    *vector = (struct vector){parts, count, size, has_null};
    return has_null ? EFAULT : 0;
}

int vector_from_buffer(struct vector *vector, struct iovec *part, const void *buffer, size_t size)
{
    part->iov_base = (void *)buffer;
    part->iov_len = size;
    return vector_from_parts(vector, part, 1);
}

bool vector_has_memory(const struct vector *vector, size_t offset, size_t length)
{
    for (size_t i = 0; vector->has_null && i < vector->count && length; i++) {
        const struct iovec *part = &vector->parts[i];
        if (offset >= part->iov_len) {
            offset -= part->iov_len;
            continue;
        }
        if (!part->iov_base)
            return false;
        size_t piece = part->iov_len - offset;
        length -= piece < length ? piece : length;
        offset = 0;
    }
    return true;
}

/* Calls memcpy for each piece of the vector that lies in [offset, offset + length). */
static size_t copy(const struct vector *vector, size_t offset, char *other, size_t length, int to_vector)
{
    size_t done = 0;
    for (size_t i = 0; i < vector->count && done < length; i++) {
        const struct iovec *part = &vector->parts[i];
        if (offset >= part->iov_len) {
            offset -= part->iov_len;
            continue;
        }
        size_t piece = part->iov_len - offset;
        if (piece > length - done)
            piece = length - done;
        char *place = (char *)part->iov_base + offset;
        memcpy(to_vector ? place : other + done, to_vector ? other + done : place, piece);
        done += piece;
        offset = 0;
    }
    return done;
}

size_t vector_gather(const struct vector *vector, size_t offset, void *to, size_t length)
{
    return copy(vector, offset, to, length, 0);
}

size_t vector_scatter(const struct vector *vector, size_t offset, const void *from, size_t length)
{
    return copy(vector, offset, (char *)(uintptr_t)from, length, 1);
}

int vector_head(const struct vector *vector, size_t length, struct iovec *parts, int limit)
{
    int used = 0;
    for (size_t i = 0; i < vector->count && length; i++) {
        if (!vector->parts[i].iov_len)
            continue;
        if (used == limit)
            return -1;
        parts[used] = vector->parts[i];
        if (parts[used].iov_len > length)
            parts[used].iov_len = length;
        length -= parts[used++].iov_len;
    }
    return used;
}
