"""Sessions with a server that somebody hostile makes up, beside an honest client, which has to notice nothing.

A session is made by a generator with a seed of its own, from frames that are right, mutated or noise, and from
descriptors of every kind. What has failed once stands in ``seeds.txt``, and is played again each time.
"""

import contextlib
import functools
import itertools
import os
import pathlib
import random
import select
import signal
import socket
import struct
import time
from typing import Callable, Counter, List, NamedTuple, Sequence, Set, Tuple

from ha_qnx.fallback import wire

from .accounting import THREADS, calm
from .accounts import NOBODY, request_of
from .attacker import HELLO, PULSE_LANE, Attacker, lane_frame, pulse
from .stage import Process, Stage
from .steps import beyond

SEEDS = pathlib.Path(__file__).with_name("seeds.txt")

#: What a server may have grown by when the sessions are over: pages of allocators.
_GROWTH = 24 << 20

#: The honest client, by a number that no mutated request has.
_HONEST = 7_654_321

#: How long a session waits for an answer that may not come, in seconds.
_WAIT = 0.005

#: So many attack at once: most of the time, one waits for what may not come.
_ABREAST = 4

_NUMBERS = (
    0,
    1,
    7,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 16,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)


class Session:
    """One connection to a server, and what is passed on it. No call of it waits for long."""

    def __init__(self, path: pathlib.Path, rng: random.Random) -> None:
        self._rng = rng
        #: How often something was answered on a lane.
        self.answers = 0
        self._open_now: Set[int] = set()
        self._writes: List[int] = []  # near ends of what was passed, to write to
        self._reads: List[int] = []
        self._passed: List[int] = []
        self._attacker = Attacker(path)
        self._attacker.sock.settimeout(_WAIT)

    def play(self) -> None:
        """Do some of it, and go."""
        odd = (self._trunk, self._pulses, self._fiddle)
        usual = (self._lane, self._message, self._message)
        try:
            if self._rng.random() < 0.95:
                self._send(HELLO if self._rng.random() < 0.95 else self._mutated(HELLO))
            for _action in range(self._rng.randrange(1, 12)):
                with contextlib.suppress(OSError):
                    self._rng.choice(odd if self._rng.random() < 0.25 else usual)()
        finally:
            self._attacker.close()
            for fd in list(self._open_now):
                self._close(fd)

    # What it does.

    def _trunk(self) -> None:
        """A frame on the trunk, perhaps with descriptors."""
        frame = self._rng.choice((HELLO, PULSE_LANE, lane_frame(), lane_frame(1 << 16), self._noise(32)))
        self._send(self._mutated(frame), [self._descriptor() for _fd in range(self._rng.choice((0, 0, 1, 2, 3, 7)))])

    def _lane(self) -> None:
        """A lane, of pipes as it should be, or of something else."""
        window = self._often(0, self._often(1 << 16, self._rng.choice(_NUMBERS)))
        if self._rng.random() < 0.15:
            self._send(lane_frame(window), [self._descriptor() for _fd in range(2 + bool(window))])
            return
        theirs, ours = self._pipe()
        back, answers = self._pipe()
        passed = [theirs, answers]
        if window:
            passed.append(self._descriptor() if self._rng.random() < 0.3 else self._memory(min(window, 1 << 20)))
        self._writes.append(ours)
        self._reads.append(back)
        if self._rng.random() < 0.1:
            self._rng.shuffle(passed)
        self._send(lane_frame(window, self._often(7, self._rng.choice(_NUMBERS) & 0x7FFFFFFF)), passed)

    def _message(self) -> None:
        """A message on a lane, or what looks like one."""
        body = self._rng.choice((b"", request_of(NOBODY, 1), self._noise(100), self._io_message()))
        kind = self._often(
            wire.MESSAGE, self._rng.choice((17, 18, 19, 20, 32, 33, 34, 48, self._rng.randrange(1 << 16)))
        )
        frame = struct.pack("=HHiQQQ", kind, self._rng.choice((10, 0xFFFF)), 1, len(body), 64, 0) + body
        self._write(frame if self._rng.random() < 0.8 else self._mutated(frame))
        if self._rng.random() < 0.7:
            self._hear_out()

    def _io_message(self) -> bytes:
        """What a path's server takes for one of open, read, write and their like."""
        return struct.pack("=HH", self._rng.randrange(0x100, 0x120), self._rng.randrange(8)) + self._noise(60)

    def _pulses(self) -> None:
        """A pipe for pulses, and some in it."""
        theirs, ours = self._pipe()
        self._writes.append(ours)
        self._send(PULSE_LANE, [theirs])
        codes = [self._rng.choice((5, -32, -33, -34, -128, 127, 1000)) for _pulse in range(self._rng.randrange(20))]
        for code in codes:
            frame = pulse(code, self._rng.randrange(1 << 31), self._rng.choice((0, 10, 255, 0xFFFF)))
            self._write(frame if self._rng.random() < 0.8 else self._mutated(frame))

    def _fiddle(self) -> None:
        """Change what was passed, or leave."""
        if self._passed and self._rng.random() < 0.3:
            os.set_blocking(self._rng.choice(self._passed), True)
        elif self._writes and self._rng.random() < 0.5:
            ends = self._rng.choice((self._writes, self._reads or self._writes))
            self._close(ends.pop(self._rng.randrange(len(ends))))
        elif self._rng.random() < 0.5:
            self._attacker.sock.shutdown(self._rng.choice((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR)))
        else:
            linger = struct.pack("ii", 1, 1000)
            self._attacker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _hear_out(self) -> None:
        """Wait until something is answered on a lane, or the server closes the trunk; not for long."""
        trunk = self._attacker.sock.fileno()
        end = time.monotonic() + _WAIT
        while self._reads and time.monotonic() < end:
            ready = select.select([trunk, *self._reads], [], [], max(0.0, end - time.monotonic()))[0]
            heard = [os.read(fd, 4096) for fd in ready]
            self.answers += sum(fd != trunk and bool(data) for fd, data in zip(ready, heard))
            if ready != [trunk] or not heard[0]:
                return

    # What it is done with.

    def _often(self, usual: int, odd: int) -> int:
        return usual if self._rng.random() < 0.85 else odd

    def _send(self, frame: bytes, descriptors: Sequence[int] = ()) -> None:
        self._passed += descriptors
        with contextlib.suppress(OSError):
            self._attacker.send(frame, descriptors)

    def _write(self, frame: bytes) -> None:
        if self._writes:
            os.write(self._rng.choice(self._writes[-2:]), frame)

    def _noise(self, most: int) -> bytes:
        size = self._rng.randrange(most)
        return self._rng.getrandbits(8 * size + 1).to_bytes(size + 1, "little")[:size]

    def _mutated(self, frame: bytes) -> bytes:
        """A frame in which a number is another one, or that is cut, or longer, or comes twice."""
        kind = self._rng.randrange(6)
        if kind == 0:
            return frame[: self._rng.randrange(len(frame) + 1)]
        if kind == 1:
            return frame + self._noise(5000)
        if kind == 2:
            return frame * self._rng.randrange(2, 40)
        changed = bytearray(frame)
        size = self._rng.choice((1, 2, 4, 8))
        place = self._rng.randrange(max(1, len(frame) // size)) * size
        number = self._rng.choice((*_NUMBERS, self._rng.getrandbits(64))) % (1 << 8 * size)
        changed[place : place + size] = number.to_bytes(size, "little")
        return bytes(changed[: len(frame)])

    def _kept(self, fd: int) -> int:
        """Our descriptor, until the session is over."""
        self._open_now.add(fd)
        return fd

    def _close(self, fd: int) -> None:
        self._open_now.remove(fd)
        os.close(fd)

    def _pipe(self) -> Tuple[int, int]:
        read, write = os.pipe()
        os.set_blocking(write, False)
        os.set_blocking(read, False)
        return self._kept(read), self._kept(write)

    def _memory(self, size: int) -> int:
        fd = self._kept(os.memfd_create("hostile", os.MFD_ALLOW_SEALING))
        os.ftruncate(fd, size)
        return fd

    def _socket(self, near: socket.socket) -> int:
        return self._kept(near.detach())

    def _descriptor(self) -> int:
        """One of every kind."""
        kinds: List[Callable[[], int]] = [
            lambda: self._pipe()[0],
            lambda: self._pipe()[1],
            self._full_pipe,
            lambda: self._socket(self._pair()),
            lambda: self._socket(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)),
            self._listener,
            lambda: self._attacker.sock.fileno(),
            lambda: self._open("/", os.O_RDONLY | os.O_DIRECTORY),
            lambda: self._open("/", os.O_PATH),
            lambda: self._open("/dev/zero", os.O_RDWR),
            lambda: self._open("/dev/null", os.O_RDWR),
            lambda: self._open("/dev/full", os.O_RDWR),
            lambda: self._open("/proc/self/mem", os.O_RDONLY),
            lambda: self._memory(self._rng.choice((0, 1, 100, 1 << 16))),
            self._epoll,
        ]
        return self._rng.choice(kinds)()

    def _open(self, path: str, flags: int) -> int:
        return self._kept(os.open(path, flags))

    def _pair(self) -> socket.socket:
        one, other = socket.socketpair(socket.AF_UNIX, self._rng.choice((socket.SOCK_STREAM, socket.SOCK_SEQPACKET)))
        other.setblocking(False)
        self._writes.append(self._socket(other))
        return one

    def _full_pipe(self) -> int:
        read, write = self._pipe()
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, bytes(4096))
        return self._rng.choice((read, write))

    def _listener(self) -> int:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("")  # Linux finds a name for it.
        listener.listen()
        return self._socket(listener)

    def _epoll(self) -> int:
        epoll = select.epoll()
        with contextlib.suppress(OSError):
            epoll.register(self._attacker.sock)
        return self._kept(os.dup(epoll.fileno()))


