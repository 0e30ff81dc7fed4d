"""Reading and writing: the covers of read, write, lseek, fstat and devctl, and file objects above them.

``Files`` adds these calls to a backend. On a connection each is one of QNX's I/O messages (``ha_qnx.iomessages``),
which any resource manager understands; on an ordinary descriptor of the host it is the host's call. Both are recovered
by the same rules, so that a file can be HA-aware, too. What the calls promise is written down in ``ha_qnx.api``.

``RawFile`` is a descriptor as io.FileIO is one, made of these calls, and ``OpenMode`` what the mode of open() says: the
standard library's buffers and text layer go on top, as open() puts them there.
"""

import contextlib
import io
import os
import stat
import warnings
from errno import EACCES, EBADF, EINVAL, EIO, EISDIR, ENOSYS, ENOTTY, EPERM
from typing import IO, Any, Callable, List, Optional, Protocol, Tuple, TypeVar, Union

from . import iomessages
from .api import Backend, RecoveryFunction
from .buffers import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    UINT_MAX,
    as_int,
    as_long,
    integer,
    readable,
    readable_parts,
    writable,
    writable_parts,
)
from .constants import POSIX_DEVDIR_FROM, POSIX_DEVDIR_TO
from .documenting import documented_by
from .errors import failure
from .kernel import BytesLike, Kernel, StrPath, Vector
from .structures import MessageInfo

__all__ = ["Files", "OpenMode", "RawFile", "Transfers", "is_connection"]

T = TypeVar("T")


_KNOWN_WHENCE = (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)
_NO_REPLY = bytearray()
# Up to this size, to copy what is written behind its header costs less than to send it as a part of its own.
_COPIED = 4096


def is_connection(kernel: Union[Kernel, "Transfers"], fd: int) -> bool:
    """Whether a number is a connection to a channel, rather than a descriptor of the host or nothing at all."""
    try:
        return kernel.ConnectServerInfo(0, fd, MessageInfo()) == fd
    except OSError:
        return False


