#include "server/ranges.h"

#include <stdlib.h>
#include <string.h>

/* The place of the first range that ends at a position or behind it. */
static size_t place_of(const struct ranges *ranges, uint64_t position)
{
    size_t low = 0, high = ranges->count;
    if (high && ranges->list[high - 1].end < position)
        return high; /* Mostly, what is written comes one behind the other. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges->list[middle].end < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool make_room(struct ranges *ranges)
{
    size_t room = ranges->room ? 2 * ranges->room : 8;
    if (ranges->count < ranges->room)
        return true;
    struct range *list = realloc(ranges->list, room * sizeof *list);
    if (!list)
        return false;
    ranges->list = list;
    ranges->room = room;
    return true;
}

bool ranges_add(struct ranges *ranges, uint64_t start, uint64_t end)
{
    size_t first = place_of(ranges, start), behind = first;
    if (start >= end)
        return true;
    for (; behind < ranges->count && ranges->list[behind].start <= end; behind++) {
        if (ranges->list[behind].start < start)
            start = ranges->list[behind].start;
        if (ranges->list[behind].end > end)
            end = ranges->list[behind].end;
    }
    if (behind == first && !make_room(ranges))
        return false;
    struct range *list = ranges->list;
    memmove(list + first + 1, list + behind, (ranges->count - behind) * sizeof *list);
    ranges->count += first + 1 - behind;
    list[first] = (struct range){start, end};
    return true;
}

void ranges_clear(struct ranges *ranges)
{
    free(ranges->list);
    *ranges = (struct ranges){0};
}
