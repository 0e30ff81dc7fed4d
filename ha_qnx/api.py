"""The whole interface of a backend: QNX's kernel calls, the covers that recover, and libha's own functions.

``ha_qnx.backend(name)`` returns an object with these attributes; the module's own names are those of the default one.
"""

from typing import Any, Callable, Optional, Protocol

from .kernel import BytesLike, Kernel, StrPath, Vector

__all__ = ["CALLS", "Backend", "RecoveryFunction"]

# Called with the connection and the handle, in the thread that met the failure. It has recovered the connection if it
# returns its number.
RecoveryFunction = Callable[[int, Any], int]


class Backend(Kernel, Protocol):
    """A kernel whose calls recover, and libha's functions that say how.

    The MsgSend family and MsgSendPulse are *covers*: on an HA-aware connection they survive the death of the server. On
    any other connection they are the plain calls.

    The forms with ``_r`` do not raise OSError: they return what the others return, or the negative errno. (All of them;
    QNX has some that return it positive, B6.) They do raise for bad arguments.
    """

    name: str

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


# What recovery needs of a kernel is no call of QNX's, and no part of the public interface.
_NOT_PUBLIC = {"attach_at", "is_open", "open_at"}

#: The names of all calls. Tests compare every backend, its signatures and this package's own names with this list.
CALLS = tuple(
    name
    for contract in (Kernel, Backend)
    for name in vars(contract)
    if not name.startswith("_") and name not in _NOT_PUBLIC
)
