#include "server/queue.h"

bool queued_before(const struct queued *one, const struct queued *other)
{
    if (one->priority != other->priority)
        return one->priority > other->priority;
    if (one->time != other->time)
        return one->time < other->time;
    return one->arrival < other->arrival;
}

/* Puts the one that comes later among those after the other, which is returned. Both stand alone. */
static struct queued *meld(struct queued *one, struct queued *other)
{
    struct queued *first = queued_before(other, one) ? other : one, *later = first == one ? other : one;
    later->previous = first;
    later->next = first->child;
    if (later->next)
        later->next->previous = later;
    first->child = later;
    return first;
}

/* Makes one of all that stand beside each other: in pairs, and then of those, which is what keeps it shallow. */
static struct queued *meld_all(struct queued *list)
{
    struct queued *pairs = NULL, *all = NULL;
    while (list) {
        struct queued *one = list, *other = one->next;
        list = other ? other->next : NULL;
        one->next = NULL;
        if (other) {
            other->next = NULL;
            one = meld(one, other);
        }
        one->next = pairs;
        pairs = one;
    }
    while (pairs) {
        struct queued *one = pairs;
        pairs = one->next;
        one->next = NULL;
        all = all ? meld(all, one) : one;
    }
    if (all)
        all->previous = NULL;
    return all;
}

void queue_add(struct queue *queue, struct queued *item)
{
    item->is_queued = true;
    item->child = item->next = item->previous = NULL;
    queue->first = queue->first ? meld(queue->first, item) : item;
    queue->count++;
}

void queue_remove(struct queue *queue, struct queued *item)
{
    struct queued *rest = meld_all(item->child);
    if (item->previous) {
        *(item->previous->child == item ? &item->previous->child : &item->previous->next) = item->next;
        if (item->next)
            item->next->previous = item->previous;
        rest = rest ? meld(queue->first, rest) : queue->first;
    }
    queue->first = rest;
    queue->count--;
    item->is_queued = false;
}

struct queued *queue_next(const struct queued *item)
{
    if (item->child)
        return item->child;
    while (item && !item->next) {
        while (item->previous && item->previous->child != item)
            item = item->previous;
        item = item->previous;
    }
    return item ? item->next : NULL;
}
