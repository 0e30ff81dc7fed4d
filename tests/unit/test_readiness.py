"""Waiting for connections: select, poll, epoll, selectors and event loops under the drop-in, and ha_qnx.aio."""

import asyncio
import contextlib
import fcntl
import itertools
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from errno import EBADF, EEXIST, EINVAL, ENOENT
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually

import ha_qnx
from ha_qnx import Connection, aio, dropin, readiness, strategies
from ha_qnx.connection import connect

PATH, OTHER = "/dev/letters", "/dev/parcels"

# A server of which can be read what was written to it. It has room for three letters.
SERVER = """
import collections, sys, threading
import ha_qnx
from ha_qnx import NOTIFY_COND_INPUT, NOTIFY_COND_OUTPUT

class Letters(ha_qnx.Service):
    letters = collections.deque()

    def ready(self):
        print("ready", flush=True)

    def message(self, request):
        print("message", flush=True)
        return b"yes"

    def notify(self, request, conditions):
        print("asked", flush=True)
        holds = NOTIFY_COND_INPUT if self.letters else 0
        return holds | (NOTIFY_COND_OUTPUT if len(self.letters) < 3 else 0)

    def read(self, request, nbytes):
        letter = self.letters.popleft() if self.letters else b""
        self.trigger(NOTIFY_COND_OUTPUT)
        return letter

    def write(self, request, data):
        self.letters.append(data)
        self.trigger()

class Silent(ha_qnx.Service):
    def ready(self):
        print("ready", flush=True)

class Hanging(Silent):
    def notify(self, request, conditions):
        threading.Event().wait()

{"letters": Letters, "silent": Silent, "hanging": Hanging}[sys.argv[2]](sys.argv[1]).serve(grace=0)
"""

Serve = Callable[..., Any]


@pytest.fixture
def serve(start_program: Callable[..., Any]) -> Serve:
    """Starts the server, and waits until it can be found."""

    def start(path: str = PATH, kind: str = "letters") -> Any:
        program = start_program(SERVER, path, kind)
        eventually(lambda: "ready" in program.output, "the server")
        return program

    return start


@pytest.fixture
def installed(qnx: ha_qnx.Backend) -> Iterator[ha_qnx.Backend]:
    """Each backend, while the drop-in is installed for it."""
    with dropin.installed(qnx):
        yield qnx


@pytest.fixture
def server(installed: ha_qnx.Backend, serve: Serve) -> Any:
    return serve()


@pytest.fixture
def letters(server: Any) -> Iterator[int]:
    """A descriptor of the server."""
    fd = os.open(PATH, os.O_RDWR)
    yield fd
    os.close(fd)


def waiting_at(server: Any, *calls: Any) -> Task:
    """A call that waits, once the server has armed its event: it is asked twice for that."""
    asked = server.output.count("asked")
    waiting = Task(*calls)
    eventually(lambda: server.output.count("asked") >= asked + 2, "the server to be asked")
    return waiting


