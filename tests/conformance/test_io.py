"""Reading and writing: what read, write, lseek and fstat send, what they make of the answer, and how they recover."""

import contextlib
import io
import os
import signal
import struct
from errno import (
    EACCES,
    EAGAIN,
    EBADF,
    EIO,
    EISDIR,
    ENOENT,
    ENOSPC,
    ENOSYS,
    ESPIPE,
    ESRCH,
    ETIMEDOUT,
)  # fmt: skip
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

from ha_qnx import (
    EOK,
    HA_RECOVERY_ICOUNT,
    IO_CONNECT,
    IO_LSEEK,
    IO_READ,
    IO_STAT,
    IO_WRITE,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    dropin,
)

from .expect import fails_with
from .file_server import keep_file, take_path
from .marks import checks, open_point
from .peers import Peer
from .servers import (
    Server,
    Start,
    StartPeer,
    is_descriptor,
    next_number,
    opened,
    path_of,
    take,
)
from .test_recovery import Recovering, give_up, ha_opened
from .waiting import DEADLINE, eventually

SIDE = NTO_SIDE_CHANNEL
LINES = b"first line\nsecond line\nthird line\n"


# read


@checks("B317", "B318")
def test_read_asks_for_bytes(qnx: Any, start: Start, server: Server) -> None:
    """The server gets 16 bytes of _IO_READ, which say how many bytes there is room for, and answers with the data."""
    fd = opened(qnx, start, server)
    task = start(qnx.read, fd, 100)
    seen = server.answer(5, b"bytes")
    assert task.result() == b"bytes"
    assert seen.data == struct.pack("=HHIII", IO_READ, 16, 100, 0, 0)
    assert (seen.coid, seen.room) == (fd, 100)


@checks("B318")
def test_a_status_of_zero_is_the_end_of_the_file(qnx: Any, start: Start, server: Server) -> None:
    """A server that answers 0 has no more data: read returns no bytes, readinto 0."""
    fd = opened(qnx, start, server)
    task = start(qnx.read, fd, 100)
    server.answer(0)
    assert task.result() == b""
    task = start(qnx.readinto, fd, bytearray(10))
    server.answer(0)
    assert task.result() == 0


@checks("B317", "B318")
@pytest.mark.parametrize("kind", ["bytearray", "memoryview"])
def test_readinto_fills_a_buffer(qnx: Any, start: Start, server: Server, kind: str) -> None:
    """What readinto reads stands at the start of the buffer; the rest of it stays as it was."""
    fd = opened(qnx, start, server)
    buffer = bytearray(b"..........")
    task = start(qnx.readinto, fd, buffer if kind == "bytearray" else memoryview(buffer))
    seen = server.answer(5, b"bytes")
    assert task.result() == 5
    assert buffer == b"bytes....."
    assert seen.data == struct.pack("=HHIII", IO_READ, 16, 10, 0, 0)


@checks("B317")
def test_a_read_of_nothing_asks_the_server(qnx: Any, start: Start, server: Server) -> None:
    """A read of 0 bytes is a message, too: the server may answer with an error."""
    fd = opened(qnx, start, server)
    task = start(qnx.read, fd, 0)
    assert server.answer(0).data == struct.pack("=HHIII", IO_READ, 16, 0, 0, 0)
    assert task.result() == b""
    task = start(qnx.readinto, fd, None)
    server.refuse(EIO)
    assert task.errno() == EIO


@checks("B317", "B318")
def test_a_large_read_arrives_whole(qnx: Any, start: Start, server: Server) -> None:
    """A mebibyte that the server answers with is what read returns."""
    fd = opened(qnx, start, server)
    data = os.urandom(1 << 20)
    task = start(qnx.read, fd, len(data))
    server.answer(len(data), data)
    assert task.result() == data


@checks("B319")
@pytest.mark.parametrize("error", [EIO, EACCES, EAGAIN, EISDIR, ENOSYS])
def test_a_refused_read_fails(qnx: Any, start: Start, server: Server, error: int) -> None:
    """What the server answers to _IO_READ by MsgError is what read fails with."""
    fd = opened(qnx, start, server)
    task = start(qnx.read, fd, 100)
    server.refuse(error)
    assert task.errno() == error
    task = start(qnx.read, fd, 100)
    server.answer(2, b"ok")
    assert task.result() == b"ok"


