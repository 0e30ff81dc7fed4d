"""How long a message takes: a round trip of 64 bytes, client and server pinned to one CPU.

Compared are a C program's blocking ping-pong over a stream socket pair (the floor), MsgSend of the fallback's kernel,
and the cover on an HA-aware connection, in interleaved rounds of one run. Each figure is the median of the rounds'
medians. Run it with an interpreter that has ha_qnx installed:

    python ci/bench/message.py [--rounds N] [--messages N] [--cpu N] [--json]

The threads matter. In Python's main thread a call has to end when a signal handler has run (D19), which Python's own
system calls do not do, so the main thread goes a longer way; both are measured. So is a connection that is a
descriptor, whose number is checked before every message (D17).
"""

import argparse
import ctypes
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

SIZE = 64
FLOOR_SOURCE = pathlib.Path(__file__).with_name("floor.c")


class Variant(NamedTuple):
    """A way to send a message."""

    name: str
    main_thread: bool
    descriptor: bool
    backend: str = "fallback"


VARIANTS = (
    Variant("other threads", main_thread=False, descriptor=False),
    Variant("main threads", main_thread=True, descriptor=False),
    Variant("other threads, a descriptor", main_thread=False, descriptor=True),
    Variant("native, other threads", main_thread=False, descriptor=False, backend="native"),
    Variant("native, main threads", main_thread=True, descriptor=False, backend="native"),
)


def serve(name: str, main_thread: bool) -> None:
    """In the server's process: answer everything with 64 bytes, until the client has gone."""
    import ha_qnx

    attached = ha_qnx.name_attach(name)
    buffer, answer = bytearray(SIZE), b"y" * SIZE

    def loop() -> None:
        while True:
            rcvid = ha_qnx.MsgReceive(attached.chid, buffer)
            if not rcvid:
                os._exit(0)
            ha_qnx.MsgReply(rcvid, 0, answer)

    in_thread(loop, main_thread)


