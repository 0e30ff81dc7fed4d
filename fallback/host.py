"""What one POSIX host does differently from another, and what Python's own calls hide.

Everything above asks here for a pair of pipes, a window of shared memory, the credentials of a peer, a write that
raises no SIGPIPE, or a wait that a signal handler ends. On Linux each is done the direct way. Elsewhere a portable
way serves: sockets for pipes, a temporary file for sealed memory, poll for epoll. ``PORTABLE`` chooses the portable
ways on Linux, too, so that they can be tested there.
"""

# The public signal.getsignal builds an enum member on every call: too slow for each message.
import _signal  # type: ignore[import-not-found]  # typeshed leaves it out
import contextlib
import ctypes
import errno
import fcntl
import functools
import io
import itertools
import math
import mmap
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import termios
import threading
import time
from errno import EINTR, EPIPE
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from ha_qnx.errors import failure

from . import limits

PORTABLE = bool(os.environ.get("HA_QNX_PORTABLE")) or not sys.platform.startswith("linux")

READABLE = 0x001  # EPOLLIN and POLLIN
GONE = 0x008 | 0x010 | 0x2000  # EPOLLERR, EPOLLHUP, EPOLLRDHUP, and poll's

# Without errno: a signal handler that makes a failing call of its own would put its error in place of ours.
_libc = ctypes.CDLL(None)

# Untyped on purpose: with argtypes set, ctypes converts each argument through Python and takes twice as long. Every
# argument is an int that fits a C int, or was converted beforehand by from_param.
c_read = _libc.read
_c_poll = _libc.poll

getsignal = _signal.getsignal
SIGPIPE = int(signal.SIGPIPE)
IGNORED = _signal.SIG_IGN


class Credentials(NamedTuple):
    """Who a peer is, as the host's kernel says."""

    pid: int
    uid: int
    gid: int


def address_of(buffer: bytearray) -> object:
    """The address of a buffer that its owner keeps and never resizes, ready for an untyped ctypes call."""
    return ctypes.c_void_p.from_param(ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer)))


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def our_descriptors() -> int:
    """The number from which on descriptors of ours lie; those below are the program's."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limits.OUR_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft // 2, limits.OUR_DESCRIPTORS)


def out_of_the_way(fd: int) -> int:
    """Move a descriptor of ours to a high number, close-on-exec, so that low ones stay free for connections.

    A program that closes every descriptor it does not know and opens others gets the lowest numbers again, so a high
    one is also unlikely to be taken over by something else.
    """
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, our_descriptors())
    except OSError:
        return fd
    os.close(fd)
    return moved


def socket_out_of_the_way(sock: socket.socket) -> socket.socket:
    """Move the descriptor of a socket of ours to a high number, too."""
    return socket.socket(fileno=out_of_the_way(sock.detach()))


def is_still(fd: int, inode: int) -> bool:
    """Whether a descriptor still is what it was when it was opened."""
    try:
        return os.fstat(fd).st_ino == inode
    except OSError:
        return False


def close_ours(fd: int, inode: int) -> None:
    """Close a descriptor if it still is what it was when it was opened; leave alone what has its number now."""
    if is_still(fd, inode):
        with contextlib.suppress(OSError):  # Another thread of the program may be closing everything.
            os.close(fd)


class _Reserve:
    """A descriptor to give up when another one is needed and the table is full."""

    def __init__(self) -> None:
        self._fd = -1
        self._inode = 0

    def fill(self) -> None:
        if is_still(self._fd, self._inode):
            return
        with contextlib.suppress(OSError):  # Another time, then.
            self._fd = out_of_the_way(socket.socket(socket.AF_UNIX).detach())
            self._inode = os.fstat(self._fd).st_ino

    def spend(self) -> None:
        close_ours(self._fd, self._inode)


_reserve = _Reserve()


def accept(listener: socket.socket) -> socket.socket:
    """Accept a connection, where need be by the descriptor that is kept for this.

    Raises:
        BlockingIOError: nobody is left.
        OSError: EMFILE, ENFILE: not even that one can be had.
    """
    _reserve.fill()
    try:
        return listener.accept()[0]
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        _reserve.spend()
        return listener.accept()[0]


# Lanes.


class Ends(NamedTuple):
    """The two ends of a lane: what the client keeps and what it passes to the server."""

    client_read: int
    client_write: int
    server_read: int
    server_write: int


def open_lane() -> Ends:
    """Two one-way streams, one each way: pipes, or a socket pair where a pipe's reader cannot be woken."""
    _reserve.fill()
    if PORTABLE:
        near, far = socket.socketpair()
        near_read, far_read = near.detach(), far.detach()
        return Ends(near_read, os.dup(near_read), far_read, os.dup(far_read))
    server_read, client_write = os.pipe()
    try:
        client_read, server_write = os.pipe()
    except OSError:
        os.close(server_read)
        os.close(client_write)
        raise
    return Ends(client_read, client_write, server_read, server_write)


