"""ci/coverage.py: what it says of a suite whose marks are in order, and of one that is broken in each possible way."""

import pathlib
import subprocess
import sys
from typing import Dict, List

import pytest

from ha_qnx.commands import explain

pytestmark = pytest.mark.slow

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
    "out of reach": ("B5", "B6", "D2"),
}
PARTS = {"some day the rest": ("B1",)}
"""
STATUSES = {
    "B1": "6.4.1: measured",
    "B2": "6.4.1: measured",
    "B5": "source",
    "D1": "ours",
    "D2": "ours",
    "D3": "withdrawn",
}
SPECIFICATION = "# What a kernel does\n\n" + "\n\n".join(
    f'<a id="{line.lower()}"></a>**{line}** something\\\n*{STATUSES.get(line, "documented")}* (a manual)'
    for line in ("B1", "B2", "B3", "B4", "B5", "B6", "D1", "D2", "D3")
)
# Numbers of no line, in this suite as in ours. They stand nowhere as a word: that would be a citation.
NO_FACT, NO_DECISION = "B" + "9999", "D" + "9999"


class Suite:
    """A suite of three tests, and the file that says what they check."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.page = directory / "page.md"
        self.citing = directory / "checkout"
        self.citing.mkdir()
        for name, text in (
            ("conftest.py", CONFTEST),
            ("test_a.py", TESTS),
            ("unreached.py", REASONS),
            ("SPECIFICATION.md", SPECIFICATION),
        ):
            (directory / name).write_text(text)

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a text that stands once in a file."""
        path = self.directory / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def cite(self, name: str, text: str) -> None:
        """Write a file of the checkout whose citations are checked."""
        path = self.citing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run the script on this suite."""
        places = {"--suite": self.directory, "--file": self.page, "--root": self.citing}
        return subprocess.run(  # noqa: S603  # ours
            [sys.executable, str(SCRIPT), *(str(word) for place in places.items() for word in place), *options],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )

    def rows(self) -> Dict[str, List[str]]:
        """The rows of all tables of the page, by their first cells; of a link, by its text."""
        rows = [row.strip("|").split("|") for row in self.page.read_text().splitlines() if row.startswith("|")]
        return {cells[0].strip().strip("[").partition("]")[0]: [cell.strip() for cell in cells[1:]] for cells in rows}


@pytest.fixture
def suite(tmp_path: pathlib.Path) -> Suite:
    """It lies in a directory of its own, which the script does not write to except for the page."""
    return Suite(tmp_path)


def test_every_line_has_its_tests_or_its_reason(suite: Suite) -> None:
    """Tests are named once, whatever their parameters; a reason stands where there is none; the sums are right."""
    written = suite.run()
    assert (written.returncode, written.stdout) == (0, "")
    explained = {line: (found.tests, found[1:]) for line, found in explain.read_coverage(suite.page).items()}
    assert explained["B1"] == (("test_a::test_one",), ("some day the rest", None))
    assert explained["B2"] == (("test_a::test_one", "test_a::TestTwo::test_method"), (None, None))
    assert explained["B3"] == ((), (None, "not yet"))
    assert set(explained) == {"B1", "B2", "B3", "B4", "B5", "B6", "D1", "D2", "D3"}
    rows = suite.rows()
    measured, documented = "6.4.1: measured", "documented"
    assert rows["B1"] == [measured, "`test_a::test_one`; some day the rest"]
    assert rows["B2"] == [measured, "`test_a::test_one`, `test_a::TestTwo::test_method`"]
    assert rows["B3"] == [documented, "not yet"]
    assert rows["B4"] == [documented, "`test_a::test_one`"]
    assert rows["B5"] == ["source", "out of reach"]
    assert rows["D1"] == ["ours", "`test_a::TestTwo::test_method`"]
    assert rows["D2"] == ["ours", "out of reach"]
    assert rows["D3"] == ["withdrawn", "withdrawn"]
    counts = {"checked by tests": 4, "not yet": 1, "out of reach": 3, "withdrawn, and tested no more": 1, "in all": 9}
    assert {name: rows[name] for name in counts} == {name: [str(count)] for name, count in counts.items()}
    assert len([line for line in rows if line[0] in "BD" and line[1:].isdigit()]) == 9
    assert suite.page.read_text().endswith("\n- `test_a::test_of_no_line`\n")


