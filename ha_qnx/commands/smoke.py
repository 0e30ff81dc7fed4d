"""``ha-qnx conformance --smoke``: the first minute on a target.

Names, messages, pulses, paths, and a recovery of each kind, against a server process of its own that is killed on the
way; then what this library does where QNX's documentation leaves the matter open. It needs nothing but the package, and
leaves nothing behind. The server is this module, started as

    python -m ha_qnx.commands.smoke BACKEND NAME PATH
"""

import contextlib
import errno
import json
import logging
import os
import select
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import ha_qnx

from .. import strategies
from ..backends import BackendUnavailableError, backend, candidates_of_platform
from ..constants import HA_RECOVERY_ICOUNT, IO_CLOSE, IO_CONNECT, IO_READ, IO_WRITE
from ..iomessages import TRANSFER
from ..platforms import is_qnx
from ..structures import MessageInfo, Pulse

__all__ = ["run"]

_PATIENCE = 5.0  # Seconds for a server to be there.
_FIRST = 3  # The lowest number of a connection: of the descriptors' range.
_NO_CONNECTION = 30_000
_TEXT = b"what a server has to say"


class Step(NamedTuple):
    """What was tried, and what came of it."""

    backend: str
    name: str
    problem: Optional[str]
    milliseconds: float


class Point(NamedTuple):
    """What a library does where QNX's documentation leaves the matter open, and what this project has decided."""

    backend: str
    decision: str
    question: str
    answer: str
    decided: str


class Server:
    """The server process and its successors."""

    def __init__(self, backend_name: str) -> None:
        self._backend = backend_name
        self.name = f"ha-qnx-smoke-{os.getpid()}"
        self.path = f"/dev/{self.name}"
        self.pid = -1
        #: Why the path cannot be attached, such as a user who may not.
        self.path_problem = ""
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        command = [sys.executable, "-m", __name__, self._backend, self.name, self.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)  # noqa: S603  # ourselves
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = b""
        if select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            line = self._process.stdout.readline()
        word, _space, self.path_problem = line.decode().strip().partition(" ")
        if word != "ready":
            raise RuntimeError("the server has not started")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()


# The server.


def serve(qnx: Any, name: str, path: str) -> None:
    """Answer messages in QNX's own terms, for ever."""
    chid = qnx.name_attach(name).chid
    try:
        qnx.resmgr_attach(chid, path)
        problem = ""
    except OSError as error:
        problem = str(error)
    sys.stdout.write(f"ready {problem}\n")
    sys.stdout.flush()
    buffer, info, last_pulse = bytearray(4096), MessageInfo(), b"none"
    while True:
        rcvid = qnx.MsgReceive(chid, buffer, info)
        if rcvid == 0:
            pulse = Pulse.from_buffer_copy(buffer)
            if pulse.code >= 0:
                last_pulse = b"%d %d" % (pulse.code, pulse.value.sival_int)
            continue
        message = bytes(memoryview(buffer)[: info.msglen])
        kind = int.from_bytes(message[:2], sys.byteorder)
        if kind in (IO_CONNECT, IO_CLOSE):
            qnx.MsgReply(rcvid, ha_qnx.EOK)
        elif kind == IO_READ:
            qnx.MsgReply(rcvid, len(_TEXT), _TEXT)
        elif kind == IO_WRITE:
            qnx.MsgReply(rcvid, len(message) - TRANSFER.size)
        elif message == b"error":
            qnx.MsgError(rcvid, errno.EDOM)
        else:
            answer = {b"pid": b"%d" % os.getpid(), b"pulse": last_pulse}.get(message, message)
            qnx.MsgReply(rcvid, len(answer), answer)


# What is tried.


def _ask(qnx: Any, coid: int, message: bytes) -> bytes:
    reply = bytearray(200)
    return bytes(reply[: qnx.MsgSend(coid, message, reply)])


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} rather than {wanted!r}")


@contextlib.contextmanager
def _connected(qnx: Any, server: Server) -> Iterator[int]:
    found = strategies.find_server(server.name, backend=qnx)
    coid = qnx.ConnectAttach(found.nd, found.pid, found.chid, _FIRST, 0)
    try:
        yield coid
    finally:
        qnx.ConnectDetach(coid)


def names(qnx: Any, server: Server) -> None:
    _expect("the process of the name", strategies.find_server(server.name, backend=qnx).pid, server.pid)
    _expect("a name that nobody has", _outcome(lambda: qnx.name_open(server.name + "-nobody")), "ENOENT")


