"""The ordinary calls, on connections too: ``install`` lets os.read, open() and their like take a connection.

    dropin.install()
    with open("/dev/journal") as journal:     # a connection, through the buffers and the text layer
        for line in journal: ...

What is replaced: os.open, os.read, os.readv, os.pread, os.write, os.writev, os.pwrite, os.sendfile, os.lseek, os.fstat,
os.isatty, os.ftruncate, os.fsync, os.fdatasync, os.fchmod, os.close, os.closerange, os.dup, os.dup2; on paths
os.stat, os.lstat, os.access, os.truncate and os.chmod, and so os.path.exists and its like; select.select, select.poll
and select.epoll, and so selectors, and add_reader of event loops that are made afterwards; and open(), which is io.open
and what os.fdopen, pathlib and linecache use. On a connection of the backend they are its covers; on any other
descriptor, and any path that no server has attached when it is opened, the originals run. (On a QNX target every path
has a server; there, the paths below /dev are meant.) Arguments, results, exceptions, ``closefd`` and ``opener`` are
those of the originals, and so is PEP 475: what a signal interrupts begins anew. On a host, a call on a path opens it,
asks the server, and closes it again (D98). select and its like ask the servers of connections by ionotify (D112). One
that does not answer within a second, or the time that is given if that is longer, is taken not to be ready; as with any
timeout, one that is stopped keeps its client.

What stays as it was, and does not know connections: what a module took before with ``from os import read``, io.FileIO
itself, os.preadv and os.pwritev, os.set_inheritable and os.set_blocking, kqueue, sockets, mmap,
extension modules, and other programs that inherit a descriptor. On a QNX target it is the preloaded libha that serves
those (``ha-qnx run``).

With ``recover_within``, what a program opens is HA-aware: it is opened again when its server is lost, as soon as there
is another one, and its position put back to where the last transfer ended. That makes a transfer that is sent twice
harmless for a server that keeps a file. One that appends, or acts on each message, may do so twice (B402).
"""

import builtins
import contextlib
import functools
import io
import operator
import os
import pathlib
import select
import sys
import threading
import types
from errno import EINTR, ENOSYS, ESPIPE
from typing import IO, Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, TypeVar, Union

from . import backends, polling, strategies
from .api import Backend
from .buffers import as_seconds
from .constants import DCMD_CHR_ISATTY, NTO_COF_CLOEXEC, NTO_SIDE_CHANNEL
from .files import OpenMode, RawFile, is_connection, uninterrupted
from .kernel import BytesLike, StrPath
from .platforms import is_qnx
from .rules import LOST
from .structures import MessageInfo

__all__ = ["PATHS_VARIABLE", "install", "installed", "parse_paths", "uninstall"]

#: Names a map of paths: /dev/ser1=/dev/fakeser,/dev/ser2=...
PATHS_VARIABLE = "HA_QNX_PATHS"

T = TypeVar("T")

_DEVICES = "/dev/"

_REOPENED_WITHOUT = os.O_CREAT | os.O_EXCL | os.O_TRUNC


def parse_paths(text: str) -> Dict[str, str]:
    """The map of paths that HA_QNX_PATHS holds.

    Raises:
        ValueError: it is none.
    """
    paths = {}
    for entry in filter(None, text.split(",")):
        path, _equals, target = entry.partition("=")
        if not path.startswith("/") or not target.startswith("/"):
            raise ValueError(f"{PATHS_VARIABLE}: {entry!r} is not of the form /path=/other/path")
        paths[path] = target
    return paths


def _check_paths(paths: Any) -> None:
    if not isinstance(paths, Mapping) or not all(isinstance(path, str) for entry in paths.items() for path in entry):
        raise TypeError(f"paths must be a mapping of strings, not {paths!r}")


def install(
    backend: Optional[Backend] = None,
    *,
    recover_within: Optional[float] = None,
    paths: Optional[Mapping[str, str]] = None,
) -> None:
    """Let the ordinary calls take connections.

    Args:
        backend: whose connections; without it, the default backend's.
        recover_within: make the connections that are opened HA-aware, and let them wait so many seconds for the next
            server. Without it, only what the program itself makes HA-aware recovers.
        paths: paths to open in place of others; without it, what HA_QNX_PATHS says.

    Raises:
        RuntimeError: it is installed already.
        TypeError: ``recover_within`` is no number, or ``paths`` is no mapping of strings.
        ValueError: HA_QNX_PATHS is not of its form, or ``recover_within`` is NaN.
        ImportError: the backend cannot be had.
    """
    global _current
    if paths is None:
        paths = parse_paths(os.environ.get(PATHS_VARIABLE, ""))
    _check_paths(paths)
    if recover_within is not None:
        recover_within = as_seconds("recover_within", recover_within)
    with _lock:
        if _current is not None:
            raise RuntimeError("the drop-in is installed already")
        _current = _Installed(_Covers(backend or backends.backend(), recover_within, paths))


