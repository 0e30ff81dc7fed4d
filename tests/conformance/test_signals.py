"""Signals: which calls they end, which they do not, and that nothing is lost on the way.

Python runs signal handlers in the main thread. So the calls are made in the main thread of another process, which the
tests send real signals to.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from errno import EINTR, ESRCH
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from ha_qnx import IO_CLOSE, IO_DUP, NTO_TIMEOUT_RECEIVE, Pulse

from .clients import Start
from .expect import fails_with
from .marks import checks
from .peers import Peer, Remote
from .receiving import PATIENCE, PULSE_SIZE, assert_nothing_waits, receive_message
from .waiting import DEADLINE, eventually, is_asleep, rounds

handled: List[int] = []


def note(number: int, _frame: object) -> None:
    handled.append(number)


def note_signals(_qnx: Any) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, note)


class HandlerError(Exception):
    """What a signal handler raises."""


def fail(_number: int, _frame: object) -> None:
    raise HandlerError


def create_channel(qnx: Any) -> int:
    chid: int = qnx.ChannelCreate(0)
    return chid


def send(qnx: Any, pid: int, chid: int, message: bytes = b"message") -> int:
    status: int = qnx.MsgSend(qnx.ConnectAttach(0, pid, chid), message, bytearray(len(message)))
    return status


def send_twice(qnx: Any, pid: int, chid: int) -> int:
    """Send two messages, of which the second one finds a connection that has been used."""
    coid = qnx.ConnectAttach(0, pid, chid)
    qnx.MsgSend(coid, b"first", bytearray(10))
    status: int = qnx.MsgSend(coid, b"second", bytearray(10))
    return status


def send_parts(qnx: Any, pid: int, chid: int) -> int:
    status: int = qnx.MsgSendv(qnx.ConnectAttach(0, pid, chid), [b"mes", b"sage"], [bytearray(10)])
    return status


def send_large(qnx: Any, pid: int, chid: int) -> int:
    return send(qnx, pid, chid, bytes(100_000))


def receive(qnx: Any, chid: int) -> int:
    pulse = Pulse()
    assert qnx.MsgReceive(chid, pulse) == 0
    value: int = pulse.value.sival_int
    return value


def receive_parts(qnx: Any, chid: int) -> int:
    pulse = Pulse()
    assert qnx.MsgReceivev(chid, [pulse]) == 0
    value: int = pulse.value.sival_int
    return value


def receive_pulse(qnx: Any, chid: int) -> int:
    pulse = Pulse()
    qnx.MsgReceivePulse(chid, pulse)
    value: int = pulse.value.sival_int
    return value


def receive_in_another_thread(qnx: Any, chid: int) -> None:
    """Have another thread in MsgReceive, which is served before one that receives pulses."""
    other = threading.Thread(target=qnx.MsgReceive, args=(chid, bytearray(PULSE_SIZE)), daemon=True)
    other.start()
    eventually(lambda: is_asleep(other.native_id or 0), "the other thread to block")


def receive_with_limit(qnx: Any, chid: int) -> int:
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, PATIENCE)
    return receive(qnx, chid)


SENDS: Dict[str, Callable[..., int]] = {
    "bytes": send,
    "second": send_twice,
    "parts": send_parts,
    "large": send_large,
}
RECEIVES: Dict[str, Callable[..., int]] = {
    "MsgReceive": receive,
    "MsgReceivev": receive_parts,
    "MsgReceivePulse": receive_pulse,
    "MsgReceivePulse-beside-MsgReceive": receive_pulse,
    "MsgReceive-with-limit": receive_with_limit,
}
STATES = (*(f"{kind}-{state}" for kind in SENDS for state in ("sent", "received")), *RECEIVES)


class BlockedCall:
    """A call that waits in another process, and what lets it end with the result 7."""

    def __init__(self, qnx: Any, peer: Peer, state: str) -> None:
        self._qnx = qnx
        self._peer = peer
        self._kind, _dash, stage = state.partition("-")
        self._is_send = self._kind in SENDS
        self._is_received = stage == "received"
        self._call = SENDS[self._kind] if self._is_send else RECEIVES[state]
        self._pulses = 2 if "beside" in state else 1
        self._rcvid = 0
        self.chid: int = qnx.ChannelCreate(0) if self._is_send else peer.run(create_channel)
        if "beside" in state:  # Before it begins: a thread that starts another one sleeps meanwhile, too.
            peer.run(receive_in_another_thread, self.chid)

    def begin(self, wrapper: Optional[Callable[..., Any]] = None, *more: Any, in_thread: bool = False) -> Remote:
        """Begin the call, through a wrapper that it is handed to, and wait until it blocks."""
        begin = self._peer.start if in_thread else self._peer.begin
        args: Tuple[Any, ...] = (os.getpid(), self.chid) if self._is_send else (self.chid,)
        call = begin(wrapper, *more, self._call, *args) if wrapper else begin(self._call, *args)
        if self._kind == "second":
            self._qnx.MsgReply(receive_message(self._qnx, self.chid), 0)
        if self._is_received:
            self._rcvid = receive_message(self._qnx, self.chid)
        return call.wait_until_blocked()

    def let_go(self) -> None:
        """Let the call end."""
        if self._is_send:
            self._qnx.MsgReply(self._rcvid or receive_message(self._qnx, self.chid), 7)
            return
        coid = self._qnx.ConnectAttach(0, self._peer.pid, self.chid)
        for _ in range(self._pulses):
            self._qnx.MsgSendPulse(coid, 10, 1, 7)


@pytest.fixture(params=STATES)
def blocked(request: pytest.FixtureRequest, qnx: Any, peer: Peer) -> BlockedCall:
    """A call of each kind, in each state in which it can block."""
    return BlockedCall(qnx, peer, request.param)


def blocked_as(*states: str) -> pytest.MarkDecorator:
    """Only some of the calls, where the others would show nothing new."""
    return pytest.mark.parametrize("blocked", states, indirect=True)


# One of each way to wait.
each_way = blocked_as(
    "bytes-sent",
    "second-sent",
    "second-received",
    "large-received",
    "MsgReceive",
    "MsgReceivePulse",
    "MsgReceivePulse-beside-MsgReceive",
)


# What ends a call.


def when_interrupted(qnx: Any, call: Callable[..., int], *args: Any) -> Optional[List[int]]:
    """The signals that were handled when a call failed with EINTR."""
    note_signals(qnx)
    try:
        call(qnx, *args)
    except InterruptedError:
        return list(handled)
    return None


@checks("B180", "B228", "B173", "D19")
def test_a_signal_handler_ends_the_call(peer: Peer, blocked: BlockedCall) -> None:
    """A signal whose handler runs while a call is blocked ends it with EINTR, after the handler."""
    call = blocked.begin(when_interrupted)
    peer.signal(signal.SIGUSR1)
    assert call.result() == [signal.SIGUSR1]


def note_and_clear(number: int, frame: object) -> None:
    ctypes.set_errno(0)
    note(number, frame)


def note_and_fail_in_c(number: int, frame: object) -> None:
    ctypes.CDLL(None, use_errno=True).close(-1)
    note(number, frame)


MEDDLERS = {"clears": note_and_clear, "fails": note_and_fail_in_c}


def when_meddled_with(qnx: Any, meddler: str, call: Callable[..., int], *args: Any) -> List[int]:
    """The signals that were handled, by a handler that uses errno, when a call failed with EINTR."""
    signal.signal(signal.SIGUSR1, MEDDLERS[meddler])
    with fails_with(EINTR):
        call(qnx, *args)
    return list(handled)


@checks("B180", "B228", "D19", "D60")
@pytest.mark.parametrize("meddler", MEDDLERS)
@blocked_as(
    "bytes-sent", "second-sent", "second-received", "parts-received", "large-received",
    "MsgReceive", "MsgReceivev", "MsgReceivePulse", "MsgReceive-with-limit",
)  # fmt: skip
def test_a_signal_handler_that_uses_errno_changes_nothing(peer: Peer, blocked: BlockedCall, meddler: str) -> None:
    """A call that is interrupted fails with EINTR, whatever the handler has done to the errno of ctypes."""
    call = blocked.begin(when_meddled_with, meddler)
    peer.signal(signal.SIGUSR1)
    assert call.result() == [signal.SIGUSR1]


def when_failed(qnx: Any, call: Callable[..., int], *args: Any) -> str:
    """What a call raised whose signal handler raises."""
    signal.signal(signal.SIGUSR1, fail)
    try:
        call(qnx, *args)
    except BaseException as error:
        return type(error).__name__
    return "nothing"


@checks("D19")
@each_way
def test_the_exception_of_a_signal_handler_ends_the_call(peer: Peer, blocked: BlockedCall) -> None:
    """A signal handler that raises while a call is blocked ends it with its own exception."""
    call = blocked.begin(when_failed)
    peer.signal(signal.SIGUSR1)
    assert call.result() == "HandlerError"


def when_stopped_by_keyboard(qnx: Any, call: Callable[..., int], *args: Any) -> str:
    """What a call raised for the signal of the keyboard."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        call(qnx, *args)
    except KeyboardInterrupt:
        return "KeyboardInterrupt"
    return "nothing"