class Batch(NamedTuple):
    """Some sessions in a row, which their seeds repeat."""

    seed: int
    first: int
    length: int = 200

    def play(self, stage: Stage, server: Process) -> None:
        """In a process of its own: all of them."""
        rooms = stage.directory / "run" / f"wire-{wire.VERSION}" / "channels"
        paths = sorted(rooms.glob(f"{server.pid}.*"))
        answers = 0
        for number in range(self.first, self.first + self.length):
            rng = random.Random(f"{self.seed}/{number}")  # noqa: S311  # no secret depends on it
            session = Session(rng.choice(paths), rng)
            session.play()
            answers += session.answers
        stage.me.tell(answers)


def kept() -> List[Batch]:
    """Those that have found something once."""
    lines = SEEDS.read_text().splitlines()
    return [Batch(*map(int, line.split()[:3])) for line in lines if line and not line.startswith("#")]


def fuzz(stage: Stage, rng: random.Random, seconds: float, total: "Counter[str]") -> None:
    """Sessions beside an honest client, the kept ones first; they are counted, what they cost is noted as faults."""
    server = stage.serve(threads=2)
    server.hear()
    # Mutated requests are written down like others, under numbers of clients that they make up.
    stage.only_client = THREADS * _HONEST
    stage.client(lambda _number: calm(stage, _HONEST)).hear()
    seed = rng.randrange(1 << 31)
    _attack(stage, server, total, Batch(seed, 0))
    descriptors, memory = server.descriptors, server.memory
    end = time.monotonic() + seconds
    batches = itertools.chain(kept(), (Batch(seed, first) for first in itertools.count(200, 200)))
    while not sum(stage.faults.values()) and time.monotonic() < end:
        abreast = list(itertools.islice(batches, _ABREAST))
        before = stage.ledger.size
        stage.faults["hung"] += _attack(stage, server, total, *abreast)
        _look(stage, server, abreast, descriptors, before)
    stage.end_clients()
    stage.wait_for_clients()
    grown = server.memory - memory
    stage.note("the memory of the server", f"{memory} bytes after the first sessions, {server.memory} at the end")
    if grown > _GROWTH:
        stage.faults["leaked"] += 1


