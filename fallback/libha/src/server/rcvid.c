#include "server/rcvid.h"

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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

#define BLOCK_FIRST 64
#define BLOCK_MOST (1u << 20)
#define BLOCK_PLACES 4096

struct block {
    struct block *next;           /* in its place of the table */
    struct block *next_of_client; /* or among those that are spare */
    struct block *next_spare;
    struct rcvids *owner;
    unsigned start, size, used;
};

static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks[BLOCK_PLACES];
static unsigned next_start;

static struct block **place_of(unsigned start)
{
    return &blocks[start / BLOCK_FIRST % BLOCK_PLACES];
}

static struct block *find_block(unsigned start)
{
    struct block *block = *place_of(start);
    while (block && block->start != start)
        block = block->next;
    return block;
}

/* Enters a block of numbers, the first a multiple of their count. Under the lock. */
static void enter_block(struct block *block)
{
    unsigned start = next_start;
    for (struct block *taken;; start += taken->size) {
        start = (start + block->size - 1) & -block->size;
        if (start > INT_MAX - block->size)
            start = block->size;
        if (!(taken = find_block(start)))
            break;
    }
    block->start = start;
    next_start = start + block->size;
    block->next = *place_of(start);
    *place_of(start) = block;
    block->next_of_client = block->owner->blocks;
    block->owner->blocks = block;
}

/* The block that a lane takes numbers from, once its own is used up; NULL if there is no memory. */
static struct block *next_block(const struct block *before, struct rcvids *rcvids)
{
    unsigned size = before ? 2 * before->size : BLOCK_FIRST;
    pthread_mutex_lock(&blocks_lock);
    struct block *block = before ? NULL : rcvids->spare;
    if (block) {
        rcvids->spare = block->next_spare;
    } else if ((block = calloc(1, sizeof *block))) {
        block->owner = rcvids;
        block->size = size > BLOCK_MOST ? BLOCK_MOST : size;
        enter_block(block);
    }
    pthread_mutex_unlock(&blocks_lock);
    return block;
}

/* The next number of a lane; 0 if there is no memory. */
static unsigned next_number(struct block **block, struct rcvids *rcvids)
{
    while (!*block || (*block)->used == (*block)->size) {
        struct block *next = next_block(*block, rcvids);
        if (!next)
            return 0;
        *block = next;
    }
    return (*block)->start + (*block)->used++;
}

struct client *rcvid_client(int rcvid, int *chid)
{
    struct client *client = NULL;
    pthread_mutex_lock(&blocks_lock);
    for (unsigned size = BLOCK_FIRST; rcvid > 0 && size <= BLOCK_MOST && !client; size *= 2) {
        const struct block *block = find_block((unsigned)rcvid & -size);
        if (block && block->size == size) {
            client = block->owner->client;
            *chid = block->owner->chid;
        }
    }
    pthread_mutex_unlock(&blocks_lock);
    return client;
}

void rcvid_spare(struct rcvids *rcvids, struct block *block)
{
    if (!block)
        return;
    pthread_mutex_lock(&blocks_lock);
    block->next_spare = rcvids->spare;
    rcvids->spare = block;
    pthread_mutex_unlock(&blocks_lock);
}

void rcvid_forget(struct rcvids *rcvids)
{
    pthread_mutex_lock(&blocks_lock);
    for (struct block *block; (block = rcvids->blocks);) {
        struct block **link = place_of(block->start);
        while (*link != block)
            link = &(*link)->next;
        *link = block->next;
        rcvids->blocks = block->next_of_client;
        free(block);
    }
    rcvids->spare = NULL;
    pthread_mutex_unlock(&blocks_lock);
}

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

int rcvid_make(struct server_lane *lane, struct block **block, struct rcvids *rcvids)
{
    server_lane_hold(lane);
    for (;;) {
        unsigned rcvid = next_number(block, rcvids);
        int result = rcvid ? enter(lane, rcvid) : -1;
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
    random_bytes(&next_start, sizeof next_start);
    next_start &= INT_MAX;
}

void rcvid_after_fork_in_child(void)
{
    rcvid_start();
    pthread_mutex_init(&blocks_lock, NULL);
    memset(blocks, 0, sizeof blocks);
    for (int i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&shards[i].lock, NULL);
        shards[i].entries = NULL; /* Threads of the parent may have been changing them. */
        shards[i].size = shards[i].used = 0;
    }
}
