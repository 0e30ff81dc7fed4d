"""Descriptors: what open, close, dup and dup2 send, and what is left when they fail."""

import os
import signal
import struct
from errno import EACCES, EBADF, EBUSY, EINTR, EINVAL, EIO, ENOENT, ENOSYS, EPERM, ESRCH
from pathlib import Path
from typing import Any, Tuple

import pytest

from ha_qnx import (
    EOK,
    FTYPE_ANY,
    IO_CLOSE,
    IO_CONNECT,
    IO_CONNECT_OPEN,
    IO_DUP,
    NTO_CHF_DISCONNECT,
    NTO_SIDE_CHANNEL,
    PULSE_CODE_DISCONNECT,
)

from .expect import fails_with
from .marks import checks
from .peers import Peer
from .servers import (
    KNOWN_FLAGS,
    ConnectMessage,
    DupMessage,
    Server,
    Start,
    StartPeer,
    free_numbers,
    is_descriptor,
    next_number,
    opened,
    take,
)

SIDE = NTO_SIDE_CHANNEL


# open


@checks("B310", "B311", "B313")
def test_open_sends_a_connect_message(qnx: Any, start: Start, server: Server, name: str) -> None:
    """The server of a path gets a 40-byte _IO_CONNECT header, followed by what is left of the path: its NUL."""
    task = start(qnx.open, server.path, os.O_RDWR | os.O_CREAT, 0o640)
    seen = server.answer()
    assert task.result() >= 0
    message = ConnectMessage.from_buffer_copy(seen.data)
    assert (message.type, message.subtype, message.file_type) == (IO_CONNECT, IO_CONNECT_OPEN, FTYPE_ANY)
    assert message.mode & 0o777 == 0o640
    assert (message.extra_type, message.extra_len) == (0, 0)
    assert seen.data[40 : 40 + message.path_len] == b"\0"
    assert seen.size == 40 + message.path_len


@checks("B312")
@pytest.mark.parametrize(
    ("oflag", "expected"), [(os.O_RDONLY, 1), (os.O_WRONLY, 2), (os.O_RDWR, 3)], ids=["rdonly", "wronly", "rdwr"]
)
def test_the_access_mode_arrives_plus_one(qnx: Any, start: Start, server: Server, oflag: int, expected: int) -> None:
    """The access mode is sent as 1, 2 or 3, so that it is a set of bits."""
    start(qnx.open, server.path, oflag)
    assert ConnectMessage.from_buffer_copy(server.answer().data).ioflag & KNOWN_FLAGS == expected


@checks("B312")
def test_close_on_exec_is_not_sent(qnx: Any, start: Start, server: Server) -> None:
    """O_CLOEXEC is the client's own business: the server does not see it."""
    start(qnx.open, server.path, os.O_RDONLY)
    plain = ConnectMessage.from_buffer_copy(server.answer().data).ioflag
    start(qnx.open, server.path, os.O_RDONLY | os.O_CLOEXEC)
    assert ConnectMessage.from_buffer_copy(server.answer().data).ioflag == plain


@checks("B312")
@pytest.mark.parametrize(
    "oflag",
    [os.O_APPEND, os.O_NONBLOCK, os.O_CREAT, os.O_TRUNC, os.O_EXCL | os.O_CREAT],
    ids=["append", "nonblock", "creat", "trunc", "excl"],
)
def test_open_flags_arrive_as_they_are(qnx: Any, start: Start, server: Server, oflag: int) -> None:
    """A server finds the open flags that the client has given, as the system that both are on numbers them."""
    start(qnx.open, server.path, os.O_WRONLY | oflag)
    assert ConnectMessage.from_buffer_copy(server.answer().data).ioflag & KNOWN_FLAGS == 2 | oflag


@checks("B313")
def test_open_returns_the_lowest_free_descriptor(qnx: Any, start: Start, server: Server) -> None:
    """A connection that is opened gets the number that an ordinary file would get."""
    lowest = next_number()
    first = opened(qnx, start, server)
    assert first <= lowest
    assert opened(qnx, start, server) != first


