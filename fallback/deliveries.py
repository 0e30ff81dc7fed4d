"""Events that servers deliver to their clients: what each side keeps for that.

Nobody waits for anybody here, and yet a server is told at once what becomes of an event. So a process that has
connections says which, in a file that its servers can read: a byte for each number. And what a server delivers lies in
a pipe of the two until a thread of the client receives on any channel of its own: it passes on what there is, as if
the client had sent those pulses itself.
"""

import contextlib
import os
import socket
import stat
import threading
from errno import EAGAIN, ESRCH
from typing import Callable, Dict, Final, List, Tuple
from weakref import WeakValueDictionary

from ha_qnx.constants import NTO_SIDE_CHANNEL
from ha_qnx.errors import failure

from . import door, host, limits, wire
from .forking import forks_wait
from .pulse_pipes import open_pipe, put_in_wider

# What a process says of a number.
NO_CONNECTION: Final = 0
CONNECTION: Final = 1
CHANNEL_GONE: Final = 2


def _place(coid: int) -> int:
    return 2 * (coid & ~NTO_SIDE_CHANNEL) + (1 if coid & NTO_SIDE_CHANNEL else 0)


class Said:
    """The file in which a process says which connections it has. It is there from the first of them on."""

    def __init__(self) -> None:
        self._fd = -1
        self._inode = 0

    def begin(self) -> int:
        """Its descriptor; -1 if the host has no room for one: then nothing is delivered to this process."""
        if not self._is_there():
            self._fd = -1
            with contextlib.suppress(OSError):
                made = host.unlinked_file() if host.PORTABLE else os.memfd_create("ha_qnx coids", os.MFD_CLOEXEC)
                self._fd = host.out_of_the_way(made)
                self._inode = os.fstat(self._fd).st_ino
        return self._fd

    def say(self, coid: int, state: int) -> None:
        """Say what is under a number by now."""
        if self._is_there():
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, bytes((state,)), _place(coid))

    def close(self) -> None:
        """In a forked child: the file is the parent's."""
        host.close_ours(self._fd, self._inode)

    def _is_there(self) -> bool:
        """Not, if the program has closed it behind our back: another file may have its number (D17)."""
        return self._fd >= 0 and host.is_still(self._fd, self._inode)


class File:
    """The file of a client, open here."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def state(self, coid: int) -> int:
        """What the client says of a number."""
        with contextlib.suppress(OSError, OverflowError):
            return (os.pread(self._fd, 1, _place(coid)) or b"\0")[0]
        return NO_CONNECTION

    def close(self) -> None:
        """What nobody knows of any more is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Files:
    """The files of clients, each of which is open here once, however many connections its process has."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[Tuple[int, int], File] = WeakValueDictionary()

    def adopt(self, fd: int) -> File:
        """Take over a descriptor that a client has passed.

        Raises:
            ValueError: it is no regular file.
        """
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("what a client says lies in a file")
        return self._open.setdefault((found.st_dev, found.st_ino), File(fd))

    def close_in_child(self) -> None:
        """Close what a forked child has inherited."""
        for file in list(self._open.values()):
            file.close()


class Outlet:
    """The server's end of the pipe through which one client gets events. It is made with the first of them."""

    # There is one for each client, be it idle.
    __slots__ = ("_fd", "_trunk")

    def __init__(self, trunk: socket.socket) -> None:
        self._trunk = trunk
        self._fd = -1

    def put(self, frame: bytes) -> None:
        """Hand an event to the host, which keeps it until the client takes it.

        Raises:
            OSError: ESRCH, the client is gone; EAGAIN, as many events wait as the host holds; EMFILE, ENFILE.
        """
        try:
            if self._fd < 0:
                self._open()
            try:
                host.quiet_write(self._fd, frame)
            except BlockingIOError:
                put_in_wider(self._fd, frame)
        except BrokenPipeError:
            self.close()
            raise failure(ESRCH) from None
        except BlockingIOError:
            raise failure(EAGAIN) from None

    def _open(self) -> None:
        with forks_wait:
            open_pipe(self._pass, self._keep)

    def _pass(self, far: int) -> None:
        door.let_others_open([far])
        host.send_with_descriptors(self._trunk, wire.lane.pack(wire.EVENTS, 0, 0, 0), (far,))

    def _keep(self, near: int) -> None:
        self._fd = host.out_of_the_way(near)

    def close(self) -> None:
        """Nothing more is delivered by it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Inlets:
    """The client's ends of such pipes. Any thread that receives reads them; one at a time, so that order is kept."""

    def __init__(
        self, forward: Callable[[int, bytes], None], watch: Callable[[int], None], unwatch: Callable[[int], None]
    ) -> None:
        #: The descriptors that are read, each for the trunk that it came by.
        self.descriptors: Dict[int, object] = {}
        self._lock = threading.RLock()
        self._forward = forward
        self._watch, self._unwatch = watch, unwatch

    def add(self, trunk: object, fd: int) -> None:
        """Read what a server has passed, as long as the trunk is there."""
        try:
            if not host.is_stream(fd, os.O_RDONLY):
                raise ValueError("events come by a pipe")
            host.make_non_blocking(fd, os.O_RDONLY)
        except (OSError, ValueError):  # Nothing that follows the protocol passes that.
            host.close_passed(fd)
            return
        fd = host.out_of_the_way(fd)
        self.descriptors[fd] = trunk
        self._watch(fd)

    def read(self, fd: int) -> bool:
        """Pass on what lies in a pipe; whether there may be more."""
        with self._lock:
            if fd not in self.descriptors:
                return False
            try:
                data = os.read(fd, limits.PULSES_READ * wire.PULSE_FRAME)
            except OSError:
                return False
            if not data:
                del self.descriptors[fd]
                self._unwatch(fd)
                os.close(fd)
            for start in range(0, len(data) // wire.PULSE_FRAME * wire.PULSE_FRAME, wire.PULSE_FRAME):
                frame = data[start : start + wire.PULSE_FRAME]
                kind, priority, _code, _value, coid, _time, _rest = wire.pulse.unpack(frame)
                if kind == wire.PULSE and 1 <= priority <= 255:
                    with contextlib.suppress(OSError):  # Nobody is told (D91).
                        self._forward(coid, frame)
            return len(data) == limits.PULSES_READ * wire.PULSE_FRAME

    def of(self, trunk: object) -> List[int]:
        """The descriptors that came by a trunk."""
        return [fd for fd, came_by in list(self.descriptors.items()) if came_by is trunk]

    def close(self, trunk: object) -> None:
        """Close those of a trunk that has ended."""
        for fd in self.of(trunk):
            if self.descriptors.pop(fd, None) is not None:
                os.close(fd)
