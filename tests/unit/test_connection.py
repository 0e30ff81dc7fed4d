"""Connections as objects."""

import contextlib
import gc
import os
import threading
import warnings
from errno import EBADF, ENOENT
from typing import Any, Callable, Dict, Iterator, List, Tuple, Type

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task

import ha_qnx
from ha_qnx import strategies
from ha_qnx.connection import Connection, connect
from ha_qnx.service import Ocb, Request, Service

pytestmark = pytest.mark.usefixtures("shared_directory")

PATH = "/dev/name/local/thermostat"

# A server that says who it is, started as a process of its own.
SERVER = """
import os, sys
from ha_qnx.service import Service
class Server(Service):
    def message(self, request):
        return request.info.msglen, b"%s by %d" % (request.data, os.getpid())
    def read(self, request, nbytes):
        return b"all there is"[request.ocb.offset :][:nbytes]
Server(sys.argv[1]).serve()
"""


class Echo(Service):
    """A server in this process that says what it got."""

    def __init__(self) -> None:
        super().__init__("thermostat")
        self.open = 0
        self.pulses: List[Tuple[int, int]] = []
        self.was_pulsed = threading.Event()

    def message(self, request: Request) -> Tuple[int, bytes]:
        return request.info.msglen, b"<" + request.data + b">"

    def opened(self, request: Request) -> None:
        self.open += 1

    def closed(self, ocb: Ocb) -> None:
        self.open -= 1

    def pulse(self, code: int, value: int) -> None:
        self.pulses.append((code, value))
        self.was_pulsed.set()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    with server.running():
        yield server


def test_send_returns_the_status_and_the_reply(echo: Echo) -> None:
    """The status is the server's, and the reply is as long as what the server wrote."""
    with connect("thermostat") as thermostat:
        assert thermostat.send(b"22.5") == (4, b"<22.5>")


def test_a_reply_of_a_named_size_has_that_size(echo: Echo) -> None:
    """What the server did not write is zero, what does not fit is cut off."""
    with connect("thermostat") as thermostat:
        assert thermostat.send(b"abc", 8) == (3, b"<abc>\0\0\0")
        assert thermostat.send(b"abc", 2) == (3, b"<a")
        assert thermostat.send(b"abc", 0) == (3, b"")


def test_a_reply_without_a_size_loses_the_zeros_at_its_end(echo: Echo) -> None:
    """That is documented: nobody can tell them from what was not written. Zeros inside stay."""
    with connect("thermostat") as thermostat:
        assert thermostat.send(b"a\0b") == (3, b"<a\0b>")


def test_send_into_fills_a_buffer(echo: Echo) -> None:
    """As MsgSend does: what is not written to stays."""
    reply = bytearray(b"........")
    with connect("thermostat") as thermostat:
        assert thermostat.send_into(b"abc", reply) == 3
    assert reply == b"<abc>..."


def test_pulse_sends_a_pulse(echo: Echo) -> None:
    """The server gets its code and its value."""
    with connect("thermostat") as thermostat:
        thermostat.pulse(7, -5)
        assert echo.was_pulsed.wait(DEADLINE)
    assert echo.pulses == [(7, -5)]


def test_a_path_is_connected_to_as_it_is(echo: Echo) -> None:
    """A target that begins with a slash is a path."""
    with connect(PATH) as by_path, connect(os.fsencode(PATH)) as by_bytes:
        assert by_path.send(b"1") == by_bytes.send(b"1") == (1, b"<1>")


