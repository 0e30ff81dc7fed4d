"""fork, exec and exit: what a child has, and what becomes of connections and channels."""

import contextlib
import functools
import os
import pickle
import signal
import sys
import threading
import traceback
from errno import EBADF, EEXIST, EINVAL, EPERM, ESRCH, ETIMEDOUT
from typing import Any, Callable, List, Optional, Tuple

import pytest

from ha_qnx import (
    EOK,
    HAREPLACERECOVERYFN,
    IO_CLOSE,
    IO_DUP,
    NTO_CHF_DISCONNECT,
    NTO_COF_CLOEXEC,
    NTO_COF_DEAD,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_RECEIVE,
    PULSE_CODE_DISCONNECT,
    MessageInfo,
    Name,
)

from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .servers import (
    DupMessage,
    Seen,
    Server,
    Start,
    StartPeer,
    answer,
    become_another_program,
    is_descriptor,
    refuse,
    take,
)
from .waiting import DEADLINE, Task, eventually

SIDE = NTO_SIDE_CHANNEL
_CHILD_LIMIT = int(2 * DEADLINE)


def forked(call: Callable[..., Any], *args: Any) -> Any:
    """Make a call in a forked child: what it returned, or raise its OSError, or that of the fork itself."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(_CHILD_LIMIT)
        outcome: Tuple[str, Any]
        try:
            outcome = ("result", call(*args))
        except OSError as error:
            outcome = ("errno", error.errno)
        except BaseException:
            outcome = ("traceback", traceback.format_exc())
        os.write(theirs, pickle.dumps(outcome))
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        data = pipe.read()
    _pid, status = os.waitpid(child, 0)
    assert data, f"the child ended without a word: {status}"
    kind, value = pickle.loads(data)  # noqa: S301  # our own child's
    if kind == "errno":
        raise OSError(value, os.strerror(value))
    assert kind == "result", value
    return value


def step(start: Start, qnx: Any, chid: int, how: Callable[..., Seen] = answer, *args: Any) -> Seen:
    """Take, answer or refuse a message in this process, which is the server."""
    seen: Seen = start(how, qnx, chid, *args).result()
    return seen


# What is not inherited


def use_the_channel_in_a_child(qnx: Any) -> Tuple[int, List[int]]:
    """In another process: a channel, and the errnos of its uses in a child."""
    chid = qnx.ChannelCreate(0)

    def errnos() -> List[int]:
        found = []
        for call, *args in ((qnx.MsgReceive, chid, bytearray(100)), (qnx.ChannelDestroy, chid)):
            try:
                call(*args)
            except OSError as error:
                found.append(error.errno or 0)
        return found

    return chid, forked(errnos)


@checks("B269", "D13")
def test_a_child_has_no_channels(qnx: Any, start: Start, peer: Peer) -> None:
    """In a child the parent's channel is ESRCH and EINVAL; the parent's own channel is as it was."""
    chid, errnos = peer.run(use_the_channel_in_a_child)
    assert errnos == [ESRCH, EINVAL]
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    task = start(qnx.MsgSend, coid, b"question", None)
    assert peer.run(answer, chid, 6).data == b"question"
    assert task.result() == 6


def fork_a_child(_qnx: Any) -> int:
    """In another process: a child that comes and goes."""
    result: int = forked(os.getpid)
    return result


@checks("B269", "B277")
def test_the_clients_of_a_parent_do_not_notice_a_child(qnx: Any, start: Start, peer: Peer) -> None:
    """A server forks while it holds a request and a client is connected: both go on as if nothing had happened."""
    server = Server(peer)
    coid = qnx.ConnectAttach(0, server.pid, server.chid)
    held = start(qnx.MsgSend, coid, b"held", None)
    seen = server.take()
    waiting = start(qnx.MsgSend, coid, b"waiting", None).wait_until_blocked()
    peer.run(fork_a_child)
    server.reply(seen, 1)
    assert held.result() == 1
    assert server.answer(2).data == b"waiting"
    assert waiting.result() == 2


def fork_and_use_a_side_channel(qnx: Any, pid: int, chid: int) -> List[int]:
    """In another process: the errnos of a side channel in a child, then what the parent's send returns."""
    coid = qnx.ConnectAttach(0, pid, chid, SIDE)
    found = [forked(qnx.MsgSend_r, coid, b"child"), forked(qnx.MsgSendPulse_r, coid, 10, 1, 1)]
    return [*found, qnx.MsgSend(coid, b"parent")]


