"""What the processes of the demonstration have in common: messages, records, a board, and their end.

A *request* names its client and its number; the *reply* repeats both and carries a checksum of the whole request, so
that a reply which belongs to another request cannot pass for the right one. A *record* says that a server executed a
request.
"""

import contextlib
import mmap
import os
import select
import signal
import struct
import sys
import threading
import zlib

from ...constants import IO_MAX

REQUEST_TYPE = IO_MAX + 1

# Type, subtype, client, number of the request; any bytes follow.
REQUEST = struct.Struct("=HHIQ")
REQUEST_MAX = 1024

# Client, checksum of the request, number of the request.
REPLY = struct.Struct("=IIQ")

# Client, process of the server, number of the request. 16 bytes, so that no record crosses a page of the file and none
# is ever written by half, whenever its writer is killed.
RECORD = struct.Struct("=IIQ")

# The client without the library.
PLAIN_CLIENT = 0

# In milliseconds: so much later than another one may a process hear that the command has ended.
_ENDS_TOGETHER = 1000


def path_of(name: str) -> str:
    """The path of the server that has a name."""
    return f"/dev/{name}"


def right_reply(request: bytes) -> bytes:
    """The only reply that belongs to a request."""
    _type, _subtype, client, number = REQUEST.unpack_from(request)
    return REPLY.pack(client, zlib.crc32(request), number)


# The columns of the board. Each cell has one writer, and only grows.
BEGUN = 0  # The last request that the client began to send.
ANSWERED = 1  # The last one whose reply it has.
REPLYING = 2  # The last one that a server was about to answer.
RECOVERIES = 3  # How often its connection was recovered.

_STOP = 0
_FROZEN = 1
_HEADER = 2
_COLUMNS = 4


class Board:
    """Memory that all processes share: a row for each client, and two words from the command to all."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    @staticmethod
    def create(path: str, clients: int) -> "Board":
        """Make an empty board, with a row for the plain client, too."""
        with open(path, "xb") as file:
            file.write(bytes(8 * (_HEADER + _COLUMNS * (1 + clients))))
        return Board(path)

    def row(self, client: int) -> memoryview:
        """The cells of a client, by column."""
        first = _HEADER + _COLUMNS * client
        return self._cells[first : first + _COLUMNS]

    @property
    def stop(self) -> bool:
        """Whether the clients are to stop as soon as they have the reply they wait for."""
        return bool(self._cells[_STOP])

    @stop.setter
    def stop(self, value: bool) -> None:
        self._cells[_STOP] = value

    @property
    def frozen(self) -> int:
        """The server that is stopped by SIGSTOP, or about to be; 0 for none."""
        return self._cells[_FROZEN]

    @frozen.setter
    def frozen(self, pid: int) -> None:
        self._cells[_FROZEN] = pid


def say(word: str) -> None:
    """Tell the command how far this process is."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def wait_for_go(board: Board) -> None:
    """Wait until the command says so; from then on, end when the command ends, however it does.

    The command holds the other end of stdin, so the host closes it even if the command is killed.
    """
    if sys.stdin.readline() != "go\n":
        sys.exit(1)
    threading.Thread(target=_end_with_command, args=(board,), daemon=True).start()


def command_has_ended() -> bool:
    """Whether the command is gone, before it has said "go": those that it started end one after the other then."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    return bool(poll.poll(_ENDS_TOGETHER))


def _end_with_command(board: Board) -> None:
    while os.read(0, 1):
        pass
    frozen = board.frozen
    if frozen:
        # It cannot see the end of its own stdin.
        with contextlib.suppress(OSError):
            os.kill(frozen, signal.SIGKILL)
    os._exit(1)
