"""What is bounded: numbers, windows that are kept, pulses in a queue."""

import os
from errno import EAGAIN
from typing import Iterator, List, Tuple

import pytest
from ha_qnx.conformance.waiting import Task
from ha_qnx.fallback import connections, limits, wire
from ha_qnx.fallback.connections import Connection, Lane
from ha_qnx.fallback.kernel import SocketKernel
from ha_qnx.fallback.numbers import Slots
from ha_qnx.fallback.threads import Thread

from ha_qnx.constants import NTO_COF_NOSHARE, NTO_SIDE_CHANNEL, NTO_TIMEOUT_RECEIVE
from ha_qnx.structures import Pulse

Served = Tuple[SocketKernel, int, int]


@pytest.fixture
def served() -> Iterator[Served]:
    """A kernel, a channel of it, and a side channel to that."""
    kernel = SocketKernel()
    chid = kernel.ChannelCreate(0)
    yield kernel, chid, kernel.ConnectAttach(0, 0, chid)
    kernel.ChannelDestroy(chid)


def fill(slots: Slots) -> List[int]:
    """Take all slots that are left."""
    taken = []
    while True:
        try:
            taken.append(slots.take())
        except BlockingIOError:
            return taken


# The twins.


def test_the_lowest_free_slot_is_taken() -> None:
    """Slots begin with 1, and one that was given back is the next if it is the lowest."""
    slots = Slots()
    assert [slots.take() for _ in range(4)] == [1, 2, 3, 4]
    for slot in (3, 2):
        slots.give_back(slot)
    assert [slots.take() for _ in range(3)] == [2, 3, 5]


def test_no_slot_beyond_the_last_is_taken() -> None:
    """When all are taken, the next is EAGAIN, until one was given back."""
    slots = Slots()
    assert fill(slots) == list(range(1, limits.SLOTS + 1))
    slots.give_back(7)
    assert not slots.take_exactly(8)
    assert not slots.take_exactly(limits.SLOTS + 1)
    assert slots.take() == 7
    with pytest.raises(BlockingIOError) as raised:
        slots.take()
    assert raised.value.errno == EAGAIN


def test_a_certain_slot_is_taken_if_it_is_free() -> None:
    """Those below it stay free."""
    slots = Slots()
    assert slots.take_exactly(3)
    assert not slots.take_exactly(3)
    assert [slots.take() for _ in range(3)] == [1, 2, 4]


def test_nothing_is_numbered_beyond_the_last_slot(served: Served) -> None:
    """A channel or a side channel is EAGAIN at once, a new client is turned away; a slot that is given back is used."""
    kernel, chid, coid = served
    client = SocketKernel()
    late = client.ConnectAttach(0, os.getpid(), chid)
    slots = kernel._channels._slots
    fill(slots)
    with pytest.raises(BlockingIOError):
        kernel.ChannelCreate(0)
    with pytest.raises(BlockingIOError):
        kernel.ConnectAttach(0, 0, chid)
    kernel.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
    with pytest.raises(TimeoutError):
        kernel.MsgReceive(chid, bytearray(1))
    with pytest.raises(OSError) as raised:  # noqa: PT011  # the errno is looked at
        client.MsgSend(late, b"message")
    assert raised.value.errno == EAGAIN
    client.ConnectDetach(late)
    slots.give_back(5)
    assert kernel.ConnectAttach(0, 0, chid) == 5 | NTO_SIDE_CHANNEL
    kernel.ConnectDetach(coid)
    assert kernel.ChannelCreate(0) == coid & ~NTO_SIDE_CHANNEL


# Lanes.