def test_the_page_says_what_the_lines_rest_on(suite: Suite) -> None:
    """How many are measured, how many are only documented, and how many are decisions of ours."""
    suite.run()
    text = suite.page.read_text()
    assert "| 6.4.1: measured | a QNX 6.4.1 kernel was asked, and answered so | 2 |" in text
    assert "| documented | a manual of QNX says so; it was not measured | 3 |" in text
    assert "| ours | decided by this project | 2 |" in text


def test_each_line_is_a_link_to_its_text(suite: Suite) -> None:
    """The anchor is the one that the specification has."""
    suite.run()
    assert "\n| [B4](SPECIFICATION.md#b4) | " in suite.page.read_text()


def test_a_current_file_passes(suite: Suite) -> None:
    """What was written is what is checked for, and nothing else is written beside it."""
    suite.run()
    before = suite.page.read_text()
    checked = suite.run("--check")
    assert (checked.returncode, checked.stdout) == (0, "")
    assert suite.page.read_text() == before
    assert {path.name for path in suite.directory.iterdir()} - {"__pycache__"} == {
        "SPECIFICATION.md",
        "checkout",
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
        ("unreached.py", '"B6", "D2"', '"B6"', "D2 has neither a test nor a reason"),
        ("unreached.py", '("B3",)', '("B3", "B2")', "B2 has tests, and unreached.py has a reason"),
        ("unreached.py", '("B3",)', '("B3", "D1")', "D1 has tests, and unreached.py has a reason"),
        ("unreached.py", '("B3",)', '("B3", "B5")', "B5 has 2 reasons"),
        ("unreached.py", '"B6"', f'"B6", "{NO_FACT}"', f"unreached.py has a reason for {NO_FACT}, and there is no"),
        ("unreached.py", '("B1",)', '("B1", "B6")', "unreached.py says what is left of B6, which has no test"),
        ("unreached.py", '("not yet",)', '("never",)', "no line has it: 'never'"),
        (
            "test_a.py",
            '"B1", "B2"',
            f'"B1", "{NO_FACT}"',
            f"test_a::test_one is marked with {NO_FACT}, and there is no",
        ),
        ("test_a.py", '"B1", "B2"', '"B1", "B2", "b3"', "test_a::test_one is marked with b3, and there is no"),
        ("test_a.py", 'checks("B4")', 'checks("D0")', "test_a::test_one is marked with D0, and there is no"),
        ("test_a.py", 'open_point("D1")', 'open_point("D1", "B1")', "of the open point B1, which is no decision"),
        ("test_a.py", "import pytest", "import no_such_module, pytest", "the suite cannot be collected"),
        ("test_a.py", "mark.open_point", "mark.open_pint", "the suite cannot be collected"),
        ("SPECIFICATION.md", "**D2**", "**D3**", "SPECIFICATION.md:"),
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


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "ha_qnx/deep/below/module.py",
        "fallback/libha/src/call.c",
        "tests/conformance/TARGET.md",
        "ci/test",
        ".github/workflows/wheels.yml",
    ],
)
def test_a_citation_that_leads_to_no_line_fails(suite: Suite, name: str) -> None:
    """Wherever it stands, it is named with its place; those beside it that lead to a line are not."""
    suite.cite(name, f"B1\n(D1, B4-{NO_FACT}, {NO_DECISION}/B5)\n")
    for options in (["--check"], []):
        ended = suite.run(*options)
        assert ended.returncode == 1
        assert ended.stdout.splitlines() == [
            f"{name}:2: {NO_FACT} is cited, and there is no such line",
            f"{name}:2: {NO_DECISION} is cited, and there is no such line",
        ]
    assert not suite.page.exists()


def test_what_only_looks_like_a_citation_passes(suite: Suite) -> None:
    """Hexadecimal numbers, names, and the rules of the linter are none; neither is anything in a file of data."""
    suite.cite("ha_qnx/module.py", "0xB7777 \\xB7777 B7777_ aB7777 B0777 b7777  # noqa: B904, D417  # for a reason\n")
    suite.cite("ci/record.json", f'["{NO_FACT}"]\n')
    suite.cite("pyproject.toml", f"ignore = ['{NO_DECISION}']\n")
    ended = suite.run()
    assert (ended.returncode, ended.stdout) == (0, "")
