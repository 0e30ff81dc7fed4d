"""What services tell of readiness, and the events that clients arm."""

import asyncio
import threading
from errno import EAGAIN, EINVAL, EIO, ENOSYS
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.receiving import assert_nothing_waits, receive_pulse

import ha_qnx
from ha_qnx import (
    NOTIFY_ACTION_CONDARM,
    NOTIFY_ACTION_POLL,
    NOTIFY_ACTION_POLLARM,
    NOTIFY_ACTION_TRANARM,
    NOTIFY_COND_EXTEN,
    NOTIFY_COND_INPUT,
    NOTIFY_COND_OBAND,
    NOTIFY_COND_OUTPUT,
    NOTIFY_CONDE_RDNORM,
    SI_NOTIFY,
    SIGEV_PULSE_INIT,
    Request,
    Service,
    SigEvent,
    aio,
)
from ha_qnx.connection import connect
from ha_qnx.iomessages import NOTIFY, notify_message

pytestmark = pytest.mark.usefixtures("shared_directory")

PATH = "/dev/device"
INPUT, OUTPUT, OBAND = NOTIFY_COND_INPUT, NOTIFY_COND_OUTPUT, NOTIFY_COND_OBAND
POLL, POLLARM = NOTIFY_ACTION_POLL, NOTIFY_ACTION_POLLARM
TRANARM, CONDARM = NOTIFY_ACTION_TRANARM, NOTIFY_ACTION_CONDARM

Held = Callable[[], Any]