@pytest.fixture
def pipe() -> Iterator[Tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def nothing() -> Tuple[List[Any], List[Any], List[Any]]:
    return [], [], []


def test_select_tells_what_holds(letters: int) -> None:
    """Room to write at once; something to read when it has been written."""
    assert select.select([letters], [letters], [], 0) == ([], [letters], [])
    os.write(letters, b"one")
    assert select.select([letters], [letters], [letters]) == ([letters], [letters], [])
    assert select.select([letters], [], []) == ([letters], [], [])
    for _ in range(2):
        os.write(letters, b"more")
    assert select.select([letters], [letters], [], 0) == ([letters], [], [])
    assert os.read(letters, 10) == b"one"


def test_select_waits_until_its_time_is_over(letters: int, pipe: Tuple[int, int]) -> None:
    """And tells that nothing holds, beside what the host knows, and without."""
    before = time.monotonic()
    assert select.select([letters], [], [], 0.05) == nothing()
    assert select.select([letters, pipe[0]], [], [letters], 0.05) == nothing()
    assert time.monotonic() - before >= 0.1


def test_select_wakes_when_the_server_says_so(server: Any, letters: int, pipe: Tuple[int, int]) -> None:
    """Again and again, and when a descriptor of the host is ready."""
    for _ in range(3):
        waiting = waiting_at(server, select.select, [pipe[0], letters], [], [], DEADLINE)
        os.write(letters, b"letter")
        assert waiting.result() == ([letters], [], [])
        assert os.read(letters, 10) == b"letter"
    waiting = waiting_at(server, select.select, [pipe[0], letters], [], [], DEADLINE)
    os.write(pipe[1], b"x")
    assert waiting.result() == ([pipe[0]], [], [])


def test_select_takes_files_and_sockets_as_ever(letters: int) -> None:
    """What has a fileno() is given back as it was given, a file on a connection among them."""
    ours, theirs = socket.socketpair()
    with ours, theirs, open(letters, "rb", buffering=0, closefd=False) as file:
        both: List[Any] = [theirs, file]
        assert select.select((ours, *both[1:]), [theirs], [], 0) == ([], [theirs], [])
        ours.send(b"x")
        os.write(letters, b"letter")
        assert select.select(both, [], [], 0)[0] == both
        assert select.select([ours], [ours], [], 0) == ([], [ours], [])
        call: Any = select.select
        for wrong in (["1"], [object()], None):
            with pytest.raises(TypeError):
                call(wrong, [], [], 0)
        with pytest.raises((ValueError, OSError)):
            select.select([letters, -1], [], [], 0)


def test_two_threads_and_two_connections(server: Any, letters: int, serve: Serve) -> None:
    """Who waits for one of them, and who waits for both, are both told."""
    second = serve(OTHER)
    other = os.open(OTHER, os.O_RDWR)
    one = waiting_at(server, select.select, [letters], [], [], DEADLINE)
    both = waiting_at(second, select.select, [letters, other], [], [], DEADLINE)
    os.write(other, b"parcel")
    assert both.result() == ([other], [], [])
    again = waiting_at(server, select.select, [letters], [], [], DEADLINE)
    assert not one.done
    os.write(letters, b"letter")
    assert [waiting.result() for waiting in (one, again)] == [([letters], [], [])] * 2
    os.close(other)


def test_a_server_without_readiness_is_ready(installed: ha_qnx.Backend, serve: Serve) -> None:
    """As on QNX."""
    serve(PATH, "silent")
    fd = os.open(PATH, os.O_RDWR)
    assert select.select([fd], [fd], [], 0) == ([fd], [fd], [])
    os.close(fd)


@pytest.mark.slow
def test_a_server_that_hangs_is_not_ready(installed: ha_qnx.Backend, serve: Serve, pipe: Tuple[int, int]) -> None:
    """It keeps a wait that ends no longer than it takes to free the client, and the host's descriptors are seen."""
    server = serve(PATH, "hanging")
    fd = os.open(PATH, os.O_RDWR)
    assert Task(select.select, [fd, pipe[0]], [], [], 0.01).result() == nothing()
    os.write(pipe[1], b"x")
    assert Task(select.select, [fd, pipe[0]], [], [], 0.01).result() == ([pipe[0]], [], [])
    server.kill()  # It would not answer to the closing, either.
    with fails_with(EBADF):
        os.close(fd)


def test_a_connection_that_is_lost_is_a_bad_descriptor(installed: ha_qnx.Backend, serve: Serve) -> None:
    """For select, EBADF; for poll, POLLNVAL: when the server is killed, and before."""
    server = serve()
    fd = os.open(PATH, os.O_RDWR)
    waiting = [waiting_at(server, select.select, [fd], [], [], DEADLINE), waiting_at(server, polled, fd)]
    server.kill()
    with fails_with(EBADF):
        waiting[0].result()
    assert waiting[1].result() == [(fd, select.POLLNVAL)]
    with fails_with(EBADF):
        select.select([fd], [], [], 0)
    assert polled(fd) == [(fd, select.POLLNVAL)]
    with fails_with(EBADF):
        os.close(fd)


def polled(fd: int, mask: int = select.POLLIN, milliseconds: Optional[float] = None) -> List[Tuple[int, int]]:
    poll = select.poll()
    poll.register(fd, mask)
    return poll.poll(milliseconds)


def test_a_wait_goes_on_at_the_next_server(qnx: ha_qnx.Backend, serve: Serve) -> None:
    """Of an HA-aware connection: what holds there ends it."""
    with dropin.installed(qnx, recover_within=DEADLINE):
        server = serve()
        fd = os.open(PATH, os.O_RDWR)
        waiting = [waiting_at(server, select.select, [fd], [], [], DEADLINE), waiting_at(server, polled, fd)]
        server.kill()
        successor = serve()
        eventually(lambda: successor.output.count("asked") >= 2, "both to ask the next server")
        assert not any(each.done for each in waiting)
        os.write(fd, b"letter")
        assert [each.result() for each in waiting] == [([fd], [], []), [(fd, select.POLLIN)]]
        os.close(fd)


def test_a_wait_goes_on_where_another_thread_has_recovered(qnx: ha_qnx.Backend, serve: Serve) -> None:
    """Who waits is armed at the next server, whoever brought the connection there."""
    with dropin.installed(qnx, recover_within=DEADLINE):
        server = serve()
        fd = os.open(PATH, os.O_RDWR)
        waiting = waiting_at(server, select.select, [fd], [], [], DEADLINE)
        server.kill()
        serve()
        assert os.write(fd, b"letter") == 6
        assert waiting.result() == ([fd], [], [])
        os.close(fd)


def test_a_poll_object_keeps_what_is_registered(letters: int, pipe: Tuple[int, int]) -> None:
    """Connections and descriptors of the host; what is modified, and what is unregistered."""
    poll = select.poll()
    poll.register(pipe[0], select.POLLIN)
    poll.register(letters)
    assert poll.poll(0) == [(letters, select.POLLOUT)]
    poll.modify(letters, select.POLLIN)
    assert poll.poll(10) == []
    os.write(letters, b"letter")
    assert poll.poll() == [(letters, select.POLLIN)]
    os.write(pipe[1], b"x")
    assert sorted(poll.poll()) == sorted([(pipe[0], select.POLLIN), (letters, select.POLLIN)])
    poll.unregister(letters)
    assert poll.poll() == [(pipe[0], select.POLLIN)]
    with pytest.raises(KeyError):
        poll.unregister(letters)
    with pytest.raises(FileNotFoundError):
        poll.modify(letters, select.POLLIN)
    poll.register(letters, select.POLLOUT)
    poll.register(letters, select.POLLIN)
    poll.unregister(pipe[0])
    assert poll.poll() == [(letters, select.POLLIN)]


def test_a_number_changes_hands(letters: int, pipe: Tuple[int, int]) -> None:
    """A connection that is closed is none any more, and what gets its number is taken for what it is; and back."""
    poll = select.poll()
    poll.register(letters, select.POLLIN)
    assert poll.poll(10) == []
    kept = os.dup(letters)
    os.close(letters)
    assert poll.poll() == [(letters, select.POLLNVAL)]
    assert os.dup2(pipe[0], letters) == letters
    poll.register(letters, select.POLLIN)
    assert poll.poll(0) == []
    os.write(pipe[1], b"x")
    assert poll.poll() == [(letters, select.POLLIN)]
    assert os.dup2(kept, letters) == letters
    os.close(kept)
    poll.register(letters, select.POLLIN)
    assert poll.poll(10) == []
    os.write(letters, b"letter")
    assert poll.poll() == [(letters, select.POLLIN)]


def test_a_signal_handler_waits_too(server: Any, letters: int) -> None:
    """Whatever it interrupts."""
    found: List[Any] = []
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: found.append(select.select([letters], [], [], 0)))
    stop = threading.Event()

    def interrupt() -> None:
        for sent in itertools.count():
            while len(found) < sent:  # One at a time: on a busy machine, each would be interrupted by the next.
                if stop.wait(0.001):
                    return
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            if stop.wait(0.001):
                return

    interrupting = Task(interrupt)
    try:
        for _ in range(200):
            assert select.select([letters], [], [], 0) == nothing()
    finally:
        stop.set()
        interrupting.result()
        signal.signal(signal.SIGUSR1, before)
    assert found
    assert all(each == nothing() for each in found)