@checks("D19")
@blocked_as("second-received", "MsgReceive")
def test_the_keyboard_ends_the_call(peer: Peer, blocked: BlockedCall) -> None:
    """SIGINT raises KeyboardInterrupt in a blocked call, as everywhere in Python."""
    call = blocked.begin(when_stopped_by_keyboard)
    peer.signal(signal.SIGINT)
    assert call.result() == "KeyboardInterrupt"


def when_restartable(qnx: Any, call: Callable[..., int], *args: Any) -> Optional[List[int]]:
    """The same as when_interrupted, with SA_RESTART, where that exists."""
    note_signals(qnx)
    with contextlib.suppress(OSError):
        signal.siginterrupt(signal.SIGUSR1, False)
    try:
        call(qnx, *args)
    except InterruptedError:
        return list(handled)
    return None


@checks("B230", "D19")
@blocked_as("bytes-received", "second-sent", "second-received", "large-received", "MsgReceive", "MsgReceivePulse")
def test_a_call_is_not_restarted(peer: Peer, blocked: BlockedCall) -> None:
    """A program that has asked for SA_RESTART gets EINTR all the same: a kernel call does not start again."""
    call = blocked.begin(when_restartable)
    peer.signal(signal.SIGUSR1)
    assert call.result() == [signal.SIGUSR1]


