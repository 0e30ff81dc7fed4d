"""Processes that are under attack: servers and clients, each forked from this one, which has made nothing itself.

This process is started with the shim preloaded (``__main__``), and so are those.
"""

import contextlib
import errno
import faulthandler
import itertools
import json
import mmap
import os
import pathlib
import re
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from typing import Any, Callable, Iterator, List, NoReturn, Optional, Set

from ha_qnx import Request, Service, backends
from ha_qnx.requests import LATER, Answer

from .accounts import Ledger, Report, answer_of, describe, faults_of, is_held, is_request, judge
from .shim import Plan

DEADLINE = 20.0
NAME = "victim"
PATH = "/dev/victim"

#: The pairs: clients of a backend, and servers of one.
PAIRS = [(client, server) for client in ("fallback", "native", "hybrid") for server in ("fallback", "native")]

# What is printed by a process of which something broke, beside an OSError that nobody caught.
_BROKEN = re.compile(r"^(\w*(?:Assertion|Index|Buffer|Key|Type|Value|Attribute|Runtime|UnboundLocal|Name|struct\.)\w*"
                     r"(?:Error|error)\b.*|Fatal Python error.*)", re.MULTILINE)  # fmt: skip


class Process:
    """A forked process that runs ``body``."""

    def __init__(self, stage: "Stage", what: str, body: Callable[[], Any], plan: Optional[Plan]) -> None:
        self.what = what
        self.plan = plan
        self._stage = stage
        self._ready, ready = os.pipe()
        #: Its own among all of the stage.
        self.number = next(stage.numbers)
        self._errors = stage.directory / f"errors-{self.number}"
        self.status: Optional[int] = None
        self.pid = os.fork()
        if not self.pid:
            self._run(body, ready)
        os.close(ready)

    def _run(self, body: Callable[[], Any], ready: int) -> NoReturn:
        code = 70
        try:
            os.setpgid(0, 0)
            errors = os.open(self._errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(errors, 2)
            os.close(errors)
            for process in self._stage.processes:
                process.forget()
            os.close(self._ready)
            self.say = os.fdopen(ready, "w")
            self._stage.me = self
            self._stage.ledger.server = self.number
            os.environ["HA_QNX_RUNTIME"] = str(self._stage.directory / "run")
            faulthandler.register(signal.SIGUSR1)
            body()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def tell(self, what: Any) -> None:
        """In the process: to whoever has started it."""
        print(json.dumps(what), file=self.say, flush=True)

    def hear(self, deadline: float = DEADLINE) -> Any:
        """What it tells next; None if it ends instead, or tells nothing."""
        if not select.select([self._ready], [], [], deadline)[0]:
            return None
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(self._ready, 1 << 16)
            if not more:
                return None
            line += more
        return json.loads(line.splitlines()[-1])

    def forget(self) -> None:
        """Close what is kept of it."""
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1

    def poll(self) -> Optional[int]:
        """Its status, if it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self.status

    def wait(self, deadline: float = DEADLINE) -> bool:
        """Wait for its end; False if it does not come, and then it is brought about."""
        end = time.monotonic() + deadline
        pause = 0.0005
        while self.poll() is None:
            if time.monotonic() > end:
                self.signal(signal.SIGUSR1)  # Where its threads are, for people.
                time.sleep(0.1)
                self.kill()
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)
        return True

    def signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.0002)

    @property
    def errors(self) -> str:
        """What it has printed."""
        with contextlib.suppress(FileNotFoundError):
            return self._errors.read_text(errors="replace")
        return ""

    @property
    def descriptors(self) -> int:
        """How many it has, without pipes of its own: a few, which a server makes when it needs one, and keeps."""
        found = [entry.split()[1] for entry in self.open_files()]
        own = [where for where, ends in Counter(found).items() if where.startswith("pipe:") and ends == 2]
        return len(found) - 2 * min(len(own), 4)

    @property
    def memory(self) -> int:
        """Bytes of memory that it has now."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> List[str]:
        """What its descriptors lead to."""
        return open_files(self.pid)

    @property
    def threads(self) -> List[int]:
        return [int(task) for task in os.listdir(f"/proc/{self.pid}/task")]


class Recorder(Service):
    """Writes down each request, then answers it."""

    def __init__(self, backend: str, stage: "Stage") -> None:
        super().__init__(NAME, PATH, backend=backends.backend(backend))
        self._ledger, self._stage = stage.ledger, stage

    def ready(self) -> None:
        self._stage.me.tell("ready")

    def message(self, request: Request) -> Answer:
        data = request.data
        if is_held(data):
            return LATER
        if not is_request(data):
            raise OSError(errno.EBADMSG, "this is none of our requests")
        self._ledger.write(data)
        return answer_of(data)


class Stage:
    """One run in a directory of its own: its processes, and the account at its end."""

    me: Process  # in a process of it

    def __init__(self, client: str, server: str) -> None:
        self.client_backend, self.server_backend = client, server
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ha-faults-"))
        self.ledger = Ledger(str(self.directory / "ledger"))
        self.processes: List[Process] = []
        self.numbers = itertools.count()
        self.servers: List[Process] = []
        self.clients: List[Process] = []
        self.faults: Counter[str] = Counter()
        #: Killed on purpose, or by a plan: what they were doing may be done again.
        self.killed: Set[int] = set()
        self.notes: List[str] = []
        #: If somebody else writes into the ledger, too: the one client of whom account is given.
        self.only_client: Optional[int] = None
        self._flags = mmap.mmap(-1, 4096)

    def note(self, what: str, value: object) -> None:
        """For people, if there is a fault."""
        self.notes.append(f"-- {what}: {value}")

    @property
    def is_over(self) -> bool:
        """Whether clients shall end."""
        return self._flags[0] != 0

    def end_clients(self) -> None:
        self._flags[0] = 1

    @property
    def step(self) -> int:
        """How many steps have been allowed."""
        return self._flags[1]

    def allow_step(self) -> None:
        self._flags[1] += 1

    def start(self, what: str, body: Callable[[], Any], plan: Optional[Plan] = None) -> Process:
        process = Process(self, what, body, plan)
        self.processes.append(process)
        return process

    def dismiss(self, process: Process) -> None:
        """Know no more of a process that has ended as it should."""
        process.forget()
        self.processes.remove(process)

    def serve(
        self, plan: Optional[Plan] = None, threads: int = 1, setup: Callable[[], object] = bool, standby: bool = False
    ) -> Process:
        """Start a server; ``setup`` runs in it before."""

        def body() -> None:
            if plan is not None:
                plan.begin()
            setup()
            Recorder(self.server_backend, self).serve(threads, standby=standby, grace=1.0)

        self.servers.append(self.start("server", body, plan))
        return self.servers[-1]

    def client(self, body: Callable[[int], Report], plan: Optional[Plan] = None) -> Process:
        """Start a client, which gets its number."""
        number = len(self.clients)
        self.clients.append(self.start("client", lambda: self.report(body(number)), plan))
        return self.clients[-1]

    def kill(self, process: Process) -> None:
        self.killed.add(process.number)
        process.kill()
        process.forget()

    def wait_for_clients(self, deadline: float = DEADLINE, meanwhile: Callable[[], object] = bool) -> None:
        """Until all have ended, of their own accord or by their plan."""
        end = time.monotonic() + deadline
        while any(client.poll() is None for client in self.clients) and time.monotonic() < end:
            meanwhile()
            time.sleep(0.001)
        for client in self.clients:
            if client.poll() is None:
                self.faults["hung"] += 1
                client.wait(0)

    def keep_served(self) -> None:
        """Start the next server if the last one has ended, by its plan or by what failed."""
        server = self.servers[-1]
        if server.poll() is not None:
            self.kill(server)
            self.serve()

    def stop_servers(self) -> None:
        """End those that live, in order."""
        for server in self.servers:
            if server.poll() is None:
                server.signal(signal.SIGCONT)
                server.signal(signal.SIGTERM)
                if not server.wait(DEADLINE):
                    self.faults["hung"] += 1
            if server.plan is not None and server.plan.fired and server.status == -signal.SIGKILL:
                self.killed.add(server.number)

    def report(self, report: Report) -> None:
        """In a client, or in a child of it: leave a report, all of it or, if we are killed, none."""
        who = f"{self.me.number}-{os.getpid()}-{time.monotonic_ns()}"
        written = self.directory / f"written-{who}"
        written.write_text(json.dumps(report))
        written.rename(self.directory / f"report-{who}")

    def reports(self) -> List[Report]:
        """What those have to say that have come to their end."""
        return [Report(*json.loads(path.read_text())) for path in sorted(self.directory.glob("report-*"))]

    def account(self) -> "Counter[str]":
        """How it stands, when all has ended."""
        records = [one for one in self.ledger.read() if self.only_client in (None, one.client)]
        account = judge(records, self.reports(), self.killed)
        account.update(self.faults)
        for process in self.processes:
            account["crashed"] += process.poll() in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE)
            account["internal errors"] += len(_BROKEN.findall(process.errors))
            account["crashed"] += process.what == "client" and process.poll() not in (0, -signal.SIGKILL)
        return account

    def close(self) -> None:
        """End what is left of it."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.forget()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def staged(client: str, server: str, sum_up: "Counter[str]", where: str) -> Iterator[Stage]:
    """A stage whose account is added to a sum; if there is a fault, what its processes printed is printed."""
    stage = Stage(client, server)
    try:
        yield stage
        stage.stop_servers()
        account = stage.account()
        sum_up.update(account)
        if faults_of(account):
            for process in stage.processes:
                if process.errors:
                    stage.note(f"{process.what} {process.pid}, status {process.status}", process.errors[-4000:])
            for report in stage.reports():
                if report.has_faults:
                    stage.note("report", report._replace(answered=report.answered[-3:], abandoned=[]))
            print(f"FAULT {where}, {client} with {server}: {describe(account)}", *stage.notes, sep="\n", flush=True)
    finally:
        stage.close()


def open_files(process: object) -> List[str]:
    """What the descriptors of a process lead to; the one that looks is left out."""
    found = []
    for fd in os.listdir(f"/proc/{process}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(f"{fd} {os.readlink(f'/proc/{process}/fd/{fd}')}")
    return found


def descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))
