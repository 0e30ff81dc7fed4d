"""Numbers for channels, side channels and clients: always the lowest that is free (B12, B14)."""

import heapq
import threading
from typing import Dict, Generic, List, TypeVar

T = TypeVar("T")

# A table of QNX's kernel has no more entries (B354).
_HIGHEST = 65534


class Slots:
    """The slots of one process, from 1 on. Channels, side-channel connections and clients share them (B12)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: List[int] = []
        self._highest = 0

    def take(self) -> int:
        """The lowest free slot."""
        with self._lock:
            if self._free:
                return heapq.heappop(self._free)
            self._highest += 1
            return self._highest

    def take_exactly(self, slot: int) -> bool:
        """Take a certain slot; whether it was free."""
        if slot > _HIGHEST:
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
        """Take the lowest free number for something that is yet to be made."""
        return self._slots.take() | self._bit

    def release(self, number: int) -> None:
        """Make a number free that stands for nothing any more."""
        self._slots.give_back(number & ~self._bit)

    def add(self, entry: T) -> int:
        """Enter something under the lowest free number."""
        number = self.reserve()
        self.entries[number] = entry
        return number

    def remove(self, number: int) -> T:
        """Take it out; KeyError if there is no such number."""
        entry = self.entries.pop(number)
        self.release(number)
        return entry
