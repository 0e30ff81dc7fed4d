"""Break the rules of recovery and of the kernel one at a time, and see that the conformance suite notices each.

Each mutant is a copy of the installed package with one rule broken. The suite runs on it until the first failure: first
the modules that are likely to notice, then all of it. A mutant that no test notices is a hole in the suite, and this
program fails. It takes some minutes:

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
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import ha_qnx

TIME_LIMIT = 300
TOO_SLOW = f"the suite did not end within {TIME_LIMIT} s"

RULES = "rules.py"
RECOVERY = "recovery.py"
FILES = "files.py"
IO_MESSAGES = "iomessages.py"
LIFETIMES = "lifetimes.py"
OPENING = "fallback/opening.py"
KERNEL = "fallback/kernel.py"
EVENT_CALLS = "fallback/event_calls.py"
EXCHANGE = "fallback/exchange.py"
CHANNEL = "fallback/channels.py"
SERVER_LANE = "fallback/server_lane.py"
QUEUE = "fallback/queue.py"
TABLE = "fallback/table.py"
THREADS = "fallback/threads.py"
RUNTIME = "fallback/runtime.py"
HOST = "fallback/host.py"


class Mutant(NamedTuple):
    """A broken rule: in a file of the package, one text replaced by another."""

    name: str
    #: The modules of the suite that run first, without "test_".
    first: str
    file: str
    old: str
    new: str


MUTANTS = (
    # When to recover.
    Mutant(
        "recovers from any error",
        "recovery",
        RULES,
        "LOST = frozenset((EBADF, ESRCH))",
        "LOST = frozenset(range(1, 200))",
    ),
    Mutant("recovers from EIO", "recovery", RULES, "LOST = frozenset((EBADF, ESRCH))", "LOST = {EBADF, ESRCH, 5}"),
    Mutant("recovers from EBADF only", "recovery", RULES, "LOST = frozenset((EBADF, ESRCH))", "LOST = {EBADF}"),
    Mutant("recovers from ESRCH only", "recovery", RULES, "LOST = frozenset((EBADF, ESRCH))", "LOST = {ESRCH}"),
    Mutant(
        "takes any number for a recovery",
        "recovery",
        RULES,
        "self._has_ended(isinstance(result, int) and result == coid)",
        "self._has_ended(isinstance(result, int) and result >= 0)",
    ),
    Mutant(
        "swallows what the recovery function raises",
        "recovery",
        RULES,
        "raise not_recovered(failure.errno or 0, error) from error\n",
        "raise not_recovered(failure.errno or 0, None) from None\n",
    ),
    Mutant(
        "takes SystemExit for -1",
        "recovery",
        RULES,
        "            except Exception as error:\n",
        "            except BaseException as error:\n",
    ),
    Mutant(
        "never starts ICOUNT anew",
        "recovery_limits",
        RULES,
        "        if self.icount and not self.is_recovering_here:\n            self.icount = 0\n",
        "        pass\n",
    ),
    Mutant(
        "makes the call that exceeds the limit",
        "recovery_limits",
        RULES,
        "0 <= self._icount_limit <= self.icount or",
        "0 <= self._icount_limit < self.icount or",
    ),
    Mutant(
        "makes the call that exceeds the limit of all",
        "recovery_limits",
        RULES,
        "or 0 <= self._acount_limit <= self.acount",
        "or 0 <= self._acount_limit < self.acount",
    ),
    Mutant(
        "does not bound the calls in all",
        "recovery_limits",
        RULES,
        " or 0 <= self._acount_limit <= self.acount",
        "",
    ),
    Mutant(
        "starts the count of all calls anew",
        "recovery_limits",
        RULES,
        "        if self.icount and not self.is_recovering_here:\n            self.icount = 0\n",
        "        if self.icount and not self.is_recovering_here:\n            self.icount = self.acount = 0\n",
    ),
    Mutant(
        "forgets the limits when recovery is switched on again",
        "recovery_limits",
        RULES,
        "            self.suspended = False\n        elif",
        "            self.suspended = False\n            self._icount_limit = _NO_LIMIT\n        elif",
    ),
    Mutant(
        "recovers once for every thread",
        "recovery_threads",
        RULES,
        "            if generation != self.generation:\n",
        "            if False:\n",
    ),
    Mutant(
        "recovers in two threads at once",
        "recovery_threads",
        RULES,
        "            with self._lock:\n                # First of all",
        "            if True:\n                # First of all",
    ),
    Mutant(
        "recovers while suspended",
        "recovery_limits",
        RULES,
        "if self.suspended or coid not in self.coids",
        "if coid not in self.coids",
    ),
    Mutant(
        "recovers a connection that was detached meanwhile",
        "recovery_threads recovery attachments",
        RULES,
        "if self.suspended or coid not in self.coids",
        "if self.suspended",
    ),
    Mutant(
        "recurses into the recovery function",
        "recovery",
        RULES,
        "                raise failure\n            with self._lock:\n",
        "                self.called[0](coid, self.called[1])\n                return\n            with self._lock:\n",
    ),
    # What is HA-aware.
    Mutant(
        "replaces a recovery function unasked",
        "attachments",
        RULES,
        "            elif replace:\n",
        "            elif True:\n",
    ),
    Mutant(
        "keeps the attachment of an ended connection",
        "attachments",
        LIFETIMES,
        "        attached = self._make_ordinary(coid)\n",
        "        attached = None\n",
    ),
    Mutant(
        "loses the attachment of a connection that did not end",
        "attachments",
        RECOVERY,
        "        self._attachments.give_back(coid, attached)\n",
        "        pass\n",
    ),
    Mutant(
        "gives a new connection the attachment of an old one",
        "attachments",
        LIFETIMES,
        "        self._make_ordinary(coid)\n        self._begin(coid)\n",
        "        self._begin(coid)\n",
    ),
    Mutant(
        "gives duplicates an attachment of their own",
        "attachments",
        RULES,
        "            self._enter(duplicate, self.get(coid))",
        "            own = Attachment(*self.get(coid).called, self._counts)\n            self._enter(duplicate, own)",
    ),
    Mutant(
        "closes what is not HA-aware",
        "attachments",
        RECOVERY,
        '        self._attachments.get(as_int("fd", fd))\n        return self.close(fd)',
        "        return self.close(fd)",
    ),
    Mutant(
        "attaches what is not open",
        "attachments",
        RECOVERY,
        "        if not self._kernel.is_open(coid):\n            raise failure(EBADF)\n",
        "",
    ),
    Mutant(
        "leaves open what could not be attached",
        "attachments",
        RECOVERY,
        "        attachment_flags(rfn, haflags)\n        coid = self.ConnectAttach(nd, pid, chid, index, flags)\n"
        "        return self._attach_new(coid, self.ConnectDetach, rfn, rhdl, haflags)\n",
        "        coid = self.ConnectAttach(nd, pid, chid, index, flags)\n"
        "        self.ha_attach(coid, rfn, rhdl, haflags)\n        return coid\n",
    ),
    Mutant(
        "does not cover pulses",
        "recovery",
        RECOVERY,
        "        return self._cover(self._kernel.MsgSendPulse, coid, priority, code, value)",
        "        return self._kernel.MsgSendPulse(coid, priority, code, value)",
    ),
    Mutant(
        "does not cover MsgSendvsnc",
        "recovery",
        RECOVERY,
        "        return self._cover(self._kernel.MsgSendvsnc, coid, siov, rmsg)",
        "        return self._kernel.MsgSendvsnc(coid, siov, rmsg)",
    ),
    Mutant(
        "keeps side channels HA-aware in a forked child",
        "fork",
        RECOVERY,
        "target.after_fork(keeps=lambda coid: not coid & NTO_SIDE_CHANNEL)",
        "target.after_fork(keeps=lambda coid: True)",
    ),
    Mutant(
        "forgets all attachments in a forked child",
        "fork",
        RECOVERY,
        "target.after_fork(keeps=lambda coid: not coid & NTO_SIDE_CHANNEL)",
        "target.after_fork(keeps=lambda coid: False)",
    ),
    # Connections.
    Mutant(
        "ESRCH for EBADF",
        "lost",
        KERNEL,
        "            except BrokenPipeError:\n                raise failure(EBADF) from None\n            thread",
        "            except BrokenPipeError:\n                raise failure(ESRCH) from None\n            thread",
    ),
    Mutant(
        "EBADF for ESRCH",
        "lost",
        EXCHANGE,
        "number = EBADF if self._connection.detached else self._connection.trunk.lost_message(self.comes_late)",
        "number = EBADF",
    ),
    Mutant(
        "EBADF for EINVAL when what is detached is no connection",
        "connections errors",
        KERNEL,
        "raise failure(EINVAL if error.errno == EBADF else error.errno or EINVAL) from None",
        "raise",
    ),
    Mutant(
        "sends on a number that is another's",
        "attachments",
        KERNEL,
        "            if connection.cookie and _lseek(coid, 0, 1) != connection.cookie:\n"
        "                raise failure(EBADF)\n",
        "",
    ),
    Mutant(
        "takes the number of another for its own",
        "attachments",
        TABLE,
        "if connection.cookie and not _is_marked(coid, connection.cookie):\n            # It",
        "if False:\n            # It",
    ),
    Mutant(
        "forgets numbers that were closed behind its back",
        "attachments",
        TABLE,
        "            # does, nothing that is meant for it is written to what has the number by now (D17).\n",
        "            self._forget(connection)\n",
    ),
    Mutant(
        "takes a new descriptor for the lost connection that had its number",
        "attachments",
        TABLE,
        "if connection is not None and not self.is_open(number):",
        "if False:",
    ),
    Mutant(
        "lets a child keep the lanes of its parent",
        "lost",
        CHANNEL,
        "                functools.partial(end_now, lanes),\n",
        "",
    ),
    Mutant(
        "tells of the death of servers that it is detached from",
        "disconnect",
        CHANNEL,
        "                    if not connection.detached:",
        "                    if True:",
    ),
    Mutant(
        "counts the time to a point anew when the message is received",
        "timeouts",
        EXCHANGE,
        "deadline, reply_timeout = reply_timeout.deadline(), None",
        "deadline, reply_timeout = time.monotonic() + (reply_timeout.nanoseconds or 0) / 1e9, None",
    ),
    Mutant(
        "copies connections without a limit of time",
        "io",
        EXCHANGE,
        "    timeout = threads.armed_timeout()",
        "    timeout = None",
    ),
    Mutant(
        "shares what was to be separate",
        "connections",
        TABLE,
        "        if not flags & NTO_COF_NOSHARE:\n",
        "        if True:\n",
    ),
    Mutant(
        "is a new client with every connection",
        "connections",
        TABLE,
        "        if not flags & NTO_COF_NOSHARE:\n",
        "        if False:\n",
    ),
    Mutant(
        "announces no duplicate",
        "descriptors",
        KERNEL,
        "            announce_copy(connection, original.describe(os.getpid()), self._threads)\n",
        "            pass\n",
    ),
    Mutant(
        "announces a duplicate as itself",
        "descriptors",
        KERNEL,
        "            announce_copy(connection, original.describe(os.getpid()), self._threads)\n",
        "            announce_copy(connection, connection.describe(os.getpid()), self._threads)\n",
    ),
    Mutant(
        "announces no copy of a forked child",
        "fork",
        TABLE,
        "            if inherited.original is not None:\n",
        "            if False:\n",
    ),
    Mutant(
        "shares lanes with a forked child",
        "fork",
        TABLE,
        "            if connection.cookie and (connection.detached or not connection.trunk.stands_at_fork):\n"
        "                if _is_marked(coid, connection.cookie):\n"
        "                    os.close(coid)\n",
        "            if connection.cookie:\n                self.entries[coid] = connection\n",
    ),
    Mutant(
        "says nothing to the server when a descriptor is closed",
        "descriptors",
        KERNEL,
        "            self._send(fd, [memoryview(iomessages.close_message())], [])\n",
        "            pass\n",
    ),
    Mutant(
        "opens whatever it is for reading only",
        "descriptors",
        OPENING,
        "iomessages.open_message(oflag, mode, ",
        "iomessages.open_message(oflag & ~os.O_ACCMODE, mode, ",
    ),
    Mutant(
        "does not report the death of a server",
        "disconnect",
        CHANNEL,
        "                        self.queue_pulse(PULSE_CODE_COIDDEATH, connection.coid)\n",
        "                        pass\n",
    ),
    Mutant(
        "does not report the death of a server to which the connection ends",
        "disconnect",
        TABLE,
        "                channel.hear_own_trunk(trunk.fd)\n",
        "                pass\n",
    ),
    # Messages.
    Mutant(
        "receives without regard to priority",
        "exchange pulses",
        QUEUE,
        "heapq.heappush(self.messages, (-priority, sent_at,",
        "heapq.heappush(self.messages, (0, sent_at,",
    ),
    Mutant(
        "receives without regard to time",
        "exchange pulses",
        QUEUE,
        "heapq.heappush(self.messages, (-priority, sent_at,",
        "heapq.heappush(self.messages, (-priority, -sent_at,",
    ),
    Mutant(
        "receives pulses before messages",
        "pulses",
        QUEUE,
        "if self.messages and not (self.pulses and self.pulses[0][:3] < self.messages[0][:3]):",
        "if self.messages and not self.pulses:",
    ),
    Mutant(
        "keeps the receiver's priority",
        "pulses channels exchange",
        SERVER_LANE,
        "        if not self.channel.flags & NTO_CHF_FIXED_PRIORITY:\n            thread.priority = priority\n"
        "        return rcvid",
        "        return rcvid",
    ),
    Mutant(
        "answers twice",
        "rcvid",
        KERNEL,
        "        if self._lane_by_rcvid.pop(rcvid, None) is None:",
        "        if self._lane_by_rcvid.get(rcvid, None) is None:",
    ),
    Mutant(
        "gives the rcvid of an answered message to the next",
        "rcvid",
        SERVER_LANE,
        "        return next(self.rcvids)\n",
        "        self.rcvids = iter(())\n        return min({*range(1, 9999)} - {*self.channel.rcvids.lanes})\n",
    ),
    Mutant(
        "forgets the parts that MsgWrite wrote",
        "answers",
        SERVER_LANE,
        'frames = self.written.frames() if self.written else b""\n',
        'frames = b""\n',
    ),
    Mutant(
        "loses what is left of a long reply behind its whole pieces",
        "exchange",
        SERVER_LANE,
        "range(start, end, step)",
        "range(start, max(start + 1, end - step + 1), step)",
    ),
    Mutant(
        "reads a message from its beginning only",
        "answers",
        SERVER_LANE,
        "                    start = wire.MESSAGE_HEADER + offset\n",
        "                    start = wire.MESSAGE_HEADER\n",
    ),
    Mutant("restarts nothing", "answers", KERNEL, "            if number != ERESTART:\n", "            if True:\n"),
    Mutant(
        "takes as much as was sent for what was received",
        "exchange",
        SERVER_LANE,
        "        self.received = count\n        if info is not None:",
        "        self.received = self.sent\n        if info is not None:",
    ),
    # Blocked clients, and clients that leave.
    Mutant(
        "sends no unblock pulse",
        "unblock",
        SERVER_LANE,
        "            self.channel.queue.add_pulse(self.unblock_pulse, time.monotonic_ns())\n",
        "",
    ),
    Mutant(
        "sends an unblock pulse that says nothing",
        "unblock",
        SERVER_LANE,
        "Pulse(PULSE_CODE_UNBLOCK, rcvid, self.client.scoid, self.priority)",
        "Pulse(PULSE_CODE_UNBLOCK, 0, self.client.scoid, self.priority)",
    ),
    Mutant(
        "takes a request to be freed for its message",
        "connections",
        EXCHANGE,
        "        if self._lane.is_wanted_back:  # What lies unread is no message then.\n            return False\n",
        "",
    ),
    Mutant(
        "delivers an unblock pulse after the answer",
        "answers",
        SERVER_LANE,
        "            self.unblock_pulse.withdrawn = True\n",
        "",
    ),
    Mutant(
        "takes the next message for a request, too",
        "unblock",
        SERVER_LANE,
        "            self.unblock_pulse.withdrawn = True\n            self.unblock_pulse = None\n",
        "            self.unblock_pulse.withdrawn = True\n",
    ),
    Mutant(
        "does not mark a client that wants to be freed",
        "unblock",
        SERVER_LANE,
        "(NTO_MI_UNBLOCK_REQ if self.unblock_pulse is not None else 0)",
        "0",
    ),
    Mutant(
        "frees an unblocked client at once",
        "unblock",
        EXCHANGE,
        "if flags is not None and flags & NTO_CHF_UNBLOCK:",
        "if flags is None:",
    ),
    Mutant(
        "forgets why a client wants to be freed",
        "unblock answers",
        EXCHANGE,
        "return (self._unblock_reason or EINTR) if number == -1 else number, 0",
        "return EINTR if number == -1 else number, 0",
    ),
    Mutant(
        "sends no disconnect pulse",
        "disconnect",
        CHANNEL,
        "if self.flags & NTO_CHF_DISCONNECT and not self.destroyed:",
        "if not self.flags:",
    ),
    Mutant(
        "sends disconnect pulses unasked",
        "disconnect",
        CHANNEL,
        "if self.flags & NTO_CHF_DISCONNECT and not self.destroyed:",
        "if not self.destroyed:",
    ),
    Mutant(
        "disconnects before blocked sends have ended",
        "disconnect unblock",
        CHANNEL,
        "if not client.gone or client.lanes or not client.scoid:",
        "if not client.gone or not client.scoid:",
    ),
    Mutant(
        "gives the number of a client that has left to the next",
        "disconnect",
        CHANNEL,
        "            self._departed.add(client.scoid)\n            self.leave_queue()\n",
        "            self._scoids.remove(client.scoid)\n            self.leave_queue()\n",
    ),
    # Timeouts and signals.
    Mutant(
        "leaves a timeout armed",
        "timeouts",
        THREADS,
        "return self.timeouts.pop(get_ident(), None) if self.timeouts else None",
        "return self.timeouts.get(get_ident())",
    ),
    Mutant(
        "limits the wait for the answer, too",
        "timeouts",
        EXCHANGE,
        "            return False  # Only the wait for a receiver was limited (B209).\n",
        "            pass\n",
    ),
    Mutant(
        "takes a point in time for a duration",
        "timeouts",
        THREADS,
        "        if self.flags & TIMER_ABSTIME:\n            return self.nanoseconds / 1e9\n",
        "",
    ),
    Mutant(
        "goes on after a signal handler",
        "signals",
        HOST,
        "    return found if found >= 0 else -EINTR",
        "    return found if found >= 0 else _interruptible_poll(entries, count, deadline)",
    ),
    # Pulses.
    Mutant(
        "sends pulses of any priority",
        "pulses",
        "fallback/event_calls.py",
        "        if not 1 <= priority <= 255:\n            raise failure(EINVAL)\n",
        "        priority = min(max(priority, 1), 255)\n",
    ),
    Mutant(
        "keeps a pulse for which there was no room",
        "pulses",
        CHANNEL,
        "            pulse.withdrawn = True  # It is lost (B252, B254).\n",
        "",
    ),
    # Names.
    Mutant(
        "lets two servers have a name",
        "names",
        RUNTIME,
        "fcntl.LOCK_EX | fcntl.LOCK_NB)\n                if not _is_at(file, fd)",
        "fcntl.LOCK_SH | fcntl.LOCK_NB)\n                if not _is_at(file, fd)",
    ),
    Mutant(
        "asks no server whether it wants the client",
        "names",
        OPENING,
        "                if self._send(connection.coid, [memoryview(message)], [room]) == -1:\n",
        "                if False:\n",
    ),
    Mutant(
        "keeps the channel of a name that is taken",
        "names",
        KERNEL,
        "                self.ChannelDestroy(chid)\n                raise\n            name = Name(path, chid)",
        "                raise\n            name = Name(path, chid)",
    ),
    # Device commands, and files that are served.
    Mutant(
        "devctl does not know ENOTTY",
        "devctl",
        FILES,
        "return ENOTTY if error.errno == ENOSYS else error.errno or EIO, 0, given",
        "return error.errno or EIO, 0, given",
    ),
    Mutant(
        "a status of devctl is not negated",
        "devctl",
        FILES,
        "return -status, iomessages.info_of(head), bytes(content)",
        "return status, iomessages.info_of(head), bytes(content)",
    ),
    Mutant(
        "devctl sends data whatever the command says",
        "devctl",
        FILES,
        "if dcmd & POSIX_DEVDIR_TO:",
        "if given:",
    ),
    Mutant(
        "devctl does not recover",
        "devctl",
        FILES,
        "status = self._recovered(self._plain.MsgSendvnc, fd, sent, received)",
        "status = self._plain.MsgSendvnc(fd, sent, received)",
    ),
    Mutant(
        "ionotify does not recover",
        "readiness",
        RECOVERY,
        "return self._cover(self._kernel.ionotify, fd, action, flags, event)",
        "return self._kernel.ionotify(fd, action, flags, event)",
    ),
    Mutant(
        "ionotify hands in no event",
        "readiness",
        IO_MESSAGES,
        "given = bytes(SigEvent() if event is None else event)",
        "given = bytes(SigEvent())",
    ),
    Mutant(
        "ionotify tells what was asked",
        "readiness",
        EVENT_CALLS,
        "return notify_flags(reply)",
        "return notify_flags(reply) | flags",
    ),
    Mutant(
        "ftruncate does not ask for more",
        "file_calls",
        FILES,
        "if iomessages.position_of(reply) < length:",
        "if iomessages.position_of(reply) < 0:",
    ),
)

UNBROKEN = Mutant("nothing broken", "", RULES, "", "")


class Outcome(NamedTuple):
    """What the suite says to a mutant: the test that notices it, or None."""

    test: Optional[str]
    seconds: float


def notice(mutant: Mutant) -> Outcome:
    """Run the suite on a mutant until a test notices."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        package = pathlib.Path(directory, "ha_qnx")
        shutil.copytree(pathlib.Path(ha_qnx.__file__).parent, package)
        if mutant.old:
            source = package / mutant.file
            source.write_text(source.read_text().replace(mutant.old, mutant.new))
        test = noticing_test(directory, mutant.first)
    return Outcome(test, time.monotonic() - started)


