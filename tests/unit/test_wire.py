"""Peers that break the protocol: each costs itself its connection, and the server goes on."""

import array
import contextlib
import functools
import gc
import os
import pathlib
import resource
import secrets
import signal
import socket
import tempfile
import threading
import time
from errno import EBADF, EFAULT, ESRCH
from typing import Any, Callable, Iterator, List, Optional, Sequence, Set, Tuple

import pytest
from ha_qnx.conformance import waiting
from ha_qnx.fallback import host, wire
from ha_qnx.fallback.connections import Trunk
from ha_qnx.fallback.kernel import SocketKernel
from ha_qnx.fallback.paths import attach
from ha_qnx.fallback.runtime import Runtime

from ha_qnx.constants import (
    FTYPE_ANY,
    NTO_CHF_UNBLOCK,
    NTO_MI_UNBLOCK_REQ,
    NTO_TIMEOUT_RECEIVE,
    RESMGR_FLAG_SELF,
)
from ha_qnx.structures import MessageInfo

DEADLINE = 45.0


eventually = functools.partial(waiting.eventually, deadline=DEADLINE)


class Server:
    """A server that sends every message back, in a thread."""

    def __init__(self, flags: int = 0) -> None:
        self.kernel = SocketKernel()
        self.chid = self.kernel.ChannelCreate(flags)
        self.received: List[bytes] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        buffer = bytearray(100_000)
        while True:
            try:
                rcvid = self.kernel.MsgReceive(self.chid, buffer)
            except ProcessLookupError:
                return
            if rcvid:
                size = self.kernel.MsgInfo(rcvid).srcmsglen
                self.received.append(bytes(buffer[:size]))
                with contextlib.suppress(ProcessLookupError):
                    self.kernel.MsgReply(rcvid, 0, bytes(buffer[:size]))

    def close(self) -> None:
        self.kernel.ChannelDestroy(self.chid)
        self.thread.join(DEADLINE)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def honest(server: Server) -> Iterator[Callable[[], None]]:
    """Exchanges a message with the server as an honest client does; called to see that the server goes on."""
    kernel = SocketKernel()
    coid = kernel.ConnectAttach(0, os.getpid(), server.chid)

    def exchange() -> None:
        reply = bytearray(6)
        assert kernel.MsgSend(coid, b"honest", reply) == 0
        assert reply == b"honest"

    exchange()
    yield exchange
    kernel.ConnectDetach(coid)


class Raw:
    """A client made of nothing but a socket."""

    def __init__(self, kernel: SocketKernel, chid: int) -> None:
        runtime = Runtime()
        address = kernel._channels.entries[chid].address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(runtime.socket_path(address))

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.sock.sendmsg([data], ancillary)

    def greet(self) -> None:
        self.send(wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0))
        kind, version, *_more = wire.welcome.unpack(self.sock.recv(wire.TRUNK_FRAME))
        assert (kind, version) == (wire.WELCOME, wire.VERSION)

    def open_lane(self, window: Optional[int] = None, size: int = 0) -> Tuple[int, int]:
        """A lane: what to read replies from, and what to write messages to."""
        ends = host.open_lane()
        far = [ends.server_read, ends.server_write] + ([] if window is None else [window])
        self.send(wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, 7, size), far)
        os.close(ends.server_read)
        os.close(ends.server_write)
        return ends.client_read, ends.client_write

    def is_dropped(self) -> bool:
        """Whether the server has closed the trunk."""
        with contextlib.suppress(ConnectionResetError):
            while self.sock.recv(4096):
                pass
        return True

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    raw = Raw(server.kernel, server.chid)
    yield raw
    raw.close()


Receiving = Callable[..., Tuple[SocketKernel, int, Raw]]


@pytest.fixture
def receiving() -> Iterator[Receiving]:
    """Makes a channel from which the test receives by itself, with a raw client that has greeted."""
    with contextlib.ExitStack() as stack:

        def make(flags: int = 0) -> Tuple[SocketKernel, int, Raw]:
            kernel = SocketKernel()
            chid = kernel.ChannelCreate(flags)
            stack.callback(kernel.ChannelDestroy, chid)
            raw = Raw(kernel, chid)
            stack.callback(raw.close)
            raw.send(wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0))
            return kernel, chid, raw

        yield make


def message(size: int, room: int = 0, kind: int = wire.MESSAGE, priority: int = 10) -> bytes:
    """The header of a message."""
    return wire.message.pack(kind, priority, 1, size, room, time.monotonic_ns())


def is_at_end(fd: int) -> bool:
    """Whether the server has closed its end of a lane."""
    assert host.wait_readable(fd, time.monotonic() + DEADLINE, False) == 1
    return not host.reader(fd)(bytearray(4096))


TRUNK_RUBBISH = {
    "rubbish": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(64),
    "wrong-magic": wire.hello.pack(wire.HELLO, wire.VERSION, b"QAXH", 0),
    "lane-before-hello": wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, 1, 0),
}


