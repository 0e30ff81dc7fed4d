"""Waiting for a server to arrive: woken by the host on Linux, by looking now and then elsewhere.

On Linux, a server that takes a name, attaches a path or creates a channel changes or makes a file of the runtime
directory; inotify reports each. A QNX target has no such thing for its path space: there is nothing but to look again.
"""

import contextlib
import ctypes
import os
import select
import sys
import threading
import time
from typing import Optional, Type

_IN_CLOEXEC = os.O_CLOEXEC
_IN_NONBLOCK = os.O_NONBLOCK
_IN_MODIFY = 0x002
_IN_MOVED_TO = 0x080
_IN_CREATE = 0x100

# What does not show in the runtime directory, such as a device of the host, is looked for this often.
_LOOK_AGAIN = 1.0
_POLL_SHORTEST = 0.001
_POLL_LONGEST = 0.05


class Arrivals:
    """Everything that arrives after this object was made ends a wait. A context manager."""

    def __init__(self) -> None:
        self._pause = _POLL_SHORTEST
        self._fd = _inotify() if sys.platform.startswith("linux") else -1
        self._watch()

    def __enter__(self) -> "Arrivals":
        return self

    def __exit__(self, _kind: Optional[Type[BaseException]], _error: object, _traceback: object) -> None:
        self._close()

    @property
    def wakes(self) -> bool:
        """Whether the host wakes us, so that nobody has to poll."""
        return self._fd >= 0

    def wait(self, seconds: float) -> None:
        """Wait until a server may have arrived, at most so long. It may be a false alarm: look, and wait again."""
        if not self.wakes:
            time.sleep(min(seconds, self._pause))
            self._pause = min(self._pause * 1.5, _POLL_LONGEST)
            return
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if poll.poll(min(seconds, _LOOK_AGAIN) * 1000):
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 65536)
            self._watch()

    def _watch(self) -> None:
        """Watch the directories of the runtime directory, those that have come to it included."""
        if not self.wakes:
            return
        from .fallback.runtime import wire_directory

        rooms = [os.path.join(wire_directory(), room) for room in ("channels", "names", "paths")]
        if not all(_watch_all(self._fd, room) for room in rooms):
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # Linux takes several milliseconds to close it, and a message waits to be sent again.
            threading.Thread(target=os.close, args=(fd,), daemon=True).start()


def _inotify() -> int:
    """A new inotify descriptor; -1 if the host has none to give."""
    from .fallback.host import out_of_the_way

    found: int = ctypes.CDLL(None).inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
    # It may have got the number of a connection that a forked child does not have, and is about to recover (D130).
    return out_of_the_way(found) if found >= 0 else found


def _watch_all(fd: int, directory: str) -> bool:
    """Watch a directory and, since a path and a name too long for a file's lie in their own, those in it.

    Returns:
        Whether it is there, and the host had room for all watches.
    """
    if not _add_watch(fd, directory):
        return False
    # From here on, the watch tells of what comes. What goes meanwhile was left by a server that is gone.
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        inner = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        return all(_watch_all(fd, path) or not os.path.isdir(path) for path in inner)
    return False


def _add_watch(fd: int, directory: str) -> bool:
    mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
    watch: int = ctypes.CDLL(None).inotify_add_watch(fd, os.fsencode(directory), mask)
    return watch >= 0
