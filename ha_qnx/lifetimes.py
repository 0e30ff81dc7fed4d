"""The calls that make a connection or end one, for all backends.

A number that is free is somebody else's at once. So a connection is detached from the library before it ends (B376),
and a new one is an ordinary connection, whatever had its number before (D24).
"""

from typing import Any, Callable, Dict, cast

from .api import Backend
from .buffers import as_int
from .constants import NTO_SIDE_CHANNEL
from .documenting import documented_by
from .kernel import Kernel, StrPath

__all__ = ["Lifetimes", "life_of"]


def life_of(backend: Any, coid: int) -> object:
    """What tells a connection from those that have its number before and after it; None, nobody knows of it.

    It stays the same when the connection is recovered.
    """
    return getattr(backend, "descriptors", {}).get(coid)


@documented_by(Backend)
class Lifetimes:
    """These calls, for a class that knows which connections are HA-aware.

    What makes and ends them is ``_below``: the next of the classes that a backend is made of, or what it says instead.
    """

    #: Numbers that this backend has given out and not taken back, with what ``life_of`` says of each. Every connection
    #: that it made is among them.
    descriptors: Dict[int, object]

    @property
    def _below(self) -> Kernel:
        return cast(Kernel, super())

    def _make_ordinary(self, coid: int) -> Any:
        """Detach a connection from the library, if it is HA-aware; what it takes to attach it again, else None.

        Its own recovery function may end a connection and make it again: there, nothing happens.
        """
        raise NotImplementedError

    def _is_recovering(self, coid: int) -> bool:
        """Whether this thread is in the recovery function of a connection."""
        raise NotImplementedError

    def _attach_again(self, coid: int, attached: Any) -> None:
        """Undo _make_ordinary: the connection did not end."""
        raise NotImplementedError

    # Calls that make a connection.

    def ConnectAttach(self, nd: int, pid: int, chid: int, index: int = NTO_SIDE_CHANNEL, flags: int = 0) -> int:
        return self._made(self._below.ConnectAttach(nd, pid, chid, index, flags))

    def name_open(self, path: str, flags: int = 0) -> int:
        return self._made(self._below.name_open(path, flags))

    def open(self, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        return self._made(self._below.open(path, oflag, mode))

    def dup(self, fd: int) -> int:
        return self._made(self._below.dup(fd))

    def dup2(self, fd: int, fd2: int) -> int:
        fd, fd2 = as_int("fd", fd), as_int("fd2", fd2)
        if fd == fd2:
            return self._below.dup2(fd, fd2)
        copy = self._end(fd2, lambda: self._below.dup2(fd, fd2))
        self._begin(copy)
        return copy

    def _made(self, coid: int) -> int:
        self._make_ordinary(coid)
        self._begin(coid)
        return coid

    def _begin(self, coid: int) -> None:
        if coid not in self.descriptors or not self._is_recovering(coid):
            self.descriptors[coid] = object()

    def _forget(self, coid: int) -> Dict[int, object]:
        """Take a number out of ``descriptors``, unless it is being recovered; what to remember if that fails."""
        known = {coid: self.descriptors.get(coid)} if coid in self.descriptors else {}
        if not self._is_recovering(coid):
            self.descriptors.pop(coid, None)
        return known

    def _remember(self, known: Dict[int, object]) -> None:
        for coid, life in known.items():
            self.descriptors.setdefault(coid, life)

    # Calls that end one.

    def ConnectDetach(self, coid: int) -> int:
        return self._end(coid, lambda: self._below.ConnectDetach(coid))

    def name_close(self, coid: int) -> int:
        return self._end(coid, lambda: self._below.name_close(coid))

    def close(self, fd: int) -> int:
        return self._end(fd, lambda: self._below.close(fd))

    def _end(self, coid: int, call: Callable[[], int]) -> int:
        coid = as_int("coid", coid)
        attached = self._make_ordinary(coid)
        known = self._forget(coid)
        # Not if something else has its number already (D17): that it was meant for is gone, then.
        may_stay = (known or attached is not None) and self._below.is_open(coid)
        try:
            return call()
        except BaseException:
            if may_stay and self._below.is_open(coid):
                self._remember(known)
                if attached is not None:
                    self._attach_again(coid, attached)
            raise
