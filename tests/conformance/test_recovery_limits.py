"""How often a connection recovers: ha_connection_ctrl, and what is counted when."""

import os
import signal
from errno import EACCES, EBADF, EINTR, EINVAL, EIO, EPERM, ESRCH, ETIMEDOUT
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from ha_qnx import (
    HA_RECOVERY_ACOUNT,
    HA_RECOVERY_ENABLE,
    HA_RECOVERY_ICOUNT,
    HA_RECOVERY_RESET_ACOUNT,
    HA_RECOVERY_RESET_ICOUNT,
    HA_RECOVERY_SUSPEND,
    NTO_SIDE_CHANNEL,
)

from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .receiving import receive_message
from .servers import Start, refuse, take
from .test_recovery import (
    LocalServer,
    Recovering,
    give_up,
    lost,
    lost_while_waiting,
    reconnecting,
    send_for_a_moment,
)

SIDE = NTO_SIDE_CHANNEL
LIMITS = pytest.mark.parametrize("limit", [HA_RECOVERY_ICOUNT, HA_RECOVERY_ACOUNT], ids=["icount", "acount"])
RESETS: Dict[int, int] = {
    HA_RECOVERY_ICOUNT: HA_RECOVERY_RESET_ICOUNT,
    HA_RECOVERY_ACOUNT: HA_RECOVERY_RESET_ACOUNT,
}

# What a recovery function does: nothing, and says so; nothing, and says that it has recovered; reconnect, and deny it;
# reconnect.
GIVE_UP, PRETEND, DENY, RECOVER = range(4)


class Client:
    """A client whose server can be lost, and whose recovery function is told what to do."""

    def __init__(self, qnx: Any, index: int) -> None:
        self._qnx = qnx
        self._plan: List[int] = []
        self.function = Recovering(self._recover)
        self._server = LocalServer(qnx)
        self.coid: int = qnx.ha_ConnectAttach(0, 0, self._server.chid, index, 0, self.function)
        assert self.send() == 0

    @property
    def count(self) -> int:
        """How often the recovery function was called."""
        return self.function.count

    def lose(self, *plan: int) -> None:
        """Lose the server. The recovery function does what is planned, and recovers after that."""
        self._server.end()
        self._plan = list(plan)

    def control(self, command: int, *args: int) -> None:
        """Bound the recovery."""
        assert self._qnx.ha_connection_ctrl(self.coid, command, *args) == 0

    def send(self) -> int:
        """Send a message: 0 if a server has answered, else the negative errno."""
        status: int = self._qnx.MsgSend_r(self.coid, b"message", bytearray(10))
        return min(status, 0)

    def _recover(self, coid: int) -> int:
        deed = self._plan.pop(0) if self._plan else RECOVER
        if deed in (RECOVER, DENY):
            self._server = LocalServer(self._qnx)
            self._qnx.ha_ReConnectAttach(coid, 0, 0, self._server.chid, coid & SIDE, 0)
        return coid if deed in (RECOVER, PRETEND) else -1


def pretend(coid: int) -> int:
    """Does nothing and says that it has recovered the connection."""
    return coid


@pytest.fixture
def client(qnx: Any) -> Iterator[Client]:
    """A client with an HA-aware side channel."""
    made = Client(qnx, SIDE)
    yield made
    made.lose()


@pytest.fixture
def descriptor_client(qnx: Any) -> Iterator[Client]:
    """A client with an HA-aware descriptor."""
    made = Client(qnx, 0)
    yield made
    made.lose()


# Without a limit, and with one


@checks("B388", "B389", "B397")
def test_there_is_no_limit_by_default(client: Client) -> None:
    """The recovery function is called for one failure, and for one connection, as often as it takes."""
    client.lose(*[PRETEND] * 40)
    assert client.send() == 0
    assert client.count == 41