@checks("B270", "D13")
def test_a_child_has_no_side_channels(qnx: Any, start: Start, peer: Peer) -> None:
    """In a child the parent's side channel is EBADF; the parent can go on using it."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    sending = peer.start(fork_and_use_a_side_channel, os.getpid(), chid)
    assert step(start, qnx, chid, answer, 4).data == b"parent"
    assert sending.result() == [-EBADF, -EBADF, 4]


def attach_in_a_child(qnx: Any, pid: int, chid: int) -> Tuple[int, int]:
    """In another process: the lowest side channel, in the parent and then in a child."""
    return qnx.ConnectAttach(0, pid, chid, SIDE), forked(qnx.ConnectAttach, 0, pid, chid, SIDE)


@checks("B270")
def test_the_numbers_of_side_channels_are_free_in_a_child(qnx: Any, peer: Peer) -> None:
    """A child gets the side-channel numbers that its parent has, since it does not have them."""
    coid, in_child = peer.run(attach_in_a_child, os.getpid(), qnx.ChannelCreate(0))
    assert in_child == coid


# What is inherited


def fork_and_send(qnx: Any, pid: int, chid: int) -> Tuple[int, int, int, int, int]:
    """In another process: send first from the parent, then from a child, on one descriptor."""
    fd = qnx.ConnectAttach(0, pid, chid, 0)
    before = qnx.MsgSend(fd, b"parent")

    def send() -> Tuple[int, int]:
        buffer = bytearray(5)
        status = qnx.MsgSend(fd, b"child", buffer)
        assert buffer == b"reply"
        return status, os.getpid()

    status, child = forked(send)
    return fd, before, status, child, qnx.MsgSend(fd, b"parent again")


@checks("B271", "B272", "B48", "D13", "D27")
def test_a_child_has_connections_of_its_own(qnx: Any, start: Start, peer: Peer) -> None:
    """A child reaches the server under the parent's number, as a client of its own; the server is told by _IO_DUP."""
    chid = qnx.ChannelCreate(0)
    sending = peer.start(fork_and_send, os.getpid(), chid)
    parent = step(start, qnx, chid, answer, 1)
    dup = step(start, qnx, chid)
    child = step(start, qnx, chid, answer, 2, b"reply")
    again = step(start, qnx, chid, answer, 3)
    fd, *statuses, child_pid, last = sending.result()
    assert (statuses, last) == ([1, 2], 3)

    assert (dup.type, dup.size, dup.pid, dup.coid) == (IO_DUP, 60, child_pid, fd)
    message = DupMessage.from_buffer_copy(dup.data)
    assert (message.combine_len, message.nd, message.pid, message.chid) == (60, 0, peer.pid, chid)
    assert (message.coid, message.scoid) == (fd, parent.scoid)

    assert (child.data, child.pid, child.coid, child.scoid) == (b"child", child_pid, fd, dup.scoid)
    assert child.scoid != parent.scoid
    assert (again.data, again.pid, again.scoid) == (b"parent again", peer.pid, parent.scoid)


@checks("B273", "D13")
def test_a_server_can_refuse_a_child(qnx: Any, start: Start, peer: Peer) -> None:
    """When the server rejects _IO_DUP, its error reaches the child that uses the connection, or the fork itself."""
    chid = qnx.ChannelCreate(0)
    sending = peer.start(fork_and_send, os.getpid(), chid)
    step(start, qnx, chid)
    assert step(start, qnx, chid, refuse, EPERM).type == IO_DUP
    assert sending.errno() == EPERM


def fork_and_duplicate(qnx: Any, pid: int, chid: int) -> int:
    """In another process: duplicate a connection in a child."""
    fd = qnx.ConnectAttach(0, pid, chid, 0)
    qnx.MsgSend(fd, b"parent")
    duplicate: int = forked(qnx.dup, fd)
    return duplicate


@checks("B273", "D13")
def test_a_child_cannot_duplicate_what_it_was_refused(qnx: Any, start: Start, peer: Peer) -> None:
    """When the server rejects _IO_DUP, its error reaches the child also where that only duplicates the connection."""
    chid = qnx.ChannelCreate(0)
    sending = peer.start(fork_and_duplicate, os.getpid(), chid)
    step(start, qnx, chid)
    assert step(start, qnx, chid, refuse, EPERM).type == IO_DUP
    assert sending.errno() == EPERM


def duplicate_the_dead_in_a_child(qnx: Any) -> int:
    """In another process: duplicate a connection in a child, whose channel had gone before the fork."""
    chid = qnx.ChannelCreate(0)
    fd = qnx.ConnectAttach(0, 0, chid, 0)
    qnx.ChannelDestroy(chid)
    duplicate: int = forked(qnx.dup, fd)
    return duplicate


@checks("B276", "D13")
def test_a_child_has_no_dead_connections_to_duplicate(peer: Peer) -> None:
    """A connection that was dead at the fork is none in the child: EBADF, not ESRCH as in the parent."""
    assert peer.start(duplicate_the_dead_in_a_child).errno() == EBADF


def look_and_detach_in_a_child(qnx: Any, pid: int, chid: int) -> Tuple[int, int, int, int]:
    """In another process: a connection, and what a child learns of it before it detaches it."""
    fd = qnx.ConnectAttach(0, pid, chid, 0)

    def look_and_detach() -> Tuple[int, int, int, int]:
        info = MessageInfo()
        return qnx.ConnectServerInfo(0, fd, info) - fd, info.pid, info.chid, qnx.ConnectDetach(fd)

    found: Tuple[int, int, int, int] = forked(look_and_detach)
    return found


