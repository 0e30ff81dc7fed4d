"""select and poll for connections and descriptors of the host alike: what the drop-in puts in place of the host's.

A call that is about descriptors of the host alone goes to the host. In any other, the host waits for its own and for a
bell, which rings when a server has news of a connection.
"""

import contextlib
import os
import select
import selectors
import time
from errno import EBADF, EEXIST, EINVAL, ENOENT, ESRCH, ETIMEDOUT
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from .api import Backend
from .constants import NOTIFY_COND_INPUT, NOTIFY_COND_OBAND, NOTIFY_COND_OUTPUT
from .files import uninterrupted
from .readiness import Bell, Watch

__all__ = ["replacements"]

_host_poll: Any = getattr(select, "poll", None)

IsConnection = Callable[[int], bool]
Replacement = Tuple[Any, str, Any]

_POLLIN = select.POLLIN & ~select.POLLRDBAND | select.POLLRDNORM  # QNX's POLLIN is both.
# Which of poll's bits stand for a condition.
_BITS = {
    NOTIFY_COND_INPUT: _POLLIN,
    NOTIFY_COND_OUTPUT: select.POLLOUT | select.POLLWRNORM,
    NOTIFY_COND_OBAND: select.POLLPRI | select.POLLRDBAND,
}
# So long a server may take to answer, in seconds, however short the time is that the caller waits.
_GRACE = 1.0


class _Watches:
    """The connections that one call, or one object, waits for, and the bell for all of them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._wanted: Dict[int, Tuple[Watch, int]] = {}
        self.bell = Bell()

    def __contains__(self, fd: int) -> bool:
        return fd in self._wanted

    def put(self, fd: int, conditions: int) -> None:
        self.drop(fd)
        self._wanted[fd] = Watch(self._backend, fd, self._ring), conditions

    def _ring(self) -> None:
        self.bell.ring()

    def drop(self, fd: int) -> None:
        watch, _conditions = self._wanted.pop(fd, (None, 0))
        if watch is not None:
            watch.close()

    def is_closed(self, fd: int) -> bool:
        """Whether one was closed since it was put here; its number may be another one's."""
        return fd in self._wanted and self._wanted[fd][0].is_of_another

    def closed(self) -> List[int]:
        return [fd for fd in list(self._wanted) if self.is_closed(fd)]

    def ready(self, left: Optional[float]) -> Dict[int, int]:
        """The connections of which conditions hold, with those; all others are armed.

        One that is lost, or closed, has 0.

        Args:
            left: how many seconds the caller waits.

        Raises:
            OSError: what a server answered.
        """
        found: Dict[int, int] = {}
        if self.bell.is_inherited:
            self.bell.close()
            self.bell = Bell()
        self.bell.hush()
        for fd, (watch, conditions) in list(self._wanted.items()):
            if not conditions or watch.is_armed:
                continue
            try:
                held = uninterrupted(watch.ask, conditions, None if left is None else max(left, _GRACE))
            except OSError as error:
                if error.errno == ETIMEDOUT:
                    continue
                if error.errno not in (EBADF, ESRCH):
                    raise
                found[fd] = 0
            else:
                if held:
                    found[fd] = held
        return found

    def close(self) -> None:
        for fd in list(self._wanted):
            self.drop(fd)
        self.bell.close()


def _waits(
    by_servers: Callable[[Optional[float]], Dict[int, int]],
    timeout: Optional[float],
    by_host: Callable[[Optional[float]], Tuple[List[Any], bool]],
) -> Tuple[Dict[int, int], List[Any]]:
    """Wait for connections and for what the host waits for, until there is one of them, or the time is over.

    Args:
        by_servers: asks the servers of the connections, as ``_Watches.ready``.
        timeout: in seconds; None is for ever.
        by_host: waits for so many seconds; what has come, and whether the bell rings.
    """
    deadline = None if timeout is None else time.monotonic() + max(timeout, 0.0)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = by_servers(left)
        events, rings = by_host(0.0 if ready else left)
        if ready or events or not rings:
            return ready, events


def _number(fd: Any) -> int:
    """The descriptor of what poll and its like take; -1 for what they have to refuse."""
    if isinstance(fd, int):
        return fd
    try:
        number = fd.fileno()
    except (AttributeError, ValueError, OSError):
        return -1
    return number if isinstance(number, int) else -1


