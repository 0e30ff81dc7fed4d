"""What a message costs where each side has a CPU of its own, and looks before it sleeps (HA_QNX_SPIN_US).

Compared are the C floor, with its server on the other CPU; the fallback where both sides sleep, where they look at the
pipes of a lane, and where they look at its page; and what the three calls do by themselves, with nobody to wait for.
All is measured in turn, and each figure is the median of the rounds' medians. ``ci/bench/run --only spin`` leaves it to
the host where the two sides run, which puts both on one CPU as long as it has other work: then nobody looks for long.

What was found (5 rounds of 10,000; 2 CPUs of an AMD EPYC, CPython 3.11, on a busy machine with a nice value of -18):
the floor 33.5 us; asleep 1.28 times that; pipes 0.20, main threads 0.21; a page 0.16 and 0.15; the calls alone 0.08. So
the goal of 0.1 leaves 0.7 us for what the page needs both ways, of which the look at what else has come takes 0.35;
without that, a pulse or a higher priority that came before would be received after a message from the page. What it
would take is the page in libha.

Run it with an interpreter that has ha_qnx:

    python ci/bench/awake.py [--rounds N] [--messages N] [--json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from message import SIZE, build_floor

SPIN_US = 100
# Name, HA_QNX_SPIN_US, whether the server takes pages, whether both are main threads.
VARIANTS = (
    ("asleep, other threads", 0, False, False),
    ("pipes, other threads", SPIN_US, False, False),
    ("pipes, main threads", SPIN_US, False, True),
    ("page, other threads", SPIN_US, True, False),
    ("page, main threads", SPIN_US, True, True),
)


def _kernel(cpu: int, takes_pages: bool) -> Any:
    """The fallback's kernel, in a process on one CPU that is told that it has two."""
    from ha_qnx.fallback import host, pages
    from ha_qnx.fallback.kernel import SocketKernel

    os.sched_setaffinity(0, {cpu})
    host.processors = lambda: 2
    pages.ARE_USED = pages.ARE_USED and takes_pages
    return SocketKernel()


def _in_thread(call: Callable[[], None], in_main: bool) -> None:
    if in_main:
        call()
    else:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()


def serve(cpu: int, takes_pages: bool, in_main: bool) -> None:
    """In the server's process: answer until the client has gone, which is this one's parent."""
    kernel = _kernel(cpu, takes_pages)
    chid = kernel.ChannelCreate()
    print(chid, flush=True)
    buffer, answer = bytearray(4096), b"y" * SIZE

    def loop() -> None:
        while True:
            rcvid = kernel.MsgReceive(chid, buffer)
            if rcvid:
                kernel.MsgReply(rcvid, 0, answer)

    _in_thread(loop, in_main)


def _timed(send: Callable[[], object], messages: int) -> float:
    taken: List[int] = []
    for _message in range(messages):
        began = time.perf_counter_ns()
        send()
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken) / 1e3


