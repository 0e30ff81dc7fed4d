"""Messages by way of memory, with HA_QNX_SPIN_US: each is received once, in its turn, and ends are noticed (D116)."""

import contextlib
import fcntl
import os
import socket
import threading
from errno import EINTR
from typing import Any, Callable, Iterator, List, Optional

import pytest
from ha_qnx.conformance.waiting import eventually
from ha_qnx.fallback import host, pages, spinning, wire
from ha_qnx.fallback.kernel import SocketKernel
from ha_qnx.fallback.runtime import Runtime

from ha_qnx import backends
from ha_qnx.constants import NTO_CHF_UNBLOCK

pytestmark = pytest.mark.skipif(not pages._IS_POSSIBLE, reason="a host without pages (x86-64 only)")
DEADLINE = 45.0


@pytest.fixture(autouse=True)
def awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if HA_QNX_SPIN_US were 2000 and this process had two processors."""
    monkeypatch.setattr(spinning, "NANOSECONDS", 2_000_000)
    monkeypatch.setattr(pages, "ARE_USED", True)
    monkeypatch.setattr(host, "processors", lambda: 2)


class Near:
    """A client's end of a lane."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self.write_inode = os.fstat(write_fd).st_ino
        self.buffer = bytearray(wire.FRAME_MAX)
        self.address = host.address_of(self.buffer)
        self.write: pages.Write = lambda frame: os.write(write_fd, frame)
        self.read_into: Any = None
        self.c_read: Any = None
        self.page: Optional[pages.Page] = None


class Far:
    """A server's end of a lane."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self.idle = self.is_plain = True
        self.gone = False
        self.filled = self.rcvid = 0
        self.window: Optional[host.Window] = None
        self.buffer = bytearray(wire.FRAME_MAX)
        self.write: pages.Write = lambda frame: os.write(write_fd, frame)
        os.set_blocking(read_fd, False)
        self.read_into: Any = host.reader(read_fd)
        self.page: Optional[pages.ServedPage] = None
        self.set_asides = 0

    def set_aside(self) -> None:
        self.set_asides += 1


class Pair:
    """Both sides of a lane with a page, in one process."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        ends = host.open_lane()
        self.near, self.far = Near(ends.client_read, ends.client_write), Far(ends.server_read, ends.server_write)
        for fd in ends:
            stack.callback(self.close, fd)
        self._open = set(ends)
        self.poller = host.open_poller()
        self.poller.register(self.far.read_fd, once=True)
        self.awake = pages.Awake(self.poller, {self.far.read_fd: self.far}, threading.RLock())
        fd = pages._open_page()
        self.client = pages.Page(self.near, pages._Memory(fd))
        self.near.page = self.client
        passed = [fd]
        assert self.awake.adopt([self.far], self.near.write_inode, passed)
        assert not passed
        assert self.far.page is not None
        self.server = self.far.page
        self.words = self.server.words

    def close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)

    def in_pipe(self) -> bytes:
        """What lies in the pipe of messages."""
        try:
            return os.read(self.far.read_fd, wire.FRAME_MAX)
        except BlockingIOError:
            return b""

    def take(self) -> bytes:
        """What a server reads that has been told of a message."""
        count = self.far.read_into(self.far.buffer)
        return bytes(self.far.buffer[: count or 0])

    def received(self) -> None:
        """A message has come by the page, and was received."""
        self.server.offer()
        assert self.client.write(b"message") == 7
        assert self.server.stop()
        assert self.take() == b"message"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        yield Pair(stack)


def test_a_message_and_its_answer_go_by_the_page_while_both_look(pair: Pair) -> None:
    """D116."""
    pair.received()
    assert not pair.in_pipe()
    assert pair.server.write(b"answer") == 6
    assert pair.client.read_into(pair.near.buffer) == 6
    assert pair.near.buffer[:6] == b"answer"
    assert not host.news_of([pair.near.read_fd])


def test_a_message_goes_by_the_pipe_where_nobody_looks(pair: Pair) -> None:
    """D116: neither before anybody has looked, nor after."""
    pair.client.write(b"first")
    assert pair.in_pipe() == b"first"
    pair.server.offer()
    assert not pair.server.stop()
    pair.client.write(b"second")
    assert pair.in_pipe() == b"second"
    assert not pair.client.number


def test_an_answer_goes_by_the_pipe_to_a_client_that_sleeps(pair: Pair) -> None:
    """D116."""
    pair.received()
    assert pair.client.leave(pair.near.buffer) == 0
    pair.server.write(b"answer")
    assert os.read(pair.near.read_fd, 10) == b"answer"