def test_a_name_is_waited_for(installed: ha_qnx.Backend, serve: Serve) -> None:
    """A connection to a name, which no open has begun."""
    serve("letterbox")
    with connect("letterbox", backend=installed) as connection:
        assert select.select([connection], [connection], [], 0) == ([], [connection], [])
        os.write(connection, b"letter")
        assert select.select([connection], [], []) == ([connection], [], [])


def test_what_is_armed_is_not_asked_again(server: Any, letters: int) -> None:
    """A loop that looks again and again costs the server nothing."""
    poll = select.poll()
    poll.register(letters, select.POLLIN)
    for _ in range(100):
        assert poll.poll(0) == []
    assert server.output.count("asked") == 2


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="this host has no epoll")
def test_epoll_takes_connections(letters: int, pipe: Tuple[int, int]) -> None:
    """Level-triggered; in no other way."""
    with select.epoll() as epoll:
        epoll.register(letters, select.EPOLLIN)
        epoll.register(pipe[0], select.EPOLLIN)
        assert epoll.poll(0.01) == []
        os.write(letters, b"letter")
        assert epoll.poll() == epoll.poll(1, 1) == [(letters, select.EPOLLIN)]
        os.write(pipe[1], b"x")
        assert sorted(epoll.poll(1, 2)) == sorted([(pipe[0], select.EPOLLIN), (letters, select.EPOLLIN)])
        with fails_with(EEXIST):
            epoll.register(letters, select.EPOLLIN)
        for flag in (select.EPOLLET, select.EPOLLONESHOT):
            with fails_with(EINVAL):
                epoll.modify(letters, select.EPOLLIN | flag)
        epoll.unregister(letters)
        with pytest.raises(FileNotFoundError):
            epoll.unregister(letters)
        assert epoll.fileno() >= 0
    assert epoll.closed


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="this host has no epoll")
def test_what_the_host_has_stays_as_it_was(installed: ha_qnx.Backend, pipe: Tuple[int, int]) -> None:
    """Without a connection, the originals do it all."""
    made = select.epoll(4)
    with select.epoll.fromfd(os.dup(made.fileno())) as copy:
        copy.register(pipe[1], select.EPOLLOUT)
        assert made.poll() == copy.poll(-1) == [(pipe[1], select.EPOLLOUT)]
    made.close()
    assert select.select([pipe[0]], [pipe[1]], [], None) == ([], [pipe[1]], [])
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"