def _attack(stage: Stage, server: Process, total: "Counter[str]", *batches: Batch) -> int:
    """Batches side by side, each in a process of its own; how many of them hang."""
    attackers = [stage.start("attacker", functools.partial(batch.play, stage, server)) for batch in batches]
    hung = sum(not attacker.wait(60) for attacker in attackers)
    for batch, attacker in zip(batches, attackers):
        total["sessions"] += batch.length
        total["answers to them"] += attacker.hear(0) or 0
        if attacker.status == 0:
            stage.dismiss(attacker)
    return hung


def _look(stage: Stage, server: Process, batches: Sequence[Batch], descriptors: int, before: int) -> None:
    """Whether all is as it was before, and the honest client is answered."""
    if server.poll() is not None:
        stage.faults["crashed"] += 1
    elif beyond(lambda: server.descriptors, descriptors):
        stage.faults["leaked"] += server.descriptors - descriptors
        stage.note("descriptors of the server", server.open_files())
    elif beyond(lambda: before + 1 - stage.ledger.size, 0):
        stage.faults["hung"] += 1
        server.signal(signal.SIGUSR1)
        time.sleep(0.1)
    if sum(stage.faults.values()):
        for batch in batches:
            stage.note("sessions (a line for seeds.txt, or one of some)", " ".join(map(str, batch)))
