"""QNX's kernel calls on POSIX sockets and pipes.

The contract of each call is written down once, in ``ha_qnx.kernel.Kernel``; what is said here is how it is done.
"""

import contextlib
import ctypes
import itertools
import os
import struct
import sys
import time
import weakref
from errno import (
    EBADF,
    EBUSY,
    EINTR,
    EINVAL,
    ENOENT,
    ENOSYS,
    EPERM,
    ESRCH,
    ETIMEDOUT,
)  # fmt: skip
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

from ha_qnx import iomessages
from ha_qnx.buffers import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    UINT_MAX,
    Buffers,
    as_int,
    as_long,
    as_uint,
    integer,
    readable,
    readable_parts,
    writable,
    writable_parts,
)
from ha_qnx.constants import (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    ENOREMOTE,
    ERESTART,
    FTYPE_ANY,
    NAME_FLAG_ATTACH_GLOBAL,
    NAME_FLAG_DETACH_SAVEDPP,
    NTO_CHF_COID_DISCONNECT,
    NTO_CHF_DISCONNECT,
    NTO_CHF_FIXED_PRIORITY,
    NTO_CHF_NET_MSG,
    NTO_CHF_PRIVATE,
    NTO_CHF_REPLY_LEN,
    NTO_CHF_SENDER_LEN,
    NTO_CHF_THREAD_DEATH,
    NTO_CHF_UNBLOCK,
    NTO_COF_CLOEXEC,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_RECEIVE,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    PULSE_CODE_THREADDEATH,
    RESMGR_FLAG_AFTER,
    RESMGR_FLAG_BEFORE,
    RESMGR_FLAG_DIR,
    RESMGR_FLAG_FTYPEALL,
    RESMGR_FLAG_FTYPEONLY,
    RESMGR_FLAG_OPAQUE,
    RESMGR_FLAG_SELF,
    SYSMGR_COID,
    TIMER_ABSTIME,
)
from ha_qnx.errors import failure, leads_upwards
from ha_qnx.kernel import BytesLike, Kernel, Name, StrPath, Vector
from ha_qnx.paths import refuse_names
from ha_qnx.structures import ClientInfo, MessageInfo
from ha_qnx.timing import timeout_arguments

from . import host, wire
from .channels import Channel
from .connections import Connection, Lane
from .door import peer_groups
from .event_calls import EventCalls
from .exchange import Exchange, announce_copy, exchange, exchange_in_window
from .forking import Held, all_of, forks_wait
from .keeper import Keeper
from .numbers import Numbers, Slots
from .opening import Opener
from .paths import attach as attach_path
from .runtime import ChannelAddress, Claim, Runtime, plain_name, wire_directory
from .server_lane import IN_WINDOW, Client, Rcvids, ServerLane
from .table import ConnectionTable, is_host_descriptor
from .threads import Threads, Timeout, ends_timeout, get_ident
from .timer_calls import TimerCalls, check_own_pid
from .timers import Timers

_KNOWN_CHANNEL_FLAGS = (
    NTO_CHF_FIXED_PRIORITY | NTO_CHF_UNBLOCK | NTO_CHF_THREAD_DEATH | NTO_CHF_DISCONNECT | NTO_CHF_SENDER_LEN
    | NTO_CHF_COID_DISCONNECT | NTO_CHF_REPLY_LEN | NTO_CHF_PRIVATE
)  # fmt: skip
_DEATH_FLAGS = NTO_CHF_COID_DISCONNECT | NTO_CHF_THREAD_DEATH
_KNOWN_CONNECTION_FLAGS = NTO_COF_CLOEXEC | NTO_COF_NOSHARE
_KNOWN_TIMEOUT_FLAGS = NTO_TIMEOUT_SEND | NTO_TIMEOUT_RECEIVE | NTO_TIMEOUT_REPLY | TIMER_ABSTIME
_KNOWN_PATH_FLAGS = (
    RESMGR_FLAG_BEFORE | RESMGR_FLAG_AFTER | RESMGR_FLAG_OPAQUE | RESMGR_FLAG_FTYPEONLY | RESMGR_FLAG_FTYPEALL
    | RESMGR_FLAG_DIR | RESMGR_FLAG_SELF
)  # fmt: skip
_ANY_FILE_TYPE = -1

