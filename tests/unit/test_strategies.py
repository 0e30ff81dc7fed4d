"""Ready-made recovery functions."""

import os
import threading
import time
from errno import EACCES, EBADF, EINTR, EMFILE, ENOENT, ENXIO, ESRCH
from typing import Any, Callable, List, Optional, Type

import pytest
import stamina
import tenacity
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually

import ha_qnx
from ha_qnx import strategies
from ha_qnx.arrivals import Arrivals
from ha_qnx.connection import connect
from ha_qnx.service import Request, Service

pytestmark = pytest.mark.usefixtures("shared_directory")

# Says who it is; on a second argument, it is one of several servers in a process.
SERVER = """
import os, sys
from ha_qnx.service import Service
class Server(Service):
    def message(self, request):
        if request.data == b"die":
            os._exit(1)
        if request.data == b"log in":
            request.ocb.data = True
        return b"%s %s" % (self.name.encode(), b"known" if request.ocb.data else b"unknown")
Server(*sys.argv[1:]).serve()
"""


class Named(Service):
    """A server in this process that says its name."""

    def message(self, request: Request) -> bytes:
        return self.name.encode()


def lost(coid: int) -> None:
    """Have a connection recovered at the next message: there is no server behind it any more."""
    chid = ha_qnx.ChannelCreate()
    ha_qnx.ha_ReConnectAttach(coid, 0, 0, chid, coid, 0)
    ha_qnx.ChannelDestroy(chid)


def recovered(strategy: Callable[[int, Any], int], coid: int) -> int:
    """Use a strategy on a connection, as the library does, outside of a failure."""
    lost(coid)
    return strategy(coid, None)


# Simple ones.


def attach(name: str) -> int:
    """A connection of the descriptors' range to the server of a name."""
    server = strategies.find_server(name)
    return ha_qnx.ConnectAttach(server.nd, server.pid, server.chid, 3)


@pytest.mark.parametrize(
    ("make", "strategy"),
    [
        (lambda: ha_qnx.open("/dev/one", os.O_RDWR), strategies.reopen("/dev/one")),
        (lambda: attach("one"), strategies.reopen_name("one")),
    ],
    ids=["reopen", "reopen_name"],
)
def test_a_connection_is_made_again(make: Callable[[], int], strategy: Callable[[int, Any], int]) -> None:
    """By its path or by its name, under its own number."""
    with Named("one", "/dev/one").running():
        coid = make()
        assert recovered(strategy, coid) == coid
        reply = bytearray(3)
        assert ha_qnx.MsgSend(coid, b"x", reply) == 3
        assert reply == b"one"
        ha_qnx.ConnectDetach(coid)


def test_a_server_is_found_by_its_name() -> None:
    """Its process and its channel; nothing stays open, and the server is not told."""
    opened: List[Request] = []

    class Asked(Named):
        def opened(self, request: Request) -> None:
            opened.append(request)

    with Asked("one").running():
        server = strategies.find_server("one")
        assert (server.nd, server.pid) == (ha_qnx.ND_LOCAL_NODE, os.getpid())
        coid = ha_qnx.ConnectAttach(server.nd, server.pid, server.chid)
        assert opened == []
        assert ha_qnx.MsgSend(coid, b"x") == 3
        ha_qnx.ConnectDetach(coid)
    with fails_with(ENOENT):
        strategies.find_server("one")


def test_reopen_opens_as_it_is_told() -> None:
    """The flags reach the server; an ordinary file is reopened, too."""
    flags: List[int] = []

    class Asking(Named):
        def opened(self, request: Request) -> None:
            flags.append(request.ocb.ioflag)

    with Asking("/dev/one").running(), connect("/dev/one", os.O_RDONLY, recover=None) as connection:
        strategies.reopen("/dev/one", os.O_WRONLY)(connection.coid, None)
    assert flags == [1, 2]


@pytest.mark.parametrize("index", [0, ha_qnx.NTO_SIDE_CHANNEL])
def test_a_channel_is_connected_to_again(index: int) -> None:
    """Under the connection's own number, when the server makes its channel anew."""
    first = ha_qnx.ChannelCreate()
    coid = ha_qnx.ConnectAttach(0, 0, first, index)
    ha_qnx.ChannelDestroy(first)
    second = ha_qnx.ChannelCreate()
    assert strategies.reconnect(0, os.getpid(), second)(coid, None) == coid
    assert ha_qnx.MsgSendPulse(coid, -1, 1, 2) == 0
    assert ha_qnx.MsgReceive(second, ha_qnx.Pulse()) == 0
    ha_qnx.ConnectDetach(coid)
    ha_qnx.ChannelDestroy(second)