def errno_of(call: Callable[..., Any], *args: Any) -> int:
    """The errno of a call, or 0."""
    try:
        call(*args)
    except OSError as error:
        return error.errno or 0
    return 0


def lose(qnx: Any, how: str) -> Tuple[int, List[int]]:
    """A connection whose channel is gone, and the calls of its recovery function from then on."""
    chid = qnx.ChannelCreate(0)
    calls: List[int] = []

    def reconnect_in_vain(coid: int, _handle: Any) -> int:
        calls.append(coid)
        result: int = qnx.ha_ReConnectAttach(coid, 0, 0, chid, 0, 0)
        return result

    fd: int = qnx.ConnectAttach(0, 0, chid, 60)  # Where no pipe of a child gets it.
    if how != "has no recovery":
        qnx.ha_attach(fd, reconnect_in_vain, None)
    qnx.ChannelDestroy(chid)
    if how != "was not used":
        assert errno_of(qnx.MsgSendPulse, fd, 10, 1, 1) in (EBADF, ESRCH)
    calls.clear()
    return fd, calls


def use_the_dead_in_a_child(qnx: Any, how: str, generations: int) -> Tuple[List[int], bool, int, int]:
    """In another process: what a connection that was dead at the fork is to a child, or to a child of that."""
    fd, calls = lose(qnx, how)

    def use() -> Tuple[List[int], bool, int, int]:
        errnos = [
            errno_of(qnx.ConnectServerInfo, 0, fd, MessageInfo()),
            errno_of(qnx.ConnectFlags, 0, fd, 0, 0),
            errno_of(qnx.ha_attach, fd, lambda _coid, _handle: -1, None, HAREPLACERECOVERYFN),
            errno_of(qnx.dup, fd),
            errno_of(qnx.MsgSend, fd, b"message"),
            errno_of(qnx.MsgSendPulse, fd, 10, 1, 1),
        ]
        is_open = is_descriptor(fd)
        return errnos, is_open, len(calls), qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), fd) - fd

    call: Callable[[], Any] = use
    for _generation in range(generations):
        call = functools.partial(forked, call)
    found: Tuple[List[int], bool, int, int] = call()
    return found


@checks("B276", "D130")
@pytest.mark.parametrize("generations", [1, 2], ids=["child", "grandchild"])
@pytest.mark.parametrize("how", ["has no recovery", "was not used", "was given up"])
def test_what_was_dead_is_no_connection_in_a_child(peer: Peer, how: str, generations: int) -> None:
    """Its number is none of a connection, which EBADF and EINVAL say, and is free; a use is recovered all the same."""
    errnos, is_open, calls, above = peer.run(use_the_dead_in_a_child, how, generations)
    assert errnos == [EINVAL] + [EBADF] * 5
    assert not is_open
    assert calls == (0 if how == "has no recovery" else 2)
    assert above == 0


def end_the_dead_in_a_child(qnx: Any, call: str) -> Tuple[int, int, int]:
    """In another process: end what was dead at the fork, in a child, and use it."""
    fd, calls = lose(qnx, "was given up")
    ended: Tuple[int, int, int] = forked(
        lambda: (errno_of(getattr(qnx, call), fd), errno_of(qnx.MsgSendPulse, fd, 10, 1, 1), len(calls))
    )
    return ended


@checks("B276", "D24", "D130")
@open_point("D24", "D130")
@pytest.mark.parametrize(
    ("call", "number"),
    [("ConnectDetach", EINVAL), ("ha_ConnectDetach", EINVAL), ("close", EBADF), ("ha_close", EBADF), ("ha_detach", 0)],
)
def test_what_was_dead_is_not_recovered_in_a_child_that_has_ended_it(peer: Peer, call: str, number: int) -> None:
    """There is no connection to end, but its recovery function goes."""
    assert peer.run(end_the_dead_in_a_child, call) == (number, EBADF, 0)


def say_so_in_a_child(qnx: Any, pid: int, chid: int) -> int:
    """In a child that has not used what it was left: say that it is there, by a connection of its own."""
    side: int = qnx.ConnectAttach(0, pid, chid, SIDE)
    qnx.MsgSend(side, b"forked")
    return side


def wait_for_child(start: Start, qnx: Any, chid: int) -> None:
    """Until a child has said so; QNX has made its connections anew by then."""
    while step(start, qnx, chid).data != b"forked":
        pass


