"""Connections for people who like objects.

    with ha_qnx.connect("thermostat") as thermostat:
        answer = thermostat.ask(b"status?")

A connection adds no behaviour of its own: it is the number that QNX's calls take, with methods.
"""

import contextlib
import operator
import os
import time
import warnings
from errno import EBADF, EMSGSIZE, EPROTO, ESRCH
from typing import IO, Any, Callable, List, NoReturn, Optional, Sequence, Tuple, Type, TypeVar, Union

from . import backends
from .api import Backend, RecoveryFunction
from .buffers import as_seconds, check_callable, integer
from .constants import (
    HA_RECOVERY_ENABLE,
    HA_RECOVERY_RESET_ICOUNT,
    HA_RECOVERY_SUSPEND,
    NTO_COF_CLOEXEC,
    NTO_COF_DEAD,
    NTO_SIDE_CHANNEL,
    PULSE_CODE_MAXAVAIL,
    PULSE_CODE_MINAVAIL,
)
from .deadlines import sooner, time_limit, until, within
from .errors import naming
from .files import OpenMode, RawFile
from .kernel import BytesLike, StrPath
from .lifetimes import life_of
from .strategies import (
    ATTEMPTS,
    LAST_TRY,
    NO_SERVER,
    check_limits,
    find_server,
    is_path,
    set_limits,
    then,
    to_target,
    until_served,
    wait_for,
)
from .structures import MessageInfo
from .watching import Counts, Stats

__all__ = ["ATTEMPTS", "REPLY_ROOM", "Connection", "ask", "connect", "send", "stats"]

_C = TypeVar("_C", bound="Connection")
#: The room for a reply whose size nobody named.
REPLY_ROOM = 4096

# The lowest number that a connection to a name takes: those below are standard input, output and error.
_FIRST = 3