def test_a_connection_is_a_coid(echo: Echo) -> None:
    """Every call takes it where it takes a number, and the covers recover it."""
    with connect("thermostat", recover=None) as thermostat:
        recovered: List[Any] = []

        def recover(coid: int, handle: Any) -> int:
            recovered.append((coid, handle))
            return -1

        ha_qnx.ha_attach(thermostat, recover, "handle")
        assert thermostat.coid == thermostat == int(thermostat)
        assert type(thermostat.coid) is int
        reply = bytearray(3)
        assert ha_qnx.MsgSend(thermostat, b"x", reply) == 1
        assert reply == b"<x>"
        os.close(thermostat)
        ha_qnx.ha_connection_ctrl(thermostat, ha_qnx.HA_RECOVERY_ICOUNT, 1)
        with fails_with(EBADF):
            ha_qnx.MsgSend(thermostat, b"x")
        assert recovered == [(thermostat.coid, "handle")]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": "5"}, TypeError),
        ({"timeout": None}, TypeError),
        ({"timeout": float("nan")}, ValueError),
        ({"wait": "1"}, TypeError),
        ({"wait": float("nan")}, ValueError),
        ({"attempts": "x"}, TypeError),
        ({"recoveries": 1 << 40}, ValueError),
    ],
    ids=str,
)
def test_what_cannot_be_connected_with_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: Dict[str, Any], error: Type[Exception]
) -> None:
    """Before anything is opened."""
    monkeypatch.setattr(ha_qnx.backend(), "open", lambda *_arguments: pytest.fail("it is opened"))
    with pytest.raises(error, match=next(iter(options))):
        connect("thermostat", **options)


def test_the_context_closes_the_connection(echo: Echo) -> None:
    """The server hears of it, and the object can no longer be used."""
    with connect("thermostat") as thermostat:
        assert (echo.open, thermostat.closed) == (1, False)
    assert (echo.open, thermostat.closed) == (0, True)
    calls: List[Callable[[], Any]] = [
        lambda: thermostat.send(b"x"),
        lambda: thermostat.send_into(b"x", None),
        lambda: thermostat.pulse(1),
        lambda: thermostat.limit(attempts=1),
        thermostat.suspend,
        thermostat.resume,
        thermostat.file,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()


def test_it_is_closed_once(echo: Echo) -> None:
    """A second close does nothing, even if the number belongs to another connection by then."""
    first = connect("thermostat")
    first.close()
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(connect("thermostat")) for _connection in range(20)]
        assert first.coid in others
        first.close()
        assert [other.send(b"1") for other in others] == [(1, b"<1>")] * 20


def test_a_forgotten_connection_warns_and_is_closed(echo: Echo) -> None:
    """A ResourceWarning names it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        coid = connect("thermostat").coid
        gc.collect()
    assert [str(warning.message) for warning in caught] == [f"<Connection {coid:#x}> was never closed"]
    assert caught[0].category is ResourceWarning
    assert echo.open == 0


def test_a_closed_connection_does_not_warn(echo: Echo) -> None:
    """Nor one that was made for a number that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connect("thermostat").close()
        with pytest.raises(TypeError):
            Connection("thermostat")  # type: ignore[arg-type]  # that is the point
        gc.collect()


def test_a_connection_that_exists_can_be_taken_over(echo: Echo) -> None:
    """Connection(coid) makes an object of a number, side channels included."""
    with Connection(ha_qnx.name_open("thermostat")) as thermostat:
        assert thermostat.send(b"1") == (1, b"<1>")
    assert ha_qnx.MsgSend_r(thermostat.coid, b"1") == -EBADF


def test_it_survives_the_death_of_its_server(start_program: Callable[..., Any]) -> None:
    """By itself: it waits for a server of the same name. The stats tell."""
    first = start_program(SERVER, "thermostat")
    with connect("thermostat", wait=DEADLINE) as thermostat:
        assert thermostat.send(b"1") == (1, b"1 by %d" % first.pid)
        assert thermostat.stats == ha_qnx.stats(thermostat.coid) == ha_qnx.stats(999)
        first.kill()
        second = start_program(SERVER, "thermostat")
        assert thermostat.send(b"2") == (1, b"2 by %d" % second.pid)
        assert (thermostat.stats.failures, thermostat.stats.recoveries) == (1, 1)
        second.kill()


def test_an_ordinary_connection_does_not_recover(start_program: Callable[..., Any]) -> None:
    """With recover=None it fails when its server is dead, and can be closed nevertheless."""
    server = start_program(SERVER, "thermostat")
    with connect("thermostat", recover=None, wait=DEADLINE) as thermostat:
        server.kill()
        with fails_with(EBADF):
            thermostat.send(b"1")
        with fails_with(EBADF):
            thermostat.limit(attempts=1)