def uninstall() -> None:
    """Give the ordinary calls back. Files that are open stay usable. Without install, nothing happens."""
    global _current
    with _lock:
        if _current is not None:
            _current.undo()
            _current = None


@contextlib.contextmanager
def installed(
    backend: Optional[Backend] = None,
    *,
    recover_within: Optional[float] = None,
    paths: Optional[Mapping[str, str]] = None,
) -> Iterator[None]:
    """Install the drop-in for the time of a with statement."""
    install(backend, recover_within=recover_within, paths=paths)
    try:
        yield
    finally:
        uninstall()


class _Place:
    """How a descriptor was opened, and where its next transfer begins: what it takes to go on elsewhere."""

    def __init__(self, path: str, oflag: int) -> None:
        self.path = path
        self.oflag = oflag & ~_REOPENED_WITHOUT
        # None where the server decides.
        self.position: Optional[int] = None if oflag & os.O_APPEND else 0

    def copy(self) -> "_Place":
        other = _Place(self.path, self.oflag)
        other.position = self.position
        return other

    def moved_by(self, count: int) -> None:
        if self.position is not None:
            self.position += count

    def moved_to(self, position: int) -> None:
        if self.position is not None:
            self.position = position


def _has_server(path: str) -> bool:
    """Whether opening a path is to be asked of a server, which may die."""
    if is_qnx():
        return os.path.abspath(path).startswith(_DEVICES)
    from .fallback.paths import is_attached

    return is_attached(path)


