"""libha in Python: the covers and the ha_* functions, on any kernel.

This is libha for every host, and for a QNX image that has none. It knows no sockets and no ctypes: what it needs of a
kernel is in ``ha_qnx.kernel``. When to recover is decided in ``ha_qnx.rules``; what its calls promise is written down
in ``ha_qnx.api``.
"""

import functools
import os
import weakref
from errno import EBADF
from typing import Callable, Dict, Optional, TypeVar

from .api import Backend, RecoveryFunction
from .buffers import INT_MIN, UINT_MAX, as_int, integer
from .constants import HAREPLACERECOVERYFN, NTO_SIDE_CHANNEL
from .deadlines import arm_again
from .derived import PlainCalls, Vocabulary
from .documenting import documented_by
from .errors import failure
from .files import Files
from .kernel import BytesLike, Kernel, StrPath, Vector
from .lifetimes import Lifetimes
from .returning import PulsesInParts, ReturningErrors, returning_errors
from .rules import LOST, Attachment, Attachments, attachment_flags, limit_of
from .structures import SigEvent
from .timing import PosixTimers
from .watching import Counts, server_of

T = TypeVar("T")


@documented_by(Backend)
class Recovery(ReturningErrors, PulsesInParts, Files, Lifetimes, PosixTimers, PlainCalls, Vocabulary):
    """A backend: a kernel whose calls recover, and libha's functions."""

    def __init__(self, name: str, kernel: Kernel) -> None:
        self.name = name
        self._kernel = kernel
        self._send = kernel.MsgSend
        self.descriptors: Dict[int, object] = {}
        self.counts = Counts(name, functools.partial(server_of, kernel))
        self._attachments = Attachments(self.counts)
        self._attached = self._attachments.by_coid
        _follow_forks(self._attachments)
        self._pass_on(kernel)

    # Covers.

    def MsgSend(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        # _cover, written out: this is the path of almost every message.
        attachment = self._attached.get(coid)
        send = self._send
        if attachment is None:
            return send(coid, smsg, rmsg)
        generation = attachment.generation
        try:
            status = send(coid, smsg, rmsg)
        except OSError as error:
            return self._call_again(attachment, generation, error, send, coid, smsg, rmsg)
        if attachment.icount:
            attachment.message_got_through()
        return status

    def _cover(self, call: Callable[..., T], coid: int, *args: object) -> T:
        """Make a call on a connection; if the connection is lost and HA-aware, recover it and make the call again."""
        attachment = self._attached.get(coid)
        if attachment is None:
            return call(coid, *args)
        generation = attachment.generation
        try:
            result = call(coid, *args)
        except OSError as error:
            return self._call_again(attachment, generation, error, call, coid, *args)
        attachment.message_got_through()
        return result

    # What reads and writes is recovered in the same way.
    _recovered = _cover

    @property
    def _plain(self) -> Kernel:
        return self._kernel

    @staticmethod
    def _call_again(
        attachment: Attachment, generation: int, failure: OSError, call: Callable[..., T], coid: int, *args: object
    ) -> T:
        coid = int(coid)  # Of a Connection nothing is kept but its number, by the counts for instance.
        try:
            while failure.errno in LOST:
                attachment.recover(coid, generation, failure)
                generation = attachment.generation
                arm_again()
                try:
                    result = call(coid, *args)
                except OSError as error:
                    failure = error
                else:
                    attachment.message_got_through()
                    return result
            attachment.call_failed(failure)
            raise failure
        finally:
            del failure  # Its traceback holds this frame, and with it the caller's buffers until a collection.

    def MsgSendv(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        return self._cover(self._kernel.MsgSendv, coid, siov, riov)

    def MsgSendsv(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        return self._cover(self._kernel.MsgSendsv, coid, smsg, riov)

    def MsgSendvs(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        return self._cover(self._kernel.MsgSendvs, coid, siov, rmsg)

    def MsgSendnc(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        return self._cover(self._kernel.MsgSendnc, coid, smsg, rmsg)

    def MsgSendvnc(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        return self._cover(self._kernel.MsgSendvnc, coid, siov, riov)

    def MsgSendsvnc(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        return self._cover(self._kernel.MsgSendsvnc, coid, smsg, riov)

    def MsgSendvsnc(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        return self._cover(self._kernel.MsgSendvsnc, coid, siov, rmsg)

    def MsgSendPulse(self, coid: int, priority: int, code: int, value: int) -> int:
        return self._cover(self._kernel.MsgSendPulse, coid, priority, code, value)

    def MsgSendPulse_r(self, coid: int, priority: int, code: int, value: int) -> int:
        return returning_errors(self.MsgSendPulse, coid, priority, code, value)

    def MsgSendPulsePtr(self, coid: int, priority: int, code: int, value: int) -> int:
        return self._cover(self._kernel.MsgSendPulsePtr, coid, priority, code, value)

    def MsgSendPulsePtr_r(self, coid: int, priority: int, code: int, value: int) -> int:
        return returning_errors(self.MsgSendPulsePtr, coid, priority, code, value)

    def ionotify(self, fd: int, action: int, flags: int, event: Optional[SigEvent] = None) -> int:
        return self._cover(self._kernel.ionotify, fd, action, flags, event)

    # Which connections recover, and how.

    def ha_attach(self, coid: int, rfn: RecoveryFunction, rhdl: object = None, flags: int = 0) -> int:
        coid = as_int("coid", coid)
        attachment_flags(rfn, flags)
        if not self._kernel.is_open(coid):
            raise failure(EBADF)
        self._attachments.attach(coid, rfn, rhdl, replace=flags == HAREPLACERECOVERYFN)
        return 0

    def ha_detach(self, coid: int) -> int:
        self._attachments.detach(as_int("coid", coid))
        return 0

    def ha_connection_ctrl(self, coid: int, command: int, args: Optional[int] = None) -> int:
        attachment = self._attachments.get(as_int("coid", coid))
        command = as_int("command", command)
        attachment.control(command, limit_of(command, args))
        return 0

    def ha_open(
        self,
        path: StrPath,
        oflag: int,
        rfn: RecoveryFunction,
        rhdl: object = None,
        haflags: int = 0,
        mode: int = 0o666,
    ) -> int:
        attachment_flags(rfn, haflags)
        fd = self.open(path, oflag, mode)
        self._attach_new(fd, self.close, rfn, rhdl, haflags)
        self.counts.leads_to(fd, path)
        return fd

    ha_open64 = ha_open

    def ha_creat(self, path: StrPath, mode: int, rfn: RecoveryFunction, rhdl: object = None, haflags: int = 0) -> int:
        return self.ha_open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, rfn, rhdl, haflags, mode)

    ha_creat64 = ha_creat

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
        attachment_flags(rfn, haflags)
        coid = self.ConnectAttach(nd, pid, chid, index, flags)
        return self._attach_new(coid, self.ConnectDetach, rfn, rhdl, haflags)

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
        return returning_errors(self.ha_ConnectAttach, nd, pid, chid, index, flags, rfn, rhdl, haflags)

    def _attach_new(
        self, coid: int, undo: Callable[[int], int], rfn: RecoveryFunction, rhdl: object, haflags: int
    ) -> int:
        try:
            self.ha_attach(coid, rfn, rhdl, haflags)
        except BaseException:
            undo(coid)
            raise
        return coid

    def ha_ConnectDetach(self, coid: int) -> int:
        self._attachments.get(as_int("coid", coid))
        return self.ConnectDetach(coid)

    def ha_ConnectDetach_r(self, coid: int) -> int:
        return returning_errors(self.ha_ConnectDetach, coid)

    def ha_close(self, fd: int) -> int:
        self._attachments.get(as_int("fd", fd))
        return self.close(fd)

    def ha_dup(self, fd: int) -> int:
        fd = as_int("fd", fd)
        self._attachments.get(fd)
        duplicate = self.dup(fd)
        try:
            self._attachments.share(fd, duplicate)
            self.counts.leads_to(duplicate, self.counts.target(fd))
        except OSError:
            self.close(duplicate)
            raise
        return duplicate

    def ha_reopen(self, oldfd: int, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        return self._kernel.open_at(oldfd, path, oflag, mode)

    def ha_ReConnectAttach(self, oldcoid: int, nd: int, pid: int, chid: int, index: int, flags: int) -> int:
        integer("index", index, INT_MIN, UINT_MAX)
        return self._kernel.attach_at(oldcoid, nd, pid, chid, flags)

    # Calls that make a connection, or end one.

    @property
    def _below(self) -> Kernel:
        return self._kernel

    def _make_ordinary(self, coid: int) -> Optional[Attachment]:
        return self._attachments.take(coid)

    def _attach_again(self, coid: int, attached: Attachment) -> None:
        self._attachments.give_back(coid, attached)

    def _is_recovering(self, coid: int) -> bool:
        attachment = self._attached.get(coid)
        return attachment is not None and attachment.is_recovering_here


def _follow_forks(attachments: Attachments) -> None:
    """Forget, in forked children, the attachments of side channels, which they do not inherit (D13)."""
    reference = weakref.ref(attachments)

    def forget() -> None:
        target = reference()
        if target is not None:
            target.after_fork(keeps=lambda coid: not coid & NTO_SIDE_CHANNEL)

    os.register_at_fork(after_in_child=forget)
