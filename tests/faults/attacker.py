"""A hostile client: nothing but a socket and the frames of PROTOCOL.md, none of which it has to get right."""

import array
import contextlib
import os
import pathlib
import select
import socket
import struct
import time
from typing import Iterator, NamedTuple, Sequence, Tuple

HELLO = struct.pack("=HH4s24x", 1, 3, b"HAQX")
PULSE_LANE = struct.pack("=HHiQ16x", 4, 1, 0, 0)

DEADLINE = 45.0


def lane_frame(window_size: int = 0, coid: int = 7) -> bytes:
    """LANE, for messages."""
    return struct.pack("=HHiQ16x", 4, 0, coid, window_size)


def message(data: bytes = b"", room: int = 0, kind: int = 16, size: int = -1, priority: int = 10) -> bytes:
    """MESSAGE, with what it carries; ``size`` is what it says of that."""
    size = len(data) if size < 0 else size
    return struct.pack("=HHiQQQ", kind, priority, 1, size, room, time.monotonic_ns()) + data


def pulse(code: int, value: int, priority: int = 10) -> bytes:
    """PULSE."""
    return struct.pack("=HHiiiQ8x", 18, priority, code, value, 7, time.monotonic_ns())


class Answer(NamedTuple):
    """The frame that ends an exchange."""

    kind: int
    errno: int
    status: int
    data: bytes


class Lane:
    """Our ends of a lane."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write

    def send(self, frame: bytes) -> None:
        os.write(self.write, frame)

    def answer(self) -> Answer:
        """The next frame of the server; EOFError if it has closed the lane."""
        assert select.select([self.read], [], [], DEADLINE)[0], "the server does not answer"
        frame = os.read(self.read, 4096)
        if len(frame) < 24:
            raise EOFError
        kind, errno, status, length = struct.unpack_from("=HxxiqQ", frame)
        return Answer(kind, errno, status, frame[24 : 24 + length])

    def close(self) -> None:
        for fd in {self.read, self.write}:
            os.close(fd)


class Attacker:
    """One connection to a channel."""

    def __init__(self, path: pathlib.Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        end = time.monotonic() + DEADLINE
        while True:
            try:
                self.sock.connect(str(path))
                return
            except BlockingIOError:
                assert time.monotonic() < end, "the backlog stays full"
                time.sleep(0.01)

    def send(self, frame: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a frame, with descriptors."""
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.sock.sendmsg([frame], passed, socket.MSG_NOSIGNAL)

    def greet(self) -> Tuple[int, int]:
        """Say HELLO; kind and scoid of what is answered. ConnectionError if that is the end of the trunk."""
        with contextlib.suppress(BrokenPipeError):  # It is refused already, which is to be read.
            self.send(HELLO)
        return self.welcome()

    def welcome(self) -> Tuple[int, int]:
        frame = self.sock.recv(32, socket.MSG_WAITALL)
        if len(frame) < 32:
            raise ConnectionResetError
        kind, _version, scoid, _flags = struct.unpack("=HHiI20x", frame)
        return kind, scoid

    def lane(self, window: int = -1, window_size: int = 0, coid: int = 7) -> Lane:
        """Pass a lane of two pipes."""
        server_read, write = os.pipe()
        read, server_write = os.pipe()
        far = [server_read, server_write] + ([window] if window >= 0 else [])
        try:
            self.send(lane_frame(window_size, coid), far)
        finally:
            os.close(server_read)
            os.close(server_write)
        return Lane(read, write)

    def pulse_pipe(self) -> int:
        """Pass a lane for pulses; where to write them."""
        far, near = os.pipe()
        try:
            self.send(PULSE_LANE, [far])
        finally:
            os.close(far)
        return near

    def is_dropped(self) -> bool:
        """Wait for the server to close the trunk; whether it did."""
        with contextlib.suppress(ConnectionResetError):
            try:
                while self.sock.recv(4096):
                    pass
            except socket.timeout:
                return False
        return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Attacker":
        return self

    def __exit__(self, *_how: object) -> None:
        self.close()


@contextlib.contextmanager
def pipe() -> Iterator[Tuple[int, int]]:
    """A pipe, whose ends are closed at the end if they still are open."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for fd in ends:
            with contextlib.suppress(OSError):
                os.close(fd)
