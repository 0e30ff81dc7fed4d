"""Two servers on one path, which is what QNX itself has for a hot standby: an open goes to the next one that lives.

A name has one server at a time. There the second one waits, and takes over as soon as the first one dies:
``Counter("example-standby").serve(standby=True)`` in both.

python -m ha_qnx.examples.standby
"""

import os
import subprocess
import sys
import time

import ha_qnx as ha
from ha_qnx.service import Request, Service

PATH = "/dev/example-standby"


class Counter(Service):
    """Says which process it is."""

    def message(self, request: Request) -> bytes:
        return b"process %d" % os.getpid()

    def ready(self) -> None:
        print(f"process {os.getpid()} has attached {PATH}", flush=True)


def start_server() -> "subprocess.Popen[bytes]":
    """Start a server, and wait until it is there."""
    server = subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.standby", "serve"], stdout=subprocess.PIPE)
    assert server.stdout is not None
    print(server.stdout.readline().decode(), end="")
    return server


def main() -> None:
    # With RESMGR_FLAG_BEFORE the oldest is asked first: nobody is sent to the second as long as the first one lives.
    servers = [start_server(), start_server()]
    try:
        with ha.connect(PATH) as connection:
            for _kill in range(4):
                print(f"answered by {connection.ask(b'who are you?').decode()}")
                active = servers.pop(0)
                active.kill()
                began = time.monotonic()
                answer = connection.ask(b"who are you?")  # No server has to start first: the standby is there.
                print(f"killed {active.pid}; {(time.monotonic() - began) * 1000:.1f} ms later {answer.decode()}")
                active.communicate()
                servers.append(start_server())
    finally:
        for server in servers:
            server.kill()
            server.communicate()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        Counter(PATH, flags=ha.RESMGR_FLAG_BEFORE).serve()
    else:
        main()
