"""Seeing recoveries."""

import contextlib
import inspect
import logging
import os
import re
import threading
import time
from errno import EBADF
from typing import Any, Callable, Iterator, List

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually

import ha_qnx
from ha_qnx import strategies
from ha_qnx.connection import Connection, connect
from ha_qnx.rules import Attachment
from ha_qnx.watching import Counts, RecoveryEvent, Stats

pytestmark = pytest.mark.usefixtures("shared_directory")

SERVER = """
import os, sys
from ha_qnx.service import LATER, Service
class Server(Service):
    def message(self, request):
        if request.data == b"later":
            print("later", flush=True)
            return LATER
        return b"%d" % os.getpid()
Server("one", "/dev/one").serve()
"""


@pytest.fixture
def events() -> Iterator[List[RecoveryEvent]]:
    """The events of a test."""
    found: List[RecoveryEvent] = []
    end = ha_qnx.on_event(found.append)
    yield found
    end()


def fail(_coid: int, _handle: Any) -> int:
    raise LookupError("nobody there")


def observe(function: Callable[[int, Any], Any], coid: int = 5) -> Any:
    """Call a recovery function as the library does."""
    return Counts("fallback").observed(coid, function, "handle")


def test_a_recovery_is_an_event(events: List[RecoveryEvent]) -> None:
    """It says which connection, when, how it went and how long it took."""
    before = time.time()
    assert observe(lambda coid, handle: coid if handle == "handle" else -1) == 5
    (event,) = events
    assert (event.coid, event.attempts, event.recovered, event.error) == (5, 1, True, None)
    assert (event.backend, event.target, event.old_pid, event.new_pid) == ("fallback", None, None, None)
    assert before <= event.time <= time.time()
    assert 0 <= event.duration < DEADLINE


def test_an_exception_of_a_recovery_function_is_part_of_the_event(events: List[RecoveryEvent]) -> None:
    """And goes through, be it an Exception or not."""
    for error in (LookupError("nobody"), KeyboardInterrupt()):

        def function(_coid: int, _handle: Any, error: BaseException = error) -> int:
            raise error

        with pytest.raises(type(error)) as raised:
            observe(function)
        assert raised.value is error
        assert (events[-1].recovered, events[-1].error) == (False, error)


@pytest.mark.parametrize("answer", [-1, 6, None, "5"])
def test_another_number_is_no_recovery(events: List[RecoveryEvent], answer: Any) -> None:
    """As the library sees it."""
    assert observe(lambda _coid, _handle: answer) == answer
    assert events[0].recovered is False


def test_a_callback_can_be_taken_back() -> None:
    """Once, and no matter how often."""
    found: List[RecoveryEvent] = []
    end = ha_qnx.on_event(found.append)
    observe(lambda coid, _handle: coid)
    end()
    end()
    observe(lambda coid, _handle: coid)
    assert len(found) == 1


def test_a_callback_is_taken_back_where_it_was_given() -> None:
    """The same function may be given twice: the end of the one is not that of the other, however often it is asked."""
    found: List[RecoveryEvent] = []
    callback = found.append
    end_first, end_second = ha_qnx.on_event(callback), ha_qnx.on_event(callback)
    end_first()
    end_first()
    observe(lambda coid, _handle: coid)
    end_second()
    assert len(found) == 1


def test_what_cannot_be_called_is_no_callback() -> None:
    """It is refused at once, not when a server is lost."""
    callback: Any = 5
    with pytest.raises(TypeError, match="callable"):
        ha_qnx.on_event(callback)