@checks("B320", "D31")
def test_read_never_returns_more_than_was_asked_for(qnx: Any, start: Start, server: Server) -> None:
    """A server that answers with more data and a higher status than asked for: the data is cut, and so is the count."""
    fd = opened(qnx, start, server)
    task = start(qnx.read, fd, 4)
    server.answer(8, b"too much")
    assert task.result() == b"too "
    buffer = bytearray(6)
    task = start(qnx.readinto, fd, memoryview(buffer)[:4])
    server.answer(8, b"too much")
    assert task.result() == 4
    assert buffer == b"too \0\0"


@checks("B321")
def test_readv_asks_for_the_sum_of_its_parts(qnx: Any, start: Start, server: Server) -> None:
    """A readv of a connection is one _IO_READ for all of its buffers, which the data fills in order."""
    fd = opened(qnx, start, server)
    parts = [bytearray(2), bytearray(b"--"), bytearray(b"....")]
    with dropin.installed(qnx.backend):
        task = start(os.readv, fd, parts)
        seen = server.answer(6, b"abcdef")
        assert task.result() == 6
    assert parts == [b"ab", b"cd", b"ef.."]
    assert seen.data == struct.pack("=HHIII", IO_READ, 16, 8, 0, 0)
    assert seen.room == 8


@checks("B317")
@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ValueError, lambda qnx, fd: qnx.read(fd, -1)),
        (TypeError, lambda qnx, fd: qnx.read(fd, "1")),
        (TypeError, lambda qnx, fd: qnx.read(str(fd), 1)),
        (TypeError, lambda qnx, fd: qnx.readinto(fd, b"read-only")),
        (TypeError, lambda qnx, fd: qnx.readinto(fd, 7)),
    ],
    ids=["negative size", "size of no type", "descriptor of no type", "read-only buffer", "no buffer"],
)
def test_wrong_arguments_of_read_are_refused(
    qnx: Any, start: Start, server: Server, error: "type[Exception]", call: Callable[[Any, int], object]
) -> None:
    """A size below 0 is a ValueError, a wrong type a TypeError; the server hears nothing."""
    fd = opened(qnx, start, server)
    with pytest.raises(error):
        call(qnx, fd)
    start(qnx.MsgSend, fd, b"next", None)
    assert server.answer().data == b"next"


# write


@checks("B322", "B324")
def test_write_sends_the_data_behind_a_header(qnx: Any, start: Start, server: Server) -> None:
    """The server gets 16 bytes of _IO_WRITE with the data behind them, and has no room for a reply."""
    fd = opened(qnx, start, server)
    task = start(qnx.write, fd, b"some data")
    seen = server.answer(9)
    assert task.result() == 9
    assert seen.data == struct.pack("=HHIII", IO_WRITE, 16, 9, 0, 0) + b"some data"
    assert (seen.coid, seen.size, seen.room) == (fd, 25, 0)


@checks("B322")
@pytest.mark.parametrize(
    "data", [b"", bytearray(b"abc"), memoryview(b"abcdef")[::1]], ids=["none", "bytearray", "view"]
)
def test_anything_bytes_like_can_be_written(qnx: Any, start: Start, server: Server, data: Any) -> None:
    """Every kind of buffer is sent as its bytes; a write of nothing is a message, too."""
    fd = opened(qnx, start, server)
    task = start(qnx.write, fd, data)
    assert server.answer(len(data)).data[16:] == bytes(data)
    assert task.result() == len(data)


def receive_in_pieces(qnx: Any, chid: int) -> Tuple[int, bytes]:
    """In another process: receive a large write into a small buffer, and read the rest of it."""
    buffer = bytearray(20)
    rcvid = qnx.MsgReceive(chid, buffer)
    rest = bytearray(struct.unpack_from("=I", buffer, 4)[0] - 4)
    count = qnx.MsgRead(rcvid, rest, 20)
    behind = qnx.MsgRead(rcvid, bytearray(1), 20 + len(rest))
    qnx.MsgReply(rcvid, 4 + count, None)
    return behind, bytes(buffer[16:] + rest)


