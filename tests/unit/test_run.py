"""``ha-qnx run``: programs that know nothing of connections, through the death of the server."""

import csv
import io
import json
import os
import pathlib
import py_compile
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Optional

import pytest
from ha_qnx.conformance.file_server import keep_file, take_path
from ha_qnx.conformance.peers import Peer
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually
from ha_qnx.fallback.kernel import SocketKernel

from ha_qnx.commands import cli, run

pytestmark = pytest.mark.slow

PATH = "/dev/kept"


class Keeper:
    """Keeps a server for a file alive: when the one dies, the next one is started."""

    def __init__(self, store: pathlib.Path) -> None:
        self.store = store
        self.deaths = 0
        self._peer: Optional[Peer] = None

    def begin(self, transfers: int = 0) -> None:
        """Start a server, which dies with the given transfer."""
        self._peer = Peer("fallback")
        self._peer.start(keep_file, self._peer.run(take_path, PATH), str(self.store), transfers)

    def watch_over(self, program: "subprocess.Popen[bytes]") -> None:
        """Start the next server whenever one has died, until a program ends."""
        eventually(lambda: self._look_after(program), "the end of the program", 2 * DEADLINE)

    def _look_after(self, program: "subprocess.Popen[bytes]") -> bool:
        """Start the next server, if the last one has died; whether the program has ended."""
        if self._peer is not None and self._peer.process.poll() is not None:
            self.deaths += 1
            self.end()
            self.begin()
        return program.poll() is not None

    def end(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None


@pytest.fixture
def keeper(tmp_path: pathlib.Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path / "store")
    yield made
    made.end()


class Program:
    """A program under ``ha-qnx run``, whose output goes to files: nothing keeps it from going on."""

    def __init__(self, arguments: List[str], directory: pathlib.Path, **environment: str) -> None:
        self._output, self._errors = directory / "output", directory / "errors"
        with open(self._output, "wb") as output, open(self._errors, "wb") as errors:
            self.process = subprocess.Popen(  # noqa: S603  # our own command
                [sys.executable, "-m", "ha_qnx", "run", *arguments],
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )

    def wait(self) -> "Program":
        """Wait for its end."""
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait(DEADLINE)
        return self

    @property
    def status(self) -> int:
        return self.process.returncode

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def errors(self) -> str:
        return self._errors.read_text()


def run_through_deaths(keeper: Keeper, arguments: List[str], directory: pathlib.Path, **environment: str) -> Program:
    """Run a program to its end while a server is kept alive."""
    program = Program(arguments, directory, **environment)
    try:
        keeper.watch_over(program.process)
    finally:
        program.wait()
    return program


def script(directory: pathlib.Path, text: str) -> str:
    """A program."""
    path = directory / "program.py"
    path.write_text(text)
    return str(path)


CSV_READER = """
import csv, sys
with open(sys.argv[1], newline="") as file:
    rows = [[int(cell) for cell in row] for row in csv.reader(file)]
print(len(rows), sum(map(sum, rows)), sys.argv[2:])
"""


def table(rows: int) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([number, number * number] for number in range(rows))
    return text.getvalue()


def test_a_csv_reader_gets_every_row_through_a_death(keeper: Keeper, tmp_path: pathlib.Path) -> None:
    """The server dies with a read in the middle of the table: the reader, unedited, sees each row once."""
    keeper.store.write_text(table(20_000))
    keeper.begin(transfers=7)
    outcome = run_through_deaths(keeper, ["--json", script(tmp_path, CSV_READER), PATH, "--more", "-m"], tmp_path)
    expected = sum(number + number * number for number in range(20_000))
    assert outcome.output == f"20000 {expected} ['--more', '-m']\n"
    assert outcome.status == 0
    assert keeper.deaths == 1
    events = [json.loads(line) for line in outcome.errors.splitlines()]
    assert [event["recovered"] for event in events] == [True]


LOGGER = """
import logging, sys
logging.basicConfig(filename=sys.argv[1], filemode="w", format="%(message)s", level=logging.INFO)
for number in range(200):
    logging.info("line %d", number)
"""


def test_a_log_has_every_line_through_a_death(keeper: Keeper, tmp_path: pathlib.Path) -> None:
    """The standard library's logging writes to a connection whose server dies: each line is there, and once."""
    keeper.begin(transfers=100)
    outcome = run_through_deaths(keeper, [script(tmp_path, LOGGER), PATH], tmp_path)
    assert (outcome.status, outcome.errors) == (0, "")
    assert keeper.deaths == 1
    assert keeper.store.read_text().splitlines() == [f"line {number}" for number in range(200)]


YAML_READER = """
import sys, yaml
with open("/dev/ser1") as file:
    print(len(yaml.safe_load(file)["items"]))
"""


def test_a_package_that_knows_nothing_reads_a_mapped_path(keeper: Keeper, tmp_path: pathlib.Path) -> None:
    """PyYAML reads a document from a device's path that HA_QNX_PATHS maps to another, through the server's death."""
    keeper.store.write_text("items:\n" + "".join(f"  - {number}\n" for number in range(3000)))
    keeper.begin(transfers=2)
    outcome = run_through_deaths(
        keeper, [script(tmp_path, YAML_READER)], tmp_path, HA_QNX_PATHS=f"/dev/ser1={PATH},/dev/ser2=/nowhere"
    )
    assert (outcome.output, outcome.errors) == ("3000\n", "")
    assert keeper.deaths == 1


def test_a_module_of_the_standard_library_can_be_run(keeper: Keeper, tmp_path: pathlib.Path) -> None:
    """A module is run as python -m runs it: json.tool reads a connection through a death, and writes to its output."""
    document = {"numbers": list(range(20_000))}
    keeper.store.write_text(json.dumps(document))
    keeper.begin(transfers=3)
    outcome = run_through_deaths(keeper, ["--verbose", "-m", "json.tool", "--sort-keys", PATH], tmp_path)
    assert json.loads(outcome.output) == document
    assert outcome.errors.startswith("ha-qnx run: connection ")
    assert keeper.deaths == 1


LEAVES_A_CONNECTION = """
import os, sys
from ha_qnx import NTO_COF_CLOEXEC, ConnectAttach, ConnectFlags
fd = ConnectAttach(0, int(sys.argv[1]), int(sys.argv[2]), 0)
ConnectFlags(0, fd, NTO_COF_CLOEXEC, 0)
os.execv(sys.executable, [sys.executable, "-m", "ha_qnx", "run", "heir.py", str(fd)])
"""


def test_a_program_finds_the_connections_that_it_was_left(tmp_path: pathlib.Path) -> None:
    """A connection that was open before exec, and is not close-on-exec, is read by os.read like one of its own."""
    qnx = SocketKernel()
    chid = qnx.ChannelCreate(0)
    server = Task(lambda: qnx.MsgReply(qnx.MsgReceive(chid, bytearray(100)), 11, b"left behind"))
    (tmp_path / "heir.py").write_text("import os, sys\nprint(os.read(int(sys.argv[1]), 100))")
    outcome = Program([script(tmp_path, LEAVES_A_CONNECTION), str(os.getpid()), str(chid)], tmp_path).wait()
    qnx.ChannelDestroy(chid)
    assert (outcome.output, outcome.errors) == ("b'left behind'\n", "")
    assert server.result() == 0


DESCRIPTORS = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
copy = os.dup(fd)
pieces = []
while True:
    piece = os.read(copy if len(pieces) % 2 else fd, 100)
    if not piece:
        break
    pieces.append(piece)
os.close(fd)
os.close(copy)
sys.stdout.buffer.write(b"".join(pieces))
"""


def test_calls_on_descriptors_recover(keeper: Keeper, tmp_path: pathlib.Path) -> None:
    """A program that reads by os.read goes on at its position when its server has died."""
    data = table(500)
    keeper.store.write_text(data)
    keeper.begin(transfers=20)
    program = DESCRIPTORS.replace("copy if len(pieces) % 2 else fd", "fd")
    outcome = run_through_deaths(keeper, [script(tmp_path, program), PATH], tmp_path)
    assert outcome.output == data
    assert keeper.deaths == 1


def test_duplicates_share_a_position(keeper: Keeper, tmp_path: pathlib.Path) -> None:
    """What os.dup made reads on where the original has stopped, as POSIX has it, as long as nothing is lost."""
    data = table(500)
    keeper.store.write_text(data)
    keeper.begin()
    outcome = run_through_deaths(keeper, [script(tmp_path, DESCRIPTORS), PATH], tmp_path)
    assert outcome.output == data


@pytest.mark.parametrize(
    ("program", "status"), [("raise SystemExit(7)", 7), ("import os; os._exit(3)", 3), ("1 / 0", 1), ("", 0)]
)
def test_the_exit_status_is_that_of_the_program(tmp_path: pathlib.Path, program: str, status: int) -> None:
    """A program ends as it ends by itself; an exception that it does not catch is a traceback and 1."""
    outcome = Program([script(tmp_path, program)], tmp_path).wait()
    assert outcome.status == status
    assert ("ZeroDivisionError" in outcome.errors) == (status == 1)


WHERE = """
import os, sys
import beside
print(__name__, os.path.basename(__file__), [os.path.basename(word) for word in sys.argv])
print(sys.modules["__main__"].__dict__ is globals())
"""


@pytest.mark.parametrize("as_module", [True, False], ids=["module", "script"])
def test_a_program_finds_itself_as_under_python(tmp_path: pathlib.Path, as_module: bool) -> None:
    """Name, file, arguments, and the modules beside it are as python would have it."""
    (tmp_path / "beside.py").touch()
    path = script(tmp_path, WHERE)
    arguments = ["-m", "program"] if as_module else [path]
    outcome = Program([*arguments, "--help"], tmp_path if as_module else tmp_path.parent).wait()
    assert outcome.errors == ""
    assert outcome.output == "__main__ program.py ['program.py', '--help']\nTrue\n"


AT_ITS_EXIT = """
import atexit, os, pickle, sys, threading, time
class Mine:
    pass
def tell():
    print(sys.modules["__main__"].Mine is Mine, type(pickle.loads(pickle.dumps(Mine()))) is Mine)
atexit.register(tell)
said = threading.Event()
def tell_later():
    said.wait()
    time.sleep(0.1)
    tell()
threading.Thread(target=tell_later).start()
os.chdir("/")
print(os.path.isabs(__file__) or sys.version_info < (3, 9), flush=True)
said.set()
"""


@pytest.mark.parametrize("kind", ["script", "module", "directory", "compiled"])
def test_a_program_is_the_main_module_until_its_end(tmp_path: pathlib.Path, kind: str) -> None:
    """Its threads and what it does at its exit find it there after its last line, too; its path is absolute."""
    path = pathlib.Path(script(tmp_path, AT_ITS_EXIT))
    arguments = {"script": ["program.py"], "module": ["-m", "program"], "directory": ["app"], "compiled": ["main.pyc"]}
    py_compile.compile(str(path), str(tmp_path / "main.pyc"))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text("import beside\n" + AT_ITS_EXIT)
    (tmp_path / "app" / "beside.py").touch()
    outcome = Program(arguments[kind], tmp_path).wait()
    assert (outcome.output, outcome.errors) == ("True\nTrue True\nTrue True\n", "")
    assert not list(tmp_path.glob("__pycache__/program.*")) or kind == "module"


def test_a_package_is_imported_with_the_drop_in(tmp_path: pathlib.Path) -> None:
    """The package of a module that -m names is the program's: what it takes from os is the drop-in's."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from os import read\n")
    (tmp_path / "package" / "module.py").write_text("import os, package\nprint(package.read is os.read)\n")
    outcome = Program(["-m", "package.module"], tmp_path).wait()
    assert (outcome.output, outcome.errors) == ("True\n", "")