class _Covers:
    """The backend's calls as the ordinary ones promise them."""

    def __init__(self, backend: Backend, recover_within: Optional[float], paths: Mapping[str, str]) -> None:
        self.backend: Any = backend
        self.ConnectServerInfo = backend.ConnectServerInfo
        self.recover_within = recover_within
        self._paths = paths
        self._places: Dict[int, _Place] = {}
        #: Every connection is among them, and few other descriptors.
        self.descriptors: Dict[int, object] = getattr(backend, "descriptors", {})
        for fd in _connections_left(backend):
            self.descriptors.setdefault(fd, None)

    def is_connection(self, fd: int) -> bool:
        return fd in self.descriptors and is_connection(self.backend, fd)

    # Paths.

    def target(self, path: object) -> Optional[str]:
        """What is to be opened for a path; None if it is none of ours."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        text: str = os.fsdecode(path)
        mapped = self._paths.get(text)
        if mapped is None and not _has_server(text):
            return None
        return mapped or text

    def open(self, path: StrPath, target: str, oflag: int, mode: int) -> int:
        try:
            fd = uninterrupted(self._open, target, operator.index(oflag), operator.index(mode) & 0o7777)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        self.descriptors.setdefault(fd, None)
        return fd

    def _open(self, target: str, oflag: int, mode: int) -> int:
        if self.recover_within is None:
            fd: int = self.backend.open(target, oflag, mode)
            self._places.pop(fd, None)
            return fd
        place = _Place(target, oflag)
        fd = self.backend.ha_open(target, oflag, self._recovery_of(place), None, 0, mode)
        strategies.set_limits(self.backend, fd, strategies.ATTEMPTS, None)
        self._places[fd] = place
        return fd

    def _recovery_of(self, opened: _Place) -> Callable[[int, Any], int]:
        """A recovery function for a descriptor and its duplicates."""

        def seek_back(fd: int, _handle: object) -> None:
            # From here on it shares its position with no duplicate: the server has opened it for itself.
            place = self._places[fd] = self._places.get(fd, opened).copy()
            if place.position:
                try:
                    self.backend.lseek(fd, place.position, os.SEEK_SET)
                except OSError as error:
                    if error.errno not in (ESPIPE, ENOSYS):
                        raise
                    place.position = None

        reopen = strategies.reopen(opened.path, opened.oflag, backend=self.backend)
        return strategies.wait_for(strategies.then(reopen, seek_back), self.recover_within or 0.0)

    # Descriptors. These are also the calls that our raw files are made of.

    def read(self, fd: int, n: int) -> bytes:
        data: bytes = uninterrupted(self.backend.read, fd, n)
        self._moved_by(fd, len(data))
        return data

    def readinto(self, fd: int, buf: BytesLike) -> int:
        return self._moved_by(fd, self.backend.readinto(fd, buf))

    def readv(self, fd: int, buffers: Any) -> int:
        return self._moved_by(fd, uninterrupted(self.backend._readv, fd, buffers))

    def write(self, fd: int, data: BytesLike) -> int:
        return self._moved_by(fd, self.backend.write(fd, data))

    def writev(self, fd: int, buffers: Any) -> int:
        return self._moved_by(fd, uninterrupted(self.backend._writev, fd, buffers))

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        position: int = self.backend.lseek(fd, offset, whence)
        place = self._places.get(fd)
        if place is not None:
            place.moved_to(position)
        return position

    def _moved_by(self, fd: int, count: int) -> int:
        place = self._places.get(fd)
        if place is not None:
            place.moved_by(count)
        return count

    def pread(self, fd: int, n: int, offset: int) -> bytes:
        data: bytes = uninterrupted(self.backend._pread, fd, n, offset)
        return data

    def pwrite(self, fd: int, data: BytesLike, offset: int) -> int:
        count: int = uninterrupted(self.backend._pwrite, fd, data, offset)
        return count

    def sendfile(self, out_fd: int, in_fd: int, offset: Optional[int], count: int) -> int:
        """Copy as os.sendfile does: from the position, or from an offset, which leaves the position alone."""
        size = min(operator.index(count), _SENT_AT_ONCE)
        data = os.read(in_fd, size) if offset is None else os.pread(in_fd, size, offset)
        left = memoryview(data)
        while left:
            left = left[os.write(out_fd, left) :]
        return len(data)

    def _ftruncate(self, fd: int, length: int) -> None:
        self.backend._ftruncate(fd, length)

    def fstat(self, fd: int) -> os.stat_result:
        status: os.stat_result = self.backend.fstat(fd)
        return status

    def fsync(self, fd: int) -> None:
        self.backend._fsync(fd)

    def fchmod(self, fd: int, mode: int) -> None:
        self.backend._fchmod(fd, mode)

    def isatty(self, fd: int) -> bool:
        status: int = self.backend.devctl(fd, DCMD_CHR_ISATTY)[0]
        return status == 0

    def at(self, path: StrPath, target: str, call: Callable[[int], T], oflag: int = os.O_RDONLY) -> T:
        """Make a call on what is at a path."""
        try:
            fd = uninterrupted(self.backend.open, target, oflag)
            try:
                return uninterrupted(call, fd)
            finally:
                self.backend.close(fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None

    def close(self, fd: int) -> None:
        place = self._places.pop(fd, None)
        try:
            self.backend.close(fd)
        except OSError as error:
            if place is None:
                raise
            if error.errno == EINTR:
                self._places[fd] = place  # It is still open.
                raise
            # What was recovered for the program's sake is not to fail in the end: a server that is gone has nothing
            # open any more, and the number is free.
            if error.errno not in LOST:
                raise
        except BaseException:
            if place is not None and fd in self.descriptors:
                self._places[fd] = place  # So it is if a signal handler has raised this.
            raise

    def dup(self, fd: int) -> int:
        place = self._places.get(fd)
        if place is None:
            plain: int = self.backend.dup(fd)
            return plain
        copy: int = self.backend.ha_dup(fd)
        self._places[copy] = place
        return copy

    def dup2(self, fd: int, fd2: int, inheritable: bool) -> int:
        place = self._places.get(fd)
        if fd != fd2:
            self._places.pop(fd2, None)
        copy: int = self.backend.dup2(fd, fd2)
        if not is_connection(self.backend, copy):
            self.descriptors.pop(copy, None)
            os.set_inheritable(copy, inheritable)
        elif inheritable:
            self.backend.ConnectFlags(0, copy, NTO_COF_CLOEXEC, 0)
        if place is not None and fd != fd2:
            self.backend.ha_attach(copy, self._recovery_of(place))
            strategies.set_limits(self.backend, copy, strategies.ATTEMPTS, None)
            self._places[copy] = place
        return copy

    # File objects.

    def file(self, fd: int, how: OpenMode, name: Union[StrPath, int], closefd: bool) -> IO[Any]:
        try:
            raw = RawFile(self, fd, how, name, closefd)
        except BaseException:
            if closefd:
                self.close(fd)
            raise
        file: IO[Any] = how.layers(raw)
        return file


def _connections_left(backend: Backend) -> Iterator[int]:
    """The connections among the descriptors that there are already."""
    fd, info = -1, MessageInfo()
    while True:
        try:
            fd = backend.ConnectServerInfo(0, fd + 1, info)
        except OSError:
            return
        if fd & NTO_SIDE_CHANNEL:
            return
        yield fd


class _Installed:
    """The replacements, in their places until they are undone."""

    def __init__(self, covers: _Covers) -> None:
        self._originals: List[Tuple[Any, str, Any]] = []
        self._keep_the_originals_for_ourselves()
        calls = {**_descriptor_calls(covers), **_more_descriptor_calls(covers), **_path_calls(covers)}
        for original, replacement in calls.items():
            self._replace(os, original.__name__, replacement)
        for name in ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks"):
            supporting = getattr(os, name)
            self._replace(os, name, supporting | {calls[original] for original in calls if original in supporting})
        calls[builtins.open] = _open_call(covers)
        opening = calls[builtins.open]
        for owner in (io, builtins):
            self._replace(owner, "open", opening)
        for owner, name, call in _taken_at_import(calls):
            self._replace(owner, name, call)
        for owner, name, call in list(polling.replacements(covers.backend, covers.is_connection)):
            self._replace(owner, name, call)

    def _keep_the_originals_for_ourselves(self) -> None:
        """Let this package's own modules go on with the originals: what lies under a connection is their business."""
        for shared in (os, select):
            originals = types.ModuleType(shared.__name__)
            originals.__dict__.update(vars(shared))
            for name, module in list(sys.modules.items()):
                is_ours = name.startswith(f"{__package__}.") and not name.startswith(_PROGRAMS)
                replaces = name in (__name__, polling.__name__)
                if is_ours and not replaces and vars(module).get(shared.__name__) is shared:
                    self._replace(module, shared.__name__, originals)

    def _replace(self, owner: Any, name: str, replacement: Any) -> None:
        self._originals.append((owner, name, vars(owner)[name]))
        setattr(owner, name, replacement)

    def undo(self) -> None:
        for owner, name, original in reversed(self._originals):
            setattr(owner, name, original)


