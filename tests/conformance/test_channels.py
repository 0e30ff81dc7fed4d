"""Channels: ChannelCreate and ChannelDestroy."""

import contextlib
import os
import threading
from errno import EAGAIN, EBADF, EBUSY, EINVAL, EMFILE, ENFILE, ENOMEM, EPERM, ESRCH
from typing import Any, Callable, List, Tuple

import pytest

from ha_qnx import (
    NTO_CHF_COID_DISCONNECT,
    NTO_CHF_FIXED_PRIORITY,
    NTO_CHF_NET_MSG,
    NTO_CHF_REPLY_LEN,
    NTO_CHF_SENDER_LEN,
    NTO_CHF_THREAD_DEATH,
    NTO_CHF_UNBLOCK,
    NTO_SIDE_CHANNEL,
    MessageInfo,
)

from .clients import Start, expect_nothing_waits, transact, transact_at
from .expect import fails_with
from .marks import checks
from .peers import Peer
from .servers import take_descriptors


@checks("B11")
def test_a_channel_id_is_positive(qnx: Any) -> None:
    """ChannelCreate returns a positive number."""
    assert qnx.ChannelCreate(0) > 0


@checks("B12")
def test_channels_side_channels_and_clients_share_their_numbers(qnx: Any, start: Start) -> None:
    """A channel, a side channel and a client never have the same number, leaving the bit of side channels aside."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    start(qnx.MsgSend, coid, b"message")
    info = MessageInfo()
    rcvid = qnx.MsgReceive(chid, None, info)
    numbers = [chid, coid & ~NTO_SIDE_CHANNEL, info.scoid & ~NTO_SIDE_CHANNEL, qnx.ChannelCreate(0)]
    assert len(set(numbers)) == len(numbers), numbers
    qnx.MsgReply(rcvid, 0)


def create_channel(qnx: Any) -> int:
    """A channel that receives nothing."""
    chid: int = qnx.ChannelCreate(0)
    return chid


@checks("B13")
def test_two_processes_may_have_the_same_channel_id(qnx: Any, start_peer: Callable[[], Peer]) -> None:
    """A channel ID means something only together with its process."""
    assert start_peer().run(create_channel) == start_peer().run(create_channel)


@checks("B14")
def test_the_lowest_free_channel_id_is_used_again(qnx: Any) -> None:
    """A destroyed channel's number is given to the next channel."""
    chid = qnx.ChannelCreate(0)
    qnx.ChannelCreate(0)
    qnx.ChannelDestroy(chid)
    assert qnx.ChannelCreate(0) == chid


@checks("B15")
def test_a_channel_outlives_the_thread_that_created_it(qnx: Any, start: Start) -> None:
    """A channel belongs to its process: others receive on it when the thread that created it has ended."""
    made: List[int] = []
    creator = threading.Thread(target=lambda: made.append(qnx.ChannelCreate(0)))
    creator.start()
    creator.join()
    task = start(qnx.MsgSend, qnx.ConnectAttach(0, 0, made[0]), b"message")
    qnx.MsgReply(qnx.MsgReceive(made[0], None), 7)
    assert task.result() == 7


@checks("B16")
def test_a_channel_can_be_destroyed(qnx: Any) -> None:
    """ChannelDestroy returns 0."""
    assert qnx.ChannelDestroy(qnx.ChannelCreate(0)) == 0


@checks("B17", "B176")
@pytest.mark.parametrize("destroyed", [False, True], ids=["never-made", "destroyed"])
def test_what_is_no_channel_cannot_be_destroyed(qnx: Any, destroyed: bool) -> None:
    """ChannelDestroy of a number that is no channel fails with EINVAL."""
    chid = qnx.ChannelCreate(0)
    if destroyed:
        qnx.ChannelDestroy(chid)
    else:
        chid += 1000
    with fails_with(EINVAL):
        qnx.ChannelDestroy(chid)


