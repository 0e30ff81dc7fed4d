"""The binding to libha: the backend ``native``.

On a QNX target it is QNX's own library that recovers; this module hands it Python's recovery functions. What the calls
promise is written down in ``ha_qnx.api``.

libha calls one C function for all connections, which is made once and lives as long as the backend, that is, as long as
the process: a call that comes late, after ha_detach, or on a thread that Python did not start, finds solid ground. The
handle that libha passes to it is a number, a *token*, under which the Python function and its handle are found here. A
token that is not found recovers nothing.
"""

import contextlib
import functools
import itertools
import threading
from ctypes import c_void_p
from errno import EBADF
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set

from ..abi import BY_NAME, NEGATIVE, RecoveryCallback
from ..api import Backend, RecoveryFunction
from ..buffers import INT_MAX, INT_MIN, UINT_MAX, as_int
from ..constants import (
    HA_RECOVERY_ACOUNT,
    HA_RECOVERY_ENABLE,
    HA_RECOVERY_ICOUNT,
    HA_RECOVERY_SUSPEND,
    HAREPLACERECOVERYFN,
)
from ..deadlines import arm_again, watch_others
from ..derived import Vocabulary
from ..documenting import documented_by
from ..errors import failure, naming, not_recovered
from ..files import Files
from ..kernel import StrPath
from ..lifetimes import Lifetimes
from ..returning import PulsesInParts, ReturningErrors, returning_errors
from ..rules import LOST, attachment_flags, limit_of
from ..structures import SigEvent
from ..timing import PosixTimers
from ..watching import Counts, server_of
from .kernel import NativeKernel, connect_arguments, open_arguments, pulse_arguments
from .libraries import Libraries


class _Attached:
    """What libha calls for a connection and its duplicates."""

    def __init__(self, token: int, function: RecoveryFunction, handle: object) -> None:
        self.token = token
        #: One object, so that nobody sees a function without its handle.
        self.called = function, handle
        self.coids: Set[int] = set()
        #: What libha knows, too, for the pulses of one that does not cover them.
        self.is_suspended = False
        #: By command; for a connection that is attached again because it did not end.
        self.limits: Dict[int, int] = {}


class _InThread(threading.local):
    """What goes on in a thread."""

    def __init__(self) -> None:
        #: The recovery functions that it is in, the innermost last.
        self.running: List[_Attached] = []
        #: What the last one raised, until the call that it was to save has failed.
        self.raised: Optional[BaseException] = None


