"""The calls of timers: what the contract says of their arguments. What they do is in timers.py."""

import os
from errno import EINVAL, EPERM, ESRCH
from signal import SIGALRM
from typing import Optional

from ha_qnx.buffers import INT_MIN, UINT_MAX, as_int, integer
from ha_qnx.errors import failure
from ha_qnx.events import SIGEV_SIGNAL_INIT
from ha_qnx.structures import Itimer, SigEvent, TimerStatus
from ha_qnx.timing import structure

from .runtime import process_exists
from .threads import Threads, ends_timeout
from .timers import Timers


class TimerCalls:
    """The part of the kernel that makes and sets timers."""

    _threads: Threads
    _timers: Timers

    @ends_timeout
    def TimerCreate(self, id: int, notify: Optional[SigEvent] = None) -> int:
        event = SIGEV_SIGNAL_INIT(SIGALRM) if notify is None else structure("notify", notify, SigEvent)
        return self._timers.create(as_int("id", id), event)

    @ends_timeout
    def TimerSettime(self, id: int, flags: int, itime: Itimer, oitime: Optional[Itimer] = None) -> int:
        id = as_int("id", id)
        flags = integer("flags", flags, INT_MIN, UINT_MAX) & UINT_MAX
        structure("itime", itime, Itimer)
        if oitime is not None:
            structure("oitime", oitime, Itimer)
        before = self._timers.set(id, flags, itime)
        if oitime is not None:
            oitime.nsec, oitime.interval_nsec = before.nsec, before.interval_nsec
        return 0

    @ends_timeout
    def TimerInfo(self, pid: int, id: int, flags: int = 0) -> TimerStatus:
        id = as_int("id", id)
        if integer("flags", flags, INT_MIN, UINT_MAX):
            raise failure(EINVAL)
        check_own_pid(pid)
        return self._timers.info(id)

    @ends_timeout
    def TimerDestroy(self, id: int) -> int:
        self._timers.destroy(as_int("id", id))
        return 0


def check_own_pid(pid: int) -> None:
    """Only a process itself knows its connections here; QNX's kernel knows everybody's (B69)."""
    pid = as_int("pid", pid)
    if pid not in (0, os.getpid()):
        raise failure(EPERM if process_exists(pid) else ESRCH)
