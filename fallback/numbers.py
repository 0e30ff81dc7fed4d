"""Numbers for channels, side channels and clients: always the lowest that is free (B12, B14)."""

import heapq
import threading
from errno import EAGAIN
from typing import Dict, Generic, List, TypeVar

from ha_qnx.errors import failure

from . import limits

T = TypeVar("T")


class Slots:
    """The slots of one process, from 1 on. Channels, side-channel connections and clients share them (B12)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: List[int] = []
        self._highest = 0

    def take(self) -> int:
        """The lowest free slot.

        Raises:
            OSError: EAGAIN, all are taken.
        """
        with self._lock:
            if self._free:
                return heapq.heappop(self._free)
            if self._highest == limits.SLOTS:
                raise failure(EAGAIN)
            self._highest += 1
            return self._highest

    def take_exactly(self, slot: int) -> bool:
        """Take a certain slot; whether it was free."""
        if slot > limits.SLOTS:
            return False
        with self._lock:
            while self._highest < slot:
                self._highest += 1
                heapq.heappush(self._free, self._highest)
            if slot not in self._free:
                return False
            self._free.remove(slot)
            heapq.heapify(self._free)
            return True

    def give_back(self, slot: int) -> None:
        """Make a slot free again."""
        with self._lock:
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