class Connection(int):
    """A connection that is closed once: a coid, which every call takes, with methods.

    What its server has to tell is waited for by ``ha_qnx.aio.readable``, by ionotify, or by select, poll and asyncio's
    add_reader under the drop-in. Without it, a host's select and poll say of the number at once that it is ready, while
    epoll, and so add_reader, refuses it (D114).

    Attributes:
        target: the name or the path that it leads to, if that is known.
    """

    _qnx: Optional[Backend] = None  # None: not open, no longer, or not yet.
    _counts: Counts
    _number: int  # An ordinary int, which takes a call less.
    _is_ours = True  # Whether it is this object's to close.
    target: Optional[str] = None
    # How many servers one message may cost, if that alone is limited; and whether nothing is recovered at all.
    _attempts = 0
    _is_suspended = False

    def __new__(cls: Type[_C], coid: int, backend: Optional[Backend] = None, *, target: Optional[StrPath] = None) -> _C:
        """Take over a connection that exists; it is this object's to close.

        Args:
            coid: its number.
            backend: as ``ha_qnx.backend`` gives it; without it, the default one.
            target: the name or the path that it leads to, if that is known. A connection to a name ends without a word
                to the server, as one of ConnectAttach does; any other by _IO_CLOSE, if it is no side channel.
        """
        connection = super().__new__(cls, operator.index(coid))
        connection._number = int(connection)
        qnx = backends.backend() if backend is None else backend
        connection._counts = qnx.counts
        connection._qnx = qnx
        connection.target = None if target is None else os.fsdecode(target)
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
        """How often it was lost and recovered: see the function ``stats``."""
        return self._counts.of(self.coid)

    def ask(self, message: BytesLike, *, room: int = REPLY_ROOM, timeout: Optional[float] = None) -> bytes:
        """Send a message to a server that answers with bytes, and with their number for a status; the bytes.

        That is what a ``Service`` does whose handler returns bytes. (Message passing itself does not tell a client how
        long a reply is.)

        Args:
            message: any bytes-like object.
            room: how many bytes the reply may have.
            timeout: how many seconds to wait; None is for ever. What is sent again after a recovery gets what is left.
                On a channel with NTO_CHF_UNBLOCK, which every server with a name has, the server is asked to let the
                client go, and a server that is stopped, or never looks, keeps it waiting: nothing but the end of the
                server ends that, on QNX as here.

        Raises:
            OSError: as MsgSend; EMSGSIZE, the reply is longer than the room, and the text says both; EPROTO, the status
                is negative, and so no length.
            ValueError: the connection is closed, or the time is NaN or negative.
        """
        qnx = self._qnx
        try:
            if timeout is None and qnx is not None:
                return ask(qnx, self._number, message, room)
            return within(self.backend, timeout, ask, self.backend, self.coid, message, room)
        except OSError as error:
            raise self._explained(error) from error.__cause__

    def send(self, message: BytesLike, size: int = 0, *, timeout: Optional[float] = None) -> Tuple[int, bytes]:
        """Send a message; the status and the reply.

        Args:
            message: any bytes-like object.
            size: how many bytes of the reply are wanted. There are exactly so many, and zero where the server wrote
                nothing: message passing does not tell a client how long a reply is.
            timeout: as for ``ask``.

        Raises:
            OSError: as MsgSend.
            ValueError: the connection is closed, or a number is negative or NaN.
        """
        qnx = self._qnx
        try:
            if timeout is None and qnx is not None:
                return send(qnx, self._number, message, size)
            return within(self.backend, timeout, send, self.backend, self.coid, message, size)
        except OSError as error:
            raise self._explained(error) from error.__cause__

    def send_into(self, message: BytesLike, reply: Optional[BytesLike], *, timeout: Optional[float] = None) -> int:
        """Send a message and receive the reply into a buffer; the status. The rest is as in ``send``."""
        qnx = self._qnx
        try:
            if timeout is None and qnx is not None:
                return qnx.MsgSend(self._number, message, reply)
            return within(self.backend, timeout, self.backend.MsgSend, self.coid, message, reply)
        except OSError as error:
            raise self._explained(error) from error.__cause__

    def _explained(self, error: OSError) -> OSError:
        """The error of a message, which says so if that has cost too many servers; the next message begins anew."""
        attempts, qnx = self._attempts, self._qnx
        if (
            attempts < 1
            or qnx is None
            or self._is_suspended
            or error.errno not in (EBADF, ESRCH)
            or error.__cause__ is not None
            or not qnx.counts.is_back(self.coid)
        ):
            return error
        with contextlib.suppress(OSError):
            qnx.ha_connection_ctrl(self.coid, HA_RECOVERY_RESET_ICOUNT)
        server = "the server" if self.target is None else f"the server of {self.target!r}"
        text = f"{server} was lost, as were {attempts} before it with this message in hand: it is not sent again"
        return OSError(error.errno, f"{text} (attempts={attempts})")

    def pulse(self, code: int, value: int = 0, priority: int = -1) -> None:
        """Send a pulse, with the priority of the calling thread if none is given.

        Raises:
            ValueError: the code is not of those for programs, 0 to 127; or the connection is closed.
            OSError: as MsgSendPulse.
        """
        code = integer("code", code, PULSE_CODE_MINAVAIL, PULSE_CODE_MAXAVAIL)
        self.backend.MsgSendPulse(self.coid, priority, code, value)

    def file(
        self,
        mode: str = "rb",
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
        *,
        timeout: Optional[float] = None,
    ) -> IO[Any]:
        """Read and write the connection as a file; closing that leaves the connection open.

        It makes sense for a path, whose server answers _IO_READ and _IO_WRITE. The connection is open already: no mode
        creates or empties anything.

        Args:
            mode: this and the next four are those of Python's open().
            buffering: how much is read ahead and held back.
            encoding: of text.
            errors: what to do about what is no text.
            newline: which ends of lines there are.
            timeout: how many seconds each message may take, as for ``ask``; then the file's call fails with ETIMEDOUT.

        Raises:
            OSError: as lseek, in append mode.
            ValueError: the connection is closed, the arguments do not go together, or the time is NaN or negative.
        """
        how = OpenMode(mode, buffering, encoding, errors, newline)
        limit = time_limit(timeout)
        calls: Any = self.backend if limit is None else _Timed(self.backend, limit)
        file: IO[Any] = how.layers(RawFile(calls, self.coid, how, self.coid, closefd=False))
        return file

    def limit(self, attempts: Optional[int] = None, recoveries: Optional[int] = None) -> None:
        """Allow so many calls of the recovery function for one failure, and in all; a negative number: any."""
        set_limits(self.backend, self.coid, attempts, recoveries)
        if attempts is not None:
            # With a limit of all recoveries, nobody knows which of the two was reached.
            self._attempts = attempts
        if recoveries is not None and recoveries >= 0:
            self._attempts = 0

    def suspend(self) -> None:
        """Do not recover until ``resume``: calls fail when the server is lost."""
        self.backend.ha_connection_ctrl(self.coid, HA_RECOVERY_SUSPEND)
        self._is_suspended = True

    def resume(self) -> None:
        """Recover again."""
        self.backend.ha_connection_ctrl(self.coid, HA_RECOVERY_ENABLE)
        self._is_suspended = False

    def close(self, timeout: Optional[float] = None) -> None:
        """Close the connection. It does not matter how often, nor whether there still is a server.

        The server of a path is told by _IO_CLOSE, and one that hangs keeps this waiting, on QNX as here, and with it
        the end of a ``with`` statement. A ``timeout`` ends that, and so does a signal handler that raises, such as that
        of Ctrl-C, after which the connection is still open. (Within ``with``, it can be closed with a ``timeout``.)

        Args:
            timeout: how many seconds the server of a path may take to answer, as for ``ask``. (That of a name is not
                asked.)

        Raises:
            OSError: what the server answered to the closing, or ETIMEDOUT; the connection is closed all the same.
            ValueError: the time is NaN or negative.
        """
        limit = time_limit(timeout)
        qnx, self._qnx = self._qnx, None
        if qnx is None:
            return
        life = life_of(qnx, self.coid)
        try:
            within(qnx, limit, self._end, qnx)
        except InterruptedError:
            self._qnx = qnx  # It is still open (B330).
            raise
        except OSError as error:
            if error.errno not in (EBADF, ESRCH):
                raise
        except BaseException:
            if life is not None and life_of(qnx, self.coid) is life:
                self._qnx = qnx  # So it is if a signal handler has raised this.
            raise

    def _end(self, qnx: Backend) -> None:
        is_of_name = self.target is not None and not is_path(self.target)
        if is_of_name or self & NTO_SIDE_CHANNEL:
            qnx.ConnectDetach(self.coid)
        else:
            qnx.close(self.coid)

    def __enter__(self: _C) -> _C:
        return self

    def __exit__(self, _kind: Optional[Type[BaseException]], _error: object, _traceback: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self._description()}, {self._state()}>"

    def _description(self) -> str:
        return f"Connection {self.coid:#x}" + ("" if self.target is None else f" to {self.target!r}")

    def _state(self) -> str:
        """Who the server is, or why there is none."""
        if self._qnx is None:
            return "closed"
        info = MessageInfo()
        try:
            found = self._qnx.ConnectServerInfo(0, self.coid, info)
        except OSError:
            found = -1
        if found != self.coid:
            return "lost"  # Its number was closed by somebody else.
        return "lost" if info.flags & NTO_COF_DEAD else f"server {info.pid}"

    def __copy__(self) -> NoReturn:
        raise TypeError("a connection is closed once, so it cannot be copied: connect again, or use ha_dup")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a connection belongs to its process, so it cannot be pickled: let the other one connect, too")

    def __del__(self) -> None:
        if self._qnx is not None and self._is_ours:
            warnings.warn(f"<{self._description()}> was never closed", ResourceWarning, source=self, stacklevel=2)
            qnx, self._qnx = self._qnx, None
            # Not by _IO_CLOSE: nobody knows which thread this is, nor whether the server answers.
            with contextlib.suppress(OSError):
                qnx.ConnectDetach(self.coid)


