"""The kernel calls, by ctypes.

This is the kernel of the backend ``hybrid`` and the lower half of ``native``. What its calls promise is written down in
``ha_qnx.kernel``; the C declarations are in ``ha_qnx.abi``.

Every call that can block releases the GIL. Errors go one way: a result of -1 comes with errno, which is cleared before
the call and read after it in one step with it. Otherwise a signal handler, or what a collection finalises, could run
between them, and leave an errno of its own.
"""

import contextlib
import ctypes
import fcntl
import itertools
import os
import signal
import threading
import time
import weakref
from ctypes import c_char, c_int, c_long, c_size_t, c_void_p
from errno import EBADF, EINTR, EINVAL, ENOENT, ENOTSUP
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from ..abi import record
from ..buffers import (
    INT_MAX,
    INT_MIN,
    UINT_MAX,
    as_address,
    as_int,
    as_uint,
    integer,
    readable,
    readable_parts,
    writable,
    writable_parts,
)
from ..constants import FTYPE_ANY, NTO_CHF_PRIVATE, NTO_COF_CLOEXEC, NTO_COF_DEAD, NTO_SIDE_CHANNEL, SYSMGR_COID
from ..deadlines import arm_again
from ..errors import failure, naming, no_such_name
from ..kernel import BytesLike, Kernel, Name, StrPath, Vector
from ..paths import refuse_names
from ..structures import ClientInfo, Itimer, MessageInfo, SigEvent, TimerStatus
from ..timing import notify_arguments, structure, timeout_arguments
from .libraries import Libraries

# Looked up once, for the paths that every message takes.
_byref = ctypes.byref
# Returns the number that was there before, which is put back after each call of ours: it is the program's.
_set_errno = ctypes.set_errno
# Both without an end: the next of the one clears errno and is what was there before, the next of the other is the errno
# of the moment. zip puts them around a call, and all three are made in C, without a step in Python between them.
_cleared: Iterator[int] = map(_set_errno, itertools.repeat(0))
_starmap = itertools.starmap
_errnos: Iterator[int] = _starmap(ctypes.get_errno, itertools.repeat(()))

# How often, and after how many seconds, to look whether a server in this process has taken note of its client.
_LOOKS, _LOOK_AGAIN = 50, 0.001
# What unblocks a thread on QNX: a signal that does nothing by itself, and that hardly any program uses.
_UNBLOCKING = signal.SIGURG
_BEGUN_AGAIN = frozenset(("MsgReceive", "MsgReceivev", "MsgReceivePulse"))
# These do not block on QNX, and nobody expects EINTR of them; on a host they may have to wait (D126).
_NEVER_INTERRUPTED = frozenset(("ConnectAttach", "ha_ConnectAttach", "ha_ReConnectAttach"))


class _Sizes(Dict[int, object]):
    """Numbers as C's size_t, ready to be passed; those that come again and again are made once."""

    def __missing__(self, number: int) -> object:
        size = c_size_t.from_param(number)
        if number <= 1 << 16:
            self[number] = size
        return size


_sizes = _Sizes()
_statuses = [c_long.from_param(status) for status in range(256)]

# What is small is received in a buffer whose address is known, and copied: ctypes takes longer to find out where a
# buffer of the caller lies.
_SMALL = 1024
# What is sent from other memory than that of bytes is copied into bytes up to this size, for the same reason.
_COPIED = 1 << 14
_BounceBuffer = Tuple[bytearray, object, object]
_bounce_buffers: Dict[int, List[_BounceBuffer]] = {size: [] for size in range(1, _SMALL + 1)}


def _bounce_buffer(size: int) -> _BounceBuffer:
    """A buffer, its address for C, and what keeps it from being resized."""
    buffer = bytearray(size)
    start = c_char.from_buffer(buffer)
    return buffer, c_void_p.from_param(ctypes.addressof(start)), start


_Sender = Tuple[bytearray, List[object], Callable[[], Tuple[int, int, int]], object]


def _sender(send: Any, size: int) -> _Sender:
    """What sends a message and receives a reply of a size, again and again, though by one thread at a time.

    Returns:
        A buffer for the reply; the arguments of the call, the first three of which are yet to be filled in; what makes
        it, and returns errno before it, its result, and errno after it; what keeps the buffer from being resized.
    """
    buffer, address, start = _bounce_buffer(size)
    arguments: List[object] = [None, None, None, address, _sizes[size]]
    calls = zip(_cleared, _starmap(send, itertools.repeat(arguments)), _errnos)
    return buffer, arguments, calls.__next__, start


