/* What the tests share: checks, cases, and the other threads and processes that they need. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "ha_posix.h"

/* Ends the test program if the condition does not hold. */
#define CHECK(CONDITION)                                  \
    do {                                                  \
        if (!(CONDITION))                                 \
            check_failed(__FILE__, __LINE__, #CONDITION); \
    } while (0)

/* A call must return -1 and set errno to a number. */
#define CHECK_FAILS(CALL, ERROR)                                                   \
    do {                                                                           \
        errno = 0;                                                                 \
        long check_result = (long)(CALL);                                          \
        if (check_result != -1 || errno != (ERROR))                                \
            check_failed(__FILE__, __LINE__, #CALL " does not fail with " #ERROR); \
    } while (0)

/* Waits until a condition holds, for a limited time. */
#define CHECK_EVENTUALLY(CONDITION)                                                   \
    do {                                                                              \
        for (int check_left = 30000; !(CONDITION); check_left--, check_pause())       \
            if (!check_left)                                                          \
                check_failed(__FILE__, __LINE__, "waited in vain until " #CONDITION); \
    } while (0)

_Noreturn void check_failed(const char *file, int line, const char *what);
/* A millisecond. */
void check_pause(void);

struct test_case {
    const char *name;
    void (*run)(void);
};

/*
 * Runs cases, each in a process of its own with a limited time: all of them, or those named in the arguments. What main
 * returns.
 */
int run_cases(const struct test_case *cases, size_t count, int argc, char **argv);
#define RUN_CASES(CASES, ARGC, ARGV) run_cases(CASES, sizeof(CASES) / sizeof *(CASES), ARGC, ARGV)

pthread_t start_thread(void *(*function)(void *argument), void *argument);
/* Whether a thread of this process sleeps; `tid` is what the host calls it. */
bool is_asleep(pid_t tid);
pid_t own_tid(void);

/* A process that has a channel and serves it until it is killed. Start it before any thread. */
struct server {
    pid_t pid;
    int chid;
};

struct server start_server(void (*serve)(int chid), unsigned flags);
/* The same; its channel is that of a name. */
struct server start_named_server(const char *name, void (*serve)(int chid));
/* The same; it serves a path, with these flags of resmgr_attach(). */
struct server start_path_server(const char *path, unsigned flags, void (*serve)(int chid));
void kill_server(const struct server *server);

/* What a message to serve() begins with. */
struct question {
    uint16_t type;
    uint16_t subtype;
    int32_t number;
};
#define QUESTION 0x200    /* the reply is the question; the status is the number */
#define ASK_PID 0x201     /* the status is the server's pid */
#define ASK_SILENCE 0x202 /* there is no reply */

/*
 * Answers questions and I/O messages: what is read is a run of x, what is written is swallowed, the position is what
 * was asked for.
 */
void serve(int chid);

/* Sends a question and checks the reply. */
void ask(int coid, int number);
/* The pid of the server behind a connection. */
pid_t ask_pid(int coid);

#endif