@checks("B166", "B173")
@blocked_as("bytes-sent", "second-sent", "second-received", "parts-received", "large-received")
def test_a_lost_server_is_no_interruption(qnx: Any, blocked: BlockedCall) -> None:
    """The thread that runs Python's signal handlers gets ESRCH, as the others do, when its server goes."""
    call = blocked.begin()
    qnx.ChannelDestroy(blocked.chid)
    assert call.errno() == ESRCH


def begin_and_interrupt(qnx: Any, peer: Peer, function: Callable[..., Any], chid: int, message_type: int) -> Remote:
    """Interrupt a call of another process when its I/O message has been received."""
    call, message = peer.begin(function, os.getpid(), chid), bytearray(PULSE_SIZE)
    receive_message(qnx, chid, message)
    assert int.from_bytes(message[:2], sys.byteorder) == message_type
    call.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    return call


def close_interrupted(qnx: Any, pid: int, chid: int) -> int:
    """Interrupt close, and send a message on the connection."""
    note_signals(qnx)
    fd = qnx.ConnectAttach(0, pid, chid, 0)
    with fails_with(EINTR):
        qnx.close(fd)
    status: int = qnx.MsgSend(fd, b"still open", bytearray(10))
    return status


@checks("B232")
def test_a_descriptor_whose_close_was_interrupted_is_open(qnx: Any, peer: Peer) -> None:
    """A close that fails with EINTR leaves the descriptor as it was."""
    chid, message = qnx.ChannelCreate(0), bytearray(PULSE_SIZE)
    closing = begin_and_interrupt(qnx, peer, close_interrupted, chid, IO_CLOSE)
    rcvid = receive_message(qnx, chid, message)
    assert message.startswith(b"still open")
    qnx.MsgReply(rcvid, 7)
    assert closing.result() == 7


