"""Recovery: a server dies, the recovery function reconnects, and the call that was under way succeeds."""

import itertools
import os
import signal
import struct
import threading
from errno import (
    EACCES,
    EAGAIN,
    EBADF,
    EFAULT,
    EINTR,
    EIO,
    ENOENT,
    ENOSYS,
    ENXIO,
    EPERM,
    ESRCH,
    ETIMEDOUT,
)
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from ha_qnx import (
    EOK,
    HA_RECOVERY_SUSPEND,
    HAREPLACERECOVERYFN,
    IO_BASE,
    IO_CONNECT,
    IO_MAX,
    NTO_CHF_DISCONNECT,
    NTO_COF_DEAD,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    PULSE_CODE_DISCONNECT,
    MessageInfo,
)

from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .servers import Server, Start, StartPeer, answer, attach_both, next_number, path_of, refuse, take
from .waiting import DEADLINE, Task

SIDE = NTO_SIDE_CHANNEL
STATES = ["idle", "send-blocked", "reply-blocked"]
_CALLS_MAX = 60
_MESSAGES_MAX = 100_000

ForTheTest = Callable[[int], Any]


@pytest.fixture
def server(lasting: Peer) -> Iterator[Server]:
    """A server without a name, in a process that is not to be harmed."""
    made = Server(lasting, flags=NTO_CHF_DISCONNECT)
    yield made
    made.end()


class Recovering:
    """A recovery function that does what a test says, and remembers how it was called.

    It does one thing after the other, and the last of them for ever.
    """

    def __init__(self, *deeds: ForTheTest) -> None:
        self.calls: List[Tuple[int, Any]] = []
        self._deeds = deeds

    def __call__(self, coid: int, handle: Any) -> Any:
        self.calls.append((coid, handle))
        assert len(self.calls) <= _CALLS_MAX, "called again and again"
        return self._deeds[min(len(self.calls), len(self._deeds)) - 1](coid)

    @property
    def count(self) -> int:
        """How often it was called."""
        return len(self.calls)


def reconnecting(qnx: Any, pid: int, chid: int) -> ForTheTest:
    """Reconnects to a channel."""
    return lambda coid: qnx.ha_ReConnectAttach(coid, 0, pid, chid, coid & SIDE, 0)


def raising(error: BaseException) -> ForTheTest:
    """Raises an exception."""

    def recover(_coid: int) -> None:
        raise error

    return recover


def give_up(_coid: int) -> int:
    """Does nothing and says so."""
    return -1


def serve(qnx: Any, chid: int, room: int = 4096) -> None:
    """In any process: answer every message with this process's ID and the message itself, until the channel ends."""
    buffer, info = bytearray(room), MessageInfo()
    for _message in range(_MESSAGES_MAX):
        try:
            rcvid = qnx.MsgReceive(chid, buffer, info)
        except ProcessLookupError:
            return
        if rcvid:
            data = bytes(buffer[: info.msglen])
            is_io = len(data) >= 4 and IO_BASE <= struct.unpack_from("=H", data)[0] <= IO_MAX
            qnx.MsgReply(rcvid, EOK if is_io else os.getpid(), b"" if is_io else data)


class LocalServer:
    """A channel of this process, with a thread that answers on it."""

    def __init__(self, qnx: Any) -> None:
        self._qnx = qnx
        self._is_destroyed = False
        self.chid: int = qnx.ChannelCreate(0)
        self._thread = Task(serve, qnx, self.chid)

    def destroy(self) -> None:
        """Destroy the channel."""
        if not self._is_destroyed:
            self._is_destroyed = True
            self._qnx.ChannelDestroy(self.chid)

    def end(self) -> None:
        """Destroy the channel, and wait until the thread has noticed: the number is soon another channel's."""
        self.destroy()
        self._thread.result()


def take_over(peer: Peer, name: str) -> None:
    """Let a process take a name and a path, and answer all that comes."""
    peer.start(serve, peer.run(attach_both, name))


def ha_opened(qnx: Any, start: Start, server: Server, function: Any, handle: Any = None) -> int:
    """An HA-aware descriptor of a server's path."""
    task = start(qnx.ha_open, server.path, os.O_RDWR, function, handle)
    assert server.answer().type == IO_CONNECT
    fd: int = task.result()
    return fd


def lose(start: Start, server: Server, state: str, call: Callable[..., Any], *args: Any) -> Task:
    """Make a call whose server is killed: before the call, before it receives the message, or before it answers."""
    if state == "idle":
        server.kill()
        return start(call, *args)
    task = start(call, *args)
    if state == "send-blocked":
        task.wait_until_blocked()
    else:
        server.take()
    server.kill()
    return task


def lost(qnx: Any, function: Any, handle: Any = None, index: int = SIDE) -> int:
    """An HA-aware connection whose channel is gone."""
    chid = qnx.ChannelCreate(0)
    coid: int = qnx.ha_ConnectAttach(0, 0, chid, index, 0, function, handle)
    qnx.ChannelDestroy(chid)
    return coid


