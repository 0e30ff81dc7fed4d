"""Channels: ChannelCreate and ChannelDestroy."""

from errno import EBADF, EBUSY, EINVAL, EPERM, ESRCH
from typing import Any, Callable

import pytest

from ha_qnx import NTO_CHF_COID_DISCONNECT, NTO_CHF_NET_MSG, NTO_CHF_THREAD_DEATH, NTO_CHF_UNBLOCK

from .expect import fails_with
from .marks import checks
from .peers import Peer
from .waiting import Task

Start = Callable[..., Task]


@checks("B11")
def test_a_channel_id_is_positive(qnx: Any) -> None:
    """ChannelCreate returns a positive number."""
    assert qnx.ChannelCreate(0) > 0


def create_channel(qnx: Any) -> int:
    """In another process: a channel."""
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
    """A channel belongs to its process, not to its thread."""
    chid = start(qnx.ChannelCreate, 0).result()
    assert qnx.ChannelDestroy(chid) == 0


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
@pytest.mark.parametrize("second", [NTO_CHF_COID_DISCONNECT, NTO_CHF_THREAD_DEATH])
def test_one_channel_of_a_process_hears_of_deaths(qnx: Any, second: int) -> None:
    """A second channel that asks for death pulses is EBUSY, until the first one is destroyed."""
    chid = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    with fails_with(EBUSY):
        qnx.ChannelCreate(second)
    qnx.ChannelDestroy(chid)
    assert qnx.ChannelCreate(second) > 0


@checks("B26")
def test_network_channels_are_reserved(qnx: Any) -> None:
    """NTO_CHF_NET_MSG is EPERM for everybody but QNX's network manager."""
    with fails_with(EPERM):
        qnx.ChannelCreate(NTO_CHF_NET_MSG)


@checks("B44")
def test_an_unknown_channel_flag_is_refused(qnx: Any) -> None:
    """A flag that no release of QNX knows is EINVAL, and makes no channel."""
    with fails_with(EINVAL):
        qnx.ChannelCreate(0x4000_0000)