def _select_call(backend: Backend, is_connection: IsConnection) -> Callable[..., Any]:
    original: Callable[..., Any] = select.select

    def wait(rlist: Any, wlist: Any, xlist: Any, timeout: Optional[float] = None, /) -> Any:
        lists = [list(each) for each in (rlist, wlist, xlist)]
        wanted: Dict[int, int] = {}
        for each, condition in zip(lists, _BITS):
            for fd in filter(is_connection, map(_number, each)):
                wanted[fd] = wanted.get(fd, 0) | condition
        if not wanted:
            return original(*lists, timeout)
        hosts = [[fd for fd in each if _number(fd) not in wanted] for each in lists]
        watches = _Watches(backend)
        try:
            for fd, conditions in wanted.items():
                watches.put(fd, conditions)

            def by_host(left: Optional[float]) -> Tuple[List[Any], bool]:
                bell = watches.bell
                readers, writers, others = original([*hosts[0], bell], hosts[1], hosts[2], left)
                rings = bell in readers
                found = [[fd for fd in readers if fd is not bell], writers, others]
                return found if any(found) else [], rings

            ready, events = _waits(watches.ready, None if timeout is None else float(timeout), by_host)
        finally:
            watches.close()
        for held in ready.values():
            if not held:
                raise OSError(EBADF, os.strerror(EBADF))
        by_host_too = [{id(fd) for fd in each} for each in events or ((), (), ())]
        return tuple(
            [fd for fd in each if id(fd) in theirs or ready.get(_number(fd), 0) & condition]
            for each, theirs, condition in zip(lists, by_host_too, _BITS)
        )

    return wait


class _Poller:
    """What select.poll and select.epoll make, for connections, too."""

    _backend: Backend
    _is_connection: IsConnection
    _original: Any
    _lost = select.POLLNVAL
    _everything = select.POLLIN | select.POLLPRI | select.POLLOUT
    # What makes no sense where a server is asked anew each time.
    _refused = 0

    _watches: Optional[_Watches] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._inner: Any = type(self)._original(*args, **kwargs)
        self._masks: Dict[int, int] = {}

    def register(self, fd: Any, eventmask: Optional[int] = None) -> None:
        number = _number(fd)
        mask = self._everything if eventmask is None else eventmask
        if not type(self)._is_connection(number):
            self._forget(number)
            self._register_host(fd, number, mask)
            return
        self._settle(number)
        if number in self._masks:
            self._again(number)
        self._unregister_host(number)  # What had the number before.
        self._put(number, mask)

    def modify(self, fd: Any, eventmask: int) -> None:
        number = _number(fd)
        self._settle(number)
        if number in self._masks:
            self._put(number, eventmask)
        else:
            self._check(number)
            self._modify_host(fd, number, eventmask)

    def unregister(self, fd: Any) -> None:
        number = _number(fd)
        self._settle(number)
        if not self._forget(number):
            self._check(number)
            self._inner.unregister(fd)

    def _register_host(self, fd: Any, _number: int, mask: int) -> None:
        self._inner.register(fd, mask)

    def _modify_host(self, fd: Any, _number: int, mask: int) -> None:
        self._inner.modify(fd, mask)

    def _unregister_host(self, number: int) -> None:
        with contextlib.suppress(KeyError, OSError):
            self._inner.unregister(number)

    def _forget(self, number: int) -> bool:
        """Wait for a connection no more; whether it was waited for."""
        is_known = self._masks.pop(number, None) is not None
        if is_known and self._watches is not None:
            self._watches.drop(number)
        return is_known

    def _again(self, number: int) -> None:
        """What is registered is registered once more."""

    def _check(self, number: int) -> None:
        """What is not registered is to be changed, in a way that the host may complain of in other words."""

    def _settle(self, number: int) -> None:
        """What is registered under a number is asked for; that connection may be closed."""

    def _closed(self, number: int) -> None:
        """What was registered under a number was closed."""
        raise NotImplementedError

    def _put(self, number: int, mask: int) -> None:
        if mask & self._refused:
            raise OSError(EINVAL, "of a connection, poll tells as long as something holds, and in no other way")
        if self._watches is None:
            self._watches = _Watches(type(self)._backend)
        self._masks[number] = mask
        self._watches.put(number, sum(condition for condition, bits in _BITS.items() if mask & bits))

    def _wait(
        self,
        watches: _Watches,
        timeout: Optional[float],
        by_host: Callable[[Optional[float], Bell], Tuple[List[Any], bool]],
    ) -> List[Any]:
        """Wait for so many seconds."""

        def by_servers(left: Optional[float]) -> Dict[int, int]:
            found: Dict[int, int] = {}
            closed = watches.closed()
            while True:
                for fd in closed:
                    self._closed(fd)
                found = watches.ready(left)
                lost = [fd for fd, held in found.items() if not held]
                closed = [fd for fd in lost if watches.is_closed(fd) or not type(self)._is_connection(fd)]
                if not closed:
                    return found

        ready, events = _waits(by_servers, timeout, lambda left: by_host(left, watches.bell))
        for fd, held in ready.items():
            bits = sum(bit for condition, bit in _BITS.items() if held & condition)
            events.append((fd, bits & self._masks.get(fd, 0) if held else self._lost))
        return events

    def _close(self) -> None:
        watches, self._watches = self._watches, None
        self._masks = {}
        if watches is not None:
            watches.close()

    __del__ = _close