def reconnect_in_vain_in_a_child(qnx: Any, pid: int, chid: int) -> Tuple[int, int, bool, int, int]:
    """In another process: a child reconnects what it was left, and has not used, to nothing."""
    fd = qnx.ConnectAttach(0, pid, chid, 0)

    def reconnect() -> Tuple[int, int, bool, int, int]:
        say_so_in_a_child(qnx, pid, chid)
        number = errno_of(qnx.ha_ReConnectAttach, fd, 0, pid, chid + 99_999, 0, 0)
        sent = errno_of(qnx.MsgSend, fd, b"message")
        return number, sent, is_dead(qnx, fd), forked(errno_of, qnx.ConnectDetach, fd), qnx.ConnectDetach(fd)

    found: Tuple[int, int, bool, int, int] = forked(reconnect)
    return found


@checks("B276", "D6", "D13", "D131")
def test_a_child_that_reconnects_in_vain_has_a_dead_connection(qnx: Any, start: Start, peer: Peer) -> None:
    """What it was left is dead then, though it was not used, and keeps its number; a grandchild does not have it."""
    chid = qnx.ChannelCreate(0)
    reconnecting = peer.begin(reconnect_in_vain_in_a_child, os.getpid(), chid)
    wait_for_child(start, qnx, chid)
    assert reconnecting.result() == (ESRCH, EBADF, True, EINVAL, 0)


def outlive_a_server_in_a_child(qnx: Any, pid: int, chid: int) -> Tuple[int, bool, int, int]:
    """In another process: a child uses a connection whose server was there at the fork, and is not any more."""
    fd = qnx.ConnectAttach(0, pid, chid, 0)

    def outlive() -> Tuple[int, bool, int, int]:
        side = say_so_in_a_child(qnx, pid, chid)
        eventually(lambda: is_dead(qnx, side), "the end of the channel")
        sent = errno_of(qnx.MsgSend, fd, b"message")
        return sent, is_dead(qnx, fd), forked(errno_of, qnx.ConnectDetach, fd), qnx.ConnectDetach(fd)

    found: Tuple[int, bool, int, int] = forked(outlive)
    return found


@checks("B276", "D13", "D131")
def test_a_child_outlives_a_server_that_it_has_not_used(qnx: Any, start: Start, peer: Peer) -> None:
    """Its connection is dead from its first use on, and keeps its number; a grandchild does not have it."""
    chid = qnx.ChannelCreate(0)
    outliving = peer.begin(outlive_a_server_in_a_child, os.getpid(), chid)
    wait_for_child(start, qnx, chid)
    qnx.ChannelDestroy(chid)
    assert outliving.result() == (EBADF, True, EINVAL, 0)


def close_a_file_in_a_child(qnx: Any) -> int:
    """In another process: close, in a child, the file that has a connection's number, as is known by then."""
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), 0)
    os.dup2(os.open("/dev/null", os.O_RDWR), coid)
    with fails_with(EBADF):
        qnx.MsgSendPulse(coid, 10, 1, 1)
    closed: int = forked(qnx.close, coid)
    return closed


@checks("D17", "B276")
def test_a_child_has_what_took_a_connections_place(peer: Peer) -> None:
    """The child inherits the file, and nothing of the connection."""
    assert peer.run(close_a_file_in_a_child) == 0


