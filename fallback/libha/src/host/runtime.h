/* The runtime directory, where processes meet: sockets of channels, files of names. */
#ifndef RUNTIME_H
#define RUNTIME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TOKEN_SIZE 16

/* A channel of some process. */
struct address {
    pid_t pid;
    int chid;
    char token[TOKEN_SIZE + 1]; /* "" if it is not known */
};

/* All return 0 or an errno. */

/* A new address for a channel of this process. */
void address_make(struct address *address, int chid);
/* As text: "PID.CHID.TOKEN". */
#define ADDRESS_SIZE (3 * 11 + TOKEN_SIZE + 1)
void address_format(char text[ADDRESS_SIZE], const struct address *address);
bool address_parse(struct address *address, const char *text);
bool address_equal(const struct address *one, const struct address *other);

/* Binds a listening socket for a channel. *listener is a descriptor of the library. */
int runtime_listen(const struct address *address, int *listener);
void runtime_remove_channel(const struct address *address);

/*
 * Connects to a channel; without a token, to any with the same numbers, and the token is stored. ESRCH if there is
 * none, ENXIO if its process is a zombie, EAGAIN if its backlog is full.
 */
int runtime_connect(struct address *address, int *sock);

/* Whether a string can be a name (B289, B290). */
bool name_is_valid(const char *name);
/* Takes a name. *claim is a descriptor of the library that holds it. */
int runtime_claim_name(const char *name, const struct address *address, int *claim);
void runtime_release_name(const char *name, int claim);
/* ENOENT if nobody has it. The owner may be dead by now. */
int runtime_find_name(const char *name, struct address *address);

void runtime_before_fork(void);
void runtime_after_fork(void);

#endif