@pytest.mark.parametrize("arguments", [["-m", "json"], ["-m", "json.nothing"], ["empty"]], ids=str)
def test_what_has_no_main_program_is_a_line(tmp_path: pathlib.Path, arguments: List[str]) -> None:
    """A package, a module that it lacks, or a directory without __main__: what python says of it, and no traceback."""
    (tmp_path / "empty").mkdir()
    outcome = Program(arguments, tmp_path).wait()
    assert (outcome.status, outcome.output, len(outcome.errors.splitlines())) == (1, "", 1)


def test_a_time_that_is_none_is_called_so(tmp_path: pathlib.Path) -> None:
    """In words of the user's; and an option that is cut short is none of ours."""
    for arguments, words in (["--wait", "abc"], "invalid number of seconds: 'abc'"), (["--wai", "1"], "--wai"):
        outcome = Program([*arguments, "script.py"], tmp_path).wait()
        assert outcome.status == 2
        assert words in outcome.errors


def test_a_server_that_does_not_come_back_is_waited_for_in_vain(keeper: Keeper, tmp_path: pathlib.Path) -> None:
    """When the time that --wait gives is over, the program gets the error of its call."""
    keeper.store.write_text(table(5000))
    keeper.begin(transfers=2)
    outcome = Program(["--wait", "0.2", script(tmp_path, CSV_READER), PATH], tmp_path).wait()
    assert outcome.status == 1
    assert "ProcessLookupError" in outcome.errors


