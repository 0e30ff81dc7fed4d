/*
 * Timers: which there are, and where each is seen to.
 *
 * A timer whose pulse goes to a channel of this process costs no thread and no wake-up of its own: its channel's epoll
 * watches an alarm, a timerfd, and whoever receives next queues what is due by then, each pulse with the time at which it
 * was. So pulses that nobody receives are queued each period, as on QNX, without anything being done meanwhile. All other
 * timers, those that send to another process or raise a signal, are seen to by one thread, the courier, which begins with
 * the first of them.
 *
 * Which of them it is follows from the connection, which can change under a timer: it is looked at whenever the timer is
 * due, and a timer that is in the wrong place by then moves.
 */
#ifndef TIMERS_H
#define TIMERS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "ha_posix.h"

/* What is left of a sigev_notify without its flags, and the mark that 7.x gives it on 64 bits. */
#define EVENT_TYPE 0x7f

/* Each returns 0 or an errno. */
int timers_create(clockid_t clock, const struct ha_posix_sigevent *event, int *id);
/* `before`: what was left, and the interval. */
int timers_set(int id, bool absolute, const struct _itimer *times, struct _itimer *before);
int timers_info(int id, struct _timer_info *info);
int timers_destroy(int id);

/* At the start of a program. */
void timers_start(void);
void timers_after_fork_in_child(void);

#endif
