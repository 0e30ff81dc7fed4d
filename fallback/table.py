"""The connections of this process by number.

A connection ID below NTO_SIDE_CHANNEL is a descriptor of this process. What lies under it is a placeholder, which can
neither be read nor written; the lanes of the connection are elsewhere. The placeholder's file position, a random
number, marks it as ours, so a number that was closed and taken by something else is noticed before it is used (D17).
"""

import contextlib
import fcntl
import math
import operator
import os
import resource
import socket
import threading
import time
from errno import EBADF, EINVAL, EMFILE, ESRCH, ETIMEDOUT
from typing import Callable, Dict, NamedTuple, Optional, Set, Tuple

from ha_qnx.constants import (
    NTO_CHF_COID_DISCONNECT,
    NTO_COF_CLOEXEC,
    NTO_COF_DEAD,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_SEND,
)
from ha_qnx.errors import failure
from ha_qnx.structures import MessageInfo

from . import host, limits
from .channels import Channel
from .connections import Connection, RefusedError, Trunk, flags_now
from .deliveries import CHANNEL_GONE, CONNECTION, NO_CONNECTION, Inlets, Said
from .exchange import announce_copy
from .forking import all_of
from .numbers import Slots
from .runtime import ChannelAddress, Runtime, is_ending
from .threads import Threads