@pytest.mark.parametrize("name", ["DefaultSelector", "PollSelector", "SelectSelector", "EpollSelector"])
def test_selectors_take_connections(letters: int, pipe: Tuple[int, int], name: str) -> None:
    """Each of them, beside descriptors of the host."""
    if not hasattr(selectors, name):
        pytest.skip("this host has no such selector")
    with getattr(selectors, name)() as selector:
        selector.register(letters, selectors.EVENT_READ, "letters")
        selector.register(pipe[0], selectors.EVENT_READ, "pipe")
        assert selector.select(0.01) == []
        os.write(letters, b"letter")
        assert [(key.data, events) for key, events in selector.select()] == [("letters", selectors.EVENT_READ)]
        os.read(letters, 10)
        selector.modify(letters, selectors.EVENT_READ | selectors.EVENT_WRITE, "both")
        assert [(key.data, events) for key, events in selector.select()] == [("both", selectors.EVENT_WRITE)]


def test_an_event_loop_takes_connections(letters: int) -> None:
    """add_reader and add_writer call back as long as something holds, and not otherwise."""
    read: List[bytes] = []

    async def has_read(count: int) -> None:
        while len(read) < count:
            await asyncio.sleep(0.001)

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def take() -> None:
            read.append(os.read(letters, 10))
            if len(read) == 4:
                loop.remove_reader(letters)
                done.set()

        loop.add_reader(letters, take)
        for letter in (b"a", b"b", b"c"):
            os.write(letters, letter)
        await asyncio.wait_for(has_read(3), DEADLINE)
        os.write(letters, b"d")
        await asyncio.wait_for(done.wait(), DEADLINE)
        has_room = asyncio.Event()
        loop.add_writer(letters, has_room.set)
        await asyncio.wait_for(has_room.wait(), DEADLINE)
        loop.remove_writer(letters)

    asyncio.run(main())
    assert read == [b"a", b"b", b"c", b"d"]


