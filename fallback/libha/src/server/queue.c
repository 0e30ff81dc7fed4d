#include "server/queue.h"

#include <stdlib.h>

bool queued_before(const struct queued *one, const struct queued *other)
{
    if (one->priority != other->priority)
        return one->priority > other->priority;
    if (one->time != other->time)
        return one->time < other->time;
    return one->arrival < other->arrival;
}

static void put(struct queue *queue, size_t place, struct queued *item)
{
    queue->heap[place] = item;
    item->place = place;
}

static void move_up(struct queue *queue, size_t place, struct queued *item)
{
    for (; place > 1 && queued_before(item, queue->heap[place / 2]); place /= 2)
        put(queue, place, queue->heap[place / 2]);
    put(queue, place, item);
}

static void move_down(struct queue *queue, size_t place, struct queued *item)
{
    for (size_t child; (child = 2 * place) <= queue->count; place = child) {
        if (child < queue->count && queued_before(queue->heap[child + 1], queue->heap[child]))
            child++;
        if (!queued_before(queue->heap[child], item))
            break;
        put(queue, place, queue->heap[child]);
    }
    put(queue, place, item);
}

bool queue_add(struct queue *queue, struct queued *item)
{
    if (queue->count + 1 >= queue->room) {
        size_t room = queue->room ? 2 * queue->room : 16;
        struct queued **heap = realloc(queue->heap, room * sizeof *heap);
        if (!heap)
            return false;
        queue->heap = heap;
        queue->room = room;
    }
    move_up(queue, ++queue->count, item);
    return true;
}

void queue_remove(struct queue *queue, struct queued *item)
{
    size_t place = item->place;
    struct queued *last = queue->heap[queue->count--];
    item->place = 0;
    if (last == item)
        return;
    if (place > 1 && queued_before(last, queue->heap[place / 2]))
        move_up(queue, place, last);
    else
        move_down(queue, place, last);
}

void queue_end(struct queue *queue)
{
    free(queue->heap);
    *queue = (struct queue){0};
}
