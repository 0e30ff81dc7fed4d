"""Recovery in programs with threads: one recovery at a time, and only as many as there are losses."""

import fcntl
import os
import sys
import threading
from errno import EBADF, ESRCH
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from ha_qnx import (
    HA_RECOVERY_ICOUNT,
    HA_RECOVERY_RESET_ACOUNT,
    HAREPLACERECOVERYFN,
    IO_DUP,
    NTO_CHF_UNBLOCK,
    NTO_SIDE_CHANNEL,
    PULSE_CODE_UNBLOCK,
)

from .expect import fails_with
from .marks import checks, open_point
from .servers import Server, Start, StartPeer, answer, take
from .test_recovery import LocalServer, Recovering, create_and_serve, give_up, ha_opened, lost, reconnecting
from .waiting import DEADLINE

SIDE = NTO_SIDE_CHANNEL
THREADS = 10
_QUESTIONS_MAX = 100_000


def question(number: int) -> bytes:
    """What a thread sends."""
    return b"question %d" % number


def ask(qnx: Any, coid: int, number: int) -> Tuple[int, bytes]:
    """Send a question of one's own; the status, and the reply."""
    buffer = bytearray(20)
    status = qnx.MsgSend(coid, question(number), buffer)
    return status, bytes(buffer).rstrip(b"\0")


class Gate:
    """A recovery function that waits inside until the test lets it go on."""

    def __init__(self, deed: Callable[[int], Any]) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.function = Recovering(self._wait)
        self._deed = deed

    def _wait(self, coid: int) -> Any:
        self.entered.set()
        assert self.opened.wait(DEADLINE), "the gate stays closed"
        return self._deed(coid)

    @property
    def count(self) -> int:
        """How often the recovery function was called."""
        return self.function.count

    def wait_until_inside(self) -> None:
        """Wait until a thread is inside the recovery function."""
        assert self.entered.wait(DEADLINE), "nobody recovers"


# One recovery for all


@checks("B399", "D9")
@open_point("D9")
@pytest.mark.parametrize("received", [0, 5, THREADS], ids=["send-blocked", "mixed", "reply-blocked"])
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_one_recovery_serves_all_threads(
    qnx: Any, start: Start, start_peer: StartPeer, received: int, index: int
) -> None:
    """Ten threads have their requests at a server that is killed: one recovery, ten replies, each thread its own."""
    first, second = Server(start_peer()), start_peer()
    chid = second.run(create_and_serve)
    function = Recovering(reconnecting(qnx, second.pid, chid))
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, index, 0, function)
    tasks = [start(ask, qnx, coid, number) for number in range(THREADS)]
    taken = {first.take().data for _ in range(received)}
    for task in tasks:
        task.wait_until_blocked()
    assert len(taken) == received
    first.kill()
    assert [task.result() for task in tasks] == [(second.pid, question(number)) for number in range(THREADS)]
    assert function.count == 1


@checks("B399", "D9", "B380")
@open_point("D9")
def test_duplicates_are_recovered_once_each(qnx: Any, start: Start, start_peer: StartPeer, name: str) -> None:
    """Ten threads on a descriptor and its duplicate: each of the two is reconnected once, and all are answered."""
    first, second = Server(start_peer(), name), start_peer()
    chid = second.run(create_and_serve)
    function = Recovering(reconnecting(qnx, second.pid, chid))
    fd = ha_opened(qnx, start, first, function)
    task = start(qnx.ha_dup, fd)
    assert first.answer().type == IO_DUP
    duplicate = task.result()
    tasks = [start(ask, qnx, (fd, duplicate)[number % 2], number) for number in range(THREADS)]
    for task in tasks:
        task.wait_until_blocked()
    first.kill()
    assert [task.result() for task in tasks] == [(second.pid, question(number)) for number in range(THREADS)]
    assert sorted(coid for coid, _handle in function.calls) == sorted((fd, duplicate))


@checks("B399", "D9")
@open_point("D9")
def test_a_thread_that_fails_during_a_recovery_waits_for_it(qnx: Any, start: Start) -> None:
    """A thread whose send fails while another one recovers does not recover, too: it sends again after that."""
    chid = qnx.ChannelCreate(0)
    gate = Gate(reconnecting(qnx, 0, chid))
    coid = lost(qnx, gate.function)
    first = start(ask, qnx, coid, 1)
    gate.wait_until_inside()
    second = start(ask, qnx, coid, 2).wait_until_blocked()
    assert gate.count == 1
    gate.opened.set()
    seen = {start(answer, qnx, chid, 5).result().data for _ in range(2)}
    assert seen == {question(1), question(2)}
    assert (first.result()[0], second.result()[0]) == (5, 5)
    assert gate.count == 1


