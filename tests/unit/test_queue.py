"""The order in which messages and pulses are received."""

from typing import Any, List, Tuple

from ha_qnx.fallback.queue import Pulse, Queue
from hypothesis import given
from hypothesis import strategies as st


class Lane:
    """As much of a lane as the queue knows."""

    def __init__(self) -> None:
        self.gone = self.queued = False


def take_all(queue: "Queue[Lane]") -> List[Any]:
    return list(iter(queue.take, None))


ITEMS = st.lists(st.tuples(st.booleans(), st.integers(1, 3), st.integers(0, 3)), max_size=30)


def filled(items: List[Tuple[bool, int, int]]) -> Tuple["Queue[Lane]", List[Any]]:
    """A queue of pulses and messages, each with a priority and a time; and what is in it, in the order of arrival."""
    queue: Queue[Lane] = Queue()
    added: List[Any] = []
    for is_pulse, priority, sent_at in items:
        if is_pulse:
            pulse = Pulse(1, 2, 3, priority)
            queue.add_pulse(pulse, sent_at)
            added.append(pulse)
        else:
            lane = Lane()
            queue.add_message(lane, priority, sent_at)
            added.append(lane)
    return queue, added


@given(ITEMS)
def test_what_is_received_first(items: List[Tuple[bool, int, int]]) -> None:
    """Priority decides, then the time of sending, then arrival; whether it is a pulse or a message does not."""
    queue, added = filled(items)
    order = sorted(range(len(items)), key=lambda index: (-items[index][1], items[index][2], index))
    assert take_all(queue) == [added[index] for index in order]


@given(ITEMS)
def test_who_wants_pulses_only_gets_them_in_the_same_order(items: List[Tuple[bool, int, int]]) -> None:
    """The messages stay."""
    queue, added = filled(items)
    pulses = [item for item in take_all(filled(items)[0]) if isinstance(item, Pulse)]
    taken = list(iter(queue.take_pulse, None))
    assert [(pulse.priority, pulse.code) for pulse in taken] == [(pulse.priority, pulse.code) for pulse in pulses]
    assert sorted(map(id, take_all(queue))) == sorted(id(item) for item in added if isinstance(item, Lane))


@given(ITEMS, st.data())
def test_what_is_withdrawn_is_not_received(items: List[Tuple[bool, int, int]], data: st.DataObject) -> None:
    """A message whose client has gone, or a pulse that is void, is passed over, and so is what was taken out."""
    queue, added = filled(items)
    fates = data.draw(
        st.lists(st.sampled_from(["stays", "goes", "is removed"]), min_size=len(items), max_size=len(items))
    )
    for item, fate in zip(added, fates):
        if fate == "goes" and isinstance(item, Pulse):
            item.withdrawn = True
        elif fate == "goes":
            item.gone = True
        elif fate == "is removed" and isinstance(item, Lane):
            queue.remove(item)
    staying = {
        id(item)
        for item, fate in zip(added, fates)
        if fate == "stays" or (fate == "is removed" and isinstance(item, Pulse))
    }
    assert {id(item) for item in take_all(queue)} == staying


def test_some_pulses_come_before_everything() -> None:
    """They do, whatever priority others have, and in order among themselves."""
    queue, (highest,) = filled([(True, 255, 0)])
    first, second = Pulse(1, 1, 1, 10), Pulse(2, 2, 2, 10)
    for sent_at, pulse in enumerate((first, second), 5):
        queue.add_pulse(pulse, sent_at, before_everything=True)
    assert take_all(queue) == [first, second, highest]


def test_a_message_knows_whether_it_waits() -> None:
    """It does from being queued until it is taken."""
    queue: Queue[Lane] = Queue()
    lane = Lane()
    queue.add_message(lane, 1, 0)
    known = [lane.queued]
    assert queue.take() is lane
    known.append(lane.queued)
    assert known == [True, False]
    assert queue.take() is None