def test_a_signal_does_not_end_the_wait(letters: int) -> None:
    """A handler that returns lets it go on, as PEP 475 says; one that raises ends it."""
    handled: List[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: handled.append(number))

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        os.write(letters, b"letter")

    timer = threading.Timer(0.05, interrupt)
    timer.start()
    try:
        assert select.select([letters], [], [], DEADLINE) == ([letters], [], [])
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    eventually(lambda: handled, "the signal")


# A connection that is closed while it is registered.

POLLERS = [name for name in ("poll", "epoll") if hasattr(select, name)]


def close_by(qnx: ha_qnx.Backend, how: str, fd: int) -> None:
    """Close a connection in one of the ways that there are."""
    ways: Dict[str, Callable[[], object]] = {
        "os.close": lambda: os.close(fd),
        "ConnectDetach": lambda: qnx.ConnectDetach(fd),
        "Connection.close": lambda: Connection(fd, qnx).close(),
        "os.closerange": lambda: os.closerange(fd, fd + 1),
    }
    ways[how]()


def slow(way: str) -> Any:
    return pytest.param(way, marks=pytest.mark.slow)


@pytest.fixture(params=["os.close", slow("ConnectDetach"), slow("Connection.close"), slow("os.closerange")])
def close(installed: ha_qnx.Backend, request: Any) -> Callable[[int], None]:
    """Closes a connection that is registered."""
    return lambda fd: close_by(installed, request.param, fd)


@pytest.fixture
def epoll() -> Iterator[Any]:
    if not hasattr(select, "epoll"):
        pytest.skip("this host has no epoll")
    with select.epoll() as epoll:
        yield epoll


def test_epoll_forgets_what_is_closed(server: Any, epoll: Any, close: Callable[[int], None]) -> None:
    """It tells nothing of it, and complains of what is not there."""
    fd = os.open(PATH, os.O_RDWR)
    epoll.register(fd, select.EPOLLOUT)
    close(fd)
    assert epoll.poll(0) == []
    # Python 3.8's own epoll does not tell that of any descriptor.
    with fails_with(EBADF) if sys.version_info >= (3, 9) else contextlib.nullcontext():
        epoll.unregister(fd)
    with fails_with(EBADF):
        epoll.modify(fd, select.EPOLLIN)


def test_epoll_takes_the_next_one_of_the_number(server: Any, epoll: Any, close: Callable[[int], None]) -> None:
    """The one that got the number is not registered, and can be."""
    fd = os.open(PATH, os.O_RDWR)
    for mask in (select.EPOLLIN, select.EPOLLOUT):
        epoll.register(fd, mask)
        epoll.poll(0)
        close(fd)
        assert os.open(PATH, os.O_RDWR) == fd
        assert epoll.poll(0) == []
        with fails_with(ENOENT):
            epoll.unregister(fd)
    epoll.register(fd, select.EPOLLIN)
    assert epoll.poll(0.01) == []
    os.write(fd, b"letter")
    assert epoll.poll() == [(fd, select.EPOLLIN)]
    os.close(fd)


def test_epoll_forgets_what_is_closed_meanwhile(server: Any, epoll: Any, pipe: Tuple[int, int]) -> None:
    """It goes on to wait for the others."""
    fd = os.open(PATH, os.O_RDWR)
    epoll.register(fd, select.EPOLLIN)
    epoll.register(pipe[0], select.EPOLLIN)
    waiting = waiting_at(server, epoll.poll)
    os.close(fd)
    assert os.open(PATH, os.O_RDWR) == fd
    os.write(fd, b"letter")
    eventually(lambda: not any(post._waiting for post in readiness._posts.values()), "the watch to be forgotten")
    assert not waiting.done
    os.write(pipe[1], b"x")
    assert waiting.result() == [(pipe[0], select.EPOLLIN)]
    os.close(fd)