def lost_while_waiting(qnx: Any, start: Start, function: Any) -> Tuple[int, Task]:
    """An HA-aware connection whose channel is destroyed while it holds a message, and the sending of it."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ha_ConnectAttach(0, 0, chid, SIDE, 0, function)
    task = start(qnx.MsgSend, coid, b"question", bytearray(100))
    start(take, qnx, chid).result()
    qnx.ChannelDestroy(chid)
    return coid, task


# A server is killed


@checks("B359", "B361", "B362", "B363", "B378", "B384", "B345")
@pytest.mark.parametrize("state", STATES)
def test_a_descriptor_survives_the_killing_of_its_server(
    qnx: Any, start: Start, peer: Peer, lasting: Peer, name: str, state: str
) -> None:
    """The recovery function starts a successor and reopens the name; the call succeeds, and so do later ones."""
    first, second = Server(peer, name), lasting
    path, handle = first.path, object()

    def reopen(coid: int) -> Any:
        first.wait_until_gone()
        take_over(second, name)
        return qnx.ha_reopen(coid, path, os.O_RDWR)

    function = Recovering(reopen)
    fd = ha_opened(qnx, start, first, function, handle)
    buffer = bytearray(10)
    task = lose(start, first, state, qnx.MsgSend, fd, b"question", buffer)
    assert task.result() == second.pid
    assert buffer == b"question\0\0"
    assert function.calls == [(fd, handle)]
    assert start(qnx.MsgSend, fd, b"another", buffer).result() == second.pid
    assert function.count == 1


@checks("B359", "B361", "B362", "B363", "B378", "B385")
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
@pytest.mark.parametrize("state", STATES)
def test_a_connection_survives_the_killing_of_its_server(
    qnx: Any, start: Start, peer: Peer, server: Server, state: str, index: int
) -> None:
    """The recovery function attaches to another server's channel; the call succeeds there, and so do later ones."""
    first, second = Server(peer), server
    handle = object()
    function = Recovering(reconnecting(qnx, second.pid, second.chid))
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, index, 0, function, handle)
    buffer = bytearray(5)
    task = lose(start, first, state, qnx.MsgSend, coid, b"question", buffer)
    seen = second.answer(7, b"reply")
    assert (seen.data, seen.coid) == (b"question", coid)
    assert (task.result(), bytes(buffer)) == (7, b"reply")
    assert function.calls == [(coid, handle)]
    task = start(qnx.MsgSend, coid, b"another", None)
    assert second.answer(8).data == b"another"
    assert task.result() == 8
    assert function.count == 1


@checks("B402")
def test_a_message_may_reach_two_servers(qnx: Any, start: Start, peer: Peer, server: Server) -> None:
    """A message that was received before its server died is sent again whole: the first server may have acted on it."""
    first, second = Server(peer), server
    coid = qnx.ha_ConnectAttach(
        0, first.pid, first.chid, SIDE, 0, Recovering(reconnecting(qnx, second.pid, second.chid))
    )
    task = start(qnx.MsgSend, coid, b"increment", None)
    assert first.take().data == b"increment"
    first.kill()
    assert second.answer().data == b"increment"
    assert task.result() == 0


@checks("B397", "B363")
def test_a_request_survives_a_row_of_servers(qnx: Any, start: Start, start_peer: StartPeer) -> None:
    """When the new server dies with the message, too, the recovery function is called again, until one answers."""
    servers = [Server(start_peer()) for _ in range(4)]
    function = Recovering(*(reconnecting(qnx, server.pid, server.chid) for server in servers[1:]))
    coid = qnx.ha_ConnectAttach(0, servers[0].pid, servers[0].chid, SIDE, 0, function)
    task = start(qnx.MsgSend, coid, b"question", None)
    for server in servers[:3]:
        assert server.take().data == b"question"
        server.kill()
    assert servers[3].answer(9).data == b"question"
    assert task.result() == 9
    assert function.count == 3


@checks("B363")
def test_a_large_request_is_sent_again_whole(qnx: Any, start: Start, peer: Peer, lasting: Peer) -> None:
    """A mebibyte there and back survives the death of a server that had already answered a part of it."""
    first, second = Server(peer), lasting
    chid = second.run(create_and_serve)
    function = Recovering(reconnecting(qnx, second.pid, chid))
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, SIDE, 0, function)
    message = bytes(itertools.islice(itertools.cycle(range(7, 258 - 7)), 1 << 20))
    buffer = bytearray(len(message))
    task = start(qnx.MsgSend, coid, message, buffer)
    first.peer.run(write_a_part, first.chid)
    first.kill()
    assert task.result() == second.pid
    assert buffer == message


def create_and_serve(qnx: Any) -> int:
    """In another process: a channel with a thread that serves it."""
    chid: int = qnx.ChannelCreate(0)
    Task(serve, qnx, chid, 1 << 20)
    return chid


def write_a_part(qnx: Any, chid: int) -> None:
    """In another process: receive a message, write into its reply, and do not answer."""
    assert qnx.MsgWrite(qnx.MsgReceive(chid, bytearray(100)), b"half a reply", 1000) == 12


@checks("B162", "B166", "B363")
def test_a_connection_survives_the_end_of_its_channel(qnx: Any, start: Start, server: Server) -> None:
    """A channel that a living server destroys while it holds a message is recovered from like a death."""
    chid = server.peer.run(create_and_serve)
    coid = qnx.ha_ConnectAttach(0, server.pid, server.chid, SIDE, 0, Recovering(reconnecting(qnx, server.pid, chid)))
    task = start(qnx.MsgSend, coid, b"question", None)
    server.take()
    server.destroy_channel()
    assert task.result() == server.pid


