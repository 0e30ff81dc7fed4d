"""ci/coverage.py: what it says of a suite whose marks are in order, and of one that is broken in each possible way."""

import pathlib
import subprocess
import sys
from typing import Dict

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "ci" / "coverage.py"

CONFTEST = """
def pytest_configure(config):
    config.addinivalue_line("markers", "checks(*lines)")
    config.addinivalue_line("markers", "open_point(*decisions)")
"""
TESTS = """
import pytest

@pytest.mark.checks("B1", "B2")
@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.checks("B4"))])
def test_one(number): ...

@pytest.mark.checks("B2")
@pytest.mark.open_point("D1")
class TestTwo:
    def test_method(self): ...

def test_of_no_line(): ...
"""
REASONS = """
LATER = ("not yet",)
REASONS = {
    "not yet": ("B3",),
    "out of reach": tuple([f"B{n}" for n in range(5, 416)] + [f"D{n}" for n in range(2, 33)]),
}
PARTS = {"some day the rest": ("B1",)}
"""


class Suite:
    """A suite of three tests, and the file that says what they check."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.page = directory / "page.md"
        for name, text in (("conftest.py", CONFTEST), ("test_a.py", TESTS), ("unreached.py", REASONS)):
            (directory / name).write_text(text)

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a text that stands once in a file."""
        path = self.directory / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run the script on this suite."""
        return subprocess.run(  # noqa: S603  # ours
            [sys.executable, str(SCRIPT), "--suite", str(self.directory), "--file", str(self.page), *options],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )

    def rows(self) -> Dict[str, str]:
        """The rows of all tables of the page."""
        cells = (row.strip("|").split("|") for row in self.page.read_text().splitlines() if row.startswith("|"))
        return {first.strip(): second.strip() for first, second in cells}


@pytest.fixture
def suite(tmp_path: pathlib.Path) -> Suite:
    """It lies in a directory of its own, which the script does not write to except for the page."""
    return Suite(tmp_path)


def test_every_line_has_its_tests_or_its_reason(suite: Suite) -> None:
    """Tests are named once, whatever their parameters; a reason stands where there is none; the sums are right."""
    written = suite.run()
    assert (written.returncode, written.stdout) == (0, "")
    rows = suite.rows()
    assert rows["B1"] == "`test_a::test_one`; some day the rest"
    assert rows["B2"] == "`test_a::test_one`, `test_a::TestTwo::test_method`"
    assert rows["B3"] == "not yet"
    assert rows["B4"] == "`test_a::test_one`"
    assert rows["B415"] == rows["D32"] == "out of reach"
    assert rows["D1"] == "`test_a::TestTwo::test_method`"
    assert (rows["checked by tests"], rows["not yet"], rows["out of reach"], rows["in all"]) == ("4", "1", "442", "447")
    assert len([line for line in rows if line[0] in "BD" and line[1:].isdigit()]) == 447
    assert suite.page.read_text().endswith("\n- `test_a::test_of_no_line`\n")


def test_a_current_file_passes(suite: Suite) -> None:
    """What was written is what is checked for, and nothing else is written beside it."""
    suite.run()
    before = suite.page.read_text()
    checked = suite.run("--check")
    assert (checked.returncode, checked.stdout) == (0, "")
    assert suite.page.read_text() == before
    assert {path.name for path in suite.directory.iterdir()} - {"__pycache__"} == {
        "conftest.py",
        "page.md",
        "test_a.py",
        "unreached.py",
    }


def test_no_file_is_not_current(suite: Suite) -> None:
    """A check does not write it."""
    checked = suite.run("--check")
    assert checked.returncode == 1
    assert checked.stdout == "page.md is not what the suite says now: write it anew by python ci/coverage.py\n"
    assert not suite.page.exists()


def test_a_file_that_says_something_else_is_not_current(suite: Suite) -> None:
    """A test was renamed since, for instance."""
    suite.run()
    before = suite.page.read_text()
    suite.change("test_a.py", "def test_one", "def test_first")
    checked = suite.run("--check")
    assert checked.returncode == 1
    assert "page.md is not what the suite says now" in checked.stdout
    assert suite.page.read_text() == before


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("unreached.py", '("B3",)', "()", "B3 has neither a test nor a reason"),
        ("unreached.py", "range(2, 33)", "range(2, 32)", "D32 has neither a test nor a reason"),
        ("unreached.py", '("B3",)', '("B3", "B2")', "B2 has tests, and unreached.py has a reason"),
        ("unreached.py", '("B3",)', '("B3", "D1")', "D1 has tests, and unreached.py has a reason"),
        ("unreached.py", '("B3",)', '("B3", "B5")', "B5 has 2 reasons"),
        ("unreached.py", "range(5, 416)", "range(5, 417)", "unreached.py has a reason for B416, and there is no"),
        ("unreached.py", '("B1",)', '("B1", "B9")', "unreached.py says what is left of B9, which has no test"),
        ("unreached.py", '("not yet",)', '("never",)', "no line has it: 'never'"),
        ("test_a.py", '"B1", "B2"', '"B1", "B2", "B416"', "test_a::test_one is marked with B416, and there is no"),
        ("test_a.py", '"B1", "B2"', '"B1", "B2", "b3"', "test_a::test_one is marked with b3, and there is no"),
        ("test_a.py", 'checks("B4")', 'checks("D0")', "test_a::test_one is marked with D0, and there is no"),
        ("test_a.py", 'open_point("D1")', 'open_point("D1", "B1")', "of the open point B1, which is no decision"),
        ("test_a.py", "import pytest", "import no_such_module, pytest", "the suite cannot be collected"),
        ("test_a.py", "mark.open_point", "mark.open_pint", "the suite cannot be collected"),
    ],
)
def test_what_is_not_in_order_fails(suite: Suite, name: str, old: str, new: str, sentence: str) -> None:
    """Both the check and the writing end with 1 and a sentence that names the line; what was written stays."""
    suite.run()
    before = suite.page.read_text()
    suite.change(name, old, new)
    for options in (["--check"], []):
        ended = suite.run(*options)
        assert ended.returncode == 1
        assert sentence in ended.stdout
        assert "Traceback" not in ended.stdout or "cannot be collected" in sentence
    assert suite.page.read_text() == before
