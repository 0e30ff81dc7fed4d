"""The examples, as real processes."""

import configparser
import importlib
import importlib.util
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
from typing import Any, Dict, List

import pytest
from ha_qnx.conformance.waiting import DEADLINE, eventually

import ha_qnx
from ha_qnx import watching

pytestmark = pytest.mark.slow

DIRECTORY = pathlib.Path(importlib.util.find_spec("ha_qnx.examples").origin or "").parent  # type: ignore[union-attr]  # it is there
PROGRAMS = [
    "reopen", "reconnect", "position", "session", "two_servers", "standby", "sampler", "device", "subscription",
    "barometer",
]  # fmt: skip


def run(name: str) -> List[str]:
    """The lines that an example prints; it has to end by itself, with 0 and without a word on stderr."""
    done = subprocess.run(  # noqa: S603  # our own module, in our own interpreter
        [sys.executable, "-X", "dev", "-m", f"ha_qnx.examples.{name}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["reopen", "reconnect"])
def test_every_request_is_answered(name: str) -> None:
    """Two requests by each of two servers, and one recovery in between."""
    lines = run(name)
    servers = [line.rpartition(" ")[2] for line in lines if line.startswith("started server")]
    answers = [line.rpartition(" ")[2] for line in lines if line.startswith("request")]
    assert len(set(servers)) == 2
    assert answers == [servers[0]] * 2 + [servers[1]] * 2
    assert sum("is lost: " in line for line in lines) == 1


def test_position_reads_every_line_once() -> None:
    """Through three servers."""
    lines = run("position")
    assert [line for line in lines if line.startswith("line")] == [f"line {number:2d}" for number in range(1, 11)]
    assert [line for line in lines if line.startswith(" ")] == [
        "  the server was lost: going on at byte 24",
        "  the server was lost: going on at byte 56",
    ]


def test_session_goes_on_in_every_server() -> None:
    """Three servers, each of which knows the user and what was subscribed to."""
    lines = run("session")
    found = [re.fullmatch(r"(\d): anna has temperature, pressure \(process (\d+)\)", line) for line in lines]
    servers = [match.groups() for match in found if match]
    assert [number for number, _pid in servers] == ["1", "2", "3"]
    assert len({pid for _number, pid in servers}) == 3
    assert lines.count("  login: welcome") == 3


def test_sampler_leaves_no_sample_out() -> None:
    """Ten of each of two servers, and one recovery."""
    lines = run("sampler")
    servers = [line.rpartition(" ")[2] for line in lines if line.startswith("sample")]
    assert servers == [servers[0]] * 10 + [servers[-1]] * 10
    assert (len(set(servers)), lines[-1]) == (2, "1 recovery")


def test_device_is_told_again_what_its_driver_knew() -> None:
    """The level outlives the driver, and two drivers have carried out commands."""
    lines = run("device")
    found = [re.fullmatch(r"(?:the lamp| {2}killed: it) is at (\d+) %, says process (\d+)", line) for line in lines]
    assert [match and match.group(1) for match in found] == ["20", "40", "40", "60", "80"]
    processes = [match.group(2) for match in found if match]
    assert processes == [processes[0]] * 2 + [processes[-1]] * 3
    assert processes[0] != processes[-1]


def test_a_subscription_is_made_again_with_the_next_server() -> None:
    """What each of the two delivers are numbers that follow upon each other, and one recovery is all that it takes."""
    lines = run("subscription")
    numbers = [int(line.rpartition(" ")[2]) for line in lines if line.startswith("pulse")]
    # What the first one has delivered before it was killed is received all the same.
    (second,) = (place for place in range(1, 20) if numbers[place] != numbers[place - 1] + 1)
    assert len(numbers) == 20
    assert second >= 10
    assert lines[-1] == "1 recovery"


def test_barometer_is_waited_for_through_two_drivers() -> None:
    """Each has begun to measure, and readings of both were waited for."""
    lines = run("barometer")
    begun = [line.split()[1] for line in lines if line.endswith("begins")]
    readings = [line.rpartition(" ")[2] for line in lines if line.startswith("1013 hPa")]
    assert len(set(begun)) == 2
    assert readings == [begun[0]] * 4 + [begun[1]] * 4


def test_two_servers_take_turns() -> None:
    """Whichever is killed, the other one answers."""
    lines = run("two_servers")
    answers = [line.split()[2].rstrip(",") for line in lines if line.startswith("answered")]
    a, b = "example-server-a", "example-server-b"
    assert answers == [a, b, a, b, a]
    assert sum(line.startswith("  recovered") for line in lines) == 4


def test_a_standby_takes_over_at_each_kill() -> None:
    """The one that has waited answers, and the next one waits behind it."""
    lines = run("standby")
    attached = [line.split()[1] for line in lines if line.endswith("has attached /dev/example-standby")]
    answers = [line.rpartition(" ")[2] for line in lines if line.startswith("answered by")]
    successors = [line.rpartition(" ")[2] for line in lines if line.startswith("killed")]
    assert answers == attached[:4]
    assert successors == attached[1:5]


BACKENDS = ["fallback", "native", "hybrid"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", ["a name", "a path"])
@pytest.mark.parametrize("name", ["first program", "session", "two_servers"])
def test_a_program_works_by_name_and_by_path(
    name: str, place: str, backend: str, libha: str, tmp_path: pathlib.Path
) -> None:
    """On every backend, through the kills in it: what names a server may begin with /dev/."""
    if name == "first program":
        readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
        source, answers = readme.split("```python\n")[1].partition("```")[0], 4
    else:
        source, answers = (DIRECTORY / f"{name}.py").read_text(encoding="utf-8"), {"session": 3, "two_servers": 5}[name]
        source = source.replace(f'"-m", "ha_qnx.examples.{name}"', "__file__")
    if place == "a path":
        source = re.sub(r'"(first-program|example-[a-z-]+)"', r'"/dev/\1"', source)
    program = tmp_path / "program.py"
    program.write_text(source, encoding="utf-8")
    done = subprocess.run(  # noqa: S603  # ours
        [sys.executable, "-X", "dev", str(program)],
        env={**os.environ, "HA_QNX_BACKEND": backend, "HA_QNX_LIBHA": libha},
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(r"answered by|\d: anna has", done.stdout)) == answers


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "hybrid"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_works_on_every_backend(
    name: str, backend: str, libha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the fallback: it ends by itself, with 0 and without a word on stderr."""
    monkeypatch.setenv("HA_QNX_BACKEND", backend)
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    assert run(name)


@pytest.mark.usefixtures("shared_directory")
@pytest.mark.parametrize("name", [*PROGRAMS, "unedited"])
def test_no_server_outlives_a_client_that_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the client ends the example, its servers included."""
    example = importlib.import_module(f"ha_qnx.examples.{name}")
    servers: List[Any] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]  # of bytes
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            servers.append(self)

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise ValueError("the client fails")

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(ha_qnx, "connect", fail)
    monkeypatch.setattr(ha_qnx, "ha_open", fail)
    monkeypatch.setattr(ha_qnx, "ha_ConnectAttach", fail)
    monkeypatch.setattr(watching, "_callbacks", {})
    with pytest.raises(ValueError, match="the client fails"):
        example.main()
    states = [server.returncode for server in servers]
    for server in servers:
        with server:  # which closes its pipe
            server.kill()
    assert states == [-signal.SIGKILL] * (2 if name in ("two_servers", "standby") else 1)


@pytest.mark.parametrize("fails", [False, True], ids=["as it is", "failing"])
def test_the_first_program_leaves_nothing(fails: bool, tmp_path: pathlib.Path) -> None:
    """The one in README.md, saved and run: two answers of each of two servers, and no server that stays."""
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    source = text.split("```python\n")[1].partition("```")[0]
    program = tmp_path / "first.py"
    program.write_text(
        source.replace("print(teller.ask", "1 / 0; print(teller.ask") if fails else source, encoding="utf-8"
    )
    command = [sys.executable, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)  # noqa: S603  # ours
    # What would live on would keep the pipes open: run() would not have returned.
    assert (done.returncode, "ZeroDivisionError" in done.stderr) == (int(fails), fails)
    answers = done.stdout.splitlines()
    assert fails or (answers[0] == answers[1] != answers[2] == answers[3])


def supervised(command: str, environment: Dict[str, str]) -> "subprocess.Popen[str]":
    """Run a client of the thermostat, and a server again and again, as a supervisor would."""
    arguments = shlex.split(command)
    arguments = [sys.executable, *arguments[arguments.index("-m") :]]
    return subprocess.Popen(  # noqa: S603  # the example's own command
        arguments, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("supervisor", ["systemd", "supervisord"])
def test_the_thermostat_is_restarted(supervisor: str, tmp_path: pathlib.Path) -> None:
    """With the command of the unit or program file: its client goes on after SIGKILL, and SIGTERM ends it with 0."""
    file = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=None)
    file.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    if supervisor == "systemd":
        file.read(DIRECTORY / "thermostat.service")
        command = file["Service"]["ExecStart"]
        assert file["Service"]["Restart"] == "always"
    else:
        file.read(DIRECTORY / "thermostat.conf")
        command = file["program:thermostat"]["command"]
        assert file["program:thermostat"]["autorestart"] == "true"
    output = tmp_path / "watch.out"
    server = supervised(command, {})
    with output.open("w") as stdout:
        client = subprocess.Popen(  # our own module, in our own interpreter
            [sys.executable, "-m", "ha_qnx.examples.thermostat", "watch", "--times", "10000", "--seconds", "0.01"],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
        )
    try:
        for recoveries in range(3):
            eventually(lambda: f"20 ({recoveries} recoveries)" in output.read_text(), "the client's line")  # noqa: B023  # called at once
            server.kill()
            server.communicate()
            server = supervised(command, {})
        eventually(lambda: "20 (3 recoveries)" in output.read_text(), "the client's last line")
        server.terminate()
        assert server.wait(DEADLINE) == 0
    finally:
        for process in (client, server):
            process.kill()
        client.wait()
        server.communicate()


def test_every_example_is_short() -> None:
    """Each is one file of at most 80 lines, and the list in the package's docstring names it."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("[!_]*.py")}
    assert {name: source.count("\n") for name, source in sources.items() if source.count("\n") > 80} == {}
    listed = re.findall(r"\* ``(\w+)``", (DIRECTORY / "__init__.py").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(sources)
