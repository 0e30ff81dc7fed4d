"""What a fork needs: that others wait for it, and that what has to be done after it is done to the end."""

import contextlib
import operator
import threading
from threading import get_ident
from typing import Callable, Dict, Iterable, List, Protocol

# Held while a pipe has ends here that are to be passed on, and before a fork: a child that had them, too, would keep a
# lane open whose client or server is dead.
forks_wait = threading.RLock()


class Lock(Protocol):
    """A lock, of whatever kind."""

    def acquire(self) -> bool:
        """Wait for it."""

    def release(self) -> None:
        """Let others have it."""


def all_of(steps: Iterable[Callable[[], object]]) -> None:
    """Take every step, also if others fail; then raise what one of them has raised."""
    with contextlib.ExitStack() as stack:
        for step in reversed(list(steps)):
            stack.callback(step)


class Held:
    """The locks that are held during forks, which several threads may be about to make."""

    def __init__(self) -> None:
        self._locks: Dict[int, List[Lock]] = {}  # by the thread that has them

    def take(self, locks: Iterable[Lock]) -> None:
        """Wait for locks. One that a signal handler's exception has kept us from is not held."""
        # In one step for each, between whose halves no handler can come.
        self._locks.setdefault(get_ident(), []).extend(filter(operator.methodcaller("acquire"), locks))

    def release(self) -> None:
        """Release those that this thread holds."""
        locks = self._locks.pop(get_ident(), [])
        all_of(lock.release for lock in reversed(locks))
