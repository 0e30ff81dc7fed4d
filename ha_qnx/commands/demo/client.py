"""The clients of the demonstration, with and without the library.

Started by ``ha-qnx demo``, as

    python -m ha_qnx.commands.demo.client BACKEND NAME BOARD CLIENT

Client 0 is the plain one. The others are HA-aware: those with odd numbers open a path (ha_open, ha_reopen), those with
even numbers find a name (name_open, ha_ConnectAttach, ha_ReConnectAttach). At the end, each says what became of its
requests, as JSON.
"""

import errno
import json
import os
import random
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import ha_qnx

from ...strategies import find_server, until_served
from .shared import (
    ANSWERED,
    BEGUN,
    PLAIN_CLIENT,
    RECOVERIES,
    REPLY,
    REQUEST,
    REQUEST_MAX,
    REQUEST_TYPE,
    Board,
    command_has_ended,
    path_of,
    right_reply,
    say,
    wait_for_go,
)

_RECOVERY_DEADLINE = 20.0

# The lowest number of a connection: of the descriptors' range, so that it can be had again.
_FIRST = 3

_NOISE = os.urandom(REQUEST_MAX - REQUEST.size)


def request_of(client: int, number: int) -> bytes:
    """A request, of a length of its own."""
    return REQUEST.pack(REQUEST_TYPE, 0, client, number) + _NOISE[: number % len(_NOISE)]


def describe(error: OSError) -> str:
    """An error as a person knows it, and what the recovery function raised, if it did."""
    text = f"{errno.errorcode.get(error.errno or 0, error.errno)}: {error.strerror}"
    return text if error.__cause__ is None else f"{text} (recovery: {error.__cause__})"


class RecoveringClient:
    """Sends one request after the other on an HA-aware connection, and keeps account of all."""

    def __init__(self, qnx: ha_qnx.Backend, name: str, board: Board, client: int) -> None:
        self._qnx = qnx
        self._name = name
        self._path = path_of(name)
        self._board = board
        self._row = board.row(client)
        self._client = client
        self._coid = -1
        self._recoveries = 0
        self._resent: Dict[int, int] = {}
        self._wrong: List[int] = []
        self._unanswered: List[int] = []
        self._error: Optional[str] = None
        self._longest = 0.0
        self._waited = 0.0

    def connect(self) -> None:
        """Open an HA-aware connection, by one of libha's two ways."""
        if self._client % 2:
            self._coid = self._qnx.ha_open(self._path, os.O_RDWR, self._reopen)
        else:
            self._coid = self._qnx.ha_ConnectAttach(0, *self._find_server(), _FIRST, 0, self._reconnect)

    def _find_server(self) -> Tuple[int, int]:
        """The process and the channel that have the name now."""
        info = find_server(self._name, backend=self._qnx)
        return info.pid, info.chid

    def _reopen(self, coid: int, _handle: Any) -> int:
        return self._recovered(coid, lambda: self._qnx.ha_reopen(coid, self._path, os.O_RDWR))

    def _reconnect(self, coid: int, _handle: Any) -> int:
        return self._recovered(coid, lambda: self._qnx.ha_ReConnectAttach(coid, 0, *self._find_server(), coid, 0))

    def _recovered(self, coid: int, attempt: Callable[[], int]) -> int:
        """Try until there is a server, and count it; ``coid``."""
        until_served(attempt, _RECOVERY_DEADLINE, lambda answer: answer == coid)
        self._recoveries += 1
        self._row[RECOVERIES] = self._recoveries
        return coid

    def run(self) -> None:
        """Send until told to stop, or until a request fails for good."""
        number = 0
        while not self._board.stop and self._error is None:
            number += 1
            self._send(number)
            if random.random() < 0.02:  # noqa: S311  # no secret depends on it
                # Now and then a server dies while this client wants nothing of it.
                time.sleep(random.random() * 0.002)  # noqa: S311  # the same

    def _send(self, number: int) -> None:
        request = request_of(self._client, number)
        reply = bytearray(REPLY.size)
        recoveries = self._recoveries
        self._row[BEGUN] = number
        began = time.monotonic()
        try:
            status = self._qnx.MsgSend(self._coid, request, reply)
        except OSError as error:
            self._unanswered.append(number)
            self._error = describe(error)
        else:
            self._row[ANSWERED] = number
            if status != ha_qnx.EOK or reply != right_reply(request):
                self._wrong.append(number)
        took = time.monotonic() - began
        self._longest = max(self._longest, took)
        self._waited += took
        if self._recoveries != recoveries:
            # This thread is the connection's only one: each recovery made the library send this request once more.
            self._resent[number] = self._recoveries - recoveries

    def report(self) -> Dict[str, Any]:
        """What became of the requests."""
        return {
            "client": self._client,
            "requests": self._row[BEGUN],
            "wrong": self._wrong,
            "unanswered": self._unanswered,
            "resent": sorted(self._resent.items()),
            "recoveries": self._recoveries,
            "longest_ms": self._longest * 1000,
            "waited_ms": self._waited * 1000,
            "error": self._error,
        }


class PlainClient:
    """Sends on an ordinary connection, and goes on trying when that has failed."""

    def __init__(self, qnx: ha_qnx.Backend, name: str, board: Board, client: int) -> None:
        self._qnx = qnx
        self._name = name
        self._board = board
        self._client = client
        self._row = board.row(client)
        self._coid = -1
        self._failed_after: Optional[float] = None
        self._errors: List[str] = []

    def connect(self) -> None:
        """Open an ordinary connection."""
        self._coid = self._qnx.name_open(self._name)

    def run(self) -> None:
        """Send until told to stop; a failure is for good if no later request succeeds."""
        start = time.monotonic()
        number = 0
        while not self._board.stop:
            number += 1
            self._row[BEGUN] = number
            try:
                self._qnx.MsgSend(self._coid, request_of(self._client, number), bytearray(REPLY.size))
            except OSError as error:
                if self._failed_after is None:
                    self._failed_after = time.monotonic() - start
                if describe(error) not in self._errors:
                    self._errors.append(describe(error))
            else:
                self._row[ANSWERED] = number
                self._failed_after = None
            time.sleep(0.001 if self._failed_after is None else 0.02)

    def report(self) -> Dict[str, Any]:
        """When it failed for good, and how."""
        return {"failed_after": self._failed_after, "errors": self._errors, "requests": self._row[BEGUN]}


def main(arguments: List[str]) -> None:
    """Connect, wait until all are connected, send, and report."""
    backend_name, name, board_path, number = arguments
    board = Board(board_path)
    kind = PlainClient if int(number) == PLAIN_CLIENT else RecoveringClient
    client = kind(ha_qnx.backend(backend_name), name, board, int(number))
    try:
        client.connect()
    except OSError:
        if command_has_ended():
            sys.exit(1)
        raise
    say("ready")
    wait_for_go(board)
    client.run()
    say(json.dumps(client.report()))


if __name__ == "__main__":
    main(sys.argv[1:])