def messages(qnx: Any, server: Server) -> None:
    with _connected(qnx, server) as coid:
        _expect("the answer", _ask(qnx, coid, b"pid"), b"%d" % server.pid)
        _expect("an error", _outcome(lambda: qnx.MsgSend(coid, b"error")), "EDOM")
        parts = bytearray(2), bytearray(4)
        _expect("the status", qnx.MsgSendv(coid, [b"abc", b"def"], list(parts)), 6)
        _expect("the parts of the reply", b"|".join(parts), b"ab|cdef")


def pulses(qnx: Any, server: Server) -> None:
    with _connected(qnx, server) as coid:
        qnx.MsgSendPulse(coid, -1, 5, -6)
        _expect("the pulse", _ask(qnx, coid, b"pulse"), b"5 -6")


def paths(qnx: Any, server: Server) -> None:
    if server.path_problem:
        raise AssertionError(f"{server.path} cannot be attached: {server.path_problem}")
    fd = qnx.open(server.path, os.O_RDWR)
    _expect("what is read", qnx.read(fd, 100), _TEXT)
    _expect("what is written", qnx.write(fd, b"abc"), 3)
    _expect("the answer", _ask(qnx, fd, b"pid"), b"%d" % server.pid)
    qnx.close(fd)


def recovery_by_name(qnx: Any, server: Server) -> None:
    with _connected(qnx, server) as coid:
        reconnect = strategies.reopen_name(server.name, backend=qnx)
        qnx.ha_attach(coid, strategies.wait_for(reconnect, _PATIENCE))
        server.restart()
        _expect("who answers", _ask(qnx, coid, b"pid"), b"%d" % server.pid)


def recovery_by_path(qnx: Any, server: Server) -> None:
    reopen = strategies.reopen(server.path, backend=qnx)
    fd = qnx.ha_open(server.path, os.O_RDWR, strategies.wait_for(reopen, _PATIENCE))
    server.restart()
    _expect("who answers", _ask(qnx, fd, b"pid"), b"%d" % server.pid)
    qnx.ha_close(fd)


STEPS: Sequence[Callable[[Any, Server], None]] = (names, messages, pulses, paths, recovery_by_name, recovery_by_path)


# Open points: a question and a decision, and how to ask. None of them needs another process.


@contextlib.contextmanager
def _lost(qnx: Any) -> Iterator[int]:
    """A connection whose channel is gone."""
    chid = qnx.ChannelCreate()
    coid = qnx.ConnectAttach(0, 0, chid, _FIRST, 0)
    qnx.ChannelDestroy(chid)
    try:
        yield coid
    finally:
        with contextlib.suppress(OSError):
            qnx.ConnectDetach(coid)


@contextlib.contextmanager
def _open(qnx: Any) -> Iterator[int]:
    """A connection to a channel of this process."""
    chid = qnx.ChannelCreate()
    coid = qnx.ConnectAttach(0, 0, chid, _FIRST, 0)
    try:
        yield coid
    finally:
        with contextlib.suppress(OSError):
            qnx.ConnectDetach(coid)
        qnx.ChannelDestroy(chid)


def _outcome(call: Callable[[], object]) -> str:
    """What a call returns, or the name of its errno."""
    try:
        return str(call())
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))


def _give_up(_coid: int, _handle: object) -> int:
    return -1


def attach_twice(qnx: Any) -> str:
    with _open(qnx) as coid:
        qnx.ha_attach(coid, _give_up)
        return _outcome(lambda: qnx.ha_attach(coid, _give_up))


def attach_nothing(qnx: Any) -> str:
    return _outcome(lambda: qnx.ha_attach(_NO_CONNECTION, _give_up))


def end_an_ordinary_connection(qnx: Any) -> str:
    with _open(qnx) as coid:
        return _outcome(lambda: qnx.ha_ConnectDetach(coid))


def recover_with_a_limit_of_0(qnx: Any) -> str:
    return f"{_calls_of_recovery(qnx, lambda coid: qnx.MsgSend(coid, b'x'), limit=0)} calls"


def recover_a_pulse(qnx: Any) -> str:
    return f"{_calls_of_recovery(qnx, lambda coid: qnx.MsgSendPulse(coid, -1, 1, 1))} calls"


def _calls_of_recovery(qnx: Any, send: Callable[[int], object], limit: Optional[int] = None) -> int:
    calls: List[int] = []

    def recover(coid: int, _handle: object) -> int:
        calls.append(coid)
        return -1

    with _lost(qnx) as coid:
        qnx.ha_attach(coid, recover)
        if limit is not None:
            qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, limit)
        with contextlib.suppress(OSError):
            send(coid)
    return len(calls)