@checks("B389", "B394", "B396", "D7", "D8")
@open_point("D7", "D8")
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_icount_limits_the_tries_for_one_failure(client: Client, limit: int) -> None:
    """With an ICOUNT of n the recovery function is called n times for one send; then the caller gets the error."""
    client.control(HA_RECOVERY_ICOUNT, limit)
    client.lose(*[PRETEND] * 20)
    assert client.send() == -EBADF
    assert client.count == limit


@checks("B389")
def test_the_last_try_that_icount_allows_may_succeed(client: Client) -> None:
    """A failure that the n-th call of the function recovers from is within an ICOUNT of n."""
    client.control(HA_RECOVERY_ICOUNT, 3)
    client.lose(PRETEND, PRETEND, RECOVER)
    assert client.send() == 0
    assert client.count == 3


@checks("B389", "D8")
@open_point("D8")
def test_icount_starts_again_when_a_message_gets_through(client: Client) -> None:
    """After a success there are as many tries for the next failure as for the first."""
    client.control(HA_RECOVERY_ICOUNT, 2)
    for failures in (1, 2, 3):
        client.lose(PRETEND, RECOVER)
        assert client.send() == 0
        assert client.count == 2 * failures


@checks("B389", "D8")
@open_point("D8")
def test_a_message_that_needs_no_recovery_gets_through_too(client: Client) -> None:
    """ICOUNT starts again at any message that gets through, not only at one that was recovered."""
    client.control(HA_RECOVERY_ICOUNT, 1)
    client.lose(DENY)
    assert client.send() == -EBADF
    assert client.send() == 0
    client.lose(RECOVER)
    assert client.send() == 0
    assert client.count == 2


@checks("D8")
@open_point("D8")
@pytest.mark.parametrize("error", [EIO, EPERM, EACCES, 4711])
def test_a_message_gets_through_when_the_server_answers_with_an_error(qnx: Any, start: Start, error: int) -> None:
    """ICOUNT starts again when the message that was sent again is answered by MsgError, whatever the error."""
    chids = [qnx.ChannelCreate(0) for _ in range(2)]
    function = Recovering(*(reconnecting(qnx, 0, chid) for chid in chids))
    coid = lost(qnx, function)
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 1)
    for recoveries, chid in enumerate(chids, 1):
        task = start(qnx.MsgSend_r, coid, b"message")
        start(refuse, qnx, chid, error).result()
        assert task.result() == -error
        assert function.count == recoveries
        qnx.ChannelDestroy(chid)


@checks("D8")
@open_point("D8")
def test_a_message_that_was_never_received_did_not_get_through(qnx: Any, start: Start) -> None:
    """A send that times out before any server receives it leaves ICOUNT used up."""
    chid = qnx.ChannelCreate(0)
    function = Recovering(lambda coid: reconnecting(qnx, 0, chid)(coid) and -1, give_up)
    coid = lost(qnx, function)
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 1)
    assert qnx.MsgSend_r(coid, b"message") == -EBADF
    assert start(send_for_a_moment, qnx, coid).errno() == ETIMEDOUT
    qnx.ChannelDestroy(chid)
    assert qnx.MsgSend_r(coid, b"message") == -EBADF
    assert function.count == 1


