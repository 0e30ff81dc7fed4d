"""Connections for people who like objects.

    with ha_qnx.connect("thermostat") as thermostat:
        status, data = thermostat.send(b"status?")

A connection adds no behaviour of its own: it is the number that QNX's calls take, with methods.
"""

import contextlib
import operator
import os
import warnings
from errno import EBADF, ESRCH
from typing import IO, Any, Iterable, Optional, Tuple, Type, TypeVar, Union

from . import backends
from .api import Backend, RecoveryFunction
from .buffers import as_seconds
from .constants import HA_RECOVERY_ENABLE, HA_RECOVERY_SUSPEND
from .files import OpenMode, RawFile
from .kernel import BytesLike, StrPath
from .strategies import NO_SERVER, check_limits, path_of, reopen, set_limits, until_served, wait_for
from .watching import Counts, Stats

__all__ = ["REPLY_ROOM", "Connection", "connect", "exchange", "stats"]

_C = TypeVar("_C", bound="Connection")

#: The room for a reply whose size nobody named.
REPLY_ROOM = 4096


class Connection(int):
    """A connection that is closed once: a coid, which every call takes, with methods."""

    _qnx: Optional[Backend] = None  # None: not open, no longer, or not yet.
    _counts: Counts

    def __new__(cls: Type[_C], coid: int, backend: Optional[Backend] = None) -> _C:
        """Take over a connection that exists; it is this object's to close."""
        connection = super().__new__(cls, operator.index(coid))
        qnx = backends.backend() if backend is None else backend
        connection._counts = qnx.counts
        connection._qnx = qnx
        return connection

    @property
    def coid(self) -> int:
        """The number, as an ordinary int."""
        return int(self)

    @property
    def backend(self) -> Backend:
        """The backend that it belongs to.

        Raises:
            ValueError: the connection is closed.
        """
        if self._qnx is None:
            raise ValueError("the connection is closed")
        return self._qnx

    @property
    def closed(self) -> bool:
        return self._qnx is None

    @property
    def stats(self) -> Stats:
        """Failures, recoveries, retransmissions: see the function ``stats``."""
        return self._counts.of(self.coid)

    def send(self, message: BytesLike, size: Optional[int] = None) -> Tuple[int, bytes]:
        """Send a message; the status and the reply.

        Message passing does not tell a client how long a reply is. With ``size``, the data is exactly so long, and zero
        where the server wrote nothing. Without, there is room for 4096 bytes, and the data ends with the last byte that
        is not zero: right for text; where zeros count, name the size or use ``send_into``.
        """
        return exchange(self.backend, self.coid, message, size)

    def send_into(self, message: BytesLike, reply: Optional[BytesLike]) -> int:
        """Send a message and receive the reply into a buffer; the status."""
        return self.backend.MsgSend(self.coid, message, reply)

    def pulse(self, code: int, value: int = 0, priority: int = -1) -> None:
        """Send a pulse, with the priority of the calling thread if none is given."""
        self.backend.MsgSendPulse(self.coid, priority, code, value)

    def file(
        self,
        mode: str = "rb",
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
    ) -> IO[Any]:
        """Read and write the connection as a file; closing that leaves the connection open.

        The arguments are those of Python's open(). The connection is open already: no mode creates or empties anything.
        """
        how = OpenMode(mode, buffering, encoding, errors, newline)
        file: IO[Any] = how.layers(RawFile(self.backend, self.coid, how, self.coid, closefd=False))
        return file

    def limit(self, attempts: Optional[int] = None, recoveries: Optional[int] = None) -> None:
        """Allow so many calls of the recovery function for one failure, and in all; a negative number: any."""
        set_limits(self.backend, self.coid, attempts, recoveries)

    def suspend(self) -> None:
        """Do not recover until ``resume``: calls fail when the server is lost."""
        self.backend.ha_connection_ctrl(self.coid, HA_RECOVERY_SUSPEND)

    def resume(self) -> None:
        """Recover again."""
        self.backend.ha_connection_ctrl(self.coid, HA_RECOVERY_ENABLE)

    def close(self) -> None:
        """Close the connection. It does not matter how often, nor whether there still is a server.

        Raises:
            OSError: what the server answered to the closing; the connection is closed all the same.
        """
        qnx, self._qnx = self._qnx, None
        if qnx is None:
            return
        try:
            qnx.close(self.coid)
        except InterruptedError:
            self._qnx = qnx  # It is still open (B330).
            raise
        except OSError as error:
            if error.errno not in (EBADF, ESRCH):
                raise

    def __enter__(self: _C) -> _C:
        return self

    def __exit__(self, _kind: Optional[Type[BaseException]], _error: object, _traceback: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection {self.coid:#x}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        if self._qnx is not None:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
            with contextlib.suppress(OSError):
                self.close()


def stats(coid: int, backend: Optional[Backend] = None) -> Stats:
    """What has happened to a connection since it was made HA-aware; all zero for one that is not.

    The counts of a connection outlive it, until its number is used for another HA-aware one.

    Args:
        coid: the connection.
        backend: whose connection it is, as ``ha_qnx.backend`` gives it. Without it, that of the connection if it is a
            ``Connection``, else the default one.
    """
    if backend is None and isinstance(coid, Connection):
        return coid.stats
    return (backends.backend() if backend is None else backend).counts.of(coid)


def exchange(qnx: Backend, coid: int, message: BytesLike, size: Optional[int]) -> Tuple[int, bytes]:
    """What ``Connection.send`` does."""
    reply = bytearray(REPLY_ROOM if size is None else size)
    status = qnx.MsgSend(coid, message, reply)
    if size is None:
        # As rstrip(b"\0") would do, which looks at one byte after the other.
        size = (int.from_bytes(reply, "little").bit_length() + 7) // 8
    return status, bytes(memoryview(reply)[:size])


def connect(
    target: StrPath,
    oflag: int = os.O_RDWR,
    *,
    recover: Union[RecoveryFunction, bool, None] = True,
    handle: object = None,
    attempts: Optional[int] = None,
    recoveries: Optional[int] = None,
    timeout: float = 30.0,
    wait: float = 0.0,
    backend: Optional[Backend] = None,
) -> Connection:
    """Open a connection that survives the death of its server.

    Args:
        target: a name of name_attach, or a path, which begins with a slash. Where nobody answers there and ``recover``
            is a failover, the first of its servers that answers.
        oflag: as for open.
        recover: the recovery function, such as those of ``ha_qnx.strategies``. True: wait for a server of the same
            name. None: an ordinary connection.
        handle: what the recovery function gets beside the connection.
        attempts: at most so many calls of it for one failure.
        recoveries: at most so many in all.
        timeout: how many seconds a recovery waits for a server, if ``recover`` is True.
        wait: how many seconds to wait now, if there is no server yet.
        backend: as ``ha_qnx.backend`` gives it; without it, the default one.

    Raises:
        OSError: as ha_open.
        TypeError: a time or a limit is no number.
        ValueError: a time is NaN, or a limit too large for C's int.
    """
    timeout, wait = as_seconds("timeout", timeout), as_seconds("wait", wait)
    check_limits(attempts, recoveries)
    qnx = backends.backend() if backend is None else backend
    path = path_of(target)
    if recover is True:
        recover = wait_for(reopen(path, oflag, backend=qnx), timeout)
    paths = [path, *getattr(recover, "paths", ())]
    coid = until_served(lambda: _open_first(qnx, paths, oflag), wait, lambda _coid: True)
    connection = Connection(coid, qnx)
    try:
        if recover:
            qnx.ha_attach(coid, recover, handle)
            connection.limit(attempts, recoveries)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_first(qnx: Backend, paths: Iterable[StrPath], oflag: int) -> int:
    failure: Optional[OSError] = None
    for path in paths:
        try:
            return qnx.open(path, oflag)
        except OSError as error:
            if error.errno not in NO_SERVER:
                raise
            failure = failure or error
    assert failure is not None
    raise failure
