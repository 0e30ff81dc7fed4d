"""Who may open a service that has a mode."""

import os
import pwd
from errno import EACCES
from typing import Any, List, Optional

import pytest
from ha_qnx.conformance.expect import fails_with

from ha_qnx.access import READ, WRITE, Access, check_opened
from ha_qnx.service import Service
from ha_qnx.structures import ClientInfo


def client(user: int, group: int, *groups: int) -> ClientInfo:
    info = ClientInfo()
    info.cred.euid, info.cred.egid, info.cred.ngroups = user, group, len(groups)
    for number, one in enumerate(groups[:8]):
        info.cred.grouplist[number] = one
    return info


@pytest.mark.parametrize(
    ("mode", "user", "group", "groups", "may"),
    [
        (0o640, 10, 99, [], READ | WRITE),
        (0o640, 11, 20, [], READ),
        (0o640, 11, 99, [7, 20], READ),
        (0o640, 11, 99, [1, 2, 3, 4, 5, 6, 7, 8, 20], 0),
        (0o642, 11, 99, [7], WRITE),
        # The class that fits first counts, as of a file.
        (0o066, 10, 20, [], 0),
        (0o606, 11, 20, [], 0),
        (0o000, 0, 0, [], READ | WRITE),
    ],
)
def test_each_class_has_its_rights(mode: int, user: int, group: int, groups: List[int], may: int) -> None:
    """Owner, group, others; nobody else has those of root."""
    access = Access(mode, uid=10, gid=20)
    for wanted in (READ, WRITE, READ | WRITE):
        if may & wanted == wanted:
            access.check(client(user, group, *groups), wanted)
        else:
            with fails_with(EACCES):
                access.check(client(user, group, *groups), wanted)


def test_what_was_opened_for_one_thing_is_not_used_for_another() -> None:
    """But a connection without an open may do both."""
    for ioflag in (0, READ, READ | WRITE, READ | 0x80000):
        check_opened(ioflag, READ)
    for ioflag in (WRITE, 0x80000):
        with fails_with(EACCES):
            check_opened(ioflag, READ)


def test_the_group_has_a_name_or_a_number() -> None:
    """Without one, it is that of this process."""
    name = pwd.getpwuid(0).pw_name
    assert Access.of(0o660, None) == (0o660, os.geteuid(), os.getegid())
    assert Access.of(0o660, 7) == (0o660, os.geteuid(), 7)
    assert Access.of(0o660, name) == (0o660, os.geteuid(), 0)
    assert Access.of(None, None) is None


@pytest.mark.parametrize(
    ("mode", "group", "error"),
    [(0o1000, None, ValueError), (-1, None, ValueError), ("rw", None, TypeError), (None, 7, ValueError),
     (0o660, "no-such-group", ValueError), (0o660, -1, ValueError), (0o660, 1.5, TypeError)],
)  # fmt: skip
def test_what_is_no_mode_or_no_group_is_refused(mode: Any, group: Optional[Any], error: type) -> None:
    """Before anything is attached."""
    with pytest.raises(error):
        Service("access", mode=mode, group=group)
