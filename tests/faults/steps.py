"""One client visits one server, and either is killed at its n-th call, or each of its calls fails with each errno."""

import errno
import functools
import random
import time
import zlib
from typing import Callable, Counter, Dict, List, NamedTuple

from ha_qnx import Connection

from .accounting import Client
from .accounts import Report, held_request
from .shim import Plan
from .stage import NAME, PATH, Stage, descriptors, staged

SIDES = ("server", "client")

#: What each call can fail with, as Linux's manual pages have it, where that is no mistake of the
#: caller. (Of close and fstat, nothing: what either twin has open are no files on a disk. Nor is there what
#: says that the other side has gone, or that nothing has come or nothing more fits, where that is not so: that it goes
#: is what kills are for, and what waits for news would wait for what it has had.)
ERRNOS = {
    "accept4": "EMFILE ENFILE ECONNABORTED ENOMEM EINTR",
    "bind": "EACCES EADDRINUSE ENOMEM ENOSPC EROFS",
    "calloc": "ENOMEM",
    "connect": "EAGAIN ENOENT EACCES EINTR",
    "dup": "EMFILE",
    "dup2": "EBUSY EINTR",
    "dup3": "EBUSY EINTR",
    "epoll_create1": "EMFILE ENFILE ENOMEM",
    "epoll_ctl": "ENOMEM ENOSPC",
    "epoll_wait": "EINTR",
    "eventfd": "EMFILE ENFILE ENOMEM",
    "fcntl": "EMFILE EPERM",
    "fdopendir": "ENOMEM",
    "flock": "EINTR ENOLCK EWOULDBLOCK",
    "ftruncate": "EINTR EIO ENOSPC",
    "getrandom": "EINTR",
    "ioctl": "ENOMEM",
    "listen": "EADDRINUSE",
    "lstat": "EACCES ENOENT ENOMEM",
    "malloc": "ENOMEM",
    "memfd_create": "EMFILE ENFILE ENOMEM",
    "mkdir": "EACCES EEXIST ENOENT ENOSPC EROFS",
    "mmap": "EAGAIN ENOMEM",
    "open": "EACCES EINTR EMFILE ENFILE ENOENT ENOSPC",
    "openat": "EACCES EINTR EMFILE ENFILE ENOENT ENOSPC",
    "opendir": "EACCES EMFILE ENOENT ENOMEM",
    "pipe2": "EMFILE ENFILE",
    "poll": "EINTR ENOMEM",
    "ppoll": "EINTR ENOMEM",
    "pread": "EINTR EIO",
    "pwrite": "EINTR EIO ENOSPC",
    "read": "EINTR",
    "realloc": "ENOMEM",
    "recv": "EINTR ENOMEM",
    "recvmsg": "EINTR ENOMEM",
    "rename": "EACCES ENOENT ENOSPC",
    "rmdir": "EBUSY ENOENT ENOTEMPTY",
    "send": "EAGAIN EINTR ENOBUFS",
    "sendmsg": "EAGAIN EINTR ENOBUFS ETOOMANYREFS",
    "setsockopt": "ENOMEM",
    "socket": "EMFILE ENFILE ENOBUFS",
    "socketpair": "EMFILE ENFILE ENOBUFS",
    "stat": "EACCES ENOENT ENOMEM",
    "timerfd_create": "EMFILE ENFILE ENOMEM",
    "timerfd_settime": "EINTR",
    "unlink": "EACCES ENOENT EROFS",
    "write": "EINTR",
    "writev": "EINTR",
}

#: How long a visit may take that has something fail in it, in seconds.
_PATIENCE = 10.0


def visit(stage: Stage, number: int, kept: int, is_tolerant: bool = False) -> Report:
    """Connect to the name and to the path; small and large messages, a pulse, a timeout, a fork; detach.

    Args:
        stage: where.
        number: of the client.
        kept: how many descriptors a process makes once, and keeps.
        is_tolerant: whether an OSError will do for an answer. Then, when what was planned is over, the same process
            asks once more, in earnest.
    """
    client = Client(stage, 10 * number)
    before = descriptors()
    if stage.me.plan is not None:
        stage.me.plan.begin()
    client.is_strict = not is_tolerant
    _steps(client)
    if stage.me.plan is not None:
        stage.me.plan.pause()
    if is_tolerant:
        stage.me.tell("visited")
        while stage.step < 1:
            time.sleep(0.001)
        client.is_strict = True
        greet(client)
    client.leaked = beyond(descriptors, before + kept)
    return client.report()


def greet(client: Client) -> Report:
    """Short and honest."""
    with client.noting(), client.connect() as connection:
        client.ask(connection)
        client.ask(connection, 100_000, 100_000)
    return client.report()


def beyond(number: Callable[[], int], most: int) -> int:
    """By how much a number exceeds another, if it still does after a while."""
    end = time.monotonic() + 3
    while number() > most and time.monotonic() < end:
        time.sleep(0.002)
    return max(0, number() - most)


