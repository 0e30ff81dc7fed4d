"""ci/graph.py: what it says of a small checkout, and of each bound that is broken in it."""

import pathlib
import subprocess
import sys
from typing import List

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "ci" / "graph.py"


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    """A checkout of a package with two modules, and of a library with two files."""
    write(tmp_path, "ha_qnx/__init__.py", "from .low import name\n")
    write(tmp_path, "ha_qnx/low.py", "name = 1\n")
    write(tmp_path, "fallback/libha/src/low.h", "int low(void);\n")
    write(tmp_path, "fallback/libha/src/low.c", '#include "low.h"\n\nint low(void)\n{\n    return 1;\n}\n')
    write(tmp_path, "fallback/libha/src/high.c", '#include "low.h"\n\nint high(void)\n{\n    return low();\n}\n')
    return tmp_path


def write(checkout: pathlib.Path, name: str, text: str) -> None:
    path = checkout / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def run(*arguments: str, status: int = 0) -> List[str]:
    """The lines that the program prints."""
    outcome = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, str(SCRIPT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert outcome.returncode == status, outcome.stdout
    return outcome.stdout.splitlines()


def test_this_checkout_is_within_the_bounds() -> None:
    """No modules import each other, the circles of the C library are small, and no module is too long."""
    assert run("--check") == []


def test_what_is_used_is_told(checkout: pathlib.Path) -> None:
    """Each module stands in a line with its size and what it uses, and there are no circles."""
    text = [line.split() for line in run(str(checkout))]
    assert ["ha_qnx", "1", "at", "once:", "ha_qnx.low"] in text
    assert ["high", "6", "calls:", "low;", "includes:", "low"] in text
    assert ["low", "7"] in text
    assert ["C,", "by", "either:", "none"] in text
    assert run("--check", str(checkout)) == []


@pytest.mark.parametrize(
    "statement",
    ["from . import other", "import ha_qnx.other", "def late() -> None:\n    from .other import value"],
    ids=["relative", "absolute", "later"],
)
def test_modules_that_import_each_other_are_found(checkout: pathlib.Path, statement: str) -> None:
    """A circle breaks a bound, even if one of its imports is made inside a function."""
    write(checkout, "ha_qnx/low.py", f"{statement}\n")
    write(checkout, "ha_qnx/other.py", "from .low import name\nvalue = name\n")
    assert run("--check", str(checkout), status=1) == ["modules that import each other: ha_qnx.low ha_qnx.other"]


def test_imports_for_type_checkers_are_no_circle(checkout: pathlib.Path) -> None:
    """What only a type checker imports is told, but leads nowhere when the program runs."""
    write(checkout, "ha_qnx/low.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ha_qnx\n")
    assert run("--check", str(checkout)) == []
    assert "  Python, with types: 2 of 2: ha_qnx ha_qnx.low" in run(str(checkout))


def test_a_large_circle_in_c_is_found(checkout: pathlib.Path) -> None:
    """Seven files of which each calls the next are more than there may be; comments and members are no calls."""
    for number in range(7):
        following = (number + 1) % 7
        text = f"int f{number}(void)\n{{\n    return f{following}();\n}}\n"
        write(checkout, f"fallback/libha/src/room/file{number}.c", text)
    (found,) = run("--check", str(checkout), status=1)
    assert found.startswith("7 files of C that need each other, more than 6: room/file0 room/file1 ")
    write(checkout, "fallback/libha/src/room/file6.c", "int f6(struct f *f)\n{\n    return f->f0; /* not f0() */\n}\n")
    assert run("--check", str(checkout)) == []


def test_a_long_module_is_found(checkout: pathlib.Path) -> None:
    """More than 900 lines are too many, but for a file of tests."""
    write(checkout, "ha_qnx/low.py", "name = 1\n" * 901)
    write(checkout, "tests/conformance/test_long.py", "name = 1\n" * 901)
    assert run("--check", str(checkout), status=1) == ["ha_qnx.low has 901 lines, more than 900"]
