/* What becomes of signals that come while the library does something else than wait. */
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

static atomic_bool comes_at_read;
static atomic_int handled;

/* In place of the C library's: a signal comes just before. */
ssize_t read(int fd, void *buffer, size_t size)
{
    if (size == sizeof(uint64_t) && atomic_exchange(&comes_at_read, false))
        raise(SIGUSR1);
    return syscall(SYS_read, fd, buffer, size);
}

static void note(int number)
{
    (void)number;
    handled++;
}

/* B228: a thread that waits for a message, and looks once a second whether its channel can still be found. */
static void a_thread_that_looks(void)
{
    char message[16];
    const struct sigaction action = {.sa_handler = note};
    CHECK(!sigaction(SIGUSR1, &action, NULL));
    int chid = ChannelCreate(0);
    CHECK(chid > 0);
    comes_at_read = true;
    CHECK_FAILS(MsgReceive(chid, message, sizeof message, NULL), EINTR);
    CHECK(!comes_at_read && handled == 1);
    /* Nothing is held back from the thread when its call has ended. */
    CHECK(!raise(SIGUSR1));
    CHECK(handled == 2);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {{"a_thread_that_looks", a_thread_that_looks}};
    return RUN_CASES(cases, argc, argv);
}
