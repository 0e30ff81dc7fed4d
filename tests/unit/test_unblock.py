"""Ending the wait of one thread with a message: what asyncio needs of a kernel, beside what QNX has."""

import contextlib
import signal
import threading
from errno import EINTR, ENOTSUP
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually, rounds
from ha_qnx.fallback import host

import ha_qnx
from ha_qnx.native import kernel as native_kernel

LARGE = 1 << 17


@pytest.fixture
def channel(qnx: ha_qnx.Backend) -> Iterator[Callable[[int], Tuple[int, int]]]:
    """Makes a channel with some flags, and a connection to it."""
    with contextlib.ExitStack() as stack:

        def make(flags: int) -> Tuple[int, int]:
            chid = qnx.ChannelCreate(flags)
            stack.callback(qnx.ChannelDestroy, chid)
            return chid, qnx.ConnectAttach(0, 0, chid)

        yield make


class Sender(Task):
    """A message that a thread of its own sends."""

    def __init__(self, qnx: ha_qnx.Backend, coid: int, message: bytes = b"x", room: int = 64) -> None:
        self.thread = 0
        self.reply = bytearray(room)

        def send() -> int:
            self.thread = threading.get_ident()
            return qnx.MsgSend(coid, message, self.reply)

        super().__init__(send)

    def unblock_until_done(self, qnx: ha_qnx.Backend) -> Optional[int]:
        """The errno of the call, which may still be on its way into the kernel when it is asked for first."""

        def is_done() -> bool:
            if not self.done:
                qnx.unblock(self.thread)
            return self.done

        eventually(is_done, "the end of the call")
        return self.errno()


def pulse_or_message(qnx: ha_qnx.Backend, chid: int) -> Tuple[int, int]:
    """(0, the code of the pulse), or (rcvid, 0)."""
    buffer = bytearray(64)
    qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_RECEIVE, int(DEADLINE * 1e9))
    rcvid = qnx.MsgReceive(chid, buffer)
    return rcvid, 0 if rcvid else ha_qnx.Pulse.from_buffer_copy(buffer).code


@pytest.mark.parametrize("flags", [0, ha_qnx.NTO_CHF_UNBLOCK])
@pytest.mark.parametrize("message", [b"x", bytes(LARGE)], ids=["small", "large"])
def test_a_message_that_nobody_has_received_is_taken_back(
    qnx: ha_qnx.Backend, channel: Any, flags: int, message: bytes
) -> None:
    """The call fails with EINTR, and the server never sees it; the next one is the first that it receives."""
    chid, coid = channel(flags)
    for _time in range(3):
        assert Sender(qnx, coid, message).unblock_until_done(qnx) == EINTR
    last = Sender(qnx, coid, b"last")
    room = bytearray(64)
    rcvid = qnx.MsgReceive(chid, room)
    assert rcvid > 0
    assert bytes(room[:4]) == b"last"
    qnx.MsgReply(rcvid, 7, b"answer")
    assert last.result() == 7
    assert bytes(last.reply[:6]) == b"answer"


@pytest.mark.parametrize("message", [b"x", bytes(LARGE)], ids=["small", "large"])
def test_without_the_flag_a_client_whose_message_was_received_is_free(
    qnx: ha_qnx.Backend, channel: Any, message: bytes
) -> None:
    """The server's answer comes too late."""
    chid, coid = channel(0)
    sender = Sender(qnx, coid, message)
    rcvid = qnx.MsgReceive(chid, bytearray(64))
    assert sender.unblock_until_done(qnx) == EINTR
    with pytest.raises(ProcessLookupError):
        qnx.MsgReply(rcvid, 0)


@pytest.mark.parametrize("answer", ["reply", "error"])
def test_with_the_flag_the_server_decides(qnx: ha_qnx.Backend, channel: Any, answer: str) -> None:
    """It gets one unblock pulse, however often it is asked, and the client what it answers."""
    if host.PORTABLE and qnx.name == "fallback":
        pytest.skip("who is woken by the end of a lane cannot read on")
    chid, coid = channel(ha_qnx.NTO_CHF_UNBLOCK)
    sender = Sender(qnx, coid)
    rcvid, _code = pulse_or_message(qnx, chid)
    eventually(lambda: qnx.unblock(sender.thread) == 0 and is_asked(qnx, rcvid), "the wish to be freed")
    for _time in range(3):
        qnx.unblock(sender.thread)
    assert pulse_or_message(qnx, chid) == (0, ha_qnx.PULSE_CODE_UNBLOCK)
    assert not sender.done
    if answer == "reply":
        qnx.MsgReply(rcvid, 7, b"answer")
        assert sender.result() == 7
        assert bytes(sender.reply[:6]) == b"answer"
    else:
        qnx.MsgError(rcvid, -1)
        assert sender.errno() == EINTR
    # What woke the thread meets no later message, and there was one pulse only.
    again = Sender(qnx, coid)
    rcvid, _code = pulse_or_message(qnx, chid)
    assert rcvid > 0
    qnx.MsgReply(rcvid, 3)
    assert again.result() == 3


