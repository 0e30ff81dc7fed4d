"""A client logs in and subscribes; when the server dies, it does both again before it goes on.

python -m ha_qnx.examples.session
"""

import os
import subprocess
import sys

import ha_qnx as ha
from ha_qnx.service import Request, Service

NAME = "example-session"
TOPICS = ("temperature", "pressure")


class Broker(Service):
    """Keeps a session for each connection: who it is, and what it wants to know. All of it dies with the process."""

    def message(self, request: Request) -> bytes:
        verb, _space, word = request.data.decode().partition(" ")
        if verb == "login":
            request.ocb.data = {"user": word, "topics": []}
            return b"welcome"
        if request.ocb.data is None:
            raise PermissionError(13, "log in first")
        session = request.ocb.data
        if verb == "subscribe":
            session["topics"].append(word)
        return f"{session['user']} has {', '.join(session['topics']) or 'nothing'} (process {os.getpid()})".encode()


def ask(connection: ha.Connection, message: str) -> str:
    return connection.ask(message.encode()).decode()


def begin_session(connection: ha.Connection) -> None:
    """What has to be said to a server first: to the first one, and to each that comes after it."""
    print(f"  login: {ask(connection, 'login anna')}")
    for topic in TOPICS:
        ask(connection, "subscribe " + topic)


def start_server() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.session", "serve"])  # this very file


def main() -> None:
    server = start_server()
    try:
        with ha.connect(NAME, setup=begin_session, timeout=10, wait=10) as connection:
            for number in range(1, 4):
                print(f"{number}: {ask(connection, 'status')}")
                if number < 3:
                    server.kill()
                    server.wait()
                    server = start_server()
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    Broker(NAME).serve() if sys.argv[1:] == ["serve"] else main()