@checks("B18")
def test_threads_that_receive_are_freed_when_the_channel_is_destroyed(qnx: Any, start: Start) -> None:
    """Every thread that waits in MsgReceive gets ESRCH when its channel is destroyed."""
    chid = qnx.ChannelCreate(0)
    tasks = [start(qnx.MsgReceive, chid, bytearray(100)).wait_until_blocked() for _ in range(3)]
    qnx.ChannelDestroy(chid)
    assert [task.errno() for task in tasks] == [ESRCH] * 3


@checks("B19", "B166")
def test_clients_not_yet_received_are_freed_when_the_channel_is_destroyed(qnx: Any, start: Start) -> None:
    """A SEND-blocked client gets ESRCH when the channel is destroyed."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    task = start(qnx.MsgSend, coid, b"message", None).wait_until_blocked()
    qnx.ChannelDestroy(chid)
    assert task.errno() == ESRCH


@checks("B20", "B166")
@pytest.mark.parametrize("flags", [0, NTO_CHF_UNBLOCK], ids=["plain", "unblock"])
def test_clients_not_yet_answered_are_freed_when_the_channel_is_destroyed(qnx: Any, start: Start, flags: int) -> None:
    """A REPLY-blocked client gets ESRCH when the channel is destroyed, even one with NTO_CHF_UNBLOCK."""
    chid = qnx.ChannelCreate(flags)
    coid = qnx.ConnectAttach(0, 0, chid)
    task = start(qnx.MsgSend, coid, b"message", None)
    assert qnx.MsgReceive(chid, bytearray(100)) > 0
    qnx.ChannelDestroy(chid)
    assert task.errno() == ESRCH


@checks("B21")
def test_pulses_are_dropped_with_their_channel(qnx: Any) -> None:
    """Pulses that wait on a channel when it is destroyed are lost; the next channel of that number is empty."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    for value in range(3):
        assert qnx.MsgSendPulse(coid, 20, 1, value) == 0
    qnx.ChannelDestroy(chid)
    assert qnx.ChannelCreate(0) == chid
    expect_nothing_waits(qnx, chid)


@checks("B22", "B162")
def test_an_idle_connection_is_dead_when_its_channel_is_destroyed(qnx: Any) -> None:
    """The next use of a connection to a destroyed channel fails with EBADF; its number stays taken."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.ChannelDestroy(chid)
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message")
    assert qnx.ConnectDetach(coid) == 0


@checks("B23", "B172")
def test_a_dead_connection_stays_dead_when_the_channel_id_comes_back(qnx: Any) -> None:
    """A connection does not reach a new channel that happens to have the numbers of its old one."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.ChannelDestroy(chid)
    assert qnx.ChannelCreate(0) == chid
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message")


@checks("B24", "B25")
@pytest.mark.parametrize("first", [NTO_CHF_COID_DISCONNECT, NTO_CHF_THREAD_DEATH])
@pytest.mark.parametrize("second", [NTO_CHF_COID_DISCONNECT, NTO_CHF_THREAD_DEATH])
def test_one_channel_of_a_process_hears_of_deaths(qnx: Any, first: int, second: int) -> None:
    """A second channel that asks for death pulses is EBUSY, until the first one is destroyed."""
    chid = qnx.ChannelCreate(first)
    with fails_with(EBUSY):
        qnx.ChannelCreate(second)
    qnx.ChannelDestroy(chid)
    assert qnx.ChannelCreate(second) > 0


@checks("B26")
def test_network_channels_are_reserved(qnx: Any) -> None:
    """NTO_CHF_NET_MSG is EPERM for everybody but QNX's network manager."""
    with fails_with(EPERM):
        qnx.ChannelCreate(NTO_CHF_NET_MSG)


def open_descriptors(limit: int) -> int:
    """How many descriptors below a number are open."""
    count = 0
    for fd in range(limit):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            count += 1
    return count


