"""What waits on a channel to be received: messages, each still unread in its lane, and pulses.

The first is the one with the highest priority, among those the one that was sent first, and among those the one that
was seen first (B75, B237, B238).
"""

import heapq
import itertools
from ctypes import sizeof
from struct import Struct
from typing import Generic, List, Optional, Protocol, Tuple, TypeVar, Union

from ha_qnx import abi, structures

_record = abi.packing("pulse", abi.HOST)
# What follows the value if that is an address, where addresses are longer than numbers.
_rest = Struct("=I")
_REST_AT = structures.Pulse.value.offset + _rest.size
_HAS_REST = sizeof(structures.SigVal) > _rest.size

# More than any priority that a client can give.
_BEFORE_EVERYTHING = 1 << 16

_order = itertools.count().__next__


class Pulse:
    """A pulse in the queue."""

    __slots__ = ("code", "priority", "rest", "scoid", "value", "withdrawn")

    def __init__(self, code: int, value: int, scoid: int, priority: int, rest: int = 0) -> None:
        self.code = code
        self.value = value
        self.rest = rest  # What follows the value, if that is an address.
        self.scoid = scoid
        self.priority = priority
        self.withdrawn = False

    def put(self, sink: memoryview) -> bool:
        """Write it down for its receiver; whether there was room. Of the code, the low 8 bits arrive, signed (B242)."""
        if len(sink) < _record.size:
            return False
        _record.pack_into(sink, 0, 0, 0, (self.code & 0xFF) - ((self.code & 0x80) << 1), self.value, self.scoid)
        if self.rest and _HAS_REST:
            _rest.pack_into(sink, _REST_AT, self.rest)
        return True


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
