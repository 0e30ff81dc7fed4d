"""The whole interface of a backend: QNX's kernel calls, the covers that recover, and libha's own functions.

``ha_qnx.backend(name)`` returns an object with these attributes, and with QNX's constants and structures beside them;
the calls that the package itself exports are those of the default backend.
"""

import os
from typing import IO, Any, Callable, Optional, Protocol, Tuple

from .derived import Vocabulary
from .kernel import BytesLike, Kernel, StrPath, Vector
from .structures import Itimerspec, MessageInfo, SigEvent
from .watching import Counts

__all__ = ["CALLS", "Backend", "RecoveryFunction"]

# Called with the connection and the handle, in the thread that met the failure. It has recovered the connection if it
# returns its number.
RecoveryFunction = Callable[[int, Any], int]


class Backend(Kernel, Vocabulary, Protocol):
    """A kernel whose calls recover, and libha's functions that say how; with QNX's constants and structures.

    The MsgSend family, MsgSendPulse, MsgSendPulsePtr, read, readinto, write, lseek, fstat, devctl and ionotify are
    *covers*: on an HA-aware connection they survive the death of the server. On any other connection they are the plain
    calls.

    The forms with ``_r`` do not raise OSError: they return what the others return, or the negative errno. (All of them;
    QNX has some that return it positive, B6.) They do raise for bad arguments.
    """

    name: str
    #: What has happened to its connections: see ``ha_qnx.stats``.
    counts: Counts

    # libha: which connections recover, and how.

    def ha_attach(self, coid: int, rfn: RecoveryFunction, rhdl: object = None, flags: int = 0) -> int:
        """Make a connection HA-aware: from now on, ``rfn`` is called when a call on it fails with EBADF or ESRCH.

        ``rfn(coid, rhdl)`` is called in the thread that met the failure, by one thread at a time. If it returns
        ``coid``, the message is sent again: a server may get it twice. If it returns anything else, or raises, the
        caller gets the error of the failed call, raised from what ``rfn`` raised.

        Args:
            coid: an open connection.
            rfn: the recovery function.
            rhdl: any object, handed to ``rfn``.
            flags: HAREPLACERECOVERYFN replaces the function of a connection that has one, and of its duplicates.

        Returns:
            0.

        Raises:
            TypeError: ``rfn`` is not callable.
            OSError: EBADF, the connection is not open (D2); EEXIST, it is HA-aware and is not to be changed (D1);
                EINVAL, an unknown flag.

        Follows ha_attach(), B359 to B373.
        """

    def ha_detach(self, coid: int) -> int:
        """Make an HA-aware connection an ordinary one, which stays open.

        Returns:
            0.

        Raises:
            OSError: EBADF, it is not HA-aware.

        Follows ha_detach(), B374, B375.
        """

    def ha_connection_ctrl(self, coid: int, command: int, args: Optional[int] = None) -> int:
        """Bound, suspend or resume the recovery of a connection, duplicates included.

        Args:
            coid: an HA-aware connection.
            command: HA_RECOVERY_ICOUNT, at most ``args`` calls of the recovery function until a message gets through;
                HA_RECOVERY_ACOUNT, at most ``args`` calls in all; HA_RECOVERY_RESET_ICOUNT and
                HA_RECOVERY_RESET_ACOUNT, count from 0 again; HA_RECOVERY_SUSPEND, do not recover until
                HA_RECOVERY_ENABLE, which leaves counts and limits alone.
            args: the limit; negative for none, which is the default; 0 for no recovery at all.

        Returns:
            0.

        Raises:
            TypeError: the limit is missing, or no int.
            OSError: EBADF, the connection is not HA-aware; EINVAL, an unknown command.

        Follows ha_connection_ctrl(), B388 to B397, D7, D8.
        """

    def ha_open(
        self,
        path: StrPath,
        oflag: int,
        rfn: RecoveryFunction,
        rhdl: object = None,
        haflags: int = 0,
        mode: int = 0o666,
    ) -> int:
        """Open a path, and make the connection HA-aware.

        Args:
            path: as for open.
            oflag: as for open.
            rfn: as for ha_attach.
            rhdl: as for ha_attach.
            haflags: as ``flags`` of ha_attach.
            mode: as for open.

        Returns:
            The descriptor.

        Raises:
            TypeError: ``rfn`` is not callable.
            OSError: as open; as ha_attach, and then the new connection is closed again (D4).

        Follows ha_open(), B378.
        """

    def ha_open64(
        self,
        path: StrPath,
        oflag: int,
        rfn: RecoveryFunction,
        rhdl: object = None,
        haflags: int = 0,
        mode: int = 0o666,
    ) -> int:
        """As ha_open: Python's files are always large ones."""

    def ha_creat(self, path: StrPath, mode: int, rfn: RecoveryFunction, rhdl: object = None, haflags: int = 0) -> int:
        """Create a file, or empty it, for writing, and make the connection HA-aware.

        The same as ha_open with O_WRONLY, O_CREAT and O_TRUNC. Follows ha_creat(), B378.
        """

    def ha_creat64(self, path: StrPath, mode: int, rfn: RecoveryFunction, rhdl: object = None, haflags: int = 0) -> int:
        """As ha_creat: Python's files are always large ones."""

    def ha_ConnectAttach(
        self,
        nd: int,
        pid: int,
        chid: int,
        index: int,
        flags: int,
        rfn: RecoveryFunction,
        rhdl: object = None,
        haflags: int = 0,
    ) -> int:
        """Connect to a channel, and make the connection HA-aware.

        The first five arguments are those of ConnectAttach, the others those of ha_attach.

        Returns:
            The connection ID.

        Raises:
            TypeError: ``rfn`` is not callable.
            OSError: as ConnectAttach; as ha_attach, and then the new connection is detached again (D4).

        Follows ha_ConnectAttach(), B378.
        """

    def ha_ConnectAttach_r(
        self,
        nd: int,
        pid: int,
        chid: int,
        index: int,
        flags: int,
        rfn: RecoveryFunction,
        rhdl: object = None,
        haflags: int = 0,
    ) -> int:
        """As ha_ConnectAttach, but return the negative errno instead of raising OSError (B7)."""

    def ha_ConnectDetach(self, coid: int) -> int:
        """Make an HA-aware connection an ordinary one, and detach it.

        Returns:
            0.

        Raises:
            OSError: EBADF, it is not HA-aware; it stays open (D3).

        Follows ha_ConnectDetach(), B376.
        """

    def ha_ConnectDetach_r(self, coid: int) -> int:
        """As ha_ConnectDetach, but return the negative errno instead of raising OSError."""

    def ha_reopen(self, oldfd: int, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        """In a recovery function: close the old connection and open a path under its number.

        If it fails, the old connection is dead but keeps its number until it is closed: the function may try again, now
        or when it is called next, and nobody else gets the number meanwhile (D6).

        Args:
            oldfd: the connection that was lost.
            path: as for open.
            oflag: as for open.
            mode: as for open.

        Returns:
            ``oldfd``.

        Raises:
            OSError: EBADF, the number belongs to something else by now, which is left alone (D17); else as open.

        Follows ha_reopen(), B384.
        """

    def ha_ReConnectAttach(self, oldcoid: int, nd: int, pid: int, chid: int, index: int, flags: int) -> int:
        """In a recovery function: detach the old connection and connect to a channel under its number.

        If it fails, what ha_reopen says holds here, too.

        Args:
            oldcoid: the connection that was lost.
            nd: as for ConnectAttach, like the rest.
            pid: the new server's process.
            chid: its channel.
            index: what the number was asked for with; the connection gets its old number in any case.
            flags: as for ConnectAttach.

        Returns:
            ``oldcoid``.

        Raises:
            OSError: EBADF, the number belongs to something else by now, which is left alone; else as ConnectAttach.

        Follows ha_ReConnectAttach(), B385 to B387.
        """

    def ha_close(self, fd: int) -> int:
        """Make an HA-aware descriptor an ordinary one, and close it.

        Returns:
            0.

        Raises:
            OSError: EBADF, it is not HA-aware, and stays open (D3); else as close.

        Follows ha_close(), B376.
        """

    def ha_dup(self, fd: int) -> int:
        """Duplicate an HA-aware descriptor; both share recovery function, handle and counts.

        Returns:
            The new descriptor.

        Raises:
            OSError: EBADF, it is not HA-aware; else as dup.

        Follows ha_dup(), B380 to B382.
        """

    # Reading and writing.
    #
    # Each of these is one message to a server, and the host's own call on an ordinary descriptor. A connection that is
    # lost while the server has the message is recovered, and the message is sent again: at least once, never exactly
    # once. The docstrings say what that means for each.

    def read(self, fd: int, n: int) -> bytes:
        """Read from a descriptor: an _IO_READ message, or the host's read.

        After a recovery, the new server gets the message anew, and reads from where *it* stands: most begin at the
        start of what was opened. It is safe to send a read twice if the recovery function puts the position back: after
        ha_reopen, ``lseek(fd, position, SEEK_SET)`` to where the last read that returned has ended. It is safe without
        that for servers that have no position, such as a sensor's. What a server hands out only once, such as the items
        of a queue, is lost if it dies on the way.

        Args:
            fd: a descriptor.
            n: how many bytes at most. One call reads 2 GiB less 4 KiB at most.

        Returns:
            The data, never more than ``n`` bytes, whatever the server says (D31); empty at the end of the file.

        Raises:
            ValueError: ``n`` is negative.
            OSError: EBADF, the descriptor is not open, its server is gone, or it is not open for reading; ESRCH, the
                server went while it had the message; EISDIR; EAGAIN, there is nothing yet and the descriptor does not
                block; EIO, the server answered with a negative number; EINTR and ETIMEDOUT as MsgSend; what the server
                answers by MsgError. (On an HA-aware connection a server that answers EBADF, for instance because it was
                not opened for reading, is taken for one that is lost (B368): HA_RECOVERY_ICOUNT bounds what follows. An
                ordinary file that is open but not for reading is not.)

        Follows read(), B317 to B320, B344, B345.
        """

    def readinto(self, fd: int, buf: BytesLike) -> int:
        """Read from a descriptor into a buffer. What it says about recovery is what read says.

        Args:
            fd: a descriptor.
            buf: where the data goes; what is not read into stays as it was, unless the connection was lost meanwhile.

        Returns:
            How many bytes were read, never more than there is room (D31); 0 at the end of the file.

        Raises:
            OSError: as read.

        Follows read(), B317 to B320.
        """

    def write(self, fd: int, data: BytesLike) -> int:
        """Write to a descriptor: an _IO_WRITE message with the data behind it, or the host's write.

        After a recovery the data is sent again, though the server that died may have written all of it, part of it, or
        nothing. It is safe to write twice if the recovery function puts the position back, as for read, and the data
        replaces what is there; or if the server has no position and the last word counts, such as the set point of a
        thermostat. It is not safe to append twice, or to send a command that does something each time: number such
        records, and let the server drop the numbers that it has had.

        Args:
            fd: a descriptor.
            data: what to write. One call writes 2 GiB less 4 KiB at most.

        Returns:
            How many bytes the server took, which can be fewer than there are.

        Raises:
            OSError: EBADF, ESRCH, EAGAIN, EIO, EINTR, ETIMEDOUT as read; EPIPE, ENOSPC and what else the host's write
                knows; what the server answers by MsgError.

        Follows write(), B322 to B324, B344, B345.
        """

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """Move the position of a descriptor: an _IO_LSEEK message, or the host's lseek.

        SEEK_SET and SEEK_END are safe to send twice. SEEK_CUR is not: the server that died may have moved already, and
        the new one starts elsewhere. With a recovery function that puts the position back, it is.

        Args:
            fd: a descriptor.
            offset: bytes, relative to what ``whence`` says.
            whence: os.SEEK_SET, the start; os.SEEK_CUR, the position now; os.SEEK_END, the end.

        Returns:
            The new position, in bytes from the start.

        Raises:
            OSError: EBADF, ESRCH, EINTR, ETIMEDOUT as read; ESPIPE, there are no positions; EINVAL, an unknown
                ``whence``, or a position before the start; EIO, the server's answer has no position in it; what the
                server answers by MsgError.

        Follows lseek(), B325, B326.
        """

    def fstat(self, fd: int) -> os.stat_result:
        """Tell what is known about an open file: an _IO_STAT message, or the host's fstat. It is safe to send twice.

        Args:
            fd: a descriptor.

        Returns:
            What the server tells. Of the host's fields, there are those that QNX's struct stat has. A server whose
            answer is that of 6.x has told no fractions of seconds.

        Raises:
            OSError: EBADF, ESRCH as read; ENOSYS, the server does not know; EIO, it answered without a status; what the
                server answers by MsgError.

        Follows fstat(), B327.
        """

    def devctl(self, fd: int, dcmd: int, data: BytesLike = b"") -> Tuple[int, int, bytes]:
        """Have a device do something: an _IO_DEVCTL message. As in C, errors are returned, and not raised.

        After a recovery the command is sent again, though the server that died may have carried it out: as for write.

        Args:
            fd: a descriptor.
            dcmd: the command, which says whether data goes to the server, comes from it, or both: ``ha_qnx.DIOF``,
                ``DIOT``, ``DIOTF`` and ``DION`` make one.
            data: what goes to the server; if data only comes from it, as many bytes as there is room for.

        Returns:
            Three things. The status: 0, or the errno that the server answers by MsgError; ENOTTY, the server, or a file
            of the host, knows no such command; EBADF, the descriptor is not open, or its server is gone; ESRCH, the
            server went while it had the message; EINTR and ETIMEDOUT as MsgSend. A status that the server answers by
            MsgReply is negated. The info, a number of the server's. What is in the buffer afterwards, as long as
            ``data``: where the server's data ends, it is ``data``.

        Raises:
            TypeError, ValueError: an argument is none.

        Follows devctl(), B480 to B484.
        """

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
        """Open a path as a file object whose connection is HA-aware.

        It is what open() makes, with the same buffers and the same text layer, on read, write and lseek of this
        interface. Whatever is done with it can be recovered, and each of its transfers is sent at least once; see
        there. Because of the buffers, a program does not know how far the connection has been read or written: the raw
        file does. A recovery function that puts the position back reads it there::

            def recover(fd, opened):
                ha.ha_reopen(fd, "/dev/journal", os.O_RDONLY)
                ha.lseek(fd, opened[0].buffer.raw.position, os.SEEK_SET)
                return fd

            opened = []
            opened.append(ha.ha_fopen("/dev/journal", "r", recover, opened))

        A flush whose connection is lost and not recovered fails, and what is not written yet stays in the buffer.
        close() makes the connection an ordinary one before it closes it, like ha_fclose.

        Args:
            path: as for open.
            mode: as for Python's open(), which takes what C's fopen takes: "r", "w", "a", "x", each with "+", "b", "t".
            rfn: as for ha_attach. A file that was created or emptied is not to be created or emptied again: it reopens
                without O_TRUNC and O_EXCL.
            rhdl: as for ha_attach.
            haflags: as ``flags`` of ha_attach.
            buffering: as for Python's open(), like the rest: 0 for none, 1 for lines, else bytes.
            encoding: of a text file.
            errors: what to do about what cannot be encoded or decoded.
            newline: what ends a line.

        Returns:
            The file object. It can be used in a with statement.

        Raises:
            TypeError: ``rfn`` is not callable; as Python's open().
            ValueError: as Python's open(), about the mode.
            OSError: as ha_open; EISDIR, a directory of the host.

        Follows ha_fopen(), B378.
        """

    def ha_fclose(self, file: IO[Any]) -> int:
        """Write out what is buffered, make the connection of a file object an ordinary one, and close the file.

        Args:
            file: what ha_fopen returned.

        Returns:
            0.

        Raises:
            TypeError: it is no file object.
            OSError: EBADF, it is closed already; or it is not HA-aware, and stays open (D3); else as write and close,
                and it is closed.

        Follows ha_fclose(), B376.
        """

    # A form of MsgReceivePulse.

    def MsgReceivePulsev(self, chid: int, iov: Optional[Vector], info: Optional[MessageInfo] = None) -> int:
        """Wait for a pulse and receive it into the first part of a vector; the other parts are left alone (B451).

        Otherwise as MsgReceivePulse, of which it is made: 8.0 has no such call any more.
        """

    # Timers by the names that POSIX gives them.

    def timer_create(self, clockid: int, evp: Optional[SigEvent] = None) -> int:
        """Create a timer: the same as TimerCreate (B441)."""

    def timer_settime(self, timerid: int, flags: int, value: Itimerspec, ovalue: Optional[Itimerspec] = None) -> int:
        """Set a timer, or stop it: as TimerSettime, but in seconds and nanoseconds.

        Args:
            timerid: the timer.
            flags: TIMER_ABSTIME, ``value.it_value`` is a point of the timer's clock.
            value: when it expires first, 0 to stop it, and at what intervals then.
            ovalue: filled in with what was set before, as timer_gettime tells it.

        Returns:
            0.

        Raises:
            OSError: EINVAL, there is no such timer, or a time that is negative or has a second or more of nanoseconds.

        Follows timer_settime(), B447, B448.
        """

    def timer_gettime(self, timerid: int) -> Itimerspec:
        """Tell what is left until a timer expires, 0 if it is stopped, and its interval (B449).

        Raises:
            OSError: EINVAL, there is no such timer.
        """

    def timer_getoverrun(self, timerid: int) -> int:
        """Tell how many expiries were left out: 0, since each is queued (B445).

        Raises:
            OSError: EINVAL, there is no such timer.
        """

    def timer_delete(self, timerid: int) -> int:
        """Destroy a timer: the same as TimerDestroy (B450)."""

    # The forms that return errors.

    def MsgSend_r(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        """As MsgSend, but return the negative errno instead of raising OSError (B2, B9)."""

    def MsgSendv_r(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        """As MsgSendv, but return the negative errno instead of raising OSError."""

    def MsgSendsv_r(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        """As MsgSendsv, but return the negative errno instead of raising OSError."""

    def MsgSendvs_r(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        """As MsgSendvs, but return the negative errno instead of raising OSError."""

    def MsgSendnc_r(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        """As MsgSendnc, but return the negative errno instead of raising OSError."""

    def MsgSendvnc_r(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        """As MsgSendvnc, but return the negative errno instead of raising OSError."""

    def MsgSendsvnc_r(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        """As MsgSendsvnc, but return the negative errno instead of raising OSError."""

    def MsgSendvsnc_r(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        """As MsgSendvsnc, but return the negative errno instead of raising OSError."""

    def MsgSendPulse_r(self, coid: int, priority: int, code: int, value: int) -> int:
        """As MsgSendPulse, but return the negative errno instead of raising OSError (B6)."""

    def MsgSendPulsePtr_r(self, coid: int, priority: int, code: int, value: int) -> int:
        """As MsgSendPulsePtr, but return the negative errno instead of raising OSError (B6)."""


# What recovery and asyncio need of a kernel is no call of QNX's, and no part of the public interface.
_NOT_PUBLIC = {"attach_at", "is_open", "open_at", "unblock"}

#: The names of all calls. Tests compare every backend, its signatures and this package's own names with this list.
CALLS = tuple(
    name
    for contract in (Kernel, Backend)
    for name in vars(contract)
    if not name.startswith("_") and name not in _NOT_PUBLIC
)