@checks("D13")
@open_point("D13")
def test_a_child_that_looks_at_a_connection_and_detaches_it_asks_nobody(qnx: Any, peer: Peer) -> None:
    """What a child has not used it can look at and detach, though the server says nothing."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    assert peer.run(look_and_detach_in_a_child, os.getpid(), chid) == (0, os.getpid(), chid, 0)
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 0)
    with fails_with(ETIMEDOUT):
        qnx.MsgReceive(chid, bytearray(64))


def fork_with_flags(qnx: Any, pid: int, chid: int) -> Tuple[List[int], List[int]]:
    """In another process: the flags of two connections, in the parent and in a child."""
    kept, closed = qnx.ConnectAttach(0, pid, chid, 0), qnx.ConnectAttach(0, pid, chid, 0)
    qnx.ConnectFlags(0, kept, NTO_COF_CLOEXEC, 0)
    qnx.ConnectFlags(0, closed, NTO_COF_CLOEXEC, NTO_COF_CLOEXEC)

    def flags() -> List[int]:
        return [qnx.ConnectFlags(0, coid, 0, 0) & NTO_COF_CLOEXEC for coid in (kept, closed)]

    return flags(), forked(flags)


@checks("B275")
def test_a_child_has_close_on_exec_connections_too(qnx: Any, start: Start, peer: Peer) -> None:
    """Connections are inherited whether they are close-on-exec or not, and stay what they are."""
    chid = qnx.ChannelCreate(0)
    asking = peer.start(fork_with_flags, os.getpid(), chid)
    assert [step(start, qnx, chid).type for _ in range(2)] == [IO_DUP] * 2
    assert asking.result() == ([0, NTO_COF_CLOEXEC],) * 2


def connect_descriptor(qnx: Any, pid: int, chid: int) -> int:
    """In another process: a connection among the descriptors."""
    fd: int = qnx.ConnectAttach(0, pid, chid, 0)
    return fd


def send(qnx: Any, coid: int, message: bytes) -> int:
    """In another process: send a message."""
    status: int = qnx.MsgSend(coid, message)
    return status


def send_from_a_child(qnx: Any, coid: int, message: bytes) -> int:
    """In another process: send a message from a child; the status or the negative errno."""
    result: int = forked(qnx.MsgSend_r, coid, message)
    return result


@checks("B276")
def test_a_child_has_no_dead_connections(qnx: Any, peer: Peer) -> None:
    """A connection whose server was gone before the fork is EBADF in the child."""
    chid = qnx.ChannelCreate(0)
    fd = peer.run(connect_descriptor, os.getpid(), chid)
    qnx.ChannelDestroy(chid)
    assert peer.run(send_from_a_child, fd, b"message") == -EBADF


def close_dead_in_a_child(qnx: Any, fd: int) -> Tuple[int, bool]:
    """In another process: close a connection in a child; the errno, and whether the number is still open."""

    def close() -> Tuple[int, bool]:
        try:
            qnx.close(fd)
        except OSError as error:
            return error.errno or 0, is_descriptor(fd)
        return 0, is_descriptor(fd)

    result: Tuple[int, bool] = forked(close)
    return result


@checks("B276", "B331")
def test_a_child_does_not_keep_the_number_of_a_dead_connection(qnx: Any, peer: Peer) -> None:
    """A close of a dead connection in a child is EBADF, and its number is free: it was left out."""
    chid = qnx.ChannelCreate(0)
    fd = peer.run(connect_descriptor, os.getpid(), chid)
    qnx.ChannelDestroy(chid)
    assert peer.run(close_dead_in_a_child, fd) == (EBADF, False)


@checks("B277")
def test_the_messages_of_a_parent_are_not_its_childs(qnx: Any, start: Start, peer: Peer) -> None:
    """A thread of the parent waits for a reply while a child sends on the same number: each gets its own reply."""
    chid = qnx.ChannelCreate(0)
    fd = peer.run(connect_descriptor, os.getpid(), chid)
    parents = peer.start(send, fd, b"parent")
    held = step(start, qnx, chid, take)
    childs = peer.begin(send_from_a_child, fd, b"child")
    assert step(start, qnx, chid).type == IO_DUP
    assert step(start, qnx, chid, answer, 2).data == b"child"
    assert childs.result() == 2
    assert not parents.done
    qnx.MsgReply(held.rcvid, 1)
    assert parents.result() == 1


def close_in_a_child(qnx: Any, fd: int) -> int:
    """In another process: close a connection in a child."""
    result: int = forked(qnx.close, fd)
    return result


@checks("B271", "B272", "B328")
def test_closing_in_a_child_leaves_the_parents_connection(qnx: Any, start: Start, peer: Peer) -> None:
    """The server can pair a child's _IO_DUP with its _IO_CLOSE; the parent's connection goes on."""
    chid = qnx.ChannelCreate(0)
    fd = peer.run(connect_descriptor, os.getpid(), chid)
    closing = peer.begin(close_in_a_child, fd)
    dup, close = step(start, qnx, chid), step(start, qnx, chid)
    assert (dup.type, close.type) == (IO_DUP, IO_CLOSE)
    assert dup.scoid == close.scoid
    assert closing.result() == 0
    sending = peer.start(send, fd, b"parent")
    assert step(start, qnx, chid, answer, 3).data == b"parent"
    assert sending.result() == 3


def fork_twice_and_send(qnx: Any, fd: int) -> int:
    """In another process: send from the child of a child."""
    result: int = forked(forked, qnx.MsgSend_r, fd, b"grandchild")
    return result


@checks("B271", "D13")
def test_a_grandchild_has_connections_that_its_parent_never_used(qnx: Any, start: Start, peer: Peer) -> None:
    """A connection is inherited over two generations, also if the one in the middle has not used it."""
    chid = qnx.ChannelCreate(0)
    fd = peer.run(connect_descriptor, os.getpid(), chid)
    sending = peer.begin(fork_twice_and_send, fd)
    seen = step(start, qnx, chid)
    while seen.type == IO_DUP:
        seen = step(start, qnx, chid, answer, 9)
    assert (seen.data, seen.coid) == (b"grandchild", fd)
    assert sending.result() == 9


# HA-awareness in a child


def recover_in_a_child(
    qnx: Any, old: Tuple[int, int], new: Tuple[int, int], dead_first: bool
) -> Tuple[int, List[str], int, List[str]]:
    """In another process: an HA-aware connection whose server dies; a child sends, then the parent does."""
    calls: List[str] = []

    def recover(coid: int, handle: Any) -> int:
        calls.append(handle)
        result: int = qnx.ha_ReConnectAttach(coid, 0, *new, 0, 0)
        return result

    fd = qnx.ha_ConnectAttach(0, *old, 0, 0, recover, "handle")
    qnx.MsgSend(fd, b"the parent's first")
    if dead_first:
        eventually(lambda: is_dead(qnx, fd), "the death of the server")
    status, calls_of_child = forked(lambda: (qnx.MsgSend(fd, b"child"), calls))
    assert calls == []
    return status, calls_of_child, qnx.MsgSend(fd, b"parent"), calls


def is_dead(qnx: Any, coid: int) -> bool:
    """Whether the server of a connection is gone."""
    info = MessageInfo()
    return bool(qnx.ConnectServerInfo(0, coid, info) == coid and info.flags & NTO_COF_DEAD)


@checks("B403", "D13")
@open_point("D13")
@pytest.mark.parametrize("answers", [0, 1, 2], ids=["before the fork", "at the copying", "at the message"])
def test_a_child_recovers_its_connections_itself(qnx: Any, start: Start, start_peer: StartPeer, answers: int) -> None:
    """An HA-aware descriptor is HA-aware in a child, whenever its server dies; each process recovers for itself."""
    first, client = Server(start_peer()), start_peer()
    chid = qnx.ChannelCreate(0)
    sending = client.begin(recover_in_a_child, (first.pid, first.chid), (os.getpid(), chid), answers == 0)
    assert first.answer().data == b"the parent's first"
    seen = [first.answer() if number < answers else first.take() for number in range(1, answers + 1)]
    assert [message.type for message in seen] == [IO_DUP, 0][:answers]
    first.kill()
    child = step(start, qnx, chid, answer, 2)
    parent = step(start, qnx, chid, answer, 3)
    assert (child.data, parent.data, parent.pid) == (b"child", b"parent", client.pid)
    assert child.pid != client.pid
    assert sending.result() == (2, ["handle"], 3, ["handle"])


def recover_what_was_given_up(
    qnx: Any, old: Tuple[int, int], new: Tuple[int, int]
) -> Tuple[Optional[int], int, List[str]]:
    """In another process: a recovery that fails and leaves the old connection dead; then a child sends."""
    calls: List[str] = []

    def recover(coid: int, _handle: Any) -> int:
        calls.append("called")
        result: int = qnx.ha_ReConnectAttach(coid, 0, *(old if len(calls) == 1 else new), 0, 0)
        return result

    fd = qnx.ha_ConnectAttach(0, *old, 0, 0, recover)
    qnx.MsgSend(fd, b"first")
    first = qnx.MsgSend_r(fd, b"lost")
    return (first, *forked(lambda: (qnx.MsgSend_r(fd, b"child"), calls)))


@checks("B403", "D6", "D13", "B276")
def test_a_child_recovers_a_connection_that_its_parent_has_given_up(
    qnx: Any, start: Start, start_peer: StartPeer
) -> None:
    """A connection that a failed recovery has left dead is so in a child, whose own recovery brings it back."""
    first, client = Server(start_peer()), start_peer()
    chid = qnx.ChannelCreate(0)
    sending = client.begin(recover_what_was_given_up, (first.pid, first.chid), (os.getpid(), chid))
    assert first.answer().data == b"first"
    assert first.take().data == b"lost"
    first.kill()
    assert step(start, qnx, chid, answer, 2).data == b"child"
    lost, child, calls = sending.result()
    assert lost in (-EBADF, -ESRCH)
    assert (child, calls) == (2, ["called"] * 2)


def replace_a_function_in_a_child(qnx: Any, pid: int, chid: int) -> Tuple[int, List[int]]:
    """In another process: two duplicates; in a child, give one a recovery function and lose the server of the other."""
    calls: List[int] = []

    def give_up(_coid: int, _handle: Any) -> int:
        return -1

    def note(coid: int, _handle: Any) -> int:
        calls.append(coid)
        return -1

    fd = qnx.ha_ConnectAttach(0, pid, chid, 0, 0, give_up)
    duplicate = qnx.ha_dup(fd)

    def use() -> Tuple[int, List[int]]:
        qnx.ha_attach(duplicate, note, None, HAREPLACERECOVERYFN)
        return qnx.MsgSend_r(fd, b"child"), [coid - fd for coid in calls]

    result: Tuple[int, List[int]] = forked(use)
    return result


@checks("D13", "B380", "B403")
@open_point("D13")
def test_duplicates_share_their_function_in_a_child_too(qnx: Any, start: Start, peer: Peer) -> None:
    """A child that replaces the recovery function of one of its parent's duplicates has replaced that of the other."""
    chid = qnx.ChannelCreate(0)
    sending = peer.begin(replace_a_function_in_a_child, os.getpid(), chid)
    assert step(start, qnx, chid).type == IO_DUP
    seen = step(start, qnx, chid, take)
    while seen.type == IO_DUP:
        qnx.MsgReply(seen.rcvid, EOK)
        seen = step(start, qnx, chid, take)
    assert seen.data == b"child"
    qnx.MsgError(seen.rcvid, EBADF)
    assert sending.result() == (-EBADF, [0])


