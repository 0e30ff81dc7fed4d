"""The command line: what it takes, what it refuses, and what it says about itself."""

import os
import pathlib
import shlex
import subprocess
import sys
from typing import List

import pytest

from ha_qnx.commands.cli import main

COMMANDS = ["demo", "doctor", "run", "conformance", "explain"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["demo", "--seconds", "0"],
        ["demo", "--seconds", "nan"],
        ["demo", "--seconds", "soon"],
        ["demo", "--kills", "-1"],
        ["demo", "--kills", "2.5"],
        ["demo", "--clients", "0"],
        ["demo", "--backend", "pigeon"],
        ["demo", "more"],
        ["demo", "--", "more"],
        ["doctor", "--backend", "pigeon"],
        ["doctor", "more"],
        ["conformance", "--backend", "pigeon"],
        ["conformance", "--server-backend", "pigeon"],
        ["conformance", "-k", "for pytest, but not behind --"],
        ["explain"],
        ["explain", "B1", "--", "more"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_refused(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What the command does not know ends it with status 2 and a word about its usage, before anything is done."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    output = capsys.readouterr()
    assert end.value.code == 2
    assert output.out == ""
    assert "usage: ha-qnx" in output.err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help says what the command does, shows examples, and explains the exit status."""
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f"  ha-qnx {command} " in text
    assert "exit status: 0" in text


def test_the_general_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command stands in the general help, with a line of its own."""
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert [command for command in COMMANDS if not any(line.split()[:1] == [command] for line in lines)] == []


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-m", "ha_qnx"], [os.path.join(os.path.dirname(sys.executable), "ha-qnx")]],
    ids=["module", "script"],
)
def test_the_command_can_be_run(command: List[str], tmp_path: pathlib.Path) -> None:
    """The script and the module are the same command, and pass its exit status on."""
    right = subprocess.run([*command, "doctor"], cwd=tmp_path, stdout=subprocess.PIPE, timeout=60)  # noqa: S603  # ours
    wrong = subprocess.run([*command, "dance"], cwd=tmp_path, stderr=subprocess.PIPE, timeout=60)  # noqa: S603  # ours
    assert (right.returncode, wrong.returncode) == (0, 2)
    assert b"No fault found" in right.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["doctor"], ["demo", "--seconds", "0.1", "--kills", "0", "--clients", "1"], ["explain", "B1"]]
)
@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_output_that_cannot_be_written_is_an_error(tmp_path: pathlib.Path, arguments: List[str], output: str) -> None:
    """A line on standard error and status 1, rather than a traceback."""
    command = f"exec {shlex.join([sys.executable, '-m', 'ha_qnx', *arguments])} {output}"
    ended = subprocess.run(  # noqa: S602  # ours, with a file that only a shell closes
        command, shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("python -m ha_qnx: ")


def test_a_command_can_be_piped_into_one_that_stops_reading(tmp_path: pathlib.Path) -> None:
    """When nobody reads the output any more, the command ends without a traceback."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ha_qnx", "doctor"]
    ended = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, timeout=60)  # noqa: S603  # ours
    os.close(write)
    assert b"Traceback" not in ended.stderr