@pytest.mark.parametrize("frames", TRUNK_RUBBISH.values(), ids=TRUNK_RUBBISH)
def test_rubbish_on_a_trunk_costs_the_trunk(
    server: Server, honest: Callable[[], None], raw: Raw, frames: bytes
) -> None:
    """A peer that does not begin with a greeting is dropped."""
    raw.send(frames)
    honest()
    assert raw.is_dropped()
    honest()


def test_another_version_is_refused(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """The answer says which version is spoken here."""
    raw.send(wire.hello.pack(wire.HELLO, wire.VERSION + 1, wire.MAGIC, 0))
    honest()
    assert raw.sock.recv(wire.TRUNK_FRAME) == wire.refused.pack(wire.REFUSED, wire.VERSION, 0)
    assert raw.is_dropped()


def test_a_greeting_may_come_byte_by_byte(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """A frame that arrives in pieces is one frame."""
    for byte in wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0):
        raw.send(bytes([byte]))
        honest()
    assert raw.sock.recv(wire.TRUNK_FRAME)[0] == wire.WELCOME


def test_half_a_greeting_holds_nobody_up(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """A peer that stops in the middle of a frame waits alone."""
    raw.send(wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0)[:10])
    for _ in range(5):
        honest()


@pytest.mark.parametrize(
    "frame",
    [wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0), b"\xff" * 32, wire.lane.pack(wire.LANE, 0, 1, 0)],
    ids=["a-second-greeting", "rubbish", "a-lane-without-descriptors"],
)
def test_rubbish_after_the_greeting_costs_the_trunk(
    server: Server, honest: Callable[[], None], raw: Raw, frame: bytes
) -> None:
    """Only lanes may follow the greeting, and a lane brings its descriptors."""
    raw.greet()
    raw.send(frame)
    honest()
    assert raw.is_dropped()
    honest()


def test_descriptors_that_are_no_lane_cost_the_trunk(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """A file cannot be waited for, so it is no lane."""
    raw.greet()
    with tempfile.TemporaryFile() as file:
        raw.send(wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, 1, 0), [file.fileno(), file.fileno()])
    honest()
    assert raw.is_dropped()
    honest()


