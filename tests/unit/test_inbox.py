"""Channels in programs that have a loop of their own."""

import asyncio
import select
import threading
from errno import ESRCH
from typing import Any, Iterator, List, Tuple

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually

import ha_qnx
from ha_qnx import Inbox, Received


@pytest.fixture
def channel(qnx: ha_qnx.Backend) -> Iterator[Tuple[int, int]]:
    """A channel, and a connection to it."""
    chid = qnx.ChannelCreate(0)
    yield chid, qnx.ConnectAttach(0, 0, chid)
    qnx.ChannelDestroy(chid)


@pytest.fixture
def inbox(qnx: ha_qnx.Backend, channel: Tuple[int, int]) -> Iterator[Inbox]:
    with Inbox(channel[0], backend=qnx) as inbox:
        yield inbox


def is_readable(inbox: Inbox, seconds: float = 0.0) -> bool:
    return bool(select.select([inbox], [], [], seconds)[0])


def taken(inbox: Inbox) -> Received:
    """The next message or pulse, once there is one."""
    assert is_readable(inbox, DEADLINE)
    received = inbox.take()
    assert received is not None
    return received


def test_a_message_is_answered(qnx: ha_qnx.Backend, channel: Tuple[int, int], inbox: Inbox) -> None:
    """The descriptor is readable as long as there is something to take."""
    assert not is_readable(inbox)
    assert inbox.take() is None
    sending = Task(qnx.MsgSend, channel[1], b"question", bytearray(6))
    received = taken(inbox)
    assert (received.data, received.info.coid, received.pulse) == (b"question", channel[1], None)
    assert not is_readable(inbox)
    assert not sending.done
    qnx.MsgReply(received.rcvid, 7, b"answer")
    assert sending.result() == 7


def test_pulses_come_in_their_order(qnx: ha_qnx.Backend, channel: Tuple[int, int], inbox: Inbox) -> None:
    """More of them, too, than an inbox takes in at once."""
    sending = Task(lambda: [qnx.MsgSendPulse(channel[1], 10, 1, value) for value in range(3000)])
    values = []
    for _ in range(3000):
        pulse = taken(inbox).pulse
        assert pulse is not None
        values.append(pulse.value.sival_int)
    sending.result()
    assert values == [*range(3000)]
    assert not is_readable(inbox)


def test_a_long_message_can_be_read_on(qnx: ha_qnx.Backend, channel: Tuple[int, int]) -> None:
    """What there was no room for waits at the client."""
    with Inbox(channel[0], 20, backend=qnx) as inbox:
        sending = Task(qnx.MsgSend, channel[1], bytes(range(100)))
        received = taken(inbox)
        assert (len(received.data), received.info.srcmsglen) == (max(20, len(bytes(ha_qnx.Pulse()))), 100)
        rest = bytearray(100)
        assert qnx.MsgRead(received.rcvid, rest, len(received.data)) == 100 - len(received.data)
        qnx.MsgReply(received.rcvid, 0)
        sending.result()


def test_an_event_loop_receives(qnx: ha_qnx.Backend, channel: Tuple[int, int], inbox: Inbox) -> None:
    """Without a thread of its own that waits."""

    async def main() -> List[Any]:
        taken: List[bytes] = []
        loop = asyncio.get_running_loop()

        def take() -> None:
            received = inbox.take()
            if received is not None:
                taken.append(received.data)
                qnx.MsgReply(received.rcvid, len(taken))

        loop.add_reader(inbox, take)
        answers = await asyncio.wait_for(
            asyncio.gather(*(loop.run_in_executor(None, qnx.MsgSend, channel[1], b"x") for _ in range(10))), DEADLINE
        )
        loop.remove_reader(inbox)
        return sorted(answers)

    assert asyncio.run(main()) == [*range(1, 11)]


def test_a_channel_that_is_destroyed_is_told(qnx: ha_qnx.Backend) -> None:
    """ESRCH, after what had come before, and again and again; there is something to take, then."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    with Inbox(chid, backend=qnx) as inbox:
        qnx.MsgSendPulse(coid, 10, 1, 5)
        eventually(lambda: is_readable(inbox), "the pulse")
        qnx.ChannelDestroy(chid)
        eventually(lambda: not inbox._thread.is_alive(), "the thread to end")
        assert taken(inbox).rcvid == 0
        for _ in range(2):
            assert is_readable(inbox)
            with fails_with(ESRCH):
                inbox.take()
    qnx.ConnectDetach(coid)


def test_a_closed_inbox_leaves_the_channel(qnx: ha_qnx.Backend, channel: Tuple[int, int]) -> None:
    """And neither a thread nor a connection; closing it again does nothing."""
    before = threading.active_count()
    inbox = Inbox(channel[0], backend=qnx)
    inbox.close()
    inbox.close()
    assert threading.active_count() == before
    qnx.MsgSendPulse(channel[1], 10, 1, 5)
    pulse = ha_qnx.Pulse()
    assert qnx.MsgReceive(channel[0], pulse) == 0
    assert pulse.value.sival_int == 5


def test_an_inbox_that_nobody_takes_from_can_be_closed(qnx: ha_qnx.Backend, channel: Tuple[int, int]) -> None:
    """However much has come."""
    with Inbox(channel[0], backend=qnx) as inbox:
        for value in range(1500):
            qnx.MsgSendPulse(channel[1], 10, 1, value)
        eventually(lambda: len(inbox._received) == 1000, "as much as it takes in")


def test_there_has_to_be_a_channel(qnx: ha_qnx.Backend) -> None:
    """ESRCH, as of ConnectAttach."""
    with fails_with(ESRCH):
        Inbox(9999, backend=qnx)
