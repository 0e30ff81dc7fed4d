"""``ha-qnx explain``: which lines it prints, what it says of them, and what it refuses."""

import importlib.util
import json
import pathlib
import subprocess
import sys
from typing import Any, Dict, List

import pytest
from ha_qnx.conformance import specification, unreached

from ha_qnx.commands import explain
from ha_qnx.commands.cli import main

pytestmark = pytest.mark.slow

LINES = specification.read().lines
# They stand nowhere as a word: that would be a citation.
NO_FACT, NO_DECISION = "B" + "999999", "D" + "999999"
LAST = specification.read().facts[-1]
SUITE = specification.FILE.parent

TESTS = '''
def test_one(number):
    """Something is
    as it is.

    And for a reason.
    """

@decorated
class TestTwo:
    def test_method(self): ...

OTHERS = 1
'''
COVERAGE = """
| lines |  |
| --- | --: |
| in all | 3 |

| line | rests on | tests, or why there is none |
| --- | --- | --- |
| [B1](SPECIFICATION.md#b1) | 6.4.1: measured | `test_a::test_one`, `test_a::TestTwo::test_method`; some `later` day |
| [B2](SPECIFICATION.md#b2) | documented | `test_a::test_one` |
| [D1](SPECIFICATION.md#d1) | ours | there is `none`, for a reason |
"""


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints, if it ends with 0."""
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def numbers(capsys: pytest.CaptureFixture[str], *arguments: str) -> List[str]:
    """The lines that the command prints."""
    return [line["number"] for line in report(capsys, *arguments)]


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> List[Dict[str, Any]]:
    """What the command says to a program."""
    lines: List[Dict[str, Any]] = json.loads(explained(capsys, *arguments, "--json"))["lines"]
    return lines


def test_a_line_is_printed_with_its_status_and_its_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside that, where it is from, and what the tests expect."""
    text = explained(capsys, "B11")
    assert text.startswith(LINES["B11"].describe())
    words = " ".join(text.split())
    assert f"From: {LINES['B11'].sources}" in words
    assert "test_channels::test_a_channel_id_is_positive" in words
    assert max(map(len, text.splitlines())) <= 100