def test_a_callback_that_fails_does_no_harm(events: List[RecoveryEvent], caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the others are called, and the recovery is one."""

    def failing(_event: RecoveryEvent) -> None:
        raise ValueError("a bug")

    ends = [ha_qnx.on_event(failing), ha_qnx.on_event(events.append)]
    assert observe(lambda coid, _handle: coid) == 5
    for end in ends:
        end()
    assert len(events) == 2
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("function", "level", "outcome"),
    [
        (lambda coid, _handle: coid, logging.INFO, "recovered"),
        (lambda _coid, _handle: -1, logging.WARNING, "not recovered"),
        (fail, logging.WARNING, "not recovered: LookupError('nobody there')"),
    ],
)
def test_there_is_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture, function: Callable[[int, Any], int], level: int, outcome: str
) -> None:
    """Connection, time, attempts, duration and outcome, in the logger ``ha_qnx``."""
    caplog.set_level(logging.INFO, "ha_qnx")
    try:
        observe(function, coid=0x4000_0005)
    except LookupError:
        assert function is fail
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("ha_qnx", level)
    words = record.getMessage().split(", ")
    assert re.fullmatch(r"connection 0x40000005: server lost at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", words[0])
    assert words[1] == "1 attempt"
    assert words[2].endswith(" ms")
    assert words[3] == outcome


def test_the_tries_of_a_strategy_are_counted(events: List[RecoveryEvent], start_program: Callable[..., Any]) -> None:
    """Those of a recovery inside of a recovery are its own."""
    first = start_program(SERVER)
    with connect("one", wait=DEADLINE) as connection:

        def strategy(coid: int, _handle: Any) -> int:
            for _attempt in range(3):
                with fails_with(2):
                    strategies.reopen_name("nobody")(coid, None)
            observe(lambda inner, _handle: strategies.reopen_name("one")(coid, None) and inner, coid=7)
            return coid

        ha_qnx.ha_attach(connection, strategy, None, ha_qnx.HAREPLACERECOVERYFN)
        first.kill()
        start_program(SERVER)
        with connect("one", wait=DEADLINE):
            connection.send(b"x")
    assert [(event.coid, event.attempts) for event in events] == [(7, 1), (connection.coid, 3)]


# Counts.


def test_nothing_has_happened_to_an_unknown_connection() -> None:
    """All is zero."""
    assert ha_qnx.stats(12345) == Stats(0, 0, 0.0)


@pytest.fixture(params=["fallback", "native", "hybrid"])
def qnx(request: pytest.FixtureRequest, libha: str, monkeypatch: pytest.MonkeyPatch) -> ha_qnx.Backend:
    """Each of the backends."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    return ha_qnx.backend(request.param)


def test_the_counts_of_a_connection(qnx: ha_qnx.Backend, start_program: Callable[..., Any]) -> None:
    """Losses for which the recovery function was called, recoveries, and the time that it took."""
    server = start_program(SERVER)
    with connect("one", timeout=0.02, wait=DEADLINE, backend=qnx) as connection:
        server.kill()
        with fails_with(EBADF):
            connection.send(b"x")
        stats = connection.stats
        assert stats[:2] == (1, 0)
        assert stats.recovery_time >= 0.02
        connection.suspend()
        with fails_with(EBADF):
            connection.send(b"x")
        assert connection.stats == stats
        connection.resume()
        with_server = strategies.wait_for(strategies.reopen_name("one", backend=qnx), DEADLINE)
        qnx.ha_attach(connection, with_server, None, ha_qnx.HAREPLACERECOVERYFN)
        start_program(SERVER)
        connection.send(b"x")
        assert connection.stats[:2] == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "kills"), [("one", 6), ("/dev/one", 1)])