class _Poll(_Poller):
    """A number is asked for, whatever is under it by then."""

    def __init__(self) -> None:
        super().__init__()
        self._hosts: Dict[int, int] = {}

    def poll(self, timeout: Optional[float] = None, /) -> List[Any]:
        descriptors = getattr(type(self)._backend, "descriptors", {})
        for number in self._hosts.keys() & descriptors.keys():
            if type(self)._is_connection(number):
                mask = self._hosts[number]
                self._unregister_host(number)
                self._put(number, mask)
        if self._watches is None:
            return self._inner.poll(timeout)  # type: ignore[no-any-return]  # it is the host's
        seconds = None if timeout is None or timeout < 0 else timeout / 1000

        def by_host(left: Optional[float], bell: Bell) -> Tuple[List[Any], bool]:
            ringing = bell.fileno()
            self._inner.register(ringing, select.POLLIN)
            try:
                events = self._inner.poll(None if left is None else left * 1000)
            finally:
                with contextlib.suppress(KeyError):
                    self._inner.unregister(ringing)
            others = [event for event in events if event[0] != ringing]
            return others, len(others) < len(events)

        return self._wait(self._watches, seconds, by_host)

    def unregister(self, fd: Any) -> None:
        super().unregister(fd)
        self._hosts.pop(_number(fd), None)

    def _register_host(self, fd: Any, number: int, mask: int) -> None:
        super()._register_host(fd, number, mask)
        self._hosts[number] = mask

    def _modify_host(self, fd: Any, number: int, mask: int) -> None:
        super()._modify_host(fd, number, mask)
        self._hosts[number] = mask

    def _unregister_host(self, number: int) -> None:
        super()._unregister_host(number)
        self._hosts.pop(number, None)

    def _closed(self, number: int) -> None:
        mask = self._masks.get(number, 0)
        if type(self)._is_connection(number):
            self._put(number, mask)
        else:
            self._forget(number)
            self._register_host(number, number, mask)


class _Epoll(_Poller):
    """A connection that is closed is forgotten, and what gets its number is not registered."""

    _lost = select.POLLERR | select.POLLHUP
    _refused = sum(getattr(select, name, 0) for name in ("EPOLLET", "EPOLLONESHOT", "EPOLLEXCLUSIVE"))

    @classmethod
    def fromfd(cls, fd: int, /) -> "_Epoll":
        made = cls.__new__(cls)
        made._inner, made._masks = cls._original.fromfd(fd), {}
        return made

    @property
    def closed(self) -> bool:
        return bool(self._inner.closed)

    def fileno(self) -> int:
        return int(self._inner.fileno())

    def close(self) -> None:
        self._inner.close()
        self._close()

    def poll(self, timeout: Optional[float] = None, maxevents: int = -1) -> List[Any]:
        if self._watches is None or maxevents < -1 or not maxevents:
            return self._inner.poll(timeout, maxevents)  # type: ignore[no-any-return]  # it is the host's
        seconds = None if timeout is None or timeout < 0 else timeout

        def by_host(left: Optional[float], bell: Bell) -> Tuple[List[Any], bool]:
            # The bell is not in the host's epoll, which a forked child shares.
            both = _host_poll()
            for each in (self._inner, bell):
                both.register(each, select.POLLIN)
            came = {fd for fd, _events in both.poll(None if left is None else left * 1000)}
            events = self._inner.poll(0, maxevents) if self._inner.fileno() in came else []
            return events, bell.fileno() in came

        found = self._wait(self._watches, seconds, by_host)
        return found if maxevents < 0 else found[:maxevents]

    def _again(self, number: int) -> None:
        raise OSError(EEXIST, os.strerror(EEXIST))

    def _check(self, number: int) -> None:
        if type(self)._is_connection(number):
            raise OSError(ENOENT, os.strerror(ENOENT))

    def _settle(self, number: int) -> None:
        if self._watches is None or number not in self._masks:
            return
        if self._watches.is_closed(number) or not type(self)._is_connection(number):
            self._closed(number)

    def _closed(self, number: int) -> None:
        self._forget(number)

    def __enter__(self) -> "_Epoll":
        self._inner.__enter__()
        return self

    def __exit__(self, *_how: object) -> None:
        self.close()


def replacements(backend: Backend, is_connection: IsConnection) -> Iterator[Replacement]:
    """What is to be in place of the host's calls: whose attribute, its name, and what it becomes.

    Args:
        backend: whose connections.
        is_connection: whether a number is one of them.
    """
    call = _select_call(backend, is_connection)
    yield select, "select", call
    yield selectors.SelectSelector, "_select", staticmethod(call)
    for name, kind, selector in (("poll", _Poll, "PollSelector"), ("epoll", _Epoll, "EpollSelector")):
        original = getattr(select, name, None)
        if original is not None:
            attributes = {
                "_backend": backend,
                "_is_connection": staticmethod(is_connection),
                "_original": staticmethod(original),
            }
            made = type(name, (kind,), attributes)
            yield select, name, made
            yield getattr(selectors, selector), "_selector_cls", made