def test_poll_asks_for_what_has_the_number(server: Any, close: Callable[[int], None], pipe: Tuple[int, int]) -> None:
    """The next connection; a descriptor of the host; nothing; and a connection again."""
    fd = os.open(PATH, os.O_RDWR)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == []
    close(fd)
    assert os.open(PATH, os.O_RDWR) == fd
    assert poll.poll(0) == []
    os.write(fd, b"letter")
    assert poll.poll() == [(fd, select.POLLIN)]
    close(fd)
    assert poll.poll() == poll.poll() == [(fd, select.POLLNVAL)]
    assert os.dup2(pipe[0], fd) == fd
    assert poll.poll(0) == []
    os.write(pipe[1], b"x")
    assert poll.poll() == [(fd, select.POLLIN)]
    os.close(fd)
    assert os.open(PATH, os.O_RDWR) == fd
    assert os.read(fd, 10) == b"letter"
    assert poll.poll(0) == []
    poll.modify(fd, select.POLLOUT)
    assert poll.poll() == [(fd, select.POLLOUT)]
    poll.unregister(fd)
    assert poll.poll(0) == []
    close(fd)


def test_select_refuses_what_is_closed(server: Any, close: Callable[[int], None]) -> None:
    """EBADF, at once and meanwhile, also if the next connection has the number."""
    fd = os.open(PATH, os.O_RDWR)
    waiting = waiting_at(server, select.select, [fd], [], [], DEADLINE)
    close(fd)
    with fails_with(EBADF):
        select.select([fd], [], [], 0)
    assert os.open(PATH, os.O_RDWR) == fd
    with fails_with(EBADF):
        waiting.result()
    assert select.select([fd], [fd], [], 0) == ([], [fd], [])
    close(fd)


def is_open(fd: int) -> bool:
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_GETFD)
        return True
    return False


def test_closerange_closes_connections(server: Any) -> None:
    """And what gets their numbers is a file like any other."""
    ends = os.pipe()
    first = next(fd for fd in range(300, 500) if not any(map(is_open, range(fd, fd + 4))))
    last = first + 3
    for fd, source in zip(range(first, last + 1), (os.open(PATH, os.O_RDWR), *ends, os.open(PATH, os.O_RDWR))):
        os.dup2(source, fd)
        os.close(source)
    os.closerange(first, last + 1)
    for source, fd in zip(os.pipe(), (first, last)):
        os.dup2(source, fd)
        os.close(source)
    os.write(last, b"x")
    assert os.read(first, 10) == b"x"
    for fd in (first, last):
        os.close(fd)
    for fd in range(first, last + 1):
        with fails_with(EBADF):
            os.fstat(fd)


@pytest.mark.parametrize("name", ["PollSelector", "EpollSelector"])
def test_a_selector_takes_the_next_one_of_the_number(
    server: Any, close: Callable[[int], None], name: str, pipe: Tuple[int, int]
) -> None:
    """When the program has unregistered the first one, which it does by the selector's own list."""
    if not hasattr(selectors, name):
        pytest.skip("this host has no such selector")
    fd = os.open(PATH, os.O_RDWR)
    with getattr(selectors, name)() as selector:
        selector.register(pipe[0], selectors.EVENT_READ)
        selector.register(fd, selectors.EVENT_READ, "first")
        close(fd)
        assert os.open(PATH, os.O_RDWR) == fd
        with pytest.raises(KeyError):
            selector.register(fd, selectors.EVENT_WRITE, "second")
        selector.unregister(fd)
        selector.register(fd, selectors.EVENT_WRITE, "second")
        assert [(key.data, events) for key, events in selector.select()] == [("second", selectors.EVENT_WRITE)]
    os.close(fd)


def test_an_event_loop_takes_the_next_one_of_the_number(server: Any, close: Callable[[int], None]) -> None:
    """After remove_reader, whether it came before the closing or after."""

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        fd = os.open(PATH, os.O_RDWR)
        loop.add_reader(fd, done.set)
        await asyncio.sleep(0)
        close(fd)
        assert os.open(PATH, os.O_RDWR) == fd
        loop.remove_reader(fd)
        loop.add_reader(fd, done.set)
        os.write(fd, b"letter")
        await asyncio.wait_for(done.wait(), DEADLINE)
        loop.remove_reader(fd)
        os.close(fd)

    asyncio.run(main())


