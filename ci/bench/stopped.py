"""What a server that hangs costs an asyncio client that talks to another one, too, and how soon one Ctrl-C ends it.

Server A is stopped by SIGSTOP. The client then sends it messages and cancels them, a few at a time, and asks server B
without a pause, from before A is stopped until the last message has been cancelled. Then it gets one SIGINT, while
messages to A still wait for their replies. Run it with an interpreter that has ha_qnx:

    python ci/bench/stopped.py [--sends N] [--backend NAME] [--json]

The exit status is 1 if an answer of B was missing or wrong, or if the client did not end on its SIGINT.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, List

LIMIT = 60.0  # Seconds for whatever should not take one.
BATCH = 10  # How many messages are sent, and then cancelled, between two looks at the clock.


def serve(name: str) -> None:
    """Answer each message with itself."""
    import ha_qnx

    class Echo(ha_qnx.Service):
        def message(self, request: Any) -> Any:
            return request.data

        def ready(self) -> None:
            print("ready", flush=True)

    Echo(name).serve()


async def ask(hung: int, sends: int) -> None:
    """Stop A, and see how long B takes meanwhile; print that, then wait for A in vain."""
    from ha_qnx import aio

    waits: List[float] = []

    async def ask_healthy() -> None:
        while True:
            began = time.perf_counter()
            assert await asyncio.wait_for(aio.ask(healthy, b"how are you"), LIMIT) == b"how are you"
            waits.append(time.perf_counter() - began)

    async with aio.connect("hung") as stopped, aio.connect("healthy") as healthy:
        assert await aio.ask(stopped, b"x") == b"x"
        asking = asyncio.ensure_future(ask_healthy())
        os.kill(hung, signal.SIGSTOP)
        cancelled = 0
        while cancelled < sends:
            batch = [asyncio.ensure_future(aio.ask(stopped, b"x")) for _send in range(min(BATCH, sends - cancelled))]
            answered = len(waits)
            while len(waits) == answered and not asking.done():
                await asyncio.sleep(0)
            for send in batch:
                send.cancel()
            ends = await asyncio.gather(*batch, return_exceptions=True)
            cancelled += sum(isinstance(end, asyncio.CancelledError) for end in ends)
            assert not asking.done(), asking.exception()
        left = [asyncio.ensure_future(aio.ask(stopped, b"x")) for _send in range(BATCH)]
        answered = len(waits)
        while len(waits) < answered + 10 and not asking.done():
            await asyncio.sleep(0)
        print(json.dumps([1000 * wait for wait in waits]), flush=True)
        await asyncio.gather(asking, *left)


def measure(sends: int) -> Dict[str, Any]:
    """How long B took, in milliseconds, and the client to end, in seconds."""

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, __file__, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603

    programs = []
    try:
        for name in ("hung", "healthy"):
            programs.append(start("serve", name))
            assert programs[-1].stdout is not None
            programs[-1].stdout.readline()
        client = start("ask", str(programs[0].pid), str(sends))
        programs.append(client)
        assert client.stdout is not None
        watchdog = threading.Timer(LIMIT, client.kill)
        watchdog.start()
        told = client.stdout.readline()
        watchdog.cancel()
        if not told:
            sys.exit("the client has failed: an answer of B was missing or wrong")
        waits = sorted(json.loads(told))
        began = time.perf_counter()
        client.send_signal(signal.SIGINT)
        try:
            client.wait(LIMIT)
        except subprocess.TimeoutExpired:
            end = None
        else:
            end = time.perf_counter() - began
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    return {
        "cancelled": sends,
        "answers": len(waits),
        "answer_ms_median": waits[len(waits) // 2],
        "answer_ms_p99": waits[len(waits) * 99 // 100],
        "answer_ms_most": waits[-1],
        "end_s": end,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sends", type=int, default=500, help="how many messages to A are cancelled (500)")
    parser.add_argument("--backend", default="fallback")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ.update(HA_QNX_RUNTIME=directory, HA_QNX_BACKEND=options.backend)
        found = measure(options.sends)
    if options.json:
        print(json.dumps({"backend": options.backend, **found}))
    else:
        print(f"{found['cancelled']} messages to a stopped server, cancelled; {options.backend}")
        print(f"  {found['answers']} answers of another one meanwhile")
        print(
            f"  after {found['answer_ms_median']:.1f} ms (median), {found['answer_ms_p99']:.1f} ms (p99),"
            f" {found['answer_ms_most']:.1f} ms at most"
        )
        print("  one Ctrl-C", "does not end it" if found["end_s"] is None else f"ends it in {found['end_s']:.3f} s")
    return int(found["end_s"] is None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    elif sys.argv[1:2] == ["ask"]:
        asyncio.run(ask(int(sys.argv[2]), int(sys.argv[3])))
    else:
        sys.exit(main())
