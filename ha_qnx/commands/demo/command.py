"""``ha-qnx demo``: kill a server again and again while clients use it, and count what became of every request.

The server, its clients and this command are processes of their own; what is counted, ``count`` says.

Before each kill the server is frozen (SIGSTOP), and is killed if a request is under way that no server has begun to
answer; else it goes on, and is frozen again a moment later. To the server this is the same as SIGKILL at the first
stop: it never runs again.

No process outlives the command: each ends when its stdin does, whose other end is here.
"""

import argparse
import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, Tuple

from ...backends import NAMES, BackendUnavailableError, backend
from .count import ClientReport, Result, compare, describe, read_records
from .shared import ANSWERED, BEGUN, PLAIN_CLIENT, RECOVERIES, REPLYING, Board

HELP = "kill a server again and again while clients use it, and count what is lost"

DESCRIPTION = """\
Starts a server, clients whose connections recover, and one plain client without the
library. Kills the server (SIGKILL) at random moments, each time while a request is under
way, and starts the next one. Afterwards every request is compared with its reply and with
the record that the server made when it executed it.

A successor always waits in reserve, started ahead, so that the gaps show the recovery and
not the start of a Python interpreter.
"""

EPILOG = """\
examples:
  ha-qnx demo                              five seconds, eight kills, four clients
  ha-qnx demo --seconds 60 --kills 300     longer, and harder
  ha-qnx demo --json                       one line of JSON, for a program to read

exit status: 0, every request was answered rightly; 1, a reply was lost or wrong, or a
client failed; 2, wrong use.
"""

_START_DEADLINE = 30.0
_KILL_DEADLINE = 20.0
_REPORT_DEADLINE = 40.0
_END_DEADLINE = 10.0

# What ends the command, if the one who has started it has them not ignored.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# The processes.


class DemoError(Exception):
    """The demonstration cannot go on."""


class Child:
    """A process of the demonstration, which says in lines how far it is. It ends when this process ends."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.module = module
        self._unread = b""
        # A session of its own: Ctrl-C in a terminal is for the command, which then ends the others.
        self.process = subprocess.Popen(  # noqa: S603  # our own module, in our own interpreter
            [sys.executable, "-m", f"ha_qnx.commands.demo.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(os.path.dirname(arguments[2])),
            cwd=os.path.dirname(arguments[2]),
            start_new_session=True,
        )

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()

    def expect(self, word: str, deadline: float) -> None:
        """Wait until it says a word.

        Raises:
            DemoError: it ended instead, or the deadline passed.
        """
        said = self.line(deadline)
        if said != word:
            raise DemoError(f"{self.module} said {said!r} instead of {word!r}")

    def line(self, deadline: float) -> str:
        """Wait for what it says next.

        Raises:
            DemoError: it ended instead, or the deadline passed.
        """
        assert self.process.stdout is not None
        end = time.monotonic() + deadline
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise DemoError(f"{self.module} said nothing for {deadline:.0f} s")
            parts.append(os.read(self.process.stdout.fileno(), 1 << 16))
            if not parts[-1]:
                raise DemoError(f"{self.module} ended unexpectedly, with status {self.process.wait()}")
        line, _newline, self._unread = b"".join(parts).partition(b"\n")
        return line.decode()

    def freeze(self) -> None:
        """Stop it where it is, and wait until it has stopped.

        Raises:
            DemoError: it had ended by itself.
        """
        os.kill(self.process.pid, signal.SIGSTOP)
        _pid, status = os.waitpid(self.process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = status  # It is reaped now, without Popen's knowledge.
            raise DemoError(f"{self.module} ended by itself, with wait status {status}")

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        """End it, in whatever state it is."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _environment(directory: str) -> Dict[str, str]:
    """Let a child find the modules that this process found, and meet nobody else's names."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "HA_QNX_RUNTIME": os.path.join(directory, "run")}


class Progress:
    """Shows a person how far it is: in one line that changes, or in a line for each kill where nothing can change."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._changes = sys.stdout.isatty()
        self._last_kills = 0
        self._width = 0

    def show(self, seconds: float, replies: int, recoveries: int, kills: int, kills_asked: int) -> None:
        """Show the figures, if there is something new to be seen."""
        if self._quiet or not (self._changes or kills > self._last_kills):
            return
        self._last_kills = kills
        line = f"{seconds:6.1f} s   {replies:,} replies   {kills} of {kills_asked} kills   {recoveries} recoveries"
        if self._changes:
            sys.stdout.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._changes and self._width:
            sys.stdout.write("\n\n")
        elif not self._quiet:
            sys.stdout.write("\n")