class Between:
    """In the place of a fence: something happens just then."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._step = step

    def __enter__(self) -> None:
        self._step()

    def __exit__(self, *_details: object) -> None:
        pass


def test_a_client_that_falls_asleep_while_it_is_answered_is_woken(pair: Pair) -> None:
    """D116: and what woke it says nothing any more once it has heard."""
    pair.received()
    assert pair.client.leave(pair.near.buffer) == 0
    pair.words[pages._AWAKE] = pair.words[pages._SENT]  # The server has not seen yet that it sleeps,
    pair.server._fence = Between(lambda: pair.words.__setitem__(pages._AWAKE, 0))  # type: ignore[assignment]
    pair.server.write(b"answer")  # and sees it now.
    assert os.read(pair.near.read_fd, 100) == pages._LOOK_FRAME
    assert pair.client.late_answer(pair.near.buffer) == 6
    assert pair.near.buffer[:6] == b"answer"
    assert pair.client.late_answer(pair.near.buffer) == 0


def test_a_client_that_looks_a_last_time_finds_its_answer(pair: Pair) -> None:
    """D116."""
    pair.received()
    pair.client._fence = Between(lambda: pair.server.words.__setitem__(pages._AWAKE, pair.words[pages._SENT]))  # type: ignore[assignment]
    pair.server.write(b"answer")
    assert pair.client.leave(pair.near.buffer) == 6


def test_a_message_to_one_that_stops_looking_is_received_once(pair: Pair) -> None:
    """D116: by the page or by the pipe, whatever comes between."""
    received: List[int] = []
    count = 3000
    is_over = threading.Event()

    def serve() -> None:
        while len(received) < count and not is_over.is_set():
            pair.server.offer()
            pair.server.stop()
            message = pair.take()
            if message:
                received.append(int(message))
                pair.server.write(b"answer")

    server = threading.Thread(target=serve)
    server.start()
    try:
        for number in range(count):
            pair.client.write(b"%d" % number)
            assert pair.client.read_into(pair.near.buffer) == 6
    finally:
        is_over.set()
        server.join(DEADLINE)
    assert received == list(range(count))


def test_who_stops_looking_looks_a_last_time(pair: Pair) -> None:
    """D116: a message that came just before is received."""
    number = pair.server.offer()
    sent = []

    def send() -> None:
        pair.words[pages._LISTENS] = number  # The client has not seen yet that nobody looks any more.
        sent.append(pair.client.write(b"message"))

    pair.server._fence = Between(send)  # type: ignore[assignment]
    assert pair.server.stop()
    assert sent == [7]
    assert pair.take() == b"message"
    assert not pair.in_pipe()


def test_the_client_waits_for_who_is_about_to_stop(pair: Pair) -> None:
    """D116: and writes into the pipe if its message was not taken."""
    number = pair.server.offer()

    def is_stopping() -> None:
        pair.words[pages._LISTENS] = number + 1
        threading.Timer(0.05, lambda: pair.words.__setitem__(pages._LISTENS, 0)).start()

    pair.client._fence = Between(is_stopping)  # type: ignore[assignment]
    pair.client.write(b"message")
    assert pair.words[pages._LISTENS] == 0
    assert pair.in_pipe() == b"message"


def test_a_message_to_a_server_that_has_gone_does_not_go_out(pair: Pair) -> None:
    """D116: it looked when it died."""
    pair.server.offer()
    pair.close(pair.far.read_fd)
    pair.close(pair.far.write_fd)
    with pytest.raises(BrokenPipeError):
        pair.client.write(b"message")


def test_a_message_is_lost_with_a_server_that_has_taken_it(pair: Pair) -> None:
    """D116: the lane ends."""
    number = pair.server.offer()

    def die() -> None:
        pair.words[pages._TAKEN] = number
        pair.close(pair.far.read_fd)
        pair.close(pair.far.write_fd)

    pair.client._fence = Between(die)  # type: ignore[assignment]
    assert pair.client.write(b"message") == 7
    assert pair.client.read_into(pair.near.buffer) == 0


def test_who_answers_a_client_that_has_gone_hears_it(pair: Pair) -> None:
    """D116: unless the client has heard the answer before it went."""
    pair.received()
    pair.close(pair.near.read_fd)
    with pytest.raises(BrokenPipeError):
        pair.server.write(b"answer")
    pair.server._answers = pair.words[pages._SENT]
    pair.words[pages._HEARD] = pair.words[pages._SENT]
    assert pair.server.write(b"answer") == 6


def test_sizes_that_the_other_side_makes_up(pair: Pair) -> None:
    """Nothing is read beyond what there is."""
    pair.server.offer()
    pair.client.write(b"message")
    pair.words[pages._SENT_SIZE] = (1 << 64) - 1
    assert pair.server.stop()
    assert len(pair.take()) == wire.FRAME_MAX
    pair.server.write(b"answer")
    pair.words[pages._ANSWER_SIZE] = (1 << 64) - 1
    assert pair.client.read_into(pair.near.buffer) == wire.FRAME_MAX
    assert len(pair.near.buffer) == len(pair.far.buffer) == wire.FRAME_MAX


@pytest.mark.parametrize("news", [[], [(1000, host.READABLE)]], ids=["nothing", "news"])
def test_what_was_there_before_comes_first(pair: Pair, news: List[Any]) -> None:
    """D116: who finds a message looks once more what else there is, and queues it with that."""
    pair.awake.latest = pair.far.read_fd
    pair.awake.note_thread()

    def nothing_yet() -> host.News:
        pair.client.write(b"message")
        return []

    glances = iter([nothing_yet, lambda: news])
    pair.awake.glance = lambda: next(glances)()  # type: ignore[no-untyped-call]
    told = pair.awake.wait_for_ever()
    assert told == (news or [(pair.far.read_fd, host.READABLE)])
    assert pair.far.set_asides == len(news)
    assert pair.take() == b"message"


def test_several_threads_do_without_pages(pair: Pair) -> None:
    """D116, B263: who looks for a message lets the next one go first."""
    pair.awake.latest = pair.far.read_fd
    looks: List[int] = []

    def glance() -> host.News:
        looks.append(pair.words[pages._LISTENS])
        if len(looks) == 1:
            thread = threading.Thread(target=pair.awake.note_thread)
            thread.start()
            thread.join(DEADLINE)
        else:
            os.write(pair.near.write_fd, b"message")
        return pair.poller.news()

    pair.awake.glance = glance
    assert not pair.awake._look(False)
    assert looks[0]
    assert len(looks) == 1
    assert pair.awake.wait_for_ever() == [(pair.far.read_fd, host.READABLE)]
    assert looks[1:] == [0]


def test_an_exception_while_a_server_looks_loses_no_message(pair: Pair) -> None:
    """D116, D19: the next receiver finds it."""
    pair.awake.latest = pair.far.read_fd
    pair.awake.note_thread()

    def glance() -> host.News:
        pair.client.write(b"message")
        raise KeyboardInterrupt

    pair.awake.glance = glance
    with pytest.raises(KeyboardInterrupt):
        pair.awake.wait_for_ever()
    assert pair.words[pages._LISTENS] == 0
    pair.server.settle(pair.far)
    assert pair.far.set_asides == 1
    assert pair.take() == b"message"
    pair.server.settle(pair.far)
    assert pair.far.set_asides == 1


def _unsealed(size: int) -> int:
    fd = os.memfd_create("no page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def _small() -> int:
    fd = _unsealed(wire.PAGE_SIZE - 1)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


@pytest.mark.parametrize(
    "make",
    [lambda: _unsealed(wire.PAGE_SIZE), _small, lambda: os.open(os.devnull, os.O_RDWR), lambda: os.pipe()[0]],
    ids=["not sealed", "too small", "a device", "a pipe"],
)
def test_what_is_no_page_is_refused(pair: Pair, make: Callable[[], int]) -> None:
    """Memory that may vanish is not mapped."""
    pair.far.page = None
    fd = make()
    assert not pair.awake.adopt([pair.far], pair.near.write_inode, [fd])
    assert pair.far.page is None
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


class Raw:
    """A client made of nothing but a socket, with one lane and a page."""

    def __init__(self, kernel: SocketKernel, chid: int, stack: contextlib.ExitStack) -> None:
        self.sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self.sock.settimeout(DEADLINE)
        runtime = Runtime()
        self.sock.connect(runtime.socket_path(kernel._channels.entries[chid].address))
        self.sock.sendall(wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0))
        ends = host.open_lane()
        host.send_with_descriptors(
            self.sock, wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, 1, 0), (ends.server_read, ends.server_write)
        )
        os.close(ends.server_read)
        os.close(ends.server_write)
        self.read_fd, self.write_fd = ends.client_read, ends.client_write
        stack.callback(os.close, self.read_fd)
        stack.callback(os.close, self.write_fd)
        fd = pages._open_page()
        self.memory = pages._Memory(fd)
        inode = os.fstat(self.write_fd).st_ino
        host.send_with_descriptors(self.sock, wire.lane.pack(wire.PAGE, 0, 0, inode), (fd,))
        os.close(fd)

    def ask(self, frame: bytes) -> bytes:
        os.write(self.write_fd, frame)
        return self.hear()

    def hear(self) -> bytes:
        """The next answer alone, which has no data; another one may lie behind it."""
        return os.read(self.read_fd, wire.reply.size)


def test_unblock_comes_with_a_message_that_is_not_received_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """D116: as if it were SEND-blocked, its call ends at once, and nobody receives it."""
    monkeypatch.setattr(spinning, "NANOSECONDS", 10_000_000_000)
    kernel = SocketKernel()
    chid = kernel.ChannelCreate(NTO_CHF_UNBLOCK)
    received: List[bytes] = []

    def serve() -> None:
        buffer = bytearray(8)
        with contextlib.suppress(ProcessLookupError):
            while True:
                rcvid = kernel.MsgReceive(chid, buffer)
                received.append(bytes(buffer[:4]))
                if rcvid:
                    kernel.MsgReply(rcvid, 0)

    def frame(text: bytes) -> bytes:
        return wire.message.pack(wire.MESSAGE, 10, 1, len(text), 0, 0) + text

    server = threading.Thread(target=serve)
    server.start()
    with contextlib.ExitStack() as stack:
        client = Raw(kernel, chid, stack)
        words = client.memory.words
        for text in (b"one ", b"two "):
            assert client.ask(frame(text))[0] == wire.REPLY
        awake = kernel._channels.entries[chid]._awake
        assert awake is not None
        real, is_sent = awake.glance, threading.Event()

        def glance() -> host.News:
            if words[pages._LISTENS] and not is_sent.is_set():
                late = frame(b"late")
                client.memory.message[: len(late)] = late
                words[pages._SENT_SIZE] = len(late)
                words[pages._SENT] = words[pages._LISTENS]
                os.write(client.write_fd, wire.unblock.pack(wire.UNBLOCK, 0, EINTR))
                is_sent.set()
            return real()

        awake.glance = glance
        if not is_sent.wait(0.1):  # Who looks now does it as before.
            assert client.ask(frame(b"again"))[0] == wire.REPLY
        kind, _zero, errno, *_rest = wire.reply.unpack(client.hear())
        assert (kind, errno) == (wire.ERROR, EINTR)
        assert client.ask(frame(b"more"))[0] == wire.REPLY
    kernel.ChannelDestroy(chid)
    server.join(DEADLINE)
    assert b"late" not in received
    assert received[-1] == b"more"


_SERVER = """
import os, sys, ha_qnx
from ha_qnx import NTO_CHF_UNBLOCK
qnx = ha_qnx.backend(sys.argv[1])
chid = qnx.ChannelCreate()
print(chid, flush=True)
buffer = bytearray(4096)
seen = 0
while True:
    rcvid = qnx.MsgReceive(chid, buffer)
    if not rcvid:
        seen = int.from_bytes(buffer[8:12], sys.byteorder)
    else:
        qnx.MsgReply(rcvid, seen, buffer[:64])
