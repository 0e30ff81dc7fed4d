/* What waits to be received, by priority, then by the time it was sent, then by arrival (B75, B237, B238). */
#ifndef QUEUE_H
#define QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queued {
    int priority;
    uint64_t time;
    uint64_t arrival;
    size_t place; /* in the queue, from 1; 0: it is not in one */
};

struct queue {
    struct queued **heap; /* from 1 */
    size_t count;
    size_t room;
};

/* False if there is no memory. */
bool queue_add(struct queue *queue, struct queued *item);
void queue_remove(struct queue *queue, struct queued *item);
/* Whether one is to be received before another. */
bool queued_before(const struct queued *one, const struct queued *other);
void queue_end(struct queue *queue);

static inline struct queued *queue_first(const struct queue *queue)
{
    return queue->count ? queue->heap[1] : NULL;
}

#endif