@pytest.mark.parametrize("carries", [wire.LANE_MESSAGES, wire.LANE_PULSES], ids=["messages", "pulses"])
def test_a_socket_that_listens_is_no_lane(
    server: Server, honest: Callable[[], None], raw: Raw, carries: int, tmp_path: pathlib.Path
) -> None:
    """It can be waited for, but whoever read from it would get an error and not its end."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(str(tmp_path / "listener"))
        listener.listen()
        caller.connect(str(tmp_path / "listener"))
        raw.greet()
        raw.send(wire.lane.pack(wire.LANE, carries, 1, 0), [listener.fileno()] * (2 - carries))
        honest()
        assert raw.is_dropped()
    honest()


@pytest.mark.skipif(host.PORTABLE, reason="only Linux gives a pipe that was passed a description of its own")
def test_a_client_cannot_make_the_server_wait(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """What it has passed does not wait for it, though it shares it with the server and says that it shall."""
    raw.greet()
    server_read, write = os.pipe()
    read, server_write = os.pipe()
    raw.send(wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, 1, 0), [server_read, server_write])
    honest()
    for fd in (server_read, server_write):
        os.set_blocking(fd, True)
    os.write(write, message(4, room=4) + b"good")
    assert host.wait_readable(read, time.monotonic() + DEADLINE, False) == 1
    assert os.read(read, 100).endswith(b"good")
    honest()
    for fd in (server_read, write, read, server_write):
        os.close(fd)


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="there are no pipes in packet mode")
def test_a_pipe_in_packet_mode_spoils_no_other_lane(receiving: Receiving) -> None:
    """A header in two packets is looked at as a whole; what was looked at of one lane is gone at the next."""
    kernel, chid, raw = receiving()
    server_read, write = os.pipe2(os.O_DIRECT)
    read, server_write = os.pipe()
    raw.send(wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, 1, 0), [server_read, server_write])
    lanes = [raw.open_lane() for _ in range(3)]
    frame = message(0)
    for packet in (frame[:16], frame[16:]):
        os.write(write, packet)
    for number, (_read, own_write) in enumerate(lanes):
        os.write(own_write, message(6) + b"good %d" % number)
    received = set()
    for _message in lanes:
        buffer = bytearray(10)
        rcvid = 0
        while not buffer.startswith(b"good"):
            kernel.TimerTimeout(NTO_TIMEOUT_RECEIVE, 5_000_000_000)
            rcvid = kernel.MsgReceive(chid, buffer)
        kernel.MsgReply(rcvid, 0)
        received.add(bytes(buffer[:6]))
    assert received == {b"good 0", b"good 1", b"good 2"}
    for fd in (server_read, write, read, server_write, *(fd for lane in lanes for fd in lane)):
        os.close(fd)


def test_the_wrong_end_of_a_pipe_is_no_lane(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """The server could not answer on it."""
    raw.greet()
    read, write = os.pipe()
    raw.send(wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, 1, 0), [read, read])
    honest()
    assert raw.is_dropped()
    honest()
    for fd in (read, write):
        os.close(fd)


def test_a_lane_may_be_a_pair_of_sockets(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """That is what clients have on hosts with other pipes; a server with pipes of its own serves them all the same."""
    raw.greet()
    near, far = socket.socketpair()
    raw.send(wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, 1, 0), [far.fileno(), far.fileno()])
    far.close()
    near.settimeout(DEADLINE)
    for _message in range(3):
        near.send(message(4, room=4) + b"good")
        assert near.recv(100) == wire.reply.pack(wire.REPLY, 0, 0, 0, 4) + b"good"
    near.close()
    honest()


def test_passed_descriptors_are_closed_with_their_trunk(server: Server, honest: Callable[[], None]) -> None:
    """A peer that passes descriptors with nonsense leaves none behind."""
    before = len(os.listdir("/dev/fd"))
    for _ in range(50):
        raw = Raw(server.kernel, server.chid)
        raw.greet()
        read, write = os.pipe()
        raw.send(b"\xff" * 32, [read, write] * 10)
        os.close(read)
        os.close(write)
        honest()
        assert raw.is_dropped()
        raw.close()
    eventually(lambda: len(os.listdir("/dev/fd")) <= before + 2, "the server to close what it was passed")


@pytest.mark.parametrize("step", ["host.is_stream", "host.make_non_blocking", "Channel._obey", "host.out_of_the_way"])
def test_nothing_is_left_of_a_lane_that_an_exception_hinders(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A signal handler raises in MsgReceive, with the descriptors received: the client hears of its end."""
    kernel = SocketKernel()
    chid = kernel.ChannelCreate(0)
    raw = Raw(kernel, chid)
    raw.send(wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0))
    pulse = SocketKernel()
    coid = pulse.ConnectAttach(0, os.getpid(), chid)

    def receive_pulse() -> None:
        pulse.MsgSendPulse(coid, -1, 1, 1)
        assert kernel.MsgReceive(chid, bytearray(100)) == 0

    receive_pulse()
    before = len(os.listdir("/dev/fd"))
    read, write = raw.open_lane()

    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"ha_qnx.fallback.channels.{step}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            kernel.MsgReceive(chid, bytearray(100))
    os.close(read)
    os.close(write)
    assert raw.is_dropped()
    receive_pulse()
    assert len(os.listdir("/dev/fd")) < before  # The server's end of the trunk is closed, too.
    raw.close()
    pulse.ConnectDetach(coid)
    kernel.ChannelDestroy(chid)


LANE_RUBBISH = {
    "rubbish": b"\xff" * 64,
    "a-gigabyte-announced": message(1 << 30) + b"a little",
    "more-than-announced": message(3) + b"too long",
    "more-room-than-a-lane-without-a-window-has": message(0, room=wire.INLINE_ROOM + 1),
    "an-unknown-kind": message(0, kind=99),
    "a-priority-that-no-thread-has": message(0, priority=40_000),
    "no-priority": message(0, priority=0),
}


@pytest.mark.parametrize("frame", LANE_RUBBISH.values(), ids=LANE_RUBBISH)
def test_rubbish_on_a_lane_costs_the_lane(server: Server, honest: Callable[[], None], raw: Raw, frame: bytes) -> None:
    """The trunk stays, and another lane of the same client works."""
    raw.greet()
    read, write = raw.open_lane()
    os.write(write, frame)
    honest()
    assert is_at_end(read)
    other_read, other_write = raw.open_lane()
    os.write(other_write, message(4, room=4) + b"good")
    assert host.wait_readable(other_read, time.monotonic() + DEADLINE, False) == 1
    assert os.read(other_read, 100) == wire.reply.pack(wire.REPLY, 0, 0, 0, 4) + b"good"
    honest()
    for fd in (read, write, other_read, other_write):
        os.close(fd)


@pytest.mark.parametrize("size", [1, 20, 32, 34])
def test_a_message_that_stops_in_the_middle_holds_nobody_up(
    server: Server, honest: Callable[[], None], raw: Raw, size: int
) -> None:
    """It is not received before its rest has come, and then it is."""
    raw.greet()
    read, write = raw.open_lane()
    frame = message(4, room=4) + b"good"
    os.write(write, frame[:size])
    honest()
    assert b"good" not in server.received
    os.write(write, frame[size:])
    assert host.wait_readable(read, time.monotonic() + DEADLINE, False) == 1
    assert os.read(read, 100).endswith(b"good")
    for fd in (read, write):
        os.close(fd)