def use_attached_side_channel_in_a_child(qnx: Any, pid: int, chid: int) -> Tuple[int, int, int, int]:
    """In another process: what becomes, in a child, of a side channel that is HA-aware."""
    calls = []

    def recover(coid: int, _handle: Any) -> int:
        calls.append(coid)
        return -1

    coid = qnx.ha_ConnectAttach(0, pid, chid, SIDE, 0, recover)

    def use() -> Tuple[int, int, int]:
        sent = qnx.MsgSend_r(coid, b"child")
        try:
            qnx.ha_detach(coid)
        except OSError as error:
            return sent, error.errno or 0, len(calls)
        return sent, 0, len(calls)

    return (*forked(use), qnx.ha_detach(coid))


@checks("B403", "D13")
@open_point("D13")
def test_a_child_has_no_attachments_of_side_channels(qnx: Any, peer: Peer) -> None:
    """A side channel that was HA-aware is neither open nor attached in a child; in the parent it still is."""
    chid = qnx.ChannelCreate(0)
    assert peer.run(use_attached_side_channel_in_a_child, os.getpid(), chid) == (-EBADF, EBADF, 0, 0)


def fork_during_a_recovery(qnx: Any, pid: int, chid: int) -> Tuple[int, int]:
    """In another process: fork while another thread is in a recovery function; the child recovers, then the thread."""
    doomed = qnx.ChannelCreate(0)
    inside, forked_off = threading.Event(), threading.Event()

    def recover(coid: int, _handle: Any) -> int:
        if not inside.is_set():
            inside.set()
            assert forked_off.wait(DEADLINE)
        result: int = qnx.ha_ReConnectAttach(coid, 0, pid, chid, 0, 0)
        return result

    fd = qnx.ha_ConnectAttach(0, 0, doomed, 0, 0, recover)
    qnx.ChannelDestroy(doomed)
    sender = Task(qnx.MsgSend, fd, b"parent")
    assert inside.wait(DEADLINE)
    child = forked(qnx.MsgSend_r, fd, b"child")
    forked_off.set()
    return child, sender.result()


