"""What the drop-in costs: calls on ordinary descriptors with and without it, and on a connection with it.

Each call is timed in interleaved rounds of one run, with the drop-in and without; each figure is the median of the
rounds. Run it with an interpreter that has ha_qnx installed:

    python ci/bench/dropin.py [--rounds N] [--calls N] [--json]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable, Dict, List

PATH = "/dev/bench-dropin"


def serve(store: str) -> None:
    """In the server's process: keep a file under the path, until the client has gone."""
    from ha_qnx.conformance.file_server import keep_file, take_path

    import ha_qnx

    backend = ha_qnx.backend()
    chid = take_path(backend, PATH)
    print("ready", flush=True)
    keep_file(backend, chid, store)


def seconds_of(call: Callable[[], object], calls: int) -> float:
    """How long a call takes, on average of many."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def calls_on(path: str) -> Dict[str, Callable[[], object]]:
    """What is timed, for a path. The calls are looked up each time, as a program does it."""
    fd = os.open(path, os.O_RDWR)
    return {
        "os.lseek": lambda: os.lseek(fd, 0, 0),
        "os.write, 1 byte": lambda: os.write(fd, b"x"),
        "os.read, none left": lambda: os.read(fd, 1),
        "os.fstat": lambda: os.fstat(fd),
        "os.dup and os.close": lambda: os.close(os.dup(fd)),
        "os.open and os.close": lambda: os.close(os.open(path, os.O_RDWR)),
        "open() and close": lambda: open(path, "rb").close(),
    }


def measure(rounds: int, calls: int) -> Dict[str, Dict[str, float]]:
    """Microseconds of each call, for a file without the drop-in, with it, and for a connection."""
    from ha_qnx import dropin

    found: Dict[str, Dict[str, List[float]]] = {}

    def note(what: str, column: str, call: Callable[[], object], count: int) -> None:
        found.setdefault(what, {}).setdefault(column, []).append(seconds_of(call, count) * 1e6)

    with tempfile.NamedTemporaryFile() as file:
        plain = calls_on(file.name)
        with dropin.installed(recover_within=10):
            on_connection = calls_on(PATH)
        for _ in range(rounds):
            for what, call in plain.items():
                note(what, "original", call, calls)
            with dropin.installed(recover_within=10):
                for what, call in plain.items():
                    note(what, "drop-in", call, calls)
                for what, call in on_connection.items():
                    note(what, "connection", call, max(1, calls // 50))
    return {
        what: {column: statistics.median(values) for column, values in columns.items()}
        for what, columns in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=20_000, help="per round, on ordinary descriptors")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", metavar="STORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HA_QNX_RUNTIME"] = os.path.join(directory, "run")
        store = pathlib.Path(directory, "store")
        store.write_bytes(b"x" * 1000)
        server = subprocess.Popen(  # noqa: S603  # this very script
            [sys.executable, os.path.abspath(__file__), "--serve", str(store)], stdout=subprocess.PIPE
        )
        try:
            assert server.stdout is not None
            server.stdout.readline()
            results = measure(options.rounds, options.calls)
        finally:
            server.kill()
            server.wait()
    if options.json:
        print(json.dumps(results))
        return
    print(f"microseconds a call, median of {options.rounds} rounds   original   with drop-in     added   connection")
    for what, columns in results.items():
        added = columns["drop-in"] - columns["original"]
        print(
            f"{what:<46}{columns['original']:>9.3f}{columns['drop-in']:>15.3f}{added:>10.3f}{columns['connection']:>13.2f}"
        )


if __name__ == "__main__":
    main()