def reader(fd: int) -> Callable[["bytearray | memoryview"], Optional[int]]:
    """A function that reads from a lane into a buffer: how much, 0 at its end, None if there is nothing yet.

    A FileIO is a little faster than os.readv, and tells by None what that tells by BlockingIOError.
    """
    read_into = io.FileIO(fd, "r", closefd=False).readinto
    if is_pipe(fd):
        return read_into

    def read_or_end(buffer: "bytearray | memoryview") -> Optional[int]:
        try:
            return read_into(buffer)
        except ConnectionResetError:
            return 0  # So ends a socket whose peer has left something unread.

    return read_or_end


# For calls on what a client has passed: it has the same open file, and may let it block at any time.
_AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)


def passed_reader(fd: int) -> Callable[["bytearray | memoryview"], Optional[int]]:
    """As ``reader``, for a descriptor that a client has passed: it never waits, whatever the client does with it."""
    if is_pipe(fd):
        return reader(fd)

    def read_at_once(buffer: "bytearray | memoryview") -> Optional[int]:
        target = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        count: int = _libc.recv(fd, target, ctypes.c_size_t(len(buffer)), _AT_ONCE)
        if count >= 0:
            return count
        return 0 if is_gone(fd) else None

    return read_at_once


def passed_writer(fd: int) -> Callable[[bytes], int]:
    """What writes to a descriptor that a client has passed as ``quiet_write`` does, and never waits."""
    if is_pipe(fd):
        return functools.partial(quiet_write, fd)

    def write_at_once(data: bytes) -> int:
        count: int = _libc.send(fd, data, ctypes.c_size_t(len(data)), _AT_ONCE)
        if count >= 0:
            return count
        raise failure(EPIPE if is_gone(fd) else errno.EAGAIN)

    return write_at_once


def is_pipe(fd: int) -> bool:
    """Whether a descriptor is an end of a pipe."""
    return stat.S_ISFIFO(os.fstat(fd).st_mode)


def is_stream(fd: int, mode: int) -> bool:
    """Whether a descriptor can be an end of a lane: a pipe open in this mode, or a connected stream socket."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISFIFO(kind):
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == mode
    if not stat.S_ISSOCK(kind):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        # One that has a name leads to some server: passed to that itself, it would never come to its end.
        is_unnamed = not sock.getpeername() and not sock.getsockname()
        return is_unnamed and sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM


def make_non_blocking(fd: int, mode: int) -> None:
    """Let no read or write on a passed descriptor wait; where it can be had, by a description that is ours alone.

    Raises:
        ValueError: it is a pipe that another user does not let us open, who could make it wait.
    """
    if not PORTABLE and is_pipe(fd):
        # Nobody may be at the other end any more; then there is nothing to wait for.
        with contextlib.suppress(OSError):
            try:
                own = os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_CLOEXEC)
            except PermissionError:
                raise ValueError("a pipe that cannot be opened") from None
            try:
                os.dup2(own, fd, inheritable=False)
            finally:
                os.close(own)
            return
    os.set_blocking(fd, False)


def wake_reader(fd: int, frame: bytes) -> None:
    """End another thread's blocking read of this end of a lane: it reads ``frame``, or the end of the file."""
    try:
        _wake_reader(fd, frame)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        _reserve.spend()
        try:
            _wake_reader(fd, frame)
        finally:
            _reserve.fill()