@checks("B323")
def test_a_server_reads_the_rest_of_a_large_write(qnx: Any, start: Start, server: Server) -> None:
    """A write that does not fit into the server's buffer is read on from where the buffer ended, to its end."""
    fd = opened(qnx, start, server)
    data = os.urandom(1 << 20)
    received = server.peer.start(receive_in_pieces, server.chid)
    assert start(qnx.write, fd, data).result() == len(data)
    assert received.result() == (0, data)


@checks("B324")
def test_a_server_may_take_a_part_of_a_write(qnx: Any, start: Start, server: Server) -> None:
    """The status is what write returns, though it is less than what was sent."""
    fd = opened(qnx, start, server)
    for taken in (3, 0):
        task = start(qnx.write, fd, b"some data")
        server.answer(taken)
        assert task.result() == taken


@checks("B324")
def test_a_refused_write_fails(qnx: Any, start: Start, server: Server) -> None:
    """What the server answers to _IO_WRITE by MsgError is what write fails with."""
    fd = opened(qnx, start, server)
    task = start(qnx.write, fd, b"some data")
    server.refuse(ENOSPC)
    assert task.errno() == ENOSPC


@checks("B322")
def test_text_cannot_be_written(qnx: Any, start: Start, server: Server) -> None:
    """A str is no bytes: a TypeError, and the server hears nothing."""
    fd = opened(qnx, start, server)
    with pytest.raises(TypeError):
        qnx.write(fd, "text")
    start(qnx.MsgSend, fd, b"next", None)
    assert server.answer().data == b"next"


# lseek


@checks("B325", "B326")
@pytest.mark.parametrize(
    ("offset", "whence", "position"),
    [(7, os.SEEK_SET, 7), (-3, os.SEEK_CUR, 4), (-1, os.SEEK_END, 1 << 40), (1 << 40, os.SEEK_SET, 1 << 40)],
    ids=["set", "cur", "end", "far"],
)
def test_lseek_sends_offset_and_whence(
    qnx: Any, start: Start, server: Server, offset: int, whence: int, position: int
) -> None:
    """The server gets 16 bytes of _IO_LSEEK with a signed offset of 64 bits, and answers with the new position."""
    fd = opened(qnx, start, server)
    task = start(qnx.lseek, fd, offset, whence)
    seen = server.answer(EOK, struct.pack("=q", position))
    assert task.result() == position
    assert seen.data == struct.pack("=HHhHq", IO_LSEEK, 16, whence, 0, offset)
    assert (seen.coid, seen.room) == (fd, 8)


@checks("B326")
def test_the_status_of_lseek_does_not_count(qnx: Any, start: Start, server: Server) -> None:
    """The position is what stands in the reply, whatever the status."""
    fd = opened(qnx, start, server)
    task = start(qnx.lseek, fd, 0, os.SEEK_CUR)
    server.answer(5, struct.pack("=q", 42))
    assert task.result() == 42


@checks("B326")
def test_a_status_of_minus_one_is_no_position(qnx: Any, start: Start, server: Server) -> None:
    """Only a server that answers -1 has not told a position: lseek fails."""
    fd = opened(qnx, start, server)
    task = start(qnx.lseek, fd, 0, os.SEEK_CUR)
    server.answer(-1, struct.pack("=q", 42))
    assert isinstance(task.error(), OSError)


@checks("B326")
def test_a_server_without_positions_says_so(qnx: Any, start: Start, server: Server) -> None:
    """What the server answers to _IO_LSEEK by MsgError is what lseek fails with: ESPIPE for a device."""
    fd = opened(qnx, start, server)
    task = start(qnx.lseek, fd, 0, os.SEEK_CUR)
    server.refuse(ESPIPE)
    assert task.errno() == ESPIPE


# fstat

