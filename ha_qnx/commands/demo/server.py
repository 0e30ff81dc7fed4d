"""The server of the demonstration: it writes down each request that it executes, and then answers it.

It uses the public calls only and is the same on a QNX target. Started by ``ha-qnx demo``, as

    python -m ha_qnx.commands.demo.server BACKEND NAME BOARD RECORDS
"""

import contextlib
import os
import sys
import time
from errno import EEXIST, ENOSYS
from typing import List

import ha_qnx

from .shared import (
    RECORD,
    REPLYING,
    REQUEST,
    REQUEST_MAX,
    REQUEST_TYPE,
    Board,
    path_of,
    right_reply,
    say,
    wait_for_go,
)

_NAME_DEADLINE = 10.0


class Server:
    """Executes requests, one at a time."""

    def __init__(self, qnx: ha_qnx.Backend, board: Board, records: str) -> None:
        self._qnx = qnx
        self._board = board
        # What write() has taken belongs to the host's kernel and outlives this process. fsync would guard against the
        # death of the machine, which is not what happens here.
        self._records = os.open(records, os.O_WRONLY | os.O_APPEND)
        self._buffer = bytearray(REQUEST_MAX)
        self._info = ha_qnx.MessageInfo()

    def serve(self, chid: int) -> None:
        """Receive and answer, for ever."""
        while True:
            rcvid = self._qnx.MsgReceive(chid, self._buffer, self._info)
            if rcvid == 0:
                self._take_pulse()
                continue
            # A client that is gone by now gets no answer.
            with contextlib.suppress(ProcessLookupError):
                self._answer(rcvid, bytes(self._buffer[: self._info.msglen]))

    def _take_pulse(self) -> None:
        """Release what the kernel kept of a client that is gone.

        Other pulses need nothing: a request is answered before the next pulse is received, so none can be cut short.
        """
        pulse = ha_qnx.Pulse.from_buffer(self._buffer)
        if pulse.code == ha_qnx.PULSE_CODE_DISCONNECT:
            self._qnx.ConnectDetach(pulse.scoid)

    def _answer(self, rcvid: int, message: bytes) -> None:
        kind = int.from_bytes(message[:2], sys.byteorder)
        if kind == REQUEST_TYPE and len(message) >= REQUEST.size:
            self._execute(rcvid, message)
        elif kind in (ha_qnx.IO_CONNECT, ha_qnx.IO_CLOSE):
            self._qnx.MsgReply(rcvid, ha_qnx.EOK)
        else:
            self._qnx.MsgError(rcvid, ENOSYS)

    def _execute(self, rcvid: int, request: bytes) -> None:
        _type, _subtype, client, number = REQUEST.unpack_from(request)
        written = os.write(self._records, RECORD.pack(client, os.getpid(), number))
        if written != RECORD.size:
            raise OSError(f"only {written} bytes of a record could be written")
        self._board.row(client)[REPLYING] = number
        self._qnx.MsgReply(rcvid, ha_qnx.EOK, right_reply(request))


def attach_name(qnx: ha_qnx.Backend, name: str) -> ha_qnx.Name:
    """Take the name over from the server before, which is dead; a host may need a moment to see that."""
    end = time.monotonic() + _NAME_DEADLINE
    while True:
        try:
            return qnx.name_attach(name)
        except OSError as error:
            if error.errno != EEXIST or time.monotonic() >= end:
                raise
        time.sleep(0.001)


def main(arguments: List[str]) -> None:
    """Get everything ready, wait for the predecessor's death, and serve."""
    backend_name, name, board_path, records = arguments
    qnx = ha_qnx.backend(backend_name)
    board = Board(board_path)
    server = Server(qnx, board, records)
    say("ready")
    wait_for_go(board)
    chid = attach_name(qnx, name).chid
    qnx.resmgr_attach(chid, path_of(name))
    say("serving")
    server.serve(chid)


if __name__ == "__main__":
    main(sys.argv[1:])
