"""Scenarios in which no request may be lost, whatever is killed, stopped, taken away or raised."""

import contextlib
import copy
import ctypes
import functools
import itertools
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from errno import EAGAIN, EINTR
from typing import Any, Callable, Dict, Iterator, List, Sequence

import ha_qnx
from ha_qnx import Backend, Connection, backends, strategies

from .accounts import NOBODY, Report, answer_of, internal_error, request_of
from .stage import DEADLINE, NAME, PATH, Process, Stage, open_files

#: Bytes of a request and of its answer: within a frame, beyond it, within a window.
_SIZES = [(0, 64), (100, 16), (5000, 64), (64, 9000), (100_000, 100_000)]

#: Nobody lets so many threads share one number.
THREADS = 10


class Client:
    """Sends numbered requests, and notes what it got."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.stage, self.number = stage, number
        self.qnx: Backend = backends.backend(stage.client_backend)
        self.answered: List[List[int]] = []
        self._run: List[int] = []  # the last of these
        self.wrong: List[Sequence[int]] = []
        self.abandoned: List[Sequence[int]] = []
        self.errors: List[str] = []
        self.internal: List[str] = []
        self.leaked = 0
        #: Whether an OSError is a fault; and which one is none in any case, and the request is left alone.
        self.is_strict = True
        self.expected = 0
        self._numbers = itertools.count(1)
        self._children = 0

    def siblings(self, count: int) -> "List[Client]":
        """So many in all, for as many threads: each with a number of its own, and one report."""
        parts = [self]
        for _sibling in range(count - 1):
            parts.append(copy.copy(self))
            parts[-1].number = parts[-2].number + 1
            parts[-1]._numbers, parts[-1]._run = itertools.count(1), []
        return parts

    def connect(self, target: str = "", **how: Any) -> Connection:
        """To the name or, if our number is odd, to the path; the server may be about to start."""
        target = target or (PATH if self.number // THREADS % 2 else NAME)
        return ha_qnx.connect(target, backend=self.qnx, wait=DEADLINE, timeout=DEADLINE, attempts=None, **how)

    def ask(self, connection: Connection, size: int = 0, room: int = 64) -> None:
        """A request that has to be answered."""
        number = next(self._numbers)
        request = request_of(self.number, number, size, room)
        try:
            answer = connection.ask(request, room=room)
        except OSError as error:
            if error.errno != self.expected:
                raise
            self.abandoned.append((self.number, number))
            return
        if self._run[1:] and self._run[2] == number - 1:
            self._run[2] = number
        else:
            self._run = [self.number, number, number]
            self.answered.append(self._run)
        if answer != answer_of(request):
            self.wrong.append((self.number, number))

    def pulse(self, connection: Connection, value: int) -> None:
        """A pulse, of which nobody keeps account."""
        try:
            connection.pulse(5, value)
        except OSError as error:
            if error.errno != self.expected:
                raise

    def note(self, error: BaseException) -> None:
        """Of a request that should have been answered."""
        internal = internal_error(error)
        if internal is None and self.is_strict:
            self.errors.append(f"{error!r} of {error.__cause__!r}")
        elif internal is not None:
            self.internal.append(internal)

    def fork(self, connection: Connection) -> None:
        """Have a child ask on what it inherits, and on a connection of its own."""
        self._children += 1
        number = 1000 * (self.number + 1) + self._children
        pid = os.fork()
        if pid:
            self._wait_for(pid)
            return
        try:
            child = Client(self.stage, number)
            child.is_strict = self.is_strict
            with child.noting():
                child.ask(connection)
                child.ask(connection, 100_000, 100_000)
                with child.connect() as own:
                    child.ask(own)
            self.stage.report(child.report())
        finally:
            os._exit(0)

    def _wait_for(self, pid: int) -> None:
        end = time.monotonic() + DEADLINE
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGUSR1)
                time.sleep(0.1)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                self.errors.append("a forked child hung")
                return
            time.sleep(0.001)

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.note(error)

    def report(self) -> Report:
        return Report(self.answered, self.wrong, self.abandoned, self.errors, self.internal, self.leaked)


def leaves_nothing(client: Client, body: Callable[[], object]) -> None:
    """Run what shall have closed in the end what it opens, after one round that makes what a process makes once."""
    with client.noting():
        with client.connect() as connection:
            client.ask(connection)
        before = open_files("self")
        body()
        end = time.monotonic() + 2
        after = open_files("self")
        while len(after) > len(before) and time.monotonic() < end:
            time.sleep(0.005)
            after = open_files("self")
        client.leaked = max(0, len(after) - len(before))
        if client.leaked:
            print(f"before: {before}, after: {after}", file=sys.stderr, flush=True)


def steady(stage: Stage, number: int, threads: int = 1, seed: int = 0, expected: int = 0) -> Report:
    """A client that asks until it is told to end, by threads that share a connection. One errno is none to it."""
    first = Client(stage, THREADS * number)
    first.expected = expected
    parts = first.siblings(threads)

    def send(part: Client, connection: Connection) -> None:
        rng = random.Random(seed + part.number)  # noqa: S311  # no secret depends on it
        with part.noting():
            while not stage.is_over:
                part.ask(connection, *rng.choices(_SIZES, (10, 10, 4, 4, 1))[0])
                if rng.random() < 0.05:
                    part.pulse(connection, rng.randrange(1000))
                    time.sleep(rng.random() * 0.002)  # Servers die while this client wants nothing, too.

    def body() -> None:
        with parts[0].connect() as connection:
            others = [threading.Thread(target=send, args=(part, connection)) for part in parts[1:]]
            for thread in others:
                thread.start()
            send(parts[0], connection)
            for thread in others:
                thread.join()

    leaves_nothing(parts[0], body)
    return parts[0].report()


def calm(stage: Stage, number: int) -> Report:
    """A client that asks now and then, for what takes a window, too, until it is told to end."""
    client = Client(stage, THREADS * number)

    def body() -> None:
        with client.connect() as connection:
            for round_number in itertools.count():
                for size in _SIZES:
                    client.ask(connection, *size)
                    time.sleep(0.002)
                if round_number == 0:
                    stage.me.tell("all sizes")
                if stage.is_over:
                    return

    leaves_nothing(client, body)
    return client.report()


# The scenarios. Each takes a stage and a generator of random numbers, and some seconds if it can use them.


def random_kills(stage: Stage, rng: random.Random, seconds: float) -> None:
    """Servers are killed at any moment, beside two clients of two threads each."""
    stage.serve(threads=2)
    for _client in range(2):
        stage.client(lambda number: steady(stage, number, 2, rng.randrange(1 << 30)))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.random() * 0.03)
        stage.kill(stage.servers[-1])
        stage.serve(threads=2)
    stage.end_clients()
    stage.wait_for_clients(2 * DEADLINE)


def stops(stage: Stage, rng: random.Random, seconds: float) -> None:
    """Server and clients are stopped and go on, and some servers never do."""
    stage.serve(threads=2)
    for _client in range(2):
        stage.client(lambda number: steady(stage, number, 2))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        victim = rng.choice([stage.servers[-1], *stage.clients])
        victim.signal(signal.SIGSTOP)
        time.sleep(rng.random() * 0.02)
        if victim is stage.servers[-1] and rng.random() < 0.3:
            stage.kill(victim)
            stage.serve(threads=2)
        else:
            victim.signal(signal.SIGCONT)
        time.sleep(rng.random() * 0.01)
    stage.end_clients()
    stage.wait_for_clients()


def race_for_a_name(stage: Stage, rng: random.Random, seconds: float) -> None:
    """Two servers wait for a name that a third has, which is killed: one gets it, and no client sees the other."""
    stage.serve()
    for _client in range(2):
        stage.client(lambda number: steady(stage, 2 * number))  # By the name only: both may have the path.
    waiting = [stage.serve(standby=True), stage.serve(standby=True)]
    holder = stage.servers[0]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.random() * 0.03)
        stage.kill(holder)
        # Whoever says that it is ready has it; the other one waits.
        holder = next_ready(waiting)
        waiting.remove(holder)
        waiting.append(stage.serve(standby=True))
    stage.end_clients()
    stage.wait_for_clients()


def next_ready(waiting: Sequence[Process]) -> Process:
    """The one of these that is first to say that it serves."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        for process in waiting:
            if process.hear(0.001) is not None:
                return process
    raise AssertionError("no server takes the name")