def test_a_second_message_before_the_answer_costs_the_lane(honest: Callable[[], None], receiving: Receiving) -> None:
    """A lane has one message outstanding at most; the server never sees the second."""
    slow, chid, raw = receiving()
    read, write = raw.open_lane()
    os.write(write, message(5, room=5) + b"first")
    rcvid = slow.MsgReceive(chid, bytearray(10))
    os.write(write, message(6, room=6) + b"second")
    slow.TimerTimeout(0x20, None)
    with pytest.raises(TimeoutError):
        slow.MsgReceive(chid, bytearray(10))
    with pytest.raises(ProcessLookupError):
        slow.MsgReply(rcvid, 0)
    for fd in (read, write):
        os.close(fd)
    honest()


@pytest.mark.parametrize("size", [1, 1 << 20, 1 << 40], ids=["too-small", "larger-than-the-file", "a-terabyte"])
def test_a_window_has_to_be_as_large_as_announced(
    server: Server, honest: Callable[[], None], raw: Raw, size: int
) -> None:
    """A client that announces more than it passes, or sends more than fits, is dropped."""
    raw.greet()
    window = host.Window.create(1 << 16)
    read, write = raw.open_lane(window.fd, size)
    with contextlib.suppress(BrokenPipeError):
        os.write(write, message(1000, room=1000))
    honest()
    assert is_at_end(read)
    honest()
    window.close()
    for fd in (read, write):
        os.close(fd)


def test_a_window_that_may_shrink_is_not_mapped(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """A client that pulls the memory away loses its message; the server is not killed by SIGBUS."""
    raw.greet()
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), 1 << 20)
        read, write = raw.open_lane(file.fileno(), 1 << 20)
        honest()  # The server has taken note of the lane, too.
        os.ftruncate(file.fileno(), 0)
        os.write(write, message(500_000, room=0))
        honest()
    honest()
    for fd in (read, write):
        os.close(fd)


@pytest.mark.parametrize("kind", ["a-directory", "write-only", "read-only"])
def test_a_window_that_cannot_be_read_and_written_costs_the_trunk(
    server: Server, honest: Callable[[], None], raw: Raw, kind: str, tmp_path: pathlib.Path
) -> None:
    """It is refused before a message lies in it."""
    path = tmp_path / "window"
    path.write_bytes(bytes(4096))
    flags = {"a-directory": os.O_RDONLY, "write-only": os.O_WRONLY, "read-only": os.O_RDONLY}[kind]
    fd = os.open(tmp_path if kind == "a-directory" else path, flags)
    raw.greet()
    read, write = raw.open_lane(fd, os.fstat(fd).st_size)
    honest()
    assert raw.is_dropped()
    honest()
    for ours in (read, write, fd):
        os.close(ours)


def test_memory_that_a_client_takes_back_is_a_bad_address(receiving: Receiving) -> None:
    """MsgRead and MsgWrite on a message whose window has become smaller fail with EFAULT (B151)."""
    kernel, chid, raw = receiving()
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), 4096)
        read, write = raw.open_lane(file.fileno(), 4096)
        os.write(write, message(5, room=10))
        rcvid = kernel.MsgReceive(chid, bytearray(10))
        os.ftruncate(file.fileno(), 0)
        with pytest.raises(OSError, match=os.strerror(EFAULT)):
            kernel.MsgRead(rcvid, bytearray(5))
        kernel.MsgReply(rcvid, 0)
    for fd in (read, write):
        os.close(fd)


def test_half_a_message_may_turn_out_to_be_rubbish_after_a_call_has_failed(receiving: Receiving) -> None:
    """The server looks at everything again after an error, and ends the lane in the middle of that."""
    kernel, chid, raw = receiving()
    frame = message(100, kind=99)
    lanes = [raw.open_lane() for _ in range(3)]
    for _read, write in lanes:
        os.write(write, frame[:10])
    coid = kernel.ConnectAttach(0, 0, chid)
    kernel.MsgSendPulse(coid, 10, 1, 1)
    with pytest.raises(OSError, match=os.strerror(EFAULT)):
        kernel.MsgReceive(chid, bytearray(1))
    for _read, write in lanes:
        os.write(write, frame[10:])
    kernel.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
    with pytest.raises(TimeoutError):
        kernel.MsgReceive(chid, bytearray(1))
    for read, write in lanes:
        assert is_at_end(read)
        os.close(read)
        os.close(write)