def _wake_reader(fd: int, frame: bytes) -> None:
    if PORTABLE:
        with socket.socket(fileno=os.dup(fd)) as duplicate, contextlib.suppress(OSError):
            duplicate.shutdown(socket.SHUT_RD)
        return
    writer = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(writer, frame)
    finally:
        os.close(writer)


def unread(client_write: int) -> Optional[int]:
    """How many bytes the server has not yet taken from this lane; None where the host cannot tell."""
    if PORTABLE:
        return None
    count: int = struct.unpack("i", fcntl.ioctl(client_write, termios.FIONREAD, bytes(4)))[0]
    return count


def take_back(client_write: int) -> Optional[bool]:
    """Read a message back out of its lane, so that the server cannot receive it any more.

    Returns:
        Whether it was still there; None where the host cannot tell. Where it was and cannot be read, closing the lane
        has to do.
    """
    if not unread(client_write):
        return None if PORTABLE else False
    try:
        fd = os.open(f"/proc/self/fd/{client_write}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return bool(os.read(fd, 1 << 16))  # All that a pipe holds.
    except BlockingIOError:
        return False  # The server was faster.
    finally:
        os.close(fd)


def widen_pipe(fd: int) -> None:
    """Let a pipe for pulses hold as much as a user may have it hold, where the host can do that."""
    if not PORTABLE:
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, 1031, limits.PULSE_PIPE)  # F_SETPIPE_SZ


class Peek:
    """Look at the first bytes of a pipe without taking them, by tee(2) into a pipe of our own."""

    def __init__(self) -> None:
        self._read, self._write = map(out_of_the_way, os.pipe())
        self._inode = os.fstat(self._read).st_ino
        os.set_blocking(self._read, False)
        self._take = io.FileIO(self._read, "r", closefd=False).read
        self._size, self._size_of_tee = 0, ctypes.c_size_t.from_param(0)
        # Whether a signal handler has left there what an earlier look has copied.
        self._is_unclean = False

    def __call__(self, server_read: int, size: int) -> bytes:
        if self._is_unclean:
            self._take_all()
        if size != self._size:
            self._size, self._size_of_tee = size, ctypes.c_size_t.from_param(size)
        self._is_unclean = True
        copied: int = _libc.tee(server_read, self._write, self._size_of_tee, 2)  # SPLICE_F_NONBLOCK
        head: bytes = (self._take(4096) or b"") if copied > 0 else b""
        if copied > len(head):
            head += self._take_all()  # A pipe that a client has put into packet mode is read packet by packet.
        self._is_unclean = False
        return head

    def _take_all(self) -> bytes:
        return b"".join(iter(lambda: self._take(4096) or b"", b""))

    def __del__(self) -> None:
        for fd in (self._read, self._write) if hasattr(self, "_inode") else ():
            close_ours(fd, self._inode)