@checks("B359")
def test_the_recovery_function_runs_in_the_thread_that_met_the_failure(qnx: Any, start: Start) -> None:
    """The library has no thread of its own: the one that sends calls the recovery function."""
    threads: List[int] = []

    def send() -> int:
        with fails_with(EBADF):
            qnx.MsgSend(coid, b"message")
        return threading.get_ident()

    coid = lost(qnx, lambda _coid, _handle: threads.append(threading.get_ident()))
    assert [start(send).result()] == threads


# Every form of sending

_SENT = [b"ques", b"", b"tion"]


def forms() -> Dict[str, Callable[[], Tuple[Any, Any, Callable[[], bytes]]]]:
    """For each form of MsgSend: what is sent, where the reply goes, and how to read that."""

    def buffer() -> Tuple[Any, Callable[[], bytes]]:
        whole = bytearray(10)
        return whole, lambda: bytes(whole)

    def vector() -> Tuple[Any, Callable[[], bytes]]:
        parts = [bytearray(3), bytearray(0), bytearray(7)]
        return parts, lambda: b"".join(parts)

    return {
        "": lambda: (b"".join(_SENT), *buffer()),
        "v": lambda: (_SENT, *vector()),
        "sv": lambda: (b"".join(_SENT), *vector()),
        "vs": lambda: (_SENT, *buffer()),
    }


@checks("B363", "B369", "B362")
@pytest.mark.parametrize("returns", ["", "_r"])
@pytest.mark.parametrize("cancels", ["", "nc"])
@pytest.mark.parametrize("form", ["", "v", "sv", "vs"])
def test_every_form_of_msgsend_recovers(
    qnx: Any, start: Start, peer: Peer, form: str, cancels: str, returns: str
) -> None:
    """Each of the MsgSend family survives the killing of a server that has its message, in either way of failing."""
    first = Server(peer)
    chid = qnx.ChannelCreate(0)
    function = Recovering(reconnecting(qnx, 0, chid))
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, SIDE, 0, function)
    sent, room, read = forms()[form]()
    task = start(getattr(qnx, f"MsgSend{form}{cancels}{returns}"), coid, sent, room)
    assert first.take().data == b"question"
    first.kill()
    assert start(answer, qnx, chid, 6, b"the answer").result().data == b"question"
    assert (task.result(), read()) == (6, b"the answer")
    assert function.count == 1


@checks("B364", "B2")
@pytest.mark.parametrize("cancels", ["", "nc"])
@pytest.mark.parametrize("form", ["", "v", "sv", "vs"])
def test_every_form_that_returns_errors_returns_that_of_the_failed_call(qnx: Any, form: str, cancels: str) -> None:
    """The forms with _r return the negative errno when the recovery function gives up or raises."""
    for function in (Recovering(give_up), Recovering(raising(ValueError("no server")))):
        coid = lost(qnx, function)
        sent, room, _read = forms()[form]()
        assert getattr(qnx, f"MsgSend{form}{cancels}_r")(coid, sent, room) == -EBADF
        assert function.count == 1


@checks("B401", "D11", "B248")
@open_point("D11")
@pytest.mark.parametrize("call", ["MsgSendPulse", "MsgSendPulse_r"])
def test_a_pulse_recovers(qnx: Any, start: Start, peer: Peer, call: str) -> None:
    """A pulse on a connection to a killed server reaches the server that is reconnected to, once."""
    first = Server(peer)
    chid = qnx.ChannelCreate(0)
    function = Recovering(reconnecting(qnx, 0, chid))
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, SIDE, 0, function)
    first.kill()
    assert start(getattr(qnx, call), coid, 10, 5, -77).result() == 0
    assert qnx.MsgSendPulse(coid, 10, 6, 0) == 0
    pulses = [start(take, qnx, chid).result().pulse for _ in range(2)]
    assert [(pulse.code, pulse.value.sival_int) for pulse in pulses] == [(5, -77), (6, 0)]
    assert function.count == 1


@checks("B401", "D11")
@open_point("D11")
def test_a_pulse_that_is_not_recovered_fails(qnx: Any) -> None:
    """When the recovery function gives up, MsgSendPulse fails with EBADF."""
    function = Recovering(give_up)
    coid = lost(qnx, function)
    with fails_with(EBADF):
        qnx.MsgSendPulse(coid, 10, 5, 0)
    assert qnx.MsgSendPulse_r(coid, 10, 5, 0) == -EBADF
    assert function.count == 2


# What a recovery function may do


@checks("B364")
def test_minus_one_says_that_there_is_no_recovery(qnx: Any, start: Start) -> None:
    """When the recovery function returns -1, the caller gets the error of the failed call at once."""
    function = Recovering(give_up)
    coid, task = lost_while_waiting(qnx, start, function)
    assert task.errno() == ESRCH
    assert function.count == 1
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message")
    assert function.count == 2


@checks("B365")
def test_another_number_is_no_recovery(qnx: Any, start: Start) -> None:
    """A function that returns the number of another connection has not recovered, and nothing is sent there."""
    chid = qnx.ChannelCreate(0)
    other = qnx.ConnectAttach(0, 0, chid)
    function = Recovering(lambda _coid: other)
    _coid, task = lost_while_waiting(qnx, start, function)
    assert task.errno() == ESRCH
    assert function.count == 1
    qnx.MsgSendPulse(other, 10, 1, 0)
    assert start(take, qnx, chid).result().pulse.code == 1