class _Passed:
    """A buffer for C: its address and its length in bytes, valid as long as this object lives."""

    __slots__ = ("_holder", "address", "length")

    def __init__(self, view: memoryview) -> None:
        self.length = len(view)
        self._holder: object = view
        if not self.length:
            self.address: Optional[int] = None
        elif not view.readonly:
            holder = c_char.from_buffer(view)
            self._holder, self.address = holder, ctypes.addressof(holder)
        else:
            # ctypes lends no address of memory that is read-only, but for bytes.
            data = view.obj if isinstance(view.obj, bytes) and len(view.obj) == self.length else bytes(view)
            self._holder = data
            self.address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value


class _Parts:
    """A vector of buffers for C: its address and its length in parts, valid as long as this object lives."""

    def __init__(self, views: List[memoryview], iov: Any) -> None:
        self._held = [_Passed(view) for view in views]
        self.length = len(views)
        self._array = (iov * self.length)(*((part.address, part.length) for part in self._held))
        self.address = ctypes.addressof(self._array) if self.length else None


class _Timing(threading.local):
    """What is known of the calling thread; another one may get its number when it has ended."""

    # What it blocks in then must not be started again.
    has_armed_timeout = False


class NativeKernel(Kernel):
    """Kernel calls of the system, or of the library for POSIX hosts."""

    def __init__(self, libraries: Libraries) -> None:
        self.libraries = libraries
        self._c = libraries.functions
        model = libraries.model
        self._iov = record("iov", model)
        self._name_record = record("name", model)
        self._rcvid_max, self._status_max, self._offset_max = (
            (1 << 8 * ctypes.sizeof(model.types[name]) - 1) - 1 for name in ("rcvid", "status", "length")
        )
        # Two of them in the form that returns its errno, which needs no look at errno. That form of MsgSend does not
        # tell a negative status from an error.
        fast = ("MsgSend", "MsgReceive_r", "MsgReply_r")
        # Whether the fast functions may be called: what they are passed has the types of this model.
        self._is_fast = (
            model.types["length"] is c_size_t and model.types["rcvid"] is c_int and self._c.keys() >= set(fast)
        )
        functions: List[Any] = [libraries.fast(name) if self._is_fast else None for name in fast]
        self._fast_send, self._fast_receive, self._fast_reply = functions
        self._senders: List[List[_Sender]] = [[] for _size in range(_SMALL + 1)]
        self._names: Dict[Name, Any] = {}
        # One handle for a channel's number, for good: it costs a few bytes, and to destroy it destroys the channel.
        self._dispatches: Dict[int, int] = {}
        # The handles of the paths that are served; links, where there are no handles.
        self._served: Dict[int, Any] = {}
        _follow_forks(self)
        # Connections that somebody else took the number of while it was free, and that were not closed yet.
        self._lost: Set[int] = set()
        self._timing = _Timing()

    # The one way to call.

    def _invoke(self, name: str, *args: Any) -> int:
        """Call a function that tells of a failure by -1 and errno."""
        function = self._c[name]
        while True:
            results: Iterator[int] = _starmap(function, (args,))
            before, result, number = next(zip(_cleared, results, _errnos))
            if number != before:
                _set_errno(before)
            if result != -1 or not number:
                return result  # A status of -1 is as good as any other.
            if number != EINTR or not self._goes_on(name):
                raise self._failure(number)

    def _invoke_for_address(self, name: str, *args: Any) -> int:
        """Call a function that tells of a failure by NULL and errno."""
        addresses: Iterator[Optional[int]] = _starmap(self._c[name], (args,))
        before, address, number = next(zip(_cleared, addresses, _errnos))
        if number != before:
            _set_errno(before)
        if not address:
            raise self._failure(number)
        return address

    def _goes_on(self, name: str) -> bool:
        """Whether a call that a signal interrupted is made again: signal handlers run in the main thread only (D19).

        That is for calls which wait for a message. A message that was sent may have been received, and to send it again
        is for its sender to decide.
        """
        if name in _NEVER_INTERRUPTED or (name == "name_open" and self._opens_names_in_silence()):
            arm_again()
            return True
        if name not in _BEGUN_AGAIN:
            return False
        if self._timing.has_armed_timeout:
            self._timing.has_armed_timeout = False
            return False
        return threading.get_ident() != threading.main_thread().ident

    def _opens_names_in_silence(self) -> bool:
        """Whether name_open asks no server, so that a signal can only have ended a wait for room (D126).

        On QNX, where connecting does not wait, it has ended a message; so it has where a global name service runs.
        """
        return self.libraries.version is not None and os.environ.get("HA_QNX_GNS") != "1"

    def _failure(self, number: int) -> BaseException:
        """The exception for an errno."""
        return failure(number)

    # Channels.

    def ChannelCreate(self, flags: int = 0) -> int:
        return self._invoke("ChannelCreate", as_uint("flags", flags))

    def ChannelDestroy(self, chid: int) -> int:
        return self._invoke("ChannelDestroy", as_int("chid", chid))

    # Connections.

    def ConnectAttach(self, nd: int, pid: int, chid: int, index: int = NTO_SIDE_CHANNEL, flags: int = 0) -> int:
        return self._given(self._invoke("ConnectAttach", *connect_arguments(nd, pid, chid, index, flags)))

    def ConnectDetach(self, coid: int) -> int:
        return self._invoke("ConnectDetach", self._check_lost(as_int("coid", coid)))

    def ConnectServerInfo(self, pid: int, coid: int, info: Optional[MessageInfo] = None) -> int:
        pid = as_int("pid", pid)
        return self._invoke("ConnectServerInfo", pid, as_int("coid", coid), _reference(info))

    def ConnectFlags(self, pid: int, coid: int, mask: int, bits: int) -> int:
        pid = as_int("pid", pid)
        coid = as_int("coid", coid)
        mask, bits = as_uint("mask", mask), as_uint("bits", bits)
        return self._invoke("ConnectFlags", pid, coid, mask, bits)

    def ConnectClientInfo(self, scoid: int, ngroups: int = 0) -> ClientInfo:
        info = ClientInfo()
        scoid = as_int("scoid", scoid)
        self._invoke("ConnectClientInfo", scoid, _byref(info), integer("ngroups", ngroups, 0, INT_MAX))
        return info

    # Sending.

    def MsgSend(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        # The path of almost every message. _send does the rest.
        if type(smsg) is not bytes:
            smsg = readable(smsg)
            if len(smsg) <= _COPIED:
                smsg = bytes(smsg)
        if type(rmsg) is not bytearray:
            rmsg = writable(rmsg)
        if type(coid) is not int:
            coid = as_int("coid", coid)
        if self._is_fast and type(smsg) is bytes and -1 <= coid <= INT_MAX:
            size = len(rmsg)
            if 0 < size <= _SMALL:
                spare = self._senders[size]
                try:
                    sender = spare.pop()
                except IndexError:
                    sender = _sender(self._fast_send, size)
                buffer, arguments, call, _start = sender
                buffer[:] = rmsg
                arguments[0] = coid
                arguments[1] = smsg
                arguments[2] = _sizes[len(smsg)]
                before, status, number = call()
                arguments[1] = None
                rmsg[:] = buffer
                spare.append(sender)
            else:
                address = _byref(c_char.from_buffer(rmsg)) if size else None
                whole = coid, smsg, _sizes[len(smsg)], address, _sizes[size]
                before, status, number = next(zip(_cleared, _starmap(self._fast_send, (whole,)), _errnos))
            if number != before:
                _set_errno(before)
            if status != -1 or not number:
                return status  # A status of -1 is as good as any other.
            raise self._failure(number)
        return self._send("MsgSend", coid, smsg, rmsg)

    def MsgSendnc(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        return self._send("MsgSendnc", coid, smsg, rmsg)

    def MsgSendv(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        return self._send("MsgSendv", coid, siov, riov)

    def MsgSendvnc(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        return self._send("MsgSendvnc", coid, siov, riov)

    def MsgSendsv(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        return self._send("MsgSendsv", coid, smsg, riov)

    def MsgSendsvnc(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        return self._send("MsgSendsvnc", coid, smsg, riov)

    def MsgSendvs(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        return self._send("MsgSendvs", coid, siov, rmsg)

    def MsgSendvsnc(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        return self._send("MsgSendvsnc", coid, siov, rmsg)

    def _send(self, name: str, coid: int, message: Any, reply: Any) -> int:
        """Call a form of MsgSend, whose letters say what is a vector."""
        coid = as_int("coid", coid)
        letters = name[len("MsgSend") :].replace("nc", "")
        sent = self._parts(readable_parts(message)) if letters in ("v", "vs") else _Passed(readable(message))
        taken = self._parts(writable_parts(reply)) if letters in ("v", "sv") else _Passed(writable(reply))
        return self._invoke(name, coid, sent.address, sent.length, taken.address, taken.length)

    def _parts(self, views: List[memoryview]) -> "_Parts":
        return _Parts(views, self._iov)

    def MsgSendPulse(self, coid: int, priority: int, code: int, value: int) -> int:
        return self._invoke("MsgSendPulse", *pulse_arguments(coid, priority, code, value))

    def MsgSendPulsePtr(self, coid: int, priority: int, code: int, value: int) -> int:
        coid, priority, code, _number = pulse_arguments(coid, priority, code, 0)
        value = as_address("value", value)
        if "MsgSendPulsePtr" in self._c:
            return self._invoke("MsgSendPulsePtr", coid, priority, code, value)
        return self.MsgSendPulse(coid, priority, code, c_int(value).value)  # 6.x has addresses of 32 bits only.

    def MsgDeliverEvent(self, rcvid: int, event: SigEvent) -> int:
        return self._invoke("MsgDeliverEvent", self._rcvid(rcvid), _byref(structure("event", event, SigEvent)))

    def MsgRegisterEvent(self, event: SigEvent, coid: int) -> int:
        event, coid = structure("event", event, SigEvent), as_int("coid", coid)
        if "MsgRegisterEvent" in self._c:
            return self._invoke("MsgRegisterEvent", _byref(event), coid)
        if 0 <= coid != SYSMGR_COID and not self.is_open(coid):
            raise failure(EBADF)
        return 0

    def ionotify(self, fd: int, action: int, flags: int, event: Optional[SigEvent] = None) -> int:
        fd = as_int("fd", fd)
        action, conditions, event = notify_arguments(action, flags, event)
        address = None if event is None else _byref(event)
        return self._invoke("ionotify", fd, action, c_int(conditions), address) & UINT_MAX

    def MsgUnregisterEvent(self, event: SigEvent) -> int:
        event = structure("event", event, SigEvent)
        return self._invoke("MsgUnregisterEvent", _byref(event)) if "MsgUnregisterEvent" in self._c else 0

    # Timers.

    def TimerCreate(self, id: int, notify: Optional[SigEvent] = None) -> int:
        event = None if notify is None else _byref(structure("notify", notify, SigEvent))
        return self._invoke("TimerCreate", as_int("id", id), event)

    def TimerSettime(self, id: int, flags: int, itime: Itimer, oitime: Optional[Itimer] = None) -> int:
        id = as_int("id", id)
        flags = ctypes.c_int(integer("flags", flags, INT_MIN, UINT_MAX)).value
        new = _byref(structure("itime", itime, Itimer))
        old = None if oitime is None else _byref(structure("oitime", oitime, Itimer))
        self._invoke("TimerSettime", id, flags, new, old)
        return 0

    def TimerInfo(self, pid: int, id: int, flags: int = 0) -> TimerStatus:
        info = TimerStatus()
        pid, id = as_int("pid", pid), as_int("id", id)
        flags = ctypes.c_int(integer("flags", flags, INT_MIN, UINT_MAX)).value
        self._invoke("TimerInfo", pid, id, flags, _byref(info))
        return info

    def TimerDestroy(self, id: int) -> int:
        self._invoke("TimerDestroy", as_int("id", id))
        return 0

    def TimerTimeout(self, flags: int, ntime: Optional[int], *c_form: Any) -> int:
        clock = time.CLOCK_MONOTONIC
        if c_form:
            clock, flags, ntime = timeout_arguments(flags, ntime, c_form)
        flags = as_uint("flags", flags)
        limit = None if ntime is None else ctypes.c_uint64(integer("ntime", ntime, 0, (1 << 64) - 1))
        signed = ctypes.c_int(flags).value
        ntime_address = None if limit is None else _byref(limit)
        before = self._invoke("TimerTimeout", clock, signed, None, ntime_address, None)
        self._timing.has_armed_timeout = True
        return before

    # Receiving and answering.

    def MsgReceive(self, chid: int, msg: Optional[BytesLike], info: Optional[MessageInfo] = None) -> int:
        if type(msg) is not bytearray:
            msg = writable(msg)
        if self._is_fast and len(msg) and type(chid) is int and -1 <= chid <= INT_MAX:
            record = None if info is None else _reference(info)
            # As in MsgSend, and written out there and here: calls that do it for both take 6 % of a round trip.
            size = len(msg)
            if size <= _SMALL:
                spare = _bounce_buffers[size]
                try:
                    bounce = spare.pop()
                except IndexError:
                    bounce = _bounce_buffer(size)
                buffer, address, _start = bounce
                buffer[:] = msg
            else:
                bounce, address = None, _byref(c_char.from_buffer(msg))
            receive = self._fast_receive
            rcvid: int = receive(chid, address, _sizes[size], record)
            if bounce is not None:
                msg[:] = buffer
                spare.append(bounce)
            if rcvid >= 0:
                return rcvid
            if rcvid != -EINTR or not self._goes_on("MsgReceive"):
                raise self._failure(-rcvid)
        passed = _Passed(writable(msg))
        chid = as_int("chid", chid)
        return self._invoke("MsgReceive", chid, passed.address, passed.length, _reference(info))

    def MsgReceivev(self, chid: int, iov: Optional[Vector], info: Optional[MessageInfo] = None) -> int:
        parts = self._parts(writable_parts(iov))
        chid = as_int("chid", chid)
        return self._invoke("MsgReceivev", chid, parts.address, parts.length, _reference(info))

    def MsgReceivePulse(self, chid: int, pulse: Optional[BytesLike], info: Optional[MessageInfo] = None) -> int:
        room = _Passed(writable(pulse))
        chid = as_int("chid", chid)
        return self._invoke("MsgReceivePulse", chid, room.address, room.length, _reference(info))

    def MsgReply(self, rcvid: int, status: int, msg: Optional[BytesLike] = None) -> int:
        if type(msg) is not bytes:
            msg = readable(msg)
            if len(msg) <= _COPIED:
                msg = bytes(msg)
        if (
            type(msg) is bytes and type(status) is int and 0 <= status < len(_statuses)
            and type(rcvid) is int and -1 <= rcvid <= INT_MAX and self._is_fast
        ):  # fmt: skip
            reply = self._fast_reply
            result = reply(rcvid, _statuses[status], msg, _sizes[len(msg)])
            if result >= 0:
                return 0
            raise self._failure(-result)
        data = _Passed(readable(msg))
        return self._invoke("MsgReply", self._rcvid(rcvid), self._status(status), data.address, data.length)

    def MsgReplyv(self, rcvid: int, status: int, iov: Optional[Vector]) -> int:
        parts = self._parts(readable_parts(iov))
        return self._invoke("MsgReplyv", self._rcvid(rcvid), self._status(status), parts.address, parts.length)

    def MsgError(self, rcvid: int, error: int) -> int:
        return self._invoke("MsgError", self._rcvid(rcvid), as_int("error", error))

    def MsgRead(self, rcvid: int, msg: Optional[BytesLike], offset: int = 0) -> int:
        room = _Passed(writable(msg))
        return self._invoke("MsgRead", self._rcvid(rcvid), room.address, room.length, self._offset(offset))

    def MsgReadv(self, rcvid: int, iov: Optional[Vector], offset: int = 0) -> int:
        parts = self._parts(writable_parts(iov))
        return self._invoke("MsgReadv", self._rcvid(rcvid), parts.address, parts.length, self._offset(offset))

    def MsgWrite(self, rcvid: int, msg: Optional[BytesLike], offset: int = 0) -> int:
        data = _Passed(readable(msg))
        return self._invoke("MsgWrite", self._rcvid(rcvid), data.address, data.length, self._offset(offset))

    def MsgWritev(self, rcvid: int, iov: Optional[Vector], offset: int = 0) -> int:
        parts = self._parts(readable_parts(iov))
        return self._invoke("MsgWritev", self._rcvid(rcvid), parts.address, parts.length, self._offset(offset))

    def MsgInfo(self, rcvid: int) -> MessageInfo:
        info = MessageInfo()
        self._invoke("MsgInfo", self._rcvid(rcvid), _byref(info))
        return info

    def _rcvid(self, rcvid: int) -> int:
        return integer("rcvid", rcvid, -self._rcvid_max - 1, self._rcvid_max)

    def _status(self, status: int) -> int:
        return integer("status", status, -self._status_max - 1, self._status_max)

    def _offset(self, offset: int) -> int:
        return integer("offset", offset, 0, self._offset_max)

    # Names.

    def name_attach(self, path: str, flags: int = 0) -> Name:
        encoded = _encoded_name(path)
        address = self._invoke_for_address("name_attach", None, encoded, as_uint("flags", flags))
        name = Name(path, self._name_record.from_address(address).chid)
        self._names[name] = address
        return name

    def name_detach(self, name: Name, flags: int = 0) -> int:
        if not isinstance(name, Name):
            raise TypeError(f"name_detach takes what name_attach has returned, not {type(name).__name__}")
        flags = as_uint("flags", flags)
        address = self._names.pop(name, None)
        if address is None:
            raise failure(EINVAL)
        try:
            return self._invoke("name_detach", address, flags)
        except OSError:
            self._names[name] = address
            raise

    def name_open(self, path: str, flags: int = 0) -> int:
        encoded, flags = _encoded_name(path), integer("flags", flags, 0, INT_MAX)
        try:
            return self._given(self._invoke("name_open", encoded, flags))
        except FileNotFoundError:
            raise no_such_name(path, _meeting_place() if self.libraries.version else None) from None
        except OSError as error:
            if error.errno == EINVAL and not flags:
                raise OSError(EINVAL, "a name must be relative, and not empty", path) from None
            raise

    def name_close(self, coid: int) -> int:
        return self._invoke("name_close", self._check_lost(as_int("coid", coid)))

    # Paths.

    def resmgr_attach(self, chid: int, path: StrPath, file_type: int = FTYPE_ANY, flags: int = 0) -> int:
        chid, file_type = as_int("chid", chid), as_int("file_type", file_type)
        flags = as_uint("flags", flags)
        encoded = _encoded_path(path)
        if chid < 0:
            raise failure(EINVAL)  # -1 would make QNX create a channel that nobody receives on.
        if "dispatch_create_channel" not in self._c:
            return self._link(chid, encoded, file_type, flags)
        dispatch = self._dispatches.get(chid)
        if dispatch is None:
            made = self._invoke_for_address("dispatch_create_channel", chid, 0)
            dispatch = self._dispatches.setdefault(chid, made)
        id = self._invoke("resmgr_attach", dispatch, None, encoded, file_type, flags, None, None, None)
        self._served[id] = dispatch
        return id

    def _link(self, chid: int, path: bytes, file_type: int, flags: int) -> int:
        """Attach a path where libc makes no handle of a channel, with an id of ours."""
        nothing_yet = object()
        id = next(number for number in itertools.count() if self._served.setdefault(number, nothing_yet) is nothing_yet)
        try:
            self._served[id] = self._invoke("pathmgr_link", path, 0, 0, chid, id, file_type, flags)
        except BaseException:
            del self._served[id]
            raise
        return id

    def resmgr_detach(self, id: int, flags: int = 0) -> int:
        id, flags = as_int("id", id), as_uint("flags", flags)
        handle = self._served.pop(id, None) if isinstance(self._served.get(id), int) else None
        if handle is None:
            raise failure(ENOENT)
        try:
            if "dispatch_create_channel" in self._c:
                return self._invoke("resmgr_detach", handle, id, flags)
            if flags:
                raise failure(EINVAL)
            return self._invoke("close", handle)
        except OSError:
            self._served[id] = handle
            raise

    # Descriptors. As everywhere in Python, they are closed when the process becomes another program.

    def open(self, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        with naming(path):
            return self._given(self._invoke("open", *open_arguments(path, oflag, mode)))

    def close(self, fd: int) -> int:
        return self._invoke("close", self._check_lost(as_int("fd", fd)))

    def dup(self, fd: int) -> int:
        copy = self._given(self._invoke("dup", as_int("fd", fd)))
        self._close_on_exec(copy)
        return copy

    def dup2(self, fd: int, fd2: int) -> int:
        fd, fd2 = as_int("fd", fd), as_int("fd2", fd2)
        copy = self._given(self._invoke("dup2", fd, fd2))
        if fd != fd2:
            self._close_on_exec(copy)
        return copy

    def _close_on_exec(self, fd: int) -> None:
        try:
            self._invoke("ConnectFlags", 0, fd, NTO_COF_CLOEXEC, NTO_COF_CLOEXEC)
        except OSError:
            os.set_inheritable(fd, False)  # A descriptor of the host.

    # What recovery needs.

    def is_open(self, number: int) -> bool:
        number = as_int("coid", number)
        if self.libraries.holds:  # It alone knows whether what has the number is what was opened there (D17).
            with contextlib.suppress(OSError):
                return 0 <= number != SYSMGR_COID and self._invoke("MsgRegisterEvent", _byref(SigEvent()), number) == 0
            return False
        if self._state_of(number) is not None:
            return True
        if not 0 <= number < NTO_SIDE_CHANNEL:
            return False
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            return False
        return True

    def _state_of(self, coid: int) -> Optional[int]:
        """The flags of a connection's server side; None if there is no such connection."""
        info = MessageInfo()
        with contextlib.suppress(OSError):
            if self._invoke("ConnectServerInfo", 0, coid, _byref(info)) == coid:
                return int(info.flags)
        return None

    def open_at(self, fd: int, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        fd = as_int("fd", fd)
        arguments = open_arguments(path, oflag, mode)
        if fd & NTO_SIDE_CHANNEL:
            raise failure(EBADF)  # open gives descriptors only.
        if self.libraries.holds:
            return self._invoke("ha_reopen", fd, *arguments)
        return self._put_at(fd, lambda: self._invoke("open", *arguments))

    def attach_at(self, coid: int, nd: int, pid: int, chid: int, flags: int) -> int:
        coid = as_int("coid", coid)
        nd, pid, chid, index, flags = connect_arguments(nd, pid, chid, coid, flags)
        if self.libraries.holds:
            return self._invoke("ha_ReConnectAttach", coid, nd, pid, chid, index, flags)
        if not coid & NTO_SIDE_CHANNEL:
            ahead = self._ahead(lambda: self._invoke("ConnectAttach", nd, pid, chid, NTO_SIDE_CHANNEL, flags))
        else:
            ahead = self._ahead(
                lambda: self._invoke("ConnectAttach", nd, pid, chid, index, flags), meets=pid in (0, os.getpid())
            )
        return self._put_at(coid, lambda: self._invoke("ConnectAttach", nd, pid, chid, index, flags), ahead)

    def unblock(self, thread: int) -> int:
        thread = integer("thread", thread, 0, (1 << 64) - 1)
        if self.libraries.unblock is not None:
            self.libraries.unblock(thread)
        elif self._can_unblock():
            signal.pthread_kill(thread, _UNBLOCKING)
        else:
            raise OSError(ENOTSUP, "a signal has to end the wait of a thread, and only the main thread can set that up")
        return 0

    def _can_unblock(self) -> bool:
        """Whether the wait of a thread can be ended; the main thread sees to it that it can."""
        return self.libraries.unblock is not None or _is_caught(_UNBLOCKING)

    def _put_at(self, coid: int, make: Callable[[], int], ahead: Optional["_Ahead"] = None) -> int:
        """End a connection and make another one under its number, where nothing holds it meanwhile, as on QNX.

        The number is free for a moment between the two. (dup2 would not keep it, either: it ends what it puts the copy
        in place of, and then connects at its index, and the new server would be told of a copy.) So what can fail is
        tried before, if ``ahead`` can do that: then a number whose server has not come back yet stays taken. Otherwise
        a connection to a channel of our own keeps the number, dead, if nothing can be made (D6).

        The system gives the lowest number that is free. For descriptors, it begins where it is told to; for side
        channels, and in open, those below are filled meanwhile.
        """
        state = self._state_of(coid)
        if state is None and self.is_open(coid):
            raise failure(EBADF)  # It is no connection any more (D17).
        held: List[int] = []
        try:
            error = ahead(held) if ahead is not None else None
            if error is not None and state is not None and state & NTO_COF_DEAD:
                raise error
            return self._put_in_place(
                coid, state, make, error, held, fills=ahead is None or bool(coid & NTO_SIDE_CHANNEL)
            )
        finally:
            for number in held:
                self._invoke("ConnectDetach", number)

    def _put_in_place(
        self,
        coid: int,
        state: Optional[int],
        make: Callable[[], int],
        error: Optional[OSError],
        held: List[int],
        fills: bool,
    ) -> int:
        filler = self._invoke("ChannelCreate", NTO_CHF_PRIVATE)
        try:
            if fills:
                self._fill_below(coid, filler, held)
            if state is not None:
                self._invoke("ConnectDetach", coid)
            try:
                if error is not None:
                    raise error
                made = make()
            except BaseException:
                kept = self._invoke("ConnectAttach", 0, 0, filler, coid, 0)
                if kept == coid:
                    self._keep_through_exec(kept, state)
                else:
                    self._lose(coid, kept)
                raise
            if made != coid:
                self._lose(coid, made)
                raise failure(EBADF)
            self._keep_through_exec(made, state)
            return made
        finally:
            self._invoke("ChannelDestroy", filler)

    def _lose(self, coid: int, made: int) -> None:
        """Somebody else has the number by now: who has lost it must not close it."""
        self._lost.add(coid)
        try:
            self._invoke("ConnectDetach", made)
        except OSError:
            os.close(made)  # A file of the host.

    def _given(self, number: int) -> int:
        self._lost.discard(number)
        return number

    def _check_lost(self, number: int) -> int:
        """Refuse, once, to end what was lost to somebody else."""
        if number in self._lost:
            self._lost.discard(number)
            raise failure(EBADF)
        return number

    def _keep_through_exec(self, coid: int, state: Optional[int]) -> None:
        """Leave a connection open to another program if that before it, with these flags, was left open to it."""
        if state is not None and not state & NTO_COF_CLOEXEC:
            with contextlib.suppress(OSError):  # It is a descriptor of the host by now.
                self._invoke("ConnectFlags", 0, coid, NTO_COF_CLOEXEC, 0)

    def _fill_below(self, coid: int, filler: int, held: List[int]) -> None:
        """Take all free numbers below one."""
        while True:
            number = self._invoke("ConnectAttach", 0, 0, filler, coid & NTO_SIDE_CHANNEL, 0)
            if number >= coid:
                break
            held.append(number)
        self._invoke("ConnectDetach", number)

    def _ahead(self, connect: Callable[[], int], meets: bool = False) -> "_Ahead":
        """Connect once ahead, to find out whether that is possible.

        With ``meets``, wait for a server in this process to number its client. It may take any number that is free,
        ours included, for a client that comes just then.
        """

        def try_it(held: List[int]) -> Optional[OSError]:
            try:
                held.append(connect())
            except OSError as error:
                return error
            info = MessageInfo()
            for _look in range(_LOOKS if meets else 0):
                self._invoke("ConnectServerInfo", 0, held[-1], _byref(info))
                if info.scoid:
                    break
                time.sleep(_LOOK_AGAIN)
            return None

        return try_it


# Stores the number of the connection that it has made, or returns why there is none.
_Ahead = Callable[[List[int]], Optional[OSError]]


def connect_arguments(nd: int, pid: int, chid: int, index: int, flags: int) -> Tuple[int, int, int, int, int]:
    """The arguments of ConnectAttach, whose index and flags are sets of bits, whatever their sign in C."""
    return (
        as_uint("nd", nd),
        as_int("pid", pid),
        as_int("chid", chid),
        integer("index", index, INT_MIN, UINT_MAX) & UINT_MAX,
        ctypes.c_int(integer("flags", flags, INT_MIN, UINT_MAX)).value,
    )


def pulse_arguments(coid: int, priority: int, code: int, value: int) -> Tuple[int, int, int, int]:
    named = (("coid", coid), ("priority", priority), ("code", code), ("value", value))
    coid, priority, code, value = (as_int(name, number) for name, number in named)
    return coid, priority, code, value


def open_arguments(path: StrPath, oflag: int, mode: int) -> Tuple[bytes, int, ctypes.c_int]:
    """The arguments of open; the mode is variadic, so it carries its type itself. Names are refused."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("a path must not contain a NUL")
    refuse_names(path)
    oflag = integer("oflag", oflag, 0, INT_MAX) | os.O_CLOEXEC
    return encoded, oflag, ctypes.c_int(integer("mode", mode, 0, 0o7777))


def _meeting_place() -> str:
    """Where processes find each other, on a library for POSIX hosts."""
    from ..fallback.runtime import directory_path

    return directory_path()


def _encoded_name(path: object) -> bytes:
    """A name for C, which is told what is wrong with it there.

    Raises:
        TypeError: it is no str.
        OSError: EINVAL, None or a NUL in it.
    """
    if path is not None and not isinstance(path, str):
        raise TypeError(f"a name must be a str, not {type(path).__name__}")
    if path is None or "\0" in path:
        raise failure(EINVAL)
    return path.encode()


def _encoded_path(path: StrPath) -> bytes:
    """A path that is to be attached, for C.

    Raises:
        TypeError: it is no path.
        OSError: EINVAL, a NUL in it, or it is where names are.
    """
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise OSError(EINVAL, "a path must not contain a NUL", os.fsdecode(path))
    refuse_names(path)
    return encoded


def _follow_forks(kernel: NativeKernel) -> None:
    """Forget, in forked children, the paths that their parent serves."""
    reference = weakref.ref(kernel)

    def forget() -> None:
        target = reference()
        if target is not None:
            target._served.clear()

    os.register_at_fork(after_in_child=forget)


def _is_caught(number: int) -> bool:
    """Whether a signal has a handler, so that it ends calls; in the main thread, it is given one that does nothing."""
    if signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN):
        if threading.current_thread() is not threading.main_thread():
            return False
        signal.signal(number, lambda _number, _frame: None)
    return True


def _reference(record: object) -> Any:
    """A structure by its address; None is NULL.

    Raises:
        TypeError: it is something else than the structure that belongs there.
    """
    if record is None:
        return None
    if not isinstance(record, MessageInfo):
        raise TypeError(f"info must be a MessageInfo, not {type(record).__name__}")
    return _byref(record)