def dup_interrupted(qnx: Any, pid: int, chid: int) -> List[int]:
    """Interrupt dup; the signals that were handled by then."""
    note_signals(qnx)
    fd = qnx.ConnectAttach(0, pid, chid, 0)
    with fails_with(EINTR):
        qnx.dup(fd)
    return handled


@checks("D19", "B228")
def test_a_signal_handler_ends_dup(qnx: Any, peer: Peer) -> None:
    """A dup whose server does not answer fails with EINTR, after the handler."""
    chid = qnx.ChannelCreate(0)
    duplicating = begin_and_interrupt(qnx, peer, dup_interrupted, chid, IO_DUP)
    assert duplicating.result() == [signal.SIGUSR1]


# What does not.


def ignore_signals(_qnx: Any) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@checks("B229")
@each_way
def test_an_ignored_signal_changes_nothing(peer: Peer, blocked: BlockedCall) -> None:
    """A call goes on when a signal comes that is ignored, by choice or by default."""
    peer.run(ignore_signals)
    call = blocked.begin()
    for number in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT):
        peer.signal(number)
    call.wait_until_blocked()
    blocked.let_go()
    assert call.result() == 7


@checks("D19")
@each_way
def test_a_process_that_was_stopped_goes_on_with_its_call(peer: Peer, blocked: BlockedCall) -> None:
    """A call goes on when its process was only stopped and continued."""
    call = blocked.begin()
    peer.stop()
    peer.signal(signal.SIGCONT)
    call.wait_until_blocked()
    blocked.let_go()
    assert call.result() == 7


@checks("D19")
@blocked_as("second-sent", "second-received", "large-received", "MsgReceive", "MsgReceivePulse")
def test_what_came_while_a_process_was_stopped_ends_its_call(peer: Peer, blocked: BlockedCall) -> None:
    """An answer or a pulse that comes while the process is stopped is there when it is continued."""
    call = blocked.begin()
    peer.stop()
    blocked.let_go()
    peer.signal(signal.SIGCONT)
    assert call.result() == 7


def interrupt_threads(_qnx: Any) -> int:
    """Send a signal to each thread but this one, the main thread; how many there are."""
    threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    for thread in threads:
        if thread.ident:
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
    return len(threads)


def signals_handled(_qnx: Any) -> List[int]:
    return handled


@checks("D19")
@each_way
def test_a_call_in_another_thread_goes_on(peer: Peer, blocked: BlockedCall) -> None:
    """A signal does not end a call in a thread other than the main one, even if that very thread is interrupted."""
    peer.run(note_signals)
    call = blocked.begin(in_thread=True)
    peer.signal(signal.SIGUSR2)
    eventually(lambda: signal.SIGUSR2 in peer.run(signals_handled), "the signal to be handled")
    call.wait_until_blocked()
    assert peer.run(interrupt_threads) >= 1
    eventually(lambda: signal.SIGUSR1 in peer.run(signals_handled), "the signal to be handled")
    call.wait_until_blocked()
    blocked.let_go()
    assert call.result() == 7


def after_a_signal(qnx: Any, call: Callable[..., int], *args: Any) -> int:
    """Handle a signal, and then make a call."""
    note_signals(qnx)
    os.kill(os.getpid(), signal.SIGUSR1)
    eventually(lambda: handled, "the signal to be handled")
    return call(qnx, *args)


@checks("B228")
@blocked_as("bytes-received", "second-received", "large-sent", "MsgReceive", "MsgReceivePulse")
def test_a_signal_that_was_handled_before_ends_nothing(blocked: BlockedCall) -> None:
    """A call is interrupted by signals that come while it is blocked, not by earlier ones."""
    call = blocked.begin(after_a_signal)
    blocked.let_go()
    assert call.result() == 7


# What remains.


def send_again(qnx: Any, pid: int, chid: int, handler: str, large: bool) -> Tuple[int, bytes]:
    """Send a message that is interrupted, and another one on the same connection."""
    signal.signal(signal.SIGUSR1, note if handler == "note" else fail)
    coid = qnx.ConnectAttach(0, pid, chid)
    reply = bytearray(100_000 if large else 10)
    with contextlib.suppress(InterruptedError, HandlerError):
        qnx.MsgSend(coid, b"first", reply)
        raise AssertionError("it was not interrupted")
    assert not any(reply)
    return qnx.MsgSend(coid, b"second", reply), bytes(reply[:10])