class Number:
    """What can serve as an index, but is no int."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@checks("D12")
@open_point("D12")
@pytest.mark.parametrize("returned", [lambda _coid: None, str, float, Number, lambda coid: [coid]])
def test_what_is_no_int_is_no_recovery(qnx: Any, start: Start, returned: Callable[[int], Any]) -> None:
    """None, a string, a number with a point and whatever else is no int count as -1."""
    function = Recovering(returned)
    _coid, task = lost_while_waiting(qnx, start, function)
    assert task.errno() == ESRCH
    assert function.count == 1


@checks("D12")
@open_point("D12")
@pytest.mark.parametrize(
    "raised", [ValueError("no server"), OSError(EBADF, "bad"), OSError(EIO, "broken"), InterruptedError(EINTR, "again")]
)
def test_an_exception_is_no_recovery(qnx: Any, start: Start, raised: Exception) -> None:
    """A recovery function that raises counts as -1: the error of the failed call is raised from the exception."""
    function = Recovering(raising(raised))
    coid, task = lost_while_waiting(qnx, start, function)
    assert task.errno() == ESRCH
    assert task.error().__cause__ is raised
    assert function.count == 1
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message")
    assert function.count == 2


@checks("D12")
@open_point("D12")
@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("call", ["MsgSend", "MsgSend_r"])
def test_an_exception_that_ends_programs_passes_through(
    qnx: Any, start: Start, call: str, raised: Callable[[], BaseException]
) -> None:
    """KeyboardInterrupt and its like come out of the send as they are; the next send can recover."""
    chid = qnx.ChannelCreate(0)
    error = raised()
    function = Recovering(raising(error), reconnecting(qnx, 0, chid))
    coid = lost(qnx, function)
    assert start(getattr(qnx, call), coid, b"first", None).error() is error
    task = start(qnx.MsgSend, coid, b"second", None)
    assert start(answer, qnx, chid, 3).result().data == b"second"
    assert task.result() == 3
    assert function.count == 2


@checks("B370")
def test_the_handle_is_passed_as_it_is(qnx: Any) -> None:
    """Whatever object was attached is handed to the recovery function; without one it is None."""
    for handle in ("text", 3, {"a": [1]}, None):
        function = Recovering(give_up)
        coid = lost(qnx, function, handle)
        assert qnx.MsgSend_r(coid, b"message") == -EBADF
        assert function.calls[0][1] is handle
    function = Recovering(give_up)
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.ha_attach(coid, function)
    qnx.ChannelDestroy(chid)
    assert qnx.MsgSend_r(coid, b"message") == -EBADF
    assert function.calls == [(coid, None)]


# Which errors recover


@checks("B367", "B362")
@pytest.mark.parametrize("error", [EIO, EINTR, ETIMEDOUT, ENXIO, EFAULT, EAGAIN, ENOSYS, EPERM, ENOENT, 4711, 1])
def test_other_errors_go_to_the_caller(qnx: Any, start: Start, server: Server, error: int) -> None:
    """What the server answers by MsgError, EBADF and ESRCH apart, is not recovered from."""
    function = Recovering(give_up)
    coid = qnx.ha_ConnectAttach(0, server.pid, server.chid, SIDE, 0, function)
    task = start(qnx.MsgSend, coid, b"question", None)
    server.refuse(error)
    assert task.errno() == error
    assert function.count == 0


@checks("B368", "B362")
@pytest.mark.parametrize("error", [EBADF, ESRCH])
def test_a_server_can_bring_about_a_recovery(qnx: Any, start: Start, server: Server, error: int) -> None:
    """MsgError(EBADF) and MsgError(ESRCH) are taken for the loss of the server, which lives."""
    chid = qnx.ChannelCreate(0)
    function = Recovering(reconnecting(qnx, 0, chid))
    coid = qnx.ha_ConnectAttach(0, server.pid, server.chid, SIDE, 0, function)
    task = start(qnx.MsgSend, coid, b"question", None)
    server.refuse(error)
    assert start(answer, qnx, chid, 2).result().data == b"question"
    assert task.result() == 2
    assert function.count == 1


@checks("B368", "B363")
def test_a_recovery_function_may_find_nothing_to_repair(qnx: Any, start: Start, server: Server) -> None:
    """If it just returns the number, the message is sent again on the same connection."""
    function = Recovering(lambda coid: coid)
    coid = qnx.ha_ConnectAttach(0, server.pid, server.chid, SIDE, 0, function)
    task = start(qnx.MsgSend, coid, b"question", None)
    server.refuse(EBADF)
    assert server.answer(2).data == b"question"
    assert task.result() == 2
    assert function.count == 1


def send_for_a_moment(qnx: Any, coid: int) -> int:
    """Send a message, and give up very soon."""
    qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, 1_000_000)
    status: int = qnx.MsgSend(coid, b"message")
    return status


@checks("B367", "B173")
def test_a_timeout_is_no_loss(qnx: Any, start: Start) -> None:
    """A send that times out fails with ETIMEDOUT and does not recover."""
    function = Recovering(give_up)
    coid = qnx.ha_ConnectAttach(0, 0, qnx.ChannelCreate(0), SIDE, 0, function)
    assert start(send_for_a_moment, qnx, coid).errno() == ETIMEDOUT
    assert function.count == 0


def send_under_signals(qnx: Any, pid: int, chid: int) -> Tuple[int, int]:
    """In another process: send on an HA-aware connection; the negative errno, and the calls of the function."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    function = Recovering(give_up)
    coid = qnx.ha_ConnectAttach(0, pid, chid, SIDE, 0, function)
    return qnx.MsgSend_r(coid, b"message"), function.count