def test_the_recovery_function_gets_the_handle(start_program: Callable[..., Any]) -> None:
    """And the connection's number; -1 says that there is no recovery."""
    server = start_program(SERVER, "thermostat")
    calls: List[Tuple[int, Any]] = []

    def recover(coid: int, handle: Any) -> int:
        calls.append((coid, handle))
        return -1

    with connect("thermostat", recover=recover, handle="handle", wait=DEADLINE) as thermostat:
        server.kill()
        with fails_with(EBADF):
            thermostat.send(b"1")
        assert calls == [(thermostat.coid, "handle")]


def test_the_recovery_can_be_limited(start_program: Callable[..., Any]) -> None:
    """``attempts`` for one failure, ``recoveries`` in all; and suspended."""
    server = start_program(SERVER, "thermostat")
    calls: List[int] = []

    def recover(coid: int, _handle: Any) -> int:
        calls.append(coid)
        return coid  # which is not true

    with connect("thermostat", recover=recover, attempts=3, wait=DEADLINE) as thermostat:
        server.kill()
        thermostat.suspend()
        with fails_with(EBADF):
            thermostat.send(b"1")
        assert len(calls) == 0
        thermostat.resume()
        with fails_with(EBADF):
            thermostat.send(b"1")
        assert len(calls) == 3
        thermostat.limit(attempts=-1, recoveries=5)
        with fails_with(EBADF):
            thermostat.send(b"1")
        assert len(calls) == 5


def test_a_connection_without_a_server_is_refused_at_once() -> None:
    """Unless somebody wants to wait."""
    with fails_with(ENOENT):
        connect("thermostat")


def test_a_connection_waits_for_its_first_server(start_program: Callable[..., Any]) -> None:
    """``wait`` says how long."""
    opening = Task(lambda: connect("thermostat", wait=DEADLINE))
    opening.wait_until_blocked()
    server = start_program(SERVER, "thermostat")
    with opening.result() as thermostat:
        assert thermostat.send(b"1") == (1, b"1 by %d" % server.pid)


def test_a_refusal_is_not_waited_out() -> None:
    """A server that says no has answered."""

    class Refusing(Service):
        def opened(self, request: Request) -> None:
            raise PermissionError(13, "not you")

    with Refusing("thermostat").running(), pytest.raises(PermissionError):
        connect("thermostat", wait=DEADLINE)


def test_a_failover_serves_from_the_first_moment(start_program: Callable[..., Any]) -> None:
    """Where nobody has the target's name, the first server of the failover that answers gets the connection."""
    server = start_program(SERVER, "log-b")
    recover = strategies.wait_for(strategies.failover(["log-a", "log-b"]), DEADLINE)
    with connect("log", recover=recover, attempts=5, wait=DEADLINE) as log:
        assert log.send(b"1") == (1, b"1 by %d" % server.pid)
        successor = start_program(SERVER, "log-a")
        server.kill()
        assert log.send(b"2") == (1, b"2 by %d" % successor.pid)


def test_nothing_stays_open_when_the_attachment_fails(echo: Echo) -> None:
    """A recovery function that is none is a TypeError. It is closed in order, not just forgotten."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TypeError):
            connect("thermostat", recover="thermostat")  # type: ignore[arg-type]  # that is the point
        gc.collect()
    assert caught == []
    assert echo.open == 0


def test_a_connection_can_be_read_as_a_file(start_program: Callable[..., Any]) -> None:
    """Closing the file leaves the connection open."""
    server = start_program(SERVER, "thermostat")
    with connect("thermostat", wait=DEADLINE) as thermostat:
        with thermostat.file("rb") as file:
            assert file.read() == b"all there is"
        assert thermostat.send(b"1") == (1, b"1 by %d" % server.pid)
        with thermostat.file("r", encoding="ascii") as text:
            text.seek(4)
            assert text.read(5) == "there"


def test_the_backend_can_be_chosen(echo: Echo) -> None:
    """Each connection keeps its own."""
    with connect("thermostat", backend=ha_qnx.backend("fallback")) as thermostat:
        assert thermostat.backend is ha_qnx.backend("fallback")