#: The numbers of QNX's struct stat on 64 bits, before the times.
STAT = "=QqIIiiIIIIIIiIQ"


@checks("B327")
def test_fstat_asks_for_a_struct_stat(qnx: Any, start: Start, server: Server) -> None:
    """The server gets 8 bytes of _IO_STAT, and answers with QNX's struct stat: 120 bytes on 64 bits."""
    fd = opened(qnx, start, server)
    task = start(qnx.fstat, fd)
    times = [11, 5, 12, 6, 13, 7]
    seen = server.answer(
        EOK, struct.pack(STAT, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0o100640, 8, 512, 9, 10, 14)
        + struct.pack("=6q", *times),
    )  # fmt: skip
    status = task.result()
    assert (seen.type, seen.size, seen.coid) == (IO_STAT, 8, fd)
    assert seen.room >= 72
    assert (status.st_ino, status.st_size, status.st_dev, status.st_rdev, status.st_uid, status.st_gid) == (
        1,
        2,
        3,
        4,
        5,
        6,
    )
    assert (status.st_mode, status.st_nlink, status.st_blksize, status.st_blocks) == (0o100640, 8, 10, 14)
    assert (status.st_mtime_ns, status.st_atime_ns, status.st_ctime_ns) == (
        11_000_000_005,
        12_000_000_006,
        13_000_000_007,
    )


@checks("B327")
def test_a_refused_fstat_fails(qnx: Any, start: Start, server: Server) -> None:
    """What the server answers to _IO_STAT by MsgError is what fstat fails with: ENOSYS, if it does not know it."""
    fd = opened(qnx, start, server)
    task = start(qnx.fstat, fd)
    server.refuse(ENOSYS)
    assert task.errno() == ENOSYS


# Every call

CALLS: Dict[str, Tuple[Callable[[Any, int], Any], int, int, bytes]] = {
    "read": (lambda qnx, fd: qnx.read(fd, 10), IO_READ, 4, b"data"),
    "readinto": (lambda qnx, fd: qnx.readinto(fd, bytearray(10)), IO_READ, 4, b"data"),
    "write": (lambda qnx, fd: qnx.write(fd, b"data"), IO_WRITE, 4, b""),
    "lseek": (lambda qnx, fd: qnx.lseek(fd, 4, os.SEEK_SET), IO_LSEEK, 0, struct.pack("=q", 4)),
    "fstat": (lambda qnx, fd: qnx.fstat(fd).st_size, IO_STAT, EOK, struct.pack(STAT, 1, 4, *[0] * 13) + bytes(48)),
}
RESULTS = {"read": b"data", "readinto": 4, "write": 4, "lseek": 4, "fstat": 4}
any_call = pytest.mark.parametrize("call", CALLS)


@checks("B344")
@any_call
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_a_raw_connection_gets_the_same_messages(qnx: Any, start: Start, lasting: Peer, call: str, index: int) -> None:
    """A connection that ConnectAttach made can be read and written like one that was opened."""
    server = Server(lasting)
    coid = qnx.ConnectAttach(0, server.pid, server.chid, index)
    function, kind, status, reply = CALLS[call]
    task = start(function, qnx, coid)
    seen = server.answer(status, reply)
    assert (seen.type, seen.coid) == (kind, coid)
    assert task.result() == RESULTS[call]


@checks("B345")
@any_call
@pytest.mark.parametrize("state", ["idle", "waiting"])
def test_an_ordinary_connection_loses_its_server(
    qnx: Any, start: Start, peer: Peer, name: str, call: str, state: str
) -> None:
    """A server that is killed while the call waits makes it fail with ESRCH; one that was dead before, with EBADF."""
    server = Server(peer, name)
    fd = opened(qnx, start, server)
    task = server.lose(state, lambda: start(CALLS[call][0], qnx, fd))
    assert task.errno() == (EBADF if state == "idle" else ESRCH)


@checks("B345")
@any_call
@pytest.mark.parametrize("bad", ["closed", "negative", "side channel"])
def test_what_is_not_open_cannot_be_read_or_written(qnx: Any, call: str, bad: str) -> None:
    """A number that is no descriptor makes every call fail with EBADF."""
    number = {"closed": next_number(), "negative": -1, "side channel": SIDE | 1000}[bad]
    with fails_with(EBADF):
        CALLS[call][0](qnx, number)


