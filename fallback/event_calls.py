"""The calls of pulses and events: what clients send, and what a server delivers to them (deliveries.py)."""

import os
import signal
import time
from errno import EBADF, EINVAL, ESRCH, ETIMEDOUT
from typing import Any, Callable, Final, Optional

from ha_qnx.buffers import as_address, as_int, as_long
from ha_qnx.constants import (
    NTO_CHF_UNBLOCK,
    SIGEV_INTR,
    SIGEV_NONE,
    SIGEV_PULSE,
    SIGEV_PULSE_PRIO_INHERIT,
    SIGEV_UNBLOCK,
    SYSMGR_COID,
)
from ha_qnx.errors import failure
from ha_qnx.iomessages import notify_flags, notify_message
from ha_qnx.structures import SigEvent
from ha_qnx.timing import EVENT_TYPE, notify_arguments, structure

from . import wire
from .server_lane import Client, Rcvids, ServerLane
from .table import ConnectionTable
from .threads import DEFAULT_PRIORITY, Threads, ends_timeout

_SIGNALS: Final = (1, 2, 3)  # SIGNAL, SIGNAL_CODE, SIGNAL_THREAD


class EventCalls:
    """The part of the kernel that sends pulses and delivers events."""

    _local: Any
    _threads: Threads
    _rcvids: Rcvids
    _table: ConnectionTable
    MsgSendnc: Callable[..., int]

    @ends_timeout
    def MsgSendPulse(self, coid: int, priority: int, code: int, value: int) -> int:
        coid, priority, code = as_int("coid", coid), as_int("priority", priority), as_int("code", code)
        return self._send_pulse(coid, priority, code, as_int("value", value), 0)

    @ends_timeout
    def MsgSendPulsePtr(self, coid: int, priority: int, code: int, value: int) -> int:
        coid, priority, code = as_int("coid", coid), as_int("priority", priority), as_int("code", code)
        return self._send_pulse(coid, priority, code, *wire.value_and_rest(as_address("value", value)))

    def _send_pulse(self, coid: int, priority: int, code: int, value: int, rest: int) -> int:
        connection = self._table.get(coid)
        if connection.detached:
            raise failure(EBADF)
        priority = self._local.thread.priority if priority == -1 else priority or 1  # D30
        if not 1 <= priority <= 255:
            raise failure(EINVAL)
        frame = wire.pulse.pack(wire.PULSE, priority, code, value, coid, time.monotonic_ns(), rest)
        connection.trunk.pulse(frame)
        return 0

    @ends_timeout
    def MsgDeliverEvent(self, rcvid: int, event: SigEvent) -> int:
        rcvid = as_long("rcvid", rcvid)
        structure("event", event, SigEvent)
        client = self._rcvids.client_of(rcvid)
        if client is None:
            raise failure(ESRCH)
        client.channel.hear_end(client)
        kind = event.sigev_notify & EVENT_TYPE
        if kind == SIGEV_PULSE & EVENT_TYPE:
            _deliver_pulse(client, event)
        elif kind in _SIGNALS:
            _deliver_signal(client, event.sigev_signo, 0 if kind == _SIGNALS[0] else event.sigev_code)
        elif kind in (SIGEV_UNBLOCK & EVENT_TYPE, SIGEV_INTR & EVENT_TYPE):
            _deliver_to_thread(self._rcvids.lanes.get(rcvid), rcvid, kind == SIGEV_UNBLOCK & EVENT_TYPE)
        elif kind != SIGEV_NONE:
            raise failure(EINVAL)
        return 0

    @ends_timeout
    def MsgRegisterEvent(self, event: SigEvent, coid: int) -> int:
        structure("event", event, SigEvent)
        coid = as_int("coid", coid)
        if 0 <= coid != SYSMGR_COID and not self._table.is_open(coid):
            raise failure(EBADF)
        return 0

    @ends_timeout
    def MsgUnregisterEvent(self, event: SigEvent) -> int:
        structure("event", event, SigEvent)
        return 0

    def ionotify(self, fd: int, action: int, flags: int, event: Optional[SigEvent] = None) -> int:
        fd, message = as_int("fd", fd), notify_message(*notify_arguments(action, flags, event))
        # The reply takes the place of the message, of which something is left where it is short.
        reply = bytearray(message)
        self.MsgSendnc(fd, message, reply)
        return notify_flags(reply)


def _deliver_pulse(client: Client, event: SigEvent) -> None:
    priority = event.sigev_priority
    priority = DEFAULT_PRIORITY if priority == SIGEV_PULSE_PRIO_INHERIT else priority & 0xFF
    if not priority:
        raise failure(EINVAL)
    coid, (value, rest) = event.sigev_coid, wire.value_and_rest(bytes(event.sigev_value))
    frame = wire.pulse.pack(wire.PULSE, priority, event.sigev_code, value, coid, time.monotonic_ns(), rest)
    client.deliver(coid, frame)


def _deliver_signal(client: Client, signo: int, code: int) -> None:
    if not 0 < signo < signal.NSIG or code > 0:
        raise failure(EINVAL)
    if client.credentials.pid <= 0:
        raise failure(ESRCH)  # It is in another PID namespace, and has no number here.
    os.kill(client.credentials.pid, signo)


def _deliver_to_thread(lane: Optional[ServerLane], rcvid: int, is_unblock: bool) -> None:
    """Let a client's thread that waits for an answer go on; for one in InterruptWait, there is no such call here."""
    if lane is None:
        raise failure(ESRCH)
    with lane.lock:
        if lane.rcvid != rcvid or lane.gone:
            raise failure(ESRCH)
        if is_unblock and lane.channel.flags & NTO_CHF_UNBLOCK:
            lane.request_unblock(rcvid)
            lane.channel.leave_queue()
        elif is_unblock:
            lane.free(ETIMEDOUT)
