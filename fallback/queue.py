"""What waits on a channel to be received: messages, each still unread in its lane, and pulses.

The first is the one with the highest priority, among those the one that was sent first, and among those the one that
was seen first (B75, B237, B238).
"""

import heapq
import itertools
from typing import Generic, List, Optional, Protocol, Tuple, TypeVar, Union

# More than any priority that a client can give.
_BEFORE_EVERYTHING = 1 << 16

_order = itertools.count().__next__


class Pulse:
    """A pulse in the queue."""

    __slots__ = ("code", "priority", "scoid", "value", "withdrawn")

    def __init__(self, code: int, value: int, scoid: int, priority: int) -> None:
        self.code = code
        self.value = value
        self.scoid = scoid
        self.priority = priority
        self.withdrawn = False


class Waiting(Protocol):
    """A lane, as far as the queue knows it."""

    gone: bool
    queued: bool


L = TypeVar("L", bound=Waiting)


class Queue(Generic[L]):
    """The queue of one channel; it changes under the channel's lock."""

    def __init__(self) -> None:
        self.messages: List[Tuple[int, int, int, L]] = []
        self.pulses: List[Tuple[int, int, int, Pulse]] = []

    def add_message(self, lane: L, priority: int, sent_at: int) -> None:
        """Queue the message that lies in a lane."""
        lane.queued = True
        heapq.heappush(self.messages, (-priority, sent_at, _order(), lane))

    def add_pulse(self, pulse: Pulse, sent_at: int, before_everything: bool = False) -> None:
        """Queue a pulse."""
        rank = -_BEFORE_EVERYTHING if before_everything else -pulse.priority
        heapq.heappush(self.pulses, (rank, sent_at, _order(), pulse))

    def take(self) -> Union[Pulse, L, None]:
        """Take out what is to be received first; None if nothing waits."""
        if self.messages or self.pulses:
            self._drop_withdrawn()
        if self.messages and not (self.pulses and self.pulses[0][:3] < self.messages[0][:3]):
            lane = heapq.heappop(self.messages)[3]
            lane.queued = False
            return lane
        return self.take_pulse()

    def take_pulse(self) -> Optional[Pulse]:
        """Take out the pulse that is to be received first; None if none waits."""
        self._drop_withdrawn()
        return heapq.heappop(self.pulses)[3] if self.pulses else None

    def _drop_withdrawn(self) -> None:
        while self.messages and self.messages[0][3].gone:
            heapq.heappop(self.messages)
        while self.pulses and self.pulses[0][3].withdrawn:
            heapq.heappop(self.pulses)

    def remove(self, lane: L) -> None:
        """Take out the message of a lane that has ended."""
        if lane.queued:
            self.messages = [entry for entry in self.messages if entry[3] is not lane]
            heapq.heapify(self.messages)

    def clear(self) -> None:
        """Drop everything, since the channel is no more."""
        self.messages.clear()
        self.pulses.clear()
