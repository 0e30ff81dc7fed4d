/* What the kernel knows of a thread: its number, its priority, the timeout it has armed. */
#ifndef THREAD_H
#define THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* QNX's default for user threads (D14). */
#define DEFAULT_PRIORITY 10

struct thread {
    int tid; /* 0 before its first call */
    int priority;
    int host_priority;
    int64_t looked_at; /* when the host was last asked for it */
    int armed_flags;   /* of the timeout for its next blocking call; 0: none is armed */
    bool armed_is_absolute;
    uint64_t armed_nanoseconds; /* 0: at once */
    /* For ha_posix_unblock(). */
    struct thread *next; /* in the list of all */
    pthread_t handle;
    _Atomic(void *) sends_on;   /* the lane by which it sends a message, until the answer has come (exchange.c) */
    atomic_bool is_wanted_back; /* it shall not wait for a lane */
};

/* The calling thread. */
struct thread *thread_self(void);

/* At the start of a program: what is called when a thread with a number ends. */
void thread_on_exit(void (*function)(int tid));

/* Whether signal handlers end the calls of the main thread only; returns whether they did so before. */
bool thread_interrupt_main_only(bool main_only);
bool thread_interrupts_main_only(void);
/* Whether its calls go on after a signal handler. */
bool thread_goes_on(void);

/* Its priority: that of the host's real-time thread, or what it took over from a message (B30), or the default. */
int thread_priority(struct thread *thread, int64_t now);

/* A timeout, taken by the call that it limits. */
struct timeout {
    int flags;      /* the states that are limited, out of those that were asked for */
    bool immediate; /* a call that has to block fails at once */
    bool is_absolute;
    uint64_t nanoseconds; /* how long it is, if it is not absolute */
    int64_t deadline;     /* when it ends, if it starts now */
};

/* The timeout that the thread has armed for its next blocking call, if that can block in one of these states (B212). */
struct timeout thread_take_timeout(struct thread *thread, int states);

/* The same, and it stays armed. */
struct timeout thread_armed_timeout(struct thread *thread, int states);

/* Calls a function with a thread that has called this library and has not ended, which cannot end meanwhile. */
void thread_visit(pthread_t handle, void (*function)(struct thread *thread));

/* Takes an armed timeout off: a call was made that ends it (B212). */
void thread_disarm(struct thread *thread);

void thread_after_fork_in_child(void);

#endif