class Bell:
    """Wakes a thread that waits at a poller: ``fd`` is readable from the ring on until somebody stops it."""

    def __init__(self) -> None:
        self.fd, self._rope = map(out_of_the_way, os.pipe())
        self._inode = os.fstat(self.fd).st_ino
        for fd in (self.fd, self._rope):
            os.set_blocking(fd, False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # It rings already.
            os.write(self._rope, b"\0")

    def stop(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 512)  # If it was rung more often, it goes on ringing, which does no harm.

    def __del__(self) -> None:
        for fd in (self.fd, self._rope) if hasattr(self, "_inode") else ():
            close_ours(fd, self._inode)


#: Whether the host has descriptors that become readable at a point of time.
HAS_TIMERFD = not PORTABLE and hasattr(_libc, "timerfd_create")

_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class Timerfd:
    """``fd`` is readable from a point of time on, until that is read or it is set anew."""

    def __init__(self, clock: int) -> None:
        """A timerfd by one of the host's clocks.

        Raises:
            OSError: EMFILE.
        """
        fd = _libc.timerfd_create(clock, os.O_CLOEXEC | os.O_NONBLOCK)
        if fd < 0:
            raise failure(errno.EMFILE)  # What else it may be, ENFILE or ENOMEM, is as rare as it is alike.
        self.fd = out_of_the_way(fd)

    def set(self, at: Optional[int], every: int = 0) -> None:
        """Become readable at a point of the clock, and again each time after so long, in nanoseconds; or never."""
        first = (0, 0) if at is None else divmod(max(at, 1), 10**9)
        times = struct.pack("@4l", *divmod(every, 10**9), *first)
        _libc.timerfd_settime(self.fd, _ABSOLUTE, times, None)

    def stop(self) -> None:
        """Be readable no more, until it is due again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        """Give the descriptor back; once is enough."""
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def open_ticker(seconds: float) -> Optional[Timerfd]:
    """What is readable every so often, where the host has such a thing."""
    with contextlib.suppress(OSError):
        if HAS_TIMERFD:
            ticker, every = Timerfd(time.CLOCK_MONOTONIC), int(seconds * 1e9)
            ticker.set(time.monotonic_ns() + every, every)
            return ticker
    return None


def quiet_write(fd: int, data: bytes) -> int:
    """Write without being killed by SIGPIPE: a reader that is gone is a BrokenPipeError, whatever the program set."""
    if getsignal(SIGPIPE) == IGNORED:
        return os.write(fd, data)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    pending = signal.SIGPIPE in signal.sigpending()
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        if not pending and signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Trunks.


def send_with_descriptors(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    """Send a frame and pass descriptors with it.

    Raises:
        BrokenPipeError: the other end is closed.
        BlockingIOError: the other end does not read and the host holds no more for it.
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
    try:
        sent = sock.sendmsg([data], ancillary if descriptors else [], getattr(socket, "MSG_NOSIGNAL", 0))
    except ConnectionResetError:
        raise failure(EPIPE) from None
    except OSError as error:
        if error.errno == errno.ETOOMANYREFS:
            raise BlockingIOError(error.errno, error.strerror) from None
        raise
    if sent != len(data):  # A frame of 32 bytes is never cut by any host known to us; half of one is of no use.
        raise BrokenPipeError(EPIPE, "the trunk took half a frame")


# What Linux passes with one message at most; other hosts pass no more.
_PASSED_AT_ONCE = 253
_RECEIVE = _PASSED_AT_ONCE * 4, getattr(socket, "MSG_CMSG_CLOEXEC", 0) | getattr(socket, "MSG_DONTWAIT", 0)

Received = Tuple[bytes, List[Tuple[int, int, bytes]], int, object]


def receive_with_descriptors(sock: socket.socket, size: int, passed: List[int]) -> Tuple[bytes, bool]:
    """Receive up to ``size`` bytes, and what descriptors come with them, all close-on-exec.

    Args:
        sock: the trunk.
        size: how many bytes at most.
        passed: gets the descriptors, also if a signal handler raises meanwhile.

    Returns:
        The bytes, b"" at the end, and whether the host had no room for a descriptor.
    """
    space, flags = socket.CMSG_SPACE(_RECEIVE[0]), _RECEIVE[1]
    received: List[Received] = []
    try:
        # In one step, between whose halves no signal handler can come: what has been received is never lost.
        received.extend(itertools.starmap(sock.recvmsg, [(size, space, flags)]))
    finally:
        for _data, ancillary, _flags, _address in received:
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    passed.extend(struct.unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4]))
    if not hasattr(socket, "MSG_CMSG_CLOEXEC"):
        for fd in passed:
            os.set_inheritable(fd, False)
    data, _ancillary, flags, _address = received[0]
    return data, bool(flags & socket.MSG_CTRUNC)


def close_passed(fd: int) -> None:
    """Close what a client has passed, and do not wait for that, though SO_LINGER may ask for it."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            off = struct.pack("ii", 0, 0)
            with socket.socket(fileno=os.dup(fd)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, off)
    with contextlib.suppress(OSError):
        os.close(fd)


def close_trunk(sock: socket.socket) -> None:
    """Close a trunk, and what descriptors lie in it unread."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # From here on, nothing more can come.
        for _message in range(limits.LAST_TRUNK_READS):
            passed: List[int] = []
            data, _lost = receive_with_descriptors(sock, 1 << 16, passed)
            for fd in passed:
                close_passed(fd)
            if not data:
                break
    sock.close()


