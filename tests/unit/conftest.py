"""Every test has a runtime directory of its own, and can start programs as processes of their own."""

import asyncio
import contextlib
import ctypes
import faulthandler
import fcntl
import gc
import itertools
import logging
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from typing import Any, Callable, Iterator, List

import pytest
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually

import ha_qnx
from ha_qnx import backends
from ha_qnx.native import kernel as native_kernel
from ha_qnx.native import libraries

_SLOW = re.compile(r"^Executing .* took \d+\.\d+ seconds\n", re.MULTILINE)

LIBHA_SOURCES = pathlib.Path(__file__).parents[2] / "fallback" / "libha"
LIBHA_OPTIONS = ("-std=c11", "-O1", "-D_GNU_SOURCE", "-fPIC", "-shared", "-fvisibility=hidden")


#: After so many seconds, a test hangs.
_HANGS = 600

# Standard error as it is before pytest captures it; out of the way of tests that look at descriptors.
_errors = -1


def pytest_configure() -> None:
    """Let Ctrl-C interrupt what tests start: a script that runs them in the background would have it ignored."""
    global _errors
    _errors = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 900)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    """Instead, it ends its process, which fails it, and prints where each thread is."""
    faulthandler.dump_traceback_later(_HANGS, exit=True, file=_errors)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The directory that HA_QNX_RUNTIME names; it does not exist yet."""
    directory = tmp_path / "run"
    monkeypatch.setenv("HA_QNX_RUNTIME", str(directory))
    return directory


@pytest.fixture(scope="session")
def directory_of_this_process(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The runtime directory of this process's backend, which takes one when it is first used, and keeps it."""
    directory = str(tmp_path_factory.mktemp("run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HA_QNX_RUNTIME", directory)
        qnx = ha_qnx.backend()
        qnx.ChannelDestroy(qnx.ChannelCreate())
    return directory


@pytest.fixture
def shared_directory(directory_of_this_process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and the programs that it starts meet."""
    monkeypatch.setenv("HA_QNX_RUNTIME", directory_of_this_process)


@pytest.fixture(params=backends.NAMES)
def qnx(
    request: pytest.FixtureRequest, shared_directory: None, libha: str, monkeypatch: pytest.MonkeyPatch
) -> ha_qnx.Backend:
    """Each backend."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    return ha_qnx.backend(request.param)


@pytest.fixture
def by_signal(qnx: ha_qnx.Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[ha_qnx.Backend]:
    """A native backend, as if its library had no function for it, and signals ended the calls of all threads."""
    found: Any = getattr(qnx, "libraries", None) or getattr(qnx, "_kernel").libraries  # noqa: B009  # not public
    library = ctypes.CDLL(found.path)
    monkeypatch.setattr(found, "unblock", None)
    before = signal.getsignal(native_kernel._UNBLOCKING)
    library.ha_posix_interrupt_main_only(0)
    yield qnx
    library.ha_posix_interrupt_main_only(1)
    signal.signal(native_kernel._UNBLOCKING, before)


@pytest.fixture(params=["threads", "loop"])
def serve_either(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Serves by threads, and in an event loop: ``serve_either(threaded, in_loop)`` starts one of these classes.

    The one for a loop has an event ``is_ready``, which is set when it can be found.
    """
    with contextlib.ExitStack() as stack:

        def start(threaded: Callable[[], Any], in_loop: Callable[[], Any]) -> Any:
            if request.param == "threads":
                return stack.enter_context(threaded().running())
            served = in_loop()
            serving = Task(asyncio.run, served.serve(signals=()))
            stack.callback(serving.result)
            stack.callback(served.stop)
            eventually(served.is_ready.is_set, "the server")
            return served

        yield start


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The garbage collector does nothing, and pytest keeps no log, in which the errors are."""
    monkeypatch.setattr(logging.getLogger("ha_qnx"), "disabled", True)
    gc.disable()
    yield
    gc.enable()


class Program:
    """A process that runs some Python, with stdout and stderr in files."""

    def __init__(self, directory: pathlib.Path, number: int, source: str, arguments: List[str]) -> None:
        script = directory / f"program{number}.py"
        script.write_text(source, encoding="utf-8")
        self._stdout, self._stderr = script.with_suffix(".out"), script.with_suffix(".err")
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(  # noqa: S603  # our own source, in our own interpreter
                [sys.executable, "-X", "dev", str(script), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._stdout.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What it has printed to stderr, but for what an event loop in debug mode says of a busy machine."""
        return _SLOW.sub("", self._stderr.read_text(encoding="utf-8"))

    def kill(self) -> None:
        """End it by SIGKILL, and wait until the host has cleaned up after it."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def terminate(self) -> int:
        """End it by SIGTERM, and wait for its exit status."""
        self.process.terminate()
        return self.process.wait(DEADLINE)


@pytest.fixture
def start_program(tmp_path: pathlib.Path, shared_directory: None) -> Iterator[Callable[..., Program]]:
    """Starts a program from its source: ``start_program(source, *arguments)``."""
    programs: List[Program] = []
    numbers = itertools.count(1)

    def start(source: str, *arguments: str) -> Program:
        programs.append(Program(tmp_path, next(numbers), source, list(arguments)))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Compiles C: ``compile_c(name, *options, source="...")`` makes a file of that name and returns its path."""
    compiler = os.environ.get("CC", "cc").split()

    def compile_it(name: str, *options: str, source: str = "") -> str:
        if shutil.which(compiler[0]) is None:
            pytest.fail(
                f"there is no C compiler {compiler[0]!r}: install one (Debian's package is gcc), or name it in CC"
            )
        directory = tmp_path_factory.mktemp("c")
        made = directory / name
        files = []
        if source:
            files = [str(directory / "source.c")]
            pathlib.Path(files[0]).write_text(source, encoding="utf-8")
        command = [*compiler, *files, *options, "-o", str(made), "-pthread", "-ldl"]
        outcome = subprocess.run(  # noqa: S603  # the compiler
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stdout
        return str(made)

    return compile_it


@pytest.fixture(scope="session")
def libha(compile_c: Callable[..., str]) -> str:
    """The path of libha for POSIX hosts: that of HA_QNX_LIBHA, or of a platform wheel, or one that is made here."""
    for candidate in libraries.candidates():
        return os.path.abspath(candidate)
    sources = [str(path) for path in (LIBHA_SOURCES / "src").rglob("*.c")]
    includes = [f"-I{LIBHA_SOURCES / name}" for name in ("include", "src")]
    return compile_c(
        "libha_posix.so", *LIBHA_OPTIONS, *includes, *sources, f"-DHA_VERSION={ha_qnx.__version__}", "-Wl,-z,nodelete"
    )