def directory_removed(stage: Stage, rng: random.Random, seconds: float) -> None:
    """Somebody removes the runtime directory; servers die, and the next ones make it again."""
    stage.serve()
    for _client in range(2):
        stage.client(lambda number: steady(stage, number))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.random() * 0.05)
        shutil.rmtree(stage.directory / "run", ignore_errors=True)
        time.sleep(rng.random() * 0.05)
        stage.kill(stage.servers[-1])
        stage.serve()
    stage.end_clients()
    stage.wait_for_clients()


def descriptors_short(stage: Stage, rng: random.Random, seconds: float) -> None:
    """More clients than the server has room for: some are refused, those that came first are answered."""

    def shorten() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    def crowd(number: int) -> Report:
        client = Client(stage, THREADS * number)
        held: List[Connection] = []
        while not stage.is_over and len(held) < 60:
            with contextlib.suppress(OSError):  # There is no room.
                held.append(ha_qnx.connect(NAME, recover=None, backend=client.qnx))
                held[-1].ask(request_of(client.number, 1_000_000 + len(held)))
        for connection in held:
            connection.close()
        return client.report()

    stage.serve(setup=shorten).hear()
    for _client in range(2):
        stage.client(lambda number: steady(stage, number, expected=EAGAIN))  # There is no room for a lane.
    time.sleep(0.3)
    stage.start("crowd", lambda: crowd(8))
    time.sleep(min(seconds, 3))
    stage.end_clients()
    stage.wait_for_clients()


