/* Signals that are held back from a thread, so that none of their handlers runs unnoticed. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct held_signals {
    bool are_held;
    sigset_t before;
};

/*
 * Holds back what might run a handler, until signals_release, or a wait that lets it through (wait.h). Nothing is done if
 * the thread's calls go on after a handler anyway (thread_goes_on), or if the program has no handlers: that is looked up
 * now and then, since it costs more than to hold them back. An interpreter (thread_interrupt_main_only) has a handler for
 * SIGINT from the start; as in its own calls, this one alone is not worth two more system calls for every message.
 * `now` is what clock_now says.
 */
void signals_hold(struct held_signals *held, int64_t now);
/* Holds them back in any case, if they would end calls of this thread. */
void signals_hold_all(struct held_signals *held);
void signals_release(struct held_signals *held);

/*
 * The same for a thread that does not sleep, and so does not notice a handler: SIGINT is held back, too, and nothing if
 * the program has handlers (false), since a signal for the process would wake another thread, but not this one.
 */
bool signals_hold_awake(struct held_signals *held);
/* Whether a signal is held back that would have run a handler. */
bool signals_wait(const struct held_signals *held);

void signals_after_fork_in_child(void);

#endif