@checks("D13", "D9")
def test_a_fork_during_a_recovery_does_not_lock_the_child(qnx: Any, start: Start, peer: Peer) -> None:
    """The recovery that a thread of the parent is in is not the child's: the child recovers without waiting for it."""
    chid = qnx.ChannelCreate(0)
    sending = peer.begin(fork_during_a_recovery, os.getpid(), chid)
    assert step(start, qnx, chid, answer, 2).data == b"child"
    assert step(start, qnx, chid, answer, 1).data == b"parent"
    assert sending.result() == (2, 1)


def restart_by_forking(qnx: Any) -> Tuple[int, int, bytes]:
    """In another process: a client whose recovery function forks the new server."""
    doomed = qnx.ChannelCreate(0)
    children = []

    def recover(coid: int, _handle: Any) -> int:
        ours, theirs = os.pipe()
        children.append(os.fork())
        if not children[-1]:
            signal.alarm(_CHILD_LIMIT)
            chid = qnx.ChannelCreate(0)
            os.write(theirs, chid.to_bytes(4, sys.byteorder))
            seen = take(qnx, chid)
            qnx.MsgReply(seen.rcvid, 8, seen.data)
            os._exit(0)
        os.close(theirs)
        with open(ours, "rb") as pipe:
            chid = int.from_bytes(pipe.read(4), sys.byteorder)
        result: int = qnx.ha_ReConnectAttach(coid, 0, children[-1], chid, 0, 0)
        return result

    fd = qnx.ha_ConnectAttach(0, 0, doomed, 0, 0, recover)
    qnx.ChannelDestroy(doomed)
    buffer = bytearray(8)
    status = qnx.MsgSend(fd, b"question", buffer)
    os.waitpid(children[0], 0)
    return len(children), status, bytes(buffer)


@checks("D13", "B384")
def test_a_recovery_function_may_fork_the_new_server(peer: Peer) -> None:
    """Inside a recovery function a client forks a server, connects to it, and is answered by it."""
    assert peer.begin(restart_by_forking).result() == (1, 8, b"question")


# exec


def connect_and_exec(qnx: Any, pid: int, chid: int, index: int) -> None:
    """In another process: connect, say so, and become another program."""
    coid = qnx.ConnectAttach(0, pid, chid, index)
    qnx.MsgSend(coid, b"connected")
    become_another_program()