class _RefusedError(Exception):
    """The host refuses a call with EBADF though the descriptor is open: it is not lost, and not to be recovered."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


@documented_by(Backend)
class Files:
    """The calls that read and write, for a class that has the other calls of a backend.

    That class says how a call is recovered: ``_recovered``. If its own calls recover by themselves, as those of a libha
    in C do, there is nothing to add; else it gives the plain ones as ``_plain``.
    """

    @property
    def _plain(self) -> Kernel:
        return self  # type: ignore[return-value]  # what this is mixed into is a backend

    def _recovered(self, call: Callable[..., T], coid: int, *args: object) -> T:
        """Make ``call(coid, *args)``; if the connection is lost and HA-aware, recover it and make the call again."""
        return call(coid, *args)

    def read(self, fd: int, n: int) -> bytes:
        buffer = bytearray(min(integer("n", n, 0, LONG_MAX), iomessages.TRANSFER_MAX))
        count = self._call(self._read_message, self._read_host, fd, buffer)
        return bytes(memoryview(buffer)[:count])

    def readinto(self, fd: int, buf: BytesLike) -> int:
        view = buf if type(buf) is bytearray else writable(buf)
        if len(view) > iomessages.TRANSFER_MAX:
            view = memoryview(view)[: iomessages.TRANSFER_MAX]
        return self._call(self._read_message, self._read_host, fd, view)

    def _read_message(self, fd: int, buffer: Union[bytearray, memoryview]) -> int:
        size = len(buffer)
        return _count(self._plain.MsgSend(fd, iomessages.read_message(size), buffer), size)

    @staticmethod
    def _read_host(fd: int, buffer: BytesLike) -> int:
        return os.readv(fd, [buffer])

    def write(self, fd: int, data: BytesLike) -> int:
        return self._call(self._write_message, os.write, fd, readable(data)[: iomessages.TRANSFER_MAX])

    def _write_message(self, fd: int, data: memoryview) -> int:
        size = len(data)
        header = iomessages.write_message(size)
        if size <= _COPIED:
            return _count(self._plain.MsgSend(fd, header + data, _NO_REPLY), size)
        return _count(self._plain.MsgSendvs(fd, [header, data], None), size)

    def _readv(self, fd: int, buffers: Vector) -> int:
        """Read into several buffers by one message (B321): what os.readv becomes."""
        return self._call(self._readv_message, os.readv, fd, writable_parts(buffers))

    def _readv_message(self, fd: int, parts: List[memoryview]) -> int:
        size = min(sum(map(len, parts)), iomessages.TRANSFER_MAX)
        return _count(self._plain.MsgSendv(fd, [iomessages.read_message(size)], parts), size)

    def _writev(self, fd: int, buffers: Vector) -> int:
        """Write several buffers by one message: what os.writev becomes."""
        return self._call(self._writev_message, os.writev, fd, readable_parts(buffers))

    def _writev_message(self, fd: int, parts: List[memoryview]) -> int:
        size = sum(map(len, parts))
        return _count(self._plain.MsgSendvs(fd, [iomessages.write_message(size), *parts], None), size)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        offset = as_long("offset", offset)
        whence = as_int("whence", whence)
        return self._call(self._lseek_message, os.lseek, fd, offset, whence)

    def _lseek_message(self, fd: int, offset: int, whence: int) -> int:
        if whence not in _KNOWN_WHENCE:
            raise failure(EINVAL if is_connection(self._plain, fd) else ENOSYS)
        reply = iomessages.reply_buffer(iomessages.POSITION.size)
        if self._plain.MsgSend(fd, iomessages.lseek_message(offset, whence), reply) == -1:
            raise failure(EIO)
        return iomessages.position_of(reply)

    def fstat(self, fd: int) -> os.stat_result:
        return self._call(self._stat_message, os.fstat, fd)

    def _stat_message(self, fd: int) -> os.stat_result:
        reply = iomessages.reply_buffer(iomessages.STAT_SIZE)
        self._plain.MsgSendnc(fd, iomessages.stat_message(), reply)
        return iomessages.stat_of(reply)

    # What calls of the module os become.

    def _pread(self, fd: int, n: int, offset: int) -> bytes:
        """Read elsewhere than at the position, which stays: what os.pread becomes."""
        buffer = bytearray(min(integer("n", n, 0, LONG_MAX), iomessages.TRANSFER_MAX))
        offset = as_long("offset", offset)
        count = self._call(self._pread_message, self._pread_host, fd, buffer, offset)
        return bytes(memoryview(buffer)[:count])

    def _pread_message(self, fd: int, buffer: bytearray, offset: int) -> int:
        if offset < 0:
            raise failure(EINVAL if is_connection(self._plain, fd) else ENOSYS)
        size = len(buffer)
        return _count(self._plain.MsgSend(fd, iomessages.pread_message(size, offset), buffer), size)

    @staticmethod
    def _pread_host(fd: int, buffer: bytearray, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def _pwrite(self, fd: int, data: BytesLike, offset: int) -> int:
        """Write elsewhere than at the position, which stays: what os.pwrite becomes."""
        view = readable(data)[: iomessages.TRANSFER_MAX]
        return self._call(self._pwrite_message, os.pwrite, fd, view, as_long("offset", offset))

    def _pwrite_message(self, fd: int, data: memoryview, offset: int) -> int:
        if offset < 0:
            raise failure(EINVAL if is_connection(self._plain, fd) else ENOSYS)
        size = len(data)
        return _count(self._plain.MsgSendvs(fd, [iomessages.pwrite_message(size, offset), data], None), size)

    def _ftruncate(self, fd: int, length: int) -> None:
        """Cut or lengthen a file (B487): what os.ftruncate becomes."""
        self._call(self._truncate_message, os.ftruncate, fd, as_long("length", length))

    def _truncate_message(self, fd: int, length: int) -> None:
        if length < 0:
            raise failure(EINVAL if is_connection(self._plain, fd) else ENOSYS)
        reply = bytearray(iomessages.POSITION.size)
        self._plain.MsgSend(fd, iomessages.free_message(length), reply)
        if iomessages.position_of(reply) < length:
            self._plain.MsgSend(fd, iomessages.allocate_message(length), None)

    def _fsync(self, fd: int) -> None:
        """Have what was written kept (B488): what os.fsync becomes."""
        self._call(self._message_alone, self._fsync_host, fd, iomessages.sync_message())

    @staticmethod
    def _fsync_host(fd: int, _message: bytes) -> None:
        os.fsync(fd)

    def _fchmod(self, fd: int, mode: int) -> None:
        """Change permissions (B488): what os.fchmod becomes."""
        mode = integer("mode", mode, 0, UINT_MAX)
        self._call(self._chmod_message, os.fchmod, fd, mode)

    def _chmod_message(self, fd: int, mode: int) -> None:
        self._message_alone(fd, iomessages.chmod_message(mode))

    def _message_alone(self, fd: int, message: bytes) -> None:
        self._plain.MsgSend(fd, message, None)

    def devctl(self, fd: int, dcmd: int, data: BytesLike = b"") -> Tuple[int, int, bytes]:
        fd = as_int("fd", fd)
        dcmd = integer("dcmd", dcmd, INT_MIN, UINT_MAX) & UINT_MAX
        given = bytes(readable(data))
        head, content = bytearray(iomessages.DEVCTL.size), bytearray(given)
        sent = [iomessages.devctl_message(dcmd, integer("the size of data", len(given), 0, INT_MAX))]
        received = [head]
        if dcmd & POSIX_DEVDIR_TO:
            sent.append(given)
        if dcmd & POSIX_DEVDIR_FROM:
            received.append(content)
        try:
            status = self._recovered(self._plain.MsgSendvnc, fd, sent, received)
        except OSError as error:
            # So ends a message to what is no connection, too (D32, D96).
            return ENOTTY if error.errno == ENOSYS else error.errno or EIO, 0, given
        return -status, iomessages.info_of(head), bytes(content)

    def _call(self, by_message: Callable[..., T], by_host: Callable[..., T], fd: int, *args: Any) -> T:
        """Make a call by a message or, on an ordinary descriptor, by the host; recover either."""
        fd = as_int("fd", fd)
        call: Callable[..., T] = self._call_once
        try:
            return self._recovered(call, fd, by_message, by_host, *args)
        except _RefusedError as refused:
            raise refused.error from None

    def _call_once(self, fd: int, by_message: Callable[..., T], by_host: Callable[..., T], *args: Any) -> T:
        try:
            return by_message(fd, *args)
        except OSError as error:
            # So ends a message to what is no connection (D32); a server can answer the same.
            if error.errno != ENOSYS or is_connection(self._plain, fd):
                raise
        try:
            return by_host(fd, *args)
        except OSError as error:
            if error.errno == EBADF and self._plain.is_open(fd):
                raise _RefusedError(error) from None
            raise

    def ha_fopen(
        self,
        path: StrPath,
        mode: str,
        rfn: RecoveryFunction,
        rhdl: object = None,
        haflags: int = 0,
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
    ) -> IO[Any]:
        how = OpenMode(mode, buffering, encoding, errors, newline)
        path = os.fspath(path)  # What a file object and an OSError show as its name.
        backend: Any = self
        fd = backend.ha_open(path, how.oflag, rfn, rhdl, haflags)
        try:
            if not is_connection(backend, fd) and stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(EISDIR, os.strerror(EISDIR), path)
            raw = RawFile(backend, fd, how, path)
        except BaseException:
            backend.close(fd)
            raise
        file: IO[Any] = how.layers(raw)
        return file

    def ha_fclose(self, file: IO[Any]) -> int:
        try:
            fd = file.fileno()
        except AttributeError:
            raise TypeError(f"ha_fclose takes a file object, not {type(file).__name__}") from None
        except ValueError:
            raise failure(EBADF) from None  # It is closed.
        backend: Any = self
        try:
            file.flush()
        finally:
            backend.ha_detach(fd)
            file.close()
        return 0


def _count(status: int, size: int) -> int:
    """The number of bytes that a server's status says, never more than there were (D31).

    Raises:
        OSError: EIO, it is no number of bytes.
    """
    if status < 0:
        raise OSError(EIO, "the server answered with a negative number of bytes")
    return min(status, size)


class OpenMode:
    """What the arguments of open() ask for: which flags, which layers.

    Raises:
        TypeError, ValueError: they do not go together; the same as open() raises.
    """

    def __init__(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
    ) -> None:
        if not isinstance(mode, str):
            raise TypeError(f"open() argument 'mode' must be str, not {type(mode).__name__}")
        letters = set(mode)
        if letters - set("axrwb+t") or len(mode) > len(letters):
            raise ValueError(f"invalid mode: {mode!r}")
        self.binary = "b" in letters
        if self.binary and "t" in letters:
            raise ValueError("can't have text and binary mode at once")
        if len(letters & set("axrw")) != 1:
            raise ValueError("must have exactly one of create/read/write/append mode")
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"open() argument '{name}' must be str or None, not {type(value).__name__}")
            if self.binary and value is not None:
                raise ValueError(f"binary mode doesn't take {'a' if name == 'newline' else 'an'} {name} argument")
        buffering = as_int("buffering", buffering)
        if buffering == 1 and self.binary:
            message = (
                "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=3)  # Whoever opens the file.
        self.mode = mode
        self.buffering = buffering
        self._encoding, self._errors, self._newline = encoding, errors, newline
        self._updating = "+" in letters
        self.appending = "a" in letters
        self.readable = "r" in letters or self._updating
        self.writable = "r" not in letters or self._updating
        self._creating = "x" in letters

    @property
    def oflag(self) -> int:
        """The flags for open."""
        access = os.O_RDWR if self._updating else os.O_RDONLY if self.readable else os.O_WRONLY
        how = 0
        if self.appending:
            how = os.O_CREAT | os.O_APPEND
        elif self._creating:
            how = os.O_CREAT | os.O_EXCL
        elif "w" in self.mode:
            how = os.O_CREAT | os.O_TRUNC
        return access | how | os.O_CLOEXEC

    @property
    def of_raw(self) -> str:
        """The mode that the raw file shows, as io.FileIO shows it."""
        letter = "x" if self._creating else "a" if self.appending else "r" if self.readable else "w"
        return f"{letter}b+" if self._updating else f"{letter}b"

    def layers(self, raw: io.RawIOBase) -> Any:
        """Put the layers on a raw file that the mode asks for; close it if that fails."""
        top: Any = raw
        try:
            line_buffering = self.buffering == 1 or (self.buffering < 0 and raw.isatty())
            if self.buffering == 0:
                if not self.binary:
                    raise ValueError("can't have unbuffered text I/O")
                return top
            size = self.buffering if self.buffering > 1 else io.DEFAULT_BUFFER_SIZE
            if self._updating:
                top = io.BufferedRandom(raw, size)
            elif self.writable:
                top = io.BufferedWriter(raw, size)
            else:
                top = io.BufferedReader(raw, size)
            if not self.binary:
                top = io.TextIOWrapper(top, self._encoding, self._errors, self._newline, line_buffering)
                top.mode = self.mode
        except BaseException:
            top.close()
            raise
        return top


class Transfers(Protocol):
    """The calls that a raw file is made of."""

    def readinto(self, fd: int, buf: BytesLike) -> int: ...

    def write(self, fd: int, data: BytesLike) -> int: ...

    def lseek(self, fd: int, offset: int, whence: int) -> int: ...

    def _ftruncate(self, fd: int, length: int) -> object: ...

    def close(self, fd: int) -> object: ...

    def ConnectServerInfo(self, pid: int, coid: int, info: Optional[MessageInfo]) -> int: ...


class RawFile(io.RawIOBase):
    """A descriptor as a raw, unbuffered file: what io.FileIO is for the host's descriptors.

    Like io.FileIO it begins a call anew that a signal has interrupted, and tells of a call that would block by None.
    """

    name: Union[StrPath, int]
    mode: str

    def __init__(
        self, calls: Transfers, fd: int, how: OpenMode, name: Union[StrPath, int], closefd: bool = True
    ) -> None:
        self._fd = -1  # What __del__ finds if this fails.
        super().__init__()
        self._calls = calls
        self._readable, self._writable = how.readable, how.writable
        self._seekable: Optional[bool] = None
        self._position: Optional[int] = None if how.appending else 0
        self.name, self.mode, self.closefd = name, how.of_raw, closefd
        if how.appending:
            with contextlib.suppress(OSError):
                uninterrupted(calls.lseek, fd, 0, os.SEEK_END)
        self._fd = fd

    @property
    def position(self) -> Optional[int]:
        """Where the next transfer begins, counted in this process; None where the server decides, in append mode.

        A new server that the connection is recovered to does not know it: a recovery function seeks there.
        """
        return self._position

    def readable(self) -> bool:
        self.fileno()
        return self._readable

    def writable(self) -> bool:
        self.fileno()
        return self._writable

    def seekable(self) -> bool:
        self.fileno()
        if self._seekable is None:
            try:
                self.tell()
            except OSError:
                self._seekable = False
            else:
                self._seekable = True
        return self._seekable

    def fileno(self) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self.fileno())

    def readinto(self, buffer: BytesLike) -> Optional[int]:
        view = memoryview(buffer)
        if not self.readable():
            raise io.UnsupportedOperation("File not open for reading")
        return self._transfer(self._calls.readinto, view)

    def write(self, data: BytesLike) -> Optional[int]:
        view = memoryview(data)
        if not self.writable():
            raise io.UnsupportedOperation("File not open for writing")
        return self._transfer(self._calls.write, view)

    def _transfer(self, call: Callable[[int, BytesLike], int], buffer: BytesLike) -> Optional[int]:
        try:
            count = uninterrupted(call, self._fd, buffer)
        except BlockingIOError:
            return None
        if self._position is not None:
            self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = uninterrupted(self._calls.lseek, self.fileno(), offset, whence)
        if self._position is not None:
            self._position = position
        return position

    def tell(self) -> int:
        return self.seek(0, os.SEEK_CUR)

    def truncate(self, size: Optional[int] = None) -> int:
        """Truncate the file, or let zeros follow.

        Args:
            size: how many bytes it is to have; without it, those before the position.

        Returns:
            How many they are.

        Raises:
            io.UnsupportedOperation: it is not open for writing; or its server cannot do that.
            OSError: as os.ftruncate.
        """
        if not self.writable():
            raise io.UnsupportedOperation("File not open for writing")
        if size is None:
            size = self.tell()
        try:
            uninterrupted(self._calls._ftruncate, self._fd, size)
        except OSError as error:
            if error.errno in (EPERM, EACCES, ENOSYS):
                raise io.UnsupportedOperation("truncate") from None
            raise
        return size

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        finally:
            fd, self._fd = self._fd, -1
            if fd >= 0 and self.closefd:
                self._calls.close(fd)

    def _dealloc_warn(self, source: object) -> None:
        """Warn that nobody has closed the file: its layers call this, as they do with io.FileIO."""
        if self._fd >= 0 and self.closefd:
            warnings.warn(f"unclosed file {source!r}", ResourceWarning, stacklevel=2, source=source)

    def __del__(self) -> None:
        if not self.closed:
            self._dealloc_warn(self)
            with contextlib.suppress(OSError):
                self.close()

    def __getstate__(self) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __repr__(self) -> str:
        if self.closed:
            return f"<{type(self).__name__} [closed]>"
        return f"<{type(self).__name__} name={self.name!r} mode={self.mode!r} closefd={self.closefd}>"


def uninterrupted(call: Callable[..., T], *args: Any) -> T:
    """Make a call again as long as signals interrupt it whose handlers raise nothing, as Python's own files do."""
    while True:
        try:
            return call(*args)
        except InterruptedError:
            pass