def _steps(client: Client) -> None:
    def time_out(target: str, _coid: Connection) -> None:
        """On an ordinary connection: a message that is sent again has no timeout any more."""
        with client.connect(target, recover=None) as connection:
            try:
                connection.ask(held_request(), timeout=0.01)
            except OSError as error:
                if error.errno not in (errno.ETIMEDOUT, errno.EBADF, errno.ESRCH):
                    raise

    for target in (NAME, PATH):
        with client.noting(), client.connect(target) as connection:
            steps: List[Callable[[Connection], object]] = [
                client.ask,
                lambda coid: client.ask(coid, 100_000, 100_000),
                lambda coid: coid.pulse(5, 6),
                functools.partial(time_out, target),
                client.fork,
                lambda coid: client.ask(coid, 5000, 64),
            ]
            for step in steps:
                with client.noting():
                    step(connection)


class Usual(NamedTuple):
    """What is found where nothing goes wrong."""

    calls: Dict[str, Dict[str, int]]  # of each side, how often each call is made
    kept: int  # descriptors that a client keeps
    server: int  # descriptors of a server without clients


def usual(client: str, server: str) -> Usual:
    """A visit at which nothing happens."""
    plans = {side: Plan().count() for side in SIDES}
    stage = Stage(client, server)
    try:
        serving = stage.serve(plans["server"])
        stage.client(lambda number: visit(stage, number, 0), plans["client"])
        stage.wait_for_clients()
        (report,) = [report for report in stage.reports() if [0, 1, 6] in report.answered]
        time.sleep(0.05)
        remaining = serving.descriptors
        stage.stop_servers()
        return Usual({side: plan.counts for side, plan in plans.items()}, report.leaked, remaining)
    finally:
        stage.close()


def suffer(stage: Stage, side: str, plan: Plan, found: Usual, is_tolerant: bool) -> None:
    """A visit at which one side has a plan; afterwards all is as good as new."""
    serving = stage.serve(plan if side == "server" else None)
    visitor = stage.client(
        lambda number: visit(stage, number, found.kept, is_tolerant), plan if side == "client" else None
    )
    if is_tolerant:
        end = time.monotonic() + _PATIENCE
        while visitor.hear(0.001) is None and visitor.poll() is None and time.monotonic() < end:
            stage.keep_served()
        plan.pause()
        stage.allow_step()
    stage.wait_for_clients(_PATIENCE, stage.keep_served)
    if side == "client":
        stage.client(lambda number: greet(Client(stage, 10 * number)))
        stage.wait_for_clients(_PATIENCE)
    server = stage.servers[-1]
    leaked = beyond(lambda: server.descriptors, found.server)
    if leaked:
        stage.note("descriptors of the server", server.open_files())
    stage.faults["leaked"] += leaked
    if serving is server:
        plan.resume(server.pid)


def kills(client: str, server: str, side: str, total: Counter[str], step: int, first: int) -> int:
    """Kill one side at its n-th call, for n = 1, 2, 3 ... until it comes to its end; how many there are.

    Args:
        client: a backend.
        server: a backend.
        side: who is killed.
        total: what is found is added to it.
        step: with 1, every call; else one of so many.
        first: how many are left out at first.
    """
    found = usual(client, server)
    for nth in range(1 + first, 100_000, step):
        plan = Plan().kill(nth)
        with staged(client, server, total, f"{side} killed at call {nth}") as stage:
            suffer(stage, side, plan, found, False)
        if plan.fired is None:
            return nth - 1
        total["kills"] += 1
    raise AssertionError("it makes more and more calls")


def errors(
    client: str, server: str, side: str, total: Counter[str], end: float, rng: random.Random, first: int = 0
) -> int:
    """Fail each call of one side with each errno, in any order, as far as it goes until the end.

    Args:
        client: a backend.
        server: a backend.
        side: whose calls fail.
        total: what is found is added to it.
        end: a point of time.monotonic().
        rng: decides on the order; what is left of one run another goes on with that has the same seed.
        first: where to begin in that order, as an earlier run has said.

    Returns:
        Where the next run goes on; 0 if there is nothing left.
    """
    seed = rng.getrandbits(64)
    found = usual(client, server)
    cases = [
        (call, nth, name)
        for call, number in found.calls[side].items()
        for nth in range(1, number + 1)
        for name in ERRNOS.get(call, "").split()
    ]
    # A place that does not depend on how many others there are, which differs from run to run.
    placed = sorted((zlib.crc32(f"{seed} {case}".encode()), case) for case in cases)
    left = [entry for entry in placed if entry[0] >= first]
    for number, (place, (call, nth, name)) in enumerate(left):
        if time.monotonic() > end:
            total["errors not tried"] += len(left) - number
            return place
        plan = Plan().fail(call, nth, getattr(errno, name))
        with staged(client, server, total, f"{name} of {call} {nth} in the {side}") as stage:
            suffer(stage, side, plan, found, True)
        total["errors"] += plan.fired is not None
        total["errors not met"] += plan.fired is None
    return 0