def peer_credentials(sock: socket.socket) -> Credentials:
    """Who is at the other end of a connected socket."""
    if hasattr(socket, "SO_PEERCRED"):
        return Credentials(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
    # BSD and macOS: struct xucred (version, uid, ngroups, groups[16]) and, on macOS, LOCAL_PEERPID.
    local = getattr(socket, "SOL_LOCAL", 0)
    record = sock.getsockopt(local, getattr(socket, "LOCAL_PEERCRED", 1), 76)
    uid, _count, gid = struct.unpack_from("=IhxxI", record, 4)
    pid = 0
    if sys.platform == "darwin":
        pid = struct.unpack("i", sock.getsockopt(local, 2, 4))[0]
    return Credentials(pid, uid, gid)


# Windows.


def unlinked_file() -> int:
    """A descriptor of an empty file that no name leads to."""
    import tempfile  # Linux does without, and it takes long to import.

    with tempfile.TemporaryFile() as file:
        return fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 0)


if PORTABLE:
    # The first one is made under a lock of tempfile's own, for which a signal handler that comes then would wait.
    with contextlib.suppress(OSError):
        os.close(unlinked_file())


class Window:
    """Memory that a lane's client and server share, for messages that are too large for a frame."""

    def __init__(self, fd: int, size: int, memory: Optional[mmap.mmap]) -> None:
        self.fd = fd
        self.size = size
        self._memory = memory
        #: The memory, if it is mapped: as long as the window is open, and no longer.
        self.view = None if memory is None else memoryview(memory)

    @classmethod
    def create(cls, size: int) -> "Window":
        """A new window: memory sealed against shrinking, or an unlinked temporary file."""
        if PORTABLE:
            fd = unlinked_file()
            os.ftruncate(fd, size)
            return cls(fd, size, None)
        fd = os.memfd_create("ha_qnx window", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(fd, size, mmap.mmap(fd, size))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def adopt(cls, fd: int, size: int) -> "Window":
        """A window that a client made. It is mapped only if the client can no longer make it smaller.

        Raises:
            ValueError: it is no file to be read and written, or smaller than the client says.
        """
        status = os.fstat(fd)
        if not 0 < size <= status.st_size:
            raise ValueError("a window that is smaller than announced")
        if not stat.S_ISREG(status.st_mode) or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            raise ValueError("a window that cannot be read and written")
        if not PORTABLE:
            try:
                if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                    return cls(fd, size, mmap.mmap(fd, size))
            except OSError:
                pass  # Not sealed memory: read and write it like a file.
        return cls(fd, size, None)

    def write(self, offset: int, data: memoryview) -> None:
        """Copy ``data`` into the window."""
        if self.view is not None:
            self.view[offset : offset + len(data)] = data
            return
        while data:
            count = os.pwrite(self.fd, data, offset)
            data, offset = data[count:], offset + count

    def read_into(self, offset: int, target: memoryview) -> None:
        """Copy out of the window until ``target`` is full.

        Raises:
            ValueError: the client has made the file smaller in the meantime.
        """
        if self.view is not None:
            target[:] = self.view[offset : offset + len(target)]
            return
        while target:
            count = os.preadv(self.fd, [target], offset) if hasattr(os, "preadv") else self._pread(target, offset)
            if not count:
                raise ValueError("a window became smaller")
            target, offset = target[count:], offset + count

    def _pread(self, target: memoryview, offset: int) -> int:
        data = os.pread(self.fd, min(len(target), 1 << 20), offset)  # Copied twice, so not all of it at once.
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Give the memory back; once is enough."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
            if self._memory is not None and self.view is not None:
                # In a forked child, there may be a view of a thread that it does not have; the memory is left to it.
                with contextlib.suppress(BufferError):
                    self.view.release()
                    self._memory.close()


# Waiting.

# Where struct sigaction holds the flags, and its size at most.
_SIGACTION_FLAGS = {"linux": 8 + 128, "darwin": 8 + 4}.get(sys.platform)
_SIGACTION_SIZE = 256
_SA_RESTART = {"linux": 0x10000000, "darwin": 0x2}.get(sys.platform, 0)


def restarts_reads() -> bool:
    """Whether a read may start again after one of Python's signal handlers, because of SA_RESTART.

    Python installs its handlers without that; signal.siginterrupt and asyncio's add_signal_handler ask for it. poll(2)
    never starts again, so it is the longer way that is always open.
    """
    if PORTABLE or _SIGACTION_FLAGS is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return True
    action = ctypes.create_string_buffer(_SIGACTION_SIZE)
    for number in range(1, signal.NSIG):
        if callable(getsignal(number)) and _libc.sigaction(number, None, action) == 0:
            (flags,) = struct.unpack_from("i", action, _SIGACTION_FLAGS)
            if flags & _SA_RESTART:
                return True
    return False


def _milliseconds(deadline: Optional[float]) -> int:
    """What is left until a deadline, in the milliseconds of poll(2): rounded up, lest it end before, and a C int."""
    if deadline is None:
        return -1
    return max(0, min(math.ceil((deadline - time.monotonic()) * 1000), 2**31 - 1))


def _interruptible_poll(entries: object, count: int, deadline: Optional[float]) -> int:
    """poll(2) for the main thread: the number of entries with news, 0 at the deadline, -EINTR after a signal handler.

    Python's own waits start again after a handler. This one ends, and only for a handler that ran: poll goes on by
    itself after the process was merely stopped and continued, which epoll_wait does not. It has no other way to fail.
    """
    found: int = _c_poll(entries, count, _milliseconds(deadline))
    return found if found >= 0 else -EINTR


def wait_readable(fd: int, deadline: Optional[float], is_main: bool) -> int:
    """Wait until ``fd`` can be read or has ended.

    Args:
        fd: a descriptor.
        deadline: as time.monotonic() tells it; None waits without end.
        is_main: whether this is the main thread, where a signal handler ends the wait.

    Returns:
        1, or 0 at the deadline, or -EINTR.
    """
    if is_main:
        entry = bytearray(struct.pack("ihh", fd, select.POLLIN, 0))
        return _interruptible_poll(address_of(entry), 1, deadline)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return len(poll.poll(None if deadline is None else _milliseconds(deadline)))


News = Sequence[Tuple[int, int]]


def news_of(descriptors: Sequence[int]) -> News:
    """The news that there is at the moment of descriptors that no poller watches yet."""
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN | getattr(select, "POLLRDHUP", 0))
    return poll.poll(0)