@checks("B367", "B173")
def test_a_signal_is_no_loss(qnx: Any, start: Start, peer: Peer) -> None:
    """A send that a signal handler interrupts fails with EINTR and does not recover."""
    chid = qnx.ChannelCreate(0)
    sending = peer.begin(send_under_signals, os.getpid(), chid)
    start(take, qnx, chid).result()
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert sending.result() == (-EINTR, 0)


@checks("B366")
def test_an_ordinary_connection_does_not_recover(qnx: Any) -> None:
    """A connection that is not HA-aware fails, though another one of this process is."""
    function = Recovering(give_up)
    lost(qnx, function)
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.ChannelDestroy(chid)
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message")
    assert function.count == 0


@checks("B363", "B367")
def test_the_result_of_the_new_try_counts(qnx: Any, start: Start) -> None:
    """When the new server answers by MsgError, the caller gets that error, and there is no further recovery."""
    chid = qnx.ChannelCreate(0)
    function = Recovering(reconnecting(qnx, 0, chid))
    coid = lost(qnx, function)
    task = start(qnx.MsgSend, coid, b"question", None)
    start(refuse, qnx, chid, EIO).result()
    assert task.errno() == EIO
    assert function.count == 1


# ha_reopen and ha_ReConnectAttach


@checks("B384", "B342", "D6")
@open_point("D6")
def test_ha_reopen_opens_anew_under_the_old_number(
    qnx: Any, start: Start, peer: Peer, lasting: Peer, name: str
) -> None:
    """The new server gets _IO_CONNECT and then the message, no _IO_DUP, though a lower number is free."""
    first, second = Server(peer, name), Server(lasting, f"{name}-2")
    low = os.open(os.devnull, os.O_RDONLY)
    function = Recovering(lambda coid: qnx.ha_reopen(coid, second.path, os.O_RDWR))
    fd = ha_opened(qnx, start, first, function)
    os.close(low)
    first.kill()
    task = start(qnx.MsgSend, fd, b"question", None)
    seen = [second.answer(), second.answer(4)]
    assert [(message.type, message.coid) for message in seen] == [(IO_CONNECT, fd), (0, fd)]
    assert seen[1].data == b"question"
    assert task.result() == 4
    assert next_number() <= low


@checks("B385", "B386", "B387", "D6")
@open_point("D6")
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_ha_reconnectattach_attaches_under_the_old_number(qnx: Any, start: Start, index: int) -> None:
    """The connection keeps its number, though lower ones are free."""
    chid = qnx.ChannelCreate(0)
    lower = [qnx.ConnectAttach(0, 0, chid, index) for _ in range(3)]
    function = Recovering(reconnecting(qnx, 0, chid))
    coid = lost(qnx, function, None, index)
    assert coid > max(lower)
    for number in lower:
        qnx.ConnectDetach(number)
    task = start(qnx.MsgSend, coid, b"question", None)
    seen = start(answer, qnx, chid, 4).result()
    assert (seen.data, seen.coid) == (b"question", coid)
    assert task.result() == 4