@pytest.mark.parametrize("name", POLLERS)
def test_what_is_recovered_stays_registered(qnx: ha_qnx.Backend, serve: Serve, name: str) -> None:
    """Also while another thread polls, and when the recovery function puts another one in its place."""
    reopened: List[int] = []

    def reopen(fd: int, _handle: object) -> int:
        with connect(PATH, recover=None, wait=DEADLINE, backend=qnx) as other:
            reopened.append(qnx.dup2(other, fd))
        return fd

    with dropin.installed(qnx):
        server = serve()
        poller = getattr(select, name)()
        fds = [os.open(PATH, os.O_RDWR), os.open(PATH, os.O_RDWR)]
        qnx.ha_attach(fds[0], strategies.wait_for(strategies.reopen(PATH, os.O_RDWR, backend=qnx), DEADLINE))
        qnx.ha_attach(fds[1], reopen)
        for fd in fds:
            poller.register(fd, select.POLLIN)
        asked = server.output.count("asked")
        waiting = Task(poller.poll)
        eventually(lambda: server.output.count("asked") >= asked + 4, "both to be asked for")
        server.kill()
        successor = serve()
        eventually(lambda: successor.output.count("asked") >= 4, "the next server to be asked")
        assert not waiting.done
        os.write(fds[1], b"letter")
        told = waiting.result()
        assert told
        assert set(told) <= {(fd, select.POLLIN) for fd in fds}  # Whichever was told of first; both are to be.
        eventually(lambda: len(poller.poll()) == 2, "both to be told of")
        assert reopened == [fds[1]]
        if name == "epoll":
            with fails_with(EEXIST):
                poller.register(fds[1], select.POLLIN)
        for fd in fds:
            poller.unregister(fd)
            os.close(fd)


@pytest.mark.parametrize("name", POLLERS)
def test_a_number_is_overwritten(letters: int, name: str) -> None:
    """By dup2 of another connection: poll asks for that one, epoll for none of them."""
    poller = getattr(select, name)()
    fd = os.dup(letters)
    poller.register(fd, select.POLLOUT)
    assert poller.poll() == [(fd, select.POLLOUT)]
    assert os.dup2(letters, fd) == fd
    assert poller.poll(0) == ([(fd, select.POLLOUT)] if name == "poll" else [])
    poller.register(fd, select.POLLOUT)
    assert poller.poll() == [(fd, select.POLLOUT)]
    os.close(fd)


@pytest.mark.parametrize("name", POLLERS)
def test_a_forked_child_has_what_is_registered(letters: int, name: str) -> None:
    """Both are told, and what one of them does with its object is the other's no more."""
    poller = getattr(select, name)()
    poller.register(letters, select.POLLIN)
    assert poller.poll(0) == []
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            found = poller.poll(0)
            os.write(tell, b"x")
            status = 0 if (found, poller.poll()) == ([], [(letters, select.POLLIN)]) else 2
        os._exit(status)
    assert os.read(told, 1) == b"x"
    assert poller.poll(0) == []
    os.write(letters, b"letter")
    assert poller.poll() == [(letters, select.POLLIN)]
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
    for fd in (told, tell):
        os.close(fd)


def growth(call: Callable[[], None]) -> int:
    """How many descriptors are left of a call. What a process has once is made by the one before it."""
    before = len(os.listdir("/dev/fd"))
    call()
    return len(os.listdir("/dev/fd")) - before


@pytest.mark.slow
@pytest.mark.parametrize("name", POLLERS)
def test_nothing_is_left_of_what_is_closed(server: Any, name: str) -> None:
    """However many there were, one by one or all at once."""
    poller = getattr(select, name)()

    def use(count: int) -> None:
        fds = [os.open(PATH, os.O_RDWR) for _ in range(count)]
        for fd in fds:
            poller.register(fd, select.POLLIN)
        assert all(events == select.POLLNVAL for _fd, events in poller.poll(0))
        for fd in fds:
            os.close(fd)

    def use_many() -> None:
        for _ in range(100):
            use(1)
        use(100)
        if name == "epoll":
            assert poller.poll(0) == []
            assert not poller._masks
        eventually(lambda: not any(post._waiting for post in readiness._posts.values()), "the watches to be forgotten")

    use_many()
    assert growth(use_many) <= 0


