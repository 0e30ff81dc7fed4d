#include "host/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/clock.h"

/* How long a priority that the host gave counts as current: asking for it costs a system call. */
#define PRIORITY_AGE CLOCK_MILLISECOND
/* As many threads as a table of QNX's kernel has entries (B354). Beyond that, they share a number. */
#define TID_WORDS 1024
#define MAIN_TID 1

static _Thread_local struct thread self;
static pthread_key_t at_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool interrupts_main_only;
static void (*report_exit)(int tid);
static struct thread *threads;
/* The numbers in use. 1 is the main thread's, as on QNX. */
static uint64_t taken[TID_WORDS] = {3};

static void thread_leave(void *argument)
{
    struct thread *thread = argument;
    int tid = thread->tid;
    thread->tid = 0;
    pthread_mutex_lock(&lock);
    if (tid > MAIN_TID && tid < TID_WORDS * 64)
        taken[tid / 64] &= ~((uint64_t)1 << (tid % 64));
    for (struct thread **link = &threads; *link; link = &(*link)->next) {
        if (*link == thread) {
            *link = thread->next;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    if (report_exit)
        report_exit(tid);
}

void thread_on_exit(void (*function)(int tid))
{
    report_exit = function;
}

static void make_key(void)
{
    pthread_key_create(&at_exit, thread_leave);
}

static int new_tid(void)
{
    if (syscall(SYS_gettid) == getpid())
        return MAIN_TID;
    int tid = TID_WORDS * 64; /* All numbers are taken. */
    pthread_mutex_lock(&lock);
    for (int i = 0; i < TID_WORDS; i++) {
        if (~taken[i]) {
            int bit = __builtin_ctzll(~taken[i]);
            taken[i] |= (uint64_t)1 << bit;
            tid = i * 64 + bit;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return tid;
}

static void enter_list(struct thread *thread)
{
    thread->handle = pthread_self();
    atomic_store(&thread->sends_on, NULL);
    pthread_mutex_lock(&lock);
    thread->next = threads;
    threads = thread;
    pthread_mutex_unlock(&lock);
}

void thread_visit(pthread_t handle, void (*function)(struct thread *thread))
{
    pthread_mutex_lock(&lock);
    for (struct thread *thread = threads; thread; thread = thread->next)
        if (pthread_equal(thread->handle, handle))
            function(thread);
    pthread_mutex_unlock(&lock);
}

struct thread *thread_self(void)
{
    struct thread *thread = &self;
    if (!thread->tid) {
        pthread_once(&once, make_key);
        thread->tid = new_tid();
        thread->priority = thread->host_priority = DEFAULT_PRIORITY;
        thread->looked_at = 0;
        thread->armed_flags = 0;
        enter_list(thread);
        pthread_setspecific(at_exit, thread);
    }
    return thread;
}

bool thread_interrupt_main_only(bool main_only)
{
    return atomic_exchange(&interrupts_main_only, main_only);
}

bool thread_interrupts_main_only(void)
{
    return atomic_load(&interrupts_main_only);
}

bool thread_goes_on(void)
{
    return thread_interrupts_main_only() && thread_self()->tid != MAIN_TID;
}

int thread_priority(struct thread *thread, int64_t now)
{
    if (now - thread->looked_at > PRIORITY_AGE) {
        struct sched_param parameters = {0};
        thread->looked_at = now;
        sched_getparam(0, &parameters); /* Of the calling thread; 0 if it is no real-time one. */
        int priority = parameters.sched_priority > 0 ? parameters.sched_priority : DEFAULT_PRIORITY;
        if (priority != thread->host_priority)
            thread->priority = thread->host_priority = priority;
    }
    return thread->priority;
}

struct timeout thread_take_timeout(struct thread *thread, int states)
{
    if (!thread->armed_flags)
        return (struct timeout){.deadline = CLOCK_NEVER};
    struct timeout timeout = thread_armed_timeout(thread, states);
    thread->armed_flags = 0;
    return timeout;
}

struct timeout thread_armed_timeout(struct thread *thread, int states)
{
    struct timeout timeout = {.flags = thread->armed_flags & states, .deadline = CLOCK_NEVER};
    if (!timeout.flags)
        return timeout;
    int64_t now = clock_now();
    timeout.is_absolute = thread->armed_is_absolute;
    timeout.nanoseconds = thread->armed_nanoseconds;
    if (timeout.is_absolute)
        timeout.deadline = timeout.nanoseconds > INT64_MAX ? CLOCK_NEVER : (int64_t)timeout.nanoseconds;
    else
        timeout.deadline = clock_after(now, timeout.nanoseconds);
    timeout.immediate = timeout.deadline <= now;
    return timeout;
}

void thread_disarm(struct thread *thread)
{
    thread->armed_flags = 0;
}

void thread_after_fork_in_child(void)
{
    pthread_mutex_init(&lock, NULL);
    memset(taken, 0, sizeof taken);
    taken[0] = 3;
    threads = NULL;
    if (self.tid) {
        self.tid = MAIN_TID;
        self.next = NULL;
        atomic_store(&self.sends_on, NULL); /* Another thread of the parent may have been about to interrupt it. */
        threads = &self;
    }
}