def test_a_strategy_without_a_server_raises_what_opening_raises() -> None:
    """And the number stays the connection's."""
    with Named("one").running():
        coid = attach("one")
    for strategy in (strategies.reopen("/dev/one"), strategies.reopen_name("one")):
        with fails_with(ENOENT):
            strategy(coid, None)
    with fails_with(ESRCH):
        strategies.reconnect(0, os.getpid(), 12345)(coid, None)
    with Named("one").running():
        assert strategies.reopen_name("one")(coid, None) == coid
        ha_qnx.ConnectDetach(coid)


# Several servers.


def ask(coid: int, size: int = 1) -> str:
    """Who answers."""
    reply = bytearray(size)
    ha_qnx.MsgSend(coid, b"x", reply)
    return reply.decode()


def test_failover_stays_with_the_server_that_answered() -> None:
    """It begins with the one it had last, goes through the list from there, and does not go back by itself."""
    failover = strategies.failover(["a", "b", "c"])
    with Named("b").running(), Named("c").running(), connect("b", recover=None) as connection:
        coid = connection.coid
        with Named("a").running():
            assert (recovered(failover, coid), ask(coid)) == (coid, "a")
        assert (recovered(failover, coid), ask(coid)) == (coid, "b")
        with Named("a").running():
            assert (recovered(failover, coid), ask(coid)) == (coid, "b")


def test_failover_in_turn_begins_with_the_next_server() -> None:
    """Round robin: each loss takes the connection to the next one that answers."""
    failover = strategies.failover(["a", "b", "c"], round_robin=True)
    with Named("a").running(), Named("c").running(), connect("a", recover=None) as connection:
        seen = []
        for _loss in range(4):
            recovered(failover, connection.coid)
            seen.append(ask(connection.coid))
        assert seen == ["a", "c", "a", "c"]


def test_failover_keeps_the_place_of_each_connection() -> None:
    """Connections that share the strategy do not share their turn."""
    failover = strategies.failover(["a", "b"], round_robin=True)
    servers = Named("a").running(), Named("b").running()
    with servers[0], servers[1], connect("a", recover=None) as one, connect("a", recover=None) as other:
        for connection, expected in ((one, "a"), (one, "b"), (other, "a"), (one, "a")):
            recovered(failover, connection.coid)
            assert ask(connection.coid) == expected


def test_failover_passes_over_servers_that_refuse() -> None:
    """Any error is no answer; if nobody answers, the last one's is raised."""

    class Refusing(Named):
        def opened(self, request: Request) -> None:
            raise PermissionError(EACCES, "no")

    a, b, c = "/dev/a", "/dev/b", "/dev/c"
    failover = strategies.failover([a, b])
    with Refusing(a).running(), Named(b).running(), connect(b, recover=None) as connection:
        assert (recovered(failover, connection.coid), ask(connection.coid, 6)) == (connection.coid, b)
    failover = strategies.failover([a, b])
    with Named(c).running(), connect(c, recover=None) as connection:
        with Refusing(b).running(), fails_with(EACCES):
            failover(connection.coid, None)
        with Refusing(a).running(), fails_with(ENOENT):
            failover(connection.coid, None)


def test_failover_does_not_touch_a_number_that_is_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """EBADF ends it: opening the next path would not help."""
    tried: List[Any] = []
    reopen = ha_qnx.backend().ha_reopen

    def noted(coid: int, path: Any, *arguments: Any) -> int:
        tried.append(path)
        return reopen(coid, path, *arguments)

    monkeypatch.setattr(ha_qnx.backend(), "ha_reopen", noted)
    with Named("/dev/a").running(), Named("/dev/b").running():
        coid = ha_qnx.open("/dev/a", os.O_RDWR)
        os.close(coid)
        foreign = os.open(os.devnull, os.O_RDONLY)
        os.dup2(foreign, coid)
        with fails_with(EBADF):
            strategies.failover(["/dev/a", "/dev/b"])(coid, None)
        assert os.read(coid, 1) == b""
        assert tried == ["/dev/a"]
        for fd in {foreign, coid}:
            os.close(fd)


def test_failover_needs_a_path() -> None:
    """Of none, nobody can answer; and a text is no list of its letters."""
    with pytest.raises(ValueError, match="path"):
        strategies.failover([])
    texts: List[Any] = ["ledger", b"ledger"]
    for text in texts:
        with pytest.raises(TypeError, match="ledger"):
            strategies.failover(text)
    with pytest.raises(ValueError, match="names or paths"):
        strategies.failover(["ledger", "/dev/ledger"])