# As much as Python's own copying takes at once.
_SENT_AT_ONCE = 1 << 23

# Modules of this package that are programs on top of it.
_PROGRAMS = (f"{__package__}.conformance", f"{__package__}.examples")

_Call = Callable[..., Any]


_Calls = Dict[_Call, _Call]


def _taken_at_import(calls: _Calls) -> Iterator[Tuple[Any, str, Any]]:
    """Calls that modules of the standard library took when they were imported, with what is to be in their place."""
    accessor = getattr(pathlib, "_NormalAccessor", None)  # Up to Python 3.10.
    for name, call in list(vars(accessor).items()) if accessor is not None else ():
        original = getattr(call, "__func__", call)
        if isinstance(original, types.BuiltinFunctionType) and original in calls:
            yield accessor, name, staticmethod(calls[original])
    tokenize = sys.modules.get("tokenize")  # By which linecache opens.
    original = getattr(tokenize, "_builtin_open", None)
    if original in calls:
        yield tokenize, "_builtin_open", calls[original]


def _noting(replacements: _Calls) -> Callable[[_Call], Callable[[_Call], _Call]]:
    """Decorators, each of which notes what it decorates as the replacement of a call."""

    def replaces(original: _Call) -> Callable[[_Call], _Call]:
        def note(replacement: _Call) -> _Call:
            replacements[original] = functools.wraps(original)(replacement)
            return replacement

        return note

    return replaces


