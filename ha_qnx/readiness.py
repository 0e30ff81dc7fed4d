"""Waiting until a connection is ready, beside whatever else a program waits for.

A ``Watch`` asks the server of a connection by ionotify. If nothing holds, the server has an event of ours, a pulse to a
channel of this process on which one thread receives; that thread rings a ``Bell``, a descriptor of the host that any
loop can wait for. When it rings, ask again: the answer counts, not the pulse, and so nobody is told what holds no more.

A server that dies with an event armed tells nobody. So the thread looks at the connections that are waited for, now and
then, without a message: one that has lost its server, or leads to another one by now, rings, and to ask again recovers
it, if it is HA-aware, and arms the event where it leads now.
"""

import contextlib
import os
import threading
from errno import EBADF, ENOSYS
from typing import Callable, Dict, Optional, Set, Tuple

from .api import Backend
from .constants import (
    NOTIFY_ACTION_POLLARM,
    NTO_CHF_PRIVATE,
    NTO_COF_CLOEXEC,
    NTO_COF_DEAD,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_RECEIVE,
    SIGEV_PULSE_PRIO_INHERIT,
)
from .deadlines import within
from .errors import failure
from .events import SIGEV_PULSE_INIT
from .lifetimes import life_of
from .structures import MessageInfo, Pulse, SigEvent

__all__ = ["Bell", "Watch"]

# After how many seconds to look at the connections that are waited for: at first, and at last.
_LOOK_SOON, _LOOK_AGAIN = 0.02, 0.5

_KEY_MAX = (1 << 28) - 1
# The pulse that says that there is something to be looked at.
_KICK = 0

_Server = Tuple[int, int, int, object]


class Bell:
    """A descriptor that is readable from the first ring on, until ``hush``."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()  # So that nothing is written to a number that is another one's by then.
        self._reader, self._writer = os.pipe()
        for fd in (self._reader, self._writer):
            os.set_blocking(fd, False)

    def fileno(self) -> int:
        return self._reader

    @property
    def is_inherited(self) -> bool:
        """Whether it is that of another process, which this one was forked from."""
        return os.getpid() != self._process

    def ring(self) -> None:
        """Ring. From any thread, and as often as one likes."""
        with self._lock, contextlib.suppress(OSError):  # It rings already, or nobody listens any more.
            os.write(self._writer, b"\0")

    def hush(self) -> None:
        """Ring no more, until the next ring."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._reader, 4096)) == 4096:
                pass

    def close(self) -> None:
        # In a forked child there is nobody else, and the lock may be held for ever.
        with contextlib.nullcontext() if self.is_inherited else self._lock:
            fds, self._reader, self._writer = (self._reader, self._writer), -1, -1
            for fd in fds:
                if fd >= 0:
                    os.close(fd)


class Watch:
    """A connection that is waited for."""

    def __init__(self, backend: Backend, coid: int, ring: Callable[[], object]) -> None:
        """Begin with nothing armed.

        Args:
            backend: the one that the connection belongs to.
            coid: the connection.
            ring: called, from another thread, when it is time to ask again.
        """
        self.coid = int(coid)
        self.ring = ring
        self._backend = backend
        self._life = life_of(backend, self.coid)
        self._post: Optional[_Post] = None
        self._is_over = False
        self._event = SigEvent()

    @property
    def is_armed(self) -> bool:
        """Whether there is nothing to be asked before it rings."""
        return self._post is not None and self._post.has(self)

    @property
    def is_of_another(self) -> bool:
        """Whether its connection was closed since it was made; the number may be another one's."""
        return life_of(self._backend, self.coid) is not self._life

    def ask(self, conditions: int, timeout: Optional[float] = None) -> int:
        """Which of the conditions hold; if none does, the watch is armed, and rings when it is time to ask again.

        A server that knows nothing of readiness is taken to be ready, as select and poll do on QNX (B498). One thread
        at a time may ask.

        Args:
            conditions: NOTIFY_COND_INPUT and its like.
            timeout: how many seconds the server may take to answer; None is for ever.

        Raises:
            OSError: as ionotify, but for ENOSYS; EBADF, also, the connection was closed, and the number is another
                one's; ETIMEDOUT, the server did not answer in time.
        """
        if self.is_of_another:
            self._disarm()
            raise failure(EBADF)
        post = self._post = _post_of(self._backend)
        while True:
            before = _where(self._backend, self.coid)
            key = post.enter(self, before)
            try:
                held = self._arm(post.coid, key, conditions, timeout)
                if self.is_of_another:
                    raise failure(EBADF)
                if not held and _where(self._backend, self.coid) != before:
                    continue  # It has been recovered meanwhile, and nobody knows which of the servers was asked.
            except BaseException:
                self._disarm()
                raise
            if held:
                self._disarm()
                post.ring(key)  # The server may have taken back what others have armed on this connection.
            elif self._is_over:
                self._disarm()
            return held

    def _arm(self, coid: int, key: int, conditions: int, timeout: Optional[float]) -> int:
        self._event = SIGEV_PULSE_INIT(coid, SIGEV_PULSE_PRIO_INHERIT, 0, key)
        with contextlib.suppress(OSError):  # Of a connection that is lost, ionotify tells.
            self._backend.MsgRegisterEvent(self._event, self.coid)
        arguments = self.coid, NOTIFY_ACTION_POLLARM, conditions, self._event
        try:
            return within(self._backend, timeout, self._backend.ionotify, *arguments) & conditions
        except OSError as error:
            if error.errno != ENOSYS:
                raise
            if _where(self._backend, self.coid) is None:  # The number is one of the host by now.
                raise failure(EBADF) from None
            return conditions

    def _disarm(self) -> None:
        post, self._post = self._post, None
        if post is not None:
            post.leave(self)
            with contextlib.suppress(OSError):
                self._backend.MsgUnregisterEvent(self._event)

    def close(self) -> None:
        """Wait no more. An event that comes later is dropped."""
        self._is_over = True
        self._disarm()