@documented_by(Backend)
class Native(ReturningErrors, PulsesInParts, Files, Lifetimes, PosixTimers, NativeKernel, Vocabulary):
    """A backend: libha, and the kernel calls beside it."""

    def __init__(self, libraries: Libraries) -> None:
        super().__init__(libraries)
        self.name = "native"
        self.counts = Counts(self.name, functools.partial(server_of, self))
        self.descriptors: Dict[int, object] = {}
        self._thread = _InThread()
        self._tokens = itertools.count(1).__next__
        self._by_token: Dict[int, _Attached] = {}
        self._by_coid: Dict[int, _Attached] = {}
        self._callback = RecoveryCallback(self._recover)
        self._covers_pulses = "MsgSendPulse" not in libraries.missing
        self._covers_addresses = "MsgSendPulsePtr" not in libraries.missing
        self._covers_ionotify = libraries.version is not None  # The libha for POSIX hosts does; libc does not.

    # What libha calls.

    def _recover(self, coid: int, token: Optional[int]) -> int:
        """Call the recovery function that a token stands for; its result, or -1 if it raises or returns no number."""
        attached = self._by_token.get(token or 0)
        thread = self._thread
        if attached is None or attached in thread.running:
            # The second is for a libha that does not know what was called for a pulse: calls are plain there (D10).
            return -1
        thread.running.append(attached)
        try:
            result = self.counts.observed(coid, *attached.called)
            if result == coid:
                arm_again()
                watch_others(self)
        except BaseException as error:
            thread.raised = error
            return -1
        finally:
            thread.running.pop()
        thread.raised = None
        return result if isinstance(result, int) and INT_MIN <= result <= INT_MAX else -1

    def _failure(self, number: int) -> BaseException:
        """The exception for an errno, raised from what the recovery function raised (D12)."""
        raised, self._thread.raised = self._thread.raised, None
        if raised is None or isinstance(raised, Exception):
            return not_recovered(number, raised)
        return raised

    # The forms that return errors.

    def _call_r(self, name: str, *args: Any) -> int:
        """Call a function that returns its errno, and turn that negative, whatever it is in C (B6)."""
        if name not in self._c:
            return returning_errors(self._invoke, name[: -len("_r")], *args)
        sign = BY_NAME[name].failure
        result: int = self._c[name](*args)
        if sign != NEGATIVE:
            result = -abs(result)
        raised, self._thread.raised = self._thread.raised, None
        if raised is not None and not isinstance(raised, Exception):
            raise raised
        return result

    def MsgSendPulse_r(self, coid: int, priority: int, code: int, value: int) -> int:
        if self._covers_pulses:
            return self._call_r("MsgSendPulse_r", *pulse_arguments(coid, priority, code, value))
        return returning_errors(self.MsgSendPulse, coid, priority, code, value)

    # Pulses and ionotify, which a libha need not cover (D11, D111).

    def MsgSendPulse(self, coid: int, priority: int, code: int, value: int) -> int:
        arguments = pulse_arguments(coid, priority, code, value)
        return self._made_to_recover(self._covers_pulses, coid, self._invoke, "MsgSendPulse", *arguments)

    def MsgSendPulsePtr(self, coid: int, priority: int, code: int, value: int) -> int:
        arguments = coid, priority, code, value
        return self._made_to_recover(self._covers_addresses, coid, super().MsgSendPulsePtr, *arguments)

    def MsgSendPulsePtr_r(self, coid: int, priority: int, code: int, value: int) -> int:
        return returning_errors(self.MsgSendPulsePtr, coid, priority, code, value)

    def ionotify(self, fd: int, action: int, flags: int, event: Optional[SigEvent] = None) -> int:
        fd = as_int("fd", fd)
        return self._made_to_recover(self._covers_ionotify, fd, super().ionotify, fd, action, flags, event)

    def _made_to_recover(self, is_covered: bool, coid: int, call: Callable[..., int], *args: object) -> int:
        """Make a call; if the library does not cover it, recover its connection here."""
        while True:
            try:
                return call(*args)
            except OSError as error:
                attached = self._by_coid.get(coid)
                if is_covered or error.errno not in LOST or attached is None:
                    raise
                if attached.is_suspended or self._recover(coid, attached.token) != coid:
                    number = error.errno or 0
                    break
        raise self._failure(number)

    # Which connections recover, and how.

    def ha_attach(self, coid: int, rfn: RecoveryFunction, rhdl: object = None, flags: int = 0) -> int:
        coid = as_int("coid", coid)
        flags = attachment_flags(rfn, flags)
        known = self._by_coid.get(coid)
        if flags == HAREPLACERECOVERYFN and known is not None:
            # The token stays: libha may be about to call with it, and the duplicates have it, too (B380).
            self._invoke("ha_attach", coid, self._callback, known.token, flags)
            known.called = rfn, rhdl
            return 0
        with self._attaching(rfn, rhdl) as attached:
            self._invoke("ha_attach", coid, self._callback, attached.token, flags)
            self._enter(coid, attached)
        return 0

    def ha_detach(self, coid: int) -> int:
        coid = as_int("coid", coid)
        attached = self._leave(coid)
        try:
            self._invoke("ha_detach", coid)
        except BaseException:
            self._remain(coid, attached)
            raise
        return 0

    def ha_connection_ctrl(self, coid: int, command: int, args: Optional[int] = None) -> int:
        coid = as_int("coid", coid)
        command = as_int("command", command)
        limits = command in (HA_RECOVERY_ICOUNT, HA_RECOVERY_ACOUNT)
        if limits and coid not in self._by_coid:
            raise failure(EBADF)
        limit = max(-1, min(limit_of(command, args) or 0, INT_MAX))
        # The number itself takes the place of the address (D7).
        result = self._invoke("ha_connection_ctrl", coid, command, c_void_p(limit))
        attached = self._by_coid.get(coid)
        if attached is not None and command in (HA_RECOVERY_SUSPEND, HA_RECOVERY_ENABLE):
            attached.is_suspended = command == HA_RECOVERY_SUSPEND
        if attached is not None and limits:
            attached.limits[command] = limit
        return result

    def ha_open(
        self,
        path: StrPath,
        oflag: int,
        rfn: RecoveryFunction,
        rhdl: object = None,
        haflags: int = 0,
        mode: int = 0o666,
    ) -> int:
        return self._ha_open("ha_open", path, oflag, rfn, rhdl, haflags, mode)

    def ha_open64(
        self,
        path: StrPath,
        oflag: int,
        rfn: RecoveryFunction,
        rhdl: object = None,
        haflags: int = 0,
        mode: int = 0o666,
    ) -> int:
        return self._ha_open(self._or_plain("ha_open64"), path, oflag, rfn, rhdl, haflags, mode)

    def _ha_open(
        self, name: str, path: StrPath, oflag: int, rfn: RecoveryFunction, rhdl: object, haflags: int, mode: int
    ) -> int:
        haflags = attachment_flags(rfn, haflags)
        encoded, oflag, variadic_mode = open_arguments(path, oflag, mode)
        with naming(path), self._attaching(rfn, rhdl) as attached:
            fd = self._invoke(name, encoded, oflag, self._callback, attached.token, haflags, variadic_mode)
            return self._entered(fd, attached, path)

    def ha_creat(self, path: StrPath, mode: int, rfn: RecoveryFunction, rhdl: object = None, haflags: int = 0) -> int:
        return self._ha_creat("ha_creat", path, mode, rfn, rhdl, haflags)

    def ha_creat64(self, path: StrPath, mode: int, rfn: RecoveryFunction, rhdl: object = None, haflags: int = 0) -> int:
        return self._ha_creat(self._or_plain("ha_creat64"), path, mode, rfn, rhdl, haflags)

    def _ha_creat(self, name: str, path: StrPath, mode: int, rfn: RecoveryFunction, rhdl: object, haflags: int) -> int:
        haflags = attachment_flags(rfn, haflags)
        encoded, _oflag, typed_mode = open_arguments(path, 0, mode)
        with naming(path), self._attaching(rfn, rhdl) as attached:
            fd = self._invoke(name, encoded, typed_mode.value, self._callback, attached.token, haflags)
            self._close_on_exec(fd)
            return self._entered(fd, attached, path)

    def _or_plain(self, name: str) -> str:
        """The function with 64 in its name, or the plain one where there is no difference."""
        return name if name in self._c else name[: -len("64")]

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
        place = connect_arguments(nd, pid, chid, index, flags)
        return self._ha_connect(self._invoke, "ha_ConnectAttach", place, rfn, rhdl, haflags)

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
        place = connect_arguments(nd, pid, chid, index, flags)
        return returning_errors(self._ha_connect, self._call_r, "ha_ConnectAttach_r", place, rfn, rhdl, haflags)

    def _ha_connect(
        self,
        call: Callable[..., int],
        name: str,
        place: Sequence[int],
        rfn: RecoveryFunction,
        rhdl: object,
        haflags: int,
    ) -> int:
        haflags = attachment_flags(rfn, haflags)
        *numbers, flags = place
        with self._attaching(rfn, rhdl) as attached:
            coid = call(name, *numbers, flags & UINT_MAX, self._callback, attached.token, haflags)
            return self._entered(coid, attached) if coid >= 0 else coid

    def ha_ConnectDetach(self, coid: int) -> int:
        coid = as_int("coid", coid)
        return self._ha_disconnect(coid, self._invoke, "ha_ConnectDetach")

    def ha_ConnectDetach_r(self, coid: int) -> int:
        coid = as_int("coid", coid)
        return self._ha_disconnect(coid, self._call_r, "ha_ConnectDetach_r")

    def _ha_disconnect(self, coid: int, call: Callable[..., int], name: str) -> int:
        # What is known of it goes first: once it has ended, the number may be another's at once.
        attached = None if self._is_recovering(coid) else self._leave(coid)
        known = self._forget(coid)
        result = -1
        try:
            result = call(name, coid)
        finally:
            if result < 0:
                self._remain(coid, attached)
                self._remember(known)
        return result

    def ha_close(self, fd: int) -> int:
        fd = as_int("fd", fd)
        if fd not in self._by_coid:
            return self._invoke("ha_close", fd)
        return self.close(fd)

    def ha_dup(self, fd: int) -> int:
        fd = as_int("fd", fd)
        attached = self._by_coid.get(fd)  # It lives on in the copy, should another thread close this one meanwhile.
        copy = self._invoke("ha_dup", fd)
        self._close_on_exec(copy)
        return copy if attached is None else self._entered(copy, attached, self.counts.target(fd))

    def ha_reopen(self, oldfd: int, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        oldfd = as_int("oldfd", oldfd)
        return self._invoke("ha_reopen", oldfd, *open_arguments(path, oflag, mode))

    def ha_ReConnectAttach(self, oldcoid: int, nd: int, pid: int, chid: int, index: int, flags: int) -> int:
        oldcoid = as_int("oldcoid", oldcoid)
        *numbers, flags = connect_arguments(nd, pid, chid, index, flags)
        return self._invoke("ha_ReConnectAttach", oldcoid, *numbers, flags & UINT_MAX)

    # Calls that make a connection, or end one.

    def dup2(self, fd: int, fd2: int) -> int:
        fd, fd2 = as_int("fd", fd), as_int("fd2", fd2)
        if fd != fd2 and not self.is_open(fd):  # Before libha forgets how often it has recovered fd2.
            raise failure(EBADF)
        return super().dup2(fd, fd2)

    def _make_ordinary(self, coid: int) -> Optional[_Attached]:
        if coid not in self._by_coid or self._is_recovering(coid):
            return None
        attached = self._leave(coid)
        with contextlib.suppress(OSError):
            self._invoke("ha_detach", coid)
        return attached

    def _attach_again(self, coid: int, attached: _Attached) -> None:
        self._remain(coid, attached)
        self._invoke("ha_attach", coid, self._callback, attached.token, 0)
        for command, limit in attached.limits.items():
            self._invoke("ha_connection_ctrl", coid, command, c_void_p(limit))
        if attached.is_suspended:
            self._invoke("ha_connection_ctrl", coid, HA_RECOVERY_SUSPEND, c_void_p(0))

    def _remain(self, coid: int, attached: Optional[_Attached]) -> None:
        """Undo _leave: the connection did not end."""
        if attached is not None and self._by_coid.setdefault(coid, attached) is attached:
            attached.coids.add(coid)
            self._by_token[attached.token] = attached

    # Which functions libha may call.

    @contextlib.contextmanager
    def _attaching(self, function: RecoveryFunction, handle: object) -> Iterator[_Attached]:
        """A function that libha may call from now on, and no longer if no connection comes to have it."""
        attached = _Attached(self._tokens(), function, handle)
        self._by_token[attached.token] = attached
        try:
            yield attached
        finally:
            if not attached.coids:
                self._by_token.pop(attached.token, None)

    def _entered(self, coid: int, attached: _Attached, target: Optional[StrPath] = None) -> int:
        self._enter(coid, attached)
        self.counts.leads_to(coid, target)
        self._begin(coid)
        return coid

    def _enter(self, coid: int, attached: _Attached) -> None:
        if self._by_coid.get(coid) is not attached:
            self._leave(coid)
        self.counts.begin(coid)
        self._can_unblock()  # What another thread sends again, when its time is over.
        self._by_coid[coid] = attached
        attached.coids.add(coid)
        self._by_token[attached.token] = attached

    def _leave(self, coid: int) -> Optional[_Attached]:
        attached = self._by_coid.pop(coid, None)
        if attached is not None:
            attached.coids.discard(coid)
            if not attached.coids:
                self._by_token.pop(attached.token, None)
                if attached.coids:  # A duplicate has come meanwhile.
                    self._by_token[attached.token] = attached
        return attached

    def _is_recovering(self, coid: int) -> bool:
        return any(coid in attached.coids for attached in self._thread.running)