def create_channels_with_little_room(qnx: Any) -> List[Tuple[int, int]]:
    """Create a channel while 0, 1, 2 and up to 15 descriptors are free.

    Returns:
        For each attempt the errno, and how many descriptors it has left open.
    """
    qnx.ChannelDestroy(qnx.ChannelCreate(0))  # What a host has once for all channels is there then.
    taken = take_descriptors(64)
    outcomes = []
    for _ in range(16):
        before, number = open_descriptors(64), 0
        try:
            qnx.ChannelDestroy(qnx.ChannelCreate(0))
        except OSError as error:
            number = error.errno or 0
        outcomes.append((number, open_descriptors(64) - before))
        os.close(taken.pop())
    return outcomes


@checks("B27")
def test_a_channel_that_has_no_room_is_refused_and_leaves_nothing_behind(qnx: Any, peer: Peer) -> None:
    """Where the host has no room for a channel, ChannelCreate says so, as often as it is called.

    (On QNX channels are no descriptors: there is no refusal.)
    """
    outcomes = peer.run(create_channels_with_little_room)
    assert {number for number, _left_open in outcomes} <= {0, EAGAIN, EMFILE, ENFILE, ENOMEM}
    assert not any(left_open for _number, left_open in outcomes), outcomes
    assert outcomes[-1] == (0, 0)


@checks("B29")
@pytest.mark.parametrize("flags", [0, NTO_CHF_SENDER_LEN, NTO_CHF_REPLY_LEN, NTO_CHF_SENDER_LEN | NTO_CHF_REPLY_LEN])
def test_the_lengths_of_message_and_reply_buffer_are_always_told(qnx: Any, start: Start, flags: int) -> None:
    """A message tells srcmsglen and dstmsglen, whatever the flags of its channel are."""
    chid = qnx.ChannelCreate(flags)
    task = start(qnx.MsgSend, qnx.ConnectAttach(0, 0, chid), b"message", bytearray(50))
    info = MessageInfo()
    rcvid = qnx.MsgReceive(chid, bytearray(3), info)
    qnx.MsgReply(rcvid, 0)
    task.result()
    assert (info.srcmsglen, info.dstmsglen) == (7, 50)


def send_around_a_receive(qnx: Any, chid: int, coid: int) -> None:
    """Send a message, receive a message or a pulse and answer it, and send another message."""
    qnx.MsgSend(coid, b"before")
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    if rcvid:
        qnx.MsgReply(rcvid, 0)
    qnx.MsgSend(coid, b"after")


@checks("B30")
@pytest.mark.parametrize("kind", ["message", "pulse"])
@pytest.mark.parametrize("flags", [0, NTO_CHF_FIXED_PRIORITY], ids=["floating", "fixed"])
def test_a_receiver_takes_the_priority_of_what_it_receives(qnx: Any, start: Start, flags: int, kind: str) -> None:
    """A thread that receives has the sender's priority from then on; with NTO_CHF_FIXED_PRIORITY it keeps its own."""
    chid, observer = qnx.ChannelCreate(flags), qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    start(send_around_a_receive, qnx, chid, qnx.ConnectAttach(0, 0, observer))
    before, after = MessageInfo(), MessageInfo()
    qnx.MsgReply(qnx.MsgReceive(observer, None, before), 0)
    if kind == "pulse":
        qnx.MsgSendPulse(coid, before.priority + 7, 0, 0)
    else:
        start(transact_at, qnx, before.priority + 7, coid, b"message", 0)
    qnx.MsgReply(qnx.MsgReceive(observer, None, after), 0)
    assert after.priority - before.priority == (0 if flags else 7)


def create_channels(qnx: Any, count: int) -> List[int]:
    """Channels that receive nothing."""
    return [qnx.ChannelCreate(0) for _ in range(count)]


def destroy_channel(qnx: Any, chid: int) -> None:
    """End a channel."""
    qnx.ChannelDestroy(chid)


@checks("B17", "B110")
def test_a_channel_of_another_process_cannot_be_destroyed(qnx: Any, peer: Peer, start: Start) -> None:
    """ChannelDestroy looks its number up in its own process: the other process's channel lives on."""
    chid = max(peer.run(create_channels, 20))
    with fails_with(EINVAL):
        qnx.ChannelDestroy(chid)
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    start(transact, qnx, coid, b"message", 0).wait_until_blocked()
    peer.run(destroy_channel, chid)