def send_interrupted(qnx: Any, pid: int, chid: int) -> Tuple[int, int, int, int]:
    """In another process: reconnect once, in vain; what three sends return, and the calls of the recovery function."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    function = Recovering(lambda coid: reconnecting(qnx, pid, chid)(coid) and -1, give_up)
    coid = lost(qnx, function)
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 1)
    first, second, third = (qnx.MsgSend_r(coid, b"message", bytearray(10)) for _ in range(3))
    return first, second, third, function.count


@checks("D8")
@open_point("D8")
def test_a_message_that_was_interrupted_did_not_get_through(qnx: Any, peer: Peer) -> None:
    """A send that a signal handler ends before the server answers leaves ICOUNT used up."""
    chid = qnx.ChannelCreate(0)
    sending = peer.begin(send_interrupted, os.getpid(), chid)
    receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    qnx.MsgError(receive_message(qnx, chid), EBADF)
    assert sending.result() == (-EBADF, -EINTR, -EBADF, 1)


@checks("D8")
@open_point("D8")
def test_a_message_that_was_sent_before_a_failure_can_get_through_after_it(qnx: Any, start: Start) -> None:
    """ICOUNT starts again at the answer to a message that was under way before the failure that used it up."""
    chid = qnx.ChannelCreate(0)
    function = Recovering(give_up)
    coid = qnx.ha_ConnectAttach(0, 0, chid, SIDE, 0, function)
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 1)
    early = start(qnx.MsgSend, coid, b"early", None)
    rcvid = receive_message(qnx, chid)
    for count in (1, 2):
        failing = start(qnx.MsgSend, coid, b"failing", None)
        qnx.MsgError(receive_message(qnx, chid), EBADF)
        assert (failing.errno(), function.count) == (EBADF, count)
        if count == 1:
            qnx.MsgReply(rcvid, 5)
            assert early.result() == 5


@checks("D8", "B396")
@open_point("D8")
def test_an_icount_that_is_used_up_stays_so(client: Client) -> None:
    """The calls of several sends that failed add up; no send that follows calls the function."""
    client.control(HA_RECOVERY_ICOUNT, 3)
    client.lose(*[GIVE_UP] * 20)
    counts = []
    for _ in range(5):
        assert client.send() == -EBADF
        counts.append(client.count)
    assert counts == [1, 2, 3, 3, 3]


@checks("D8", "D10")
@open_point("D8")
def test_what_a_recovery_function_sends_does_not_count(qnx: Any, start: Start) -> None:
    """A server that lets clients log in and dies at their next message is tried ICOUNT times, not for ever."""

    def recover(coid: int) -> Any:
        server = LocalServer(qnx)
        qnx.ha_ReConnectAttach(coid, 0, 0, server.chid, SIDE, 0)
        assert qnx.MsgSend(coid, b"login") > 0
        server.end()
        return coid

    function = Recovering(recover)
    coid = lost(qnx, function)
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 3)
    assert start(qnx.MsgSend_r, coid, b"message").result() == -EBADF
    assert function.count == 3


@checks("B388", "B394", "B396", "D7", "D8")
@open_point("D7", "D8")
def test_acount_limits_the_recoveries_of_a_connection(client: Client) -> None:
    """With an ACOUNT of n the function is called n times over the life of the connection, whatever came of it."""
    client.control(HA_RECOVERY_ACOUNT, 3)
    for _ in range(3):
        client.lose(RECOVER)
        assert client.send() == 0
    client.lose(RECOVER)
    assert [client.send(), client.send()] == [-EBADF] * 2
    assert client.count == 3


@checks("B388", "D8")
@open_point("D8")
def test_acount_counts_every_call(client: Client) -> None:
    """A call that fails is one, and so is each of several for one send."""
    client.control(HA_RECOVERY_ACOUNT, 4)
    client.lose(GIVE_UP, PRETEND, RECOVER)
    assert [client.send(), client.send()] == [-EBADF, 0]
    client.lose(PRETEND, RECOVER)
    assert client.send() == -EBADF
    assert client.count == 4


@checks("B388", "D8")
@open_point("D8")
def test_acount_counts_calls_before_there_was_a_limit(client: Client) -> None:
    """The life of a connection begins before ha_connection_ctrl is called."""
    for _ in range(2):
        client.lose(RECOVER)
        assert client.send() == 0
    client.control(HA_RECOVERY_ACOUNT, 2)
    client.lose(RECOVER)
    assert client.send() == -EBADF
    assert client.count == 2


@checks("B388", "B389", "D8")
@open_point("D8")
def test_both_limits_hold(client: Client) -> None:
    """Whichever limit is reached first ends the tries."""
    client.control(HA_RECOVERY_ICOUNT, 2)
    client.control(HA_RECOVERY_ACOUNT, 3)
    client.lose(PRETEND, RECOVER)
    assert client.send() == 0
    client.lose(PRETEND, RECOVER)
    assert client.send() == -EBADF
    assert client.count == 3


@checks("B395", "D8")
@open_point("D8")
@LIMITS
def test_a_limit_of_0_allows_no_recovery(client: Client, limit: int) -> None:
    """With a limit of 0 the connection behaves like an ordinary one."""
    client.control(limit, 0)
    client.lose(RECOVER)
    assert client.send() == -EBADF
    assert client.count == 0


@checks("B388", "B389")
@LIMITS
@pytest.mark.parametrize("negative", [-1, -1000])
def test_a_negative_limit_is_none(client: Client, limit: int, negative: int) -> None:
    """A limit that was used up is lifted by a negative one."""
    client.control(limit, 1)
    client.lose(*[PRETEND] * 10)
    assert client.send() == -EBADF
    assert client.count == 1
    client.control(limit, negative)
    assert client.send() == 0
    assert client.count == 11


@checks("D8")
@open_point("D8")
@LIMITS
def test_a_new_limit_does_not_forget_what_is_used(client: Client, limit: int) -> None:
    """Raising a limit from 1 to 3 allows two calls more."""
    client.control(limit, 1)
    client.lose(*[PRETEND] * 10)
    assert client.send() == -EBADF
    client.control(limit, 3)
    assert client.send() == -EBADF
    assert client.count == 3


@checks("B389", "D8")
@open_point("D8")
def test_the_error_of_the_last_try_is_the_callers(qnx: Any, start: Start) -> None:
    """When a limit ends the tries, the caller gets the error of the last of them, not of the first."""
    _coid, task = lost_while_waiting(qnx, start, Recovering(pretend, pretend, give_up))
    assert task.errno() == EBADF

    chid = qnx.ChannelCreate(0)
    coid = lost(qnx, Recovering(reconnecting(qnx, 0, chid)))
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 1)
    task = start(qnx.MsgSend, coid, b"message", None)
    start(take, qnx, chid).result()
    qnx.ChannelDestroy(chid)
    assert task.errno() == ESRCH


# Resetting


@checks("B392", "D8")
@open_point("D8")
@LIMITS
def test_a_reset_gives_the_tries_back(client: Client, limit: int) -> None:
    """HA_RECOVERY_RESET_ICOUNT and _RESET_ACOUNT set the used count to 0; the limit stays."""
    client.control(limit, 2)
    client.lose(*[PRETEND] * 20)
    assert client.send() == -EBADF
    client.control(RESETS[limit])
    assert client.send() == -EBADF
    assert client.send() == -EBADF
    assert client.count == 4


@checks("B392")
@LIMITS
def test_a_reset_is_for_one_of_the_counts(client: Client, limit: int) -> None:
    """Resetting one count does not give back the tries of the other."""
    client.control(limit, 2)
    client.lose(*[PRETEND] * 20)
    assert client.send() == -EBADF
    (other,) = [reset for used, reset in RESETS.items() if used != limit]
    client.control(other)
    assert client.send() == -EBADF
    assert client.count == 2


# Suspending


@checks("B390")
def test_a_suspended_connection_is_like_an_ordinary_one(qnx: Any, client: Client) -> None:
    """After HA_RECOVERY_SUSPEND messages and pulses fail without recovery, until HA_RECOVERY_ENABLE."""
    client.control(HA_RECOVERY_SUSPEND)
    assert client.send() == 0
    client.lose(RECOVER)
    assert client.send() == -EBADF
    assert qnx.MsgSendPulse_r(client.coid, 10, 1, 1) == -EBADF
    assert client.count == 0
    client.control(HA_RECOVERY_ENABLE)
    assert client.send() == 0
    assert client.count == 1


@checks("B390", "B391")
def test_suspending_and_enabling_twice_is_no_different(client: Client) -> None:
    """The connection is suspended or it is not; it does not count how often that was asked for."""
    client.control(HA_RECOVERY_ENABLE)
    client.control(HA_RECOVERY_SUSPEND)
    client.control(HA_RECOVERY_SUSPEND)
    client.control(HA_RECOVERY_ENABLE)
    client.lose(RECOVER)
    assert client.send() == 0


@checks("B391")
@LIMITS
def test_enabling_keeps_counts_and_limits(client: Client, limit: int) -> None:
    """What was used before HA_RECOVERY_SUSPEND is used after HA_RECOVERY_ENABLE; failures in between do not count."""
    client.control(limit, 2)
    client.lose(*[GIVE_UP] * 10)
    assert client.send() == -EBADF
    client.control(HA_RECOVERY_SUSPEND)
    assert [client.send() for _ in range(3)] == [-EBADF] * 3
    client.control(HA_RECOVERY_ENABLE)
    assert [client.send() for _ in range(3)] == [-EBADF] * 3
    assert client.count == 2


# Duplicates


@checks("B380", "D9")
def test_duplicates_share_their_counts_and_limits(qnx: Any, start: Start, descriptor_client: Client) -> None:
    """A limit that is set by way of one duplicate holds for the other, and what one has used the other has used."""
    client = descriptor_client
    duplicate = start(qnx.ha_dup, client.coid).result()
    assert qnx.ha_connection_ctrl(duplicate, HA_RECOVERY_ICOUNT, 2) == 0
    client.lose(*[GIVE_UP] * 10)
    results = [qnx.MsgSend_r(coid, b"message") for coid in (client.coid, duplicate, client.coid, duplicate)]
    assert results == [-EBADF] * 4
    assert [coid for coid, _handle in client.function.calls] == [client.coid, duplicate]


@checks("B380", "B390")
def test_duplicates_are_suspended_together(qnx: Any, start: Start, descriptor_client: Client) -> None:
    """HA_RECOVERY_SUSPEND and HA_RECOVERY_ENABLE by way of one duplicate are for both."""
    client = descriptor_client
    duplicate = start(qnx.ha_dup, client.coid).result()
    qnx.ha_connection_ctrl(duplicate, HA_RECOVERY_SUSPEND)
    client.lose(RECOVER)
    assert client.send() == -EBADF
    assert client.count == 0
    client.control(HA_RECOVERY_ENABLE)
    assert qnx.MsgSend_r(duplicate, b"message", bytearray(10)) > 0
    assert client.function.calls == [(duplicate, None)]


# What is no command


@checks("B393")
@pytest.mark.parametrize("command", range(1, 7))
def test_what_is_not_ha_aware_has_nothing_to_control(qnx: Any, command: int) -> None:
    """ha_connection_ctrl is EBADF for an ordinary connection, a detached one, and one that does not exist."""
    chid = qnx.ChannelCreate(0)
    ordinary = qnx.ConnectAttach(0, 0, chid)
    detached = qnx.ha_ConnectAttach(0, 0, chid, SIDE, 0, Recovering(give_up))
    qnx.ha_detach(detached)
    for coid in (ordinary, detached, SIDE | 1000, -1):
        with fails_with(EBADF):
            qnx.ha_connection_ctrl(coid, command, 1)


@checks("B358")
@pytest.mark.parametrize("command", [0, 7, -1])
def test_an_unknown_command_is_refused(qnx: Any, client: Client, command: int) -> None:
    """ha_connection_ctrl with another command is EINVAL and changes nothing."""
    with fails_with(EINVAL):
        qnx.ha_connection_ctrl(client.coid, command, 0)
    client.lose(RECOVER)
    assert client.send() == 0
