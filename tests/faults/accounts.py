"""What became of every request: the server writes down each one before it answers it, and the client what it got.

A request is numbered, and has noise behind it; the answer repeats the number beside a checksum of all of the request,
as often as there is room. So an answer that is cut, mixed up with another or made of old bytes is not the right one.
"""

import collections
import os
import struct
import zlib
from typing import Counter, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

_REQUEST = struct.Struct("=HHIQQ")  # kind, 0, client, number, bytes of the answer
_ANSWER = struct.Struct("=IIQ")  # client, checksum of the request, number
_KIND = 0x4321  # Nothing that looks like an I/O message.
_HOLD = 0x4322  # One that is not answered.
#: From here on, clients keep no account.
NOBODY = 1 << 31
_NOISE = os.urandom(1 << 17)


def request_of(client: int, number: int, size: int = 0, room: int = 64) -> bytes:
    """A request with so many bytes of noise, for an answer of so many."""
    return _REQUEST.pack(_KIND, 0, client, number, room) + _NOISE[:size]


def held_request() -> bytes:
    """One that is not answered, and not written down."""
    return _REQUEST.pack(_HOLD, 0, 0, 0, 0)


def is_held(request: bytes) -> bool:
    return request[:2] == _HOLD.to_bytes(2, "little") or request[:2] == _HOLD.to_bytes(2, "big")


def is_request(request: bytes) -> bool:
    """Whether it is one of ours, and not what somebody hostile has made of it."""
    if len(request) < _REQUEST.size:
        return False
    kind, _zero, _client, _number, room = _REQUEST.unpack_from(request)
    return bool(kind == _KIND and room <= len(_NOISE))


def answer_of(request: bytes) -> bytes:
    """The one right answer."""
    _kind, _zero, client, number, room = _REQUEST.unpack_from(request)
    once: bytes = _ANSWER.pack(client, zlib.crc32(request), number)
    return (once * (int(room) // len(once) + 1))[:room]


class Record(NamedTuple):
    """A request, and the server that carried it out: not its pid, which is another one's some hours later."""

    client: int
    number: int
    server: int


class Ledger:
    """The record, a file that is only appended to."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        #: In a server, which one of them.
        self.server = 0

    def write(self, request: bytes) -> None:
        """In a server, before it answers."""
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _kind, _zero, client, number, _room = _REQUEST.unpack_from(request)
        if client < NOBODY:
            os.write(self._fd, b"%d %d %d\n" % (client, number, self.server))

    @property
    def size(self) -> int:
        """How long it is, in bytes."""
        return os.stat(self._path).st_size if os.path.exists(self._path) else 0

    def read(self) -> List[Record]:
        """All of it, in the order in which it was done."""
        try:
            with open(self._path) as file:
                return [Record(*map(int, line.split())) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []


class Report(NamedTuple):
    """What a client says at its end."""

    answered: Sequence[Sequence[int]]  # client, first and last number of each run of them
    wrong: Sequence[Sequence[int]]  # client and number of each
    abandoned: Sequence[Sequence[int]]  # not waited for to the end, as was expected
    errors: Sequence[str]  # of requests that should have been answered
    internal: Sequence[str]  # exceptions that are none of the interface
    leaked: int  # descriptors that it has beyond those of the beginning

    @property
    def has_faults(self) -> bool:
        return bool(self.wrong or self.errors or self.internal or self.leaked)


def judge(records: Iterable[Record], reports: Sequence[Report], killed: Set[int]) -> Counter[str]:
    """The account: how often what happened. All but "answered", "carried out" and "explained" is a fault.

    A request may be carried out twice if the first server died before its client had the answer: that server was
    killed, and this was the last it did for this client. (Each client sends one request after the other. A server may
    still have one in hand that was abandoned, and nobody sends that again.)
    """
    abandoned = {(client, number) for report in reports for client, number in report.abandoned}
    done: Dict[Tuple[int, int], List[int]] = collections.defaultdict(list)
    last: Dict[Tuple[int, int], int] = {}
    account: Counter[str] = collections.Counter()
    for client, number, server in records:
        done[client, number].append(server)
        if (client, number) not in abandoned:
            last[client, server] = number
        account["carried out"] += 1
    for report in reports:
        account["abandoned"] += len(report.abandoned)
        for client, first, last_number in report.answered:
            account["answered"] += last_number + 1 - first
            account["lost"] += sum((client, number) not in done for number in range(first, last_number + 1))
        account["wrong"] += len(report.wrong)
        account["given up"] += len(report.errors)
        account["internal errors"] += len(report.internal)
        account["leaked"] += report.leaked
    for (client, number), servers in done.items():
        for server in servers[:-1]:
            account["explained" if server in killed and last[client, server] == number else "doubled"] += 1
    return account


#: What must not happen.
FAULTS = ("lost", "wrong", "doubled", "hung", "given up", "leaked", "internal errors", "crashed", "other")


def faults_of(account: Counter[str]) -> Dict[str, int]:
    return {what: account[what] for what in FAULTS if account[what]}


def describe(account: Counter[str]) -> str:
    """In a line: what there was, then the faults, each with its number."""
    usual = [f"{what} {number}" for what, number in account.items() if what not in FAULTS and number]
    return ", ".join([*usual, *(f"{what} {account[what]}" for what in FAULTS)])


def internal_error(error: BaseException) -> Optional[str]:
    """How an exception reads that nobody who calls us has to expect; None for an OSError."""
    return None if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
