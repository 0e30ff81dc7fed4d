"""The way in: what the fallback says of its own files, and of those of its twin in C."""

import pathlib
import pkgutil
import re
from typing import Dict, Set

import ha_qnx.fallback
import pytest
from ha_qnx.fallback import limits

LIBHA = pathlib.Path(__file__).parents[2] / "fallback" / "libha" / "src"


@pytest.fixture(scope="module")
def rows() -> Dict[str, Set[str]]:
    """The table of the twins: what the line of each module says."""
    _before, table = (ha_qnx.fallback.__doc__ or "").split("here and in libha/src\n")
    found: Dict[str, Set[str]] = {}
    name = ""
    for line in table.split("What libha has beyond")[0].splitlines()[2:]:
        name = (line[:11].strip() or name) if line else ""
        if name:
            found.setdefault(name, set()).update(line[11:].split())
    return found


def test_every_module_is_in_the_table(rows: Dict[str, Set[str]]) -> None:
    """A module that is added, or gets another name, is told there."""
    assert set(rows) == {module.name for module in pkgutil.iter_modules(ha_qnx.fallback.__path__)}


def test_every_file_in_c_has_its_counterpart() -> None:
    """Each is named, and what is named is there."""
    named = set(re.findall(r"[a-z_/]+\.[ch]\b", ha_qnx.fallback.__doc__ or ""))
    there = {path.relative_to(LIBHA).as_posix() for path in LIBHA.rglob("*.c")}
    assert named - {"wire.h"} == there


# The limits of libha: in which file, under which name, what is to be added to its number, and its unit.
IN_C = {
    "SLOTS": ("number.c", "SLOT_LIMIT", -1, 1),
    "WINDOW_MIN": ("client/lane.c", "WINDOW_MIN", 0, 1),
    "WINDOW_KEPT": ("client/lane.h", "WINDOW_KEPT", 0, 1),
    "WINDOW_LARGE": ("client/lane.h", "WINDOW_LARGE", 0, 1),
    "WINDOWS_KEPT": ("client/connection.c", "WINDOWS_KEPT", 0, 1),
    "WINDOW_SMALL": ("client/connection.c", "WINDOW_SMALL", 0, 1),
    "WINDOW_IDLE": ("client/connection.c", "WINDOW_IDLE", 0, 1),
    "WINDOWS_SUM": ("client/connection.c", "WINDOWS_SUM", 0, 1),
    "LANE_WAIT": ("client/trunk.c", "PASSING_LIMIT", 0, 1),
    "RECEIVER_GRACE": ("client/exchange.c", "RECEIVER_GRACE", 0, 1),
    "POSSIBLE_RECEIVER_GRACE": ("client/exchange.c", "POSSIBLE_RECEIVER_GRACE", 0, 1),
    "SPIN_MAX": ("host/spin.c", "SPIN_MAX", 0, 1),
    "SPIN_SKIPPED": ("host/spin.c", "SKIPPED", 0, 1),
    "HANDLERS_LOOK": ("host/signals.c", "LOOK_AGAIN", 0, 1),
    "PULSE_PIPE": ("client/trunk.c", "PULSE_PIPE", 0, 1),
    "QUEUED_PULSES": ("server/channel.h", "PULSES_MAX", 0, 1),
    "RCVIDS_FIRST": ("server/rcvid.c", "BLOCK_FIRST", 0, 1),
    "PARKED_LOOK": ("server/receivers.c", "PARKED_LOOK", 0, 1),
    "LEAVING": ("client/connection.c", "LEAVING", 0, 1),
    "ANSWER_WAIT": ("server/server_lane.c", "ANSWER_LIMIT", 0, 0.001),
}


def value_in_c(file: str, name: str) -> float:
    """The number that a file of libha defines: one number, shifted or of a unit of time at most."""
    (text,) = re.findall(rf"^#define {name} (.*)$", (LIBHA / file).read_text(encoding="utf-8"), re.M)
    found = re.fullmatch(r"\(?(?:UINT64_C\()?(\d+)\)?(?: (<<|\*) (\w+))?\)?", text)
    assert found, text
    number, operation, other = found.groups()
    if operation == "<<":
        return int(number) << int(other)
    units = {None: 1.0, "CLOCK_SECOND": 1.0, "CLOCK_MILLISECOND": 0.001}
    return int(number) * units[other]


@pytest.mark.parametrize("limit", IN_C)
def test_the_limits_of_the_twins_are_the_same(limit: str) -> None:
    """What one keeps or waits for, the other does, too."""
    file, name, offset, unit = IN_C[limit]
    assert getattr(limits, limit) == (value_in_c(file, name) + offset) * unit


def test_what_limits_say_of_libha_is_so() -> None:
    """The file that is named beside a limit is the one that has it."""
    source = pathlib.Path(limits.__file__).read_text(encoding="utf-8")
    said = {name: file for file, name in re.findall(r"libha: ([a-z_/]+\.[ch])\.\n([A-Z_]+):", source)}
    assert said.pop("BACKLOG") == "host/runtime.c"  # INT_MAX, in the call that it is for.
    assert said == {limit: file for limit, (file, *_rest) in IN_C.items()}