def ask(cpus: Tuple[int, int], takes_pages: bool, in_main: bool, messages: int) -> None:
    """In the client's process: start the server, and print what a message took."""
    arguments = ["--serve", str(cpus[1]), str(int(takes_pages)), str(int(in_main))]
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603  # ourselves
        assert server.stdout is not None
        try:
            kernel = _kernel(cpus[0], True)
            coid = kernel.ConnectAttach(0, server.pid, int(server.stdout.readline()))
            message, reply = b"x" * SIZE, bytearray(SIZE)

            def loop() -> None:
                _timed(lambda: kernel.MsgSend(coid, message, reply), messages // 10)
                print(_timed(lambda: kernel.MsgSend(coid, message, reply), messages))

            _in_thread(loop, in_main)
        finally:
            server.kill()


def calls_alone(messages: int) -> float:
    """What MsgSend, MsgReceive and MsgReply take where what they read is there already, and nothing is written."""
    from ha_qnx.fallback import host, wire
    from ha_qnx.fallback.kernel import SocketKernel

    kernel = SocketKernel()
    chid = kernel.ChannelCreate()
    coid = kernel.ConnectAttach(0, os.getpid(), chid)
    buffer, answer, reply = bytearray(4096), b"y" * SIZE, bytearray(SIZE)
    found: List[float] = []

    def prepare_and_measure() -> None:
        def answer_once() -> None:
            kernel.MsgReply(kernel.MsgReceive(chid, buffer), 0, answer)

        server = threading.Thread(target=answer_once)
        server.start()
        kernel.MsgSend(coid, b"x" * SIZE, reply)
        server.join()
        near = kernel._connections[coid].idle[0]
        channel = kernel._channels.entries[chid]
        far = next(iter(channel._lanes.values()))
        there = wire.message.pack(wire.MESSAGE, 10, 1, SIZE, SIZE, 0) + b"x" * SIZE
        back = wire.plain_reply.pack(wire.REPLY, 0, SIZE) + answer

        def put(frame: bytes) -> Callable[["bytearray | memoryview"], int]:
            def read_into(into: "bytearray | memoryview") -> int:
                into[: len(frame)] = frame
                return len(frame)

            return read_into

        near.write = far.write = len
        near.read_into, far.read_into = put(back), put(there)
        news = [(far.read_fd, host.READABLE)]
        channel._wait_for_ever = lambda _timeout, _most: news
        message = b"x" * SIZE
        sends = _timed(lambda: kernel.MsgSend(coid, message, reply), messages)
        found.append(sends + _timed(answer_once, messages))

    _in_thread(prepare_and_measure, in_main=False)
    return found[0]


def _program(arguments: List[str], spin_us: int = 0) -> str:
    environment = {**os.environ, "HA_QNX_SPIN_US": str(spin_us)}
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(  # noqa: S603  # ourselves
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=120
    ).stdout


def run(rounds: int, messages: int) -> Dict[str, Any]:
    """All rounds: microseconds, and how many times the floor."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SystemExit("each side needs a CPU of its own")
    taken: Dict[str, List[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HA_QNX_RUNTIME"] = os.path.join(directory, "run")
        floor: Optional[str] = build_floor(directory)
        if floor is None:
            raise SystemExit("the floor needs a C compiler")
        for _round in range(rounds):
            command = ["taskset", "-c", str(cpus[0]), floor, str(messages), str(cpus[1])]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603
            taken.setdefault("floor", []).append(statistics.median(map(int, output.split())) / 1e3)
            for name, spin_us, takes_pages, in_main in VARIANTS:
                arguments = [*map(str, cpus[:2]), str(int(takes_pages)), str(int(in_main)), str(messages)]
                taken.setdefault(name, []).append(float(_program(["--ask", *arguments], spin_us)))
            taken.setdefault("the calls alone", []).append(float(_program(["--calls", str(messages)])))
    ratios = {
        name: statistics.median(one / floor for one, floor in zip(each, taken["floor"])) for name, each in taken.items()
    }
    return {"us": {name: statistics.median(each) for name, each in taken.items()}, "floors": ratios}


def main() -> int:
    """Run it, or be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=5, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        cpu, takes_pages, in_main = options.serve
        serve(cpu, bool(takes_pages), bool(in_main))
    elif options.ask:
        near, far, takes_pages, in_main, messages = options.ask
        ask((near, far), bool(takes_pages), bool(in_main), messages)
    elif options.calls:
        print(calls_alone(options.calls))
    else:
        results = run(options.rounds, options.messages)
        if options.json:
            print(json.dumps(results))
        else:
            print(f"{options.rounds} rounds of {options.messages} messages of {SIZE} bytes, a CPU for each side")
            for name, microseconds in results["us"].items():
                print(f"  {name:24s} {microseconds:8.2f} us  {results['floors'][name]:6.2f} times the floor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
