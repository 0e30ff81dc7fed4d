"""What a process holds for its next large messages, on each backend."""

import os
import sys
import threading
from typing import Any, Callable

import pytest

import ha_qnx

MEBIBYTE = 1 << 20
# What the client has room for in its replies; it needs a window of 16 MiB, of which hardly anything is used.
ROOM = 9 * MEBIBYTE
CONNECTIONS = 20

CLIENT = """
import re
import sys

import ha_qnx

backend, pid, chid, size, connections = sys.argv[1], *map(int, sys.argv[2:])
qnx = ha_qnx.backend(backend)
room = bytearray(size)


def print_held() -> None:
    with open("/proc/self/maps") as maps:
        windows = re.findall(r"^(\\w+)-(\\w+) .*memfd:ha_qnx window", maps.read(), re.M)
    print(sum(int(end, 16) - int(start, 16) for start, end in windows))


coids = [qnx.ConnectAttach(0, pid, chid) for _ in range(connections)]
for _message in range(2):
    qnx.MsgSend(coids[0], b"message", room)
    print_held()
for coid in coids[1:]:
    for _message in range(2):
        qnx.MsgSend(coid, b"message", room)
print_held()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells which memory a process has mapped")
def test_large_windows_are_kept_where_they_are_used_and_bounded_together(
    qnx: ha_qnx.Backend, start_program: Callable[..., Any]
) -> None:
    """One large message leaves nothing, the second a window for the third, and all connections no more than 256 MiB."""
    chid = qnx.ChannelCreate(0)
    messages = 2 * CONNECTIONS

    def serve() -> None:
        for _message in range(messages):
            qnx.MsgReply(qnx.MsgReceive(chid, bytearray(8)), 0)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    client = start_program(CLIENT, *map(str, (qnx.name, os.getpid(), chid, ROOM, CONNECTIONS)))
    assert client.process.wait(60) == 0, client.errors
    server.join()
    qnx.ChannelDestroy(chid)
    assert [int(line) // MEBIBYTE for line in client.output.split()] == [0, 16, 256]
