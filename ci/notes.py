"""Print what CHANGELOG.md says of a version: the notes of its release.

    python ci/notes.py v1.2.3

Fails if it says nothing, so that no version is released without.
"""

import argparse
import pathlib
import re
import sys

FILE = pathlib.Path(__file__).resolve().parents[1] / "CHANGELOG.md"

# "## [1.2.3] - 2026-01-31", as Keep a Changelog has it.
_HEADING = re.compile(r"^## \[?([^\]\s]+)\]?.*$", re.MULTILINE)
_LINKS = re.compile(r"^\[[^\]]+\]: \S+\n?", re.MULTILINE)


class MissingNotesError(Exception):
    """The changelog has nothing about a version."""


def notes_of(version: str, changelog: str) -> str:
    """What stands below the heading of a version, up to that of the next.

    Raises:
        MissingNotesError: there is no such heading, or nothing below it.
    """
    headings = list(_HEADING.finditer(changelog))
    for number, heading in enumerate(headings):
        if heading[1] == version:
            end = headings[number + 1].start() if number + 1 < len(headings) else len(changelog)
            notes = _LINKS.sub("", changelog[heading.end() : end]).strip()
            if notes:
                return notes + "\n"
            raise MissingNotesError(f"nothing stands below the heading of {version}")
    known = ", ".join(heading[1] for heading in headings) or "none"
    raise MissingNotesError(f"there is no heading for {version}; there are those of {known}")


def main() -> int:
    """Print the notes; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tag", help="the version, or its tag, which has a v before it")
    parser.add_argument("--file", type=pathlib.Path, default=FILE, help="instead of CHANGELOG.md")
    options = parser.parse_args()
    version = options.tag[1:] if options.tag.startswith("v") else options.tag
    try:
        print(notes_of(version, options.file.read_text(encoding="utf-8")), end="")
    except MissingNotesError as error:
        print(f"{options.file.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