def test_a_request_to_be_freed_that_crosses_the_answer_is_no_pulse(
    receiving: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the next message said to want to be freed."""
    kernel, chid, raw = receiving(NTO_CHF_UNBLOCK)
    read, write = raw.open_lane()
    os.write(write, message(5) + b"first")
    rcvid = kernel.MsgReceive(chid, bytearray(10))
    (lane,) = kernel._channels.entries[chid]._lanes.values()
    os.write(write, wire.unblock.pack(wire.UNBLOCK, 0, 4))
    read_into = lane.read_into

    def answer_meanwhile(buffer: "bytearray | memoryview") -> Optional[int]:
        count = read_into(buffer)
        if lane.rcvid:
            kernel.MsgReply(rcvid, 0, b"")
            os.write(write, message(6) + b"second")
        return count

    with monkeypatch.context() as patch:
        patch.setattr(lane, "read_into", answer_meanwhile)
        info = MessageInfo()
        kernel.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
        assert kernel.MsgReceive(chid, bytearray(10), info) > rcvid
    assert not info.flags & NTO_MI_UNBLOCK_REQ
    kernel.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
    with pytest.raises(TimeoutError):
        kernel.MsgReceive(chid, bytearray(100))
    for fd in (read, write):
        os.close(fd)


def pipes() -> Set[str]:
    """The ends of pipes that this process has, by number and pipe."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target.startswith("pipe:"):
                found.add(f"{fd} {target}")
    return found


def serve_in_a_child() -> Tuple[int, int]:
    """A server process that answers everything: its pid, and its channel."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        kernel = SocketKernel()
        chid = kernel.ChannelCreate(0)
        os.write(write, bytes([chid]))
        while True:
            with contextlib.suppress(OSError):
                kernel.MsgReply(kernel.MsgReceive(chid, bytearray(10)), 0)
    chid = os.read(read, 1)[0]
    os.close(read)
    os.close(write)
    return pid, chid


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="what a child has open can be seen in /proc only")
def test_a_forked_child_has_no_end_of_a_lane_that_another_thread_is_opening() -> None:
    """Or the lane would stay open when its client or its server dies, as long as the child lives."""
    pid, chid = serve_in_a_child()
    kernel = SocketKernel()
    kernel.ConnectDetach(kernel.ConnectAttach(0, pid, chid))
    before = pipes()
    is_over = threading.Event()

    def open_lanes() -> None:
        while not is_over.is_set():
            coid = kernel.ConnectAttach(0, pid, chid)
            kernel.MsgSend(coid, b"message")
            kernel.ConnectDetach(coid)

    threads = [threading.Thread(target=open_lanes, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    statuses = []
    for _fork in range(60):
        child = os.fork()
        if not child:
            os._exit(len(pipes() - before))
        statuses.append(os.waitpid(child, 0)[1])
    is_over.set()
    for thread in threads:
        thread.join(DEADLINE)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert statuses == [0] * 60


def test_a_client_that_never_reads_holds_nobody_up(honest: Callable[[], None], raw: Raw) -> None:
    """Its answers are lost, not the server's time."""
    raw.greet()
    lanes = [raw.open_lane() for _ in range(20)]
    for _read, write in lanes:
        os.write(write, message(4000, room=4000) + bytes(4000))
    honest()
    for read, write in lanes:
        os.close(write)
        os.close(read)
    honest()


def test_the_end_of_one_client_does_not_end_another(server: Server) -> None:
    """Though the server hears of both at once, and the other's lane gets the numbers that the first one had."""
    kernel = server.kernel
    chid = kernel.ChannelCreate(0)
    leaving, staying = Raw(kernel, chid), Raw(kernel, chid)
    for raw in (leaving, staying):
        raw.send(wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0))
    read, write = leaving.open_lane()
    os.write(write, message(0))
    kernel.MsgReply(kernel.MsgReceive(chid, None), 0)
    leaving.close()
    # The server keeps one descriptor of this, and gets the number of the trunk that has ended for it.
    pulses, pulse_write = os.pipe()
    staying.send(wire.lane.pack(wire.LANE, wire.LANE_PULSES, 0, 0), [pulses])
    other_read, other_write = staying.open_lane()
    os.write(other_write, message(4, room=4) + b"good")
    os.close(read)
    os.close(write)
    kernel.TimerTimeout(NTO_TIMEOUT_RECEIVE, int(DEADLINE * 1e9))
    kernel.MsgReply(kernel.MsgReceive(chid, None), 0, b"good")
    assert os.read(other_read, 100) == wire.reply.pack(wire.REPLY, 0, 0, 0, 4) + b"good"
    for fd in (pulses, pulse_write, other_read, other_write):
        os.close(fd)
    staying.close()
    kernel.ChannelDestroy(chid)


def test_a_long_reply_without_a_window_comes_in_frames(server: Server) -> None:
    """No frame is longer than a pipe takes in one piece, and the last one carries no data."""
    chid = server.kernel.ChannelCreate(0)
    data = os.urandom(wire.INLINE_ROOM)
    answering = threading.Thread(
        target=lambda: server.kernel.MsgReply(server.kernel.MsgReceive(chid, None), 7, data), daemon=True
    )
    answering.start()
    raw = Raw(server.kernel, chid)
    raw.greet()
    read, write = raw.open_lane()
    os.write(write, message(0, room=len(data)))
    with open(read, "rb") as replies:
        arrived = bytearray()
        while True:
            kind, _zero, _error, place, length = wire.reply.unpack(replies.read(wire.REPLY_HEADER))
            if kind != wire.WRITE:
                break
            assert place == len(arrived)
            assert wire.REPLY_HEADER + length <= wire.FRAME_MAX
            arrived += replies.read(length)
    answering.join(DEADLINE)
    assert (kind, place, length) == (wire.REPLY, 7, 0)
    assert arrived == data
    os.close(write)
    raw.close()
    server.kernel.ChannelDestroy(chid)


