"""One process on one backend that carries out a program, and what it sees there.

A program names channels, connections and messages by the order in which it made them, counted from the last one: their
numbers are each backend's own affair. It may name those that are gone, too.
"""

import contextlib
import errno
import json
import os
import sys
import threading
import time
import zlib
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from ha_qnx import (
    CLOCK_MONOTONIC,
    IO_CLOSE,
    IO_DUP,
    NTO_CHF_UNBLOCK,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_RECEIVE,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    SIGEV_PULSE_INIT,
    Backend,
    Itimer,
    MessageInfo,
    Pulse,
    backends,
)

from .programs import Step

#: For what has to come, in seconds.
PATIENCE = 5.0
#: For what cannot come, and for a client that does not wait until it is answered, in nanoseconds.
_SOON = 1_000_000
_IN_A_WHILE = 60_000_000
#: Whatever follows from a call has followed by then, in seconds.
_SETTLED = 0.5

_UNBLOCK = -32
#: Messages about descriptors, which do well.
_TOLD = {IO_DUP: "_IO_DUP", IO_CLOSE: "_IO_CLOSE"}
#: The numbers of what is gone, or never was. (That of a descriptor soon belongs to somebody else.)
_NO_CONNECTION = -5
_NO_CHANNEL = 999_999
_NO_RCVID = 0x7FFF0000

_NOISE = bytes(range(251)) * 300


class Channel:
    """Of this process, or of the one that it was forked from."""

    def __init__(self, chid: int, flags: int) -> None:
        self.chid, self.flags, self.pid = chid, flags, os.getpid()
        self.was = chid


class Connected:
    """A connection that was made, and where it leads."""

    def __init__(self, coid: int, channel: Optional[Channel]) -> None:
        self.coid, self.channel = coid, channel
        self.is_replaced = False

    @property
    def is_descriptor(self) -> bool:
        return 0 <= self.coid < NTO_SIDE_CHANNEL


class Sending(threading.Thread):
    """A message under way."""

    def __init__(self, qnx: Backend, connected: Connected, data: bytes, room: int, is_short: bool) -> None:
        super().__init__(daemon=True)
        self._qnx, self._data, self._is_short = qnx, data, is_short
        self.connected, self.coid, self.pid = connected, connected.coid, os.getpid()
        self._room = bytearray(room)
        self.rcvid = _NO_RCVID
        self.outcome: Any = "blocked"

    def run(self) -> None:
        def send() -> Any:
            if self._is_short:
                self._qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, _IN_A_WHILE)
            return self._qnx.MsgSend(self.coid, self._data, self._room)

        outcome = outcome_of(send)
        self.outcome = [outcome, zlib.crc32(self._room)]


