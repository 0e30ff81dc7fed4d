"""What it costs to deliver an event: from MsgDeliverEvent in a server to the pulse that its client receives.

The client hands in an event whose pulse is for a channel of its own, and waits there. The server delivers it when the
client asks, with the time of its clock for a value: the pulse is late by what has passed since, when it is received.
Beside that, what a message and its empty reply take between the two. Run it with an interpreter that has ha_qnx:

    python ci/bench/delivery.py [--events N] [--backend NAME] [--json]

The exit status is 1 if an event was lost.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, List

NAME = "bench-delivery"
CODE = 5


def serve() -> None:
    """Take an event, and deliver it at each message that follows, a moment after the answer."""
    import ha_qnx as ha

    name = ha.name_attach(NAME)
    print("ready", flush=True)
    message = bytearray(256)
    subscribed, event = 0, ha.SigEvent()
    while True:
        rcvid = ha.MsgReceive(name.chid, message)
        if not rcvid:
            continue
        if message[:1] == b"e":
            subscribed, event = rcvid, ha.SigEvent.from_buffer_copy(message[1:])
        ha.MsgReply(rcvid, 0)
        if message[:1] == b"d":
            time.sleep(0.0005)  # The client waits for the pulse by then.
            # Of the nanoseconds, as many as have room in the value.
            event.sigev_value.sival_int = time.monotonic_ns() & 0x7FFFFFFF
            ha.MsgDeliverEvent(subscribed, event)


def measure(events: int) -> Dict[str, Any]:
    """How late each pulse was, and how long a message took, in microseconds."""
    import ha_qnx as ha

    command = [sys.executable, __file__, "serve"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603  # this very file
    watchdog = threading.Timer(60 + events / 100, server.kill)  # The client's messages fail then.
    watchdog.start()
    try:
        assert server.stdout is not None
        server.stdout.readline()
        channel = ha.ChannelCreate()
        mine = ha.ConnectAttach(0, 0, channel)
        event = ha.SIGEV_PULSE_INIT(mine, ha.SIGEV_PULSE_PRIO_INHERIT, CODE)
        coid, pulse = ha.name_open(NAME), ha.Pulse()
        ha.MsgSend(coid, b"e" + bytes(event))
        late: List[float] = []
        asked: List[float] = []
        for _event in range(events):
            began = time.monotonic_ns()
            ha.MsgSend(coid, b"x")
            asked.append((time.monotonic_ns() - began) / 1000)
            ha.MsgSend(coid, b"d")
            ha.TimerTimeout(ha.NTO_TIMEOUT_RECEIVE, 1_000_000_000)
            try:
                ha.MsgReceive(channel, pulse)
            except TimeoutError:
                continue
            late.append((time.monotonic_ns() - pulse.value.sival_int & 0x7FFFFFFF) / 1000)
    finally:
        watchdog.cancel()
        server.kill()
        server.communicate()
    late.sort()
    asked.sort()
    return {
        "events": events,
        "lost": events - len(late),
        "late_us_median": late[len(late) // 2],
        "late_us_p99": late[len(late) * 99 // 100],
        "message_us_median": asked[len(asked) // 2],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2000, help="how many are delivered (2000)")
    parser.add_argument("--backend", default="fallback")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ.update(HA_QNX_RUNTIME=directory, HA_QNX_BACKEND=options.backend)
        found = measure(options.events)
    if options.json:
        print(json.dumps({"backend": options.backend, **found}))
    else:
        print(f"{found['events']} events, {options.backend}: {found['lost']} lost")
        print(f"  from MsgDeliverEvent to the pulse  {found['late_us_median']:8.1f} us (median)")
        print(f"                                     {found['late_us_p99']:8.1f} us (p99)")
        print(f"  a message and its reply            {found['message_us_median']:8.1f} us (median)")
    return int(bool(found["lost"]))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(main())