# Looked up once, for the two paths that every message takes.
_MESSAGE, _REPLY, _REPLY_HEADER = wire.MESSAGE, wire.REPLY, wire.REPLY_HEADER
_INLINE_SEND, _INLINE_REPLY, _INLINE_ROOM = wire.INLINE_SEND, wire.INLINE_REPLY, wire.INLINE_ROOM
_pack_message = wire.message.pack
_pack_plain_reply, _unpack_plain_reply = wire.plain_reply.pack, wire.plain_reply.unpack_from
_lseek, _now = os.lseek, time.monotonic_ns
_FRAME_SIZE = ctypes.c_size_t.from_param(wire.FRAME_MAX)
_getsignal, _SIGPIPE, _IGNORED = host.getsignal, host.SIGPIPE, host.IGNORED


class SocketKernel(TimerCalls, EventCalls, Kernel):
    """The kernel calls of one process."""

    def __init__(self) -> None:
        self._start()
        _fork_hooks(self)

    def _start(self) -> None:
        self._runtime_directory: Optional[Runtime] = None
        slots = Slots()
        self._pid = os.getpid()
        self._held = Held()
        self._threads = Threads()
        self._threads.on_exit = self._thread_ended
        self._local, self._timeouts = self._threads.local, self._threads.timeouts
        self._rcvids = Rcvids()
        self._lane_by_rcvid = self._rcvids.lanes
        self._channels: Numbers[Channel] = Numbers(slots, 0)
        self._channel_by_id = self._channels.entries
        self._scoids: Numbers[Client] = Numbers(slots, NTO_SIDE_CHANNEL)
        self._table = ConnectionTable(slots, self._channels.entries, self._runtime, self._threads)
        self._connections = self._table.entries
        self._claims: Dict[Name, Claim] = {}
        self._attached: Dict[int, Claim] = {}
        self._timers = Timers(self._table)
        self._table.before_change = self._timers.before_change
        self._keeper = Keeper(self._runtime, self._table.lock, self._channel_by_id, (self._claims, self._attached))
        self._opener = Opener(self._table, self._paths, self._send)

    def _runtime(self) -> Runtime:
        if self._runtime_directory is None:
            self._runtime_directory = Runtime()
        return self._runtime_directory

    def _paths(self) -> Optional[str]:
        """The room of paths. It is not made for somebody who only opens files of the host."""
        if self._runtime_directory is None and not os.path.isdir(os.path.join(wire_directory(), "paths")):
            return None
        return self._runtime().paths

    # Channels.

    @ends_timeout
    def ChannelCreate(self, flags: int = 0) -> int:
        flags = as_uint("flags", flags)
        if flags & NTO_CHF_NET_MSG:
            raise failure(EPERM)
        if flags & ~_KNOWN_CHANNEL_FLAGS:
            raise failure(EINVAL)
        with self._table.lock:
            if flags & _DEATH_FLAGS and any(c.flags & _DEATH_FLAGS for c in self._channels.entries.values()):
                raise failure(EBUSY)
            chid = self._channels.reserve()
            try:
                channel = self._open_channel(chid, flags)
            except BaseException:
                self._channels.release(chid)
                raise
            self._channels.entries[chid] = channel
            self._table.listen_by(channel)
            return chid

    def _open_channel(self, chid: int, flags: int) -> Channel:
        address = ChannelAddress(os.getpid(), chid, os.urandom(8).hex())
        listener = entry = None
        if not flags & NTO_CHF_PRIVATE:
            runtime = self._runtime()
            runtime.enter()
            runtime.remove_stale_channels()
            listener, entry = runtime.listen(address)
        try:
            look = self._keeper.look
            common = self._rcvids, self._scoids, self._threads, self._table.inlets
            return Channel(address, flags, listener, entry, look, *common)
        except BaseException:
            if listener is not None:
                listener.close()
                self._runtime().remove_channel(address)
            raise

    @ends_timeout
    def ChannelDestroy(self, chid: int) -> int:
        chid = as_int("chid", chid)
        with self._table.lock:
            channel = self._channels.entries.pop(chid, None)
            if channel is None:
                raise failure(EINVAL)
            if channel.flags & NTO_CHF_PRIVATE == 0:
                self._runtime().remove_channel(channel.address)
            channel.destroy()
            self._table.say_destroyed(channel)
            if channel.home is not None:
                self._timers.leave(channel.home)
            self._channels.release(chid)
        return 0

    def _thread_ended(self, tid: int) -> None:
        if not sys.is_finalizing():
            most = max(1, len(self._threads.known()))
            for connection in list(self._connections.values()):
                connection.trim(most)
        for channel in list(self._channels.entries.values()):
            if channel.flags & NTO_CHF_THREAD_DEATH:
                channel.queue_pulse(PULSE_CODE_THREADDEATH, tid)

    # Connections.

    @ends_timeout
    def ConnectAttach(self, nd: int, pid: int, chid: int, index: int = NTO_SIDE_CHANNEL, flags: int = 0) -> int:
        address = self._address(nd, pid, chid)
        index = integer("index", index, INT_MIN, UINT_MAX)
        return self._table.attach(address, index, self._connection_flags(flags)).coid

    def attach_at(self, coid: int, nd: int, pid: int, chid: int, flags: int) -> int:
        address = self._address(nd, pid, chid)
        coid = as_int("coid", coid)
        return self._table.attach_at(coid, address, self._connection_flags(flags)).coid

    @staticmethod
    def _address(nd: int, pid: int, chid: int) -> ChannelAddress:
        nd = as_uint("nd", nd)
        pid = as_int("pid", pid)
        chid = as_int("chid", chid)
        if nd:
            raise failure(ENOREMOTE)
        return ChannelAddress(pid or os.getpid(), chid)

    @staticmethod
    def _connection_flags(flags: int) -> int:
        flags = integer("flags", flags, INT_MIN, UINT_MAX)
        if flags & ~_KNOWN_CONNECTION_FLAGS:
            raise failure(EINVAL)
        return flags

    @ends_timeout
    def ConnectDetach(self, coid: int) -> int:
        coid = as_int("coid", coid)
        if coid == SYSMGR_COID:
            raise failure(EPERM)
        client = self._scoids.entries.get(coid)
        if client is not None:
            if not client.channel.release_client(coid):
                raise failure(EINVAL)
            return 0
        try:
            self._table.detach(coid)
        except OSError as error:
            raise failure(EINVAL if error.errno == EBADF else error.errno or EINVAL) from None
        return 0

    @ends_timeout
    def ConnectServerInfo(self, pid: int, coid: int, info: Optional[MessageInfo] = None) -> int:
        coid = as_int("coid", coid)
        _check_info(info)
        check_own_pid(pid)
        found = self._table.describe_from(coid, with_dead=info is not None)
        if info is not None:
            ctypes.pointer(info)[0] = found
        return int(found.coid)

    @ends_timeout
    def ConnectFlags(self, pid: int, coid: int, mask: int, bits: int) -> int:
        coid = as_int("coid", coid)
        mask = as_uint("mask", mask)
        bits = as_uint("bits", bits)
        check_own_pid(pid)
        with self._table.lock:
            connection = self._table.get(coid)
            mask &= NTO_COF_CLOEXEC  # Only that changes; what else there is, is ignored (B71).
            before = connection.flags_now()
            connection.flags = before & ~mask | bits & mask
            if mask and connection.cookie:
                os.set_inheritable(coid, not connection.flags & NTO_COF_CLOEXEC)
                self._table.leave_word()
            return before

    @ends_timeout
    def ConnectClientInfo(self, scoid: int, ngroups: int = 0) -> ClientInfo:
        scoid = as_int("scoid", scoid)
        ngroups = integer("ngroups", ngroups, 0, INT_MAX)
        info = ClientInfo()
        cred = info.cred
        if scoid == -1:
            info.pid = os.getpid()
            cred.ruid, cred.euid, cred.suid = os.getresuid() if hasattr(os, "getresuid") else (os.getuid(),) * 3
            cred.rgid, cred.egid, cred.sgid = os.getresgid() if hasattr(os, "getresgid") else (os.getgid(),) * 3
            groups: Sequence[int] = os.getgroups()
        else:
            client = self._scoids.entries.get(scoid)
            if client is None:
                raise failure(EINVAL)
            client.channel.look_for(client)
            info.pid, uid, gid = client.credentials
            cred.ruid = cred.euid = cred.suid = uid
            cred.rgid = cred.egid = cred.sgid = gid
            groups = peer_groups(client.sock)
        cred.ngroups = len(groups)
        for i, group in enumerate(groups[: min(ngroups, len(cred.grouplist))]):
            cred.grouplist[i] = group
        with contextlib.suppress(OSError):
            info.sid = os.getsid(info.pid)
        return info

    # Sending.

    def MsgSend(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        # The path of almost every message: it fits a frame, a lane is idle, nothing is armed. _send does the rest.
        if type(smsg) is not bytes:
            smsg = readable(smsg)
        if type(rmsg) is not bytearray:
            rmsg = writable(rmsg)
        if type(coid) is not int:
            coid = as_int("coid", coid)
        if self._timeouts or _getsignal(_SIGPIPE) is not _IGNORED:
            return self._send(coid, [readable(smsg)], [writable(rmsg)])
        size, room = len(smsg), len(rmsg)
        if size > _INLINE_SEND or room > _INLINE_ROOM:
            return self._send_large(coid, smsg, rmsg)
        try:
            connection = self._connections[coid]
            if connection.cookie and _lseek(coid, 0, 1) != connection.cookie:
                raise failure(EBADF)
            lane = connection.idle.pop()
        except (KeyError, IndexError, OSError):
            return self._send(coid, [readable(smsg)], [writable(rmsg)])
        holds_lane = True
        try:
            thread = self._local.thread
            write = lane.write
            try:
                write(_pack_message(_MESSAGE, thread.priority, thread.tid, size, room, _now()) + smsg)
            except BrokenPipeError:
                raise failure(EBADF) from None
            thread.sends_on = lane
            buffer = lane.buffer
            count: Optional[int]
            if thread.is_main:
                buffer[0] = 0  # So that _finish can tell whether a reply has come when a signal handler raises.
                if connection.reads_are_restarted:
                    holds_lane = False
                    return self._finish(connection, lane, rmsg, coid, smsg, None, None)
                try:
                    count = lane.c_read(lane.read_fd, lane.address, _FRAME_SIZE)
                except BaseException as error:
                    holds_lane = False
                    return self._finish(connection, lane, rmsg, coid, smsg, -EINTR, error)
                if count < 0:  # There is no other way to fail, unless the program has closed what is not its own.
                    count = -EINTR if host.is_still(lane.read_fd, lane.read_inode) else -EBADF
            else:
                read_into = lane.read_into
                count = read_into(buffer)
            kind, status, length = _unpack_plain_reply(buffer)
            if kind != _REPLY or count != _REPLY_HEADER + length or length > room:
                holds_lane = False
                return self._finish(connection, lane, rmsg, coid, smsg, count, None)
            if length:
                rmsg[:length] = buffer[_REPLY_HEADER:count]
            holds_lane = False
            thread.sends_on = None
            if lane.is_interrupted:
                connection.release(lane)
            else:
                connection.idle.append(lane)
            return status  # type: ignore[no-any-return]  # unpack_from is untyped
        except BaseException:
            if holds_lane:  # The server hears that nobody waits any more.
                self._local.thread.sends_on = None
                connection.discard(lane)
            raise

    def _send_large(self, coid: int, smsg: "bytes | memoryview", rmsg: "bytearray | memoryview") -> int:
        """MsgSend of what needs a window, when nothing is armed."""
        connection = self._connection(as_int("coid", coid))
        try:
            lane, window = connection.idle_window(wire.reply_area(len(smsg)) + len(rmsg))
        except IndexError:
            return self._send(coid, [readable(smsg)], [writable(rmsg)])
        with memoryview(rmsg) as sink:
            number, status = exchange_in_window(connection, lane, window, self._local.thread, smsg, sink)
            if number == ERESTART:
                return self._send(coid, [memoryview(smsg)], [sink])
        if number:
            raise failure(number)
        return status

    def _finish(
        self, connection: Connection, lane: Lane, rmsg: BytesLike, coid: int, smsg: BytesLike, count: Optional[int],
        raised: Optional[BaseException],
    ) -> int:  # fmt: skip
        """Go on with an exchange that turned out to be unusual after its message was sent."""
        thread = self._local.thread
        with memoryview(rmsg) as sink:
            started = Exchange(connection, lane, thread, [sink], memoryview(smsg).nbytes)
            try:
                number, status = started.complete(None, count, raised)
            finally:
                thread.sends_on = None
            if number == ERESTART:
                return self._send(coid, [memoryview(smsg)], [sink])
        if number:
            raise failure(number)
        return status

    def _send(self, coid: int, sources: Buffers, sinks: Buffers) -> int:
        coid = as_int("coid", coid)
        try:
            connection = self._connection(coid)
        finally:
            timeout = self._threads.take_timeout()
        while True:
            number, status = exchange(connection, self._local.thread, sources, sinks, timeout)
            if not number:
                return status
            if number != ERESTART:
                raise failure(number)
            connection = self._connection(coid)

    def _connection(self, coid: int) -> Connection:
        if not self._table.is_ours(coid) and is_host_descriptor(coid):
            raise failure(ENOSYS)  # An ordinary file answers no message of ours (D32).
        return self._table.get(coid)

    def MsgSendv(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        return self._send(coid, readable_parts(siov), writable_parts(riov))

    def MsgSendsv(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        return self._send(coid, [readable(smsg)], writable_parts(riov))

    def MsgSendvs(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        return self._send(coid, readable_parts(siov), [writable(rmsg)])

    # Python has no cancellation of threads, so the forms that are no cancellation points do not differ (B97).
    MsgSendnc = MsgSend
    MsgSendvnc = MsgSendv
    MsgSendsvnc = MsgSendsv
    MsgSendvsnc = MsgSendvs

    @ends_timeout
    def TimerTimeout(self, flags: int, ntime: Optional[int], *c_form: Any) -> int:
        if c_form:
            clock, flags, ntime = timeout_arguments(flags, ntime, c_form)
            if clock != CLOCK_MONOTONIC and ntime and as_uint("flags", flags) & TIMER_ABSTIME:
                ntime = max(1, ntime - time.clock_gettime_ns(CLOCK_REALTIME) + time.monotonic_ns())
        flags = as_uint("flags", flags)
        if ntime is not None:
            ntime = integer("ntime", ntime, 0, (1 << 64) - 1)
        if flags & ~_KNOWN_TIMEOUT_FLAGS:
            raise failure(EINVAL)
        return self._threads.arm(Timeout(flags, ntime) if flags & ~TIMER_ABSTIME else None)

    # Receiving and answering.

    def MsgReceive(self, chid: int, msg: Optional[BytesLike], info: Optional[MessageInfo] = None) -> int:
        sink = msg if type(msg) is bytearray else writable(msg)
        if info is not None:
            _check_info(info)
        channel = self._channel_by_id.get(chid)
        if channel is None or type(chid) is not int:
            channel = self._channel(chid)
        return channel.receive(sink, info)

    def MsgReceivev(self, chid: int, iov: Optional[Vector], info: Optional[MessageInfo] = None) -> int:
        parts = writable_parts(iov)
        _check_info(info)
        return self._channel(chid).receive_parts(parts, info)

    def MsgReceivePulse(self, chid: int, pulse: Optional[BytesLike], info: Optional[MessageInfo] = None) -> int:
        sink = writable(pulse)
        _check_info(info)
        return self._channel(chid).receive_pulse(sink)

    def _channel(self, chid: int) -> Channel:
        channel = self._channel_by_id.get(as_int("chid", chid))
        if channel is None:
            self._threads.take_timeout()
            raise failure(ESRCH)
        return channel

    def MsgReply(self, rcvid: int, status: int, msg: Optional[BytesLike] = None) -> int:
        if type(msg) is not bytes:
            msg = readable(msg)
        lane = self._lane_by_rcvid.get(rcvid)
        if lane is None or type(rcvid) is not int or _getsignal(_SIGPIPE) is not _IGNORED:
            return self._reply(rcvid, status, [readable(msg)])
        size = len(msg)
        try:
            frame = _pack_plain_reply(_REPLY, status, size)
        except struct.error:
            return self._reply(rcvid, status, [readable(msg)])  # It says what is wrong with the status.
        unusual = lane.unusual
        if unusual or size > lane.room or size > _INLINE_REPLY:
            if unusual != IN_WINDOW or not lane.reply_in_window(rcvid, frame, msg):
                return self._reply(rcvid, status, [readable(msg)])
            return 0
        frame += msg
        if self._lane_by_rcvid.pop(rcvid, None) is None:
            raise failure(ESRCH)  # Another thread has answered it.
        lane.rcvid = 0
        if lane.unusual:  # Its client wants to be freed, as another thread has just heard.
            with lane.lock:
                lane.forget()
        lane.idle = True
        write = lane.write
        try:
            if write(frame):
                return 0
        except BrokenPipeError:
            pass
        if lane.client_lost():
            return 0
        raise failure(ESRCH)

    def _reply(self, rcvid: int, status: int, sources: Buffers) -> int:
        status = as_long("status", status)
        with self._answering(rcvid) as lane:
            rest = lane.reply(status, sources)
        return self._complete_answer(lane, rest)

    def MsgReplyv(self, rcvid: int, status: int, iov: Optional[Vector]) -> int:
        return self._reply(rcvid, status, readable_parts(iov))

    def MsgError(self, rcvid: int, error: int) -> int:
        error = as_int("error", error)
        with self._answering(rcvid) as lane:
            rest = lane.reply_error(error)
        return self._complete_answer(lane, rest)

    def _complete_answer(self, lane: ServerLane, rest: bytes) -> int:
        if rest and not lane.send_rest(rest):
            self._threads.take_timeout()
            raise failure(ESRCH)
        return 0

    @contextlib.contextmanager
    def _looking_at(self, rcvid: int) -> Iterator[ServerLane]:
        """The lane of a message that waits for an answer, once its client was heard, which may want to be freed.

        Raises:
            OSError: ESRCH, there is no such message, or no longer (B150, B153).
        """
        with self._answering(rcvid) as lane:
            lane.hear_client()
            if lane.rcvid != rcvid:
                raise failure(ESRCH)
            yield lane

    @contextlib.contextmanager
    def _answering(self, rcvid: int) -> Iterator[ServerLane]:
        """The lane of a message that waits for an answer, kept as it is meanwhile.

        Raises:
            OSError: ESRCH, there is no such message.
        """
        try:
            lane = self._lane_by_rcvid.get(as_long("rcvid", rcvid))
            if lane is None:
                raise failure(ESRCH)
            with lane.lock:
                if lane.rcvid != rcvid:
                    raise failure(ESRCH)
                yield lane
        except OSError:
            self._threads.take_timeout()  # As _ends_timeout, for calls that have no time to spare.
            raise

    def MsgRead(self, rcvid: int, msg: Optional[BytesLike], offset: int = 0) -> int:
        return self._read(rcvid, [writable(msg)], offset)

    def MsgReadv(self, rcvid: int, iov: Optional[Vector], offset: int = 0) -> int:
        return self._read(rcvid, writable_parts(iov), offset)

    def _read(self, rcvid: int, sinks: Buffers, offset: int) -> int:
        start = offset = integer("offset", offset, 0, LONG_MAX)
        with self._looking_at(rcvid) as lane:
            for sink in sinks:
                offset += lane.read_message(offset, sink)
            lane.received = lane.sent  # What MsgInfo tells from now on (B154).
        return offset - start

    def MsgWrite(self, rcvid: int, msg: Optional[BytesLike], offset: int = 0) -> int:
        return self._write_reply(rcvid, [readable(msg)], offset)

    def MsgWritev(self, rcvid: int, iov: Optional[Vector], offset: int = 0) -> int:
        return self._write_reply(rcvid, readable_parts(iov), offset)

    def _write_reply(self, rcvid: int, sources: Buffers, offset: int) -> int:
        start = offset = integer("offset", offset, 0, LONG_MAX)
        with self._looking_at(rcvid) as lane:
            for source in sources:
                offset += lane.write_reply(offset, source)
            lane.received = lane.sent  # As for MsgRead.
        return offset - start

    def MsgInfo(self, rcvid: int) -> MessageInfo:
        info = MessageInfo()
        with self._looking_at(rcvid) as lane:
            lane.describe(info)
        return info

    # Names.

    def name_attach(self, path: str, flags: int = 0) -> Name:
        plain = plain_name(path)
        self._check_name_flags(path, flags)
        if leads_upwards(plain):
            raise OSError(EINVAL, "a name must not contain '..'", path)
        with self._table.lock:
            channel_flags = NTO_CHF_DISCONNECT | NTO_CHF_UNBLOCK
            if not any(channel.flags & _DEATH_FLAGS for channel in self._channels.entries.values()):
                channel_flags |= NTO_CHF_COID_DISCONNECT
            chid = self.ChannelCreate(channel_flags)
            try:
                claim = self._runtime().claim_name(plain, self._channels.entries[chid].address)
            except BaseException:
                self.ChannelDestroy(chid)
                raise
            name = Name(path, chid)
            self._claims[name] = claim
            return name

    def name_detach(self, name: Name, flags: int = 0) -> int:
        if not isinstance(name, Name):
            raise TypeError(f"name_detach takes what name_attach returned, not {type(name).__name__}")
        flags = as_uint("flags", flags)
        if flags & ~NAME_FLAG_DETACH_SAVEDPP:
            raise failure(EINVAL)
        with self._table.lock:
            claim = self._claims.pop(name, None)
            if claim is None:
                raise failure(EINVAL)
            claim.release()
            if not flags and name.chid in self._channels.entries:
                self.ChannelDestroy(name.chid)
        return 0

    def name_open(self, path: str, flags: int = 0) -> int:
        plain = plain_name(path)
        self._check_name_flags(path, flags)
        runtime = self._runtime()
        if leads_upwards(plain):
            raise runtime.no_such_name(path)
        address = runtime.find_name(plain)
        try:
            connection = self._table.attach(address, NTO_SIDE_CHANNEL, 0)
        except ProcessLookupError:
            if runtime.still_has_name(address, plain):
                raise  # It has destroyed the channel of its name.
            runtime.remove_dead_name(plain, address)
            raise runtime.no_such_name(path) from None
        if os.environ.get("HA_QNX_GNS") == "1":
            self._opener.introduce(connection)
        return connection.coid

    @staticmethod
    def _check_name_flags(path: str, flags: int) -> None:
        flags = as_uint("flags", flags)
        if flags & ~NAME_FLAG_ATTACH_GLOBAL:
            raise failure(EINVAL)
        if flags:
            raise OSError(ENOENT, "there is no global name service here", path)

    def name_close(self, coid: int) -> int:
        return self.ConnectDetach(coid)

    # Paths.

    def resmgr_attach(self, chid: int, path: StrPath, file_type: int = FTYPE_ANY, flags: int = 0) -> int:
        chid = as_int("chid", chid)
        text = os.fsdecode(path)
        file_type = as_int("file_type", file_type)
        flags = as_uint("flags", flags)
        if "\0" in text:
            raise OSError(EINVAL, "a path must not contain a NUL", text)
        plain = refuse_names(text or "/")
        if flags & RESMGR_FLAG_FTYPEALL:
            file_type = _ANY_FILE_TYPE
        elif file_type < 0:
            raise failure(EINVAL)
        if flags & ~_KNOWN_PATH_FLAGS or (text and flags & RESMGR_FLAG_FTYPEONLY):
            raise failure(EINVAL)  # Who serves just one type of file serves no path.
        if not text:
            flags |= RESMGR_FLAG_FTYPEONLY
        with self._table.lock:
            channel = self._channels.entries.get(chid)
            if channel is None:
                raise failure(EINVAL)
            id = next(number for number in itertools.count() if number not in self._attached)
            self._attached[id] = attach_path(self._runtime(), plain.text, id, channel.address, file_type, flags)
            return id

    def resmgr_detach(self, id: int, flags: int = 0) -> int:
        id = as_int("id", id)
        if as_uint("flags", flags):
            raise failure(EINVAL)
        with self._table.lock:
            claim = self._attached.pop(id, None)
            if claim is None:
                raise failure(ENOENT)
            claim.release()
        return 0

    # Descriptors.

    def open(self, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        return self._opener.open(path, oflag, mode, None)

    def open_at(self, fd: int, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        fd = as_int("fd", fd)
        if fd & NTO_SIDE_CHANNEL:
            raise failure(EBADF)  # open gives descriptors only.
        return self._opener.open(path, oflag, mode, fd)

    def close(self, fd: int) -> int:
        fd = as_int("fd", fd)
        if not self._table.is_ours(fd):
            os.close(fd)
            return 0
        try:
            self._send(fd, [memoryview(iomessages.close_message())], [])
        except OSError as error:
            # The number is freed all the same, unless a signal came between (B329 to B331).
            if error.errno != EINTR:
                with contextlib.suppress(OSError):
                    self._table.detach(fd)
            raise
        self._table.detach(fd)
        return 0

    def dup(self, fd: int) -> int:
        fd = as_int("fd", fd)
        if not self._table.is_ours(fd):
            copy = os.dup(fd)
            self._table.give_way(copy)
            return copy
        original = self._original(fd)
        if not original.is_alive():
            raise failure(ESRCH)
        return self._copy(original, 0)

    def dup2(self, fd: int, fd2: int) -> int:
        fd = as_int("fd", fd)
        fd2 = as_int("fd2", fd2)
        if not 0 <= fd2 < NTO_SIDE_CHANNEL:
            raise failure(EBADF)
        if not self._table.is_ours(fd):
            if not is_host_descriptor(fd):
                raise failure(EBADF)
            if fd == fd2:
                return fd
            if self._table.is_ours(fd2):
                with contextlib.suppress(OSError):
                    self.close(fd2)
            return os.dup2(fd, fd2, inheritable=False)
        original = self._original(fd)
        if not original.is_alive():
            raise failure(EBADF)
        if fd == fd2:
            return fd
        if self._table.is_open(fd2):
            with contextlib.suppress(OSError):
                self.close(fd2)
        try:
            return self._copy(original, fd2, exactly=True)
        except OSError as error:
            if error.errno in (EINTR, ETIMEDOUT):
                raise
            raise failure(EBADF) from None  # Whatever the server says (B439).

    def _original(self, fd: int) -> Connection:
        if fd & NTO_SIDE_CHANNEL:
            raise failure(EBADF)
        return self._table.get(fd)

    def _copy(self, original: Connection, index: int, exactly: bool = False) -> int:
        connection = self._table.copy(original, index, exactly)
        try:
            announce_copy(connection, original.describe(os.getpid()), self._threads)
        except BaseException:
            with contextlib.suppress(OSError):
                self._table.detach(connection.coid)
            raise
        finally:
            self._threads.take_timeout()
        return connection.coid

    def is_open(self, number: int) -> bool:
        return self._table.is_open(as_int("coid", number))

    def unblock(self, thread: int) -> int:
        found = self._threads.find(integer("thread", thread, 0, (1 << 64) - 1))
        if found is not None:
            found.is_wanted_back = True
            lane = found.sends_on
            if isinstance(lane, Lane) and lane.connection is not None:
                lane.connection.interrupt(lane, found)
        return 0

    # Forking.

    def _before_fork(self) -> None:
        self._held.take([self._table.lock])
        channels = self._channels.entries.values()
        self._held.take([*(channel.lock for channel in channels), self._timers.lock, forks_wait])
        self._table.prepare_fork()

    def _after_fork_in_parent(self) -> None:
        self._held.release()

    def _after_fork_in_child(self) -> None:
        parent, table, channels = self._pid, self._table, self._channels.entries.values()
        all_of(
            [
                self._held.release,
                table.close_in_child,
                *(claim.forget for claim in (*self._claims.values(), *self._attached.values())),
                *(channel.close_in_child for channel in channels),
                self._rcvids.files.close_in_child,
                self._timers.close_in_child,
                self._start,
                lambda: self._table.inherit(parent, table),
            ]
        )


def _check_info(info: object) -> None:
    if info is not None and not isinstance(info, MessageInfo):
        raise TypeError(f"info must be a MessageInfo, not {type(info).__name__}")


def _fork_hooks(kernel: SocketKernel) -> None:
    """Let a kernel know of forks, as long as it lives."""
    reference = weakref.ref(kernel)
    # By the thread that forks: what has taken locks before a fork lives until it has released them.
    forking: Dict[int, SocketKernel] = {}

    def before() -> None:
        target = reference()
        if target is not None:
            forking[get_ident()] = target
            target._before_fork()

    def after(method: Callable[[SocketKernel], None]) -> Callable[[], None]:
        def hook() -> None:
            target = forking.pop(get_ident(), None)
            if target is not None:
                method(target)

        return hook

    os.register_at_fork(
        before=before,
        after_in_parent=after(SocketKernel._after_fork_in_parent),
        after_in_child=after(SocketKernel._after_fork_in_child),
    )