@checks("B279", "B281", "D13")
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_exec_closes_connections(qnx: Any, start: Start, peer: Peer, index: int) -> None:
    """A process that becomes another program is no client any more: the server gets the disconnect pulse."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    peer.begin(connect_and_exec, os.getpid(), chid, index)
    assert step(start, qnx, chid).data == b"connected"
    seen = step(start, qnx, chid, take)
    if index == 0 and seen.type == IO_CLOSE:  # On QNX exec can send one; a POSIX host has nobody who would.
        qnx.MsgReply(seen.rcvid, EOK)
        seen = step(start, qnx, chid, take)
    assert seen.pulse.code == PULSE_CODE_DISCONNECT
    assert peer.process.poll() is None


def connect_and_exec_sender(qnx: Any, pid: int, chid: int) -> None:
    """In another process: become a program that sends on a connection it was left, and ends with the status."""
    fd = qnx.ConnectAttach(0, pid, chid, 0)
    qnx.ConnectFlags(0, fd, NTO_COF_CLOEXEC, 0)
    become_a_sender(qnx, fd)


def become_a_sender(qnx: Any, fd: int) -> None:
    """In another process: become a program that sends on a connection, and ends with the status."""
    code = f"import os, ha_qnx; os._exit(ha_qnx.backend({qnx.name!r}).MsgSend({fd}, b'after'))"
    os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606  # our own interpreter


@checks("B278")
def test_a_connection_that_is_not_close_on_exec_stays_open(start_peer: StartPeer) -> None:
    """A connection whose close-on-exec flag was cleared has the same number in the new program; nothing is sent."""
    server, client = Server(start_peer()), start_peer()
    serving = server.peer.start(answer, server.chid, 7)
    client.begin(connect_and_exec_sender, server.pid, server.chid)
    assert client.process.wait(DEADLINE) == 7
    assert serving.result().data == b"after"


def recover_and_exec_sender(qnx: Any, old: Tuple[int, int], new: Tuple[int, int]) -> None:
    """In another process: lose the server, reconnect to another one, and become a program that sends."""

    def recover(coid: int, _handle: Any) -> int:
        result: int = qnx.ha_ReConnectAttach(coid, 0, *new, 0, 0)
        return result

    fd = qnx.ha_ConnectAttach(0, *old, 0, 0, recover)
    qnx.ConnectFlags(0, fd, NTO_COF_CLOEXEC, 0)
    qnx.MsgSend(fd, b"before")
    become_a_sender(qnx, fd)


@checks("B278", "D6")
@open_point("D6")
def test_a_recovered_connection_stays_open_to_its_new_server(start_peer: StartPeer) -> None:
    """A connection that is not close-on-exec and was recovered leads a new program to the server that it has now."""
    first, second, client = Server(start_peer()), Server(start_peer()), start_peer()
    client.begin(recover_and_exec_sender, (first.pid, first.chid), (second.pid, second.chid))
    assert first.take().data == b"before"
    first.kill()
    assert second.answer().data == b"before"
    assert second.answer(7).data == b"after"
    assert client.process.wait(DEADLINE) == 7


@checks("B280")
def test_exec_destroys_channels(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """The clients of a process that becomes another program: blocked ones get ESRCH, idle ones EBADF."""
    server = Server(peer, name)
    coid = qnx.ConnectAttach(0, server.pid, server.chid)
    held = start(qnx.MsgSend, coid, b"held", None)
    server.take()
    waiting = start(qnx.MsgSend, coid, b"waiting", None).wait_until_blocked()
    with fails_with(EEXIST):
        qnx.name_attach(name)
    peer.begin(become_another_program)
    assert held.errno() == ESRCH
    assert waiting.errno() == ESRCH
    # The host closes one thing after the other.
    eventually(lambda: start(qnx.MsgSend_r, coid, b"message", None).result() == -EBADF, "the end of the connection")
    assert eventually(lambda: try_to_attach(qnx, name), "the name").path == name
    assert peer.process.poll() is None


def try_to_attach(qnx: Any, name: str) -> Optional[Name]:
    """Take a name, if it is free."""
    with contextlib.suppress(FileExistsError):
        attached: Name = qnx.name_attach(name)
        return attached
    return None


# exit


def connect_and_exit(qnx: Any, pid: int, chid: int) -> None:
    """In another process: connect by a side channel, say so, and end."""
    qnx.MsgSend(qnx.ConnectAttach(0, pid, chid, SIDE), b"connected")
    os._exit(0)


@checks("B285", "B197")
@pytest.mark.parametrize("killed", [False, True], ids=["exits", "is killed"])
def test_a_client_that_ends_with_a_side_channel_says_nothing(qnx: Any, start: Start, peer: Peer, killed: bool) -> None:
    """No _IO_CLOSE comes for a side channel, only the disconnect pulse of a channel that asked for it."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    peer.begin(connect_and_exit, os.getpid(), chid)
    seen = step(start, qnx, chid, take if killed else answer)
    if killed:
        peer.kill()
    pulse = step(start, qnx, chid, take).pulse
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, seen.scoid)


@checks("B285", "B202")
def test_a_channel_that_did_not_ask_hears_nothing_of_clients_that_end(qnx: Any, start: Start, peer: Peer) -> None:
    """Without NTO_CHF_DISCONNECT the next thing that the server gets is the next message."""
    chid = qnx.ChannelCreate(0)
    peer.begin(connect_and_exit, os.getpid(), chid)
    step(start, qnx, chid)
    peer.process.wait(DEADLINE)
    start(qnx.MsgSend, qnx.ConnectAttach(0, 0, chid), b"next", None)
    assert step(start, qnx, chid).data == b"next"