"""

# A pulse that the same thread has sent before is received before.
_CLIENT = """
import sys, threading, ha_qnx
from ha_qnx.fallback import host
host.processors = lambda: 2
qnx = ha_qnx.backend("fallback")
coid = qnx.ConnectAttach(0, int(sys.argv[1]), int(sys.argv[2]))
def run():
    for number in range(2000):
        if number % 3 == 0:
            sent = number
            qnx.MsgSendPulse(coid, 10, 1, number)
        message, reply = number.to_bytes(4, "little") * 16, bytearray(64)
        assert qnx.MsgSend(coid, message, reply) == sent, number
        assert reply == message
run()
thread = threading.Thread(target=run)
thread.start()
thread.join()
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends.NAMES)
def test_pulses_and_messages_of_one_thread_arrive_in_order(
    backend: str, start_program: Callable[..., Any], libha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D116: on servers that take pages, and on those that do not."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    monkeypatch.setenv("HA_QNX_SPIN_US", "200")
    server = start_program(_SERVER, backend)
    eventually(lambda: server.output.endswith("\n"), "the server to begin")
    client = start_program(_CLIENT, str(server.pid), server.output.strip())
    eventually(lambda: client.process.poll() is not None, "the client to end", deadline=60.0)
    assert client.errors == ""
    assert client.output == "done\n"
