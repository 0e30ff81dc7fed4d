"""Connections as objects."""

import array
import contextlib
import copy
import gc
import logging
import os
import pathlib
import pickle
import re
import signal
import subprocess
import threading
import warnings
from errno import EBADF, EINVAL, EMSGSIZE, ENOENT, EPROTO, ETIMEDOUT
from typing import Any, Callable, Dict, Iterator, List, Tuple, Type

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually, is_asleep

import ha_qnx
from ha_qnx import strategies
from ha_qnx.connection import ATTEMPTS, Connection, connect
from ha_qnx.kernel import BytesLike
from ha_qnx.service import LATER, Ocb, Request, Service

pytestmark = pytest.mark.usefixtures("shared_directory")

PATH = "/dev/thermostat"

# A server that says who it is, started as a process of its own.
SERVER = """
import os, sys
from ha_qnx.service import Service
class Server(Service):
    def message(self, request):
        return b"%s by %d" % (request.data, os.getpid())
    def read(self, request, nbytes):
        return b"all there is"[request.ocb.offset :][:nbytes]
Server(*sys.argv[1:]).serve()
"""


class Echo(Service):
    """A server in this process that says what it got."""

    def __init__(self) -> None:
        super().__init__("thermostat", PATH)
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


class Answering(Service):
    """A server in this process that always gives the same answer."""

    def __init__(self, answer: Any) -> None:
        super().__init__("thermostat")
        self.answer = answer

    def message(self, request: Request) -> Any:
        return self.answer


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    with server.running():
        yield server


def test_send_returns_the_status_and_as_many_bytes_as_are_asked_for(echo: Echo) -> None:
    """What the server did not write is zero, what does not fit is cut off; no byte is asked for unless it is named."""
    with connect("thermostat") as thermostat:
        assert thermostat.send(b"22.5", 6) == (4, b"<22.5>")
        assert thermostat.send(b"abc", 8) == (3, b"<abc>\0\0\0")
        assert thermostat.send(b"abc", 2) == (3, b"<a")
        assert thermostat.send(b"abc") == (3, b"")
        with pytest.raises(ValueError, match="negative"):
            thermostat.send(b"abc", -1)


@pytest.mark.parametrize("answer", [b"", b"22.5", b"\0\0", b"a\0b\0", bytes(5000)], ids=len)
def test_ask_returns_what_the_handler_returned(answer: bytes) -> None:
    """All of it, zeros included: the status of the reply is its length."""
    with Answering(answer).running(), connect("thermostat") as thermostat:
        assert thermostat.ask(b"x", room=5000) == answer


def test_an_answer_that_has_no_room_is_an_error_that_says_how_much_it_needs() -> None:
    """EMSGSIZE, with both numbers; nothing is cut off without a word."""
    with Answering(bytes(8005)).running(), connect("thermostat") as thermostat:
        with pytest.raises(OSError, match=r"8005 bytes.*room for 4096.*room=8005") as raised:
            thermostat.ask(b"x")
        assert raised.value.errno == EMSGSIZE
        assert thermostat.ask(b"x", room=8005) == bytes(8005)


def test_an_answer_that_tells_no_length_is_an_error() -> None:
    """EPROTO, for a status that is negative."""
    with Answering(-5).running(), connect("thermostat") as thermostat:
        with fails_with(EPROTO):
            thermostat.ask(b"x")
        assert thermostat.send(b"x") == (-5, b"")


def test_a_message_can_be_limited_in_time() -> None:
    """ETIMEDOUT, once the server has let the client go. The next message of the thread has all the time it wants."""
    with Answering(LATER).running(), connect("thermostat") as thermostat:
        calls: List[Callable[..., Any]] = [thermostat.ask, thermostat.send]
        for call in calls:
            with fails_with(ETIMEDOUT):
                call(b"x", timeout=0.02)
            for no_time, error in (("1", TypeError), (float("nan"), ValueError), (-1, ValueError)):
                with pytest.raises(error):
                    call(b"x", timeout=no_time)
        with fails_with(ETIMEDOUT):
            thermostat.send_into(b"x", bytearray(3), timeout=0.02)
    with Answering(b"22.5").running(), connect("thermostat") as thermostat:
        assert thermostat.ask(b"x", timeout=float("inf")) == b"22.5"