def test_several_lines_are_printed_in_the_order_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, with an empty line between them."""
    text = explained(capsys, "D17", "B73", "d17")
    first, second = text.split("\n\n")
    assert first.startswith(LINES["D17"].describe())
    assert second.startswith(LINES["B73"].describe())


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("B73", ["B73"]),
        ("b73", ["B73"]),
        ("73", ["B73"]),
        ("B073", ["B73"]),
        ("d17", ["D17"]),
        ("B73-B75", ["B73", "B74", "B75"]),
        ("b73-75", ["B73", "B74", "B75"]),
        ("73-75", ["B73", "B74", "B75"]),
        ("D5-d6", ["D5", "D6"]),
        ("D5-D5", ["D5"]),
    ],
)
def test_a_number_can_be_written_as_people_do(
    capsys: pytest.CaptureFixture[str], word: str, expected: List[str]
) -> None:
    """In either case, without a letter for a fact, and as a range."""
    assert numbers(capsys, word) == expected


def test_a_range_leaves_out_what_no_line_has(capsys: pytest.CaptureFixture[str]) -> None:
    """There are gaps beyond the facts that were written down together."""
    assert numbers(capsys, f"B451-{LAST}") == list(specification.read().facts[450:])


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("B0", f"there is no line B0: the lines are B1 to {LAST} and D1 to D"),
        ("0", "there is no line B0: the lines are"),
        (NO_FACT, f"there is no line {NO_FACT}: the lines are"),
        (NO_DECISION, f"there is no line {NO_DECISION}: the lines are"),
        (f"B1-{NO_FACT}", f"there is no line {NO_FACT}: the lines are"),
        ("B" + "1" * 5000, "is no number of a line: write B73 for a fact"),
        ("X9", "'X9' is no number of a line: write B73 for a fact"),
        ("B", "'B' is no number of a line"),
        ("", "'' is no number of a line"),
        ("MsgSend", "'MsgSend' is no number of a line"),
        ("B7.3", "'B7.3' is no number of a line"),
        ("B\u0667", "is no number of a line"),
        ("B75-B73", "'B75-B73' is no range"),
        ("B5-D6", "'B5-D6' is no range"),
        ("B5-", "'B5-' is no number of a line"),
    ],
)
def test_a_line_that_does_not_exist_is_wrong_use(capsys: pytest.CaptureFixture[str], word: str, sentence: str) -> None:
    """Status 2 and a sentence that helps; the lines beside it are not printed either."""
    assert main(["explain", "B1", word]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("ha-qnx explain: ")
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_a_line_without_a_test_is_printed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """It is the one that COVERAGE.md has, too."""
    reason, (number, *_others) = next(iter(unreached.REASONS.items()))
    (line,) = report(capsys, number)
    assert (line["tests"], line["no_test_because"]) == ([], reason)
    assert f"No test: {reason}" in " ".join(explained(capsys, number).split())


@pytest.fixture
def small_table(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Dict[str, explain.Coverage]:
    """A COVERAGE.md of three lines, in the place of ours."""
    path = tmp_path / "COVERAGE.md"
    path.write_text(COVERAGE)
    table = explain.read_coverage(path)
    monkeypatch.setattr(explain, "read_coverage", lambda path: table)
    return table


def test_the_table_is_read(small_table: Dict[str, explain.Coverage]) -> None:
    """The tests of a line and what they leave, or why there is none; other tables are passed over."""
    assert small_table == {
        "B1": explain.Coverage(("test_a::test_one", "test_a::TestTwo::test_method"), "some `later` day", None),
        "B2": explain.Coverage(("test_a::test_one",), None, None),
        "D1": explain.Coverage((), None, "there is `none`, for a reason"),
    }


def test_our_table_has_every_line() -> None:
    """No line would be explained without a word on its tests, and every test that it names is found in the suite."""
    table = explain.read_coverage(SUITE / "COVERAGE.md")
    assert list(table) == list(LINES)
    named = {name for covered in table.values() for name in covered.tests}
    assert named - set(explain.expectations(SUITE)) == set()


@pytest.mark.usefixtures("small_table")
def test_what_is_not_tested_yet_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A line may have tests and something that is left."""
    (line,) = report(capsys, "B1")
    assert line["not_tested_yet"] == "some `later` day"
    assert "  Not tested yet: some later day\n" in explained(capsys, "B1")


@pytest.mark.usefixtures("small_table")
def test_a_line_that_the_table_lacks_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever adds a line may want to see it before the table is written anew."""
    assert explained(capsys, "B3").endswith("\n  No test: COVERAGE.md does not have this line\n")


def test_a_program_gets_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object, with a text as it stands in the file."""
    (line,) = report(capsys, "B71")
    assert {name: line[name] for name in ("number", "section", "text", "status", "sources")} == {
        "number": "B71",
        "section": LINES["B71"].section,
        "text": LINES["B71"].text,
        "status": LINES["B71"].status,
        "sources": LINES["B71"].sources,
    }
    assert {"name", "expectation"} == set(line["tests"][0])
    assert (line["no_test_because"], line["not_tested_yet"]) == (None, None)


def test_what_tests_expect_is_found_in_their_source(tmp_path: pathlib.Path) -> None:
    """The first sentence of the docstring, on one line, wherever the module lies; other modules are not read."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "test_a.py").write_text(TESTS)
    (tmp_path / "helpers.py").write_text(TESTS)
    assert explain.expectations(tmp_path) == {
        "test_a::test_one": "Something is as it is.",
        "test_a::TestTwo::test_method": "",
    }


def test_it_needs_no_pytest(tmp_path: pathlib.Path) -> None:
    """On a target there may be none."""
    program = (
        "import sys; sys.modules['pytest'] = None; from ha_qnx.commands.cli import main; "
        "sys.exit(main(['explain', 'B73', 'D17']))"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)  # noqa: S603  # ours
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("B73 (")


def test_without_the_suite_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, and status 2."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["explain", "B1"]) == 2
    assert "install the package" in capsys.readouterr().err