def _descriptor_calls(covers: _Covers) -> Dict[_Call, _Call]:
    """A replacement for each call of the module os.

    Each asks first, at the price of one look into a set, whether the descriptor can be one of ours.
    """
    ours = covers.descriptors
    replacements: _Calls = {}
    replaces = _noting(replacements)

    original_open, original_close, original_dup, original_dup2 = os.open, os.close, os.dup, os.dup2
    original_read, original_readv, original_write, original_writev = os.read, os.readv, os.write, os.writev
    original_lseek, original_fstat = os.lseek, os.fstat

    @replaces(original_open)
    def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: Optional[int] = None) -> int:
        target = covers.target(path)
        if target is None:
            return original_open(path, flags, mode, dir_fd=dir_fd)
        return covers.open(os.fspath(path), target, flags, mode)

    @replaces(original_read)
    def read(fd: int, length: int, /) -> bytes:
        if fd not in ours:
            return original_read(fd, length)
        length = operator.index(length)
        return covers.read(fd, length) if length >= 0 else original_read(fd, length)

    @replaces(original_readv)
    def readv(fd: int, buffers: Any, /) -> int:
        if fd not in ours:
            return original_readv(fd, buffers)
        try:
            return covers.readv(fd, buffers)
        except TypeError:
            return original_readv(fd, buffers)  # It says in its own words what is wrong with the buffers.

    @replaces(original_write)
    def write(fd: int, data: BytesLike, /) -> int:
        if fd not in ours or data is None:  # None is an empty message, but no data of os.write.
            return original_write(fd, data)
        return uninterrupted(covers.write, fd, data)

    @replaces(original_writev)
    def writev(fd: int, buffers: Any, /) -> int:
        if fd not in ours:
            return original_writev(fd, buffers)
        try:
            return covers.writev(fd, buffers)
        except TypeError:
            return original_writev(fd, buffers)

    @replaces(original_lseek)
    def lseek(fd: int, position: int, how: int, /) -> int:
        return uninterrupted(covers.lseek, fd, position, how) if fd in ours else original_lseek(fd, position, how)

    @replaces(original_fstat)
    def fstat(fd: int) -> os.stat_result:
        if fd not in ours:
            return original_fstat(fd)
        return covers.fstat(fd)

    @replaces(original_close)
    def close(fd: int) -> None:
        return covers.close(fd) if fd in ours else original_close(fd)

    @replaces(original_dup)
    def dup(fd: int, /) -> int:
        return covers.dup(fd) if fd in ours else original_dup(fd)

    @replaces(original_dup2)
    def dup2(fd: int, fd2: int, inheritable: bool = True) -> int:
        if fd in ours or fd2 in ours:
            return covers.dup2(fd, fd2, inheritable)
        return original_dup2(fd, fd2, inheritable)

    return replacements


def _more_descriptor_calls(covers: _Covers) -> _Calls:
    """The same for calls that are made more rarely."""
    ours = covers.descriptors
    replacements: _Calls = {}
    replaces = _noting(replacements)

    original_pread, original_pwrite, original_isatty = os.pread, os.pwrite, os.isatty
    original_ftruncate, original_fsync, original_fchmod = os.ftruncate, os.fsync, os.fchmod
    original_closerange = os.closerange

    @replaces(original_pread)
    def pread(fd: int, length: int, offset: int, /) -> bytes:
        if fd not in ours or operator.index(length) < 0:
            return original_pread(fd, length, offset)
        return covers.pread(fd, operator.index(length), offset)

    @replaces(original_pwrite)
    def pwrite(fd: int, data: BytesLike, offset: int, /) -> int:
        if fd not in ours or data is None:
            return original_pwrite(fd, data, offset)
        return covers.pwrite(fd, data, offset)

    @replaces(original_isatty)
    def isatty(fd: int, /) -> bool:
        return covers.isatty(fd) if fd in ours else original_isatty(fd)

    @replaces(original_ftruncate)
    def ftruncate(fd: int, length: int, /) -> None:
        return uninterrupted(covers._ftruncate, fd, length) if fd in ours else original_ftruncate(fd, length)

    @replaces(original_fchmod)
    def fchmod(fd: int, mode: int) -> None:
        return uninterrupted(covers.fchmod, fd, mode) if fd in ours else original_fchmod(fd, mode)

    @replaces(original_closerange)
    def closerange(fd_low: int, fd_high: int, /) -> None:
        for fd in [fd for fd in list(ours) if fd_low <= fd < fd_high]:
            with contextlib.suppress(OSError):
                uninterrupted(covers.close, fd)
        return original_closerange(fd_low, fd_high)

    def syncing(original: Callable[[Any], None]) -> None:
        @replaces(original)
        def fsync(fd: Any) -> None:
            number = _number(fd)
            return uninterrupted(covers.fsync, number) if number in ours else original(fd)

    syncing(original_fsync)
    if hasattr(os, "fdatasync"):
        syncing(os.fdatasync)
    if hasattr(os, "sendfile"):
        original_sendfile: _Call = os.sendfile

        @replaces(original_sendfile)
        def sendfile(out_fd: int, in_fd: int, offset: Any, count: int, *more: Any, **others: Any) -> int:
            if more or others or (out_fd not in ours and in_fd not in ours):
                sent: int = original_sendfile(out_fd, in_fd, offset, count, *more, **others)
                return sent
            return covers.sendfile(out_fd, in_fd, offset, count)

    return replacements