class Device(Service):
    """A device of which holds what a test says."""

    def __init__(self) -> None:
        super().__init__(PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
        self.asked: List[int] = []
        self.held: Held = lambda: 0

    def notify(self, request: Request, conditions: int) -> Any:
        self.asked.append(conditions)
        return self.held()


class Loop(aio.Service):
    """The same in an event loop."""

    def __init__(self) -> None:
        super().__init__(PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
        self.asked: List[int] = []
        self.held: Held = lambda: 0
        self.is_ready = threading.Event()

    def ready(self) -> None:
        self.is_ready.set()

    async def notify(self, request: Request, conditions: int) -> Any:
        self.asked.append(conditions)
        await asyncio.sleep(0)
        return self.held()


@pytest.fixture
def device(serve_either: Callable[..., Any]) -> Any:
    return serve_either(Device, Loop)


@pytest.fixture
def fd(device: Any) -> Iterator[int]:
    with connect(PATH, recover=None) as connection:
        yield connection.coid


@pytest.fixture
def channel() -> Iterator[Tuple[int, int]]:
    """A channel, and a connection to it, for pulses."""
    chid = ha_qnx.ChannelCreate(0)
    yield chid, ha_qnx.ConnectAttach(0, 0, chid)
    ha_qnx.ChannelDestroy(chid)


def pulse(channel: Tuple[int, int], value: int = 1, code: int = 5) -> SigEvent:
    return SIGEV_PULSE_INIT(channel[1], 10, code, value)


def received(channel: Tuple[int, int]) -> Tuple[int, int]:
    """The code and the value of the next pulse."""
    found = receive_pulse(ha_qnx, channel[0])
    return found.code, found.value.sival_int


@pytest.mark.parametrize(
    ("flags", "held", "told"),
    [
        (INPUT, INPUT, INPUT),
        (INPUT, OUTPUT, 0),
        (INPUT | OUTPUT, INPUT | OUTPUT | OBAND, INPUT | OUTPUT),
        (INPUT, True, INPUT),
        (INPUT, NOTIFY_CONDE_RDNORM, INPUT),
        (0xD0001065, INPUT, INPUT | NOTIFY_CONDE_RDNORM),
        (0x90000001, INPUT, INPUT | NOTIFY_CONDE_RDNORM),
        (NOTIFY_COND_EXTEN | NOTIFY_CONDE_RDNORM, INPUT, NOTIFY_CONDE_RDNORM),
        (0xA0000002, INPUT, 0),
    ],
)
def test_a_client_is_told_what_it_asks(device: Any, fd: int, flags: int, held: int, told: int) -> None:
    """In the form in which it asks, whichever the service says it in."""
    device.held = lambda: held
    assert ha_qnx.ionotify(fd, POLL, flags) == told
    assert len(device.asked) == 1


def test_a_service_is_asked_for_plain_conditions(device: Any, fd: int) -> None:
    """However a client has named them."""
    for flags in (INPUT, 0x90000001, NOTIFY_COND_EXTEN | NOTIFY_CONDE_RDNORM, INPUT | NOTIFY_CONDE_RDNORM):
        ha_qnx.ionotify(fd, POLL, flags)
    assert device.asked == [INPUT] * 4


def test_an_event_acts_once(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """When the service says that its condition holds; to be told again, the client asks again."""
    for value in (7, 8):
        assert ha_qnx.ionotify(fd, POLLARM, INPUT, pulse(channel, value)) == 0
        assert device.trigger(OUTPUT) == 0
        assert_nothing_waits(ha_qnx, channel[0])
        assert device.trigger() == 1
        assert received(channel) == (5, value)
        assert device.trigger() == 0
    assert_nothing_waits(ha_qnx, channel[0])


def test_what_holds_is_not_waited_for(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """POLLARM and CONDARM arm nothing then; TRANARM waits for what comes anew."""
    device.held = lambda: INPUT
    assert ha_qnx.ionotify(fd, POLLARM, INPUT, pulse(channel)) == INPUT
    assert ha_qnx.ionotify(fd, CONDARM, INPUT, pulse(channel)) == 0
    assert device.trigger() == 0
    assert ha_qnx.ionotify(fd, TRANARM, INPUT, pulse(channel, 3)) == 0
    assert_nothing_waits(ha_qnx, channel[0])
    assert device.trigger() == 1
    assert received(channel) == (5, 3)


def test_condarm_says_by_an_error_that_it_waits(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """EAGAIN, and the event is armed."""
    with fails_with(EAGAIN):
        ha_qnx.ionotify(fd, CONDARM, INPUT, pulse(channel))
    assert device.trigger() == 1
    assert received(channel) == (5, 1)


def test_polling_takes_an_event_back(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """So does a call without an event; each only for the conditions that it names."""
    for action in (POLL, POLLARM):
        assert ha_qnx.ionotify(fd, POLLARM, INPUT, pulse(channel, 1)) == 0
        assert ha_qnx.ionotify(fd, POLLARM, OUTPUT, pulse(channel, 2)) == 0
        assert ha_qnx.ionotify(fd, action, INPUT) == 0
        assert device.trigger(INPUT | OUTPUT) == 1
        assert received(channel) == (5, 2)


def test_the_last_event_counts(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """There is one for each connection and condition; another connection has its own."""
    with connect(PATH, recover=None) as other:
        for value in (1, 2):
            assert ha_qnx.ionotify(fd, POLLARM, INPUT, pulse(channel, value)) == 0
        assert ha_qnx.ionotify(other, POLLARM, INPUT, pulse(channel, 3)) == 0
        assert device.trigger() == 2
        assert sorted([received(channel), received(channel)]) == [(5, 2), (5, 3)]


def test_what_comes_between_asking_and_arming_is_told(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """By the answer, or by the event, and not by both."""
    answers = iter([0, INPUT])
    device.held = lambda: next(answers)
    assert ha_qnx.ionotify(fd, POLLARM, INPUT, pulse(channel)) == INPUT
    assert device.trigger() == 0
    acted: List[int] = []

    def held() -> int:
        if len(device.asked) == 4:
            acted.append(device.trigger())
        return INPUT if acted else 0

    device.held = held
    assert ha_qnx.ionotify(fd, POLLARM, INPUT, pulse(channel)) == 0
    assert acted == [1]
    assert received(channel) == (5, 1)
    assert device.trigger() == 0


def test_some_events_say_what_holds(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """Those with the code SI_NOTIFY, which poll sends; the code of a pulse has eight bits."""
    for flags, code in ((OUTPUT, SI_NOTIFY), (0xA0000002, -2)):
        assert ha_qnx.ionotify(fd, POLLARM, flags, pulse(channel, 0x123, SI_NOTIFY)) == 0
        assert device.trigger(OUTPUT) == 1
        found = received(channel)
        assert (found[0], found[1] & 0xFFFFFFFF) == (code, 0x123 | OUTPUT | (flags & NOTIFY_COND_EXTEN))


def test_an_opening_can_be_told_alone(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """By its OCB."""
    ocbs = []
    device.held = lambda: 0
    original = device.notify

    def notify(request: Request, conditions: int) -> Any:
        ocbs.append(request.ocb)
        return original(request, conditions)

    device.notify = notify
    with connect(PATH, recover=None) as other:
        assert ha_qnx.ionotify(fd, POLLARM, INPUT, pulse(channel, 1)) == 0
        mine = ocbs[-1]
        assert ha_qnx.ionotify(other, POLLARM, INPUT, pulse(channel, 2)) == 0
        assert device.trigger(INPUT, mine) == 1
        assert received(channel) == (5, 1)


def test_a_connection_that_is_closed_has_nothing_armed(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """Nor has one that gets its number."""
    with connect(PATH, recover=None) as other:
        assert ha_qnx.ionotify(other, POLLARM, INPUT, pulse(channel, 1)) == 0
    with connect(PATH, recover=None):
        assert device.trigger() == 0
    assert ha_qnx.ionotify(fd, POLL, INPUT) == 0


def test_an_event_whose_channel_is_gone_does_not_count(device: Any, fd: int) -> None:
    """Nobody is told, and others are."""
    chid = ha_qnx.ChannelCreate(0)
    coid = ha_qnx.ConnectAttach(0, 0, chid)
    assert ha_qnx.ionotify(fd, POLLARM, INPUT, SIGEV_PULSE_INIT(coid, 10, 1, 1)) == 0
    ha_qnx.ChannelDestroy(chid)
    assert device.trigger() == 0


def test_a_service_that_tells_nothing_has_none(channel: Tuple[int, int]) -> None:
    """ENOSYS, and nothing is armed."""
    service = Service(PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
    with service.running(), connect(PATH, recover=None) as connection:
        for action in (POLL, POLLARM):
            with fails_with(ENOSYS):
                ha_qnx.ionotify(connection, action, INPUT, pulse(channel))
        assert service.trigger() == 0


def test_a_handler_that_fails_is_an_error(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """EIO, and nothing is armed; so is what is no number."""
    device.held = lambda: "ready"
    with fails_with(EIO):
        ha_qnx.ionotify(fd, POLLARM, INPUT, pulse(channel))
    assert device.trigger() == 0


def test_messages_that_cannot_be_meant_are_refused(device: Any, fd: int) -> None:
    """EINVAL: an action that is none, or too few bytes; no handler is called."""
    with fails_with(EINVAL):
        ha_qnx.ionotify(fd, 17, INPUT)
    message = notify_message(POLLARM, INPUT, None)
    for length in (NOTIFY.size - 1, NOTIFY.size, len(message) - 40):
        with fails_with(EINVAL):
            ha_qnx.MsgSend(fd, message[:length])
    assert device.asked == []


def test_clients_of_32_bits_are_told(device: Any, fd: int, channel: Tuple[int, int]) -> None:
    """By an _IO_NOTIFY, whose event is shorter and stands before the rest."""
    event = pulse(channel, 9)
    head = NOTIFY.pack(ha_qnx.IO_NOTIFY, 64, POLLARM, INPUT)
    fields = (4, event.sigev_coid, 9, 5, 10)
    message = head + b"".join(
        number.to_bytes(size, "little", signed=True) for number, size in zip(fields, (4, 4, 4, 2, 2))
    )
    reply = bytearray(8)
    assert ha_qnx.MsgSend(fd, message + bytes(64 - len(message)), reply) == 0
    assert reply == bytes(8)
    assert device.trigger() == 1
    assert received(channel) == (5, 9)