def noticing_test(directory: str, first: str) -> Optional[str]:
    """The first test that fails with the package of a directory, of the likely modules or of all; or None."""
    likely = [f"test_{module}.py" for module in first.split()]
    for modules in filter(None, (likely, [""])):
        test = first_failure(directory, modules)
        if test is not None:
            return test
    return None


def first_failure(directory: str, modules: List[str]) -> Optional[str]:
    """The first test that fails with the package of a directory, or None."""
    suite = os.path.join(directory, "ha_qnx", "conformance")
    # As ha-qnx conformance runs it: no configuration but the suite's own.
    fixed = [f"--config-file={os.devnull}", f"--rootdir={suite}", f"--confcutdir={suite}", "--import-mode=append"]
    plugins = ["-p", "no:cacheprovider", "-p", "ha_qnx.commands.recording"]
    options = ["-x", "-q", "--no-header", *plugins, *fixed]
    process = subprocess.Popen(  # noqa: S603  # pytest, on our own suite
        [sys.executable, "-m", "pytest", *options, *(os.path.join(suite, module) for module in modules)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": directory},
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
        return TOO_SLOW
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if process.returncode == 1 and failed:
        return failed[0].split(" - ")[0].partition(" ")[2]
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(modules)}: pytest itself failed\n{output}")
    return None


def misplaced(mutants: Tuple[Mutant, ...]) -> Iterator[str]:
    """A sentence for each mutant that cannot be made of the package, which has moved on."""
    package = pathlib.Path(ha_qnx.__file__).parent
    for mutant in mutants:
        text = (package / mutant.file).read_text()
        count = text.count(mutant.old)
        if count != 1:
            yield f"{mutant.name!r}: its text stands {count} times in {mutant.file}"
            continue
        try:
            compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
        except SyntaxError as error:
            yield f"{mutant.name!r}: line {error.lineno} of {mutant.file} is no Python any more"


def judge(
    description: str,
    mutants: Tuple[Mutant, ...],
    misplaced: Callable[[Tuple[Mutant, ...]], Iterable[str]],
    notice: Callable[[Mutant], Outcome],
) -> int:
    """Let the suite judge the mutants that the command line names, or all; returns the exit status.

    Args:
        description: what this program does.
        mutants: all there are.
        misplaced: tells of mutants that cannot be made.
        notice: runs the suite on a mutant.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="a mutant, by its name; can be given again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    parser.add_argument("--check", action="store_true", help="see only whether each can still be made")
    options = parser.parse_args()
    chosen = [mutant for mutant in mutants if not options.only or mutant.name in options.only]
    if not chosen:
        parser.error("there is no such mutant: " + ", ".join(mutant.name for mutant in mutants))
    wrong = list(misplaced(mutants))
    if wrong:
        print("\n".join(wrong))
        return 1
    if options.check:
        print(f"all {len(mutants)} mutants can be made")
        return 0
    # A suite that fails without a mutant, or that is too slow here, would notice every one.
    failing = notice(UNBROKEN).test
    if failing is not None:
        print(f"nothing is broken, and yet: {failing}")
        return 1
    survivors: List[str] = []
    slow = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as executor:
        for number, (mutant, outcome) in enumerate(zip(chosen, executor.map(notice, chosen)), 1):
            found = outcome.test or "NOT NOTICED"
            print(f"[{number}/{len(chosen)}] {mutant.name}: {found} ({outcome.seconds:.0f} s)", flush=True)
            if outcome.test is None:
                survivors.append(mutant.name)
            slow += outcome.test == TOO_SLOW
    noticed = len(chosen) - len(survivors)
    print(f"{noticed} of {len(chosen)} broken rules were noticed, {slow} of them by a suite that did not end in time")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(judge(__doc__ or "", MUTANTS, misplaced, notice))