def _where(backend: Backend, coid: int) -> Optional[_Server]:
    """Which connection it is, to which channel of which process; None if it has no server, or is none."""
    info = MessageInfo()
    try:
        found = backend.ConnectServerInfo(0, coid, info)
    except OSError:
        return None
    if found != coid or info.flags & NTO_COF_DEAD:
        return None
    return info.pid, info.chid, info.scoid, life_of(backend, coid)


class _Waiting:
    """Who waits for one connection.

    A server has one event for each of them, or of each thread, and the last one counts: so all have the same, and
    whatever comes of it is for all.
    """

    def __init__(self, key: int) -> None:
        #: The value of the event.
        self.key = key
        #: Where the connection led when it was last asked.
        self.server: Optional[_Server] = None
        self.watches: Set[Watch] = set()


class _Post:
    """Where the events of this process arrive: a channel and the thread that receives there."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.RLock()  # A signal handler, or what a collection finalises, may want it, too.
        self._waiting: Dict[int, _Waiting] = {}  # By the connection.
        self._last_key = 0
        self._pause: Optional[float] = None  # How long the thread waits; None is until something comes.
        self._chid = backend.ChannelCreate(NTO_CHF_PRIVATE)
        #: What events are sent on.
        self.coid = backend.ConnectAttach(0, 0, self._chid, NTO_SIDE_CHANNEL, NTO_COF_CLOEXEC)
        threading.Thread(target=self._work, name="ha_qnx.readiness", daemon=True).start()

    def enter(self, watch: Watch, server: Optional[_Server]) -> int:
        """The key for the event of a watch, which rings from now on.

        Args:
            watch: what is about to ask.
            server: where its connection leads.
        """
        with self._lock:
            waiting = self._waiting.get(watch.coid)
            if waiting is None:
                self._last_key = self._last_key % _KEY_MAX + 1
                waiting = self._waiting[watch.coid] = _Waiting(self._last_key)
            elsewhere = waiting.watches - {watch} if waiting.server != server else set()
            waiting.watches -= elsewhere
            waiting.watches.add(watch)
            waiting.server = server
            sleeps, self._pause = self._pause is None or self._pause > _LOOK_SOON, _LOOK_SOON
        for other in elsewhere:  # They are armed where the connection leads no more.
            other.ring()
        if sleeps:
            self._backend.MsgSendPulse(self.coid, -1, 0, _KICK)
        return waiting.key

    def leave(self, watch: Watch) -> None:
        if _posts.get(self._backend) is not self:
            return  # In a forked child, its lock may be held for ever.
        with self._lock:
            waiting = self._waiting.get(watch.coid)
            if waiting is not None:
                waiting.watches.discard(watch)
                if not waiting.watches:
                    self._waiting.pop(watch.coid, None)

    def has(self, watch: Watch) -> bool:
        waiting = self._waiting.get(watch.coid)
        return _posts.get(self._backend) is self and waiting is not None and watch in waiting.watches

    def ring(self, key: int) -> None:
        """Let all ask again who wait for a connection."""
        with self._lock:
            coid = next((coid for coid, waiting in list(self._waiting.items()) if waiting.key == key), None)
            watches = set() if coid is None else self._waiting.pop(coid).watches
        for watch in watches:
            watch.ring()

    def _work(self) -> None:
        pulse = Pulse()
        while True:
            with self._lock:
                if not self._waiting:
                    self._pause = None
                pause = self._pause
            if pause is not None:
                self._backend.TimerTimeout(NTO_TIMEOUT_RECEIVE, int(pause * 1e9))
            try:
                self._backend.MsgReceivePulse(self._chid, pulse)
            except TimeoutError:
                self._look()
            except InterruptedError:
                continue
            except OSError:
                return self._end()  # The program has destroyed what is not its own.
            else:
                self.ring(pulse.value.sival_int)

    def _end(self) -> None:
        """Let who waits here ask again, and be armed elsewhere."""
        if _posts.get(self._backend) is self:
            del _posts[self._backend]
        for waiting in list(self._waiting.values()):
            self.ring(waiting.key)

    def _look(self) -> None:
        """Ring for the connections that do not lead any more where their events are armed."""
        with self._lock:
            found = [(coid, waiting.key, waiting.server) for coid, waiting in list(self._waiting.items())]
            self._pause = min(2 * (self._pause or _LOOK_SOON), _LOOK_AGAIN)
        for coid, key, server in found:
            if server is None or _where(self._backend, coid) != server:
                self.ring(key)


_posts: Dict[Backend, _Post] = {}
_posts_lock = threading.RLock()


def _post_of(backend: Backend) -> _Post:
    post = _posts.get(backend)
    if post is None:
        with _posts_lock:
            post = _posts.get(backend)
            if post is None:
                post = _posts[backend] = _Post(backend)
    return post


def _start_anew() -> None:
    """In a forked child, the threads and the channels are gone."""
    global _posts_lock
    _posts_lock = threading.RLock()
    _posts.clear()


os.register_at_fork(after_in_child=_start_anew)
