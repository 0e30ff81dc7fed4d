"""How long a client waits when a standby on the same path takes over: two servers, killed in turn.

    python ci/bench/standby.py [--kills N] [--json]

Each time, the server that is asked first is killed, and the next message is answered by the other one, which is there
already; then a new one takes its place behind it. The gap is from the kill to the reply. Every reply has to arrive.
HA_QNX_BACKEND chooses the backend. Run it with an interpreter that has ha_qnx installed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List

PATH = "/dev/bench-standby"


def serve() -> None:
    """Attach the path behind those that are there, and answer with the number of this process."""
    import ha_qnx

    class Numbered(ha_qnx.Service):
        def message(self, request: Any) -> bytes:
            return b"%d" % os.getpid()

        def ready(self) -> None:
            print("ready", flush=True)

    Numbered(PATH, flags=ha_qnx.RESMGR_FLAG_BEFORE).serve()


def start() -> "subprocess.Popen[bytes]":
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE)  # noqa: S603  # this very file
    assert server.stdout is not None
    server.stdout.readline()
    return server


def measure(kills: int, show_progress: bool) -> Dict[str, Any]:
    """The gaps in microseconds, and how many replies came from where they should."""
    import ha_qnx

    servers = [start(), start()]
    gaps: List[float] = []
    right = 0
    try:
        with ha_qnx.connect(PATH, timeout=10) as connection:
            assert connection.ask(b"x") == b"%d" % servers[0].pid
            for number in range(kills):
                active = servers.pop(0)
                began = time.monotonic_ns()
                active.kill()
                answer = connection.ask(b"x")
                gaps.append((time.monotonic_ns() - began) / 1000)
                right += answer == b"%d" % servers[0].pid
                active.communicate()
                servers.append(start())
                if show_progress:
                    print(f"\r{number + 1} of {kills} kills", end="", file=sys.stderr, flush=True)
    finally:
        for server in servers:
            server.kill()
            server.communicate()
    if show_progress:
        print("\r" + " " * 30, end="\r", file=sys.stderr, flush=True)
    return {"kills": kills, "right": right, "median_us": statistics.median(gaps), "longest_us": max(gaps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how often a server is killed (200)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HA_QNX_RUNTIME"] = directory
        found = measure(options.kills, show_progress=sys.stderr.isatty() and not options.json)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['right']} of {found['kills']} replies came from the standby")
    print(f"  from the kill to the reply, median  {found['median_us']:8.0f} us")
    print(f"  the longest                         {found['longest_us']:8.0f} us")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main()