@checks("B369", "B363", "B402", "B384")
@any_call
def test_a_call_is_sent_again_to_the_next_server(
    qnx: Any, start: Start, start_peer: StartPeer, name: str, call: str
) -> None:
    """A server that is killed while it has the message: the next one gets the same message, and the call succeeds."""
    first, second = Server(start_peer(), name), start_peer()
    ready: List[Server] = []

    def reopen(fd: int) -> Any:
        first.wait_until_gone()
        server = Server(second, name)
        task = start(qnx.ha_reopen, fd, first.path, os.O_RDWR)
        assert server.answer().type == IO_CONNECT
        reopened = task.result()
        ready.append(server)
        return reopened

    recovering = Recovering(reopen)
    fd = ha_opened(qnx, start, first, recovering)
    function, kind, status, reply = CALLS[call]
    task = start(function, qnx, fd)
    lost = first.take()
    assert lost.type == kind
    first.kill()
    eventually(lambda: ready, "the recovery")
    answered = ready[0].answer(status, reply)
    assert task.result() == RESULTS[call]
    assert (answered.data, answered.coid) == (lost.data, lost.coid)
    assert recovering.calls == [(fd, None)]


@checks("B364", "B369")
@any_call
def test_what_is_not_recovered_fails(qnx: Any, start: Start, peer: Peer, name: str, call: str) -> None:
    """A recovery function that gives up leaves the caller with the error of the call."""
    server = Server(peer, name)
    recovering = Recovering(give_up)
    fd = ha_opened(qnx, start, server, recovering)
    task = start(CALLS[call][0], qnx, fd)
    server.take()
    server.kill()
    assert task.errno() == ESRCH
    assert recovering.count == 1


@checks("B367")
@any_call
def test_what_a_server_answers_is_not_recovered(qnx: Any, start: Start, server: Server, call: str) -> None:
    """An error that the server chose goes to the caller, and the recovery function is not called."""
    recovering = Recovering(give_up)
    fd = ha_opened(qnx, start, server, recovering)
    task = start(CALLS[call][0], qnx, fd)
    server.refuse(ENOSYS)
    assert task.errno() == ENOSYS
    assert recovering.count == 0


@checks("B368", "B389")
def test_a_server_that_answers_ebadf_looks_lost(qnx: Any, start: Start, server: Server) -> None:
    """A server that refuses a read because of the open mode, by EBADF, is recovered, as often as the limit allows."""
    recovering = Recovering(lambda fd: fd)
    fd = ha_opened(qnx, start, server, recovering)
    qnx.ha_connection_ctrl(fd, HA_RECOVERY_ICOUNT, 2)
    task = start(qnx.read, fd, 10)
    for _ in range(3):
        assert server.refuse(EBADF).type == IO_READ
    assert task.errno() == EBADF
    assert recovering.count == 2


@checks("B209", "B345")
@any_call
def test_a_timeout_ends_the_call(qnx: Any, start: Start, server: Server, call: str) -> None:
    """TimerTimeout limits the call like any other that sends a message: it fails with ETIMEDOUT."""
    fd = opened(qnx, start, server)

    def limited() -> Any:
        qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, 1_000_000)
        return CALLS[call][0](qnx, fd)

    assert start(limited).errno() == ETIMEDOUT


@checks("B208", "D20")
@open_point("D20")
@pytest.mark.parametrize("call", ["dup", "dup2", "close", "open"])
def test_a_timeout_ends_a_call_that_makes_or_ends_a_connection(
    qnx: Any, start: Start, server: Server, call: str
) -> None:
    """TimerTimeout limits the wait for the server's consent as well: the call fails with ETIMEDOUT."""
    fd = opened(qnx, start, server)
    arguments: Dict[str, Tuple[Any, ...]] = {
        "dup": (fd,),
        "dup2": (fd, next_number()),
        "close": (fd,),
        "open": (server.path, os.O_RDWR),
    }

    def limited() -> Any:
        qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, 1_000_000)
        return getattr(qnx, call)(*arguments[call])

    assert start(limited).errno() == ETIMEDOUT