@pytest.fixture(params=["fallback", "native", "hybrid"])
def qnx(request: pytest.FixtureRequest, libha: str, monkeypatch: pytest.MonkeyPatch) -> ha_qnx.Backend:
    """Each of the backends."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    return ha_qnx.backend(request.param)


@pytest.fixture
def stopped(start_program: Callable[..., Any]) -> Iterator[Any]:
    """A server that has stopped, and that knows a client."""
    program = start_program(SERVER, "thermostat", PATH)
    connect(PATH, wait=DEADLINE, recover=None).close()
    program.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
    yield program
    program.process.send_signal(signal.SIGCONT)


def test_what_a_stopped_server_does_not_answer_is_limited(qnx: ha_qnx.Backend, stopped: Any) -> None:
    """Messages, transfers of a file, the connecting, and a recovery that finds it."""
    stopped.process.send_signal(signal.SIGCONT)
    opened, found = (connect(target, recover=None, backend=qnx) for target in (PATH, "thermostat"))
    assert opened.ask(b"x", timeout=DEADLINE) == found.ask(b"x", timeout=DEADLINE)
    recover = strategies.wait_for(strategies.reopen(PATH, backend=qnx), 0.05)
    stopped.process.send_signal(signal.SIGSTOP)
    for connection in (opened, found):
        for call in (connection.ask, connection.send):
            with fails_with(ETIMEDOUT):
                call(b"x", timeout=0.02)
    file = opened.file("r+b", 0, timeout=0.02)
    for transfer in (lambda: file.read(3), lambda: file.write(b"x"), lambda: file.seek(1)):
        with fails_with(ETIMEDOUT):
            transfer()
    with pytest.raises(OSError, match=r"no answer of a successor within 0\.05 s") as raised:
        recover(opened.coid, None)
    assert (raised.value.errno, raised.value.filename) == (ETIMEDOUT, PATH)
    with fails_with(ETIMEDOUT):
        connect(PATH, wait=0.02, recover=None, backend=qnx)
    with fails_with(ETIMEDOUT):
        connect("thermostat", wait=0.02, setup=lambda lent: lent.ask(b"log in"), backend=qnx)
    file.close()
    for no_time, error in (("1", TypeError), (float("nan"), ValueError), (-1, ValueError)):
        wrong: Any = no_time
        with pytest.raises(error):
            opened.close(timeout=wrong)
        with pytest.raises(error):
            opened.file(timeout=wrong)
        assert not opened.closed
    found.close(timeout=0.02)
    stopped.process.send_signal(signal.SIGCONT)
    opened.close(timeout=DEADLINE)


def test_the_closing_of_a_path_can_be_limited_in_time(qnx: ha_qnx.Backend, stopped: Any) -> None:
    """ETIMEDOUT, and the connection is closed all the same."""
    stopped.process.send_signal(signal.SIGCONT)
    opened = connect(PATH, recover=None, backend=qnx)
    stopped.process.send_signal(signal.SIGSTOP)
    with fails_with(ETIMEDOUT):
        opened.close(timeout=0.02)
    assert opened.closed
    opened.close()
    with fails_with(EBADF):
        qnx.MsgSend(opened.coid, b"x")


def test_a_signal_handler_ends_the_closing(qnx: ha_qnx.Backend, stopped: Any) -> None:
    """By what it raises, as that of Ctrl-C does. The connection is still open, and can be closed later."""
    stopped.process.send_signal(signal.SIGCONT)
    opened = connect(PATH, recover=None, backend=qnx)
    stopped.process.send_signal(signal.SIGSTOP)
    main = threading.main_thread()
    is_closing = threading.Event()

    def interrupt() -> None:
        is_closing.wait(DEADLINE)
        eventually(lambda: is_asleep(main.native_id or 0), "the closing to wait")
        signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    interrupting = Task(interrupt)
    try:
        is_closing.set()
        with pytest.raises(KeyboardInterrupt):
            opened.close()
    finally:
        signal.signal(signal.SIGUSR1, before)
    interrupting.result()
    assert not opened.closed
    stopped.process.send_signal(signal.SIGCONT)
    assert opened.ask(b"x", timeout=DEADLINE)
    opened.close()
    assert opened.closed


@pytest.mark.parametrize(
    ("target", "errno", "text"),
    [
        ("gone", ENOENT, r"no server has this name in {directory} \(ha-qnx doctor tells more\): 'gone'"),
        ("", EINVAL, "a name must be relative, and not empty: ''"),
        ("../x", ENOENT, r"nobody can have a name with a component that ends with '\.\.': '../x'"),
        ("/dev/gone", ENOENT, "No such file or directory: '/dev/gone'"),
    ],
)
def test_what_is_not_found_is_named(
    qnx: ha_qnx.Backend, runtime_directory: pathlib.Path, target: str, errno: int, text: str
) -> None:
    """With what is wrong about the name, or where it was looked for."""
    directory = os.environ["HA_QNX_RUNTIME"]
    with pytest.raises(OSError, match=text.format(directory=re.escape(directory))) as raised:
        connect(target, backend=qnx)
    assert raised.value.errno == errno


@pytest.mark.parametrize("target", ["thermostat", PATH])
def test_the_error_of_a_lost_server_says_whose_and_what_was_tried(
    qnx: ha_qnx.Backend, target: str, start_program: Callable[..., Any]
) -> None:
    """In its text; its cause has the errno and the name. The connection shows that it is lost."""
    server = start_program(SERVER, "thermostat", PATH)
    with connect(target, wait=DEADLINE, timeout=0.05, backend=qnx) as connection:
        connect(PATH, wait=DEADLINE, recover=None).close()
        shown = f"<Connection {connection.coid:#x} to {target!r}, server {server.pid}>"
        assert repr(connection) == shown
        server.kill()
        with pytest.raises(OSError, match=f"the server of {target!r} was lost; no successor within 0.05 s") as raised:
            connection.ask(b"x")
        assert re.search(r"\(\d+ attempts?; last: [nN]o s.*\)", str(raised.value))
        assert raised.value.errno == EBADF
        cause = raised.value.__cause__
        assert isinstance(cause, OSError)
        assert (cause.errno, cause.filename) == (ENOENT, target)
        assert repr(connection) == shown.replace(f"server {server.pid}", "lost")
    assert repr(connection).endswith("closed>")


def test_send_into_fills_a_buffer(echo: Echo) -> None:
    """As MsgSend does: what is not written to stays."""
    reply = bytearray(b"........")
    with connect("thermostat") as thermostat:
        assert thermostat.send_into(b"abc", reply) == 3
    assert reply == b"<abc>..."


def test_a_str_is_no_message(echo: Echo) -> None:
    """A type checker says so, or it would complain that nothing is ignored here; and there is a TypeError."""
    with connect("thermostat") as thermostat:
        with pytest.raises(TypeError):
            thermostat.ask("text")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            thermostat.send("text")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            ha_qnx.MsgSend(thermostat, "text")  # type: ignore[arg-type]
        buffers: List[BytesLike] = [b"<", bytearray(b"<"), memoryview(b"<"), array.array("b", b"<")]
        assert [thermostat.ask(buffer)[:1] for buffer in buffers] == [b"<"] * 4


def test_pulse_sends_a_pulse(echo: Echo) -> None:
    """The server gets its code and its value."""
    with connect("thermostat") as thermostat:
        thermostat.pulse(7, -5)
        assert echo.was_pulsed.wait(DEADLINE)
        for code in (500, -1, 128):
            with pytest.raises(ValueError, match="code"):
                thermostat.pulse(code)
    assert echo.pulses == [(7, -5)]


def test_a_target_that_begins_with_a_slash_is_a_path(echo: Echo) -> None:
    """It is opened, and its server hears of that; a name is found, and its server hears nothing."""
    with connect("thermostat"):
        assert echo.open == 0
        with connect(PATH) as by_path, connect(os.fsencode(PATH)) as by_bytes:
            assert echo.open == 2
            assert by_path.send(b"1", 3) == by_bytes.send(b"1", 3) == (1, b"<1>")
    assert echo.open == 0


def test_a_connection_to_a_name_has_a_number_that_can_be_had_again(echo: Echo) -> None:
    """One of the descriptors' range, and not of the standard ones: QNX gives back no side channel."""
    with connect("thermostat") as thermostat:
        assert 3 <= thermostat.coid < ha_qnx.NTO_SIDE_CHANNEL
        assert ha_qnx.ConnectFlags(0, thermostat.coid, 0, 0) == ha_qnx.NTO_COF_CLOEXEC


