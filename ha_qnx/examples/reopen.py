"""A client survives the death of its server, by nothing but libha's calls, on a path.

python -m ha_qnx.examples.reopen
"""

import os
import subprocess
import sys
import time

import ha_qnx as ha

PATH = "/dev/example-reopen"


def serve() -> None:
    """A server in QNX's own terms: it answers each message with the number of its process."""
    chid = ha.ChannelCreate(ha.NTO_CHF_DISCONNECT)
    ha.resmgr_attach(chid, PATH)
    message = bytearray(1024)
    while True:
        rcvid = ha.MsgReceive(chid, message)
        if rcvid == 0:
            continue  # A pulse: a client has gone, for instance.
        kind = int.from_bytes(message[:2], sys.byteorder)
        if kind in (ha.IO_CONNECT, ha.IO_CLOSE):
            ha.MsgReply(rcvid, ha.EOK)
        else:
            ha.MsgReply(rcvid, ha.EOK, b"process %d" % os.getpid())


def start_server() -> "subprocess.Popen[bytes]":
    server = subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.reopen", "serve"])  # this very file
    print(f"started server {server.pid}")
    return server


def reopen(coid: int, path: str) -> int:
    """Called by the library when the server is lost: try for ten seconds to open the path under the same number."""
    print(f"  connection {coid} is lost: reopening {path}")
    for _attempt in range(1000):
        try:
            return ha.ha_reopen(coid, path, os.O_RDWR)
        except OSError:
            time.sleep(0.01)  # The new server is not there yet.
    return -1


def open_first() -> int:
    """Open the path, once the first server is there."""
    while True:
        try:
            return ha.ha_open(PATH, os.O_RDWR, reopen, PATH)
        except OSError:
            time.sleep(0.01)


def main() -> None:
    server = start_server()
    try:
        coid = open_first()
        for number in range(1, 5):
            reply = bytearray(32)
            ha.MsgSend(coid, b"who are you?", reply)
            print(f"request {number} was answered by {reply.rstrip(bytes(1)).decode()}")
            if number == 2:
                server.kill()
                server.wait()
                print(f"killed server {server.pid}")
                server = start_server()
        ha.ha_close(coid)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