def memory_short(stage: Stage, rng: random.Random, seconds: float) -> None:
    """A server has no memory for messages that are too large: those fail, or not; all others are answered."""

    def greedy() -> Report:
        client = Client(stage, THREADS * 9)
        chance = random.Random(1)  # noqa: S311  # no secret depends on it
        for number in itertools.count():
            if stage.is_over:
                break
            request = request_of(NOBODY, number).ljust(chance.choice((1 << 20, 8 << 20, 64 << 20)), b"x")
            try:
                with ha_qnx.connect(NAME, recover=None, backend=client.qnx) as connection:
                    connection.ask(request)
            except OSError:
                client.abandoned.append((NOBODY, number))
        return client.report()

    server = stage.serve()
    server.hear()
    for _client in range(2):
        stage.client(lambda number: calm(stage, number)).hear()  # So it has what it needs for these.
    size = int(pathlib.Path(f"/proc/{server.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(server.pid, resource.RLIMIT_AS, (size + (24 << 20), size + (24 << 20)))
    stage.start("greedy", lambda: stage.report(greedy()))
    time.sleep(max(1.0, seconds))
    stage.end_clients()
    stage.wait_for_clients()
    stage.processes[-1].wait()


def disk_full(stage: Stage, rng: random.Random, seconds: float) -> None:
    """The runtime directory lies on a disk that gets full: no server starts then; the next one that can is found."""
    if os.geteuid():
        return  # Only root can mount one.
    run = stage.directory / "run"
    run.mkdir(mode=0o700)
    disk = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=40,mode=700", "none", str(run)]
    subprocess.run(disk, check=True)  # noqa: S603  # our own command
    try:
        stage.serve().hear()
        for _client in range(2):
            stage.client(lambda number: steady(stage, number))
        end = time.monotonic() + max(1.0, seconds)
        while time.monotonic() < end:
            fill(run)
            time.sleep(rng.random() * 0.05)
            stage.kill(stage.servers[-1])
            is_ready = stage.serve().hear(0.2 + rng.random() * 0.3)
            for path in run.glob("filler-*"):
                path.unlink()
            while is_ready is None:
                is_ready = stage.servers[-1].hear()
                if is_ready is None:  # It has found no room.
                    stage.kill(stage.servers[-1])
                    is_ready = stage.serve().hear()
            time.sleep(rng.random() * 0.05)
        stage.end_clients()
        stage.wait_for_clients()
        stage.stop_servers()
    finally:
        subprocess.run(["umount", "-l", str(run)], check=True)  # noqa: S603, S607  # our own command


def fill(directory: pathlib.Path) -> None:
    """Make files until there is room for none."""
    with contextlib.suppress(OSError):
        for number in itertools.count():
            with open(directory / f"filler-{number}", "wb") as file:
                file.write(bytes(4096))


def signals(stage: Stage, rng: random.Random, seconds: float) -> None:
    """Signals with a handler come to every thread of servers and clients."""

    def handle() -> None:
        signal.signal(signal.SIGUSR2, lambda *_signal: None)

    def client(number: int) -> Report:
        handle()
        return steady(stage, number, 3, expected=EINTR)

    stage.serve(threads=3, setup=handle).hear()
    for _client in range(2):
        stage.client(client)
    time.sleep(0.2)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for process in (stage.servers[-1], *stage.clients):
            for thread in process.threads:
                signal_thread(process.pid, thread, signal.SIGUSR2)
        time.sleep(rng.random() * 0.003)
        if rng.random() < 0.01:
            stage.kill(stage.servers[-1])
            stage.serve(threads=3, setup=handle).hear()
    stage.end_clients()
    stage.wait_for_clients()


def signal_thread(pid: int, thread: int, number: int) -> None:
    """To one thread of another process; if it has ended, to nobody."""
    tgkill = {"x86_64": 234, "aarch64": 131}[os.uname().machine]
    ctypes.CDLL(None).syscall(tgkill, pid, thread, number)


def forks(stage: Stage, rng: random.Random, seconds: float) -> None:
    """Threads fork while others send; each child asks on what it inherits, and on a connection of its own."""

    def body(number: int) -> Report:
        parts = Client(stage, THREADS * number).siblings(2)

        def fork(part: Client, connection: Connection) -> None:
            with part.noting():
                while not stage.is_over:
                    part.ask(connection, *_SIZES[-1])
                    part.fork(connection)

        def run() -> None:
            with parts[0].connect() as connection:
                others = [threading.Thread(target=fork, args=(part, connection)) for part in parts]
                for thread in others:
                    thread.start()
                for thread in others:
                    thread.join()

        leaves_nothing(parts[0], run)
        return parts[0].report()

    stage.serve().hear()
    for _client in range(2):
        stage.client(body)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1 + rng.random() * 0.1)
        stage.kill(stage.servers[-1])
        stage.serve()
    stage.end_clients()
    stage.wait_for_clients(2 * DEADLINE)


def recovery_functions(stage: Stage, rng: random.Random, seconds: float) -> None:
    """Recovery functions that raise, recurse, close, detach, fork or hang: what they do, and no more, goes wrong."""
    for what in ("raise", "recurse", "close", "detach", "fork", "hang"):
        stage.serve().hear()
        stage.client(functools.partial(odd_recovery, stage, what))
        stage.clients[-1].hear()
        stage.kill(stage.servers[-1])
        stage.serve().hear()
        stage.allow_step()
        stage.wait_for_clients()
        stage.stop_servers()


def odd_recovery(stage: Stage, what: str, step: int) -> Report:
    """A client whose recovery function does one odd thing at its first call, and then what it should."""
    client = Client(stage, THREADS * step)
    qnx = client.qnx
    reopen = strategies.wait_for(strategies.reopen_name(NAME, backend=qnx), DEADLINE)
    odd = [what]
    made: List[Connection] = []

    def recover(coid: int, handle: object) -> int:
        now = odd.pop() if odd else ""
        if now == "raise":
            raise RuntimeError("on purpose")
        if now == "recurse":
            with contextlib.suppress(OSError):
                made[0].ask(request_of(client.number, 1_000_000))
        elif now == "close":
            made[0].close()
            return -1
        elif now == "detach":
            qnx.ha_detach(coid)
        elif now == "fork" and not os.fork():
            os._exit(0)
        elif now == "hang":
            time.sleep(0.3)
        return reopen(coid, handle)

    def body() -> None:
        connection = client.connect(NAME, recover=recover)
        made.append(connection)
        client.ask(connection)
        stage.me.tell("connected")
        while stage.step <= step:
            time.sleep(0.001)
        if what in ("raise", "close", "detach"):
            with contextlib.suppress(OSError):
                connection.ask(request_of(client.number, 1_000_001))
        if what not in ("close", "detach"):
            client.ask(connection)
        with contextlib.suppress(OSError):
            connection.close()
        with client.connect() as anew:
            client.ask(anew)

    leaves_nothing(client, body)
    return client.report()


SCENARIOS: Dict[str, Callable[[Stage, random.Random, float], None]] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        random_kills,
        stops,
        race_for_a_name,
        directory_removed,
        descriptors_short,
        memory_short,
        disk_full,
        signals,
        forks,
        recovery_functions,
    )
}
