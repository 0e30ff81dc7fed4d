"""ci/abi_check.py: the declarations of the binding are those of the record, and an error in them is found."""

import importlib.util
import pathlib
import subprocess
import sys
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, Tuple
from unittest import mock

import pytest

pytestmark = pytest.mark.slow

SCRIPT = pathlib.Path(__file__).parents[2] / "ci" / "abi_check.py"


def load() -> ModuleType:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("abi_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


abi_check: Any = load()
PLANTED: Dict[str, Callable[[], Any]] = dict(abi_check.planted())


@pytest.fixture(autouse=True)
def compiler(compile_c: Callable[..., str]) -> None:
    """There must be one."""
    compile_c("nothing.so", "-shared", "-fPIC", source="int nothing;")


def test_the_declarations_are_right() -> None:
    """The program finds no difference, and says how much it has compared."""
    outcome = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, str(SCRIPT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
        cwd=SCRIPT.parent,
    )
    assert (outcome.returncode, outcome.stdout.count("\n")) == (0, 1), outcome.stdout
    assert "3 data models: no differences" in outcome.stdout


def test_enough_errors_are_planted() -> None:
    """Each is another one, and they concern results, parameters, structures, words and constants."""
    assert len(PLANTED) == len(list(abi_check.planted())) >= 16


@pytest.mark.parametrize("what", PLANTED)
def test_an_error_that_is_planted_is_found(what: str) -> None:
    """While it is there, there is a difference; then there is none any more."""
    with PLANTED[what]():
        try:
            found = abi_check.check()
        except (KeyError, IndexError):
            found = ["the table cannot even be read"]
    assert found


def test_planting_leaves_nothing_behind() -> None:
    """After all of them, the table is as it was."""
    for plant in PLANTED.values():
        with plant():
            pass
    assert abi_check.check() == []


def test_the_proof_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """--prove numbers the errors, and says how each was found."""
    assert abi_check.prove() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PLANTED)
    assert not [line for line in lines if "NOT FOUND" in line]


def test_the_proof_fails_with_an_error_that_is_not_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--prove names what went unnoticed."""

    def harmless() -> Iterator[Tuple[str, Callable[[], Any]]]:
        yield "no error at all", lambda: mock.patch.dict(abi_check.IN_C, {})

    monkeypatch.setattr(abi_check, "planted", harmless)
    assert abi_check.prove() == 1
    assert " 1. no error at all: NOT FOUND" in capsys.readouterr().out
