"""Break the rules of recovery and of the kernel one at a time, and see that the conformance suite notices each.

Each mutant is a copy of the installed package with one rule broken. The suite runs on it until the first failure. A
mutant that no test notices is a hole in the suite, and this program fails. It takes a few minutes:

    python ci/mutants.py [--only NAME ...] [--jobs N]

Run it with an interpreter that has ha_qnx and pytest installed.
"""

import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import List, NamedTuple, Optional, Tuple

import ha_qnx

TIME_LIMIT = 300


class Mutant(NamedTuple):
    """A broken rule: in a file of the package, one text replaced by another."""

    name: str
    file: str
    old: str
    new: str


RULES = "rules.py"
RECOVERY = "recovery.py"
KERNEL = "fallback/kernel.py"
CLIENT = "fallback/connections.py"
SERVER = "fallback/channels.py"
TABLE = "fallback/table.py"

MUTANTS = (
    # Recovery.
    Mutant("recovers from any error", RULES, "LOST = frozenset((EBADF, ESRCH))", "LOST = frozenset(range(1, 200))"),
    Mutant("recovers from EBADF only", RULES, "LOST = frozenset((EBADF, ESRCH))", "LOST = frozenset((EBADF,))"),
    Mutant("takes any number for a recovery", RULES, "if not isinstance(result, int) or result != coid:", "if not isinstance(result, int) or result < 0:"),
    Mutant("swallows what the recovery function raises", RULES, "                raise failure from error\n", "                raise failure from None\n"),
    Mutant("never starts ICOUNT anew", RULES, "        if self.icount and not self.is_recovering_here:\n            self.icount = 0\n", "        pass\n"),
    Mutant("makes the call that exceeds the limit", RULES, "0 <= self._icount_limit <= self.icount or", "0 <= self._icount_limit < self.icount or"),
    Mutant("does not bound the calls in all", RULES, " or 0 <= self._acount_limit <= self.acount", ""),
    Mutant("recovers once for every thread", RULES, "            if generation != self.generation:\n                return\n", ""),
    Mutant("recovers while suspended", RULES, "if self.suspended or coid not in self.coids", "if coid not in self.coids"),
    Mutant("recurses into the recovery function", RULES, "        if self.is_recovering_here:\n            raise failure\n", "        if self.is_recovering_here:\n            self.function(coid, self.handle)\n            return\n"),
    Mutant("keeps the attachment of an ended connection", RECOVERY, "        attachment = self._attachments.take(coid)\n        try:\n            return call()", "        attachment = None\n        try:\n            return call()"),
    Mutant("gives duplicates an attachment of their own", RULES, "            self._enter(duplicate, self.get(coid))", "            original = self.get(coid)\n            self._enter(duplicate, Attachment(original.function, original.handle))"),
    Mutant("closes what is not HA-aware", RECOVERY, "        self._attachments.get(operator.index(fd))\n        return self.close(fd)", "        return self.close(fd)"),
    Mutant("does not cover pulses", RECOVERY, "        return self._cover(self._kernel.MsgSendPulse, coid, priority, code, value)", "        return self._kernel.MsgSendPulse(coid, priority, code, value)"),
    # The kernel.
    Mutant("ESRCH for EBADF", KERNEL, "            connection.discard(lane)\n            raise failure(EBADF) from None", "            connection.discard(lane)\n            raise failure(ESRCH) from None"),
    Mutant("EBADF for ESRCH", CLIENT, "outcome = (EBADF if self._connection.detached else ESRCH, 0)", "outcome = (EBADF, 0)"),
    Mutant("writes to whatever has the number", KERNEL, "            if connection.cookie and _lseek(coid, 0, 1) != connection.cookie:\n                raise failure(EBADF)\n", ""),
    Mutant("receives without regard to priority", SERVER, "heapq.heappush(self._messages, (-priority, sent_at,", "heapq.heappush(self._messages, (0, sent_at,"),
    Mutant("receives without regard to time", SERVER, "heapq.heappush(self._messages, (-priority, sent_at,", "heapq.heappush(self._messages, (-priority, -sent_at,"),
    Mutant("answers twice", KERNEL, "        if self._lanes_received.pop(rcvid, None) is None:", "        if self._lanes_received.get(rcvid, None) is None:"),
    Mutant("sends no unblock pulse", SERVER, "            self._queue_pulse(lane.unblock_pulse)\n", ""),
    Mutant("frees an unblocked client at once", CLIENT, "if flags is not None and flags & NTO_CHF_UNBLOCK:", "if flags is None:"),
    Mutant("sends no disconnect pulse", SERVER, "if self.flags & NTO_CHF_DISCONNECT and not self.destroyed:", "if not self.flags:"),
    Mutant("disconnects before blocked sends have ended", SERVER, "if not trunk.gone or trunk.lanes or not trunk.scoid:", "if not trunk.gone or not trunk.scoid:"),
    Mutant("leaves a timeout armed", "fallback/threads.py", "return self.timeouts.pop(get_ident(), None) if self.timeouts else None", "return self.timeouts.get(get_ident())"),
    Mutant("forgets the parts that MsgWrite wrote", KERNEL, 'frames = lane.written.frames() if lane.written else b""', 'frames = b""'),
    Mutant("restarts nothing", KERNEL, "            if number != ERESTART:\n                raise failure(number)", "            raise failure(number)"),
    Mutant("lets two servers have a name", "fallback/runtime.py", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"),
    Mutant("shares lanes with a forked child", TABLE, "        for coid, connection in self.entries.items():\n            if connection.cookie and not connection.detached:", "        for coid, connection in []:\n            if connection.cookie and not connection.detached:"),
    Mutant("goes on after a signal handler", "fallback/host.py", "    return found if found >= 0 else -get_errno()", "    return found if found >= 0 else _interruptible_poll(entries, count, deadline)"),
)  # fmt: skip


def notice(mutant: Mutant) -> Tuple[Mutant, Optional[str], float]:
    """The test that notices a mutant, or None; and the seconds it took."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        package = pathlib.Path(directory, "ha_qnx")
        shutil.copytree(pathlib.Path(ha_qnx.__file__).parent, package)
        source = package / mutant.file
        text = source.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name!r}: its text stands {text.count(mutant.old)} times in {mutant.file}")
        source.write_text(text.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "--pyargs"]
        environment = {**os.environ, "PYTHONPATH": directory}
        process = subprocess.Popen(  # noqa: S603  # pytest, on our own suite
            [*command, "ha_qnx.conformance"],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output = process.communicate(timeout=TIME_LIMIT)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return mutant, f"no test ends within {TIME_LIMIT} s", time.monotonic() - started
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if process.returncode == 1 and failed:
            return mutant, failed[0].split(" - ")[0].split(" ", 1)[1], time.monotonic() - started
        if process.returncode != 0:
            raise SystemExit(f"{mutant.name!r}: pytest itself failed\n{output}")
        return mutant, None, time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="a mutant, by its name; can be given again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    if not chosen:
        parser.error("there is no such mutant: " + ", ".join(mutant.name for mutant in MUTANTS))
    survivors: List[str] = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as executor:
        for number, (mutant, test, seconds) in enumerate(executor.map(notice, chosen), 1):
            print(f"[{number}/{len(chosen)}] {mutant.name}: {test or 'NOT NOTICED'} ({seconds:.0f} s)", flush=True)
            if test is None:
                survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} broken rules were noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