class Demonstration:
    """One run: a server and its successors, the clients, and the hand that kills."""

    def __init__(self, options: argparse.Namespace, backend_name: str, directory: str) -> None:
        self._seconds: float = options.seconds
        self._kills_asked: int = options.kills
        self._backend = backend_name
        self._name = f"ha-qnx-demo-{os.getpid()}"
        self._board_path = os.path.join(directory, "board")
        self._records = os.path.join(directory, "records")
        self._board = Board.create(self._board_path, options.clients)
        with open(self._records, "xb"):
            pass
        self._rows = [self._board.row(client) for client in range(1, options.clients + 1)]
        self._children: List[Child] = []
        self._clients: List[Child] = []
        self._kills = 0
        self._faults: List[str] = []
        self._progress = Progress(quiet=options.json)

    def run(self) -> Result:
        """Do it all, and end every process that was started, whatever happens.

        Raises:
            DemoError: a process could not be started.
        """
        try:
            server = self._start_server()
            server.expect("ready", _START_DEADLINE)
            server.go()
            server.expect("serving", _START_DEADLINE)
            spare = self._start_server()
            self._clients = [self._start_client(number) for number in range(1 + len(self._rows))]
            for client in self._clients:
                client.expect("ready", _START_DEADLINE)
            start = time.monotonic()
            for client in self._clients:
                client.go()
            try:
                self._kill_all(server, spare, start)
                self._watch_until(start + self._seconds, start)
            except DemoError as error:
                self._faults.append(str(error))
            seconds = time.monotonic() - start
            self._board.stop = True
            plain, reports = self._collect()
            self._show(start)
            self._progress.end()
        finally:
            for child in self._children:
                child.end()
        return Result(
            backend=self._backend,
            seconds=seconds,
            clients=len(self._rows),
            kills_asked=self._kills_asked,
            kills=self._kills,
            reports=reports,
            comparison=compare(reports, read_records(self._records)),
            plain=plain,
            faults=self._faults,
        )

    def _start(self, module: str, last_argument: str) -> Child:
        with _signals_wait():
            child = Child(module, self._backend, self._name, self._board_path, last_argument)
            self._children.append(child)
        return child

    def _start_server(self) -> Child:
        return self._start("server", self._records)

    def _start_client(self, number: int) -> Child:
        return self._start("client", str(number))

    def _kill_all(self, server: Child, spare: Child, start: float) -> None:
        """Kill as often as asked, at a random moment of each equal part of the time."""
        part = self._seconds / max(self._kills_asked, 1)
        for kill in range(self._kills_asked):
            spare.expect("ready", _START_DEADLINE)
            moment = start + part * (kill + random.random())  # noqa: S311  # no secret depends on it
            self._watch_until(moment, start)
            self._kill_with_request_under_way(server)
            spare.go()
            self._kills += 1
            server = spare
            server.expect("serving", _START_DEADLINE)
            spare = self._start_server()

    def _watch_until(self, moment: float, start: float) -> None:
        """Show the progress until then.

        Raises:
            DemoError: a client has ended.
        """
        while True:
            self._show(start)
            ended = [client for client in self._clients if client.process.poll() is not None]
            if ended:
                raise DemoError("a client ended before its time")
            left = moment - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))

    def _show(self, start: float) -> None:
        replies = sum(row[ANSWERED] for row in self._rows)
        recoveries = sum(row[RECOVERIES] for row in self._rows)
        self._progress.show(time.monotonic() - start, replies, recoveries, self._kills, self._kills_asked)

    def _kill_with_request_under_way(self, server: Child) -> None:
        """Kill a server that has not begun to answer some request.

        Raises:
            DemoError: there was never such a request, or the server had ended by itself.
        """
        end = time.monotonic() + _KILL_DEADLINE
        while time.monotonic() < end:
            self._board.frozen = server.process.pid
            server.freeze()
            if any(row[BEGUN] > row[REPLYING] for row in self._rows):
                server.end()
                self._board.frozen = 0
                return
            server.thaw()
            self._board.frozen = 0
            time.sleep(random.random() * 0.002)  # noqa: S311  # no secret depends on it
        raise DemoError(f"no request was under way for {_KILL_DEADLINE:.0f} s")

    def _collect(self) -> Tuple[Dict[str, Any], List[ClientReport]]:
        """What the clients say at the end; of one that cannot say it any more, what the board shows."""
        plain: Dict[str, Any] = {}
        reports: List[ClientReport] = []
        for number, client in enumerate(self._clients):
            try:
                line = client.line(_REPORT_DEADLINE)
                if number == PLAIN_CLIENT:
                    plain = json.loads(line)
                else:
                    reports.append(ClientReport.from_json(line))
                status = client.process.wait(_END_DEADLINE)
                if status:
                    self._faults.append(f"client {number} ended with status {status}")
            except (DemoError, ValueError, subprocess.TimeoutExpired) as error:
                self._faults.append(f"client {number}: {error}")
                if number != PLAIN_CLIENT and len(reports) < number:
                    reports.append(self._what_the_board_shows(number))
        return plain, reports

    def _what_the_board_shows(self, number: int) -> ClientReport:
        row = self._rows[number - 1]
        begun, answered = row[BEGUN], row[ANSWERED]
        return ClientReport(number, begun, unanswered=range(answered + 1, begun + 1), recoveries=row[RECOVERIES])


# The command.


def _number(kind: type, least: float, most: float) -> Any:
    """A type for argparse: a number within bounds."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return value

    parse.__name__ = kind.__name__
    return parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of this command."""
    parser.add_argument("--seconds", type=_number(float, 0.1, 86400), default=5.0, metavar="N", help="how long (5)")
    parser.add_argument("--kills", type=_number(int, 0, 100000), default=8, metavar="N", help="how many kills (8)")
    parser.add_argument("--clients", type=_number(int, 1, 100), default=4, metavar="N", help="how many clients (4)")
    parser.add_argument("--backend", choices=NAMES, help="instead of the default one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, and nothing else")


def run(options: argparse.Namespace) -> int:
    """Run the demonstration and print the result; returns the exit status."""
    try:
        name = backend(options.backend).name
        with _ended_by_signals(), tempfile.TemporaryDirectory(prefix="ha-qnx-demo-") as directory:
            result = Demonstration(options, name, directory).run()
    except (BackendUnavailableError, DemoError) as error:
        sys.stderr.write(f"ha-qnx demo: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nha-qnx demo: interrupted\n")
        return 130
    sys.stdout.write(json.dumps(result.as_json()) + "\n" if options.json else describe(result))
    return result.exit_status


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Let what ends the command wait until the block is done: a process that is just being started has to be known."""
    came: List[Tuple[int, Any]] = []
    handlers: Dict[int, Any] = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
    for number, frame in came:
        handlers[number](number, frame)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like an exception, so that it can clean up."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    # One that is ignored, as SIGHUP is under nohup, stays so.
    handled = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
