"""Events that a server delivers: many, by several threads, of the own process, after a fork; and registering them."""

from ctypes import c_void_p, sizeof
from errno import EBADF, ESRCH
from typing import Any, Tuple

import pytest

from ha_qnx import (
    NTO_SIDE_CHANNEL,
    SIGEV_NONE_INIT,
    SIGEV_PULSE_INIT,
    SIGEV_PULSE_PRIO_INHERIT,
    SigEvent,
)

from .clients import Start, attach, detach, transact
from .expect import fails_with
from .marks import checks
from .peers import Peer
from .receiving import assert_nothing_waits, receive_message, receive_pulse, receive_values
from .servers import create_channel

MANY = 3000


def take_subscription(qnx: Any, chid: int) -> int:
    """The rcvid of a message, which is answered."""
    rcvid = receive_message(qnx, chid)
    qnx.MsgReply(rcvid, 0)
    return rcvid


def deliver(qnx: Any, rcvid: int, coid: int, values: "range") -> None:
    """Deliver pulses with these values."""
    for value in values:
        qnx.MsgDeliverEvent(rcvid, SIGEV_PULSE_INIT(coid, SIGEV_PULSE_PRIO_INHERIT, 1, value))


@pytest.fixture
def channel(qnx: Any) -> Tuple[int, int]:
    """A channel of this process, and a connection to it."""
    chid = qnx.ChannelCreate(0)
    return chid, qnx.ConnectAttach(0, 0, chid)


def subscribe(qnx: Any, peer: Peer) -> Tuple[int, int, int]:
    """Connect to a server in another process: its channel, the connection, and the rcvid that it has of us."""
    chid = peer.run(create_channel)
    coid = attach(qnx, peer.pid, chid, NTO_SIDE_CHANNEL, 0)
    taking = peer.start(take_subscription, chid)
    transact(qnx, coid, b"subscribe", 0)
    return chid, coid, int(taking.result())


def deliver_address(qnx: Any, rcvid: int, coid: int, address: int) -> None:
    """Deliver a pulse that carries an address."""
    event = SIGEV_PULSE_INIT(coid, SIGEV_PULSE_PRIO_INHERIT, 1)
    event.sigev_value.sival_ptr = address
    qnx.MsgDeliverEvent(rcvid, event)


@checks("B243")
def test_a_delivered_event_carries_an_address(qnx: Any, peer: Peer, channel: Tuple[int, int]) -> None:
    """All of it arrives."""
    chid, coid = channel
    _chid, _coid, rcvid = subscribe(qnx, peer)
    address = (1 << 8 * sizeof(c_void_p)) - 2
    peer.run(deliver_address, rcvid, coid, address)
    assert receive_pulse(qnx, chid).value.sival_ptr == address


@checks("B460", "B462", "D90")
def test_many_events_arrive_in_order(qnx: Any, peer: Peer, channel: Tuple[int, int]) -> None:
    """None is lost and none comes twice, though nobody receives while they are delivered."""
    chid, coid = channel
    _chid, _coid, rcvid = subscribe(qnx, peer)
    peer.run(deliver, rcvid, coid, range(MANY))
    assert receive_values(qnx, chid, MANY) == [*range(MANY)]
    assert_nothing_waits(qnx, chid)


@checks("B460")
def test_an_event_ends_the_wait_of_a_receiver(qnx: Any, peer: Peer, channel: Tuple[int, int], start: Start) -> None:
    """Several threads that receive get them, each pulse once."""
    chid, coid = channel
    _chid, _coid, rcvid = subscribe(qnx, peer)
    receivers = [start(receive_values, qnx, chid, 25).wait_until_blocked() for _ in range(4)]
    peer.run(deliver, rcvid, coid, range(100))
    assert sorted(value for receiver in receivers for value in receiver.result()) == [*range(100)]


@checks("B462")
def test_a_rcvid_is_known_after_many_messages(qnx: Any, peer: Peer, channel: Tuple[int, int], start: Start) -> None:
    """A subscription does not age with what its client sends later."""
    chid, coid = channel
    theirs, connection, rcvid = subscribe(qnx, peer)
    for _ in range(500):
        taking = peer.start(take_subscription, theirs)
        transact(qnx, connection, b"", 0)
        assert taking.result() != rcvid
    peer.run(deliver, rcvid, coid, range(1))
    assert receive_values(qnx, chid, 1) == [0]


@checks("B460")
def test_a_process_delivers_to_itself(qnx: Any, channel: Tuple[int, int], start: Start) -> None:
    """A client in the process of the server is a client like any other."""
    chid, coid = channel
    sending = start(transact, qnx, coid, b"subscribe", 0)
    rcvid = take_subscription(qnx, chid)
    sending.result()
    deliver(qnx, rcvid, coid, range(3))
    assert receive_values(qnx, chid, 3) == [0, 1, 2]


@checks("B462", "B156")
def test_an_event_needs_its_connection(qnx: Any, peer: Peer, channel: Tuple[int, int]) -> None:
    """A number whose connection has ended is none, until it is attached again."""
    chid, coid = channel
    _chid, _coid, rcvid = subscribe(qnx, peer)
    detach(qnx, coid)
    with fails_with(ESRCH):
        peer.run(deliver, rcvid, coid, range(1))
    again = qnx.ConnectAttach(0, 0, chid)
    peer.run(deliver, rcvid, again, range(2))
    assert receive_values(qnx, chid, 2) == [0, 1]


@checks("D91")
def test_an_event_whose_channel_goes_is_dropped(qnx: Any, peer: Peer, channel: Tuple[int, int]) -> None:
    """Nobody hears of one that was delivered before, and others come all the same."""
    chid, coid = channel
    _chid, _coid, rcvid = subscribe(qnx, peer)
    other = qnx.ChannelCreate(0)
    gone = qnx.ConnectAttach(0, 0, other)
    peer.run(deliver, rcvid, gone, range(1))
    qnx.ChannelDestroy(other)
    with fails_with(EBADF):
        peer.run(deliver, rcvid, gone, range(1))
    peer.run(deliver, rcvid, coid, range(5, 6))
    assert receive_values(qnx, chid, 1) == [5]


@checks("D93")
def test_events_are_registered(qnx: Any, channel: Tuple[int, int]) -> None:
    """For a connection that is there, or for any; and taken back."""
    _chid, coid = channel
    event = SIGEV_PULSE_INIT(coid, SIGEV_PULSE_PRIO_INHERIT, 1, 1)
    assert qnx.MsgRegisterEvent(event, coid) == 0
    assert qnx.MsgUnregisterEvent(event) == 0
    with fails_with(EBADF):
        qnx.MsgRegisterEvent(event, coid + 77)


@checks("B461")
@pytest.mark.parametrize("event", [None, 1, b"event"])
def test_an_event_is_a_structure(qnx: Any, event: Any) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError):
        qnx.MsgDeliverEvent(1, event)
    with pytest.raises(TypeError):
        qnx.MsgUnregisterEvent(event)
    with fails_with(ESRCH):
        qnx.MsgDeliverEvent(1, SIGEV_NONE_INIT())
    assert isinstance(SIGEV_NONE_INIT(), SigEvent)