class World:
    """What a program has made."""

    def __init__(self, backend: str) -> None:
        self.qnx: Backend = backends.backend(backend)
        self.channels: List[Channel] = []
        self.connections: List[Connected] = []
        self.messages: List[Sending] = []
        self.names: List[Any] = []
        #: The channels of those that are attached.
        self.attached: Set[int] = set()
        self.recoveries: List[Any] = []
        #: The messages that their servers were asked to end.
        self.asked: Set[int] = set()
        self._giving_up = 0
        self._foreign = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def do(self, step: Step) -> Any:
        """A step; what it returns, or the name of its error, and whether something was recovered."""
        name, *arguments = step
        outcome = outcome_of(lambda: getattr(self, name)(*arguments))
        if self.recoveries:
            outcome = [outcome, "recoveries", self.recoveries[:]]
            del self.recoveries[:]
        return outcome

    # Channels and connections.

    def create(self, flags: int) -> int:
        self.channels.append(Channel(self.qnx.ChannelCreate(flags), flags))
        return 0

    def destroy(self, which: int) -> Any:
        channel = self._channel(which)
        return [self._without(channel, lambda: self.qnx.ChannelDestroy(channel.was)), self._lost(channel)]

    @staticmethod
    def _without(channel: Channel, end: Callable[[], int]) -> int:
        """End a channel: recovery functions that run meanwhile do not choose it."""
        channel.was, channel.chid = channel.chid, _NO_CHANNEL
        try:
            return end()
        except BaseException:
            channel.chid = channel.was
            raise

    def attach(self, which: int, index: int) -> Any:
        channel = self._channel(which)
        return self._made(self.qnx.ConnectAttach(0, channel.pid, channel.chid, index))

    def detach(self, which: int) -> Any:
        return self._end(which, self.qnx.ConnectDetach)

    def close(self, which: int) -> Any:
        connected = self._connection(which)
        done, met = self._served(lambda: self.qnx.close(connected.coid))
        if done != [0]:
            return [done, met]
        return self._put_together(self._end(which, lambda _coid: 0)[1], met)

    def name_close(self, which: int) -> Any:
        return self._end(which, self.qnx.name_close)

    def ha_connect_detach(self, which: int) -> Any:
        return self._end(which, self.qnx.ha_ConnectDetach)

    def dup(self, which: int) -> Any:
        return self._served(lambda: self._made(self.qnx.dup(self._connection(which).coid)))

    def ha_dup(self, which: int) -> Any:
        return self._served(lambda: self._made(self.qnx.ha_dup(self._connection(which).coid)))

    def dup2(self, which: int, over: int) -> Any:
        source, target = self._connection(which), self._connection(over)

        done, met = self._served(lambda: self.qnx.dup2(source.coid, target.coid) == target.coid)
        if done == [True] and source is not target:
            met = self._put_together(self._ended([one for one in self.messages if one.connected is target]), met)
            copy = Connected(target.coid, source.channel)
            copy.is_replaced = source.is_replaced
            self.connections[self.connections.index(target)] = copy
        return [done, met]

    def _put_together(self, ended: List[Any], met: List[str]) -> List[Any]:
        """What became of messages; and all pulses, which may come before or after."""
        pulses = [one for one in ended if isinstance(one, str) and one[0].isdigit()]
        return [[one for one in ended if one not in pulses], sorted(met + pulses + self._serve(lambda: True))]

    def close_behind(self, which: int) -> Any:
        """The program closes what it takes for a file: the next use is an error."""
        connected = self._connection(which)
        if not connected.is_descriptor or connected.is_replaced:
            return None
        os.close(connected.coid)
        found = [outcome_of(lambda: self.qnx.MsgSendPulse(connected.coid, 10, 1, 0)), self.recoveries[:]]
        del self.recoveries[:]
        return [*found, outcome_of(lambda: self.qnx.ConnectDetach(connected.coid)), self._end(which, lambda _coid: 0)]

    def replace_behind(self, which: int) -> Any:
        """The program puts another file in its place."""
        connected = self._connection(which)
        if not connected.is_descriptor:
            return None
        os.dup2(self._foreign, connected.coid)
        connected.is_replaced = True
        used = outcome_of(lambda: self.qnx.MsgSendPulse(connected.coid, 10, 1, 0))
        return [used, self._ended([one for one in self.messages if one.connected is connected])]

    def connect_flags(self, which: int, mask: int, bits: int) -> Any:
        return self.qnx.ConnectFlags(0, self._connection(which).coid, mask, bits)

    def server_info(self, which: int) -> Any:
        info = MessageInfo()
        connected = self._connection(which)
        self.qnx.ConnectServerInfo(0, connected.coid, info)
        if info.coid != connected.coid:  # The next one.
            return "another"
        return [self._index(info.pid, info.chid), info.flags]

    # Messages and pulses.

    def pulse(self, which: int, priority: int, code: int, value: int) -> Any:
        return self.qnx.MsgSendPulse(self._connection(which).coid, priority, code, value)

    def receive(self, which: int, size: int) -> Any:
        """A pulse that is there already, or ETIMEDOUT."""
        return self._receive_now(self._channel(which), size)

    def receive_pulse(self, which: int, size: int) -> Any:
        buffer = bytearray(size)
        self.qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 0)
        self.qnx.MsgReceivePulse(self._channel(which).chid, buffer)
        return self._pulse(buffer)

    def give_up(self, which: int, size: int) -> Any:
        """A message that nobody receives, unless our parent does."""
        channel = self._connection(which).channel
        if channel is None or channel.pid == os.getpid():
            self.qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, _SOON)
        self._giving_up = threading.get_ident()
        try:
            return self.qnx.MsgSend(self._connection(which).coid, _NOISE[:size], bytearray(8))
        finally:
            self._giving_up = 0

    def send(self, which: int, sent: int, room: int, received: int, is_short: bool) -> Any:
        """A message that a thread sends; it is received, but not answered."""
        connected = self._connection(which)
        if connected.channel is not None and connected.channel.pid != os.getpid():
            return self.give_up(which, sent)
        found: List[Any] = []
        if connected.channel is not None:
            found += self._drain(connected.channel)
        sending = Sending(self.qnx, connected, _NOISE[:sent], room, is_short)
        self.messages.append(sending)
        sending.start()
        found.append(self._arrived(sending, received))
        if is_short and found[-1] != "refused":
            found.append(self._ended([sending]))
        return found

    def read(self, which: int, size: int, offset: int) -> Any:
        buffer = bytearray(size)
        return [self.qnx.MsgRead(self._message(which).rcvid, buffer, offset), zlib.crc32(buffer)]

    def write(self, which: int, size: int, offset: int) -> Any:
        return self.qnx.MsgWrite(self._message(which).rcvid, b"w" * size, offset)

    def reply(self, which: int, status: int, size: int) -> Any:
        sending = self._message(which)
        self.asked.discard(sending.rcvid)
        return [self.qnx.MsgReply(sending.rcvid, status, b"r" * size), self._ended([sending])]

    def fail(self, which: int, error: int) -> Any:
        sending = self._message(which)
        self.asked.discard(sending.rcvid)
        return [self.qnx.MsgError(sending.rcvid, error), self._ended([sending])]

    def info(self, which: int) -> Any:
        sending = self._message(which)
        return self._info(sending, self.qnx.MsgInfo(sending.rcvid))

    def client_info(self, which: int) -> Any:
        info = self.qnx.ConnectClientInfo(self.qnx.MsgInfo(self._message(which).rcvid).scoid)
        return [info.pid == os.getpid(), info.cred.euid, info.nd]

    def deliver(self, which: int, target: int, code: int) -> Any:
        event = SIGEV_PULSE_INIT(self._connection(target).coid, 10, code, 3)
        done = self.qnx.MsgDeliverEvent(self._message(which).rcvid, event)
        return [done, self._serve(lambda: True)]  # It comes when somebody receives (D91).

    def timer(self, which: int, code: int) -> Any:
        """Let one expire, and receive its pulse."""
        connected = self._connection(which)
        timer = self.qnx.TimerCreate(CLOCK_MONOTONIC, SIGEV_PULSE_INIT(connected.coid, 10, code, 4))
        try:
            channel = connected.channel
            if channel is None or channel.chid == _NO_CHANNEL or channel.pid != os.getpid() or connected.is_replaced:
                return self.qnx.TimerInfo(0, timer).itime.nsec
            found = self._drain(channel)
            self.qnx.TimerSettime(timer, 0, Itimer(nsec=_SOON))
            buffer = bytearray(64)
            self.qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, int(PATIENCE * 1e9))
            self.qnx.MsgReceivePulse(channel.chid, buffer)
            return [found, self._pulse(buffer)]
        finally:
            self.qnx.TimerDestroy(timer)

    # Names.

    def name_attach(self, path: str) -> Any:
        name = self.qnx.name_attach(path)
        self.names.append(name)
        self.attached.add(name.chid)
        self.channels.append(Channel(name.chid, NTO_CHF_UNBLOCK))
        return 0

    def name_detach(self, which: int) -> Any:
        name = self._chosen(self.names, which)
        if name is None:
            return None
        chid = name.chid
        gone = Channel(_NO_CHANNEL, 0)
        channel = next((one for one in self.channels if (one.chid, one.pid) == (chid, os.getpid())), gone)
        done = self._without(channel, lambda: self.qnx.name_detach(name))
        self.attached.discard(chid)
        return [done, self._lost(channel)]

    def name_open(self, path: str) -> Any:
        return self._made(self.qnx.name_open(path))

    # Recovery.

    def ha_attach(self, which: int, how: str) -> Any:
        return self.qnx.ha_attach(self._connection(which).coid, self._recover, how)

    def ha_detach(self, which: int) -> Any:
        return self.qnx.ha_detach(self._connection(which).coid)

    def ha_connect_attach(self, which: int, index: int, how: str) -> Any:
        channel = self._channel(which)
        return self._made(self.qnx.ha_ConnectAttach(0, channel.pid, channel.chid, index, 0, self._recover, how))

    def ha_control(self, which: int, command: int, limit: Optional[int]) -> Any:
        return self.qnx.ha_connection_ctrl(self._connection(which).coid, command, limit)

    def _recover(self, coid: int, how: Any) -> int:
        """What stands in for a program's recovery function."""
        self.recoveries.append(how)
        if how == "raises":
            raise RuntimeError("on purpose")
        if how == "refuses" or threading.get_ident() == self._giving_up:
            return -1  # Sent again, a message has no timeout any more (D125), and nobody would receive it.
        if how == "other":
            return coid + 1
        channel = next((one for one in reversed(self.channels) if self._is_ours(one)), Channel(_NO_CHANNEL, 0))
        try:
            found = self.qnx.ha_ReConnectAttach(coid, 0, 0, channel.chid, coid & NTO_SIDE_CHANNEL, 0)
        except OSError as error:
            self.recoveries.append(name_of(error))
            raise
        for connected in self.connections:
            if connected.coid == coid:
                connected.channel = channel
        return found

    # Threads and processes.

    def in_thread(self, step: Step) -> Any:
        found: List[Any] = []
        thread = threading.Thread(target=lambda: found.append(self.do(tuple(step))), daemon=True)
        thread.start()
        thread.join(2 * PATIENCE)
        return found[0] if found else "hangs"

    def fork(self, *steps: Step) -> Any:
        """What a child sees, which inherits all that there is."""
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(ours)
                found = []
                for step in steps:
                    found.append([step[0], self.do(tuple(step))])
                os.write(theirs, json.dumps(found).encode())
            except BaseException as error:
                os.write(theirs, json.dumps(repr(error)).encode())
            finally:
                os._exit(0)
        os.close(theirs)
        met = self._serve(lambda: has_ended(child))
        os.waitpid(child, 0)
        with open(ours, "rb") as file:
            told = file.read()
        return [json.loads(told) if told else "nothing", met]

    def _served(self, call: Callable[[], Any]) -> Any:
        """A call that sends a message of its own, which we answer."""
        found: List[Any] = []
        thread = threading.Thread(target=lambda: found.append(outcome_of(call)), daemon=True)
        thread.start()
        end = time.monotonic() + PATIENCE
        met = self._serve(lambda: not thread.is_alive() or time.monotonic() > end)
        return [found, met]

    def _serve(self, is_over: Callable[[], bool]) -> List[str]:
        """Until it is over, answer what comes; what that was."""
        met: List[str] = []
        buffer = bytearray(64)
        info = MessageInfo()
        was_over, before = False, -1
        while not was_over or len(met) > before:
            was_over, before = is_over(), len(met)
            for at, channel in enumerate(self.channels):
                with contextlib.suppress(OSError):
                    self.qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 0)
                    rcvid = self.qnx.MsgReceive(channel.chid, buffer, info)
                    if rcvid == 0:
                        met += [f"{at} {pulse}" for pulse in self._but_asked(buffer)]
                        continue
                    kind = int.from_bytes(buffer[: min(2, info.msglen)], sys.byteorder)
                    met.append(f"{at} {_TOLD.get(kind) or info.srcmsglen}")
                    if kind in _TOLD:
                        self.qnx.MsgReply(rcvid, 0)
                    else:
                        self.qnx.MsgError(rcvid, errno.ENOTTY)
            if not was_over:
                time.sleep(0.0002)
        return sorted(met)

    # At its end.

    def end(self) -> List[Any]:
        """Leave nothing behind; what there is to say of that."""
        qnx = self.qnx
        for sending in self.messages:
            with contextlib.suppress(OSError):
                qnx.MsgError(sending.rcvid, errno.EINTR)
        for channel in self.channels:
            if self._is_ours(channel) and channel.chid not in self.attached:
                qnx.ChannelDestroy(channel.chid)
        for name in self.names:
            with contextlib.suppress(OSError):
                qnx.name_detach(name)
        self._ended([one for one in self.messages if one.connected.channel is not None])
        for connected in self.connections:
            if connected.coid == _NO_CONNECTION:
                continue
            with contextlib.suppress(OSError):
                qnx.ha_detach(connected.coid)
            with contextlib.suppress(OSError):
                qnx.ConnectDetach(connected.coid)
            if connected.is_replaced:
                with contextlib.suppress(OSError):  # The program has closed it.
                    os.close(connected.coid)
        os.close(self._foreign)
        return [self._joined(sending) for sending in self.messages]

    # What is named, and what comes of it.

    def _chosen(self, those: List[Any], which: int) -> Any:
        return those[which % len(those)] if those else None

    def _channel(self, which: int) -> Channel:
        return self._chosen(self.channels, which) or Channel(_NO_CHANNEL, 0)

    def _connection(self, which: int) -> Connected:
        return self._chosen(self.connections, which) or Connected(_NO_CONNECTION, None)

    def _message(self, which: int) -> Sending:
        return self._chosen(self.messages, which) or Sending(self.qnx, self._connection(0), b"", 0, False)

    @staticmethod
    def _is_ours(channel: Channel) -> bool:
        return channel.chid != _NO_CHANNEL and channel.pid == os.getpid()

    def _index(self, pid: int, chid: int) -> int:
        """Which channel this is."""
        return next((at for at, one in enumerate(self.channels) if (one.pid, one.chid) == (pid, chid)), -1)

    def _made(self, coid: int) -> Any:
        info = MessageInfo()
        with contextlib.suppress(OSError):
            self.qnx.ConnectServerInfo(0, coid, info)
        at = self._index(info.pid, info.chid) if info.coid == coid else -1
        self.connections.append(Connected(coid, self.channels[at] if at >= 0 else None))
        self.connections[-1].is_replaced = info.coid != coid
        return [coid >= NTO_SIDE_CHANNEL, at]

    def _end(self, which: int, call: Callable[[int], int]) -> Any:
        connected = self._connection(which)
        done = call(connected.coid)
        connected.coid = _NO_CONNECTION
        return [done, self._ended([one for one in self.messages if one.connected is connected])]

    def _receive_now(self, channel: Channel, size: int) -> Any:
        buffer = bytearray(size)
        self.qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 0)
        rcvid = self.qnx.MsgReceive(channel.chid, buffer)
        return self._pulse(buffer) if rcvid == 0 else ["message", self.qnx.MsgError(rcvid, errno.EIO)]

    def _drain(self, channel: Channel) -> List[Any]:
        """All pulses that are there."""
        found: List[Any] = []
        while not found or (isinstance(found[-1], list) and len(found) < 100):
            found.append(outcome_of(lambda: self._receive_now(channel, 64)))
        return found

    @staticmethod
    def _pulse(buffer: bytearray) -> List[Any]:
        pulse = Pulse.from_buffer_copy(bytes(buffer).ljust(64, b"\0"))
        return ["pulse", pulse.code, pulse.value.sival_int if pulse.code >= 0 else None]

    def _arrived(self, sending: Sending, size: int) -> Any:
        """Receive this message, wherever it goes to by now, unless its sender is told something before."""
        info = MessageInfo()
        buffer = bytearray(size)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            is_over = not sending.is_alive()
            channel = sending.connected.channel or Channel(_NO_CHANNEL, 0)
            with contextlib.suppress(OSError):
                self.qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 0 if is_over else _SOON)
                rcvid = self.qnx.MsgReceive(channel.chid, buffer, info)
                if rcvid > 0:
                    sending.rcvid = rcvid
                    return [self._info(sending, info), zlib.crc32(buffer)]
                return ["instead", self._pulse(buffer)]
            if is_over:
                return "refused"
        return "never arrives"

    def _info(self, sending: Sending, info: MessageInfo) -> List[Any]:
        return [
            info.msglen,
            info.srcmsglen,
            info.dstmsglen,
            info.priority,
            info.flags,
            self._index(os.getpid(), info.chid),
            info.coid == sending.coid,
            info.pid == os.getpid(),
        ]

    def _ended(self, sendings: Sequence[Sending]) -> Any:
        """What becomes of messages by now: how each ended, or whether its server is asked to end it; other pulses."""
        found: Dict[Sending, Any] = {one: "goes on" for one in sendings if one.pid == os.getpid()}
        met: List[str] = []
        end = time.monotonic() + _SETTLED
        while True:
            is_over = "goes on" not in found.values() or time.monotonic() > end
            for channel in {one.connected.channel for one in found}:
                if channel is not None and channel.flags & NTO_CHF_UNBLOCK and self._is_ours(channel):
                    met += self._pulses_but_asked(channel)
            for one in found:
                if not one.is_alive():
                    found[one] = one.outcome
                elif one.rcvid in self.asked:
                    found[one] = "asked"
            if is_over:
                # Of threads that lose one connection, any may be the one that recovers.
                return [*sorted(found.values(), key=json.dumps), *sorted(met)]
            time.sleep(0.0003)

    def _lost(self, channel: Channel) -> Any:
        """What becomes of those to a channel that is no more: that somebody asked for them does not count now."""
        lost = [one for one in self.messages if one.connected.channel is channel]
        self.asked -= {one.rcvid for one in lost}
        return self._ended(lost)

    def _pulses_but_asked(self, channel: Channel) -> List[str]:
        met: List[str] = []
        buffer = bytearray(64)
        with contextlib.suppress(OSError):
            while True:
                self.qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 0)
                self.qnx.MsgReceivePulse(channel.chid, buffer)
                met += [f"{self.channels.index(channel)} {pulse}" for pulse in self._but_asked(buffer)]
        return met

    def _but_asked(self, buffer: bytearray) -> List[Any]:
        """A pulse; one that asks the server to end a message is taken note of instead."""
        pulse = self._pulse(buffer)
        if pulse[1] != _UNBLOCK:
            return [pulse]
        self.asked.add(Pulse.from_buffer_copy(buffer).value.sival_int)
        return []

    def _joined(self, sending: Sending) -> Any:
        if sending.pid == os.getpid() and sending.ident is not None:
            sending.join(PATIENCE)
        return sending.outcome


def has_ended(child: int) -> bool:
    """Whether a child has; it can be waited for all the same."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def name_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def outcome_of(call: Callable[[], Any]) -> Any:
    """What it returns, or what it raises."""
    try:
        return call()
    except OSError as error:
        return name_of(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
