"""Whether timers keep their promise, and how late their pulses are: a hundred at 1 ms on one channel.

Each expiry is a pulse, received or not, and pulses come in the order of their expiries. So the n-th pulse of a timer
belongs to its n-th expiry: it is late by so much, never early, and never behind a pulse that was due later. Run it with
an interpreter that has ha_qnx:

    python ci/bench/timers.py [--timers N] [--period-us N] [--seconds N] [--backend NAME] [--json]

The exit status is 1 if a pulse was lost, came twice or came out of order.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from typing import Any, Dict, List

CODE = 5


def measure(backend: str, count: int, period: int, seconds: float, show_progress: bool) -> Dict[str, Any]:
    """Set ``count`` timers of ``period`` nanoseconds for so many seconds, and account for each of their pulses."""
    import ha_qnx

    qnx = ha_qnx.backend(backend)
    chid = qnx.ChannelCreate()
    coid = qnx.ConnectAttach(0, 0, chid)
    pulse = ha_qnx.Pulse()
    expiries = int(seconds * 1e9) // period
    # Their expiries lie close together, and yet have an order.
    first = time.monotonic_ns() + 100_000_000
    starts = [first + number * period // (10 * count) for number in range(count)]
    timers = []
    for number, start in enumerate(starts):
        event = ha_qnx.SIGEV_PULSE_INIT(coid, ha_qnx.SIGEV_PULSE_PRIO_INHERIT, CODE, number)
        timers.append(qnx.TimerCreate(ha_qnx.CLOCK_MONOTONIC, event))
        qnx.TimerSettime(timers[-1], ha_qnx.TIMER_ABSTIME, ha_qnx.Itimer(start, period))
    received = [0] * count
    late: List[int] = []
    latest = unordered = early = 0
    cpu = time.process_time_ns()
    while min(received) < expiries and time.monotonic_ns() < starts[-1] + expiries * period + 10_000_000_000:
        # Ten seconds more than they need: then what has not come is lost.
        qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_RECEIVE, 1_000_000_000)
        try:
            qnx.MsgReceive(chid, pulse)
        except TimeoutError:
            break
        now, number = time.monotonic_ns(), pulse.value.sival_int
        due = starts[number] + received[number] * period
        received[number] += 1
        if received[number] > expiries:
            continue
        late.append(now - due)
        early += now < due
        unordered += due < latest
        latest = max(latest, due)
        if show_progress and len(late) % 50_000 == 0:
            print(f"\r{len(late)} of {count * expiries} pulses", end="", file=sys.stderr, flush=True)
    cpu = time.process_time_ns() - cpu
    for timer in timers:
        qnx.TimerDestroy(timer)
    qnx.ConnectDetach(coid)
    qnx.ChannelDestroy(chid)
    late.sort()
    return {
        "backend": backend,
        "pulses": len(late),
        "lost": count * expiries - len(late),
        "early": early,
        "unordered": unordered,
        "late_us_median": late[len(late) // 2] / 1e3,
        "late_us_p99": late[len(late) * 99 // 100] / 1e3,
        "late_us_most": late[-1] / 1e3,
        "cpu_us_each": cpu / len(late) / 1e3,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timers", type=int, default=100)
    parser.add_argument("--period-us", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--backend", default="fallback")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HA_QNX_RUNTIME"] = directory
        period = options.period_us * 1000
        found = measure(options.backend, options.timers, period, options.seconds, not options.json)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"\r{options.timers} timers of {options.period_us} us for {options.seconds} s, {found['backend']}")
        print(f"  {found['pulses']} pulses received, {found['lost']} lost, {found['early']} before they were due")
        print(f"  {found['unordered']} out of order")
        print(
            f"  late by {found['late_us_median']:.0f} us (median), {found['late_us_p99']:.0f} us (p99),"
            f" {found['late_us_most']:.0f} us at most"
        )
        print(f"  {found['cpu_us_each']:.1f} us of a processor for each, receiving included")
    return int(bool(found["lost"] or found["early"] or found["unordered"]))


if __name__ == "__main__":
    sys.exit(main())