def read_interrupted(qnx: Any, pid: int, chid: int) -> List[int]:
    """In another process: read, until a signal whose handler returns ends the call; the signals that were handled."""
    handled: List[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: handled.append(number))
    with contextlib.suppress(InterruptedError):
        qnx.read(qnx.ConnectAttach(0, pid, chid, 0), 10)
        return []
    return handled


@checks("B180", "D19")
def test_a_signal_handler_ends_a_read(qnx: Any, start: Start, peer: Peer) -> None:
    """A signal whose handler ran while read waited makes it fail with EINTR, after the handler."""
    chid = qnx.ChannelCreate(0)
    remote = peer.begin(read_interrupted, os.getpid(), chid)
    start(take, qnx, chid).result()
    remote.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert remote.result() == [signal.SIGUSR1]


# Ordinary files


@checks("B369", "D32")
def test_an_ordinary_file_is_read_and_written(qnx: Any, tmp_path: Path) -> None:
    """A descriptor of a file of the host answers the same calls."""
    fd = qnx.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert qnx.write(fd, b"some data") == 9
    assert qnx.lseek(fd, 5, os.SEEK_SET) == 5
    assert qnx.read(fd, 100) == b"data"
    buffer = bytearray(b"....")
    assert qnx.lseek(fd, -4, os.SEEK_END) == 5
    assert qnx.readinto(fd, buffer) == 4
    assert buffer == b"data"
    assert qnx.read(fd, 100) == b""
    assert qnx.fstat(fd).st_size == 9
    assert (tmp_path / "file").read_bytes() == b"some data"


@checks("B384", "B369", "D17")
def test_an_ordinary_file_can_be_recovered(qnx: Any, tmp_path: Path) -> None:
    """An HA-aware file whose descriptor was closed behind the library's back is reopened, and the call made again."""
    path = tmp_path / "file"
    path.write_bytes(LINES)
    recovering = Recovering(lambda fd: qnx.ha_reopen(fd, path, os.O_RDONLY))
    fd = qnx.ha_open(path, os.O_RDONLY, recovering)
    assert qnx.read(fd, 5) == LINES[:5]
    os.close(fd)
    assert qnx.read(fd, 5) == LINES[:5]
    assert recovering.count == 1
    qnx.ha_close(fd)


@checks("B384", "B369")
def test_a_file_can_take_the_place_of_a_server(qnx: Any, start: Start, peer: Peer, name: str, tmp_path: Path) -> None:
    """A recovery function may reopen a connection as an ordinary file: the read that was under way is read from it."""
    path = tmp_path / "file"
    path.write_bytes(LINES)
    server = Server(peer, name)
    fd = ha_opened(qnx, start, server, Recovering(lambda fd: qnx.ha_reopen(fd, path, os.O_RDONLY)))
    task = start(qnx.read, fd, 5)
    server.take()
    server.kill()
    assert task.result() == LINES[:5]
    qnx.ha_close(fd)


@checks("B361", "B369")
@pytest.mark.parametrize("call", ["read", "write"])
def test_a_file_that_is_open_otherwise_is_not_lost(qnx: Any, tmp_path: Path, call: str) -> None:
    """Reading what is open for writing only fails with EBADF, and so the other way round; nothing is recovered."""
    path = tmp_path / "file"
    path.touch()
    recovering = Recovering(give_up)
    fd = qnx.ha_open(path, os.O_WRONLY if call == "read" else os.O_RDONLY, recovering)
    with fails_with(EBADF):
        CALLS[call][0](qnx, fd)
    assert recovering.count == 0
    qnx.ha_close(fd)


@checks("B326")
def test_a_pipe_has_no_position(qnx: Any) -> None:
    """A pipe of the host makes lseek fail with ESPIPE; it can be read and written."""
    reading, writing = os.pipe()
    try:
        with fails_with(ESPIPE):
            qnx.lseek(reading, 0, os.SEEK_CUR)
        assert qnx.write(writing, b"through") == 7
        assert qnx.read(reading, 100) == b"through"
    finally:
        os.close(reading)
        os.close(writing)


