"""ha_qnx/conformance/specification.py: that it reads the specification, and refuses what is not in its form."""

import pathlib
import re

import pytest
from ha_qnx.conformance import specification
from ha_qnx.conformance.answers import table
from ha_qnx.conformance.specification import MEASURED, STATUSES, Line, SpecificationError, read

SMALL = """\
# A heading, and words that are no line

## `name_open` and others

<a id="b1"></a>**B1** GIVEN a name WHEN it is opened
THEN `_IO_CONNECT` is sent\\
*6.4.1: measured* (case NA01;
manual 7.0: name_open)

<a id="b2"></a>**B2** GIVEN nothing\\
*inferred*

## What is decided

<a id="d1"></a>**D1** EINVAL\\
*ours* (6.4.1 does otherwise (case NA02))
"""


@pytest.fixture
def small(tmp_path: pathlib.Path) -> pathlib.Path:
    """Of its own, since what has been read is remembered."""
    path = tmp_path / "SMALL.md"
    path.write_text(SMALL)
    return path


def test_a_line_has_its_parts(small: pathlib.Path) -> None:
    """Number, section, text, status and sources, without the line breaks of the file."""
    lines = read(small).lines
    assert list(lines.values()) == [
        Line(
            "B1",
            "name_open and others",
            "GIVEN a name WHEN it is opened THEN `_IO_CONNECT` is sent",
            MEASURED,
            "case NA01; manual 7.0: name_open",
        ),
        Line("B2", "name_open and others", "GIVEN nothing", "inferred", ""),
        Line("D1", "What is decided", "EINVAL", "ours", "6.4.1 does otherwise (case NA02)"),
    ]
    assert [line.anchor for line in lines.values()] == ["b1", "b2", "d1"]


def test_facts_and_decisions_are_told_apart(small: pathlib.Path) -> None:
    """The range of both comes from the file."""
    found = read(small)
    assert (found.facts, found.decisions) == (("B1", "B2"), ("D1",))
    assert found.extent == "B1 to B2 and D1 to D1"


def test_a_line_is_described_as_plain_text(small: pathlib.Path) -> None:
    """Wrapped and indented, for a terminal."""
    assert read(small).lines["B1"].describe(width=40) == (
        "B1 (6.4.1: measured)\n  GIVEN a name WHEN it is opened THEN\n  _IO_CONNECT is sent"
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("*inferred*", "*inferred", "SMALL.md:10: this is no line of the specification"),
        ("*inferred*", "inferred", "SMALL.md:10: this is no line of the specification"),
        ("*inferred*", "*measured*", "SMALL.md:10: 'measured' is no status"),
        ("*inferred*", "*inferred* by reading", "SMALL.md:10: this is no line of the specification"),
        ("GIVEN nothing\\\n", "GIVEN nothing\n", "SMALL.md:10: this is no line of the specification"),
        ('<a id="b2"></a>**B2**', "**B2**", "SMALL.md:10: this is no line of the specification"),
        ("**B2**", "**B3**", "SMALL.md:10: the anchor of B3 is 'b2', not 'b3'"),
        ('"b2"></a>**B2**', '"b3"></a>**B3**', "SMALL.md has B3 and no B2"),
        ('"b2"></a>**B2**', '"b1"></a>**B1**', "SMALL.md:10: B1 stands twice"),
        ('"b2"></a>**B2**', '"c2"></a>**C2**', "SMALL.md:10: this is no line of the specification"),
        ('"d1"></a>**D1**', '"b3"></a>**B3**', "SMALL.md has no line that begins with D"),
        ("\n\n## What is decided\n\n", "\n", "SMALL.md:10: this is no line of the specification"),
    ],
)
def test_what_is_not_in_its_form_is_refused(small: pathlib.Path, old: str, new: str, sentence: str) -> None:
    """No line gets lost by a slip of the pen; the place is named."""
    assert SMALL.count(old) == 1
    small.write_text(SMALL.replace(old, new))
    with pytest.raises(SpecificationError) as error:
        read(small)
    assert str(error.value).startswith(sentence)


def test_our_own_is_in_its_form() -> None:
    """Every status is explained in the file itself, and every decision has another status than a fact."""
    found = read()
    text = specification.FILE.read_text(encoding="utf-8")
    assert [status for status in STATUSES if f"* *{status}*: " not in text] == []
    decided = {found.lines[number].status for number in found.decisions}
    assert decided == {"ours", "withdrawn"}
    assert {found.lines[number].status for number in found.facts} == set(STATUSES) - decided


def test_the_cases_of_our_own_are_in_the_table() -> None:
    """Whoever doubts a line finds what was asked, and what was answered."""
    cases = table.cases().values()
    known = {case.without_variant for case in cases}
    has_second = any(case.is_of_the_second_recording for case in cases)
    named = {case for line in read().lines.values() for case in re.findall(r"(?:2\.)?\b[A-Z]{2}\d\w*", line.sources)}
    assert [case for case in sorted(named - known) if has_second or not case.startswith("2.")] == []
    assert len(named) > 300
