"""Servers in other processes, led step by step, and what they receive."""

import contextlib
import ctypes
import itertools
import os
import resource
import signal
import struct
import sys
import threading
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Union

from ha_qnx import EOK, FTYPE_ANY, IO_BASE, IO_CONNECT, IO_MAX, MessageInfo, Name, Pulse

from .peers import Peer
from .waiting import DEADLINE, Task, eventually

#: The open flags that tests look for in an _IO_CONNECT message; a host may add some of its own.
KNOWN_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_CREAT | os.O_TRUNC | os.O_EXCL | os.O_CLOEXEC

Start = Callable[..., Task]
StartPeer = Callable[[], Peer]


class ConnectMessage(ctypes.Structure):
    """The first 40 bytes of an _IO_CONNECT message; the path follows."""

    _fields_ = (
        ("type", ctypes.c_uint16),
        ("subtype", ctypes.c_uint16),
        ("file_type", ctypes.c_uint32),
        ("reply_max", ctypes.c_uint16),
        ("entry_max", ctypes.c_uint16),
        ("key", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("ioflag", ctypes.c_uint32),
        ("mode", ctypes.c_uint32),
        ("sflag", ctypes.c_uint16),
        ("access", ctypes.c_uint16),
        ("zero", ctypes.c_uint16),
        ("path_len", ctypes.c_uint16),
        ("eflag", ctypes.c_uint8),
        ("extra_type", ctypes.c_uint8),
        ("extra_len", ctypes.c_uint16),
    )


class DupMessage(ctypes.Structure):
    """An _IO_DUP message, with the _msg_info of 6.x inside (D27)."""

    _fields_ = (
        ("type", ctypes.c_uint16),
        ("combine_len", ctypes.c_uint16),
        ("nd", ctypes.c_uint32),
        ("srcnd", ctypes.c_uint32),
        ("pid", ctypes.c_int32),
        ("tid", ctypes.c_int32),
        ("chid", ctypes.c_int32),
        ("scoid", ctypes.c_int32),
        ("coid", ctypes.c_int32),
        ("msglen", ctypes.c_int32),
        ("srcmsglen", ctypes.c_int32),
        ("dstmsglen", ctypes.c_int32),
        ("priority", ctypes.c_int16),
        ("flags", ctypes.c_int16),
        ("reserved", ctypes.c_uint32 * 2),
        ("key", ctypes.c_uint32),
    )


class Seen(NamedTuple):
    """What a server has received; the rcvid is 0 for a pulse."""

    rcvid: int
    data: bytes
    size: int
    room: int
    pid: int
    chid: int
    coid: int
    scoid: int

    @property
    def type(self) -> int:
        """The type of an I/O message, 0 of anything else."""
        number = struct.unpack_from("=H", self.data)[0] if len(self.data) >= 2 else 0
        return number if self.rcvid and IO_BASE <= number <= IO_MAX else 0

    @property
    def pulse(self) -> Pulse:
        """The pulse that it is."""
        assert self.rcvid == 0, f"a message and no pulse: {self.data!r}"
        return Pulse.from_buffer_copy(self.data)


_names: Dict[int, Name] = {}
_paths: Dict[int, List[int]] = {}


def attach(qnx: Any, name: str) -> int:
    """In another process: take a name; its channel."""
    attached = qnx.name_attach(name)
    _names[attached.chid] = attached
    chid: int = attached.chid
    return chid


def attach_path(qnx: Any, chid: int, path: str, flags: int = 0, file_type: int = FTYPE_ANY) -> int:
    """In another process: serve a path from a channel; the number of the attachment."""
    id: int = qnx.resmgr_attach(chid, path, file_type, flags)
    _paths.setdefault(chid, []).append(id)
    return id


def detach_path(qnx: Any, chid: int, id: int) -> int:
    """In another process: serve a path no longer."""
    result: int = qnx.resmgr_detach(id)
    _paths[chid].remove(id)
    return result


def path_of(name: str) -> str:
    """The path that a server with this name has attached."""
    return f"/dev/{name}"


def attach_both(qnx: Any, name: str) -> int:
    """In another process: take a name, and serve a path from its channel; that channel."""
    chid = attach(qnx, name)
    attach_path(qnx, chid, path_of(name))
    return chid


def end_server(qnx: Any, chid: int) -> None:
    """In another process: give up a channel, its name and its paths."""
    attached = _names.pop(chid, None)
    for id in _paths.pop(chid, []):
        with contextlib.suppress(OSError):
            qnx.resmgr_detach(id)
    with contextlib.suppress(OSError):
        if attached is None:
            qnx.ChannelDestroy(chid)
        else:
            qnx.name_detach(attached)


def create_channel(qnx: Any, flags: int = 0) -> int:
    """In another process: a channel without a name."""
    chid: int = qnx.ChannelCreate(flags)
    return chid


def take(qnx: Any, chid: int, room: int = 2000) -> Seen:
    """In another process: receive a message or a pulse, and leave it unanswered."""
    buffer, info = bytearray(room), MessageInfo()
    rcvid = qnx.MsgReceive(chid, buffer, info)
    data = bytes(buffer[: info.msglen if rcvid else ctypes.sizeof(Pulse)])
    return Seen(rcvid, data, info.srcmsglen, info.dstmsglen, info.pid, info.chid, info.coid, info.scoid)


def answer(qnx: Any, chid: int, status: int = EOK, reply: bytes = b"", room: int = 2000) -> Seen:
    """In another process: receive a message and answer it."""
    seen = take(qnx, chid, room)
    assert seen.rcvid, f"a pulse rather than a message: {seen.pulse.code}"
    qnx.MsgReply(seen.rcvid, status, reply)
    return seen


def refuse(qnx: Any, chid: int, error: int) -> Seen:
    """In another process: receive a message and let it fail."""
    seen = take(qnx, chid)
    assert seen.rcvid, f"a pulse rather than a message: {seen.pulse.code}"
    qnx.MsgError(seen.rcvid, error)
    return seen


def reply(qnx: Any, rcvid: int, status: int, data: bytes) -> int:
    """In another process: answer a message that was taken before."""
    result: int = qnx.MsgReply(rcvid, status, data)
    return result


def destroy_channel(qnx: Any, chid: int) -> int:
    """In another process: destroy a channel, while the process lives on."""
    result: int = qnx.ChannelDestroy(chid)
    return result


def fork_an_idle_child(_qnx: Any) -> int:
    """In another process: a child that does nothing, and ends by itself if nobody ends it."""
    is_running, runs = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(int(2 * DEADLINE))
        os.write(runs, b"x")
        signal.pause()
        os._exit(0)
    os.close(runs)
    # What a child does not inherit it has given up by the time fork returns in it, which may be later than here.
    os.read(is_running, 1)
    os.close(is_running)
    return child


class Server:
    """A server in another process, led step by step, with a name and a path; or with neither, and a channel only."""

    def __init__(self, peer: Peer, name: str = "", flags: int = 0) -> None:
        self.peer = peer
        self.pid = peer.pid
        self._is_gone = threading.Event()
        self.path = path_of(name)
        #: The number of an attachment that a test wants to know again.
        self.id = -1
        self.chid: int = self._run(attach_both, name) if name else self._run(create_channel, flags)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function there in a thread: one that waits in vain does not keep the process from going on."""
        called = self.peer.start(function, *args)
        eventually(lambda: called.done, f"{function.__name__} in the other process")
        return called.result()

    def take(self, room: int = 2000) -> Seen:
        """Receive a message or a pulse."""
        seen: Seen = self._run(take, self.chid, room)
        return seen

    def answer(self, status: int = EOK, reply: bytes = b"") -> Seen:
        """Receive a message and answer it."""
        seen: Seen = self._run(answer, self.chid, status, reply)
        return seen

    def refuse(self, error: int) -> Seen:
        """Receive a message and let it fail."""
        seen: Seen = self._run(refuse, self.chid, error)
        return seen

    def reply(self, seen: Seen, status: int = EOK, data: bytes = b"") -> None:
        """Answer a message that was taken."""
        self._run(reply, seen.rcvid, status, data)

    def attach(self, path: str, flags: int = 0, file_type: int = FTYPE_ANY) -> int:
        """Serve one more path; the number of the attachment."""
        id: int = self._run(attach_path, self.chid, path, flags, file_type)
        return id

    def detach(self, id: int) -> int:
        """Serve a path no longer."""
        result: int = self._run(detach_path, self.chid, id)
        return result

    def destroy_channel(self) -> None:
        """Destroy the channel, and live on."""
        self._run(destroy_channel, self.chid)

    def end(self) -> None:
        """Give up the name and the channel, and live on."""
        self._run(end_server, self.chid)

    def lose(self, state: str, begin: Callable[[], Task]) -> Task:
        """Kill it before a client's call begins ("idle"), or while it has that message ("waiting"); the call."""
        if state == "idle":
            self.kill()
        task = begin()
        if state == "waiting":
            self.take()
            self.kill()
        return task

    def kill(self) -> None:
        """Die by SIGKILL."""
        self.peer.kill()
        self._is_gone.set()

    def wait_until_gone(self) -> None:
        """Wait, in another thread than the one that kills it, until nothing is left of the process.

        A client hears of the death while the host still closes what the process had, its name for instance.
        """
        assert self._is_gone.wait(DEADLINE), "nobody has killed the server"


def opened(
    qnx: Any, start: Start, server: Server, oflag: int = os.O_RDWR, path: "Optional[Union[str, bytes]]" = None
) -> int:
    """A descriptor of a server's path, or of another one that it serves."""
    task = start(qnx.open, path or server.path, oflag)
    assert server.answer().type == IO_CONNECT
    fd: int = task.result()
    return fd


def next_number() -> int:
    """The descriptor that would be given out next.

    A lower one can become free at any moment, when a library closes in the background what belonged to a dead server of
    an earlier test: that no number was lost is seen by <=, not by ==.
    """
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number


def is_descriptor(number: int) -> bool:
    """Whether a number is an open descriptor of this process."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def take_descriptors(limit: int) -> List[int]:
    """Bound the descriptors of the calling process, and take all that are free; those that it has taken."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken: List[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    return taken


def free_numbers(start: int) -> Iterator[int]:
    """The descriptor numbers that are free at this moment, from one on."""
    return (number for number in itertools.count(start) if not is_descriptor(number))


def become_another_program(*_args: Any) -> None:
    """In another process: replace this program by one that does nothing and ends by itself."""
    code = f"import signal; signal.alarm({int(2 * DEADLINE)}); signal.pause()"
    os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606  # our own interpreter