# File objects


class Journal:
    """A file that another process serves under a path, through as many deaths as a test wants."""

    def __init__(self, qnx: Any, start_peer: StartPeer, name: str, path: Path) -> None:
        self._qnx = qnx
        self._start_peer = start_peer
        self.path = path_of(name)
        self.store = path / "store"
        self.store.touch()
        self._peer: Any = None

    def begin(self, transfers: int = 0, most: int = 1 << 30) -> None:
        """Let a new process serve it, so many bytes at a time, and die with the given transfer."""
        self._peer = self._start_peer()
        self._peer.start(keep_file, self._peer.run(take_path, self.path), str(self.store), transfers, most)

    def resume(self, transfers: int = 0) -> None:
        """The same, once the process before it is gone."""
        self._peer.process.wait(DEADLINE)
        self.begin(transfers)


@pytest.fixture
def journal(qnx: Any, start_peer: StartPeer, name: str, tmp_path: Path) -> Journal:
    return Journal(qnx, start_peer, name, tmp_path)


@checks("B378")
def test_a_connection_can_be_a_text_file(qnx: Any, journal: Journal) -> None:
    """ha_fopen gives a file object of Python's: its lines can be iterated over, and its position kept."""
    journal.store.write_bytes("größer\nkleiner\n".encode("latin-1"))
    journal.begin()
    with qnx.ha_fopen(journal.path, "r", Recovering(give_up), encoding="latin-1") as file:
        assert file.readline() == "größer\n"
        position = file.tell()
        assert list(file) == ["kleiner\n"]
        file.seek(position)
        assert file.read() == "kleiner\n"
        assert isinstance(file, io.TextIOWrapper)


@checks("B378", "B324")
@pytest.mark.parametrize("mode", ["w", "a", "r+", "w+"])
def test_a_connection_can_be_written_as_a_file(qnx: Any, journal: Journal, mode: str) -> None:
    """Each mode of open() does to the server's file what it does to a file of the host."""
    journal.store.write_bytes(LINES)
    journal.begin()
    twin = journal.store.with_name("twin")
    twin.write_bytes(LINES)
    with qnx.ha_fopen(journal.path, mode, Recovering(give_up)) as file, open(twin, mode) as other:
        file.write("written\n")
        other.write("written\n")
    assert journal.store.read_bytes() == twin.read_bytes()


def serving(journal: Journal, qnx: Any, files: List[Any], oflag: int) -> Callable[[int], Any]:
    """A recovery function that lets the file be served again, and goes on where the transfers were."""

    def recover(fd: int) -> Any:
        journal.resume()
        qnx.ha_reopen(fd, journal.path, oflag)
        qnx.lseek(fd, files[0].raw.position, os.SEEK_SET)
        return fd

    return recover


@checks("B369", "B363", "B378", "B342")
def test_a_file_is_read_to_the_end_through_a_death(qnx: Any, journal: Journal) -> None:
    """The server dies with a read in the middle of the file: a recovery function that seeks makes the data whole."""
    data = os.urandom(100_000)
    journal.store.write_bytes(data)
    journal.begin(transfers=4)
    files: List[Any] = []
    recovering = Recovering(serving(journal, qnx, files, os.O_RDONLY))
    files.append(qnx.ha_fopen(journal.path, "rb", recovering))
    with files[0] as file:
        pieces = [file.read(1000) for _ in range(50)]
        assert b"".join([*pieces, file.read()]) == data
    assert recovering.count == 1


@checks("B369", "B363", "B378", "B402")
def test_a_buffered_write_goes_on_with_the_next_server(qnx: Any, journal: Journal) -> None:
    """The server dies with the second part of what was buffered: every byte is in its place in the end."""
    journal.begin(transfers=2)
    files: List[Any] = []
    recovering = Recovering(serving(journal, qnx, files, os.O_WRONLY))
    data = os.urandom(50_000)
    files.append(qnx.ha_fopen(journal.path, "wb", recovering, buffering=1000))
    with files[0] as file:
        for start_of in range(0, len(data), 700):
            file.write(data[start_of : start_of + 700])
    assert journal.store.read_bytes() == data
    assert recovering.count == 1