@pytest.mark.parametrize(
    ("target", "others"), [("thermostat", ["/dev/a"]), ("/dev/thermostat", ["a", "b"]), ("a", ["/dev/b"])]
)
def test_a_name_and_a_path_are_not_taken_for_each_other(target: str, others: List[str]) -> None:
    """A failover from one to the other would end the connection in the wrong way."""
    with pytest.raises(ValueError, match="names or"):
        connect(target, recover=strategies.failover(others))


def test_a_connection_is_a_coid(echo: Echo) -> None:
    """Every call takes it where it takes a number, and the covers recover it."""
    with connect(PATH, recover=None) as thermostat:
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
        ({"setup": "log in"}, TypeError),
    ],
    ids=str,
)
def test_what_cannot_be_connected_with_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: Dict[str, Any], error: Type[Exception]
) -> None:
    """Before anything is opened."""
    for call in ("open", "name_open"):
        monkeypatch.setattr(ha_qnx.backend(), call, lambda *_arguments: pytest.fail("it is opened"))
    for target in ("thermostat", PATH):
        with pytest.raises(error, match=next(iter(options))):
            connect(target, **options)


def test_the_context_closes_the_connection(echo: Echo) -> None:
    """The server hears of it, and the object can no longer be used."""
    with connect(PATH) as thermostat:
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
        assert [other.send(b"1", 3) for other in others] == [(1, b"<1>")] * 20