@checks("B180", "B118", "D16", "D19")
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("handler", ["note", "fail"])
def test_a_connection_is_as_good_after_an_interruption(qnx: Any, peer: Peer, handler: str, large: bool) -> None:
    """A client that was interrupted is gone for its server, which is not told; its next message gets its own answer."""
    chid, message = qnx.ChannelCreate(0), bytearray(PULSE_SIZE)
    sending = peer.begin(send_again, os.getpid(), chid, handler, large)
    stale = receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    rcvid = receive_message(qnx, chid, message)
    assert message.startswith(b"second")
    with fails_with(ESRCH):
        qnx.MsgReply(stale, 1, b"the wrong answer")
    assert_nothing_waits(qnx, chid)
    qnx.MsgReply(rcvid, 2, b"right")
    assert sending.result() == (2, b"right" + bytes(5))


@checks("B180", "B267")
@blocked_as("bytes-sent", "second-sent", "parts-sent", "large-sent")
def test_a_message_that_was_interrupted_before_it_was_received_is_withdrawn(
    qnx: Any, peer: Peer, blocked: BlockedCall
) -> None:
    """A server never sees the message of a client that was SEND-blocked when a signal ended its call."""
    call = blocked.begin(when_interrupted)
    peer.signal(signal.SIGUSR1)
    call.result()
    assert_nothing_waits(qnx, blocked.chid)


def receive_twice(qnx: Any, chid: int, handler: str) -> int:
    """Receive, be interrupted, and receive again; answer what comes by its length."""
    signal.signal(signal.SIGUSR1, note if handler == "note" else fail)
    message = bytearray(20)
    with contextlib.suppress(InterruptedError, HandlerError):
        qnx.MsgReceive(chid, message)
        raise AssertionError("it was not interrupted")
    rcvid = qnx.MsgReceive(chid, message)
    qnx.MsgReply(rcvid, message.index(0))
    return len(message.rstrip(b"\0"))


@checks("B228", "D19")
@pytest.mark.parametrize("handler", ["note", "fail"])
def test_a_channel_is_as_good_after_an_interruption(qnx: Any, start: Start, peer: Peer, handler: str) -> None:
    """What arrives after a receiver was interrupted is received by its next call."""
    chid = peer.run(create_channel)
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    receiving = peer.begin(receive_twice, chid, handler).wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    receiving.wait_until_blocked()
    sending = start(qnx.MsgSend, coid, b"after it", None)
    assert sending.result() == 8
    assert receiving.result() == 8


def interrupt_beside(qnx: Any, chid: int) -> List[int]:
    """Interrupt MsgReceive beside a thread in MsgReceivePulse; the values that this one receives after that."""
    note_signals(qnx)
    coid = qnx.ConnectAttach(0, 0, chid)
    main, beside = threading.get_ident(), threading.Event()
    native_id = threading.get_native_id()
    values: List[int] = []

    def receive_beside() -> None:
        eventually(lambda: is_asleep(native_id), "the main thread to block")
        beside.set()
        values.append(receive_pulse(qnx, chid))

    def interrupt() -> None:
        beside.wait(DEADLINE)
        eventually(lambda: is_asleep(other.native_id or 0), "the other thread to block")
        signal.pthread_kill(main, signal.SIGUSR1)

    other = threading.Thread(target=receive_beside, daemon=True)
    other.start()
    threading.Thread(target=interrupt, daemon=True).start()
    with contextlib.suppress(InterruptedError):
        qnx.MsgReceive(chid, bytearray(PULSE_SIZE))
        raise AssertionError("it was not interrupted")
    qnx.MsgSendPulse(coid, 10, 1, 7)
    other.join(DEADLINE)
    return values


@checks("B228", "B259", "D19")
def test_a_pulse_goes_to_the_thread_beside_one_that_was_interrupted(peer: Peer) -> None:
    """When the main thread is interrupted in MsgReceive, the next pulse goes to the thread in MsgReceivePulse."""
    assert peer.run(interrupt_beside, peer.run(create_channel)) == [7]