@checks("D6")
@open_point("D6")
def test_a_side_channel_is_not_reopened(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """Open gives descriptors, so ha_reopen of what name_open made is EBADF, and the connection stays as it is."""
    server = Server(peer, name)
    coid = qnx.name_open(name)
    with fails_with(EBADF):
        qnx.ha_reopen(coid, path_of(name), os.O_RDWR)
    sending = start(qnx.MsgSend, coid, b"question", None)
    server.answer(7)
    assert sending.result() == 7


@checks("B384", "B385")
@pytest.mark.parametrize("how", ["ha_reopen", "ha_ReConnectAttach"])
def test_the_old_connection_is_closed(qnx: Any, start: Start, peer: Peer, lasting: Peer, name: str, how: str) -> None:
    """A server that is alive, but is recovered from, sees its client go."""
    first, second = Server(peer, name), lasting
    chid = second.run(attach_both, f"{name}-2")
    second.start(serve, chid)
    deeds: Dict[str, ForTheTest] = {
        "ha_reopen": lambda coid: qnx.ha_reopen(coid, path_of(f"{name}-2"), os.O_RDWR),
        "ha_ReConnectAttach": reconnecting(qnx, second.pid, chid),
    }
    fd = ha_opened(qnx, start, first, Recovering(deeds[how]))
    task = start(qnx.MsgSend, fd, b"question", None)
    first.refuse(EBADF)
    assert task.result() == second.pid
    assert first.take().pulse.code == PULSE_CODE_DISCONNECT


def noting_errors(errors: List[int], *deeds: Callable[[], Any]) -> Any:
    """Do one thing after the other until one gives a number, and note the errno of each failure."""
    for deed in deeds:
        try:
            number = deed()
        except OSError as error:
            errors.append(error.errno or 0)
        else:
            if number is not None:
                return number
    return -1


@checks("D6", "B384")
@open_point("D6")
def test_ha_reopen_can_be_tried_again_at_once(qnx: Any, start: Start, peer: Peer, lasting: Peer, name: str) -> None:
    """As long as nobody has the name it is ENOENT; within the same recovery the next attempt succeeds."""
    first, second = Server(peer, name), lasting
    path = first.path
    errors: List[int] = []

    def reopen(coid: int) -> Any:
        first.wait_until_gone()
        return noting_errors(
            errors,
            lambda: qnx.ha_reopen(coid, path, os.O_RDWR),
            lambda: take_over(second, name),
            lambda: qnx.ha_reopen(coid, path, os.O_RDWR),
        )

    function = Recovering(reopen)
    fd = ha_opened(qnx, start, first, function)
    task = lose(start, first, "reply-blocked", qnx.MsgSend, fd, b"question", None)
    assert task.result() == second.pid
    assert errors == [ENOENT]
    assert function.count == 1


@checks("D6", "B384")
@open_point("D6")
def test_ha_reopen_can_be_tried_again_at_the_next_call(
    qnx: Any, start: Start, peer: Peer, lasting: Peer, name: str
) -> None:
    """After a recovery that failed, the connection is dead and keeps its number; the next send recovers it."""
    first, second = Server(peer, name), lasting
    path = first.path

    def reopen(coid: int) -> Any:
        first.wait_until_gone()
        return qnx.ha_reopen(coid, path, os.O_RDWR)

    function = Recovering(reopen)
    fd = ha_opened(qnx, start, first, function)
    task = lose(start, first, "reply-blocked", qnx.MsgSend, fd, b"question", None)
    error = task.error()
    assert (task.errno(), getattr(error.__cause__, "errno", None)) == (ESRCH, ENOENT)
    assert next_number() != fd
    assert qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), 0) != fd
    take_over(second, name)
    assert start(qnx.MsgSend, fd, b"question", None).result() == second.pid
    assert function.count == 2


@checks("D6", "B385")
@open_point("D6")
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_ha_reconnectattach_can_be_tried_again(qnx: Any, start: Start, index: int) -> None:
    """ESRCH for a channel that does not exist; the number is kept, for the same recovery and for the next one."""
    errors: List[int] = []
    chid = qnx.ChannelCreate(0)

    def try_twice(coid: int) -> Any:
        unknown = reconnecting(qnx, 0, chid + 1000)
        return noting_errors(errors, lambda: unknown(coid), lambda: unknown(coid))

    function = Recovering(try_twice, reconnecting(qnx, 0, chid))
    coid = lost(qnx, function, None, index)
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"first")
    assert errors == [ESRCH, ESRCH]
    assert qnx.ConnectAttach(0, 0, chid, index) != coid
    task = start(qnx.MsgSend, coid, b"second", None)
    seen = start(answer, qnx, chid, 4).result()
    assert (seen.data, seen.coid, task.result()) == (b"second", coid, 4)


@checks("D6")
@open_point("D6")
def test_a_connection_that_was_not_recovered_is_dead(qnx: Any, start: Start, server: Server) -> None:
    """A failed ha_ReConnectAttach has closed the old connection, even if its server is alive: sends get EBADF."""
    function = Recovering(reconnecting(qnx, 0, 9999), give_up)
    coid = qnx.ha_ConnectAttach(0, server.pid, server.chid, SIDE, 0, function)
    task = start(qnx.MsgSend, coid, b"question", None)
    server.refuse(ESRCH)
    assert task.errno() == ESRCH
    assert server.take().pulse.code == PULSE_CODE_DISCONNECT
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message")
    assert qnx.ha_ConnectDetach(coid) == 0


@checks("D6", "B68", "B336")
@open_point("D6")
def test_a_connection_that_was_not_recovered_is_described_as_dead(qnx: Any, start: Start, server: Server) -> None:
    """After a failed ha_ReConnectAttach, ConnectServerInfo shows NTO_COF_DEAD, and dup fails with ESRCH."""
    qnx.ConnectAttach(0, server.pid, server.chid)
    fd = qnx.ha_ConnectAttach(0, server.pid, server.chid, 0, 0, Recovering(reconnecting(qnx, 0, 9999)))
    task = start(qnx.MsgSend, fd, b"question", None)
    server.refuse(EBADF)
    assert task.errno() == EBADF
    info = MessageInfo()
    assert qnx.ConnectServerInfo(0, fd, info) == fd
    assert info.flags & NTO_COF_DEAD
    assert start(qnx.dup, fd).errno() == ESRCH


@checks("D6", "B384")
@open_point("D6")
def test_a_new_server_may_refuse_the_first_attempt(
    qnx: Any, start: Start, peer: Peer, lasting: Peer, name: str
) -> None:
    """The recovery function sees the error that the new server answers to _IO_CONNECT, and may try again."""
    first, second = Server(peer, name), Server(lasting, f"{name}-2")
    errors: List[int] = []

    def reopen(coid: int) -> Any:
        again = lambda: qnx.ha_reopen(coid, second.path, os.O_RDWR)  # noqa: E731  # tried twice
        return noting_errors(errors, again, again)

    fd = ha_opened(qnx, start, first, Recovering(reopen))
    task = lose(start, first, "reply-blocked", qnx.MsgSend, fd, b"question", None)
    assert second.refuse(EACCES).type == IO_CONNECT
    assert second.take().pulse.code == PULSE_CODE_DISCONNECT
    assert second.answer().type == IO_CONNECT
    assert second.answer(6).data == b"question"
    assert task.result() == 6
    assert errors == [EACCES]