def test_a_forgotten_connection_warns_and_is_closed(echo: Echo) -> None:
    """A ResourceWarning names it. The server is not told, since it might not answer."""
    gc.collect()  # What other tests have forgotten.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        coid = connect(PATH).coid
        gc.collect()
    assert [str(warning.message) for warning in caught] == [f"<Connection {coid:#x} to {PATH!r}> was never closed"]
    assert caught[0].category is ResourceWarning
    with contextlib.suppress(OSError):  # There is none at all, or only one with a higher number.
        assert ha_qnx.ConnectServerInfo(0, coid, ha_qnx.MessageInfo()) != coid


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
        assert thermostat.send(b"1", 3) == (1, b"<1>")
    assert ha_qnx.MsgSend_r(thermostat.coid, b"1") == -EBADF


@pytest.mark.parametrize("target", ["thermostat", PATH])
def test_it_survives_the_death_of_its_server(start_program: Callable[..., Any], target: str) -> None:
    """By itself: it waits for a server of the same name, or path. The stats tell."""
    first = start_program(SERVER, target)
    with connect(target, wait=DEADLINE) as thermostat:
        assert thermostat.ask(b"1") == b"1 by %d" % first.pid
        assert thermostat.stats == ha_qnx.stats(thermostat.coid) == ha_qnx.stats(999)
        first.kill()
        second = start_program(SERVER, target)
        assert thermostat.ask(b"2") == b"2 by %d" % second.pid
        assert (thermostat.stats.failures, thermostat.stats.recoveries) == (1, 1)
        second.kill()


@pytest.mark.parametrize("send", [Connection.ask, ha_qnx.MsgSend], ids=["ask", "MsgSend"])
def test_a_failure_does_not_hold_a_connection(
    monkeypatch: pytest.MonkeyPatch, start_program: Callable[..., Any], send: Callable[[Connection, bytes], object]
) -> None:
    """The recovery function and the counts know its number alone, so that it is noticed when it is forgotten."""
    monkeypatch.setattr(logging.getLogger("ha_qnx"), "disabled", True)  # pytest keeps the log, and with it the failure.
    server = start_program(SERVER, "thermostat")
    told: List[type] = []

    def recover(coid: int, _handle: Any) -> int:
        told.append(type(coid))
        return -1

    thermostat = connect("thermostat", recover=recover, wait=DEADLINE)
    server.kill()
    with fails_with(EBADF):
        send(thermostat, b"1")
    assert told == [int]
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del thermostat
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]


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
        assert thermostat.ask(b"1") == b"1 by %d" % server.pid


def test_a_refusal_is_not_waited_out() -> None:
    """A server that says no has answered."""

    class Refusing(Service):
        def opened(self, request: Request) -> None:
            raise PermissionError(13, "not you")

    with Refusing(PATH).running(), pytest.raises(PermissionError):
        connect(PATH, wait=DEADLINE)


def test_a_failover_serves_from_the_first_moment(start_program: Callable[..., Any]) -> None:
    """Where nobody has the target's name, the first server of the failover that answers gets the connection."""
    server = start_program(SERVER, "log-b")
    recover = strategies.wait_for(strategies.failover(["log-a", "log-b"]), DEADLINE)
    with connect("log", recover=recover, attempts=5, wait=DEADLINE) as log:
        assert log.ask(b"1") == b"1 by %d" % server.pid
        successor = start_program(SERVER, "log-a")
        server.kill()
        assert log.ask(b"2") == b"2 by %d" % successor.pid