# ha_qnx.aio, which needs no drop-in.


@pytest.fixture
def parcels(qnx: ha_qnx.Backend, serve: Serve) -> Iterator[Tuple[Connection, Any]]:
    """A connection that is HA-aware, and its server."""
    server = serve()
    with connect(PATH, wait=DEADLINE, backend=qnx) as connection:
        yield connection, server


async def bounded(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, DEADLINE)


def test_readable_ends_when_there_is_something(qnx: ha_qnx.Backend, parcels: Tuple[Connection, Any]) -> None:
    """Not before; and at once, if there is something already. Many can wait."""
    connection, _server = parcels

    async def main() -> None:
        await bounded(aio.writable(connection))
        waiting = [asyncio.ensure_future(aio.readable(connection)) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        await aio.call(qnx.write, connection, b"letter")
        await bounded(asyncio.gather(*waiting))
        await bounded(aio.readable(connection))
        assert await aio.call(qnx.read, connection, 10) == b"letter"
        waiting = [asyncio.ensure_future(aio.readable(connection)) for _ in range(5)]
        await asyncio.sleep(0.02)
        for task in waiting[:4]:
            task.cancel()
        await aio.call(qnx.write, connection, b"letter")
        await bounded(waiting[4])
        results = await asyncio.gather(*waiting[:4], return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(main())


def test_readable_goes_on_at_the_next_server(
    qnx: ha_qnx.Backend, parcels: Tuple[Connection, Any], serve: Serve
) -> None:
    """The event is armed there; meanwhile the loop goes on."""
    connection, server = parcels

    async def main() -> None:
        waiting = asyncio.ensure_future(aio.readable(connection))
        await asyncio.sleep(0.05)
        server.kill()
        await asyncio.sleep(0.1)
        assert not waiting.done()
        successor = serve()
        while "asked" not in successor.output:
            await asyncio.sleep(0.01)
        await aio.call(qnx.write, connection, b"letter")
        await bounded(waiting)

    asyncio.run(main())


def test_readable_tells_of_a_loss(qnx: ha_qnx.Backend, serve: Serve) -> None:
    """Where nothing is recovered: EBADF."""
    server = serve()
    with connect(PATH, recover=None, backend=qnx) as connection:

        async def main() -> None:
            waiting = asyncio.ensure_future(aio.readable(connection))
            while server.output.count("asked") < 2:
                await asyncio.sleep(0.01)
            await bounded(aio.send(connection, b"x"))  # So it has answered, too.
            server.kill()
            with fails_with(EBADF):
                await bounded(waiting)

        asyncio.run(main())


# What is below.


def test_a_forked_child_waits_for_itself(letters: int) -> None:
    """It has a channel and a thread of its own from its first wait on."""
    assert select.select([letters], [], [], 0.01) == nothing()
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            fd = os.open(PATH, os.O_RDWR)
            found = select.select([fd], [], [], 0.01)
            os.write(fd, b"letter")
            status = 0 if (found, select.select([fd], [], [])[0]) == (nothing(), [fd]) else 2
        os._exit(status)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
    assert select.select([letters], [], []) == ([letters], [], [])


def test_nothing_is_left_of_a_wait(letters: int) -> None:
    """Neither descriptors nor who would be told."""

    def wait_often() -> None:
        for _ in range(20):
            select.select([letters], [], [], 0)
            assert polled(letters, milliseconds=0) == []

    wait_often()
    assert growth(wait_often) <= 0
    assert all(not post._waiting for post in readiness._posts.values())


def test_a_bell_rings_until_it_is_hushed() -> None:
    """However often it was rung; a closed one rings no more."""
    bell = readiness.Bell()
    for _ in range(70000):
        bell.ring()
    assert select.select([bell], [], [], 0)[0] == [bell]
    bell.hush()
    assert select.select([bell], [], [], 0)[0] == []
    bell.close()
    bell.close()
    bell.ring()