def send_within_recovery(qnx: Any) -> str:
    outcomes: List[str] = []

    def recover(coid: int, _handle: object) -> int:
        if len(outcomes) < 3:
            outcomes.append("")
            outcomes[-1] = _outcome(lambda: qnx.MsgSend(coid, b"x"))
        return -1

    with _lost(qnx) as coid:
        qnx.ha_attach(coid, recover)
        with contextlib.suppress(OSError):
            qnx.MsgSend(coid, b"x")
    return ", ".join(outcomes)


def pulse_of_priority_0(qnx: Any) -> str:
    with _open(qnx) as coid:
        return _outcome(lambda: qnx.MsgSendPulse(coid, 0, 1, 1))


def message_to_a_file(qnx: Any) -> str:
    with open(os.devnull, "rb") as file:
        return _outcome(lambda: qnx.MsgSend(file.fileno(), b"x"))


def open_a_name(qnx: Any) -> str:
    return _outcome(lambda: qnx.open("/dev/name/local/ha-qnx-smoke", os.O_RDWR))


OPEN_POINTS = (
    ("D1", "ha_attach on an attached connection", attach_twice, "EEXIST"),
    ("D2", "ha_attach on a number that is not open", attach_nothing, "EBADF"),
    ("D3", "ha_ConnectDetach on an ordinary connection", end_an_ordinary_connection, "EBADF"),
    ("D8", "a limit of 0: the recovery function has", recover_with_a_limit_of_0, "0 calls"),
    ("D10", "MsgSend inside the recovery function", send_within_recovery, "EBADF"),
    ("D11", "a pulse that fails: the recovery function has", recover_a_pulse, "1 calls"),
    ("D30", "a pulse of priority 0", pulse_of_priority_0, "0"),
    ("D32", "a message to a file", message_to_a_file, "ENOSYS"),
    ("D34", "open of a name", open_a_name, "EINVAL"),
)


# The command.


def _chosen(wanted: Optional[Sequence[str]]) -> List[str]:
    if wanted:
        return list(wanted)
    return candidates_of_platform() if is_qnx() else ["native", "hybrid", "fallback"]


def examine(name: str) -> "tuple[List[Step], List[Point]]":
    """Try everything on a backend.

    Raises:
        BackendUnavailableError: it cannot be had.
    """
    qnx = backend(name)
    server = Server(name)
    steps: List[Step] = []
    try:
        server.start()
        for step in STEPS:
            began = time.monotonic()
            problem: Optional[str] = None
            try:
                step(qnx, server)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            steps.append(Step(name, step.__name__.replace("_", " "), problem, (time.monotonic() - began) * 1000))
    finally:
        server.kill()
    points = [Point(name, decision, question, ask(qnx), decided) for decision, question, ask, decided in OPEN_POINTS]
    return steps, points


def run(wanted: Optional[Sequence[str]], report: Optional[str]) -> int:
    """Try the backends, and print what was found; returns the exit status.

    Args:
        wanted: the backends; without them, those that a target tries, or all that a host can have.
        report: a file for it, as JSON.
    """
    # Connections are lost here on purpose, and the log would speak of each.
    logging.getLogger("ha_qnx").addHandler(logging.NullHandler())
    found: List[Step] = []
    points: List[Point] = []
    missing: Dict[str, str] = {}
    for name in _chosen(wanted):
        try:
            steps, asked = examine(name)
        except BackendUnavailableError as error:
            missing[name] = "; ".join(candidate.reason for candidate in error.candidates)
            sys.stdout.write(f"{name:<9} cannot be had: {missing[name]}\n")
            continue
        for step in steps:
            outcome = "ok" if step.problem is None else f"FAILED  {step.problem}"
            sys.stdout.write(f"{name:<9} {step.name:<18} {step.milliseconds:8.1f} ms  {outcome}\n")
        sys.stdout.flush()
        found += steps
        points += asked
    if points:
        sys.stdout.write("\nwhat QNX's documentation leaves open, and what this library does\n")
    for point in points:
        verdict = "as decided" if point.answer == point.decided else f"differs: decided is {point.decided}"
        sys.stdout.write(f"{point.backend:<9} {point.decision:<4} {point.question:<46} {point.answer:<8} {verdict}\n")
    if report is not None:
        content = {
            "steps": [step._asdict() for step in found],
            "open_points": [point._asdict() for point in points],
            "missing": missing,
        }
        with open(report, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
    if not found:
        return 2
    return int(any(step.problem is not None for step in found) or bool(wanted and missing))


if __name__ == "__main__":
    serve(backend(sys.argv[1]), *sys.argv[2:])