def is_asked(qnx: ha_qnx.Backend, rcvid: int) -> bool:
    return bool(qnx.MsgInfo(rcvid).flags & ha_qnx.NTO_MI_UNBLOCK_REQ)


def test_a_thread_that_sends_nothing_goes_on(qnx: ha_qnx.Backend, channel: Any) -> None:
    """In MsgReceive, before its first call, after its last one, and after its end; and it is not kept for later."""
    chid, coid = channel(0)
    receiver = Task(qnx.MsgReceive, chid, bytearray(8))
    threads = [thread.ident for thread in threading.enumerate() if thread.ident is not None]
    ended = Task(threading.get_ident).result()
    for thread in (*threads, ended):
        assert qnx.unblock(thread) == 0
    sender = Sender(qnx, coid)
    rcvid = receiver.result()
    assert rcvid > 0
    qnx.MsgReply(rcvid, 5)
    assert sender.result() == 5


def test_no_answer_is_another_ones(qnx: ha_qnx.Backend, channel: Any) -> None:
    """Threads send on and on, and are asked for all the time: each call has its own answer, or EINTR."""
    chid, coid = channel(ha_qnx.NTO_CHF_UNBLOCK)
    is_over = threading.Event()
    outcomes: List[Tuple[int, int]] = []

    def serve() -> None:
        buffer = bytearray(64)
        while True:
            rcvid = qnx.MsgReceive(chid, buffer)
            if rcvid:
                with contextlib.suppress(OSError):
                    qnx.MsgReply(rcvid, int(bytes(buffer[:8])), buffer[:8])
            elif ha_qnx.Pulse.from_buffer_copy(buffer).code == 1:
                return

    def send(first: int, idents: List[int]) -> None:
        idents.append(threading.get_ident())
        good = interrupted = 0
        for number in rounds(1500):
            message, reply = b"%08d" % (first + number), bytearray(8)
            try:
                status = qnx.MsgSend(coid, message, reply)
            except InterruptedError:
                interrupted += 1
            else:
                assert (status, bytes(reply)) == (first + number, message)
                good += 1
        outcomes.append((good, interrupted))

    def ask(idents: List[int]) -> int:
        count = 0
        while not is_over.is_set():
            for thread in list(idents):
                qnx.unblock(thread)
                count += 1
            is_over.wait(0.0003)
        return count

    idents: List[int] = []
    server = Task(serve)
    senders = [Task(send, first, idents) for first in (10_000_000, 20_000_000)]
    asker = Task(ask, idents)
    try:
        for sender in senders:
            sender.result()
    finally:
        is_over.set()
    assert asker.result() > 0
    qnx.MsgSendPulse(coid, -1, 1, 0)
    server.result()
    assert all(good for good, _interrupted in outcomes)


# On QNX, where a signal has to do it.


@pytest.mark.parametrize("qnx", ["native", "hybrid"], indirect=True)
def test_a_signal_ends_the_wait_of_one_thread(by_signal: ha_qnx.Backend, channel: Any) -> None:
    """Of two that wait, the one that was asked for; a thread that receives goes on."""
    qnx = by_signal
    chid, coid = channel(0)
    _other_chid, other = channel(0)
    one, two = Sender(qnx, other), Sender(qnx, coid)
    assert one.unblock_until_done(qnx) == EINTR
    rcvid, _code = pulse_or_message(qnx, chid)
    receiver = Task(qnx.MsgReceive, chid, bytearray(8))
    eventually(lambda: receiver.native_id, "the thread")
    qnx.unblock(receiver._thread.ident or 0)
    qnx.MsgReply(rcvid, 4)
    assert two.result() == 4
    three = Sender(qnx, coid)
    qnx.MsgReply(receiver.result(), 6)
    assert three.result() == 6


@pytest.mark.parametrize("qnx", ["native", "hybrid"], indirect=True)
def test_only_the_main_thread_can_set_up_the_signal(by_signal: ha_qnx.Backend) -> None:
    """Another one is told so; where the program has a handler, that does."""
    qnx, here = by_signal, threading.get_ident()
    signal.signal(native_kernel._UNBLOCKING, signal.SIG_DFL)
    assert Task(qnx.unblock, here).errno() == ENOTSUP
    seen: List[int] = []
    signal.signal(native_kernel._UNBLOCKING, lambda number, _frame: seen.append(number))
    assert Task(qnx.unblock, here).result() == 0
    eventually(lambda: seen, "the program's own handler")
