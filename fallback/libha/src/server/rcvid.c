#include "server/rcvid.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "host/descriptor.h"
#include "server/server_lane.h"

/* The table is in shards, so that threads that receive and answer do not wait for each other. */
#define SHARD_BITS 4
#define SHARDS (1 << SHARD_BITS)
#define FIRST_SIZE 32

struct entry {
    int rcvid; /* 0: free */
    struct server_lane *lane;
};

struct shard {
    pthread_mutex_t lock;
    struct entry *entries;
    unsigned size; /* a power of two */
    unsigned used;
};

static struct shard shards[SHARDS] = {[0 ... SHARDS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};
static atomic_uint last;

static struct shard *shard_of(unsigned rcvid)
{
    return &shards[rcvid % SHARDS];
}

static struct entry *entry_of(const struct shard *shard, unsigned rcvid)
{
    return shard->size ? &shard->entries[(rcvid >> SHARD_BITS) & (shard->size - 1)] : NULL;
}

/* Doubles a shard: entries keep different places, since what told them apart still does. */
static bool grow(struct shard *shard)
{
    struct shard larger = {.size = shard->size ? 2 * shard->size : FIRST_SIZE};
    larger.entries = calloc(larger.size, sizeof *larger.entries);
    if (!larger.entries)
        return false;
    for (unsigned i = 0; i < shard->size; i++)
        if (shard->entries[i].rcvid)
            *entry_of(&larger, (unsigned)shard->entries[i].rcvid) = shard->entries[i];
    free(shard->entries);
    shard->entries = larger.entries;
    shard->size = larger.size;
    return true;
}

/* 1: entered, 0: its place is taken, -1: no memory. */
static int enter(struct server_lane *lane, unsigned rcvid)
{
    struct shard *shard = shard_of(rcvid);
    int result = 0;
    pthread_mutex_lock(&shard->lock);
    if (2 * shard->used >= shard->size && !grow(shard) && shard->used == shard->size) {
        result = -1;
    } else {
        struct entry *entry = entry_of(shard, rcvid);
        if (!entry->rcvid) {
            *entry = (struct entry){(int)rcvid, lane};
            shard->used++;
            result = 1;
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return result;
}

int rcvid_make(struct server_lane *lane)
{
    server_lane_hold(lane);
    for (;;) {
        unsigned rcvid = (atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1) & INT_MAX;
        int result = rcvid ? enter(lane, rcvid) : 0;
        if (result > 0)
            return (int)rcvid;
        if (result < 0) {
            server_lane_drop(lane);
            return 0;
        }
    }
}

static struct server_lane *look_up(int rcvid, bool take)
{
    struct server_lane *lane = NULL;
    if (rcvid <= 0)
        return NULL;
    struct shard *shard = shard_of((unsigned)rcvid);
    pthread_mutex_lock(&shard->lock);
    struct entry *entry = entry_of(shard, (unsigned)rcvid);
    if (entry && entry->rcvid == rcvid) {
        lane = entry->lane;
        if (take) {
            *entry = (struct entry){0, NULL};
            shard->used--;
        } else {
            server_lane_hold(lane);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return lane;
}

struct server_lane *rcvid_find(int rcvid)
{
    return look_up(rcvid, false);
}

struct server_lane *rcvid_take(int rcvid)
{
    return look_up(rcvid, true);
}

void rcvid_start(void)
{
    unsigned first;
    random_bytes(&first, sizeof first);
    atomic_store(&last, first);
}

void rcvid_after_fork_in_child(void)
{
    rcvid_start();
    for (int i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&shards[i].lock, NULL);
        shards[i].entries = NULL; /* Threads of the parent may have been changing them. */
        shards[i].size = shards[i].used = 0;
    }
}