def send_in_handler(qnx: Any, pid: int, chid: int) -> List[Tuple[str, int]]:
    """The results, in their order, of a message that is sent by a handler and of the one that it interrupts."""
    coid = qnx.ConnectAttach(0, pid, chid)
    results: List[Tuple[str, int]] = []

    def handler(_number: int, _frame: object) -> None:
        results.append(("inner", qnx.MsgSend(coid, b"inner", bytearray(10))))

    signal.signal(signal.SIGUSR1, handler)
    try:
        results.append(("outer", qnx.MsgSend(coid, b"outer", bytearray(10))))
    except InterruptedError:
        results.append(("outer", -EINTR))
    results.append(("again", qnx.MsgSend(coid, b"again", bytearray(10))))
    return results


@checks("B228", "D19")
def test_a_signal_handler_can_send(qnx: Any, peer: Peer) -> None:
    """A handler sends on the connection that its thread is blocked on: it gets its own answer, the other one EINTR."""
    chid, message = qnx.ChannelCreate(0), bytearray(PULSE_SIZE)
    sending = peer.begin(send_in_handler, os.getpid(), chid)
    receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    for status, text in ((5, b"inner"), (6, b"again")):
        rcvid = receive_message(qnx, chid, message)
        assert message.startswith(text)
        qnx.MsgReply(rcvid, status)
    assert sending.result() == [("inner", 5), ("outer", -EINTR), ("again", 6)]


def pulse_in_handler(qnx: Any, chid: int) -> int:
    """Receive, be interrupted by a handler that sends a pulse to the same channel, and receive that."""
    coid = qnx.ConnectAttach(0, 0, chid)
    signal.signal(signal.SIGUSR1, lambda number, _frame: qnx.MsgSendPulse(coid, 10, 1, number))
    pulse = Pulse()
    with contextlib.suppress(InterruptedError):
        qnx.MsgReceive(chid, pulse)
        raise AssertionError("it was not interrupted")
    assert qnx.MsgReceive(chid, pulse) == 0
    value: int = pulse.value.sival_int
    return value


@checks("B228", "D19")
def test_a_signal_handler_can_wake_its_own_server(peer: Peer) -> None:
    """A handler sends a pulse to the channel that its thread receives on: the next call gets it."""
    chid = peer.run(create_channel)
    receiving = peer.begin(pulse_in_handler, chid).wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert receiving.result() == signal.SIGUSR1


# Signals and messages at the same time.


def echo_numbers(qnx: Any, chid: int) -> Tuple[int, int]:
    """Answer messages by the number they hold until 0 comes; how many there were, and how often it was interrupted."""
    note_signals(qnx)
    message = bytearray(PULSE_SIZE)
    count = interruptions = 0
    while True:
        try:
            rcvid = qnx.MsgReceive(chid, message)
        except InterruptedError:
            interruptions += 1
            continue
        number = int.from_bytes(message[:4], "little")
        qnx.MsgReply(rcvid, number, bytes(message[:4]))
        if not number:
            return count, interruptions
        count += 1


def send_numbers_and_signals(qnx: Any, peer: Peer, coid: int, last: int) -> List[Tuple[int, bytes]]:
    """Send numbers, each in a race with a signal; the answers that are wrong."""
    wrong = []
    for number in range(last, -1, -1):
        reply = bytearray(4)
        if number:
            peer.signal(signal.SIGUSR1)
        status = qnx.MsgSend(coid, number.to_bytes(4, "little"), reply)
        if (status, bytes(reply)) != (number, number.to_bytes(4, "little")):
            wrong.append((status, bytes(reply)))
    return wrong


@checks("B228", "D19")
def test_a_server_that_is_interrupted_loses_no_message(qnx: Any, start: Start, peer: Peer) -> None:
    """Signals that arrive together with messages end calls that receive, but each message is received and answered."""
    chid = peer.run(create_channel)
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    serving = peer.begin(echo_numbers, chid)
    for _ in range(5):  # Before there is a message, a signal is sure to interrupt.
        serving.wait_until_blocked()
        peer.signal(signal.SIGUSR1)
    assert start(send_numbers_and_signals, qnx, peer, coid, 500).result() == []
    count, interruptions = serving.result()
    assert count == 500
    assert interruptions >= 1


