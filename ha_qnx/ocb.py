"""Open control blocks: what a server keeps for each opening of its name, as QNX's resource managers do.

A client's connection is known by two numbers, the server connection (scoid: which process) and the client's own number
for it (coid). Duplicates of a descriptor share one OCB, which lives as long as the last of them.
"""

import threading
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

__all__ = ["Key", "Ocb", "Ocbs"]

#: By which numbers a client's connection is known: its scoid and its coid.
Key = Tuple[int, int]


class Ocb:
    """What a server keeps for one opening."""

    def __init__(self, pid: int) -> None:
        #: The process that opened it.
        self.pid = pid
        #: How it was opened: the access mode plus one, and QNX's O_ flags (B312); 0 for a connection without an open.
        self.ioflag = 0
        #: Where the next read or write begins.
        self.offset = 0
        #: Whatever the handlers want to remember.
        self.data: Any = None
        #: Held while ``read`` or ``write`` runs, so that offsets do not get mixed up.
        self.lock: Any = threading.RLock()
        self.links = 0


class OcbAt(Ocb):
    """The OCB of an opening, with an offset of its own: what a read or a write elsewhere works on."""

    def __init__(self, ocb: Ocb, offset: int) -> None:
        object.__setattr__(self, "_ocb", ocb)
        object.__setattr__(self, "offset", offset)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_ocb"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "offset":
            object.__setattr__(self, name, value)
        else:
            setattr(object.__getattribute__(self, "_ocb"), name, value)


class _Link(NamedTuple):
    """A connection that has an OCB: whose it is, because numbers are used again."""

    pid: int
    ocb: Ocb


class Ocbs:
    """The OCBs of all clients."""

    def __init__(self) -> None:
        self._links: Dict[Key, _Link] = {}
        self._lock = threading.Lock()

    def get(self, key: Key, pid: int) -> Optional[Ocb]:
        """The OCB of a connection; not one that another process with the same numbers has left behind."""
        link = self._links.get(key)
        return link.ocb if link is not None and link.pid == pid else None

    def enter(self, key: Key, pid: int, ocb: Ocb) -> List[Ocb]:
        """Let a connection have this OCB; return what ends by it."""
        with self._lock:
            ocb.links += 1
            ended = self._unlink(key)
            self._links[key] = _Link(pid, ocb)
        return ended

    def leave(self, key: Key, ocb: Optional[Ocb] = None) -> List[Ocb]:
        """A connection is closed, if it has this OCB, or whichever; return what ends by it."""
        with self._lock:
            link = self._links.get(key)
            return self._unlink(key) if link is not None and ocb in (None, link.ocb) else []

    def leave_client(self, scoid: Optional[int] = None) -> List[Ocb]:
        """A client is gone, or all of them; return what ends by it."""
        with self._lock:
            keys = [key for key in self._links if scoid in (None, key[0])]
            return [ocb for key in keys for ocb in self._unlink(key)]

    def _unlink(self, key: Key) -> List[Ocb]:
        link = self._links.pop(key, None)
        if link is None:
            return []
        link.ocb.links -= 1
        return [] if link.ocb.links else [link.ocb]