class _Lent(Connection):
    """A connection that a ``setup`` gets: somebody else's to close, in what is left of the time for all of it."""

    _is_ours = False

    def ask(self, message: BytesLike, *, room: int = REPLY_ROOM, timeout: Optional[float] = None) -> bytes:
        return super().ask(message, room=room, timeout=sooner(timeout))

    def send(self, message: BytesLike, size: int = 0, *, timeout: Optional[float] = None) -> Tuple[int, bytes]:
        return super().send(message, size, timeout=sooner(timeout))

    def send_into(self, message: BytesLike, reply: Optional[BytesLike], *, timeout: Optional[float] = None) -> int:
        return super().send_into(message, reply, timeout=sooner(timeout))


class _Timed:
    """The calls that a file is made of, each limited in time."""

    def __init__(self, qnx: Backend, timeout: float) -> None:
        self._qnx, self._timeout = qnx, timeout
        self.ConnectServerInfo = qnx.ConnectServerInfo

    def readinto(self, fd: int, buf: BytesLike) -> int:
        return within(self._qnx, self._timeout, self._qnx.readinto, fd, buf)

    def write(self, fd: int, data: BytesLike) -> int:
        return within(self._qnx, self._timeout, self._qnx.write, fd, data)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        return within(self._qnx, self._timeout, self._qnx.lseek, fd, offset, whence)

    def _ftruncate(self, fd: int, length: int) -> object:
        qnx: Any = self._qnx
        return within(qnx, self._timeout, qnx._ftruncate, fd, length)

    def close(self, fd: int) -> object:
        return within(self._qnx, self._timeout, self._qnx.close, fd)


