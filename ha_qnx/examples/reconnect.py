"""A client survives the death of its server, by nothing but libha's calls, on a name.

python -m ha_qnx.examples.reconnect
"""

import os
import subprocess
import sys
import time

import ha_qnx as ha

NAME = "example-reconnect"


def serve() -> None:
    """A server in QNX's own terms: it answers each message with the number of its process."""
    name = ha.name_attach(NAME)
    message = bytearray(1024)
    while True:
        rcvid = ha.MsgReceive(name.chid, message)
        if rcvid:  # Else it is a pulse: a client has gone, for instance.
            ha.MsgReply(rcvid, ha.EOK, b"process %d" % os.getpid())


def start_server() -> "subprocess.Popen[bytes]":
    server = subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.reconnect", "serve"])  # this very file
    print(f"started server {server.pid}")
    return server


def find_server() -> ha.MessageInfo:
    """Wait up to ten seconds for the server of the name: its process and its channel."""
    for _attempt in range(1000):
        try:
            coid = ha.name_open(NAME)
        except OSError:
            time.sleep(0.01)  # The new server is not there yet.
            continue
        info = ha.MessageInfo()
        ha.ConnectServerInfo(0, coid, info)
        ha.name_close(coid)
        return info
    raise TimeoutError(f"no server has the name {NAME}")


def reconnect(coid: int, _handle: object) -> int:
    """Called by the library when the server is lost: connect to the next one under the same number."""
    print(f"  connection {coid} is lost: looking for {NAME}")
    server = find_server()
    return ha.ha_ReConnectAttach(coid, server.nd, server.pid, server.chid, coid, 0)


def main() -> None:
    process = start_server()
    try:
        server = find_server()
        # Index 3: a number of the descriptors' range. A side channel could not get its number back.
        coid = ha.ha_ConnectAttach(server.nd, server.pid, server.chid, 3, 0, reconnect)
        for number in range(1, 5):
            reply = bytearray(32)
            ha.MsgSend(coid, b"who are you?", reply)
            print(f"request {number} was answered by {reply.rstrip(bytes(1)).decode()}")
            if number == 2:
                process.kill()
                process.wait()
                print(f"killed server {process.pid}")
                process = start_server()
        ha.ha_ConnectDetach(coid)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
