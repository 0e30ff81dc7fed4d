"""Numbers for channels, side channels, clients and threads: always the lowest that is free (B12, B14).

There are no locks. A signal handler may take a number and give it back while the thread that it has interrupted does
so, and cannot wait for it; so every change is one step in C, and between two of them the rest is consistent.
"""

import contextlib
import heapq
import itertools
from errno import EAGAIN
from typing import Dict, Generic, List, TypeVar

from ha_qnx.errors import failure

from . import limits

T = TypeVar("T")


class Slots:
    """The slots of one process, from 1 on. Channels, side-channel connections and clients share them (B12)."""

    def __init__(self, most: int = limits.SLOTS) -> None:
        self._most = most
        self._free: List[int] = []
        self._new = itertools.count(1).__next__
        # No number beyond it was free or taken; it may lag behind, since whoever takes a new one notes it afterwards.
        self._highest = 0

    def take(self) -> int:
        """The lowest free slot.

        Raises:
            OSError: EAGAIN, all are taken.
        """
        with contextlib.suppress(IndexError):
            return heapq.heappop(self._free)
        slot = self._new()
        if slot > self._most:
            raise failure(EAGAIN)
        self._highest = slot
        return slot

    def take_exactly(self, slot: int) -> bool:
        """Take a certain slot; whether it was free."""
        if slot > self._most:
            return False
        while self._highest < slot:
            new = self._new()
            if new <= self._most:
                heapq.heappush(self._free, new)
            self._highest = new
        try:
            self._free.remove(slot)
        except ValueError:
            return False
        heapq.heapify(self._free)
        return True

    def give_back(self, slot: int) -> None:
        """Make a slot free again."""
        heapq.heappush(self._free, slot)


class Numbers(Generic[T]):
    """What each number of a kind stands for: a slot, with a bit that says which kind it is."""

    def __init__(self, slots: Slots, bit: int) -> None:
        self._slots = slots
        self._bit = bit
        self.entries: Dict[int, T] = {}

    def reserve(self) -> int:
        """Take the lowest free number for something that is yet to be made.

        Raises:
            OSError: EAGAIN, all are taken.
        """
        return self._slots.take() | self._bit

    def release(self, number: int) -> None:
        """Make a number free that stands for nothing any more."""
        self._slots.give_back(number & ~self._bit)

    def add(self, entry: T) -> int:
        """Enter something under the lowest free number.

        Raises:
            OSError: EAGAIN, all are taken.
        """
        number = self.reserve()
        self.entries[number] = entry
        return number

    def remove(self, number: int) -> T:
        """Take out what a number stands for; KeyError if that is nothing."""
        entry = self.entries.pop(number)
        self.release(number)
        return entry
