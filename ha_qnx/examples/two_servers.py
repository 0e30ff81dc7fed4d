"""Two redundant servers of different names: the client goes over to the one that lives.

python -m ha_qnx.examples.two_servers
"""

import subprocess
import sys
from typing import Dict

import ha_qnx as ha
from ha_qnx import strategies
from ha_qnx.service import Request, Service
from ha_qnx.watching import RecoveryEvent

NAMES = ("example-server-a", "example-server-b")


class Clock(Service):
    """Counts, and says who it is."""

    count = 0

    def message(self, request: Request) -> bytes:
        self.count += 1
        return b"%s, its message %d" % (self.name.encode(), self.count)

    def ready(self) -> None:
        print(f"{self.name} is there", flush=True)


def start_server(name: str) -> "subprocess.Popen[bytes]":
    """Start a server, and wait until it is there."""
    server = subprocess.Popen(  # noqa: S603  # this very file
        [sys.executable, "-m", "ha_qnx.examples.two_servers", name], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    print(server.stdout.readline().decode(), end="")
    return server


def tell(event: RecoveryEvent) -> None:
    print(f"  {'recovered' if event.recovered else 'not recovered'} after {event.attempts} attempt(s)")


def main() -> None:
    servers: Dict[str, subprocess.Popen[bytes]] = {name: start_server(name) for name in NAMES}
    ha.on_event(tell)
    recover = strategies.wait_for(strategies.failover(NAMES), timeout=10)
    try:
        with ha.connect(NAMES[0], recover=recover) as connection:
            # Each line is a message; in between, the server that answered is killed. It comes back when the other one
            # has taken over, so that there always is one to go to.
            for victim in (None, *NAMES, *NAMES):
                if victim is not None:
                    servers[victim].kill()
                    servers[victim].communicate()
                    print(f"killed {victim}")
                print(f"answered by {connection.ask(b'who are you?').decode()}")
                if victim is not None:
                    servers[victim] = start_server(victim)
    finally:
        for server in servers.values():
            server.kill()
            server.communicate()


if __name__ == "__main__":
    Clock(sys.argv[1]).serve() if sys.argv[1:] else main()
