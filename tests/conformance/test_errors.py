"""Conventions: how failures are told, and what is refused before anything is done."""

import contextlib
import errno
from ctypes import c_void_p, sizeof
from errno import EBADF, EEXIST, EINVAL, ENOENT, ESRCH, ETIMEDOUT
from typing import Any, Callable, Dict, Iterator, List, Tuple, Type

import pytest

import ha_qnx
from ha_qnx import (
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_RECEIVE,
    ClientInfo,
    MessageInfo,
    Pulse,
)

from .clients import BLANK, Client, Start, expect_nothing_waits, transact
from .expect import fails_with
from .marks import checks, open_point

NO_COID = NTO_SIDE_CHANNEL | 1000


@pytest.fixture(params=["near", "far"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A client in this process, and then one in another process."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


# Failures.


def attach_name_twice(qnx: Any, name: str) -> None:
    """Ask for a name that is taken."""
    qnx.name_attach(name)
    qnx.name_attach(name)


def receive_at_once(qnx: Any, _name: str) -> None:
    """Receive from an empty channel without waiting."""
    chid = qnx.ChannelCreate(0)
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
    qnx.MsgReceive(chid, bytearray(10))


FAILURES: Dict[str, Tuple[Callable[[Any, str], object], int, Type[OSError]]] = {
    "MsgSend": (lambda qnx, name: qnx.MsgSend(NO_COID, b"message"), EBADF, OSError),
    "MsgSendv": (lambda qnx, name: qnx.MsgSendv(NO_COID, [b"message"], None), EBADF, OSError),
    "MsgSendPulse": (lambda qnx, name: qnx.MsgSendPulse(NO_COID, 10, 0, 0), EBADF, OSError),
    "MsgSendPulsePtr": (lambda qnx, name: qnx.MsgSendPulsePtr(NO_COID, 10, 0, 0), EBADF, OSError),
    "MsgReceive": (lambda qnx, name: qnx.MsgReceive(1000, None), ESRCH, ProcessLookupError),
    "MsgReceive-timeout": (receive_at_once, ETIMEDOUT, TimeoutError),
    "MsgReply": (lambda qnx, name: qnx.MsgReply(0, 0), ESRCH, ProcessLookupError),
    "ChannelDestroy": (lambda qnx, name: qnx.ChannelDestroy(1000), EINVAL, OSError),
    "ConnectAttach": (lambda qnx, name: qnx.ConnectAttach(0, 0, 1000), ESRCH, ProcessLookupError),
    "ConnectDetach": (lambda qnx, name: qnx.ConnectDetach(NO_COID), EINVAL, OSError),
    "name_open": (lambda qnx, name: qnx.name_open(name), ENOENT, FileNotFoundError),
    "name_attach": (attach_name_twice, EEXIST, FileExistsError),
}


@checks("B1")
@pytest.mark.parametrize(("call", "number", "kind"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_an_oserror(
    qnx: Any, name: str, call: Callable[[Any, str], object], number: int, kind: Type[OSError]
) -> None:
    """A call that fails raises OSError with the errno, and so the subclass that Python has for it."""
    with pytest.raises(kind) as failure:
        call(qnx, name)
    assert failure.value.errno == number
    assert failure.value.strerror


# The forms that return their errors.

RETURNING: Dict[str, Callable[[Any, int], int]] = {
    "MsgSend_r": lambda qnx, coid: qnx.MsgSend_r(coid, b"message", None),
    "MsgSendv_r": lambda qnx, coid: qnx.MsgSendv_r(coid, [b"message"], None),
    "MsgSendsv_r": lambda qnx, coid: qnx.MsgSendsv_r(coid, b"message", None),
    "MsgSendvs_r": lambda qnx, coid: qnx.MsgSendvs_r(coid, [b"message"], None),
    "MsgSendnc_r": lambda qnx, coid: qnx.MsgSendnc_r(coid, b"message", None),
    "MsgSendvnc_r": lambda qnx, coid: qnx.MsgSendvnc_r(coid, [b"message"], None),
    "MsgSendsvnc_r": lambda qnx, coid: qnx.MsgSendsvnc_r(coid, b"message", None),
    "MsgSendvsnc_r": lambda qnx, coid: qnx.MsgSendvsnc_r(coid, [b"message"], None),
    "MsgSendPulse_r": lambda qnx, coid: qnx.MsgSendPulse_r(coid, 10, 0, 0),
    "MsgSendPulsePtr_r": lambda qnx, coid: qnx.MsgSendPulsePtr_r(coid, 10, 0, 0),
    "ha_ConnectDetach_r": lambda qnx, coid: qnx.ha_ConnectDetach_r(coid),
}


@checks("B2", "B6", "B158")
@pytest.mark.parametrize("call", RETURNING.values(), ids=RETURNING)
def test_a_form_with_r_returns_the_negative_errno(qnx: Any, call: Callable[[Any, int], int]) -> None:
    """The forms with _r return -EBADF for what is no connection; they raise nothing but what bad arguments deserve."""
    assert call(qnx, NO_COID) == -EBADF
    with pytest.raises(TypeError):
        call(qnx, "coid")  # type: ignore[arg-type]  # it is meant to be wrong


@checks("B6")
def test_a_pulse_by_the_form_with_r_returns_0(qnx: Any) -> None:
    """MsgSendPulse_r returns 0 when the pulse is sent, and -EINVAL for a priority that is none."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    assert qnx.MsgSendPulse_r(coid, 10, 1, 2) == 0
    assert qnx.MsgSendPulse_r(coid, 256, 1, 2) == -EINVAL
    pulse = Pulse()
    assert qnx.MsgReceive(chid, pulse) == 0
    assert (pulse.code, pulse.value.sival_int) == (1, 2)


@checks("B6", "B7")
def test_attaching_and_detaching_by_the_forms_with_r(qnx: Any) -> None:
    """ha_ConnectAttach_r returns the connection or -errno, ha_ConnectDetach_r 0 or -errno."""
    chid = qnx.ChannelCreate(0)
    arguments = (NTO_SIDE_CHANNEL, 0, lambda coid, handle: -1)
    assert qnx.ha_ConnectAttach_r(0, 0, chid + 1000, *arguments) == -ESRCH
    coid = qnx.ha_ConnectAttach_r(0, 0, chid, *arguments)
    assert coid & NTO_SIDE_CHANNEL
    assert qnx.ha_ConnectDetach_r(coid) == 0
    assert qnx.ha_ConnectDetach_r(coid) == -EBADF


def transact_r(qnx: Any, coid: int, message: bytes, room: int) -> Tuple[int, bytes]:
    """Send a message by the form that returns its errors."""
    reply = bytearray(BLANK * room)
    status: int = qnx.MsgSend_r(coid, message, reply)
    return status, bytes(reply)


@checks("B8", "B9")
def test_a_negative_status_is_a_status(qnx: Any, client: Client) -> None:
    """MsgSend returns a negative status as it is, with the data; MsgSend_r, too, where it looks like an error."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for status in (-1, -EBADF, -4711, -(2**31)):
        for function in (transact, transact_r):
            call = client.start(function, coid, b"message", 8)
            qnx.MsgReply(qnx.MsgReceive(chid, bytearray(10)), status, b"reply")
            assert call.result() == (status, b"reply" + BLANK * 3)


# Numbers of errors.


@checks("D18")
@open_point("D18")
def test_the_errors_of_qnx_have_numbers() -> None:
    """An error that the host has, has the host's number; one that only QNX knows has QNX's."""
    own = {"ERESTART": 91, "ENOREMOTE": 300, "ENONDP": 301, "EBADFSYS": 302, "ESRVRFAULT": 312}
    assert {name: getattr(ha_qnx, name) for name in own} == {
        name: getattr(errno, name, number) for name, number in own.items()
    }


# What is refused before anything is done.


class Scene:
    """A server with one message in work, one in its queue and one done, on which bad arguments are tried."""

    def __init__(self, qnx: Any, start: Start) -> None:
        self._qnx = qnx
        self._start = start
        self.chid = qnx.ChannelCreate(0)
        self.coid = qnx.ConnectAttach(0, 0, self.chid)
        self._in_work = start(transact, qnx, self.coid, b"in work", 8)
        self.rcvid = qnx.MsgReceive(self.chid, bytearray(10))
        done = start(transact, qnx, self.coid, b"done", 8)
        rcvid = qnx.MsgReceive(self.chid, bytearray(10))
        self._in_queue = start(transact, qnx, self.coid, b"in queue", 8).wait_until_blocked()
        qnx.MsgReply(rcvid, 0)
        done.result()

    def outcome(self, call: str, arguments: List[Any]) -> str:
        """What a call raises. It is made in a thread of its own, since it might block if it is not refused."""
        task = self._start(getattr(self._qnx, call), *arguments)
        with contextlib.suppress(AssertionError):
            return type(task.error(2.0)).__name__
        return "nothing"

    def expect_untouched(self) -> None:
        """Both messages are where they were, and nothing else is."""
        for status, task, message in ((1, self._in_work, b"in work"), (2, self._in_queue, b"in queue")):
            buffer = bytearray(10)
            rcvid = self.rcvid if task is self._in_work else self._qnx.MsgReceive(self.chid, None)
            assert self._qnx.MsgRead(rcvid, buffer, 0) == len(message)
            assert buffer.startswith(message)
            self._qnx.MsgReply(rcvid, status, b"reply")
            assert task.result() == (status, b"reply" + BLANK * 3)
        expect_nothing_waits(self._qnx, self.chid)


@pytest.fixture
def scene(qnx: Any, start: Start) -> Iterator[Scene]:
    scene = Scene(qnx, start)
    yield scene
    # If something was accepted that should not have been, its thread may wait for ever.
    with contextlib.suppress(OSError):
        qnx.ChannelDestroy(scene.chid)


INT = (-(2**31), 2**31 - 1)
UNSIGNED = (0, 2**32 - 1)
EITHER = (-(2**31), 2**32 - 1)
LONG = (-(2**63), 2**63 - 1)
SIZE = (0, 2**64 - 1)
ADDRESS = (0, 2 ** (8 * sizeof(c_void_p)) - 1)

Arguments = Callable[[Scene], List[Any]]

SENDING: Dict[str, Arguments] = {
    f"MsgSend{kind}{cancelling}{returning}": arguments
    for kind, arguments in {
        "": lambda scene: [scene.coid, b"message", bytearray(8)],
        "v": lambda scene: [scene.coid, [b"message"], None],
        "sv": lambda scene: [scene.coid, b"message", None],
        "vs": lambda scene: [scene.coid, [b"message"], None],
    }.items()
    for cancelling in ("", "nc")
    for returning in ("", "_r")
}

# The calls, good arguments, and the ranges of those that are numbers.
NUMBERS: Dict[str, Tuple[Arguments, Dict[int, Tuple[int, int]]]] = {
    "ChannelCreate": (lambda scene: [0], {0: UNSIGNED}),
    "ChannelDestroy": (lambda scene: [scene.chid], {0: INT}),
    "ConnectAttach": (
        lambda scene: [0, 0, scene.chid, NTO_SIDE_CHANNEL, 0],
        {0: UNSIGNED, 1: INT, 2: INT, 3: EITHER, 4: EITHER},
    ),
    "ConnectDetach": (lambda scene: [scene.coid], {0: INT}),
    "ConnectServerInfo": (lambda scene: [0, scene.coid], {0: INT, 1: INT}),
    "ConnectFlags": (lambda scene: [0, scene.coid, 0, 0], {0: INT, 1: INT, 2: UNSIGNED, 3: UNSIGNED}),
    "ConnectClientInfo": (lambda scene: [-1, 0], {0: INT, 1: INT}),
    **{form: (arguments, {0: INT}) for form, arguments in SENDING.items()},
    "MsgSendPulse": (lambda scene: [scene.coid, 10, 0, 0], {0: INT, 1: INT, 2: INT, 3: INT}),
    "MsgSendPulse_r": (lambda scene: [scene.coid, 10, 0, 0], {0: INT, 1: INT, 2: INT, 3: INT}),
    "MsgSendPulsePtr": (lambda scene: [scene.coid, 10, 0, 0], {0: INT, 1: INT, 2: INT, 3: ADDRESS}),
    "MsgSendPulsePtr_r": (lambda scene: [scene.coid, 10, 0, 0], {0: INT, 1: INT, 2: INT, 3: ADDRESS}),
    "TimerTimeout": (lambda scene: [0, 0], {0: UNSIGNED, 1: SIZE}),
    "MsgReceive": (lambda scene: [scene.chid, bytearray(100)], {0: INT}),
    "MsgReceivev": (lambda scene: [scene.chid, [bytearray(100)]], {0: INT}),
    "MsgReceivePulse": (lambda scene: [scene.chid, bytearray(100)], {0: INT}),
    "MsgReply": (lambda scene: [scene.rcvid, 0, b"wrong"], {0: LONG, 1: LONG}),
    "MsgReplyv": (lambda scene: [scene.rcvid, 0, [b"wrong"]], {0: LONG, 1: LONG}),
    "MsgError": (lambda scene: [scene.rcvid, 5], {0: LONG, 1: INT}),
    "MsgRead": (lambda scene: [scene.rcvid, bytearray(10), 0], {0: LONG, 2: SIZE}),
    "MsgReadv": (lambda scene: [scene.rcvid, [bytearray(10)], 0], {0: LONG, 2: SIZE}),
    "MsgWrite": (lambda scene: [scene.rcvid, b"wrong", 0], {0: LONG, 2: SIZE}),
    "MsgWritev": (lambda scene: [scene.rcvid, [b"wrong"], 0], {0: LONG, 2: SIZE}),
    "MsgInfo": (lambda scene: [scene.rcvid], {0: LONG}),
}


@pytest.mark.parametrize("call", NUMBERS)
def test_what_is_no_number_is_refused(scene: Scene, call: str) -> None:
    """Where a number belongs, anything else is a TypeError, a float of the right value too; nothing is done."""
    arguments, ranges = NUMBERS[call]
    outcomes = {}
    for position in ranges:
        good = arguments(scene)[position]
        for wrong in ("1", b"1", None, [], float(good), object()):
            if not (call == "TimerTimeout" and position == 1 and wrong is None):
                tried = arguments(scene)
                tried[position] = wrong
                outcomes[position, repr(wrong)] = scene.outcome(call, tried)
    assert outcomes == dict.fromkeys(outcomes, "TypeError")
    scene.expect_untouched()


@pytest.mark.parametrize("call", NUMBERS)
def test_a_number_out_of_range_is_refused(scene: Scene, call: str) -> None:
    """A number that its C type cannot hold is a ValueError; nothing is done."""
    arguments, ranges = NUMBERS[call]
    outcomes = {}
    for position, (low, high) in ranges.items():
        for wrong in (low - 1, high + 1):
            tried = arguments(scene)
            tried[position] = wrong
            outcomes[position, wrong] = scene.outcome(call, tried)
    assert outcomes == dict.fromkeys(outcomes, "ValueError")
    scene.expect_untouched()


NO_SOURCES: Dict[str, Any] = {
    "text": "message",
    "number": 7,
    "list": [b"message"],
    "not-contiguous": memoryview(bytes(20))[::2],
    "reversed": memoryview(bytes(20))[::-1],
}
NO_SINKS: Dict[str, Any] = {
    "text": "message",
    "number": 7,
    "list": [bytearray(7)],
    "read-only": b"message",
    "read-only-view": memoryview(bytearray(7)).toreadonly(),
    "large-read-only": bytes(100_000),
    "not-contiguous": memoryview(bytearray(20))[::2],
}
NO_VECTORS: Dict[str, Any] = {"text": "message", "bytes": b"message", "bytearray": bytearray(7), "number": 7}
WRONG: Dict[str, Dict[str, Any]] = {
    "source": NO_SOURCES,
    "sink": NO_SINKS,
    "sources": {**NO_VECTORS, **{f"part-{name}": [b"part", part] for name, part in NO_SOURCES.items()}},
    "sinks": {**NO_VECTORS, **{f"part-{name}": [bytearray(4), part] for name, part in NO_SINKS.items()}},
}

# The calls, good arguments, and the kinds of those that are buffers or vectors of buffers.
BUFFERS: Dict[str, Tuple[Arguments, Dict[int, str]]] = {
    **{
        form: (
            arguments,
            {
                1: "sources" if form.startswith("MsgSendv") else "source",
                2: "sinks" if form.replace("nc", "").replace("_r", "") in ("MsgSendv", "MsgSendsv") else "sink",
            },
        )
        for form, arguments in SENDING.items()
    },
    "MsgReceive": (lambda scene: [scene.chid, None], {1: "sink"}),
    "MsgReceivev": (lambda scene: [scene.chid, None], {1: "sinks"}),
    "MsgReceivePulse": (lambda scene: [scene.chid, None], {1: "sink"}),
    "MsgReply": (lambda scene: [scene.rcvid, 0, None], {2: "source"}),
    "MsgReplyv": (lambda scene: [scene.rcvid, 0, None], {2: "sources"}),
    "MsgRead": (lambda scene: [scene.rcvid, None, 0], {1: "sink"}),
    "MsgReadv": (lambda scene: [scene.rcvid, None, 0], {1: "sinks"}),
    "MsgWrite": (lambda scene: [scene.rcvid, None, 0], {1: "source"}),
    "MsgWritev": (lambda scene: [scene.rcvid, None, 0], {1: "sources"}),
}


@pytest.mark.parametrize("call", BUFFERS)
def test_what_is_no_buffer_is_refused(scene: Scene, call: str) -> None:
    """What has no bytes is a TypeError, as is what cannot be written to where something is to be received.

    What does not lie in one piece is a BufferError. Nothing is sent, received or answered, and one bad part of a vector
    spoils it all.
    """
    arguments, kinds = BUFFERS[call]
    outcomes = {}
    for position, kind in kinds.items():
        for name, wrong in WRONG[kind].items():
            tried = arguments(scene)
            tried[position] = wrong
            outcomes[position, name] = scene.outcome(call, tried)
    not_in_one_piece = ("not-contiguous", "reversed")
    assert outcomes == {key: "BufferError" if key[1].endswith(not_in_one_piece) else "TypeError" for key in outcomes}
    scene.expect_untouched()


@pytest.mark.parametrize("call", ["MsgReceive", "MsgReceivev", "MsgReceivePulse", "ConnectServerInfo"])
def test_what_is_no_message_info_is_refused(scene: Scene, call: str) -> None:
    """Information is filled into a MessageInfo; anything else is a TypeError, and nothing is received."""
    if call == "ConnectServerInfo":
        arguments = [0, scene.coid]
    else:
        arguments = [scene.chid, [bytearray(100)] if call == "MsgReceivev" else bytearray(100)]
    wrong: List[Any] = [{}, 7, "info", MessageInfo, ClientInfo(), bytearray(100)]
    outcomes = {repr(info): scene.outcome(call, [*arguments, info]) for info in wrong}
    assert outcomes == dict.fromkeys(outcomes, "TypeError")
    scene.expect_untouched()


@checks("B1", "D41")
@pytest.mark.parametrize(
    "call",
    [
        lambda qnx, coid, name: qnx.ChannelCreate(1 << 30),
        lambda qnx, coid, name: qnx.TimerTimeout(1 << 20, 1000),
        lambda qnx, coid, name: qnx.name_attach(name, 1 << 20),
        lambda qnx, coid, name: qnx.name_open(name, 1 << 20),
    ],
    ids=["ChannelCreate", "TimerTimeout", "name_attach", "name_open"],
)
def test_an_unknown_flag_is_refused(qnx: Any, name: str, call: Callable[[Any, int, str], object]) -> None:
    """A flag that no release of QNX knows, or that cannot be set, is EINVAL; nothing is made."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    flags = qnx.ConnectFlags(0, coid, 0, 0)
    with fails_with(EINVAL):
        call(qnx, coid, name)
    assert qnx.ConnectFlags(0, coid, 0, 0) == flags
    with fails_with(ENOENT):
        qnx.name_open(name)
