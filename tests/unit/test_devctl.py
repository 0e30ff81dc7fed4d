"""Device commands of servers in a few lines."""

import asyncio
import ctypes
import threading
from errno import EIO, ENODEV, ENOTTY
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from ha_qnx.conformance.waiting import Task, eventually

import ha_qnx
from ha_qnx import DCMD_ALL_GETFLAGS, DCMD_MISC, DIOF, DION, DIOT, DIOTF, LATER, Request, Service, aio
from ha_qnx.connection import connect
from ha_qnx.iomessages import devctl_reply

pytestmark = pytest.mark.usefixtures("shared_directory")

PATH = "/dev/device"
NONE, GET, SET, CHANGE = DION(DCMD_MISC, 1), DIOF(DCMD_MISC, 2, 4), DIOT(DCMD_MISC, 3, 4), DIOTF(DCMD_MISC, 4, 4)


class Device(Service):
    """A device that does what a test says, and notes what it is told."""

    def __init__(self) -> None:
        super().__init__(PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
        self.seen: List[Tuple[int, bytes]] = []
        self.answer: Callable[[Request], Any] = lambda request: None

    def devctl(self, request: Request, dcmd: int, data: bytes) -> Any:
        self.seen.append((dcmd, data))
        return self.answer(request)


class Loop(aio.Service):
    """The same in an event loop."""

    def __init__(self) -> None:
        super().__init__(PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
        self.seen: List[Tuple[int, bytes]] = []
        self.answer: Callable[[Request], Any] = lambda request: None
        self.is_ready = threading.Event()

    def ready(self) -> None:
        self.is_ready.set()

    async def devctl(self, request: Request, dcmd: int, data: bytes) -> Any:
        self.seen.append((dcmd, data))
        await asyncio.sleep(0)
        return self.answer(request)


@pytest.fixture
def device(serve_either: Callable[..., Any]) -> Any:
    return serve_either(Device, Loop)


@pytest.fixture
def fd(device: Any) -> Iterator[int]:
    with connect(PATH, recover=None) as connection:
        yield connection.coid


@pytest.mark.parametrize(
    ("answer", "info", "data"),
    [
        (None, 0, b"...."),
        (7, 7, b"...."),
        (-7, -7, b"...."),
        (b"ab", 0, b"ab.."),
        (bytearray(b"abcdef"), 0, b"abcd"),
        (ctypes.c_uint32(0x01010101), 0, b"\1\1\1\1"),
        ((7, b"ab"), 7, b"ab.."),
        ((7, None), 7, b"...."),
    ],
)
def test_what_a_handler_returns_is_the_answer(device: Any, fd: int, answer: Any, info: int, data: bytes) -> None:
    """None, an info, data as far as there is room for it, or both."""
    device.answer = lambda request: answer
    assert ha_qnx.devctl(fd, CHANGE, b"....") == (0, info, data)


def test_a_handler_gets_what_goes_to_the_device(device: Any, fd: int) -> None:
    """The command, and its data, if that goes there; data that the command does not ask for does not come back."""
    device.answer = lambda request: b"data"
    for dcmd in (NONE, GET, SET, CHANGE):
        assert ha_qnx.devctl(fd, dcmd, b"1234") == (0, 0, b"data" if dcmd in (GET, CHANGE) else b"1234")
    assert device.seen == [(NONE, b""), (GET, b""), (SET, b"1234"), (CHANGE, b"1234")]


def test_a_long_command_is_there_in_full(device: Any, fd: int) -> None:
    """However little of it was received at first."""
    device.answer = lambda request: request.data[16:]
    data = bytes(range(256)) * 1000
    assert ha_qnx.devctl(fd, CHANGE, data) == (0, 0, data)


def raising(error: Exception) -> Callable[[Request], Any]:
    """A handler that fails."""

    def fail(_request: Request) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(ENODEV, "no device"), ENODEV), (ValueError("a fault"), EIO), (OSError(), EIO)]
)
def test_an_exception_is_an_error(device: Any, fd: int, error: Exception, status: int) -> None:
    """An errno goes to the client, and is what devctl returns."""
    device.answer = raising(error)
    assert ha_qnx.devctl(fd, GET, bytes(4)) == (status, 0, bytes(4))


def test_a_handler_answers_later(device: Any, fd: int) -> None:
    """By a reply of its own making, as for any message."""
    held: List[Request] = []

    def hold(request: Request) -> Any:
        held.append(request)
        return LATER

    device.answer = hold
    task = Task(ha_qnx.devctl, fd, GET, bytes(4))
    eventually(lambda: held, "the command")
    held[0].reply(0, devctl_reply(3, b"late"))
    assert task.result() == (0, 3, b"late")


def test_a_service_without_commands_has_none() -> None:
    """ENOTTY, which ENOSYS becomes; also for what libc asks by itself."""
    with Service(PATH, flags=ha_qnx.RESMGR_FLAG_SELF).running(), connect(PATH, recover=None) as connection:
        for dcmd in (GET, DCMD_ALL_GETFLAGS):
            assert ha_qnx.devctl(connection, dcmd, bytes(4)) == (ENOTTY, 0, bytes(4))


def test_a_command_that_is_too_short_is_refused(device: Any, fd: int) -> None:
    """EINVAL, and no handler is called."""
    with pytest.raises(OSError, match="Invalid argument"):
        ha_qnx.MsgSend(fd, ha_qnx.IO_DEVCTL.to_bytes(2, "little") + bytes(8))
    assert device.seen == []
