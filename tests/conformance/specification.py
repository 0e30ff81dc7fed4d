"""The specification, read: what each numbered line of SPECIFICATION.md says, and what it rests on.

Whatever else needs to know which lines there are has it from here. This needs no pytest.
"""

import functools
import pathlib
import re
import textwrap
from typing import Dict, Iterator, NamedTuple, Tuple

__all__ = ["FILE", "MEASURED", "OURS", "STATUSES", "WITHDRAWN", "Line", "Specification", "SpecificationError", "read"]

FILE = pathlib.Path(__file__).with_name("SPECIFICATION.md")

MEASURED = "6.4.1: measured"
OURS = "ours"
WITHDRAWN = "withdrawn"

#: What a line can rest on, and what that means.
STATUSES: Dict[str, str] = {
    MEASURED: "a QNX 6.4.1 kernel was asked, and answered so",
    "documented": "a manual of QNX says so; it was not measured",
    "source": "seen in public source; neither documented nor measured",
    "inferred": "concluded, or an open point",
    OURS: "decided by this project",
    WITHDRAWN: "a decision that holds no more",
}

# Neither the text nor the sources reach into another line.
_LINE = re.compile(
    r'<a id="(?P<anchor>[^"]*)"></a>\*\*(?P<number>[BD][1-9]\d*)\*\* (?P<text>(?:(?!<a ).)+?)\\\n'
    r"\*(?P<status>[^*]+)\*(?: \((?P<sources>(?:(?!<a ).)+)\))?",
    re.DOTALL,
)
# What nobody writes but for a line, in case that one is not in its form.
_LOOKS_LIKE_A_LINE = re.compile(r"<a |\*\*[A-Z]\d")


class SpecificationError(ValueError):
    """SPECIFICATION.md is not in its form; the text says where."""


class Line(NamedTuple):
    """One numbered line."""

    #: B and a number for what QNX does, D and a number for what this project decides.
    number: str
    #: The heading that it stands under.
    section: str
    #: What it says, in Markdown, without line breaks.
    text: str
    #: One of STATUSES.
    status: str
    #: Where it is from; empty if nothing is said of that.
    sources: str

    @property
    def anchor(self) -> str:
        """Its place in the file, as a link has it."""
        return self.number.lower()

    def describe(self, width: int = 100) -> str:
        """The line as plain text: its number and status, and below, indented, what it says."""
        text = plain(self.text, width, "  ")
        return f"{self.number} ({self.status})\n{text}"


def plain(text: str, width: int, indent: str) -> str:
    """Text in Markdown for a terminal: wrapped, and without the marks of code."""
    return textwrap.fill(
        text.replace("`", ""),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Specification:
    """All lines, by their numbers."""

    def __init__(self, lines: Dict[str, Line]) -> None:
        self.lines = lines
        #: The numbers of what QNX does, and of what this project decides, each in ascending order.
        self.facts = self._numbers("B")
        self.decisions = self._numbers("D")

    def _numbers(self, letter: str) -> Tuple[str, ...]:
        numbers = (int(number[1:]) for number in self.lines if number[0] == letter)
        return tuple(f"{letter}{number}" for number in sorted(numbers))

    @property
    def extent(self) -> str:
        """Which lines there are, in words."""
        return " and ".join(f"{numbers[0]} to {numbers[-1]}" for numbers in (self.facts, self.decisions))


#: So many facts were written down together.
_TOGETHER = 451


@functools.lru_cache(maxsize=None)
def read(path: pathlib.Path = FILE) -> Specification:
    """Read the specification, or another file of its form.

    Raises:
        SpecificationError: a line is not in its form, a number stands twice, or one of the first facts is left out.
            (Later ones and decisions may leave some out: whoever works beside others takes a range of numbers for his.)
    """
    lines: Dict[str, Line] = {}
    section = ""
    for place, paragraph in _paragraphs(path.read_text(encoding="utf-8")):
        if paragraph.startswith("## "):
            section = paragraph[3:].replace("`", "")
        elif _LOOKS_LIKE_A_LINE.match(paragraph):
            line = _parse(paragraph, section, f"{path.name}:{place}")
            if line.number in lines:
                raise SpecificationError(f"{path.name}:{place}: {line.number} stands twice")
            lines[line.number] = line
    specification = Specification(lines)
    for letter, numbers in (("B", specification.facts), ("D", specification.decisions)):
        if not numbers:
            raise SpecificationError(f"{path.name} has no line that begins with {letter}")
    for expected, number in enumerate(specification.facts[:_TOGETHER], start=1):
        if number != f"B{expected}":
            raise SpecificationError(f"{path.name} has {number} and no B{expected}")
    return specification


def _paragraphs(text: str) -> Iterator[Tuple[int, str]]:
    """What stands between empty lines, each with the number of its first line in the file."""
    place = 1
    for paragraph in text.split("\n\n"):
        yield place + len(paragraph) - len(paragraph.lstrip("\n")), paragraph.strip("\n")
        place += paragraph.count("\n") + 2


def _parse(paragraph: str, section: str, place: str) -> Line:
    found = _LINE.fullmatch(paragraph)
    if found is None:
        raise SpecificationError(f"{place}: this is no line of the specification: {paragraph.splitlines()[0]!r}")
    words = {name: " ".join((value or "").split()) for name, value in found.groupdict().items()}
    line = Line(words["number"], section, words["text"], words["status"], words["sources"])
    if words["anchor"] != line.anchor:
        raise SpecificationError(f"{place}: the anchor of {line.number} is {words['anchor']!r}, not {line.anchor!r}")
    if line.status not in STATUSES:
        raise SpecificationError(f"{place}: {line.status!r} is no status; there are {', '.join(map(repr, STATUSES))}")
    return line
