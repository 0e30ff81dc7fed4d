"""A log is read on where the dead server had stopped: the recovery puts the position back.

python -m ha_qnx.examples.position
"""

import os
import subprocess
import sys

import ha_qnx as ha
from ha_qnx import strategies
from ha_qnx.service import Request, Service

PATH = "/dev/example-position"


class Log(Service):
    """A file of ten lines of eight bytes, for reading. The position is kept by the server, and dies with it."""

    content = b"".join(b"line %2d\n" % number for number in range(1, 11))

    def read(self, request: Request, nbytes: int) -> bytes:
        return self.content[request.ocb.offset :][:nbytes]


class Reader:
    """Reads lines, and knows how far it has come: the state that a new server does not have."""

    def __init__(self) -> None:
        self.position = 0
        recover = strategies.then(strategies.reopen(PATH, os.O_RDONLY), self.seek)
        self.connection = ha.connect(PATH, os.O_RDONLY, recover=strategies.wait_for(recover, timeout=10), wait=10)

    def seek(self, coid: int, _handle: object) -> None:
        print(f"  the server was lost: going on at byte {self.position}")
        ha.lseek(coid, self.position, os.SEEK_SET)

    def line(self) -> str:
        data = ha.read(self.connection, 8)
        self.position += len(data)
        return data.decode()


def start_server() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.position", "serve"])  # this very file


def main() -> None:
    server = start_server()
    try:
        reader = Reader()
        with reader.connection:
            for number in range(1, 11):
                print(reader.line(), end="")
                if number in (3, 7):
                    server.kill()
                    server.wait()
                    server = start_server()
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    Log(PATH).serve() if sys.argv[1:] == ["serve"] else main()