def test_failover_forgets_a_connection_that_is_closed() -> None:
    """Another one that gets its number begins with the first server."""
    failover = strategies.failover(["a", "b"], round_robin=True)

    def number_of_a_new_connection() -> int:
        with connect("b", recover=failover) as connection:
            number = recovered(failover, connection.coid)
            assert ask(connection.coid) == "a"
        return number

    with Named("a").running(), Named("b").running():
        numbers = [number_of_a_new_connection()]

        def comes_again() -> bool:
            numbers.append(number_of_a_new_connection())
            return numbers.count(numbers[-1]) > 1

        # The servers are in this process, and close their descriptors of a connection after it has ended; a lower
        # number may have become free for good meanwhile.
        eventually(comes_again, "another connection to get the number of one before it")


# Waiting.


def test_wait_for_is_woken_by_the_arrival_of_a_server(
    start_program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps until then: no look at the clock would wake it in time."""
    monkeypatch.setattr("ha_qnx.arrivals._LOOK_AGAIN", 3600.0)
    tries: List[float] = []

    def strategy(coid: int, handle: Any) -> int:
        tries.append(time.monotonic())
        return strategies.reopen_name("one")(coid, handle)

    first = start_program(SERVER, "one")
    with connect("one", recover=strategies.wait_for(strategy, DEADLINE), wait=DEADLINE) as connection:
        first.kill()
        waiting = Task(connection.ask, b"x")
        waiting.wait_until_blocked()
        eventually(lambda: len(tries) >= 2, "a look before the wait, and one after the watch began")
        start_program(SERVER, "one")
        assert waiting.result() == b"one unknown"


def test_wait_for_gives_up_at_its_deadline() -> None:
    """The caller gets the error of its call; the cause is what the last try raised."""
    with Named("one").running():
        connection = connect("one", timeout=0.05)
    with connection:
        error = Task(connection.ask, b"x").error()
    assert isinstance(error, OSError)
    assert error.errno == EBADF
    assert isinstance(error.__cause__, FileNotFoundError)


def test_threads_that_met_one_loss_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library in C has the lock, they come one after the other; those behind the first try once."""
    monkeypatch.setattr(strategies, "_SAME_LOSS", DEADLINE)
    tries: List[int] = []

    def strategy(_coid: int, _handle: Any) -> int:
        tries[-1] += 1
        raise FileNotFoundError(ENOENT, "no server")

    recover, lock = strategies.wait_for(strategy, 0.05), threading.Lock()

    def lose() -> None:
        with lock:
            tries.append(0)
            recover(5, None)

    for losing in [Task(lose) for _thread in range(3)]:
        assert losing.errno() == ENOENT
    assert tries[0] > 1
    assert tries[1:] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("errno", [ENOENT, ESRCH, ENXIO])
def test_wait_for_takes_some_errors_for_no_server(errno: int) -> None:
    """It tries again; and again when the strategy returns no number of the connection."""
    answers: List[Optional[int]] = [errno, None]

    def strategy(coid: int, _handle: Any) -> int:
        if not answers:
            return coid
        answer = answers.pop()
        if answer is None:
            return -1
        raise OSError(answer, os.strerror(answer))

    assert strategies.wait_for(strategy, DEADLINE)(5, None) == 5
    assert answers == []


def test_wait_for_goes_on_after_a_signal() -> None:
    """A try that a signal's handler has ended says nothing of the server, and is made again at once."""
    errors = [InterruptedError(EINTR, "interrupted"), InterruptedError(EINTR, "interrupted")]

    def strategy(coid: int, _handle: Any) -> int:
        if errors:
            raise errors.pop()
        return coid

    assert strategies.wait_for(strategy, DEADLINE)(4, None) == 4


def test_wait_for_lets_other_errors_pass() -> None:
    """A refusal is an answer; so is a number that is lost. A bug is a bug."""
    for error in (OSError(EACCES, "no"), OSError(EBADF, "lost"), ValueError("a bug")):

        def strategy(coid: int, _handle: Any, error: Exception = error) -> int:
            raise error

        with pytest.raises(type(error)) as raised:
            strategies.wait_for(strategy, DEADLINE)(5, None)
        assert raised.value is error


def test_wait_for_returns_what_a_strategy_returned_in_the_end() -> None:
    """If it never raised, there is no error to raise."""
    assert strategies.wait_for(lambda _coid, _handle: -1, 0.01)(5, None) == -1


def nothing(coid: int, _handle: Any) -> int:
    """A strategy that does nothing."""
    return coid


@pytest.mark.parametrize(
    ("make", "error", "what"),
    [
        (lambda: strategies.wait_for(nothing, any_("5")), TypeError, "timeout"),
        (lambda: strategies.wait_for(nothing, any_(None)), TypeError, "timeout"),
        (lambda: strategies.wait_for(nothing, float("nan")), ValueError, "timeout"),
        (lambda: strategies.wait_for(any_(None)), TypeError, "strategy"),
        (lambda: strategies.then(nothing, any_(None)), TypeError, "rebuild"),
        (lambda: strategies.then(any_("x"), nothing), TypeError, "strategy"),
        (lambda: strategies.limit(any_(None), 1), TypeError, "strategy"),
        (lambda: strategies.limit(nothing, attempts=any_("x")), TypeError, "attempts"),
        (lambda: strategies.limit(nothing, recoveries=1 << 40), ValueError, "recoveries"),
        (lambda: strategies.circuit_breaker(any_(None)), TypeError, "strategy"),
        (lambda: strategies.circuit_breaker(nothing, cooldown=any_("x")), TypeError, "cooldown"),
        (lambda: strategies.circuit_breaker(nothing, failures=0), ValueError, "failures"),
    ],
)
def test_what_makes_no_strategy_is_refused_when_it_is_made(
    make: Callable[[], object], error: Type[Exception], what: str
) -> None:
    """Rather than when a server is lost."""
    with pytest.raises(error, match=what):
        make()


def any_(value: Any) -> Any:
    """What a type checker would refuse."""
    return value


def test_a_wait_can_be_as_long_as_it_takes(start_program: Callable[..., Any]) -> None:
    """Infinity is a number of seconds, and so is one that is larger than a float."""
    for timeout in (float("inf"), 10**400):
        first = start_program(SERVER, "one")
        recover = strategies.wait_for(strategies.reopen_name("one"), timeout)
        with connect("one", recover=recover, wait=timeout) as connection:
            first.kill()
            second = start_program(SERVER, "one")
            assert connection.ask(b"x") == b"one unknown"
            second.kill()


def test_a_host_without_inotify_polls(monkeypatch: pytest.MonkeyPatch, start_program: Callable[..., Any]) -> None:
    """As QNX does: it finds a server all the same."""
    fallback = ha_qnx.backend("fallback")
    monkeypatch.setattr("sys.platform", "nto")
    with Arrivals() as arrivals:
        assert not arrivals.wakes
    start_program(SERVER, "one")
    with connect("one", wait=DEADLINE, backend=fallback) as connection:
        assert connection.ask(b"x") == b"one unknown"


def test_a_watch_that_finds_no_room_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a directory cannot be read, since the table of descriptors is full, we poll."""

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    def full(_path: str) -> None:
        raise OSError(EMFILE, os.strerror(EMFILE))

    fallback = ha_qnx.backend("fallback")
    chid = fallback.ChannelCreate()  # So that the directory is there.
    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", full)
        with Arrivals() as arrivals:
            assert not arrivals.wakes
    eventually(lambda: open_files() == before, "the watch to be closed")
    fallback.ChannelDestroy(chid)


# Rebuilding.


def test_then_rebuilds_the_conversation(start_program: Callable[..., Any]) -> None:
    """Before the message is sent again, the new server knows the client."""
    handles: List[Any] = []

    def log_in(coid: int, handle: Any) -> None:
        handles.append(handle)
        ha_qnx.MsgSend(coid, b"log in")

    strategy = strategies.then(strategies.wait_for(strategies.reopen_name("one"), DEADLINE), log_in)
    first = start_program(SERVER, "one")
    with connect("one", recover=strategy, handle="handle", wait=DEADLINE) as connection:
        assert connection.ask(b"x") == b"one unknown"
        first.kill()
        start_program(SERVER, "one")
        assert connection.ask(b"x") == b"one known"
    assert handles == ["handle"]


def test_a_server_that_dies_while_the_conversation_is_rebuilt_is_waited_for_again(
    start_program: Callable[..., Any],
) -> None:
    """wait_for around then: the next server gets everything from the start."""
    starts: List[Any] = []

    def rebuild(coid: int, _handle: Any) -> None:
        if len(starts) < 3:
            starts.append(start_program(SERVER, "one"))
            ha_qnx.MsgSend(coid, b"die")
        ha_qnx.MsgSend(coid, b"log in")

    strategy = strategies.wait_for(strategies.then(strategies.reopen_name("one"), rebuild), DEADLINE)
    first = start_program(SERVER, "one")
    with connect("one", recover=strategy, wait=DEADLINE) as connection:
        first.kill()
        start_program(SERVER, "one")
        assert connection.ask(b"x") == b"one known"
        assert connection.stats.recoveries == 1
    assert len(starts) == 3


def test_then_tells_a_loss_from_a_lost_number() -> None:
    """EBADF while rebuilding is a server lost before the message: ESRCH. Other errors are what they are."""
    for errno, expected in ((EBADF, ESRCH), (ESRCH, ESRCH), (EACCES, EACCES)):

        def rebuild(_coid: int, _handle: Any, errno: int = errno) -> None:
            raise OSError(errno, os.strerror(errno))

        with fails_with(expected):
            strategies.then(lambda coid, _handle: coid, rebuild)(5, None)


def test_then_rebuilds_nothing_that_was_not_recovered() -> None:
    """A strategy that returns something else has failed."""
    assert strategies.then(lambda _coid, _handle: -1, lambda _coid, _handle: pytest.fail("called"))(5, None) == -1


# Bounds.


def test_limit_has_the_library_bound_the_calls(start_program: Callable[..., Any]) -> None:
    """So often for one failure, and in all."""
    calls: List[int] = []

    def claim(coid: int, _handle: Any) -> int:
        calls.append(coid)
        return coid  # which is not true

    strategy = strategies.limit(claim, attempts=2, recoveries=3)
    server = start_program(SERVER, "one")
    with connect("one", recover=strategy, wait=DEADLINE) as connection:
        server.kill()
        for total in (2, 2):  # No message got through in between: the count goes on (D8).
            with fails_with(EBADF):
                connection.send(b"x")
            assert len(calls) == total
        ha_qnx.ha_connection_ctrl(connection, ha_qnx.HA_RECOVERY_RESET_ICOUNT)
        with fails_with(EBADF):
            connection.send(b"x")
        assert len(calls) == 3


@pytest.mark.parametrize("limits", [{"attempts": 0}, {"recoveries": 0}], ids=str)
def test_a_limit_of_nothing_recovers_nothing(limits: Any) -> None:
    """Not even once."""
    limited = strategies.limit(lambda _coid, _handle: pytest.fail("called"), **limits)
    with Named("one").running():
        connection = connect("one", recover=limited)
    with connection:
        for _time in range(2):
            with fails_with(EBADF):
                connection.send(b"x")


def test_a_circuit_breaker_forgets_a_connection_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failures of another one under the same number are its own."""
    suspended: List[int] = []
    monkeypatch.setattr(strategies, "_suspend", lambda _qnx, coid, _seconds: suspended.append(coid))
    monkeypatch.setattr("ha_qnx.connection._FIRST", 300)  # A number that nobody takes meanwhile.
    breaker = strategies.circuit_breaker(strategies.reopen_name("one"), failures=2)
    connections = []
    for failures in (1, 2):
        with Named("one").running():
            connections.append(connect("one", recover=breaker))
        with connections[-1] as connection:
            for number in range(failures):
                assert suspended == [], number
                with fails_with(EBADF):
                    connection.send(b"x")
    assert connections[0].coid == connections[1].coid
    assert suspended == [connections[1].coid]


def test_a_circuit_breaker_stops_recovery_for_a_time() -> None:
    """After some failures in a row, calls fail without a recovery, until the time is over; one more failure, again."""
    calls: List[int] = []

    def strategy(coid: int, handle: Any) -> int:
        calls.append(coid)
        return strategies.reopen_name("one")(coid, handle)

    with Named("one").running():
        breaker = strategies.circuit_breaker(strategy, failures=2, cooldown=0.2)
        connection = connect("one", recover=breaker)
    with connection:
        for total in (1, 2, 2):
            with fails_with(EBADF):
                connection.send(b"x")
            assert len(calls) == total
        eventually(lambda: fails_with_recovery(connection, calls, 3), "the end of the suspension")
        assert len(calls) == 3
        with fails_with(EBADF):
            connection.send(b"x")
        assert len(calls) == 3, "one failure is enough to suspend it again"
        with Named("one").running():
            eventually(lambda: answered(connection), "the recovery")
            assert connection.ask(b"x") == b"one"


def test_a_circuit_breaker_counts_failures_in_a_row() -> None:
    """A recovery between two of them starts the count anew."""
    answers = [OSError(EACCES, "no"), None, OSError(EACCES, "no"), None]

    def strategy(coid: int, handle: Any) -> int:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return strategies.reopen_name("one")(coid, handle)

    with Named("one").running(), connect("one", recover=None) as connection:
        ha_qnx.ha_attach(connection, strategies.circuit_breaker(strategy, failures=2, cooldown=3600.0))
        for _time in range(2):
            lost(connection.coid)
            with fails_with(EBADF):
                connection.send(b"x")
            assert connection.ask(b"x") == b"one"


def fails_with_recovery(connection: Any, calls: List[int], number: int) -> bool:
    """Whether a message that fails has called the strategy so often by now."""
    with fails_with(EBADF):
        connection.send(b"x")
    return len(calls) >= number


def answered(connection: Any) -> bool:
    """Whether a message gets an answer."""
    try:
        connection.send(b"x")
    except OSError:
        return False
    return True


def test_a_closed_connection_does_not_disturb_a_circuit_breaker() -> None:
    """Its suspension ends without anybody to hear of it."""
    with Named("one").running():
        connection = connect("one", recover=strategies.circuit_breaker(strategies.reopen_name("one"), 1, 0.01))
    with connection, fails_with(EBADF):
        connection.send(b"x")
    eventually(lambda: not [t for t in threading.enumerate() if isinstance(t, threading.Timer)], "the timer")


def test_the_end_of_a_suspension_does_not_concern_another_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has got the number meanwhile is suspended by its owner, and stays so."""
    ends: List[Callable[[], None]] = []

    class Timer:
        daemon = False

        def __init__(self, _seconds: float, end: Callable[[], None]) -> None:
            ends.append(end)

        def start(self) -> None:
            pass

    monkeypatch.setattr(threading, "Timer", Timer)
    monkeypatch.setattr("ha_qnx.connection._FIRST", 300)  # A number that nobody takes meanwhile.
    with Named("one").running():
        first = connect("one", recover=strategies.circuit_breaker(strategies.reopen_name("one"), 1, 0.01))
    with first, fails_with(EBADF):
        first.send(b"x")
    calls: List[int] = []

    def recover(coid: int, _handle: Any) -> int:
        calls.append(coid)
        return -1

    with Named("one").running():
        second = connect("one", recover=recover)
    with second:
        assert second.coid == first.coid
        ha_qnx.ha_connection_ctrl(second.coid, ha_qnx.HA_RECOVERY_SUSPEND)
        (end,) = ends
        end()
        with fails_with(EBADF):
            second.send(b"x")
    assert calls == []


# Other people's decorators.


def test_tenacity_retries_a_strategy_as_it_is(start_program: Callable[..., Any]) -> None:
    """tenacity.retry decorates it like any function that raises."""
    retried = tenacity.retry(stop=tenacity.stop_after_delay(DEADLINE), wait=tenacity.wait_fixed(0.01))(
        strategies.reopen_name("one")
    )
    first = start_program(SERVER, "one")
    with connect("one", recover=retried, wait=DEADLINE) as connection:
        first.kill()
        start_program(SERVER, "one")
        assert connection.ask(b"x") == b"one unknown"


def test_what_tenacity_raises_in_the_end_is_the_cause() -> None:
    """The caller gets the error of its call, from RetryError."""
    retried = tenacity.retry(stop=tenacity.stop_after_attempt(3))(strategies.reopen_name("one"))
    with Named("one").running():
        connection = connect("one", recover=retried)
    with connection:
        error = Task(connection.ask, b"x").error()
    assert isinstance(error, OSError)
    assert error.errno == EBADF
    assert isinstance(error.__cause__, tenacity.RetryError)


def test_stamina_retries_a_strategy_as_it_is(start_program: Callable[..., Any]) -> None:
    """stamina.retry, too; and what it makes of a failover can still be asked for its paths."""
    retried = stamina.retry(on=OSError, timeout=DEADLINE, wait_initial=0.01, wait_max=0.05, attempts=None)(
        strategies.failover(["one", "two"])
    )
    first = start_program(SERVER, "one")
    with connect("one", recover=retried, wait=DEADLINE) as connection:
        first.kill()
        second = start_program(SERVER, "two")
        assert connection.ask(b"x") == b"two unknown"
        with connect("three", recover=retried) as other:
            assert other.ask(b"x") == b"two unknown"
        second.kill()