def test_what_is_nobodys_name_fails_as_ever(tmp_path: pathlib.Path) -> None:
    """A name that nobody has cannot be opened: a FileNotFoundError with the path that the program gave."""
    program = "try:\n    open('/dev/ser1')\nexcept FileNotFoundError as error:\n    print(error.filename, error.errno)"
    outcome = Program([script(tmp_path, program)], tmp_path, HA_QNX_PATHS=f"/dev/ser1={PATH}").wait()
    assert (outcome.output, outcome.errors) == ("/dev/ser1 2\n", "")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ([], {}),
        (["--wait", "soon", "script.py"], {}),
        (["--wait", "-1", "script.py"], {}),
        (["--backend", "pigeon", "script.py"], {}),
        (["--backend", "native", __file__], {"HA_QNX_LIBHA": "/no/such/library"}),
        (["nothing.py"], {}),
        (["-m", "no_such_module_anywhere"], {}),
        (["-m"], {}),
        ([__file__], {"HA_QNX_PATHS": "ser1"}),
    ],
    ids=str,
)
def test_wrong_use_is_refused(tmp_path: pathlib.Path, arguments: List[str], environment: Dict[str, str]) -> None:
    """What cannot be run is status 2 and a word on standard error, and nothing is run."""
    outcome = Program(arguments, tmp_path, **environment).wait()
    assert (outcome.status, outcome.output) == (2, "")
    assert "qnx run" in outcome.errors
    assert "Traceback" not in outcome.errors