def test_nothing_stays_open_when_the_attachment_fails(echo: Echo) -> None:
    """A recovery function that is none is a TypeError. It is closed in order, not just forgotten."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TypeError):
            connect(PATH, recover="thermostat")  # type: ignore[arg-type]  # that is the point
        gc.collect()
    assert caught == []
    assert echo.open == 0


def test_a_connection_can_be_read_as_a_file(start_program: Callable[..., Any]) -> None:
    """Closing the file leaves the connection open."""
    server = start_program(SERVER, PATH)
    with connect(PATH, wait=DEADLINE) as thermostat:
        with thermostat.file("rb") as file:
            assert file.read() == b"all there is"
        assert thermostat.ask(b"1") == b"1 by %d" % server.pid
        with thermostat.file("r", encoding="ascii") as text:
            text.seek(4)
            assert text.read(5) == "there"


def test_a_connection_is_neither_copied_nor_pickled(echo: Echo) -> None:
    """It is closed once, and it belongs to its process: the error says what to do."""
    with connect("thermostat") as thermostat:
        for copying in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="ha_dup"):
                copying(thermostat)
        with pytest.raises(TypeError, match="connect"):
            pickle.dumps(thermostat)


SESSION_SERVER = """
import os, sys
from ha_qnx.service import Service
class Server(Service):
    def message(self, request):
        if request.data == b"log in":
            if sys.argv[2:] == ["dies"]:
                os._exit(1)
            request.ocb.data = True
        return b"known to %d" % os.getpid() if request.ocb.data else b"unknown"
Server(sys.argv[1]).serve()
"""


@pytest.mark.parametrize("target", ["thermostat", PATH])
def test_setup_is_called_when_the_connection_is_made_and_after_each_recovery(
    start_program: Callable[..., Any], target: str
) -> None:
    """With the connection, which it does not own; a server that is lost meanwhile is not the last."""
    lent: List[Connection] = []

    def log_in(connection: Connection) -> None:
        lent.append(connection)
        connection.ask(b"log in")

    server = start_program(SESSION_SERVER, target)
    with connect(target, setup=log_in, wait=DEADLINE) as connection:
        assert connection.ask(b"x") == b"known to %d" % server.pid
        server.kill()
        doomed = start_program(SESSION_SERVER, target, "dies")
        asking = Task(connection.ask, b"x")
        doomed.process.wait(DEADLINE)
        successor = start_program(SESSION_SERVER, target)
        assert asking.result() == b"known to %d" % successor.pid
        assert len(lent) >= 3  # A server that is dying may be found, and lost, once more.
        del lent[:]
        gc.collect()
        assert connection.ask(b"x") == b"known to %d" % successor.pid


def test_a_setup_that_fails_closes_the_connection(echo: Echo) -> None:
    """Whatever it raises is raised, and nothing stays open."""

    def fail(_connection: Connection) -> None:
        raise KeyError("log in")

    with pytest.raises(KeyError):
        connect(PATH, setup=fail)
    assert echo.open == 0


DELICATE_SERVER = """
import os, sys
from ha_qnx.service import Service
class Server(Service):
    def message(self, request):
        if request.data == b"poison":
            os._exit(1)
        return request.data
Server(sys.argv[1]).serve()
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["thermostat", PATH])
def test_a_message_that_kills_every_server_does_not_kill_them_all(
    start_program: Callable[..., Any], target: str
) -> None:
    """After a few it is taken for the reason, and fails, and the error says so; the next message starts anew."""
    servers = [start_program(DELICATE_SERVER, target)]
    is_over = threading.Event()

    def restart() -> None:
        while not is_over.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                servers[-1].process.wait(0.05)
                servers.append(start_program(DELICATE_SERVER, target))

    restarting = Task(restart)
    with connect(target, wait=DEADLINE) as connection:
        text = rf"the server of '{target}' was lost, as were 5 before it with this message in hand.*attempts=5"
        with pytest.raises(ProcessLookupError, match=text):
            connection.ask(b"poison")
        assert connection.stats.recoveries == ATTEMPTS
        assert connection.ask(b"good") == b"good"
        assert len(servers) <= ATTEMPTS + 2
    is_over.set()
    restarting.result()


def test_the_backend_can_be_chosen(echo: Echo) -> None:
    """Each connection keeps its own."""
    with connect("thermostat", backend=ha_qnx.backend("fallback")) as thermostat:
        assert thermostat.backend is ha_qnx.backend("fallback")
