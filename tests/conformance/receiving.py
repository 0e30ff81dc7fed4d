"""Receiving with patience: what does not arrive lets a test fail rather than hang."""

import ctypes
from errno import ETIMEDOUT
from typing import Any, List, Optional

from ha_qnx import NTO_TIMEOUT_RECEIVE, MessageInfo, Pulse

from .expect import fails_with
from .waiting import DEADLINE

#: The deadline of all waiting, as TimerTimeout takes it.
PATIENCE = int(DEADLINE * 1e9)

#: What is to expire waits not longer than needed, in nanoseconds.
SHORT = 30_000_000

PULSE_SIZE = ctypes.sizeof(Pulse)


def receive_message(qnx: Any, chid: int, msg: Any = None, info: Optional[MessageInfo] = None) -> int:
    """The rcvid of the next item of a channel, which has to be a message."""
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, PATIENCE)
    rcvid: int = qnx.MsgReceive(chid, bytearray(PULSE_SIZE) if msg is None else msg, info)
    assert rcvid > 0, "a pulse rather than a message"
    return rcvid


def receive_pulse(qnx: Any, chid: int) -> Pulse:
    """The next item of a channel, which has to be a pulse."""
    pulse = Pulse()
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, PATIENCE)
    assert qnx.MsgReceive(chid, pulse) == 0, "a message rather than a pulse"
    return pulse


def receive_values(qnx: Any, chid: int, count: int) -> List[int]:
    """The values of the next pulses of a channel."""
    return [receive_pulse(qnx, chid).value.sival_int for _ in range(count)]


def assert_nothing_waits(qnx: Any, chid: int) -> None:
    """Neither a message nor a pulse waits on a channel."""
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
    with fails_with(ETIMEDOUT):
        qnx.MsgReceive(chid, bytearray(PULSE_SIZE))


def receive_what_waits(qnx: Any, chid: int, most: int) -> List[Pulse]:
    """The pulses that wait on a channel, which have to be fewer than that."""
    pulses: List[Pulse] = []
    with fails_with(ETIMEDOUT):
        while len(pulses) < most:
            pulse = Pulse()
            qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
            assert qnx.MsgReceive(chid, pulse) == 0, "a message rather than a pulse"
            pulses.append(pulse)
    return pulses


def outlast_timeouts(qnx: Any, nanoseconds: int = SHORT) -> None:
    """Return when every timeout of that length that was set before has expired, and has had time to show."""
    chid = qnx.ChannelCreate(0)
    for limit in (nanoseconds, SHORT):
        qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, limit)
        with fails_with(ETIMEDOUT):
            qnx.MsgReceive(chid, bytearray(PULSE_SIZE))