@checks("B364", "B378", "B324")
def test_a_buffered_write_that_is_not_recovered_fails(qnx: Any, journal: Journal) -> None:
    """The server takes half of a buffer and dies with the other half: flush fails, and so does close, which closes."""
    journal.begin(transfers=2, most=12)
    recovering = Recovering(give_up)
    file = qnx.ha_fopen(journal.path, "wb", recovering)
    fd = file.fileno()
    file.write(b"the one halfthe other one")
    with fails_with(ESRCH):
        file.flush()
    with fails_with(EBADF):
        file.close()
    assert journal.store.read_bytes() == b"the one halfthe other on"
    assert file.closed
    assert not is_descriptor(fd)
    assert recovering.count == 2


@checks("B376")
@pytest.mark.parametrize("how", ["close", "ha_fclose", "with"])
def test_a_file_that_is_closed_is_detached_and_closed(qnx: Any, journal: Journal, how: str) -> None:
    """Whichever way a file is closed, what is buffered is written, its number is free, and nothing recovers it."""
    journal.begin()
    file = qnx.ha_fopen(journal.path, "w", Recovering(give_up))
    fd = file.fileno()
    file.write("written")
    if how == "ha_fclose":
        assert qnx.ha_fclose(file) == 0
    elif how == "close":
        file.close()
    else:
        with file:
            pass
    assert file.closed
    assert journal.store.read_bytes() == b"written"
    assert not is_descriptor(fd)
    with fails_with(EBADF):
        qnx.ha_detach(fd)


@checks("B376", "D3")
@open_point("D3")
def test_only_an_ha_aware_file_can_be_ha_closed(qnx: Any, journal: Journal) -> None:
    """ha_fclose on a file whose connection is not HA-aware fails with EBADF, and the file stays open."""
    journal.begin()
    with qnx.ha_fopen(journal.path, "w", Recovering(give_up)) as file:
        qnx.ha_detach(file.fileno())
        with fails_with(EBADF):
            qnx.ha_fclose(file)
        file.write("still open")
    assert journal.store.read_bytes() == b"still open"
    with fails_with(EBADF):
        qnx.ha_fclose(file)


@checks("B378", "B1")
def test_ha_fopen_fails_like_open(qnx: Any, name: str, tmp_path: Path) -> None:
    """What cannot be opened fails with the error of open, and leaves no descriptor."""
    lowest = next_number()
    with fails_with(ENOENT):
        qnx.ha_fopen(path_of(name), "r", Recovering(give_up))
    with fails_with(ENOENT):
        qnx.ha_fopen(tmp_path / "nothing", "r", Recovering(give_up))
    with fails_with(EISDIR):
        qnx.ha_fopen(tmp_path, "r", Recovering(give_up))
    assert next_number() <= lowest


@checks("B378", "D4")
@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (TypeError, {"rfn": None}),
        (TypeError, {"mode": 7}),
        (ValueError, {"mode": "rw"}),
        (ValueError, {"mode": "rbt"}),
        (ValueError, {"mode": "rb", "encoding": "ascii"}),
        (ValueError, {"buffering": 0}),
        (LookupError, {"encoding": "no such encoding"}),
        (ValueError, {"newline": "x"}),
        (OSError, {"haflags": 64}),
    ],
    ids=str,
)
def test_wrong_arguments_of_ha_fopen_are_refused(
    qnx: Any, tmp_path: Path, error: "type[BaseException]", changes: Dict[str, Any]
) -> None:
    """What does not go together raises what open() raises for it, and leaves no descriptor."""
    path = tmp_path / "file"
    path.touch()
    lowest = next_number()
    with pytest.raises(error):
        qnx.ha_fopen(path, **{"mode": "r", "rfn": Recovering(give_up), **changes})
    assert next_number() <= lowest
