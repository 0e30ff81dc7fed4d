#include "number.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ha_posix.h"
#include "host/registry.h"

#define PAGE 64
#define DESCRIPTOR_PAGES (REGISTRY_LIMIT / PAGE)
/* A table of QNX's kernel has at most 65534 entries (B354); slot 0 is none of ours. */
#define SLOT_LIMIT 65535
#define SLOT_PAGES ((SLOT_LIMIT + PAGE) / PAGE)

struct page {
    struct number numbers[PAGE];
};

static _Atomic(struct page *) descriptors[DESCRIPTOR_PAGES];
static _Atomic(struct page *) slots[SLOT_PAGES];
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;

/* Slot 0 is the connection to QNX's process manager (B36), which no host has. */
static uint64_t taken[SLOT_LIMIT / 64 + 1] = {1};
static pthread_mutex_t taking = PTHREAD_MUTEX_INITIALIZER;

void table_lock(void)
{
    pthread_mutex_lock(&table);
}

void table_unlock(void)
{
    pthread_mutex_unlock(&table);
}

static _Atomic(struct page *) *place_of(int id)
{
    if (id < 0)
        return NULL;
    int index = (id & ~_NTO_SIDE_CHANNEL) / PAGE;
    if (id & _NTO_SIDE_CHANNEL)
        return index < SLOT_PAGES ? &slots[index] : NULL;
    return index < DESCRIPTOR_PAGES ? &descriptors[index] : NULL;
}

struct number *number_find(int id)
{
    _Atomic(struct page *) *place = place_of(id);
    struct page *page = place ? atomic_load_explicit(place, memory_order_acquire) : NULL;
    return page ? &page->numbers[id % PAGE] : NULL;
}

struct number *number_make(int id)
{
    struct number *number = number_find(id);
    _Atomic(struct page *) *place = place_of(id);
    if (number || !place)
        return number;
    pthread_mutex_lock(&making);
    struct page *page = atomic_load_explicit(place, memory_order_acquire);
    if (!page && (page = calloc(1, sizeof *page))) {
        for (int i = 0; i < PAGE; i++) {
            pthread_mutex_init(&page->numbers[i].lock, NULL);
            pthread_mutex_init(&page->numbers[i].channel_lock, NULL);
            page->numbers[i].id = id - id % PAGE + i;
        }
        atomic_store_explicit(place, page, memory_order_release);
    }
    pthread_mutex_unlock(&making);
    return page ? &page->numbers[id % PAGE] : NULL;
}

static void each_in(_Atomic(struct page *) *pages, int count, void (*function)(struct number *, void *), void *argument)
{
    for (int i = 0; i < count; i++) {
        struct page *page = atomic_load_explicit(&pages[i], memory_order_acquire);
        for (int j = 0; page && j < PAGE; j++)
            function(&page->numbers[j], argument);
    }
}

void number_each(void (*function)(struct number *, void *), void *argument)
{
    each_in(descriptors, DESCRIPTOR_PAGES, function, argument);
    each_in(slots, SLOT_PAGES, function, argument);
}

int slot_take(void)
{
    int slot = -1;
    pthread_mutex_lock(&taking);
    for (int i = 0; i <= SLOT_LIMIT / 64 && slot < 0; i++)
        if (~taken[i])
            slot = i * 64 + __builtin_ctzll(~taken[i]);
    if (slot >= SLOT_LIMIT)
        slot = -1;
    if (slot >= 0)
        taken[slot / 64] |= (uint64_t)1 << (slot % 64);
    pthread_mutex_unlock(&taking);
    return slot;
}

bool slot_take_exactly(int slot)
{
    if (slot < 0 || slot >= SLOT_LIMIT)
        return false;
    pthread_mutex_lock(&taking);
    uint64_t bit = (uint64_t)1 << (slot % 64);
    bool is_free = !(taken[slot / 64] & bit);
    taken[slot / 64] |= bit;
    pthread_mutex_unlock(&taking);
    return is_free;
}

void slot_release(int slot)
{
    pthread_mutex_lock(&taking);
    taken[slot / 64] &= ~((uint64_t)1 << (slot % 64));
    pthread_mutex_unlock(&taking);
}

void number_put_aside(void *what)
{
    static struct aside {
        struct aside *next;
        void *what;
    } *first;
    struct aside *aside = what ? malloc(sizeof *aside) : NULL;
    if (aside) {
        *aside = (struct aside){first, what};
        first = aside;
    }
}

static void renew_lock(struct number *number, void *argument)
{
    (void)argument;
    pthread_mutex_init(&number->lock, NULL);
    pthread_mutex_init(&number->channel_lock, NULL);
}

void number_after_fork_in_child(void)
{
    pthread_mutex_init(&making, NULL);
    pthread_mutex_init(&taking, NULL);
    number_each(renew_lock, NULL);
    memset(taken, 0, sizeof taken);
    taken[0] = 1;
}