def _number(fd: Any) -> Any:
    """The descriptor of a file object, which some calls take, too."""
    return fd if isinstance(fd, int) or not hasattr(fd, "fileno") else fd.fileno()


def _path_calls(covers: _Covers) -> _Calls:
    """A replacement for each call of the module os that is about a path. On a QNX target, libc asks the server."""
    ours = covers.descriptors
    replacements: _Calls = {}
    replaces = _noting(replacements)

    original_stat, original_lstat, original_access = os.stat, os.lstat, os.access
    original_truncate, original_chmod = os.truncate, os.chmod

    def asked(path: Any, by_host: Callable[[Any], T], by_message: Callable[[int], T], oflag: int = os.O_RDONLY) -> T:
        """Ask the server of a path, if it has one: else the host."""
        target = covers.target(path)
        if target is None or is_qnx():
            return by_host(target or path)
        return covers.at(os.fspath(path), target, by_message, oflag)

    @replaces(original_stat)
    def stat(path: Any, *, dir_fd: Optional[int] = None, follow_symlinks: bool = True) -> os.stat_result:
        if isinstance(path, int) and path in ours:
            return os.fstat(path)
        return asked(
            path,
            lambda target: original_stat(target, dir_fd=dir_fd, follow_symlinks=follow_symlinks),
            covers.fstat,
        )

    @replaces(original_lstat)
    def lstat(path: Any, *, dir_fd: Optional[int] = None) -> os.stat_result:
        return asked(path, lambda target: original_lstat(target, dir_fd=dir_fd), covers.fstat)

    @replaces(original_access)
    def access(
        path: Any, mode: int, *, dir_fd: Optional[int] = None, effective_ids: bool = False, follow_symlinks: bool = True
    ) -> bool:
        def by_host(target: Any) -> bool:
            return original_access(
                target, mode, dir_fd=dir_fd, effective_ids=effective_ids, follow_symlinks=follow_symlinks
            )

        try:
            return asked(path, by_host, lambda _fd: not mode & os.X_OK, _ACCESS_MODES[mode & (os.R_OK | os.W_OK)])
        except OSError:
            return False

    @replaces(original_truncate)
    def truncate(path: Any, length: int) -> None:
        if isinstance(path, int):
            return os.ftruncate(path, length)
        return asked(
            path,
            lambda target: original_truncate(target, length),
            lambda fd: covers._ftruncate(fd, length),
            os.O_WRONLY,
        )

    @replaces(original_chmod)
    def chmod(path: Any, mode: int, *, dir_fd: Optional[int] = None, follow_symlinks: bool = True) -> None:
        if isinstance(path, int):
            return os.fchmod(path, mode)
        return asked(
            path,
            lambda target: original_chmod(target, mode, dir_fd=dir_fd, follow_symlinks=follow_symlinks),
            lambda fd: covers.fchmod(fd, mode),
        )

    return replacements


# How a path is opened to see whether it can be read, written, or both.
_ACCESS_MODES = {0: os.O_RDONLY, os.R_OK: os.O_RDONLY, os.W_OK: os.O_WRONLY, os.R_OK | os.W_OK: os.O_RDWR}


def _open_call(covers: _Covers) -> _Call:
    """The replacement for open()."""
    original = builtins.open
    ours = covers.descriptors

    @functools.wraps(original)
    def open(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
        closefd: bool = True,
        opener: Optional[Callable[[Any, int], int]] = None,
    ) -> IO[Any]:
        if isinstance(file, int):
            if file in ours and is_connection(covers.backend, file):
                return covers.file(file, OpenMode(mode, buffering, encoding, errors, newline), file, closefd)
            return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
        target = covers.target(file)
        if opener is None and target is None:
            return original(file, mode, buffering, encoding, errors, newline, closefd)
        how = OpenMode(mode, buffering, encoding, errors, newline)
        file = os.fspath(file)
        if not closefd:
            raise ValueError("Cannot use closefd=False with file name")
        if opener is None:
            return covers.file(covers.open(file, target or "", how.oflag, 0o666), how, file, True)
        fd = opener(file, how.oflag)
        if fd in ours and is_connection(covers.backend, fd):
            return covers.file(fd, how, file, True)
        return original(file, mode, buffering, encoding, errors, newline, closefd, lambda _file, _flags: fd)

    return open


_lock = threading.Lock()
_current: Optional[_Installed] = None