def test_what_one_turn_leaves_of_a_trunk_is_told_to_who_waits_already(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that has begun to wait in the middle of another one's turn hears of the lanes that are left."""
    kernel, chid, coid = served
    connection, channel = connection_of(served), kernel._channels.entries[chid]
    first = Task(kernel.MsgSend, coid, b"x")
    kernel.MsgReply(kernel.MsgReceive(chid, None), 0)
    first.result()
    connection.idle.pop()
    monkeypatch.setattr(limits, "TRUNK_READS", 2)
    with channel.lock:
        for _lane in range(20):
            connection.lane(0, None, Thread(1))
        sending = Task(kernel.MsgSend, coid, b"x").wait_until_blocked()
        channel._take_in(())
        receiving = Task(kernel.MsgReceive, chid, None).wait_until_blocked()
        channel.leave_queue()
    kernel.MsgReply(receiving.result(), 3)
    assert sending.result() == 3


# Windows.


def connection_of(served: Served) -> Connection:
    kernel, _chid, coid = served
    return kernel._table.entries[coid]


def with_windows(connection: Connection, *sizes: int) -> List[Lane]:
    """Lanes of which each has a window for so many bytes."""
    return [connection.lane(size, None, Thread(1)) for size in sizes]


def sizes(lanes: List[Lane]) -> List[int]:
    return [lane.window.size for lane in lanes if lane.window]


@pytest.mark.parametrize(
    ("needed", "size"),
    [
        (1, limits.WINDOW_MIN),
        (limits.WINDOW_MIN, limits.WINDOW_MIN),
        (limits.WINDOW_MIN + 1, 2 * limits.WINDOW_MIN),
        (limits.WINDOW_KEPT, limits.WINDOW_KEPT),
        (limits.WINDOW_KEPT + 1, limits.WINDOW_KEPT + 1),
    ],
)
def test_the_size_of_a_window(served: Served, needed: int, size: int) -> None:
    """It is a power of two, so that it can be used again; one that will not be is no larger than it must be."""
    assert sizes(with_windows(connection_of(served), needed)) == [size]


def test_a_few_windows_are_kept(served: Served) -> None:
    """So many threads may send large messages at once, but what is left over of them is not held for ever."""
    connection = connection_of(served)
    lanes = with_windows(connection, *[limits.WINDOW_MIN] * (limits.WINDOWS_KEPT + 2))
    for lane in lanes:
        connection.release(lane)
    again = with_windows(connection, *[limits.WINDOW_MIN] * limits.WINDOWS_KEPT)
    assert set(again) == set(lanes[: limits.WINDOWS_KEPT])
    assert sizes(lanes) == [limits.WINDOW_MIN] * len(lanes)
    assert [lane.window.fd < 0 for lane in lanes if lane.window] == [False] * limits.WINDOWS_KEPT + [True] * 2


def test_the_largest_windows_are_kept(served: Served) -> None:
    """One that is too small for the next message is of less use than the one that this message has needed."""
    connection = connection_of(served)
    small = with_windows(connection, *[limits.WINDOW_MIN] * limits.WINDOWS_KEPT)
    for lane in small:
        connection.release(lane)
    (larger,) = with_windows(connection, 2 * limits.WINDOW_MIN)
    connection.release(larger)
    assert with_windows(connection, 2 * limits.WINDOW_MIN) == [larger]
    assert [lane.window.fd < 0 for lane in small if lane.window] == [True, False, False, False]


def test_a_small_window_does_not_go_for_a_large_one(served: Served) -> None:
    """Messages of several sizes take turns on one connection, and each finds its window again."""
    connection = connection_of(served)
    lanes = with_windows(connection, limits.WINDOW_MIN, 4 * limits.WINDOW_MIN)
    for lane in lanes:
        connection.release(lane)
    (large,) = with_windows(connection, 3 * limits.WINDOW_MIN)
    assert large is lanes[1]
    assert with_windows(connection, 1) == [lanes[0]]


def use(connection: Connection, size: int) -> Lane:
    """A lane whose window has served a message of so many bytes; whether it was kept is for the test to see."""
    (lane,) = with_windows(connection, size)
    connection.release(lane)
    return lane


def is_kept(lane: Lane) -> bool:
    return lane.window is not None and lane.window.fd >= 0


def test_a_large_window_is_kept_from_the_second_message_on(served: Served) -> None:
    """What is sent once leaves no memory behind; what is sent again and again does not have the host give it anew."""
    connection = connection_of(served)
    assert is_kept(use(connection, limits.WINDOW_SMALL))
    once, again = use(connection, limits.WINDOW_SMALL + 1), use(connection, limits.WINDOW_SMALL + 1)
    assert (is_kept(once), is_kept(again)) == (False, True)
    assert use(connection, limits.WINDOW_SMALL + 1) is again


def test_a_large_window_is_not_kept_for_a_rare_message(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is not expected before the memory is better used by others."""
    connection = connection_of(served)
    monkeypatch.setattr(limits, "WINDOW_IDLE", 0.0)
    assert not any(is_kept(use(connection, limits.WINDOW_SMALL + 1)) for _message in range(3))


def test_the_large_windows_of_a_process_are_bounded_together(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection finds no room for its own until one that needs its no more has gone."""
    kernel, chid, _coid = served
    size = 2 * limits.WINDOW_SMALL
    monkeypatch.setattr(limits, "WINDOWS_SUM", 2 * size)
    monkeypatch.setattr(connections, "_large", set())  # What other tests have left is not to be counted.
    ways = [kernel._table.entries[kernel.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL)] for _ in range(3)]
    lanes = [(use(connection, size), use(connection, size))[1] for connection in ways]
    assert [is_kept(lane) for lane in lanes] == [True, True, False]
    ways[0]._large_used -= 2 * limits.WINDOW_IDLE
    last = use(ways[2], size)
    assert [is_kept(lane) for lane in (*lanes, last)] == [False, True, False, True]


def test_one_very_large_window_is_kept(served: Served) -> None:
    """A message of many megabytes that comes again does not make the host give its memory again; two hold no more."""
    connection = connection_of(served)
    use(connection, limits.WINDOW_LARGE + 1)
    first, second = with_windows(connection, limits.WINDOW_LARGE + 1, limits.WINDOW_LARGE + 1)
    connection.release(first)
    connection.release(second)
    assert with_windows(connection, 2 * limits.WINDOW_LARGE) == [first]
    assert second.window
    assert second.window.fd < 0


def test_a_giant_is_not_kept(served: Served) -> None:
    """The memory of a very large message is given back with its reply."""
    connection = connection_of(served)
    (giant,) = with_windows(connection, limits.WINDOW_KEPT + 1)
    connection.release(giant)
    assert giant.window
    assert giant.window.fd < 0


def test_the_smallest_window_is_not_too_small() -> None:
    """It holds the smallest message that needs one, with the most room for a reply that needs none."""
    assert wire.reply_area(wire.INLINE_SEND + 1) + wire.INLINE_ROOM <= limits.WINDOW_MIN


# Pulses.


def send(kernel: SocketKernel, coid: int, values: range) -> None:
    for value in values:
        kernel.MsgSendPulse(coid, 10, 1, value)


def receive(kernel: SocketKernel, chid: int) -> int:
    pulse = Pulse()
    assert kernel.MsgReceive(chid, memoryview(pulse).cast("B")) == 0
    return int(pulse.value.sival_int)


def test_pulses_beyond_the_limit_stay_with_the_host(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue holds so many and those of one more read; the others are taken in, in order, once half are received."""
    kernel, chid, coid = served
    monkeypatch.setattr(limits, "QUEUED_PULSES", 100)
    monkeypatch.setattr(limits, "PULSES_READ", 10)
    channel = kernel._channels.entries[chid]
    count, longest, was_full = 500, 0, False
    send(kernel, coid, range(count))
    for value in range(count):
        assert receive(kernel, chid) == value
        longest = max(longest, len(channel.queue.pulses))
        was_full = was_full or bool(channel._muted)
    assert was_full
    assert longest < 110
    assert not channel._muted
    send(kernel, coid, range(3))
    assert [receive(kernel, chid) for _ in range(3)] == [0, 1, 2]


# Descriptors.


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.usefixtures("no_collection")
def test_channels_that_come_and_go_leave_nothing(served: Served) -> None:
    """A destroyed channel is closed when nobody is connected any more, not when a collector finds it."""
    kernel, _chid, _coid = served
    counts = []
    for _channel in range(3):
        chid = kernel.ChannelCreate(0)
        coid = kernel.ConnectAttach(0, 0, chid)
        kernel.MsgSendPulse(coid, 10, 1, 1)
        kernel.MsgReceive(chid, bytearray(64))
        kernel.ChannelDestroy(chid)
        kernel.ConnectDetach(coid)
        counts.append(descriptors())
    assert counts[2] == counts[0]


@pytest.mark.usefixtures("no_collection")
def test_connections_to_oneself_that_come_and_go_leave_nothing(served: Served) -> None:
    """Though nobody receives, and so nobody looks who has come and gone."""
    kernel, chid, coid = served
    kernel.ConnectDetach(coid)
    before = descriptors()
    for flags in (0, NTO_COF_NOSHARE):
        for _time in range(20):
            kernel.ConnectDetach(kernel.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, flags))
    assert descriptors() == before
    assert kernel.ConnectAttach(0, 0, chid) == coid


@pytest.mark.usefixtures("no_collection")
def test_a_crowd_of_threads_leaves_no_lanes(served: Served) -> None:
    """A connection keeps as many lanes as there are threads that may want them."""
    kernel, chid, coid = served
    senders = [Task(kernel.MsgSend, coid, b"message", bytearray(5)) for _thread in range(40)]
    rcvids = [kernel.MsgReceive(chid, bytearray(20)) for _sender in senders]
    crowded = descriptors()
    for rcvid in rcvids:
        kernel.MsgReply(rcvid, 7)
    assert [sender.result() for sender in senders] == [7] * len(senders)
    for sender in senders:
        sender.join()
    assert len(kernel._table.get(coid).idle) == 1
    assert descriptors() <= crowded - 4 * (len(senders) - 1)  # Both ends of each lane are in this process.
    sender = Task(kernel.MsgSend, coid, b"another", bytearray(5))
    kernel.MsgReply(kernel.MsgReceive(chid, bytearray(20)), 8)
    assert sender.result() == 8