class _Placeholders:
    """Makes the descriptors that lie under connection IDs."""

    def __init__(self) -> None:
        self._sealed = -1

    def place(self, index: int, cookie: int) -> int:
        """Put a placeholder under the lowest free number from ``index`` on.

        Raises:
            OSError: EMFILE, ENFILE, ENOMEM.
        """
        fd = host.out_of_the_way(self._open())  # Or it would itself take the lowest number.
        try:
            os.lseek(fd, cookie, os.SEEK_SET)
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, index)
        finally:
            os.close(fd)

    def _open(self) -> int:
        if host.PORTABLE:
            return host.unlinked_file()
        if self._sealed < 0:
            fd = os.memfd_create("ha_qnx placeholder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            sealed = host.out_of_the_way(fd)
            if self._sealed < 0:
                self._sealed = sealed
            else:
                os.close(sealed)  # A signal handler has made one in the meantime.
        # Opened for writing only, and sealed against it: os.read and os.write fail, rather than mislead.
        return os.open(f"/proc/self/fd/{self._sealed}", os.O_WRONLY | os.O_CLOEXEC)


class Inherited(NamedTuple):
    """A connection that this process was left by a fork or an exec and has not used yet (D13, B278)."""

    address: ChannelAddress
    flags: int
    cookie: int
    # The parent's connection, of which this one is the copy; None after an exec, which copies nothing.
    original: Optional[MessageInfo]

    def describe(self, coid: int) -> MessageInfo:
        """The server's side of it; whether the server is gone shows at the first use."""
        flags = flags_now(coid, self.flags)
        return MessageInfo(pid=self.address.pid, chid=self.address.chid, coid=coid, flags=flags)


# Where a process leaves word, for the program it may become, of its connections that are not close-on-exec.
_LEFT = "HA_QNX_CONNECTIONS"


def _left_by_exec() -> Dict[int, Inherited]:
    """The connections that the program before this one left open."""
    found = {}
    for entry in filter(None, os.environ.get(_LEFT, "").split(",")):
        with contextlib.suppress(ValueError):
            coid, cookie, flags, place = entry.split(":")
            address = ChannelAddress.parse(place)
            if address is not None and _is_marked(int(coid), int(cookie)):
                found[int(coid)] = Inherited(address, int(flags), int(cookie), None)
    return found


class Way(NamedTuple):
    """The way that a pulse goes: by a trunk, to a channel of this process or (None) of another."""

    trunk: Trunk
    channel: Optional[Channel]


class ConnectionTable:
    """The connections of this process, and the trunks they share.

    Every change happens under the lock, which a fork waits for: no child inherits a connection that is half made. A
    signal handler does not wait for it where its thread has it already: it may make and end connections between any two
    steps of what it has interrupted. So what is found counts only once a single step holds it, or takes it out.
    """

    def __init__(
        self,
        slots: Slots,
        channels: Dict[int, Channel],
        runtime: Callable[[], Runtime],
        threads: Threads,
    ) -> None:
        self.lock = threading.RLock()
        self.entries: Dict[int, Connection] = {}
        # Called with the number of a connection that is about to begin or to end.
        self.before_change: Optional[Callable[[int], None]] = None
        self.said = Said()
        self.inlets = Inlets(self._forward, self._watch_inlet, self._unwatch_inlet)
        self._inherited = _left_by_exec()
        self._trunks: Set[Trunk] = set()
        self._slots = slots
        self._channels = channels
        self._runtime = runtime
        self._threads = threads
        self._placeholders = _Placeholders()

    # Looking up.

    def get(self, coid: int) -> Connection:
        """The connection under a number.

        Raises:
            TypeError: the number is no integer.
            OSError: EBADF, there is no such connection, or something else has its number by now; else what a server
                says to the copy of a connection that a forked child uses for the first time.
        """
        connection = self.entries.get(coid)
        if connection is None:
            if coid not in self._inherited:
                operator.index(coid)
                raise failure(EBADF)
            connection = self._revive(coid)
        if connection.cookie and not _is_marked(coid, connection.cookie):
            # It stays here until it is closed or the host gives its number to a new descriptor of ours: as long as it
            # does, nothing that is meant for it is written to what has the number by now (D17).
            connection.detach()
            raise failure(EBADF)
        return connection

    def describe_from(self, coid: int, with_dead: bool) -> MessageInfo:
        """The connection with this number or the next higher one, side channels last (B64 to B68).

        Raises:
            OSError: EINVAL, there is no such connection.
        """
        for number in sorted(number for number in (*self.entries, *self._inherited) if number >= coid):
            inherited = self._inherited.get(number)
            if inherited is not None:
                if _is_marked(number, inherited.cookie):
                    return inherited.describe(number)
                continue
            with contextlib.suppress(OSError):
                connection = self.get(number)
                is_alive = connection.is_alive()
                if with_dead or is_alive:
                    found = connection.describe(connection.trunk.address.pid)
                    found.flags |= 0 if is_alive else NTO_COF_DEAD
                    return found
        raise failure(EINVAL)

    def way_of_pulses(self, coid: int) -> Optional[Way]:
        """Where a pulse of a timer goes; None if there is no such connection, or its channel is no more."""
        connection = self.entries.get(coid)
        if connection is None or connection.detached:
            return None
        if connection.cookie and not _is_marked(coid, connection.cookie):
            return None
        trunk = connection.trunk
        if trunk.address.pid != os.getpid():
            return Way(trunk, None)
        channel = self._channels.get(trunk.address.chid)
        return Way(trunk, channel) if channel is not None and channel.address == trunk.address else None

    def is_ours(self, number: int) -> bool:
        """Whether a number is in this table, which does not yet mean that it still has its descriptor."""
        return number in self.entries or number in self._inherited

    def is_open(self, number: int) -> bool:
        """Whether a number is a connection: one of ours, or any other open descriptor of the host."""
        connection = self.entries.get(number) or self._inherited.get(number)
        if connection is not None:
            return not connection.cookie or _is_marked(number, connection.cookie)
        return is_host_descriptor(number)

    # Making.

    def attach(self, address: ChannelAddress, index: int, flags: int) -> Connection:
        """A new connection under the lowest free number from ``index`` on.

        Raises:
            OSError: ESRCH, there is no such channel; EINVAL or EMFILE for the number; EAGAIN, the server has no room
                for another client; ETIMEDOUT, it takes none in (D126).
        """
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if not index & NTO_SIDE_CHANNEL and not 0 <= index < limit:
            raise failure(EINVAL)
        if len(self.entries) >= limit:
            raise failure(EMFILE)
        return self._add(address, flags, lambda connection: self._number(connection, index))

    def attach_at(self, coid: int, address: ChannelAddress, flags: int) -> Connection:
        """A new connection in place of an old one, whose number nobody else gets in the meantime (D6).

        Raises:
            OSError: EBADF, the number belongs to something else by now; else as attach, and the old connection is dead
                but keeps its number.
        """
        with self.lock:
            self.end(coid)
            return self._add(address, flags, lambda connection: self._take_over(connection, coid))

    def end(self, coid: int) -> None:
        """Let a connection die that is to be replaced; its number stays taken (D6).

        Raises:
            OSError: EBADF, the number belongs to something else by now.
        """
        with self.lock:
            old = self.entries.get(coid)
            if old is not None:
                self._announce_change(coid)
                self._hear_of_death(old.trunk)
                old.detach()
                if old.cookie and not _is_marked(coid, old.cookie) and is_host_descriptor(coid):
                    raise failure(EBADF)
            else:
                self._lose(coid)

    def copy(self, original: Connection, index: int, exactly: bool = False) -> Connection:
        """Another connection to the same channel, for the same client.

        Raises:
            OSError: EBADF, the exact number is taken; EMFILE.
        """
        with self.lock:
            self._hear_of_death(original.trunk)
            connection = Connection(original.trunk, original.flags | NTO_COF_CLOEXEC)
            try:
                self._number(connection, index, exactly)
            except BaseException:
                connection.detach()
                raise
            return connection

    def _add(self, address: ChannelAddress, flags: int, give_number: Callable[[Connection], None]) -> Connection:
        timeout = self._threads.armed_timeout()
        limit = timeout.deadline() if timeout is not None and timeout.flags & NTO_TIMEOUT_SEND else math.inf
        pause = limits.RETRY_MIN
        while True:
            with self.lock:
                try:
                    connection = self._connect(address, flags)
                except RefusedError:
                    raise
                except BlockingIOError:
                    # So many clients wait for the server to notice them that the host takes no more (D126).
                    if time.monotonic() >= limit:
                        raise failure(ETIMEDOUT) from None
                else:
                    try:
                        give_number(connection)
                    except BaseException:
                        connection.detach()
                        raise
                    return connection
            time.sleep(pause)
            pause = min(2 * pause, limits.RETRY_MAX)

    def _number(self, connection: Connection, index: int, exactly: bool = False) -> None:
        """Enter a connection under the lowest free number from ``index`` on."""
        if index & NTO_SIDE_CHANNEL:
            slot = index & ~NTO_SIDE_CHANNEL
            if not exactly:
                slot = self._slots.take()
            elif not self._slots.take_exactly(slot):
                raise failure(EBADF)
            coid = slot | NTO_SIDE_CHANNEL
        else:
            connection.cookie = int.from_bytes(os.urandom(5), "little") | 1 << 40
            coid = self._placeholders.place(index, connection.cookie)
            if exactly and coid != index:
                os.close(coid)
                raise failure(EBADF)
        self._announce_change(coid)
        self._inherited.pop(coid, None)
        stale = self.entries.pop(coid, None)
        if stale is not None:
            stale.detach()  # Its descriptor was closed behind our back, or the number would not have been free.
        connection.coid = coid
        self.entries[coid] = connection
        self.said.say(coid, CONNECTION)

    def _take_over(self, connection: Connection, coid: int) -> None:
        old = self.entries.get(coid) or self._inherited.get(coid)
        if old is None or (old.cookie and not _is_marked(coid, old.cookie)):
            self._number(connection, coid, exactly=True)
        else:
            connection.coid, connection.cookie = coid, old.cookie
            # It lies under the descriptor that is there, which keeps its close-on-exec flag.
            connection.flags = connection.flags & ~NTO_COF_CLOEXEC | old.flags & NTO_COF_CLOEXEC
            self._announce_change(coid)
            self._inherited.pop(coid, None)
            self.entries[coid] = connection
            self.said.say(coid, CONNECTION)
            if not connection.flags & NTO_COF_CLOEXEC:
                self.leave_word()

    def _connect(self, address: ChannelAddress, flags: int) -> Connection:
        """A connection that has no number yet, on the trunk that there is, or one of its own."""
        if not flags & NTO_COF_NOSHARE:
            # One that asked not to share it did so for itself: where there is no other, it is shared (B47).
            for trunk in sorted(self._trunks, key=lambda trunk: not trunk.shared):
                # Of a process that is killed, the trunk may stand a moment longer than a lane (B40).
                if address.matches(trunk.address) and trunk.read_news() and not _is_ending(address.pid):
                    connection = Connection(trunk, flags | NTO_COF_CLOEXEC)
                    if trunk in self._trunks:
                        return connection
                    connection.detach()  # A signal handler has ended the last connection that was on it.
        trunk = self._new_trunk(address, flags)
        connection = Connection(trunk, flags | NTO_COF_CLOEXEC)
        self._trunks.add(trunk)
        for watching in self._channels.values():
            watching.watch_own_trunk(trunk)
        return connection

    def _new_trunk(self, address: ChannelAddress, flags: int) -> Trunk:
        channel = self._channels.get(address.chid) if address.pid == os.getpid() else None
        is_shared = not flags & NTO_COF_NOSHARE
        if channel is not None and address.matches(channel.address):
            near, far = socket.socketpair()
            trunk = Trunk(
                host.socket_out_of_the_way(near), channel.address, is_shared, self._retire, self.said, self.inlets
            )
            client = channel.adopt(host.socket_out_of_the_way(far))
            trunk.is_waited_on, trunk.tell_channel = channel.is_waited_on, lambda: channel.hear_ends(client)
            trunk.far_end = client
            return trunk
        sock, found = self._reach(address)
        try:
            return Trunk(sock, found, is_shared, self._retire, self.said, self.inlets)
        except OSError as error:
            sock.close()
            if error.errno != EBADF:
                raise
            raise failure(ESRCH) from None

    def _reach(self, address: ChannelAddress) -> Tuple[socket.socket, ChannelAddress]:
        """A socket to a channel of another process, and the channel's whole address."""
        runtime = self._runtime()
        refusal = failure(ESRCH)
        for candidate in [address] if address.token else filter(address.matches, runtime.channels()):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.connect(runtime.socket_path(candidate))
                # A process that is killed, or in exit, may listen for a moment more (B40).
                if runtime.may_answer(sock, candidate) and not _is_ending(candidate.pid):
                    return host.socket_out_of_the_way(sock), candidate
                sock.close()
            except (ConnectionRefusedError, FileNotFoundError):
                sock.close()
            except BlockingIOError as error:
                sock.close()
                refusal = error  # Of a socket that somebody else may have made under these numbers.
            except BaseException:
                sock.close()
                raise
        raise refusal

    # Ending.

    def detach(self, coid: int) -> None:
        """End a connection and free its number.

        Raises:
            OSError: EBADF, there is no connection under this number.
        """
        with self.lock:
            if self._drop_inherited(coid):
                return
            try:
                connection = self.get(coid)
            except OSError:
                self.give_way(coid)
                raise
            self._forget(connection)
            if connection.cookie:
                os.close(coid)
            connection.detach()

    def _drop_inherited(self, coid: int) -> bool:
        """Free the number of a connection of the parent that was not used here; whether it was one still."""
        if coid in self._inherited:
            self._announce_change(coid)
        inherited = self._inherited.pop(coid, None)
        if inherited is None or not _is_marked(coid, inherited.cookie):
            return False
        self.said.say(coid, NO_CONNECTION)
        os.close(coid)
        return True

    def make_way(self, number: int) -> None:
        """Free a number for a descriptor of the host that is to replace what is under it.

        Raises:
            OSError: EBADF, it was a connection of ours and is something else by now.
        """
        if self.is_ours(number) and is_host_descriptor(number):
            self._release_number(number)

    def give_way(self, number: int) -> None:
        """The host has given a number to a new descriptor of the program: what had it before was closed."""
        with self.lock:
            connection = self.entries.get(number)
            if connection is not None and not self.is_open(number):
                self._forget(connection)
                connection.detach()

    def _release_number(self, coid: int) -> None:
        """End a connection whose descriptor is about to be replaced by one of the host.

        Raises:
            OSError: EBADF, the descriptor is something else by now.
        """
        with self.lock:
            inherited = self._inherited.pop(coid, None)
            if inherited is not None:
                if not _is_marked(coid, inherited.cookie):
                    raise failure(EBADF)
                return
            connection = self.get(coid)
            self._forget(connection)
            connection.detach()

    def _announce_change(self, coid: int) -> None:
        if self.before_change is not None:
            self.before_change(coid)

    def _forget(self, connection: Connection) -> None:
        """Take a connection out of the table.

        Raises:
            OSError: EBADF, a signal handler has done so in the meantime.
        """
        self._announce_change(connection.coid)
        self._hear_of_death(connection.trunk)
        entry = self.entries.pop(connection.coid, None)
        if entry is not connection:
            if entry is not None:
                self.entries[connection.coid] = entry
            raise failure(EBADF)
        self.said.say(connection.coid, NO_CONNECTION)
        if connection.coid & NTO_SIDE_CHANNEL:
            trunk = connection.trunk
            if trunk.tell_channel is not None and not trunk.far_end.scoid:
                # Else the channel would give its number to the client, as a scoid, which ConnectDetach takes, too.
                trunk.tell_channel()
            self._slots.give_back(connection.coid & ~NTO_SIDE_CHANNEL)

    def _retire(self, trunk: Trunk) -> None:
        """Close a trunk that no connection uses any more."""
        with self.lock:
            if trunk.connections or trunk not in self._trunks:
                return
            self._trunks.discard(trunk)
            if trunk.connections:
                self._trunks.add(trunk)  # A signal handler came first.
                return
            for channel in self._channels.values():
                channel.forget_own_trunk(trunk)
            for fd in self.inlets.of(trunk):
                self._unwatch_inlet(fd)
            trunk.close()
            if trunk.tell_channel is not None:
                trunk.tell_channel()
            # A channel that is destroyed is closed once nothing leads to it, and not when a collector finds it.
            trunk.is_waited_on = trunk.tell_channel = trunk.far_end = None

    # What servers say, and that they go.

    def listen_by(self, channel: Channel) -> None:
        """Let a new channel hear what servers say that this process is connected to."""
        with self.lock:
            for trunk in list(self._trunks):
                if trunk.read_news():
                    channel.watch_own_trunk(trunk)
            for fd in list(self.inlets.descriptors):
                channel.watch_inlet(fd)

    def _hear_of_death(self, trunk: Trunk) -> None:
        """Before a connection ends or gets another server: if its server has gone, the pulse is on its way."""
        for channel in list(self._channels.values()):
            if channel.flags & NTO_CHF_COID_DISCONNECT:
                channel.hear_own_trunk(trunk.fd)

    def _watch_inlet(self, fd: int) -> None:
        for channel in list(self._channels.values()):
            channel.watch_inlet(fd)

    def _unwatch_inlet(self, fd: int) -> None:
        for channel in list(self._channels.values()):
            channel.forget_inlet(fd)

    def _forward(self, coid: int, frame: bytes) -> None:
        way = self.way_of_pulses(coid)
        if way is not None:
            way.trunk.pulse(frame)

    def say_destroyed(self, channel: Channel) -> None:
        """Say what has become of the connections to a channel of this process that is destroyed."""
        for coid, connection in self.entries.items():
            if connection.trunk.address == channel.address:
                self.said.say(coid, CHANNEL_GONE)
        for trunk in list(self._trunks):
            if trunk.address == channel.address:
                self._hear_of_death(trunk)

    # Forking, and becoming another program.

    def leave_word(self) -> None:
        """Let the program that this process may become find the connections that are not close-on-exec (B278)."""
        known = [(coid, kept.cookie, kept.flags, kept.address) for coid, kept in self._inherited.items()]
        known += [(coid, made.cookie, made.flags, made.trunk.address) for coid, made in self.entries.items()]
        staying = [
            f"{coid}:{cookie}:{flags}:{address}"
            for coid, cookie, flags, address in known
            if cookie and not flags & NTO_COF_CLOEXEC
        ]
        if staying or _LEFT in os.environ:
            os.environ[_LEFT] = ",".join(staying)

    def prepare_fork(self) -> None:
        """Take in what servers have said: what a child read from its parent's trunks would be lost to the parent."""
        for trunk in self._trunks:
            trunk.stands_at_fork = trunk.read_news()

    def close_in_child(self) -> None:
        """In a forked child: close all that is the parent's."""
        connections = [connection.close_in_child for connection in self.entries.values()]
        all_of([*connections, *(trunk.close for trunk in self._trunks), self.said.close])

    def inherit(self, parent: int, table: "ConnectionTable") -> None:
        """Take over the connections of the parent, but no dead ones (B276). Each is made anew when it is used (D13)."""
        self._inherited = dict(table._inherited)
        for coid, connection in table.entries.items():
            if connection.cookie and (connection.detached or not connection.trunk.stands_at_fork):
                if _is_marked(coid, connection.cookie):
                    os.close(coid)
            elif connection.cookie:
                address, original = connection.trunk.address, connection.describe(parent)
                self._inherited[coid] = Inherited(address, connection.flags, connection.cookie, original)

    def _lose(self, coid: int) -> None:
        """Under the lock: have a dead connection in place of what was inherited and not used, whose number it keeps.

        Raises:
            OSError: EBADF, the number belongs to something else by now; EMFILE, ENFILE, ENOMEM.
        """
        inherited = self._inherited.get(coid)
        if inherited is None:
            return
        self._announce_change(coid)
        if not _is_marked(coid, inherited.cookie):
            self._inherited.pop(coid, None)
            if is_host_descriptor(coid):
                raise failure(EBADF)
            return
        near, far = socket.socketpair()
        with far:
            sock = host.socket_out_of_the_way(near)
            trunk = Trunk(sock, inherited.address, False, self._retire, self.said, self.inlets)
        connection = Connection(trunk, inherited.flags)
        connection.coid, connection.cookie = coid, inherited.cookie
        self._trunks.add(trunk)
        connection.detach()
        self._inherited.pop(coid, None)
        self.entries[coid] = connection

    def _revive(self, coid: int) -> Connection:
        """Make a connection of the parent anew; the server gets an _IO_DUP, as fork sends it on QNX (B271, B272)."""
        with self.lock:
            inherited = self._inherited.get(coid)
            if inherited is None:
                return self.get(coid)
            if not _is_marked(coid, inherited.cookie):
                del self._inherited[coid]
                raise failure(EBADF)
            try:
                connection = self._add(inherited.address, inherited.flags, lambda _connection: None)
            except RefusedError:
                raise
            except OSError as error:
                if error.errno == ESRCH:
                    with contextlib.suppress(OSError):
                        self._lose(coid)
                raise failure(EBADF) from None
            connection.coid, connection.cookie, connection.flags = coid, inherited.cookie, inherited.flags
        try:
            if inherited.original is not None:
                announce_copy(connection, inherited.original, self._threads)
        except BaseException:
            connection.detach()
            raise
        with self.lock:
            if self._inherited.pop(coid, None) is None:
                connection.detach()
                return self.get(coid)
            self.entries[coid] = connection
            self.said.say(coid, CONNECTION)
            return connection


def _is_ending(pid: int) -> bool:
    return pid != os.getpid() and is_ending(pid)


def _is_marked(fd: int, cookie: int) -> bool:
    try:
        return os.lseek(fd, 0, os.SEEK_CUR) == cookie
    except OSError:
        return False


def is_host_descriptor(number: int) -> bool:
    """Whether a number is any open descriptor of this process."""
    if not 0 <= number < NTO_SIDE_CHANNEL:
        return False
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True