@checks("B313")
def test_a_path_that_nobody_serves_is_opened_by_the_host(qnx: Any, tmp_path: Path) -> None:
    """open, dup, dup2 and close work on files of the host as the host's own calls do."""
    path = tmp_path / "file"
    fd = qnx.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, b"contents")
    copy = qnx.dup(fd)
    assert qnx.dup2(fd, copy) == copy
    assert os.path.sameopenfile(fd, copy)
    assert qnx.close(fd) == 0
    assert not is_descriptor(fd)
    assert os.pread(copy, 100, 0) == b"contents"
    assert path.stat().st_mode & 0o777 == 0o600


@checks("B314")
@pytest.mark.parametrize("error", [EACCES, EBUSY, ENOENT])
def test_a_refused_open_fails_and_leaves_nothing(qnx: Any, start: Start, server: Server, error: int) -> None:
    """What the server answers by MsgError is what open fails with; the connection made for the attempt is detached."""
    lowest = next_number()
    task = start(qnx.open, server.path, os.O_RDWR)
    server.refuse(error)
    assert task.errno() == error
    assert next_number() <= lowest
    pulse = server.take().pulse
    assert pulse.code == PULSE_CODE_DISCONNECT


@checks("B316", "B345")
@pytest.mark.parametrize("taken", [False, True], ids=["send-blocked", "reply-blocked"])
def test_open_fails_when_the_server_dies_before_it_answers(
    qnx: Any, start: Start, peer: Peer, name: str, taken: bool
) -> None:
    """A server that is killed while it has the _IO_CONNECT message: open fails with ESRCH, and no number is lost."""
    server = Server(peer, name)
    lowest = next_number()
    task = start(qnx.open, server.path, os.O_RDWR)
    if taken:
        server.take()
    else:
        task.wait_until_blocked()
    server.kill()
    assert task.errno() == ESRCH
    assert next_number() <= lowest


@checks("D13")
@pytest.mark.parametrize("oflag", [os.O_RDWR, os.O_RDWR | os.O_CLOEXEC], ids=["plain", "cloexec"])
def test_descriptors_are_close_on_exec(qnx: Any, start: Start, server: Server, oflag: int) -> None:
    """Like everything that Python opens, a connection and its duplicates are closed by exec unless that is changed."""
    fd = opened(qnx, start, server, oflag)
    task = start(qnx.dup, fd)
    server.answer()
    assert not os.get_inheritable(fd)
    assert not os.get_inheritable(task.result())


# close


@checks("B328")
def test_close_sends_a_close_message_and_detaches(qnx: Any, start: Start, server: Server) -> None:
    """A close sends 4 bytes of _IO_CLOSE that want no reply data; then the connection ends and its number is free."""
    fd = opened(qnx, start, server)
    task = start(qnx.close, fd)
    seen = server.answer()
    assert task.result() == 0
    assert struct.unpack("=HH", seen.data) == (IO_CLOSE, 4)
    assert (seen.size, seen.room, seen.coid) == (4, 0, fd)
    assert not is_descriptor(fd)
    pulse = server.take().pulse
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, seen.scoid)


@checks("B329")
@pytest.mark.parametrize("error", [EIO, ENOSYS, EBADF])
def test_a_refused_close_frees_the_descriptor_all_the_same(qnx: Any, start: Start, server: Server, error: int) -> None:
    """A close fails with what the server answers by MsgError, but the descriptor is closed."""
    fd = opened(qnx, start, server)
    task = start(qnx.close, fd)
    server.refuse(error)
    assert task.errno() == error
    assert not is_descriptor(fd)
    assert server.take().pulse.code == PULSE_CODE_DISCONNECT