def stats(coid: int, backend: Optional[Backend] = None) -> Stats:
    """What has happened to a connection since it was made HA-aware; all zero for one that is not.

    The counts of a connection outlive it, until its number is used for another HA-aware one.

    Args:
        coid: the connection.
        backend: whose connection it is, as ``ha_qnx.backend`` gives it: each backend has numbers of its own. Without
            it, that of the connection if this is a ``Connection``; a number alone is one of the default backend.
    """
    if backend is None and isinstance(coid, Connection):
        return coid.stats
    return (backends.backend() if backend is None else backend).counts.of(coid)


def ask(qnx: Backend, coid: int, message: BytesLike, room: int) -> bytes:
    """What ``Connection.ask`` does."""
    reply = bytearray(room)
    status = qnx.MsgSend(coid, message, reply)
    if not 0 <= status <= room:
        if status < 0:
            raise OSError(EPROTO, f"the server answered with the status {status}, which is no length: use send")
        raise OSError(EMSGSIZE, f"the reply has {status} bytes, and there was room for {room}: say room={status}")
    return bytes(memoryview(reply)[:status])


def send(qnx: Backend, coid: int, message: BytesLike, size: int) -> Tuple[int, bytes]:
    """What ``Connection.send`` does."""
    reply = bytearray(size)
    return qnx.MsgSend(coid, message, reply), bytes(reply)


