/* What the library does when the process forks, and when it ends. */
#include <pthread.h>
#include <unistd.h>

#include "calls/name.h"
#include "calls/resmgr.h"
#include "client/connection.h"
#include "client/events.h"
#include "client/recovery.h"
#include "client/said.h"
#include "client/successor.h"
#include "client/trunk.h"
#include "host/descriptor.h"
#include "host/runtime.h"
#include "host/signals.h"
#include "host/thread.h"
#include "number.h"
#include "server/channel.h"
#include "server/deaths.h"
#include "server/heard.h"
#include "server/keeper.h"
#include "server/rcvid.h"
#include "timers.h"

static pid_t process;

/*
 * The parent stands still where its table of connections, its own descriptors and the runtime directory are whole. All
 * else may be in the middle of a change: the child makes those locks anew, and puts aside what they guard.
 */
static void before_fork(void)
{
    table_lock();
    trunk_hear_all();
    runtime_before_fork();
    descriptor_before_fork();
}

static void after_fork_in_parent(void)
{
    descriptor_after_fork_in_parent();
    runtime_after_fork();
    table_unlock();
}

static void after_fork_in_child(void)
{
    pid_t parent = process;
    process = getpid();
    descriptor_after_fork_in_child();
    runtime_after_fork();
    runtime_after_fork_in_child();
    thread_after_fork_in_child();
    signals_after_fork_in_child();
    number_after_fork_in_child();
    rcvid_after_fork_in_child();
    timers_after_fork_in_child();
    recovery_after_fork_in_child();
    connection_after_fork_in_child(parent);
    deaths_after_fork_in_child();
    trunk_after_fork_in_child();
    events_after_fork_in_child();
    said_after_fork_in_child();
    heard_after_fork_in_child();
    table_unlock();
    keeper_after_fork_in_child();
    name_after_fork_in_child();
    resmgr_after_fork_in_child();
}

__attribute__((constructor)) static void start(void)
{
    process = getpid();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    thread_on_exit(deaths_of_thread);
    rcvid_start();
    timers_start();
    successor_is_told(connection_inherit);
    keeper_looks_after(name_keep, resmgr_keep);
}

/* A process that ends in good order leaves nothing behind in the runtime directory. */
__attribute__((destructor)) static void end(void)
{
    if (process != getpid())
        return;
    name_at_exit();
    resmgr_at_exit();
    channel_at_exit();
}