@checks("B330", "B232")
def test_a_close_that_the_server_interrupts_leaves_the_descriptor_open(qnx: Any, start: Start, server: Server) -> None:
    """An _IO_CLOSE that is answered with EINTR makes close fail, and the descriptor is as it was."""
    fd = opened(qnx, start, server)
    task = start(qnx.close, fd)
    server.refuse(EINTR)
    assert task.errno() == EINTR
    again = start(qnx.MsgSend, fd, b"still here", None)
    assert server.answer().data == b"still here"
    assert again.result() == EOK


def close_under_signals(qnx: Any, pid: int, chid: int) -> Tuple[int, bool]:
    """In another process: close a connection while signals are handled; the errno, and whether it is still open."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    fd = qnx.ConnectAttach(0, pid, chid, 0)
    try:
        qnx.close(fd)
    except OSError as error:
        return error.errno or 0, qnx.ConnectDetach(fd) == 0
    return 0, False


@checks("B330", "B344")
def test_a_close_that_a_signal_interrupts_leaves_the_descriptor_open(qnx: Any, start: Start, peer: Peer) -> None:
    """A signal handler that runs while close waits for its answer ends it with EINTR; the descriptor stays open."""
    chid = qnx.ChannelCreate(0)
    closing = peer.begin(close_under_signals, os.getpid(), chid)
    assert start(take, qnx, chid).result().type == IO_CLOSE
    closing.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert closing.result() == (EINTR, True)


@checks("B331", "B345")
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "channel-destroyed"])
def test_closing_a_connection_to_a_dead_server_frees_its_descriptor(
    qnx: Any, start: Start, peer: Peer, name: str, killed: bool
) -> None:
    """A close of a dead connection fails with EBADF, but the descriptor is closed."""
    server = Server(peer, name)
    fd = opened(qnx, start, server)
    if killed:
        server.kill()
    else:
        server.destroy_channel()
    with fails_with(EBADF):
        qnx.close(fd)
    assert not is_descriptor(fd)


@checks("B345", "B329")
def test_a_server_that_dies_during_close_frees_the_descriptor(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """A server that is killed while it has the _IO_CLOSE message: close fails with ESRCH, the descriptor is closed."""
    server = Server(peer, name)
    fd = opened(qnx, start, server)
    task = start(qnx.close, fd)
    server.take()
    server.kill()
    assert task.errno() == ESRCH
    assert not is_descriptor(fd)


@checks("B332")
@pytest.mark.parametrize("bad", ["closed", "negative", "side channel"])
def test_what_is_not_open_cannot_be_closed(qnx: Any, bad: str) -> None:
    """A close of a number that is no descriptor fails with EBADF."""
    number = {"closed": next_number(), "negative": -1, "side channel": SIDE | 1000}[bad]
    with fails_with(EBADF):
        qnx.close(number)


@checks("B332", "B328")
def test_a_descriptor_can_be_closed_once(qnx: Any, start: Start, server: Server) -> None:
    """A second close fails with EBADF."""
    fd = opened(qnx, start, server)
    task = start(qnx.close, fd)
    server.answer()
    task.result()
    with fails_with(EBADF):
        qnx.close(fd)


# dup


@checks("B333", "B341", "D27")
def test_dup_sends_a_dup_message_on_the_new_connection(qnx: Any, start: Start, server: Server) -> None:
    """The server gets 60 bytes of _IO_DUP from the new connection, which say of which connection it is the copy."""
    fd = opened(qnx, start, server)
    lowest = next_number()
    task = start(qnx.dup, fd)
    seen = server.answer()
    copy = task.result()
    assert copy <= lowest
    assert (seen.size, seen.room, seen.coid, seen.pid) == (60, 0, copy, os.getpid())
    message = DupMessage.from_buffer_copy(seen.data)
    assert (message.type, message.combine_len) == (IO_DUP, 60)
    assert (message.nd, message.pid, message.chid) == (0, os.getpid(), server.chid)
    assert (message.scoid, message.coid) == (seen.scoid, fd)


@checks("B333")
def test_a_duplicate_is_a_connection_of_its_own(qnx: Any, start: Start, server: Server) -> None:
    """A duplicate reaches the same server under its own number, and works on when the original is closed."""
    fd = opened(qnx, start, server)
    task = start(qnx.dup, fd)
    server.answer()
    copy = task.result()
    closing = start(qnx.close, fd)
    assert server.answer().coid == fd
    closing.result()
    buffer = bytearray(5)
    task = start(qnx.MsgSend, copy, b"question", buffer)
    seen = server.answer(7, b"reply")
    assert (seen.data, seen.coid) == (b"question", copy)
    assert (task.result(), bytes(buffer)) == (7, b"reply")


@checks("B334", "B439")
@pytest.mark.parametrize("call", ["dup", "dup2"])
def test_a_refused_dup_fails_and_leaves_nothing(qnx: Any, start: Start, server: Server, call: str) -> None:
    """What the server answers to _IO_DUP by MsgError is what dup fails with, and dup2 with EBADF; no copy is left."""
    fd = opened(qnx, start, server)
    task = start(qnx.dup, fd) if call == "dup" else start(qnx.dup2, fd, next_number())
    number = server.refuse(EPERM).coid
    assert number != fd
    assert task.errno() == (EPERM if call == "dup" else EBADF)
    assert not is_descriptor(number)


@checks("B335")
@pytest.mark.parametrize("bad", ["closed", "negative", "side channel", "unknown side channel"])
@pytest.mark.parametrize("call", ["dup", "dup2"])
def test_what_is_no_descriptor_cannot_be_duplicated(qnx: Any, bad: str, call: str) -> None:
    """A side channel, or a number that is not open, makes dup and dup2 fail with EBADF."""
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    closed = next_number()
    target = next(free_numbers(closed + 1))
    number = {"closed": closed, "negative": -1, "side channel": coid, "unknown side channel": SIDE | 1000}[bad]
    with fails_with(EBADF):
        if call == "dup":
            qnx.dup(number)
        else:
            qnx.dup2(number, target)
    assert not is_descriptor(closed)
    assert not is_descriptor(target)


@checks("B336", "B345")
@pytest.mark.parametrize(("call", "error"), [("dup", ESRCH), ("dup2", EBADF)])
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "channel-destroyed"])
def test_a_connection_to_a_dead_server_cannot_be_duplicated(
    qnx: Any, start: Start, peer: Peer, name: str, call: str, error: int, killed: bool
) -> None:
    """On a dead connection dup fails with ESRCH and dup2 with EBADF."""
    server = Server(peer, name)
    fd = opened(qnx, start, server)
    number = next_number()
    if killed:
        server.kill()
    else:
        server.destroy_channel()
    with fails_with(error):
        if call == "dup":
            qnx.dup(fd)
        else:
            qnx.dup2(fd, number)
    assert not is_descriptor(number)


@checks("B345", "B334", "B439")
@pytest.mark.parametrize("call", ["dup", "dup2"])
def test_a_server_that_dies_during_dup_leaves_no_duplicate(
    qnx: Any, start: Start, peer: Peer, name: str, call: str
) -> None:
    """A server that is killed while it has the _IO_DUP message makes dup fail with ESRCH, and dup2 with EBADF."""
    server = Server(peer, name)
    fd = opened(qnx, start, server)
    number = next_number()
    task = start(qnx.dup, fd) if call == "dup" else start(qnx.dup2, fd, number)
    assert server.take().type == IO_DUP
    server.kill()
    assert task.errno() == (ESRCH if call == "dup" else EBADF)
    assert not is_descriptor(number)


# dup2


@checks("B337", "B341")
def test_dup2_closes_what_it_replaces(qnx: Any, start: Start, server: Server) -> None:
    """The server of the number that dup2 takes gets _IO_CLOSE first; then comes the _IO_DUP under that number."""
    fd, other = opened(qnx, start, server), opened(qnx, start, server)
    task = start(qnx.dup2, fd, other)
    closing = server.answer()
    assert (closing.type, closing.coid) == (IO_CLOSE, other)
    duplicating = server.answer()
    assert (duplicating.type, duplicating.coid) == (IO_DUP, other)
    assert DupMessage.from_buffer_copy(duplicating.data).coid == fd
    assert task.result() == other


@checks("B337")
def test_dup2_puts_a_connection_in_the_place_of_a_file(qnx: Any, start: Start, server: Server, tmp_path: Path) -> None:
    """A connection duplicated onto a file of the host: the file is closed, and what is sent reaches the server."""
    fd = opened(qnx, start, server)
    number = qnx.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    task = start(qnx.dup2, fd, number)
    assert server.answer().type == IO_DUP
    assert task.result() == number
    task = start(qnx.MsgSend, number, b"question", None)
    assert server.answer().data == b"question"
    task.result()
    assert (tmp_path / "file").read_bytes() == b""


@checks("B337")
def test_dup2_puts_a_file_in_the_place_of_a_connection(qnx: Any, start: Start, server: Server, tmp_path: Path) -> None:
    """A file of the host duplicated onto a connection: the server gets _IO_CLOSE, and the number is the file."""
    fd = opened(qnx, start, server)
    file = qnx.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    task = start(qnx.dup2, file, fd)
    seen = server.answer()
    assert (seen.type, seen.coid) == (IO_CLOSE, fd)
    assert task.result() == fd
    os.write(fd, b"written")
    assert (tmp_path / "file").read_bytes() == b"written"


@checks("B337")
def test_dup2_replaces_a_dead_connection(qnx: Any, start: Start, start_peer: StartPeer, name: str) -> None:
    """That the old connection cannot be closed properly does not keep dup2 from taking its number."""
    first, second = Server(start_peer(), name), Server(start_peer(), f"{name}-2")
    dead, fd = opened(qnx, start, first), opened(qnx, start, second)
    first.kill()
    task = start(qnx.dup2, fd, dead)
    assert second.answer().coid == dead
    assert task.result() == dead


@checks("B337", "B334", "B439")
def test_dup2_has_closed_the_number_when_it_is_refused(qnx: Any, start: Start, server: Server) -> None:
    """When the server rejects the duplicate, the connection that it was to replace is closed already."""
    fd, other = opened(qnx, start, server), opened(qnx, start, server)
    task = start(qnx.dup2, fd, other)
    assert server.answer().type == IO_CLOSE
    assert server.refuse(EPERM).type == IO_DUP
    assert task.errno() == EBADF
    assert not is_descriptor(other)


@checks("B338")
def test_dup2_leaves_alone_who_takes_the_number_while_it_closes_it(
    qnx: Any, start: Start, server: Server, tmp_path: Path
) -> None:
    """A file that gets the number while the server is asked to close the connection there stays: dup2 is EBADF."""
    fd, other = opened(qnx, start, server), opened(qnx, start, server)
    path = tmp_path / "file"
    task = start(qnx.dup2, fd, other)
    closing = server.take()
    assert (closing.type, closing.coid) == (IO_CLOSE, other)
    os.close(other)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    assert file == other
    server.reply(closing)
    assert task.errno() == EBADF
    assert os.path.samestat(os.fstat(file), path.stat())
    task = start(qnx.MsgSend, fd, b"next", None)
    assert server.answer(3).data == b"next"
    assert task.result() == 3
    os.close(file)


@checks("B339")
def test_dup2_onto_itself_sends_nothing(qnx: Any, start: Start, server: Server) -> None:
    """dup2 of a connection onto its own number returns it, and the server hears nothing."""
    fd = opened(qnx, start, server)
    assert start(qnx.dup2, fd, fd).result() == fd
    start(qnx.MsgSend, fd, b"next", None)
    assert server.answer().data == b"next"


@checks("B339", "B335")
def test_dup2_of_a_closed_number_onto_itself_fails(qnx: Any) -> None:
    """dup2 of a number that is not open onto itself fails with EBADF."""
    number = next_number()
    with fails_with(EBADF):
        qnx.dup2(number, number)


@checks("B340")
@pytest.mark.parametrize("target", [-1, SIDE | 7], ids=["negative", "side channel"])
def test_dup2_into_what_is_no_descriptor_fails(qnx: Any, start: Start, server: Server, target: int) -> None:
    """dup2 onto a negative number or a side channel fails with EBADF, and the server hears nothing."""
    fd = opened(qnx, start, server)
    with fails_with(EBADF):
        start(qnx.dup2, fd, target).result()
    start(qnx.MsgSend, fd, b"next", None)
    assert server.answer().data == b"next"


@checks("B337")
def test_dup2_can_take_a_number_that_is_free(qnx: Any, start: Start, server: Server) -> None:
    """dup2 onto a number that is not open makes the copy there, and lower free numbers stay free."""
    fd = opened(qnx, start, server)
    lowest = next_number()
    free = next(free_numbers(lowest + 3))
    task = start(qnx.dup2, fd, free)
    assert server.answer().coid == free
    assert task.result() == free
    assert next_number() <= lowest


# Raw connections and ordinary files


@checks("B344", "B438", "B439")
def test_close_and_dup_of_a_raw_connection_reach_its_server(qnx: Any, start: Start, peer: Peer) -> None:
    """A connection that ConnectAttach made among the descriptors gets the same messages as one that was opened."""
    server = Server(peer)
    fd = qnx.ConnectAttach(0, server.pid, server.chid, 0)
    task = start(qnx.dup, fd)
    seen = server.answer()
    assert (seen.type, seen.coid) == (IO_DUP, task.result())
    task = start(qnx.close, fd)
    seen = server.answer()
    assert (seen.type, seen.coid) == (IO_CLOSE, fd)
    assert task.result() == 0


@checks("B439")
def test_a_side_channel_is_not_duplicated(qnx: Any, peer: Peer) -> None:
    """Dup and dup2 of a side channel fail with EBADF, and its server hears nothing."""
    server = Server(peer)
    coid = qnx.ConnectAttach(0, server.pid, server.chid, NTO_SIDE_CHANNEL)
    with fails_with(EBADF):
        qnx.dup(coid)
    with fails_with(EBADF):
        qnx.dup2(coid, next_number())
    qnx.MsgSendPulse(coid, -1, 1, 2)
    assert server.take().pulse.code == 1


@checks("B438")
def test_detaching_a_raw_connection_tells_its_server_nothing(qnx: Any, peer: Peer) -> None:
    """ConnectDetach sends no message: what comes next is the disconnect pulse of the client's last connection."""
    server = Server(peer, flags=NTO_CHF_DISCONNECT)
    fd = qnx.ConnectAttach(0, server.pid, server.chid, 3)
    qnx.MsgSendPulse(fd, -1, 1, 2)
    assert server.take().pulse.code == 1
    qnx.ConnectDetach(fd)
    assert server.take().pulse.code == PULSE_CODE_DISCONNECT


@checks("D32")
def test_a_message_to_an_ordinary_file_is_not_answered(qnx: Any, tmp_path: Path) -> None:
    """A message of no known type to a file of the host fails with ENOSYS, and nothing is written to the file."""
    path = tmp_path / "file"
    fd = qnx.open(path, os.O_RDWR | os.O_CREAT)
    with fails_with(ENOSYS):
        qnx.MsgSend(fd, b"message", bytearray(10))
    assert path.read_bytes() == b""


@checks("D32", "B54")
def test_an_ordinary_file_cannot_be_detached(qnx: Any, tmp_path: Path) -> None:
    """ConnectDetach on a file of the host fails with EINVAL, and the file stays open."""
    fd = qnx.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    with fails_with(EINVAL):
        qnx.ConnectDetach(fd)
    assert os.write(fd, b"x") == 1