def is_gone(fd: int) -> bool:
    """Whether a descriptor has ended by now."""
    return any(event & GONE for _fd, event in news_of([fd]))


class EpollPoller:
    """Which of a channel's descriptors have news; each piece of news goes to one of the threads that wait."""

    def __init__(self) -> None:
        made = select.epoll()
        self._epoll = select.epoll.fromfd(out_of_the_way(os.dup(made.fileno())))
        made.close()
        self._entry = bytearray(struct.pack("ihh", self._epoll.fileno(), select.POLLIN, 0))
        self._entry_address = address_of(self._entry)
        self._masks: Dict[int, int] = {}
        # Wait in any thread but the main one, as fast as Python can: to be called with None, for no limit of time, and
        # with how much news is told at most, since room for more takes time to make.
        self.wait_for_ever = self._epoll.poll
        self._news = functools.partial(self._epoll.poll, 0)
        # As ``news``, or some of it, sooner.
        self.glance = functools.partial(self._epoll.poll, 0, 16)

    def register(self, fd: int, once: bool = False) -> None:
        """Watch a descriptor; with ``once``, news is told once, and not again as long as it lies unread."""
        self._masks[fd] = select.EPOLLIN | select.EPOLLRDHUP | (select.EPOLLET if once else 0)
        try:
            self._epoll.register(fd, self._masks[fd])
        except FileExistsError:  # A signal handler came between this and what was to follow it.
            self._epoll.modify(fd, self._masks[fd])

    def unregister(self, fd: int) -> None:
        """Watch a descriptor no more, which has to be said before it is closed."""
        with contextlib.suppress(KeyError, OSError):  # Not watched; or the program has closed one of the two (D17).
            del self._masks[fd]
            self._epoll.unregister(fd)

    def mute(self, fd: int) -> None:
        """Tell no more that a descriptor can be read, only that it has ended."""
        self._epoll.modify(fd, 0)

    def unmute(self, fd: int) -> None:
        """Tell again what there is to read from a descriptor that was muted, or of which not all was read."""
        self._epoll.modify(fd, self._masks[fd])

    def tell_again(self) -> None:
        """Tell all that still lies unread, told or not."""
        for fd, mask in list(self._masks.items()):
            with contextlib.suppress(FileNotFoundError):  # A signal handler has come first.
                self._epoll.modify(fd, mask)

    def news(self) -> News:
        """The news that there is at the moment."""
        return self._epoll.poll(0)

    def wait_interruptibly(self) -> News:
        """Wait without a limit of time in the main thread.

        Raises:
            InterruptedError: a signal handler ran.
        """
        if _c_poll(self._entry_address, 1, -1) < 0:
            raise failure(EINTR)
        return self._news()

    def wait(self, deadline: Optional[float], is_main: bool) -> News:
        """Wait until there is news, or until the deadline.

        Raises:
            InterruptedError: a signal handler ran in the main thread.
        """
        if not is_main:
            # In milliseconds, what epoll waits must fit C's int; who wakes before the deadline waits again.
            return self._epoll.poll(None if deadline is None else min(max(0.0, deadline - time.monotonic()), 1e6))
        if _interruptible_poll(self._entry_address, 1, deadline) < 0:
            raise failure(EINTR)
        return self._epoll.poll(0)