@pytest.mark.parametrize(
    ("arguments", "own", "rest"),
    [
        (["run", "a.py"], ["run", "a.py"], []),
        (["run", "a.py", "-m", "--", "b"], ["run", "a.py"], ["-m", "--", "b"]),
        (["run", "-m", "a", "-m", "b"], ["run", "-m", "a"], ["-m", "b"]),
        (["run", "-ma", "-x"], ["run", "-ma"], ["-x"]),
        (["run", "--wait", "3", "--json", "a.py", "--wait"], ["run", "--wait", "3", "--json", "a.py"], ["--wait"]),
        (["run", "--wait=3", "a.py", "b"], ["run", "--wait=3", "a.py"], ["b"]),
        (["run"], ["run"], []),
    ],
    ids=str,
)
def test_what_is_behind_the_program_is_for_the_program(arguments: List[str], own: List[str], rest: List[str]) -> None:
    """The first argument that is no option, or what -m names, is the program; nothing behind it is ours."""
    assert run.split(arguments) == (own, rest)


class BecameAnotherProgramError(Exception):
    """Stands for execve, which does not return."""


def test_on_a_target_the_program_starts_again_with_libha(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """On QNX the command becomes itself with libha before libc, with the same arguments, and does so once."""
    became: List[Any] = []

    def execve(*arguments: Any) -> None:
        became.append(arguments)
        raise BecameAnotherProgramError

    monkeypatch.setattr(run, "is_qnx", lambda: True)
    monkeypatch.setattr(run, "_preloadable", lambda: "libha.so.2")
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setenv("LD_PRELOAD", "other.so")
    path = script(tmp_path, "")
    arguments = ["run", "--backend", "fallback", path, "--more"]
    with pytest.raises(BecameAnotherProgramError):
        cli.main(arguments)
    ((program, command, environment),) = became
    assert (program, command) == (sys.executable, [sys.executable, "-m", "ha_qnx", *arguments])
    assert environment["LD_PRELOAD"] == "libha.so.2:other.so"
    # What it has become does not become itself again.
    outcome = subprocess.run(command, env={**environment, "LD_PRELOAD": ""}, timeout=DEADLINE)  # noqa: S603  # ourselves
    assert outcome.returncode == 0


def test_an_image_without_libha_preloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that the loader does not find is not preloaded: the program would not start."""
    monkeypatch.setenv("HA_QNX_LIBHA", "/no/such/library")
    assert run._preloadable() is None
