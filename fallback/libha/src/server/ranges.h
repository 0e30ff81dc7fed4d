/* Which parts of something were written, put together where they meet. */
#ifndef RANGES_H
#define RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range {
    uint64_t start, end;
};

/* In order, apart from each other, not empty. */
struct ranges {
    struct range *list;
    size_t count, room;
};

/* False if there is no memory. */
bool ranges_add(struct ranges *ranges, uint64_t start, uint64_t end);
/* There are none any more; with no memory held. */
void ranges_clear(struct ranges *ranges);

#endif