_of_thread = threading.local()


def _own_bell() -> Bell:
    """A bell of the calling thread; a forked child has others than its parent."""
    if getattr(_of_thread, "process", 0) != os.getpid():
        _of_thread.bell, _of_thread.process = Bell(), os.getpid()
    bell: Bell = _of_thread.bell
    return bell


class PollPoller:
    """Which of a channel's descriptors have news, where there is no epoll: every thread that waits is told all of it.

    poll(2) looks at every descriptor each time. It knows nothing of what is registered while it waits, so every thread
    that waits has a bell of its own.
    """

    def __init__(self) -> None:
        self._masks: Dict[int, int] = {}
        self._waiting: Set[Bell] = set()

    def register(self, fd: int, once: bool = False) -> None:
        self._watch(fd, select.POLLIN)

    def unregister(self, fd: int) -> None:
        if self._masks.pop(fd, None) is not None:
            self._look_again()

    def mute(self, fd: int) -> None:
        self._watch(fd, 0)

    def unmute(self, fd: int) -> None:
        self._watch(fd, select.POLLIN)

    def _watch(self, fd: int, mask: int) -> None:
        self._masks[fd] = mask
        self._look_again()

    def _look_again(self) -> None:
        for bell in list(self._waiting):
            bell.ring()

    def tell_again(self) -> None:
        """There is nothing to do: what lies unread is told each time."""

    def wait_for_ever(self, timeout: None = None, most: int = 0) -> News:
        return self.wait(None, False)

    def wait_interruptibly(self) -> News:
        return self.wait(None, True)

    def glance(self) -> News:
        return self.news()

    def news(self) -> News:
        return self._poll(dict(self._masks), 0.0, False)

    def wait(self, deadline: Optional[float], is_main: bool) -> News:
        bell = _own_bell()
        self._waiting.add(bell)
        try:
            while True:
                bell.stop()
                news = self._poll({**self._masks, bell.fd: select.POLLIN}, deadline, is_main)
                rest = [(fd, event) for fd, event in news if fd != bell.fd]
                if rest or not news:
                    return rest
        finally:
            self._waiting.discard(bell)

    @staticmethod
    def _poll(masks: Dict[int, int], deadline: Optional[float], is_main: bool) -> News:
        if not is_main:
            poll = select.poll()
            for fd, mask in masks.items():
                poll.register(fd, mask)
            return poll.poll(None if deadline is None else _milliseconds(deadline))
        entries = bytearray(b"".join(struct.pack("ihh", fd, mask, 0) for fd, mask in masks.items()))
        if _interruptible_poll(address_of(entries), len(masks), deadline) < 0:
            raise failure(EINTR)
        return [(fd, events) for fd, _mask, events in struct.iter_unpack("ihh", entries) if events]


Poller = Union[EpollPoller, PollPoller]


def news_goes_to_one() -> bool:
    """Whether only one of the threads that wait is told of a piece of news."""
    return not PORTABLE and hasattr(select, "epoll")


def open_poller() -> Poller:
    """The poller of this host."""
    return EpollPoller() if news_goes_to_one() else PollPoller()