def connect(
    target: StrPath,
    oflag: int = os.O_RDWR,
    *,
    recover: Union[RecoveryFunction, bool, None] = True,
    handle: object = None,
    setup: Optional[Callable[[Connection], object]] = None,
    attempts: Optional[int] = ATTEMPTS,
    recoveries: Optional[int] = None,
    timeout: float = 30.0,
    wait: float = 0.0,
    backend: Optional[Backend] = None,
) -> Connection:
    """Connect to a server, and survive its death.

    Args:
        target: a name of name_attach; or a path, which begins with a slash and which a server has attached. Where
            nobody answers there and ``recover`` is a failover, the first of its servers that answers.
        oflag: how to open a path, as for open.
        recover: the recovery function, such as those of ``ha_qnx.strategies``. True: wait for a server of the same
            name or path. None: an ordinary connection.
        handle: what the recovery function gets beside the connection.
        setup: is called with the connection when it is made and after each recovery, before any message is sent again:
            to log in, to subscribe. What it sends is not recovered; if the server is lost meanwhile, the next one is
            waited for.
        attempts: at most so many calls of the recovery function for one message, so that a message which kills every
            server that it reaches does not kill them all; None or a negative number: any.
        recoveries: at most so many in all. (The limits of ``strategies.limit`` come before these two.)
        timeout: how many seconds a recovery may take, if ``recover`` is True or there is a ``setup``: waiting for a
            server, opening its path, and what ``setup`` sends by the connection's own methods. (Of what one call may
            take besides, ``ask`` tells; a server that does not let a client go is not bounded by this, either.)
        wait: how many seconds the connecting may take now, all of it, if there is no server yet, or it does not answer.
            Without it there is one try, which waits for a server that is there as long as it takes.
        backend: as ``ha_qnx.backend`` gives it; without it, the default one.

    Raises:
        OSError: as name_open and ConnectAttach for a name, as ha_open for a path; ETIMEDOUT, a server is there and has
            not answered in the time for it.
        TypeError: a time or a limit is no number, or a function not callable.
        ValueError: a time is NaN, a limit too large for C's int, or the target a name and those of ``recover`` paths,
            or the other way round.
    """
    timeout, wait = as_seconds("timeout", timeout), as_seconds("wait", wait)
    check_limits(attempts, recoveries)
    if setup is not None:
        check_callable("setup", setup)
    qnx = backends.backend() if backend is None else backend
    targets = [target, *getattr(recover, "targets", ())]
    if len({is_path(each) for each in targets}) > 1:
        raise ValueError("a connection leads to names or to paths, and not to both")
    if recover is True:
        recover = wait_for(to_target(target, oflag, backend=qnx), timeout)
    if recover and setup is not None:
        recover = wait_for(then(recover, _rebuild(setup, qnx, target)), timeout)
    with until(time.monotonic() + wait + LAST_TRY) if wait else contextlib.nullcontext():
        connection = until_served(lambda: _connect_first(qnx, targets, oflag, setup), wait, lambda _connection: True)
    try:
        if recover:
            qnx.ha_attach(connection.coid, recover, handle)
            qnx.counts.leads_to(connection.coid, target)
            connection.limit(*getattr(recover, "limits", (attempts, recoveries)))
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_first(
    qnx: Backend, targets: Sequence[StrPath], oflag: int, setup: Optional[Callable[[Connection], object]]
) -> Connection:
    """A connection to the first target that has a server."""
    failures: List[OSError] = []
    for target in targets:
        try:
            connection = Connection(_connect(qnx, target, oflag), qnx, target=target)
        except OSError as error:
            if error.errno not in NO_SERVER:
                raise
            failures.append(error)
            continue
        try:
            if setup is not None:
                then(lambda coid, _handle: coid, _rebuild(setup, qnx, target))(connection.coid, None)
        except BaseException:
            connection.close()
            raise
        return connection
    raise failures[0]


def _connect(qnx: Backend, target: StrPath, oflag: int) -> int:
    if is_path(target):
        with naming(target):
            return within(qnx, sooner(), qnx.open, target, oflag)
    server = find_server(os.fsdecode(target), backend=qnx)
    # A number of the descriptors' range, since QNX gives no side channel a number that it had before.
    place = server.nd, server.pid, server.chid, _FIRST, NTO_COF_CLOEXEC
    return within(qnx, sooner(), qnx.ConnectAttach, *place)


def _rebuild(setup: Callable[[Connection], object], qnx: Backend, target: StrPath) -> Callable[[int, Any], object]:
    def rebuild(coid: int, _handle: object) -> None:
        # Not the connection itself: that would keep it from being noticed when it is forgotten.
        setup(_Lent(coid, qnx, target=target))

    return rebuild
