"""The table of the recorded answers: all of them are there, and each is either asked by a test or says why not."""

import importlib
import pathlib
from typing import Dict

import pytest

from . import table
from .asking import asked_by
from .table import FaultyTableError, read

#: How many cases were recorded that belong here.
RECORDED = {"first": 815, "second": 659}

HEADING = "\t".join(("case", "lines", "asked", "how much", "QNX 6.4.1", "decisions", "ours", "left out"))


def load_tests() -> None:
    """Import all tests that ask, whatever was selected."""
    for path in pathlib.Path(__file__).parent.glob("test_measured_*.py"):
        importlib.import_module(f"{__package__}.{path.stem}")


def test_every_case_is_asked_by_a_test() -> None:
    """A case is asked once, unless the table says why it is not."""
    load_tests()
    asked = [case.name for case in table.cases().values() if case.is_asked]
    assert sorted(asked_by) == sorted(asked)


def test_all_that_was_recorded_is_there() -> None:
    """No case is lost, and the counts fit together."""
    found: Dict[str, int] = {}
    for count in table.counts():
        found[count.recording] = count.cases
        assert count.asked + count.not_asked == count.cases
        assert count.equal + count.decided == count.asked
    assert found == RECORDED


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("X1\tB1\tasked\twhole\t0\t\t", "7 columns"),
        ("X1\tB1\t\twhole\t0\t\t\t", "asks nothing"),
        ("X1\tB1\tasked\tsome\t0\t\t\t", "'some'"),
        ("X1\tB1\tasked\tpart\t0\t\t\t", "what is left out"),
        ("X1\tB1\tasked\twhole\t0\t\t\twhy", "what is left out"),
        ("X1\tB1\tasked\tno\t0\tD1\t1\twhy", "is not asked"),
        ("X1\tB1\tasked\twhole\t0\tD1\t0\t", "the same"),
        ("X1\tB1\tasked\twhole\t0\t\t1\t", "no decision"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: pathlib.Path, line: str, fault: str) -> None:
    """Each line keeps the form, and says what it has to say."""
    path = tmp_path / "answers.tsv"
    path.write_text(f"{HEADING}\n{line}\n")
    with pytest.raises(FaultyTableError, match=fault):
        read(str(path))


def test_a_case_stands_in_the_table_once(tmp_path: pathlib.Path) -> None:
    """Otherwise nobody would know which answer counts."""
    path = tmp_path / "answers.tsv"
    line = "X1\tB1\tasked\twhole\t0\t\t\t"
    path.write_text(f"{HEADING}\n{line}\n{line}\n")
    with pytest.raises(FaultyTableError, match="X1 is there already"):
        read(str(path))
