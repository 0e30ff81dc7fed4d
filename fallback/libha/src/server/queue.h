/*
 * What waits to be received, by priority, then by the time it was sent, then by arrival (B75, B237, B238). A pairing heap: what
 * is queued brings all the memory along that it takes, so that nothing can be lost for want of it.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queued {
    int priority;
    uint64_t time;
    uint64_t arrival;
    bool is_queued;
    struct queued *child; /* the first of those that come after it */
    struct queued *next;
    struct queued *previous; /* or, of the first, what it comes after */
};

struct queue {
    struct queued *first;
    size_t count;
};

void queue_add(struct queue *queue, struct queued *item);
void queue_remove(struct queue *queue, struct queued *item);
/* Whether one is to be received before another. */
bool queued_before(const struct queued *one, const struct queued *other);
/* Each item after queue_first, in no order; NULL after the last. */
struct queued *queue_next(const struct queued *item);

static inline struct queued *queue_first(const struct queue *queue)
{
    return queue->first;
}

#endif