@checks("D6", "B384", "B316")
@open_point("D6")
@pytest.mark.parametrize("taken", [False, True], ids=["send-blocked", "reply-blocked"])
def test_a_new_server_may_die_before_it_answers_the_open(
    qnx: Any, start: Start, start_peer: StartPeer, lasting: Peer, name: str, taken: bool
) -> None:
    """ha_reopen fails with ESRCH when the new server is killed with the _IO_CONNECT message; a third one takes over."""
    first, third = Server(start_peer(), name), lasting
    path, successor = first.path, start_peer()
    second_is_up = threading.Event()
    errors: List[int] = []

    def reopen(coid: int) -> Any:
        first.wait_until_gone()
        second.append(Server(successor, name))
        second_is_up.set()
        return noting_errors(
            errors,
            lambda: qnx.ha_reopen(coid, path, os.O_RDWR),
            second[0].wait_until_gone,
            lambda: take_over(third, name),
            lambda: qnx.ha_reopen(coid, path, os.O_RDWR),
        )

    second: List[Server] = []
    function = Recovering(reopen)
    fd = ha_opened(qnx, start, first, function)
    task = lose(start, first, "reply-blocked", qnx.MsgSend, fd, b"question", None)
    assert second_is_up.wait(DEADLINE)
    if taken:
        assert second[0].take().type == IO_CONNECT
    else:
        task.wait_until_blocked()
    second[0].kill()
    assert task.result() == third.pid
    assert errors == [ESRCH]
    assert function.count == 1


def send_on_a_stolen_number(qnx: Any, start: Start, fd: int, path: Path) -> None:
    """Let a file have the number of a connection, and send there in vain."""
    os.close(fd)
    assert os.open(path, os.O_RDWR | os.O_CREAT) == fd
    with fails_with(EBADF):
        start(qnx.MsgSend, fd, b"message", None).result()


@checks("D6", "D17", "B384", "B385")
@open_point("D6")
@pytest.mark.parametrize("how", ["ha_reopen", "ha_ReConnectAttach", "ha_reopen of a file"])
def test_a_number_that_is_somebody_elses_is_left_alone(
    qnx: Any, start: Start, peer: Peer, lasting: Peer, name: str, tmp_path: Path, how: str
) -> None:
    """If the number belongs to a file by then, ha_reopen and ha_ReConnectAttach fail with EBADF and do not touch it."""
    first, second = Server(peer, name), Server(lasting, f"{name}-2")
    chid = qnx.ChannelCreate(0)
    deeds: Dict[str, ForTheTest] = {
        "ha_reopen": lambda coid: qnx.ha_reopen(coid, second.path, os.O_RDWR),
        "ha_ReConnectAttach": reconnecting(qnx, 0, chid),
        "ha_reopen of a file": lambda coid: qnx.ha_reopen(coid, tmp_path / "other", os.O_RDWR | os.O_CREAT),
    }
    errors: List[int] = []
    function = Recovering(lambda coid: noting_errors(errors, lambda: deeds[how](coid)))
    fd = ha_opened(qnx, start, first, function)
    if how == "ha_reopen":
        second.peer.start(serve, second.chid)
    send_on_a_stolen_number(qnx, start, fd, tmp_path / "file")
    assert errors == [EBADF]
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b""


@checks("D6")
@open_point("D6")
def test_a_connection_that_is_made_in_vain_is_closed(
    qnx: Any, start: Start, peer: Peer, server: Server, name: str, tmp_path: Path
) -> None:
    """When ha_ReConnectAttach cannot have the number, no connection is left: the last one that goes is the test's."""
    first, second = Server(peer, name), server
    errors: List[int] = []
    function = Recovering(
        lambda coid: noting_errors(errors, lambda: reconnecting(qnx, second.pid, second.chid)(coid)),
    )
    fd = ha_opened(qnx, start, first, function)
    send_on_a_stolen_number(qnx, start, fd, tmp_path / "file")
    assert errors == [EBADF]
    coid = qnx.ConnectAttach(0, second.pid, second.chid)
    task = start(qnx.MsgSend, coid, b"message", None)
    seen = second.take()
    while not seen.rcvid:  # The connection that was made in vain may have come and gone.
        assert seen.pulse.code == PULSE_CODE_DISCONNECT
        seen = second.take()
    second.reply(seen)
    task.result()
    qnx.ConnectDetach(coid)
    pulse = second.take().pulse
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, seen.scoid)
    os.close(fd)


# Inside a recovery function


