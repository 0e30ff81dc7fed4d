"""What clients of a service have armed by ionotify, select or poll: events that act when a condition comes to hold."""

import contextlib
import threading
from errno import EAGAIN, EINVAL
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .api import Backend
from .constants import (
    EOK,
    NOTIFY_ACTION_CONDARM,
    NOTIFY_ACTION_POLL,
    NOTIFY_ACTION_POLLARM,
    NOTIFY_ACTION_TRANARM,
    NOTIFY_COND_EXTEN,
    NOTIFY_COND_INPUT,
    NOTIFY_COND_MASK,
    NOTIFY_COND_OBAND,
    NOTIFY_COND_OUTPUT,
    SI_NOTIFY,
    SIGEV_NONE,
)
from .errors import failure
from .iomessages import NOTIFY, notified_event, notify_reply
from .ocb import Key, Ocb
from .requests import Request
from .structures import SigEvent

__all__ = ["Armed"]

CONDITIONS = (NOTIFY_COND_INPUT, NOTIFY_COND_OUTPUT, NOTIFY_COND_OBAND)
_ACTIONS = (NOTIFY_ACTION_TRANARM, NOTIFY_ACTION_CONDARM, NOTIFY_ACTION_POLL, NOTIFY_ACTION_POLLARM)
# By so many bits lower lie the extended conditions that are the same: RDNORM, WRNORM, RDBAND.
_EXTENDED = 28


def _both(conditions: int) -> int:
    """Conditions, each in both of its forms; a client may name either."""
    plain = (conditions | conditions << _EXTENDED) & NOTIFY_COND_MASK & ~NOTIFY_COND_EXTEN
    return plain | plain >> _EXTENDED


class _Asking:
    """What a client asks, and what it is told (B490, B495).

    Attributes:
        conditions: those that it asks about, each as NOTIFY_COND_INPUT and its like.
        arms: whether its event is to be armed, as far as is known by now.
    """

    def __init__(self, request: Request) -> None:
        _kind, _length, self._action, self.flags = request.unpack(NOTIFY)
        if self._action not in _ACTIONS:
            raise failure(EINVAL)
        self.event = notified_event(request.data)
        named = _both(self.flags) if self.flags & NOTIFY_COND_EXTEN else self.flags
        self.conditions = named & NOTIFY_COND_MASK & ~NOTIFY_COND_EXTEN
        self.arms = False

    def answer(self, held: Any) -> Tuple[int, bytes]:
        """What is answered if these conditions hold, and nothing else comes of it."""
        found = _both(held) & self.flags & ~NOTIFY_COND_EXTEN
        is_armed = self._action == NOTIFY_ACTION_TRANARM or (self._action != NOTIFY_ACTION_POLL and not found)
        self.arms = is_armed and self.event.sigev_notify != SIGEV_NONE
        if self._action in (NOTIFY_ACTION_TRANARM, NOTIFY_ACTION_CONDARM):
            found = 0
        return EOK, notify_reply(found)

    def answer_armed(self) -> Tuple[int, bytes]:
        """What is answered when the event is armed, or has acted already."""
        if self._action == NOTIFY_ACTION_CONDARM:
            raise failure(EAGAIN)
        return EOK, notify_reply(0)


# Who has armed something: which connection, and which thread of the client.
_Asker = Tuple[int, int, int]
_Step = Tuple[Callable[[], Any], Callable[[Any], Tuple[int, bytes]]]


class _Event(NamedTuple):
    """An event that waits, and by which message it came."""

    rcvid: int
    ocb: Ocb
    event: SigEvent
    is_extended: bool

    def when(self, condition: int) -> SigEvent:
        """The event as it acts when a condition holds: some are to say which one (B496)."""
        event = SigEvent.from_buffer_copy(self.event)
        if event.sigev_code == SI_NOTIFY:
            value = event.sigev_value.sival_int | condition
            if self.is_extended:
                value |= NOTIFY_COND_EXTEN
                event.sigev_code = -(condition >> _EXTENDED)
            event.sigev_value.sival_int = value
        return event


class Armed:
    """The events of all clients: one for each connection, thread that has asked, and condition."""

    def __init__(self) -> None:
        self._events: Dict[Tuple[_Asker, int], _Event] = {}
        self._lock = threading.RLock()  # ``trigger`` may be called by a signal handler, too.

    def steps(self, request: Request, connection: Key, notify: Callable[[Request, int], Any]) -> Iterator[_Step]:
        """What is to be done about an _IO_NOTIFY message: calls, each with what makes an answer of what it returns.

        Args:
            request: the message.
            connection: what it came by.
            notify: says which of the conditions hold.
        """
        asking, key = _Asking(request), (*connection, request.info.tid)

        def answer_armed(held: Any) -> Tuple[int, bytes]:
            answer = asking.answer(held)
            is_new = not asking.arms and self._take_back(request, key, asking.conditions)
            return answer if is_new else asking.answer_armed()

        yield lambda: notify(request, asking.conditions), asking.answer
        self._replace(request, key, asking)
        if asking.arms:  # What has come to hold between the two would be missed.
            yield lambda: notify(request, asking.conditions), answer_armed

    def _replace(self, request: Request, key: _Asker, asking: _Asking) -> None:
        """Take back what a client has armed for the conditions that it names now; arm its new event, if it is to be."""
        event = _Event(request.rcvid, request.ocb, asking.event, bool(asking.flags & NOTIFY_COND_EXTEN))
        with self._lock:
            for condition in CONDITIONS:
                if asking.conditions & condition:
                    self._events.pop((key, condition), None)
                    if asking.arms:
                        self._events[key, condition] = event

    def _take_back(self, request: Request, key: _Asker, conditions: int) -> bool:
        """Disarm what came by a message; whether none of it has acted."""
        with self._lock:
            named = [condition for condition in CONDITIONS if conditions & condition]
            found = [self._events.get((key, condition)) for condition in named]
            if not all(event is not None and event.rcvid == request.rcvid for event in found):
                return False
            for condition in named:
                del self._events[key, condition]
        return True

    def trigger(self, backend: Backend, conditions: int, ocb: Optional[Ocb]) -> int:
        """Let what is armed for these conditions act, once; for how many there was a client left."""
        conditions = _both(conditions)
        acting: List[Tuple[int, SigEvent]] = []
        with self._lock:
            for key, condition in list(self._events):
                if conditions & condition and ocb in (None, self._events[key, condition].ocb):
                    event = self._events.pop((key, condition))
                    acting.append((event.rcvid, event.when(condition)))
        count = 0
        for rcvid, made in acting:
            with contextlib.suppress(OSError):  # The client, or what the event was for, is gone.
                backend.MsgDeliverEvent(rcvid, made)
                count += 1
        return count

    def forget(self, scoid: int, coid: Optional[int] = None) -> None:
        """A connection of a client is gone, or all of them."""
        with self._lock:
            for key, condition in list(self._events):
                if key[0] == scoid and coid in (None, key[1]):
                    del self._events[key, condition]