def send_numbers(qnx: Any, pid: int, chid: int, count: int) -> Tuple[List[Tuple[int, int, bytes]], int]:
    """Send each number until it is answered; the answers that are wrong, and how often it was interrupted."""
    note_signals(qnx)
    coid = qnx.ConnectAttach(0, pid, chid)
    wrong, interruptions = [], 0
    for number in range(count, -1, -1):
        status, reply = -1, bytearray(4)
        while status < 0:
            try:
                status = qnx.MsgSend(coid, number.to_bytes(4, "little"), reply)
            except InterruptedError:
                interruptions += 1
        if (status, bytes(reply)) != (number, number.to_bytes(4, "little")):
            wrong.append((number, status, bytes(reply)))
    return wrong, interruptions


def is_stale(qnx: Any, rcvid: int) -> bool:
    """Whether nobody waits for the answer to a message any more."""
    try:
        qnx.MsgInfo(rcvid)
    except ProcessLookupError:
        return True
    return False


@checks("B180", "B228", "D16", "D19")
def test_a_client_that_is_interrupted_gets_no_wrong_answer(qnx: Any, peer: Peer) -> None:
    """Signals that arrive together with answers end calls that send, but no answer goes to another message."""
    chid, message = qnx.ChannelCreate(0), bytearray(PULSE_SIZE)
    sending = peer.begin(send_numbers, os.getpid(), chid, 150)
    number, turn = -1, 0
    while number:
        rcvid = receive_message(qnx, chid, message)
        number = int.from_bytes(message[:4], "little")
        turn += 1
        # By turns: no signal, one that races with the answer, and one that finds the client blocked.
        if number and turn % 3:
            if turn % 3 == 2:
                sending.wait_until_blocked()
            peer.signal(signal.SIGUSR1)
            if turn % 3 == 2:
                eventually(partial(is_stale, qnx, rcvid), "the end of the interrupted call")
        with contextlib.suppress(ProcessLookupError):
            qnx.MsgReply(rcvid, number, bytes(message[:4]))
    wrong, interruptions = sending.result()
    assert wrong == []
    assert interruptions >= 1


def attach_and_detach(qnx: Any, chid: int) -> None:
    qnx.ConnectDetach(qnx.ConnectAttach(0, 0, chid, 0))
    qnx.ConnectDetach(qnx.ConnectAttach(0, 0, chid))


def create_and_destroy(qnx: Any, _chid: int) -> None:
    qnx.ChannelDestroy(qnx.ChannelCreate(0))


def pulse_oneself(qnx: Any, chid: int) -> None:
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.MsgSendPulse(coid, 10, 1, 7)
    qnx.ConnectDetach(coid)
    assert qnx.MsgReceive(chid, Pulse()) == 0


MAKERS = {"connections": attach_and_detach, "channels": create_and_destroy, "pulses": pulse_oneself}


def make_here_and_in_a_handler(qnx: Any, outer: str, inner: str) -> Tuple[int, int]:
    """Make and end things, in a signal handler, too, that interrupts just that; how often, there and here."""
    mine, its, turns = qnx.ChannelCreate(0), qnx.ChannelCreate(0), [0, 0]

    def make(_number: int, _frame: object) -> None:
        MAKERS[inner](qnx, its if inner == "pulses" else mine)
        turns[0] += 1
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + turns[0] % 50 / 1e5)

    signal.signal(signal.SIGALRM, make)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    for _round in rounds(1000):
        with contextlib.suppress(InterruptedError):
            MAKERS[outer](qnx, mine)
            turns[1] += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    return turns[0], turns[1]


@checks("B12", "B14", "D19", "D60")
@pytest.mark.parametrize(
    ("outer", "inner"),
    [("connections", "connections"), ("connections", "channels"), ("channels", "connections"), ("pulses", "pulses")],
)
def test_a_signal_handler_makes_what_is_being_made(peer: Peer, outer: str, inner: str) -> None:
    """A handler may connect, create and send, while the main thread does the same: neither waits for the other."""
    in_handlers, in_all = peer.run(make_here_and_in_a_handler, outer, inner)
    assert in_handlers > 0
    assert in_all > 0
