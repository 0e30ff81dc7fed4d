"""Recover a connection very often, and see that nothing grows: no memory, no descriptor, no count of references.

    python ci/recoveries.py [--count 100000] [--backend native]

A server in this process dies after each message or, in turn, after each pulse; the recovery function makes the next one
and reconnects. Exit status 1 and a sentence for whatever has grown since the first part of the run.

Run it with an interpreter that has ha_qnx installed.
"""

import argparse
import gc
import os
import queue
import sys
import threading
import time
from typing import Dict, List

import ha_qnx
from ha_qnx.constants import NTO_SIDE_CHANNEL

# What may have changed at the end that is no growth by recoveries: the bytes of some pages of the allocators, and some
# small objects of the interpreter's own. With 25,000 recoveries, a leak of one small object in a hundred is more.
ALLOWED = {"bytes of memory": 512 << 10, "blocks of Python's memory": 200}


class Run:
    """A connection, its servers, and the recoveries so far."""

    def __init__(self, backend: str) -> None:
        self.qnx = ha_qnx.backend(backend)
        self.recoveries = 0
        self._channels: queue.Queue[int] = queue.Queue()
        self._server = threading.Thread(target=self._serve)
        self._server.start()
        self.function, self.handle = self._recover, object()
        chid = self._make_channel()
        self.coid = self.qnx.ha_ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, 0, self.function, self.handle)

    def _make_channel(self) -> int:
        chid = self.qnx.ChannelCreate()
        self._channels.put(chid)
        return chid

    def _recover(self, coid: int, handle: object) -> int:
        assert handle is self.handle
        self.recoveries += 1
        return self.qnx.ha_ReConnectAttach(coid, 0, 0, self._make_channel(), NTO_SIDE_CHANNEL, 0)

    def _serve(self) -> None:
        """Answer one message, or take one pulse, on each channel, and end it."""
        room = bytearray(64)
        for chid in iter(self._channels.get, 0):
            rcvid = self.qnx.MsgReceive(chid, room)
            if rcvid:
                self.qnx.MsgReply(rcvid, 0, b"answer")
            self.qnx.ChannelDestroy(chid)
            self._channels.task_done()

    def go_on(self, count: int) -> None:
        """Send until there have been so many recoveries, and wait until the last server has died."""
        reply = bytearray(64)
        while self.recoveries < count:
            self.qnx.MsgSend(self.coid, b"question", reply)
            self.qnx.MsgSendPulse(self.coid, 10, 1, 2)
        self._channels.join()
        # The last pulse may have come before the end of the channel that had the message. One that certainly comes
        # after it leaves the same descriptors every time: those of a connection that carried nothing but a pulse.
        self.qnx.MsgSendPulse(self.coid, 10, 1, 2)
        self._channels.join()

    def end(self) -> None:
        """End the connection and the thread."""
        self._channels.put(0)
        self._server.join()
        self.qnx.ha_ConnectDetach(self.coid)

    def measured(self) -> Dict[str, int]:
        """What must not grow."""
        gc.collect()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return {
            "bytes of memory": pages * os.sysconf("SC_PAGE_SIZE"),
            "blocks of Python's memory": sys.getallocatedblocks(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "references to the recovery function": sys.getrefcount(self.function),
            "references to the handle": sys.getrefcount(self.handle),
        }


def growth(before: Dict[str, int], after: Dict[str, int]) -> List[str]:
    """A sentence for each thing that has grown."""
    return [
        f"there are {after[what] - before[what]} more {what} than at first"
        for what in before
        if after[what] - before[what] > ALLOWED.get(what, 0)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="how many recoveries")
    parser.add_argument("--backend", default="native", help="whose they are")
    options = parser.parse_args()
    began = time.monotonic()
    run = Run(options.backend)
    run.go_on(options.count // 10)
    first = run.measured()
    run.go_on(options.count)
    found = growth(first, run.measured())
    run.end()
    for sentence in found:
        print(sentence)
    print(f"{run.recoveries} recoveries in {time.monotonic() - began:.1f} s: {'growth' if found else 'no growth'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
