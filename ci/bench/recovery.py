"""How soon a client goes on when a new server is there: with wait_for, from its first moment to the reply.

A client holds a connection that recovers by wait_for(reopen(...)). Its server is killed again and again while the
client sends; a successor, which was started ahead, takes the name. Measured is the time from the moment the successor
listens (name_attach has returned) to the moment the client has the reply to the message that was sent again; beside it,
in the same rounds, a fresh open and round trip by the same client. Run it with an interpreter that has ha_qnx:

    python ci/bench/recovery.py [--kills N] [--json]
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from typing import Dict, List

NAME = "bench-recovery"
PATH = f"/dev/{NAME}"
REPLY = struct.Struct("=q")


def serve() -> None:
    """Attach the path when told so, and answer each message with the moment from which this server listened."""
    import ha_qnx

    buffer = bytearray(64)
    print("ready", flush=True)
    sys.stdin.readline()
    chid = ha_qnx.ChannelCreate(ha_qnx.NTO_CHF_UNBLOCK | ha_qnx.NTO_CHF_DISCONNECT)
    ha_qnx.resmgr_attach(chid, PATH)
    listening = REPLY.pack(time.monotonic_ns())
    while True:
        rcvid = ha_qnx.MsgReceive(chid, buffer)
        if rcvid:
            is_io = int.from_bytes(buffer[:2], sys.byteorder) in (ha_qnx.IO_CONNECT, ha_qnx.IO_CLOSE)
            ha_qnx.MsgReply(rcvid, ha_qnx.EOK, b"" if is_io else listening)


def start() -> "subprocess.Popen[str]":
    """A server that waits to be told to attach the path."""
    server = subprocess.Popen(  # noqa: S603  # this very file
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    server.stdout.readline()
    return server


def go(server: "subprocess.Popen[str]") -> None:
    """Tell a server to attach the path."""
    assert server.stdin is not None
    server.stdin.write("go\n")
    server.stdin.flush()


def measure(kills: int, show_progress: bool) -> Dict[str, float]:
    """The medians, in microseconds."""
    import ha_qnx
    from ha_qnx.strategies import reopen, wait_for

    recovered: List[float] = []
    fresh: List[float] = []
    server = start()
    go(server)
    first = ha_qnx.connect(PATH, wait=10, recover=None)
    first.close()
    fd = ha_qnx.ha_open(PATH, os.O_RDWR, wait_for(reopen(PATH), timeout=10))
    message, reply = b"x" * 64, bytearray(REPLY.size)
    try:
        for number in range(kills):
            successor = start()
            server.kill()
            server.wait()
            go(successor)
            ha_qnx.MsgSend(fd, message, reply)
            replied = time.monotonic_ns()
            recovered.append((replied - REPLY.unpack(reply)[0]) / 1000)
            server = successor
            began = time.monotonic_ns()
            other = ha_qnx.open(PATH, os.O_RDWR)
            ha_qnx.MsgSend(other, message, reply)
            fresh.append((time.monotonic_ns() - began) / 1000)
            ha_qnx.close(other)
            if show_progress:
                print(f"\r{number + 1} of {kills} kills", end="", file=sys.stderr, flush=True)
    finally:
        server.kill()
        server.wait()
    if show_progress:
        print("\r" + " " * 30, end="\r", file=sys.stderr, flush=True)
    return {
        "kills": kills,
        "recovered_us": statistics.median(recovered),
        "fresh_us": statistics.median(fresh),
        "ratio": statistics.median(recovered) / statistics.median(fresh),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how often the server is killed (200)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HA_QNX_RUNTIME"] = directory
        found = measure(options.kills, show_progress=sys.stderr.isatty() and not options.json)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.kills} kills, medians")
    print(f"  from the new server's first moment to the reply  {found['recovered_us']:8.0f} us")
    print(f"  a fresh open and round trip                      {found['fresh_us']:8.0f} us")
    print(f"  ratio                                            {found['ratio']:8.2f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main()
