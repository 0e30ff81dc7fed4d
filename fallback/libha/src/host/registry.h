/* A set of descriptors: their numbers, and what lay under each when it came in. */
#ifndef REGISTRY_H
#define REGISTRY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Linux's own limit on descriptors (fs.nr_open) is 2^20 unless it was raised. */
#define REGISTRY_LIMIT (1 << 20)

struct registry {
    uint64_t words[REGISTRY_LIMIT / 64];
    uint64_t inodes[REGISTRY_LIMIT]; /* Of a page, Linux makes room for it only once something is written there. */
    int used;                        /* words that may be other than 0 */
};

static inline bool registry_add(struct registry *registry, int number, uint64_t inode)
{
    if (number < 0 || number >= REGISTRY_LIMIT)
        return false;
    registry->inodes[number] = inode;
    registry->words[number / 64] |= (uint64_t)1 << (number % 64);
    if (registry->used <= number / 64)
        registry->used = number / 64 + 1;
    return true;
}

static inline void registry_remove(struct registry *registry, int number)
{
    if (number >= 0 && number < REGISTRY_LIMIT)
        registry->words[number / 64] &= ~((uint64_t)1 << (number % 64));
}

static inline bool registry_has(const struct registry *registry, int number, uint64_t inode)
{
    return number >= 0 && number < REGISTRY_LIMIT && registry->words[number / 64] >> (number % 64) & 1 &&
           registry->inodes[number] == inode;
}

/* Takes one out of the set; -1 if it is empty. */
static inline int registry_take_any(struct registry *registry, uint64_t *inode)
{
    for (; registry->used; registry->used--) {
        uint64_t *word = &registry->words[registry->used - 1];
        if (*word) {
            int number = (registry->used - 1) * 64 + __builtin_ctzll(*word);
            *word &= *word - 1;
            *inode = registry->inodes[number];
            return number;
        }
    }
    return -1;
}

static inline void format_descriptor_path(char *path, size_t size, int fd)
{
    snprintf(path, size, "/proc/self/fd/%d", fd);
}

#endif
