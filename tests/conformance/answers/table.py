"""The recorded answers: ``answers.tsv``, read and checked.

A line of the table is a case:

* its name, as the recordings have it: letters and a number, and behind a point the variant of those that were asked in
  several ways. Those of a second recording begin with "2.", since both have used some names;
* the lines of the specification that it is about;
* what is asked;
* how much of it is asked here: "whole", "part" or "no";
* what QNX answered, if only a part is asked: to that part;
* the decisions that allow our own implementations to answer otherwise, and what they answer; both empty if they answer
  as QNX does;
* what is not asked here, and why not.
"""

import collections
import functools
import os
from typing import Dict, List, NamedTuple, Tuple

FILE = os.path.join(os.path.dirname(__file__), "answers.tsv")

WHOLE, PART, NO = "whole", "part", "no"

_HEADING = ("case", "lines", "asked", "how much", "QNX 6.4.1", "decisions", "ours", "left out")
_SECOND = "2."


class Case(NamedTuple):
    """One case, as the table has it."""

    name: str
    lines: Tuple[str, ...]
    asked: str
    how_much: str
    qnx: str
    decisions: Tuple[str, ...]
    ours: str
    left_out: str

    @property
    def is_asked(self) -> bool:
        return self.how_much != NO

    @property
    def is_decided(self) -> bool:
        """Whether our own implementations answer otherwise."""
        return bool(self.decisions)

    @property
    def is_of_the_second_recording(self) -> bool:
        return self.name.startswith(_SECOND)

    @property
    def without_variant(self) -> str:
        """The name without what stands behind the point."""
        start = len(_SECOND) if self.is_of_the_second_recording else 0
        return self.name[:start] + self.name[start:].partition(".")[0]

    def expected(self, of_ours: bool) -> str:
        """The answer to expect of our own implementations, or of somebody else's library."""
        return self.ours if of_ours and self.is_decided else self.qnx


class FaultyTableError(Exception):
    """The table cannot be what was meant."""


def read(path: str = FILE) -> Dict[str, Case]:
    """The cases by their names, in the order of the table.

    Raises:
        FaultyTableError: it says which line does not keep the form, and why.
    """
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    if tuple(lines[0].split("\t")) != _HEADING or lines[-1]:
        raise FaultyTableError("the heading is another one, or the last line does not end")
    cases: Dict[str, Case] = {}
    for number, line in enumerate(lines[1:-1], 2):
        case = _parsed(line, number)
        if case.name in cases:
            raise FaultyTableError(f"line {number}: {case.name} is there already")
        cases[case.name] = case
    return cases


def _parsed(line: str, number: int) -> Case:
    columns = line.split("\t")
    if len(columns) != len(_HEADING):
        raise FaultyTableError(f"line {number}: {len(columns)} columns")
    name, about, asked, how_much, qnx, decisions, ours, left_out = columns
    case = Case(name, tuple(about.split()), asked, how_much, qnx, tuple(decisions.split()), ours, left_out)
    fault = _fault(case)
    if fault:
        raise FaultyTableError(f"line {number}: {name} {fault}")
    return case


def _fault(case: Case) -> str:
    if not (case.name and case.asked):
        return "has no name, or asks nothing"
    if case.how_much not in (WHOLE, PART, NO):
        return f"is to be asked {case.how_much!r}"
    if (case.how_much == WHOLE) != (not case.left_out):
        return "does not say what is left out, or says it of a case that is asked as a whole"
    if case.how_much == NO and (case.decisions or case.ours):
        return "is not asked, and has an answer of ours"
    if case.is_decided and case.ours == case.qnx:
        return "is decided otherwise, and the answers are the same"
    if not case.is_decided and case.ours:
        return "has an answer of ours, and no decision that allows it"
    return ""


@functools.lru_cache(maxsize=None)
def cases() -> Dict[str, Case]:
    """The installed table."""
    return read()


class Count(NamedTuple):
    """How many cases of a recording there are, and what becomes of them."""

    recording: str
    cases: int
    asked: int
    equal: int
    decided: int
    not_asked: int


def counts() -> List[Count]:
    """The counts of both recordings."""
    found = []
    for recording, second in (("first", False), ("second", True)):
        chosen = [case for case in cases().values() if case.is_of_the_second_recording == second]
        if not chosen:
            continue
        asked = [case for case in chosen if case.is_asked]
        decided = sum(case.is_decided for case in asked)
        found.append(Count(recording, len(chosen), len(asked), len(asked) - decided, decided, len(chosen) - len(asked)))
    return found


def reasons() -> Dict[str, int]:
    """Why cases are not asked at all, and how many for each reason, the most frequent first."""
    found = collections.Counter(case.left_out for case in cases().values() if not case.is_asked)
    return dict(found.most_common())