@checks("B399", "D9")
@open_point("D9")
def test_a_late_failure_does_not_recover_again(qnx: Any, start: Start, start_peer: StartPeer) -> None:
    """A thread that learns of the loss after another one has recovered from it sends again, without a recovery."""
    # With NTO_CHF_UNBLOCK a client goes on waiting on the old connection until the old server answers (B58).
    first, second = Server(start_peer(), flags=NTO_CHF_UNBLOCK), start_peer()
    chid = second.run(create_and_serve)
    function = Recovering(reconnecting(qnx, second.pid, chid))
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, SIDE, 0, function)
    late = start(ask, qnx, coid, 1)
    assert first.take().data == question(1)
    early = start(ask, qnx, coid, 2)
    assert first.refuse(EBADF).data == question(2)
    assert early.result() == (second.pid, question(2))
    assert first.take().pulse.code == PULSE_CODE_UNBLOCK
    assert not late.done
    assert function.count == 1
    first.kill()
    assert late.result() == (second.pid, question(1))
    assert function.count == 1


@checks("D9", "B397")
@open_point("D9")
def test_a_loss_after_a_recovery_is_recovered_from_anew(qnx: Any, start: Start, start_peer: StartPeer) -> None:
    """Ten threads lose one server after the other with their requests: as many recoveries as there were losses."""
    servers, last = [Server(start_peer()) for _ in range(3)], start_peer()
    chid = last.run(create_and_serve)
    following = [(server.pid, server.chid) for server in servers[1:]] + [(last.pid, chid)]
    function = Recovering(*(reconnecting(qnx, *address) for address in following))
    coid = qnx.ha_ConnectAttach(0, servers[0].pid, servers[0].chid, SIDE, 0, function)
    tasks = [start(ask, qnx, coid, number) for number in range(THREADS)]
    for losses, server in enumerate(servers):
        received = {server.take().data for _ in range(THREADS)}
        assert received == {question(number) for number in range(THREADS)}
        assert function.count == losses
        server.kill()
    assert [task.result() for task in tasks] == [(last.pid, question(number)) for number in range(THREADS)]
    assert function.count == 3


@checks("B401", "D9", "D11")
@open_point("D9", "D11")
def test_pulses_and_messages_share_a_recovery(qnx: Any, start: Start) -> None:
    """Threads that send pulses and messages on a lost connection: one recovery, and everything arrives once."""
    chid = qnx.ChannelCreate(0)
    gate = Gate(reconnecting(qnx, 0, chid))
    coid = lost(qnx, gate.function)
    pulses = [start(qnx.MsgSendPulse, coid, 10, code, 0) for code in range(5)]
    messages = [start(ask, qnx, coid, number) for number in range(5)]
    for task in (*pulses, *messages):
        gate.wait_until_inside()
        task.wait_until_blocked()
    gate.opened.set()
    codes, questions = [], []
    for _ in range(10):
        seen = start(take, qnx, chid).result()
        if seen.rcvid:
            questions.append(seen.data)
            qnx.MsgReply(seen.rcvid, 0)
        else:
            codes.append(seen.pulse.code)
    assert sorted(codes) == list(range(5))
    assert sorted(questions) == [question(number) for number in range(5)]
    assert [task.result() for task in pulses] == [0] * 5
    assert [task.result()[0] for task in messages] == [0] * 5
    assert gate.count == 1


# A recovery that fails


@checks("D9", "B364")
@open_point("D9")
def test_threads_that_fail_together_share_a_recovery_that_fails(qnx: Any, start: Start, start_peer: StartPeer) -> None:
    """When the function gives up, it has done so for all of them: it is called once, and each gets its own error."""
    first = Server(start_peer())
    gate = Gate(give_up)
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, SIDE, 0, gate.function)
    tasks = [start(ask, qnx, coid, number) for number in range(THREADS)]
    for task in tasks:
        task.wait_until_blocked()
    first.kill()
    gate.wait_until_inside()
    for task in tasks:
        task.wait_until_blocked()
    assert gate.count == 1
    gate.opened.set()
    assert [task.errno() for task in tasks] == [ESRCH] * THREADS
    assert gate.count == 1
    with fails_with(EBADF):
        ask(qnx, coid, 0)
    assert gate.count == 2, "a call that is made later is a failure of its own"