def client(name: str, main_thread: bool, descriptor: bool, messages: int) -> Dict[str, float]:
    """In the client's process: the medians of the kernel's and the cover's round trips, in nanoseconds.

    They are measured in turn, a few hundred at a time, so that a change of the machine's speed meets both.
    """
    kernel, recovery = _layers()
    coid = _connect(recovery, name, descriptor)
    recovery.ha_attach(coid, lambda _coid, _handle: -1)
    message, reply = b"x" * SIZE, bytearray(SIZE)
    now = time.perf_counter_ns
    times: Dict[str, List[int]] = {"kernel": [], "cover": []}

    def measure() -> None:
        for _warm_up in range(200):
            recovery.MsgSend(coid, message, reply)
        for block in range(max(2, messages // 250)):
            which, send = (("kernel", kernel.MsgSend), ("cover", recovery.MsgSend))[block % 2]
            taken = times[which]
            for _message in range(500):
                start = now()
                send(coid, message, reply)
                taken.append(now() - start)

    in_thread(measure, main_thread)
    return {which: statistics.median(taken) for which, taken in times.items()}


def _layers() -> Tuple[Any, Any]:
    """The kernel calls and the covers of the chosen backend; the native one has both in one."""
    if os.environ["HA_QNX_BACKEND"] == "native":
        import ha_qnx

        return ha_qnx.backend(), ha_qnx.backend()
    from ha_qnx.fallback.kernel import SocketKernel

    from ha_qnx.recovery import Recovery

    kernel = SocketKernel()
    return kernel, Recovery("fallback", kernel)


def ctypes_call() -> float:
    """The nanoseconds of one call by ctypes that reaches no kernel: a reply to nobody."""
    import ha_qnx
    from ha_qnx.native.kernel import NativeKernel

    native = ha_qnx.backend("native")
    assert isinstance(native, NativeKernel)
    reply = native.libraries.fast("MsgReply_r")
    data, size, status = b"y" * SIZE, ctypes.c_size_t.from_param(SIZE), ctypes.c_long.from_param(0)
    times = []
    for _block in range(200):
        start = time.perf_counter_ns()
        for _call in range(100):
            reply(-1, status, data, size)
        times.append((time.perf_counter_ns() - start) / 100)
    return statistics.median(times)


def _connect(recovery: Any, name: str, descriptor: bool) -> int:
    from ha_qnx import MessageInfo

    deadline = time.monotonic() + 10
    while True:
        try:
            found = recovery.name_open(name)
            break
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    if not descriptor:
        return int(found)
    info = MessageInfo()
    recovery.ConnectServerInfo(0, found, info)
    coid = int(recovery.ConnectAttach(info.nd, info.pid, info.chid, 3))
    recovery.name_close(found)  # The last connection that goes ends the server.
    return coid


def in_thread(call: Callable[[], None], main_thread: bool) -> None:
    if main_thread:
        call()
        return
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def measure_floor(program: str, messages: int) -> float:
    output = subprocess.run([program, str(messages)], check=True, stdout=subprocess.PIPE).stdout  # noqa: S603
    return statistics.median(map(int, output.split()))


def measure_variant(variant: Variant, messages: int) -> Dict[str, float]:
    """One round of a variant, in fresh processes."""
    name = f"bench-{os.getpid()}"
    os.environ["HA_QNX_BACKEND"] = variant.backend
    arguments = [name, str(int(variant.main_thread))]
    itself = [sys.executable, __file__]
    server = subprocess.Popen([*itself, "--server", *arguments], stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        wanted = [*itself, "--client", *arguments, str(int(variant.descriptor)), str(messages)]
        output = subprocess.run(wanted, check=True, stdout=subprocess.PIPE, timeout=120).stdout  # noqa: S603
        server.wait(10)
    finally:
        server.kill()
        server.wait()
    result: Dict[str, float] = json.loads(output)
    return result


def build_floor(directory: str) -> Optional[str]:
    """The compiled floor, or None where there is no C compiler."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    program = os.path.join(directory, "floor")
    subprocess.run([compiler, "-O2", "-o", program, str(FLOOR_SOURCE)], check=True)  # noqa: S603
    return program


def run(rounds: int, messages: int, cpu: int) -> Dict[str, Any]:
    """All rounds: microseconds, and how many times the floor."""
    os.sched_setaffinity(0, {cpu})
    taken: Dict[str, List[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HA_QNX_RUNTIME"] = os.path.join(directory, "run")
        floor = build_floor(directory)
        variants = [variant for variant in VARIANTS if variant.backend == "fallback" or has_native()]
        for number in range(rounds):
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            if floor is not None:
                taken.setdefault("floor", []).append(measure_floor(floor, messages))
            for variant in variants:
                for which, median in measure_variant(variant, messages).items():
                    taken.setdefault(f"{which}, {variant.name}", []).append(median)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    result: Dict[str, Any] = {
        "python": sys.version.split()[0],
        "rounds": rounds,
        "messages": messages,
        "microseconds": {name: round(statistics.median(values) / 1000, 3) for name, values in taken.items()},
    }
    microseconds = result["microseconds"]
    if "floor" in microseconds:
        result["times_the_floor"] = {
            name: round(value / microseconds["floor"], 3) for name, value in microseconds.items() if name != "floor"
        }
    result["cover_times_kernel"] = {
        variant.name: round(microseconds[f"cover, {variant.name}"] / microseconds[f"kernel, {variant.name}"], 3)
        for variant in variants
        if variant.backend == "fallback"
    }
    if has_native():
        result["ctypes_call_us"] = round(ctypes_call() / 1000, 3)
    return result


def has_native() -> bool:
    """Whether there is a library to run the binding on."""
    import ha_qnx

    try:
        ha_qnx.backend("native")
    except ImportError:
        return False
    return True


def show(result: Dict[str, Any]) -> None:
    print(f"Python {result['python']}, {result['rounds']} rounds of {result['messages']} messages of {SIZE} bytes")
    for name, value in result["microseconds"].items():
        times = result.get("times_the_floor", {}).get(name)
        print(f"  {name:40s} {value:7.2f} us" + (f"   {times:.2f} times the floor" if times else ""))
    for name, value in result["cover_times_kernel"].items():
        print(f"  cover / kernel, {name:24s} {value:7.3f}")
    if "ctypes_call_us" in result:
        print(f"  one call by ctypes, of the three of a round trip: {result['ctypes_call_us']:.2f} us")
    else:
        print("  (no library for the native backend)")
    if "times_the_floor" not in result:
        print("  (no C compiler, so no floor: gcc or clang brings it)")


def main() -> int:
    if sys.argv[1:2] == ["--server"]:
        serve(sys.argv[2], sys.argv[3] == "1")
        return 0
    if sys.argv[1:2] == ["--client"]:
        print(json.dumps(client(sys.argv[2], sys.argv[3] == "1", sys.argv[4] == "1", int(sys.argv[5]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--messages", type=int, default=5000, help="messages of each kind in a round")
    parser.add_argument("--cpu", type=int, default=0, help="the CPU that everything runs on")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = run(options.rounds, options.messages, options.cpu)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