@checks("B400", "D10")
@open_point("D10")
@pytest.mark.parametrize(
    "call",
    [
        lambda qnx, coid: qnx.MsgSend(coid, b"inside"),
        lambda qnx, coid: qnx.MsgSendvnc(coid, [b"inside"], None),
        lambda qnx, coid: qnx.MsgSendPulse(coid, 10, 1, 1),
    ],
    ids=["MsgSend", "MsgSendvnc", "MsgSendPulse"],
)
def test_inside_its_recovery_function_a_connection_is_plain(
    qnx: Any, start: Start, call: Callable[[Any, int], Any]
) -> None:
    """What a recovery function sends on the lost connection fails and does not recover in its turn."""
    chid = qnx.ChannelCreate(0)
    errors: List[int] = []

    def recover(coid: int) -> Any:
        noting_errors(errors, lambda: call(qnx, coid))
        return reconnecting(qnx, 0, chid)(coid)

    function = Recovering(recover)
    coid = lost(qnx, function)
    task = start(qnx.MsgSend, coid, b"question", None)
    assert start(answer, qnx, chid, 5).result().data == b"question"
    assert task.result() == 5
    assert errors == [EBADF]
    assert function.count == 1


@checks("D10")
@open_point("D10")
def test_inside_its_recovery_function_a_duplicate_is_plain(
    qnx: Any, start: Start, peer: Peer, server: Server, name: str
) -> None:
    """What a recovery function sends on a duplicate of the lost connection does not recover either."""
    first, second = Server(peer, name), server
    errors: List[int] = []

    def recover(coid: int) -> Any:
        noting_errors(errors, lambda: qnx.MsgSend(duplicate, b"inside"))
        return reconnecting(qnx, second.pid, second.chid)(coid)

    function = Recovering(recover)
    fd = ha_opened(qnx, start, first, function)
    task = start(qnx.ha_dup, fd)
    first.answer()
    duplicate = task.result()
    task = lose(start, first, "reply-blocked", qnx.MsgSend, fd, b"question", None)
    assert second.answer(5).data == b"question"
    assert task.result() == 5
    assert errors == [EBADF]
    assert function.calls == [(fd, None)]


@checks("D10", "B363")
@open_point("D10")
def test_a_recovery_function_may_talk_to_the_new_server(qnx: Any, start: Start) -> None:
    """After it has reconnected, a recovery function can log in again on the connection; then the message is sent."""
    chid = qnx.ChannelCreate(0)
    buffer = bytearray(7)

    def recover(coid: int) -> Any:
        reconnecting(qnx, 0, chid)(coid)
        assert qnx.MsgSend(coid, b"login", buffer) == 1
        return coid

    coid = lost(qnx, Recovering(recover))
    task = start(qnx.MsgSend, coid, b"question", None)
    assert start(answer, qnx, chid, 1, b"welcome").result().data == b"login"
    assert start(answer, qnx, chid, 2).result().data == b"question"
    assert (task.result(), bytes(buffer)) == (2, b"welcome")


@checks("D10")
@open_point("D10")
def test_inside_a_recovery_function_other_connections_recover(qnx: Any, start: Start) -> None:
    """A recovery function uses another HA-aware connection whose server is gone, too: that one recovers first."""
    chid = qnx.ChannelCreate(0)
    inner = Recovering(reconnecting(qnx, 0, chid))
    directory = lost(qnx, inner)

    def recover(coid: int) -> Any:
        assert qnx.MsgSend(directory, b"where is my server?") == 1
        return reconnecting(qnx, 0, chid)(coid)

    outer = Recovering(recover)
    coid = lost(qnx, outer)
    task = start(qnx.MsgSend, coid, b"question", None)
    assert start(answer, qnx, chid, 1).result().data == b"where is my server?"
    assert start(answer, qnx, chid, 2).result().data == b"question"
    assert task.result() == 2
    assert (outer.calls, inner.calls) == ([(coid, None)], [(directory, None)])


@checks("D10")
@open_point("D10")
def test_two_connections_that_need_each_other_do_not_recurse(qnx: Any, start: Start) -> None:
    """Inside the inner recovery, a call on the outer connection is plain still: it fails, and all comes to an end."""
    errors: List[int] = []

    def use_second(_coid: int) -> int:
        noting_errors(errors, lambda: qnx.MsgSend(second, b"from the first"))
        return -1

    def use_first(_coid: int) -> int:
        noting_errors(errors, lambda: qnx.MsgSend(first, b"from the second"))
        return -1

    functions = Recovering(use_second), Recovering(use_first)
    first, second = (lost(qnx, function) for function in functions)
    assert start(qnx.MsgSend_r, first, b"message").result() == -EBADF
    assert errors == [EBADF, EBADF]
    assert [function.count for function in functions] == [1, 1]


@checks("D10", "B390", "B374")
@open_point("D10")
@pytest.mark.parametrize("how", ["suspend", "detach", "replace"])
def test_a_recovery_function_may_change_its_own_attachment(qnx: Any, start: Start, how: str) -> None:
    """A recovery function may suspend, detach or replace itself: it is not called again."""

    def recover(coid: int) -> int:
        if how == "suspend":
            qnx.ha_connection_ctrl(coid, HA_RECOVERY_SUSPEND)
        elif how == "detach":
            qnx.ha_detach(coid)
        else:
            qnx.ha_attach(coid, successor, None, HAREPLACERECOVERYFN)
        return -1

    successor = Recovering(give_up)
    function = Recovering(recover)
    coid = lost(qnx, function)
    for _ in range(2):
        assert start(qnx.MsgSend_r, coid, b"message").result() == -EBADF
    assert function.count == 1
    assert successor.count == (1 if how == "replace" else 0)