@checks("D8", "D9", "B389")
@open_point("D8", "D9")
def test_a_limit_is_for_all_threads_together(qnx: Any, start: Start, start_peer: StartPeer) -> None:
    """With an ICOUNT of 2, ten threads that fail at the same time and then again call the function twice."""
    first = Server(start_peer())
    function = Recovering(give_up)
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, SIDE, 0, function)
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 2)
    tasks = [start(ask, qnx, coid, number) for number in range(THREADS)]
    for task in tasks:
        task.wait_until_blocked()
    first.kill()
    assert [task.errno() for task in tasks] == [ESRCH] * THREADS
    for _time in range(3):
        with fails_with(EBADF):
            ask(qnx, coid, 0)
    assert function.count == 2


@checks("D9", "D12")
@open_point("D9", "D12")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_a_recovery_does_not_lock_others_out(
    qnx: Any, start: Start, error: Callable[[], BaseException]
) -> None:
    """A thread that waits for a recovery which ends in an exception fails with it; the next call recovers."""
    chid = qnx.ChannelCreate(0)
    raised = error()

    def fail_once(coid: int) -> Any:
        if gate.count == 1:
            raise raised
        return reconnecting(qnx, 0, chid)(coid)

    gate = Gate(fail_once)
    coid = lost(qnx, gate.function)
    first = start(ask, qnx, coid, 1)
    gate.wait_until_inside()
    second = start(ask, qnx, coid, 2).wait_until_blocked()
    gate.opened.set()
    assert raised in (first.error(), first.error().__cause__)
    assert second.errno() == EBADF
    third = start(ask, qnx, coid, 3)
    assert start(answer, qnx, chid, 4).result().data == question(3)
    assert third.result()[0] == 4
    assert gate.count == 2


# Nobody waits who need not


@checks("D9")
@open_point("D9")
def test_other_connections_do_not_wait_for_a_recovery(qnx: Any, start: Start) -> None:
    """While one connection recovers, another HA-aware one is used, and lost, and recovered."""
    chid = qnx.ChannelCreate(0)
    gate = Gate(reconnecting(qnx, 0, chid))
    slow = lost(qnx, gate.function)
    waiting = start(ask, qnx, slow, 1)
    gate.wait_until_inside()
    function = Recovering(reconnecting(qnx, 0, chid))
    other = lost(qnx, function)
    for _ in range(2):
        task = start(ask, qnx, other, 2)
        assert start(answer, qnx, chid, 3).result().data == question(2)
        assert task.result()[0] == 3
    assert function.count == 1
    assert not waiting.done
    gate.opened.set()
    start(answer, qnx, chid, 3).result()
    assert waiting.result()[0] == 3


@checks("D9", "B398")
@open_point("D9")
def test_attachments_can_be_changed_during_a_recovery(qnx: Any, start: Start) -> None:
    """While a connection recovers, other threads attach, detach and control connections, this one included."""
    chid = qnx.ChannelCreate(0)
    gate = Gate(reconnecting(qnx, 0, chid))
    coid = lost(qnx, gate.function)
    waiting = start(ask, qnx, coid, 1)
    gate.wait_until_inside()
    assert start(qnx.ha_connection_ctrl, coid, HA_RECOVERY_RESET_ACOUNT).result() == 0
    assert start(qnx.ha_attach, coid, Recovering(give_up), None, HAREPLACERECOVERYFN).result() == 0
    other = start(qnx.ha_ConnectAttach, 0, 0, chid, SIDE, 0, Recovering(give_up)).result()
    assert start(qnx.ha_ConnectDetach, other).result() == 0
    gate.opened.set()
    assert start(answer, qnx, chid, 3).result().data == question(1)
    assert waiting.result()[0] == 3


def use_attachments(qnx: Any, chid: int, rounds: int) -> int:
    """Make, change and end connections of one's own."""
    for _round in range(rounds):
        function = Recovering(give_up)
        coid = qnx.ha_ConnectAttach(0, 0, chid, SIDE, 0, function)
        qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 1)
        qnx.ha_attach(coid, function, None, HAREPLACERECOVERYFN)
        qnx.ha_detach(coid)
        qnx.ha_attach(coid, function)
        qnx.MsgSendPulse(coid, 10, 1, 1)
        qnx.ha_ConnectDetach(coid)
    return rounds


@checks("B374", "D9")
@open_point("D9")
def test_a_connection_that_was_detached_meanwhile_is_not_recovered(qnx: Any, start: Start) -> None:
    """A thread that waits to recover a connection fails, without a call, when another thread detaches it by then."""
    gate = Gate(give_up)
    coid = lost(qnx, gate.function)
    first = start(ask, qnx, coid, 1)
    gate.wait_until_inside()
    second = start(ask, qnx, coid, 2).wait_until_blocked()
    assert start(qnx.ha_detach, coid).result() == 0
    gate.opened.set()
    assert (first.errno(), second.errno()) == (EBADF, EBADF)
    assert gate.count == 1