def test_the_same_is_told_of_the_same_on_each_backend(
    qnx: ha_qnx.Backend,
    target: str,
    kills: int,
    start_program: Callable[..., Any],
    events: List[RecoveryEvent],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Eight threads have a message under way whenever a server is killed."""
    caplog.set_level(logging.INFO, "ha_qnx")
    servers = [start_program(SERVER)]
    with connect(target, attempts=None, timeout=DEADLINE, wait=DEADLINE, backend=qnx) as connection:
        tasks = [Task(connection.ask, b"later") for _thread in range(8)]
        for number in range(kills):
            eventually(lambda: servers[-1].output.count("later") == 8, "the messages")
            servers[-1].kill()
            servers.append(start_program(SERVER.replace("LATER\n", "b'now'\n") if number == kills - 1 else SERVER))
        assert [task.result() for task in tasks] == [b"now"] * 8
        assert connection.stats[:2] == (kills, kills)
    pids = [server.pid for server in servers]
    assert [(event.coid, event.backend, event.target) for event in events] == [(connection, qnx.name, target)] * kills
    assert [(event.old_pid, event.new_pid) for event in events] == list(zip(pids, pids[1:]))
    assert [(event.recovered, event.error) for event in events] == [(True, None)] * kills
    assert sum(event.duration for event in events) == pytest.approx(connection.stats.recovery_time)
    assert [event.time for event in events] == sorted(event.time for event in events)
    for message, old, new in zip(caplog.messages, pids, pids[1:]):
        assert message.startswith(f"connection {connection.coid:#x} to {target!r}: server {old} lost at 2")
        assert message.endswith(f" ms, recovered by server {new}")
    assert len(caplog.messages) == kills


def test_what_was_not_recovered_is_told_on_each_backend(
    qnx: ha_qnx.Backend, start_program: Callable[..., Any], events: List[RecoveryEvent]
) -> None:
    """For a connection of libha's own calls, too: it is known what they have opened, or looked for."""
    server = start_program(SERVER)
    with connect("/dev/one", wait=DEADLINE, recover=None, backend=qnx), connect(
        "one", recover=None, backend=qnx
    ) as found:
        opened = qnx.ha_open("/dev/one", os.O_RDWR, lambda _coid, _handle: -1)
        copy = qnx.ha_dup(opened)
        qnx.ha_attach(found, strategies.reopen_name("one", backend=qnx))
        server.kill()
        for coid in (opened, copy, found):
            with fails_with(EBADF):
                qnx.MsgSend(coid, b"x")
        for coid in (opened, copy):
            with fails_with(EBADF):  # So says the closing of a connection whose server is gone.
                qnx.ha_close(coid)
    assert [(event.coid, event.target) for event in events] == [
        (opened, "/dev/one"),
        (copy, "/dev/one"),
        (found, "one"),
    ]
    assert [(event.recovered, event.old_pid, event.new_pid) for event in events] == [(False, server.pid, None)] * 3


def test_another_connection_under_the_number_counts_from_zero(start_program: Callable[..., Any]) -> None:
    """Until then, the counts of the old one can be asked for."""
    server = start_program(SERVER)
    with connect("one", wait=DEADLINE) as connection:
        server.kill()
        start_program(SERVER)
        connection.send(b"x")
    assert ha_qnx.stats(connection.coid).recoveries == 1
    with contextlib.ExitStack() as stack:
        numbers = [stack.enter_context(connect("one")).coid for _connection in range(20)]
        assert connection.coid in numbers
        assert ha_qnx.stats(connection.coid) == Stats()


# Two backends in one process, whose side channels have the same numbers.


@pytest.fixture(params=["native", "hybrid"])
def other(request: pytest.FixtureRequest, libha: str, monkeypatch: pytest.MonkeyPatch) -> ha_qnx.Backend:
    """A backend beside the fallback."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    return ha_qnx.backend(request.param)


@pytest.fixture
def number(other: ha_qnx.Backend) -> Iterator[int]:
    """The number that the next side channel gets, of either backend: what is free below it is taken meanwhile.

    But for one number of each, which the channel that it is attached to needs: channels and side channels share them.
    """
    with contextlib.ExitStack() as stack:
        taken, rooms = [], []
        for qnx in (ha_qnx.backend("fallback"), other):
            room = qnx.ChannelCreate(ha_qnx.NTO_CHF_PRIVATE)
            chid = qnx.ChannelCreate(ha_qnx.NTO_CHF_PRIVATE)
            stack.callback(qnx.ChannelDestroy, chid)
            taken.append({qnx.ConnectAttach(0, 0, chid): qnx for _connection in range(50)})
            rooms.append((qnx, room))
        number = max(taken[0].keys() & taken[1].keys())
        for connections in taken:
            # The channel hears of its client by then at the latest, and has a number for it, too.
            connections.pop(number).ConnectDetach(number)
            for coid, qnx in connections.items():
                stack.callback(qnx.ConnectDetach, coid)
        for qnx, room in rooms:
            qnx.ChannelDestroy(room)
        yield number


def attach_lost(qnx: ha_qnx.Backend, function: Callable[[int, Any], int] = lambda _coid, _handle: -1) -> int:
    """Make an HA-aware connection whose server is gone."""
    chid = qnx.ChannelCreate(ha_qnx.NTO_CHF_PRIVATE)
    coid = qnx.ha_ConnectAttach(0, 0, chid, ha_qnx.NTO_SIDE_CHANNEL, 0, function)
    qnx.ChannelDestroy(chid)
    return coid


@contextlib.contextmanager
def lost(
    qnx: ha_qnx.Backend, number: int, function: Callable[[int, Any], int] = lambda _coid, _handle: -1
) -> Iterator[None]:
    """While there is such a connection, of this number."""
    coid = attach_lost(qnx, function)
    try:
        assert coid == number
        yield
    finally:
        qnx.ha_ConnectDetach(coid)


def fail_once(qnx: ha_qnx.Backend, coid: int) -> None:
    """Make a call on it, which fails though its recovery function is called."""
    with fails_with(EBADF):
        qnx.MsgSendPulse(coid, -1, 0, 0)


def test_each_backend_counts_for_itself(other: ha_qnx.Backend, number: int, events: List[RecoveryEvent]) -> None:
    """What happens to a connection of one does not happen to that of the other, and does not end its counts."""
    fallback = ha_qnx.backend("fallback")
    for one, another in ((fallback, other), (other, fallback)):
        with lost(one, number):
            fail_once(one, number)
        counted = ha_qnx.stats(number, one)
        assert counted.failures == 1
        with lost(another, number):
            assert ha_qnx.stats(number, another) == Stats()
            assert ha_qnx.stats(number, one) == counted
    assert [event.backend for event in events] == [fallback.name, other.name]


def test_the_counts_of_a_connection_are_those_of_its_backend(other: ha_qnx.Backend, number: int) -> None:
    """Also when it is closed; a number by itself is one of the default backend."""
    connection = Connection(attach_lost(other), other)
    assert connection == number
    fail_once(other, number)
    connection.close()
    assert connection.stats == ha_qnx.stats(connection) == ha_qnx.stats(number, other)
    assert connection.stats.failures == 1
    with lost(ha_qnx.backend(), number):
        assert ha_qnx.stats(number) == Stats()
        assert ha_qnx.stats(connection).failures == 1


def test_a_strategy_remembers_whose_connection_it_was(
    other: ha_qnx.Backend, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a backend begins to use a number says nothing about the connection that another one has under it."""
    suspended: List[str] = []
    monkeypatch.setattr(strategies, "_suspend", lambda qnx, _coid, _seconds: suspended.append(qnx.name))
    fallback = ha_qnx.backend("fallback")
    for one, another in ((fallback, other), (other, fallback)):
        breaker = strategies.circuit_breaker(lambda _coid, _handle: -1, failures=2, backend=one)
        with lost(one, number, breaker):
            fail_once(one, number)
            with lost(another, number):
                assert one.name not in suspended
            fail_once(one, number)
        assert suspended[-1:] == [one.name]


# What it costs.


def test_a_message_that_gets_through_costs_nothing(start_program: Callable[..., Any], events: List[Any]) -> None:
    """None of this module's code runs while nothing fails, and none of it is asked for by the covers."""
    start_program(SERVER)
    called: List[str] = []

    def trace(frame: Any, what: str, _argument: Any) -> None:
        if what == "call" and frame.f_globals.get("__name__") == "ha_qnx.watching":
            called.append(frame.f_code.co_name)

    with connect("one", wait=DEADLINE) as connection:
        threading.setprofile(trace)
        try:
            Task(connection.ask, b"x").result()
        finally:
            threading.setprofile(None)
    assert called == []
    assert events == []
    assert "self._counts." in inspect.getsource(Attachment._recover)
