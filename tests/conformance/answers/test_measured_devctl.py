"""Device commands: what a server gets, and what becomes of its answers."""

import struct
from errno import EBADF, EINTR, EINVAL, EIO, ENOSYS, ENOTTY, EPERM
from typing import Any, Callable

import pytest

from ha_qnx import POSIX_DEVDIR_FROM, POSIX_DEVDIR_NONE, POSIX_DEVDIR_TO, POSIX_DEVDIR_TOFROM

from ..servers import Seen, Server, Start, StartPeer, next_number, opened
from .asking import Answers, measured
from .notation import error_name

COMMAND = 0x0512
DIRECTIONS = {
    "none": POSIX_DEVDIR_NONE,
    "to": POSIX_DEVDIR_TO,
    "from": POSIX_DEVDIR_FROM,
    "tofrom": POSIX_DEVDIR_TOFROM,
}
DATA, BEHIND = b"ABCDEFGH", b"cccc"
REPLY = struct.pack("=IiII", 0, 4321, 5, 0) + b"vwxyz"
#: How many bytes of it, and of zeros behind it, are answered.
LENGTHS = (0, 4, 8, 16, 21, 48)
ERRORS = (EINVAL, EBADF, EIO, ENOTTY, EPERM, EINTR)

Command = Callable[..., Any]


def cases(*numbers: str) -> Callable[[Callable[..., Answers]], Callable[..., None]]:
    """The mark of a test that asks these cases, which are of the second recording."""
    return measured(*(f"2.DV{number}" for number in numbers))


def said(status: int) -> str:
    """What devctl has returned."""
    return f"+{error_name(status)}" if status > 0 else str(status)


def written(seen: Seen) -> str:
    """A message, its bytes in words as they lie there."""
    kind, length = struct.unpack_from("=HH", seen.data)
    words = " ".join(seen.data[at : at + 4].hex() for at in range(4, len(seen.data), 4))
    return f"io {kind:x}/{length:x} len {seen.size} room {seen.room}: {words}"


@pytest.fixture
def command(qnx: Any, start: Start, server: Server) -> Command:
    """Begins a device command on a descriptor of the server."""
    fd = opened(qnx, start, server)
    return lambda dcmd, data=b"": start(qnx.devctl, fd, dcmd, data)


@cases(*(f"{number}a" for number in range(4)), *(f"{number}b{case}" for number in range(4) for case in range(6)))
def test_data_goes_where_the_command_says(command: Command, server: Server) -> Answers:
    """To the server, from it, or nowhere; and of what the server answers, what has come counts."""
    for number, (name, direction) in enumerate(DIRECTIONS.items()):
        task = command(direction | COMMAND, DATA)
        seen = server.refuse(ENOSYS)
        status, info, _data = task.result()
        yield f"2.DV{number}a", f"{name}: {said(status)} {info}; {written(seen)}"
        for case, length in enumerate(LENGTHS):
            task = command(direction | COMMAND, DATA)
            server.answer(0, (REPLY + bytes(length))[:length])
            status, info, data = task.result()
            text = (data + BEHIND).partition(b"\0")[0].decode()
            yield f"2.DV{number}b{case}", f"{name}, {length} bytes: {said(status)} {info} '{text}'"


@cases("50", "51", "52", "53", "54", "55", "60", "61", "62", "63")
def test_errors_are_returned(qnx: Any, command: Command, start_peer: StartPeer, server: Server) -> Answers:
    """As they are; what is no error of the server's is negated."""
    for case, error in enumerate(ERRORS, 50):
        task = command(COMMAND)
        server.refuse(error)
        yield f"2.DV{case}", f"{error_name(error)}: {said(task.result()[0])}"
    for case, status in ((60, 7), (61, -7)):
        task = command(COMMAND)
        server.answer(status)
        found = task.result()[0]
        yield f"2.DV{case}", f"{'+' if found > 0 else '-'}errno{abs(found)}"
    dead = Server(start_peer())
    raw = qnx.ConnectAttach(0, dead.pid, dead.chid, 0)
    dead.kill()
    lost = [said(qnx.devctl(fd, COMMAND)[0]) for fd in (next_number(), raw)]
    yield "2.DV62", " ".join(dict.fromkeys(lost))
    task = command(POSIX_DEVDIR_TOFROM | COMMAND)
    seen = server.answer(0)
    yield "2.DV63", f"{task.result()[0]}; {written(seen)}"


@cases("70")
def test_the_server_is_killed(qnx: Any, start: Start, start_peer: StartPeer, name: str) -> Answers:
    """Before the command."""
    server = Server(start_peer(), name)
    fd = opened(qnx, start, server)
    server.kill()
    yield "2.DV70", said(qnx.devctl(fd, COMMAND)[0])