@checks("B398")
def test_attachments_can_be_made_and_ended_by_many_threads(qnx: Any, start: Start) -> None:
    """Threads that attach, change, detach and close connections of their own do not get in each other's way."""
    chid = qnx.ChannelCreate(0)
    tasks = [start(use_attachments, qnx, chid, 40) for _ in range(8)]
    assert [task.result() for task in tasks] == [40] * 8


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@checks("B22", "B162", "B345")
@pytest.mark.usefixtures("restless_threads")
def test_no_message_goes_out_once_a_channel_is_destroyed(qnx: Any) -> None:
    """An idle connection is EBADF once ChannelDestroy returns, though a thread may just have answered on it."""
    for _round in range(300):
        server = LocalServer(qnx)
        coid = qnx.ConnectAttach(0, 0, server.chid)
        assert qnx.MsgSend(coid, b"message", bytearray(10)) > 0
        server.destroy()
        assert qnx.MsgSend_r(coid, b"message", bytearray(10)) == -EBADF
        server.end()
        qnx.ConnectDetach(coid)


# All at once


def ask_often(qnx: Any, coid: int, thread: int, enough: threading.Event) -> List[Tuple[int, bytes]]:
    """Ask one question after the other, 300 at least, until it is enough; and the last one after that."""
    replies = []
    for number in range(_QUESTIONS_MAX):
        is_last = number >= 299 and enough.is_set()
        replies.append(ask(qnx, coid, _QUESTIONS_MAX * thread + number))
        if is_last:
            break
    return replies


@checks("B363", "B402", "D9")
@open_point("D9")
def test_busy_threads_survive_one_server_after_the_other(qnx: Any, start: Start, start_peer: StartPeer) -> None:
    """Ten threads that send all the time see three servers killed: every question is answered, by three recoveries."""
    servers = [start_peer() for _ in range(4)]
    addresses = [(server.pid, server.run(create_and_serve)) for server in servers]
    following, recoveries = addresses[1:], threading.Semaphore(0)

    def recover(coid: int) -> Any:
        number = reconnecting(qnx, *following.pop(0))(coid)
        recoveries.release()
        return number

    function = Recovering(recover)
    coid = qnx.ha_ConnectAttach(0, *addresses[0], SIDE, 0, function)
    enough = threading.Event()
    tasks = [start(ask_often, qnx, coid, thread, enough) for thread in range(THREADS)]
    for server in servers[:3]:
        server.kill()
        assert recoveries.acquire(timeout=DEADLINE), "nobody recovers"
        assert not any(task.done for task in tasks)
    enough.set()
    for thread, task in enumerate(tasks):
        replies = task.result()
        numbers = range(_QUESTIONS_MAX * thread, _QUESTIONS_MAX * thread + len(replies))
        assert [reply for _status, reply in replies] == [question(number) for number in numbers]
        assert len(replies) >= 300
        assert {status for status, _reply in replies} <= {server.pid for server in servers}
        assert replies[-1][0] == servers[3].pid
    assert function.count == 3


@checks("D6", "D17")
@open_point("D6")
def test_the_number_is_nobody_elses_while_it_is_recovered(qnx: Any, start: Start) -> None:
    """Other threads open and close files all the time: none gets the number, or has its file closed by others."""
    ended = threading.Event()
    chids: List[int] = []

    def open_and_close() -> int:
        for number in range(_QUESTIONS_MAX):
            if ended.is_set():
                return number
            fd = os.open(os.devnull, os.O_RDONLY)
            fcntl.fcntl(fd, fcntl.F_GETFD)
            os.close(fd)
        return _QUESTIONS_MAX

    def reconnect(coid: int) -> Any:
        chids.append(qnx.ChannelCreate(0))
        return reconnecting(qnx, 0, chids[-1])(coid)

    coid = lost(qnx, Recovering(reconnect), None, 0)
    files = [start(open_and_close) for _ in range(3)]
    for number in range(30):
        qnx.MsgSendPulse(coid, 10, 1, number)
        assert start(take, qnx, chids[-1]).result().pulse.value.sival_int == number
        qnx.ChannelDestroy(chids[-1])
    ended.set()
    for task in files:
        task.result()
    qnx.ConnectDetach(coid)