def test_a_pulse_that_cannot_be_costs_the_trunk(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """A priority that no pulse has, or another kind of frame, is rubbish."""
    raw.greet()
    read, write = os.pipe()
    raw.send(wire.lane.pack(wire.LANE, wire.LANE_PULSES, 0, 0), [read])
    os.close(read)
    os.write(write, wire.pulse.pack(wire.PULSE, 0, 1, 2, 3, 4, 0))
    honest()
    assert raw.is_dropped()
    os.close(write)
    honest()


def test_an_unblock_that_crosses_the_answer_is_ignored(server: Server, honest: Callable[[], None], raw: Raw) -> None:
    """The next message on the lane is received, with or without the late request before it."""
    raw.greet()
    read, write = raw.open_lane()
    for late in (b"", wire.unblock.pack(wire.UNBLOCK, 0, 4)):
        os.write(write, late + message(4, room=4) + b"good")
        assert host.wait_readable(read, time.monotonic() + DEADLINE, False) == 1
        assert os.read(read, 100) == wire.reply.pack(wire.REPLY, 0, 0, 0, 4) + b"good"
    os.write(write, wire.unblock.pack(wire.UNBLOCK, 0, 4))
    honest()
    os.write(write, message(4, room=4) + b"more")
    assert host.wait_readable(read, time.monotonic() + DEADLINE, False) == 1
    assert os.read(read, 100).endswith(b"more")
    for fd in (read, write):
        os.close(fd)


def test_a_flood_of_peers_leaves_nothing_behind(server: Server, honest: Callable[[], None]) -> None:
    """Descriptors and memory are what they were before."""
    before = len(os.listdir("/dev/fd"))
    memory = 0
    for number in range(600):
        raw = Raw(server.kernel, server.chid)
        raw.send(b"\xff" * 32 if number % 2 else wire.hello.pack(wire.HELLO, wire.VERSION, wire.MAGIC, 0))
        raw.close()
        if number % 100 == 99:
            honest()
            memory = memory or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def are_closed() -> bool:
        honest()
        return len(os.listdir("/dev/fd")) <= before + 2

    eventually(are_closed, "the server to close its ends")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000


class RawServer:
    """A server made of nothing but a socket, for a client that is honest."""

    def __init__(self) -> None:
        runtime = Runtime()
        from ha_qnx.fallback.runtime import ChannelAddress

        self.address = ChannelAddress(os.getpid(), 77, secrets.token_hex(8))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.settimeout(DEADLINE)
        self.listener.bind(runtime.socket_path(self.address))
        self.listener.listen()

    def accept(self) -> Tuple[int, int]:
        """Take the first lane of the first client: what to read messages from, what to write replies to."""
        self.trunk, _ = self.listener.accept()
        self.trunk.settimeout(DEADLINE)
        fds: List[int] = []
        while len(fds) < 3:
            _data, ancillary, _flags, _address = self.trunk.recvmsg(wire.TRUNK_FRAME, socket.CMSG_SPACE(12))
            for _level, _kind, payload in ancillary:
                received = array.array("i")
                received.frombytes(payload)
                fds += received
        os.close(fds[0])  # In which it says which connections it has.
        return fds[1], fds[2]

    def close(self) -> None:
        self.listener.close()
        self.trunk.close()


def test_a_server_that_ends_while_a_client_opens_is_a_lost_server() -> None:
    """Whenever the server goes, open says that there is none: EBADF would mean that a number is lost (D6)."""
    server, kernel, runtime, ended = RawServer(), SocketKernel(), Runtime(), threading.Event()
    claim = attach(runtime, "/dev/ending", 0, server.address, FTYPE_ANY, RESMGR_FLAG_SELF)

    def end_each() -> None:
        while not ended.is_set():
            server.listener.accept()[0].close()

    thread = threading.Thread(target=end_each)
    thread.start()
    try:
        for _ in range(200):
            with pytest.raises((FileNotFoundError, ProcessLookupError)):
                kernel.open("/dev/ending", os.O_RDWR)
    finally:
        ended.set()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            last.connect(runtime.socket_path(server.address))
        thread.join(DEADLINE)
        server.listener.close()
        claim.release()
    assert not thread.is_alive()


@pytest.fixture
def raw_server() -> Iterator[RawServer]:
    server = RawServer()
    yield server
    server.close()


def exchange(raw_server: RawServer, answer: Callable[[int, int], None], room: int = 8) -> Tuple[Any, bytearray]:
    """Send a message to the raw server; the outcome, and the reply buffer."""
    kernel = SocketKernel()
    coid = kernel.ConnectAttach(0, os.getpid(), 77)
    reply = bytearray(b"." * room)
    outcome: List[Any] = []

    def send() -> None:
        try:
            outcome.append(kernel.MsgSend(coid, b"message", reply))
        except OSError as error:
            outcome.append(error.errno)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    read, write = raw_server.accept()
    assert os.read(read, 4096).endswith(b"message")
    answer(read, write)
    for fd in (read, write):
        with contextlib.suppress(OSError):
            os.close(fd)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    kernel.ConnectDetach(coid)
    return outcome[0], reply


def test_what_follows_a_lost_message_does_not_go_out(raw_server: RawServer) -> None:
    """A dying server closes its lanes before its trunk: a message on a new lane was not lost with it (B168)."""
    kernel = SocketKernel()
    coid = kernel.ConnectAttach(0, os.getpid(), 77)
    outcomes: List[Any] = []

    def send() -> None:
        for _message in range(2):
            with pytest.raises(OSError) as raised:  # noqa: PT011  # the errno is looked at
                kernel.MsgSend(coid, b"message")
            outcomes.append(raised.value.errno)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    lane = raw_server.accept()
    assert os.read(lane[0], 4096).endswith(b"message")
    for fd in lane:
        os.close(fd)
    eventually(lambda: outcomes, "the message to be lost")
    host.wait_readable(raw_server.trunk.fileno(), time.monotonic() + DEADLINE, False)
    raw_server.trunk.close()
    thread.join(DEADLINE)
    kernel.ConnectDetach(coid)
    assert outcomes == [ESRCH, EBADF]


def frames(*parts: bytes) -> Callable[[int, int], None]:
    """An answer of these bytes, each written by itself."""

    def answer(_read: int, write: int) -> None:
        for part in parts:
            os.write(write, part)

    return answer


REPLY = wire.reply.pack(wire.REPLY, 0, 0, 5, 3) + b"abc"
WRITE = wire.reply.pack(wire.WRITE, 0, 0, 4, 2) + b"xy"


@pytest.mark.parametrize(
    "parts",
    [[REPLY], [REPLY[:1], REPLY[1:30][:23], REPLY[24:]], [bytes([byte]) for byte in REPLY]],
    ids=["whole", "in-pieces", "byte-by-byte"],
)
def test_a_reply_may_come_in_pieces(raw_server: RawServer, parts: List[bytes]) -> None:
    """The client puts them together."""
    status, reply = exchange(raw_server, frames(*parts))
    assert (status, reply) == (5, bytearray(b"abc....."))


@pytest.mark.parametrize("together", [False, True])
def test_written_parts_come_before_the_reply(raw_server: RawServer, together: bool) -> None:
    """They lie at their offsets, in one piece with the reply or before it."""
    status, reply = exchange(raw_server, frames(WRITE + REPLY) if together else frames(WRITE, REPLY))
    assert (status, reply) == (5, bytearray(b"abc.xy.."))


def test_a_server_that_answers_more_than_there_is_room_for_overwrites_nothing(raw_server: RawServer) -> None:
    """What exceeds the client's room is dropped, and the buffer keeps its size."""
    long = wire.reply.pack(wire.REPLY, 0, 0, 0, 20) + b"0123456789" * 2
    far = wire.reply.pack(wire.WRITE, 0, 0, 6, 10) + b"wwwwwwwwww"
    status, reply = exchange(raw_server, frames(far + long))
    assert (status, reply) == (0, bytearray(b"01234567"))


@pytest.mark.parametrize(
    "rubbish",
    [b"\xff" * 24, wire.reply.pack(wire.REPLY, 0, 0, 0, 1 << 30), wire.reply.pack(99, 0, 0, 0, 0)],
    ids=["rubbish", "a-gigabyte-announced", "an-unknown-kind"],
)
def test_a_server_that_answers_rubbish_is_lost(raw_server: RawServer, rubbish: bytes) -> None:
    """The client gets ESRCH, and its buffer is untouched."""
    assert exchange(raw_server, frames(rubbish)) == (ESRCH, bytearray(b"." * 8))


def test_a_server_that_stops_in_the_middle_of_a_reply_is_lost(raw_server: RawServer) -> None:
    """A client does not take half a reply for a whole one."""
    assert exchange(raw_server, frames(REPLY[:25])) == (ESRCH, bytearray(b"." * 8))


GIVES_UP = """
import sys, ha_qnx
qnx = ha_qnx.backend(sys.argv[1])
coid = qnx.ConnectAttach(0, int(sys.argv[2]), 77)
qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_SEND, 1_000_000)
try:
    qnx.MsgSend(coid, b"message")
except TimeoutError:
    print("given up")
"""


@pytest.mark.skipif(host.PORTABLE, reason="only a pipe can be read from the side where it is written")
@pytest.mark.parametrize("backend", ["fallback", "native"])
@pytest.mark.usefixtures("shared_directory")
def test_a_message_that_was_given_up_cannot_be_received_late(
    raw_server: RawServer,
    start_program: Callable[..., Any],
    libha: str,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:
    """Its client was told that nobody has it: a server that has heard of it and comes to read it finds nothing."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    client = start_program(GIVES_UP, backend, str(os.getpid()))
    client.process.wait(DEADLINE)
    assert client.output == "given up\n"
    read, write = raw_server.accept()
    assert os.read(read, 4096) == b""
    for fd in (read, write):
        os.close(fd)


COMES_AND_GOES = """
import errno, os, sys, ha_qnx
qnx = ha_qnx.backend(sys.argv[1])
for visit in range(40):
    if visit == 20:
        before = len(os.listdir("/dev/fd"))
    coid = qnx.ConnectAttach(0, int(sys.argv[2]), 77)
    try:
        qnx.MsgSend(coid, b"message")
    except OSError as error:
        assert error.errno in (errno.EBADF, errno.ESRCH), error
    else:
        raise AssertionError("nobody has answered")
    qnx.ConnectDetach(coid)
print(len(os.listdir("/dev/fd")) - before)
"""


@pytest.mark.parametrize("backend", ["fallback", "native"])
@pytest.mark.parametrize(
    "said",
    [b"\x05", wire.lane.pack(99, 0, 0, 0), wire.lane.pack(wire.EVENTS, 0, 0, 0)],
    ids=["a part of a frame", "a frame that there is not", "a frame that comes too early"],
)
@pytest.mark.usefixtures("shared_directory")
def test_what_a_server_passes_unasked_is_closed(
    raw_server: RawServer,
    start_program: Callable[..., Any],
    libha: str,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    said: bytes,
) -> None:
    """Its client has as many descriptors as before when it has left such a server."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    client = start_program(COMES_AND_GOES, backend, str(os.getpid()))
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", os.pipe()))]
    for _visit in range(40):
        raw_server.trunk, _ = raw_server.listener.accept()
        with raw_server.trunk:
            raw_server.trunk.sendmsg([said], passed)
            raw_server.trunk.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while raw_server.trunk.recv(4096):
                    pass
    client.process.wait(DEADLINE)
    assert client.output == "0\n"
    for fd in passed[0][2]:
        os.close(fd)


def test_a_server_that_goes_while_it_is_greeted_leaves_nothing(
    raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has passed is closed, be it for events or for nothing at all."""
    kernel, greet = SocketKernel(), Trunk._say_hello
    read, write = os.pipe()
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read]))]
    welcome = wire.welcome.pack(wire.WELCOME, wire.VERSION, 7, 0, 0)
    said = [[b"\x05"], [wire.lane.pack(99, 0, 0, 0)], [welcome, wire.lane.pack(wire.EVENTS, 0, 0, 0)]]

    def greet_late(trunk: Trunk, file: int) -> None:
        raw_server.trunk, _ = raw_server.listener.accept()
        with raw_server.trunk:
            for part in said[visit % 3]:
                raw_server.trunk.sendmsg([part], passed if part != welcome else [])
        greet(trunk, file)

    monkeypatch.setattr(Trunk, "_say_hello", greet_late)
    for visit in range(12):
        if visit == 3:
            gc.collect()  # What other tests have left would be closed meanwhile.
            before = len(os.listdir("/dev/fd"))
        with pytest.raises(ProcessLookupError):
            kernel.ConnectAttach(0, os.getpid(), 77)
    assert len(os.listdir("/dev/fd")) <= before
    os.close(read)
    os.close(write)


def test_a_server_that_refuses_the_version_is_no_server(raw_server: RawServer) -> None:
    """A client of another version finds the connection dead: EBADF, and the message says why."""
    kernel = SocketKernel()
    coid = kernel.ConnectAttach(0, os.getpid(), 77)
    raw_server.trunk, _ = raw_server.listener.accept()
    raw_server.trunk.send(wire.refused.pack(wire.REFUSED, wire.VERSION + 1, 0))
    raw_server.trunk.close()
    with pytest.raises(OSError, match=f"version {wire.VERSION + 1}") as raised:
        kernel.MsgSend(coid, b"message")
    assert raised.value.errno == EBADF
    kernel.ConnectDetach(coid)


def test_a_channel_with_unblock_survives_rubbish_too() -> None:
    """A lane whose message is outstanding ends like that of a client that was killed."""
    server = Server(NTO_CHF_UNBLOCK)
    raw = Raw(server.kernel, server.chid)
    raw.greet()
    read, write = raw.open_lane()
    os.write(write, message(4, room=0) + b"good")
    eventually(lambda: server.received == [b"good"], "the message to be received")
    os.write(write, b"\xff" * 40)
    os.close(write)
    os.close(read)
    raw.close()
    server.close()
