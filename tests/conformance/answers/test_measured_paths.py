"""Paths that servers attach: what can be attached, what an open asks for, whom, and what it says."""

import errno
import os
import signal
from typing import Any, Iterator, List, Sequence, Tuple

import pytest

from ha_qnx import (
    ERESTART,
    FTYPE_NAME,
    NTO_CHF_DISCONNECT,
    RESMGR_FLAG_AFTER,
    RESMGR_FLAG_BEFORE,
    RESMGR_FLAG_DIR,
    RESMGR_FLAG_FTYPEONLY,
    RESMGR_FLAG_OPAQUE,
    RESMGR_FLAG_SELF,
)

from ..peers import Peer
from ..servers import StartPeer
from ..waiting import Task
from .asking import Answers, measured
from .ledgers import host_flags, nothing_or, receive, words
from .notation import error_number, failed, named, told, yes
from .parties import Party, played, state
from .test_measured_channels import server_info
from .test_measured_deaths import End
from .test_measured_files import Reader
from .watched import Watched

PATH = "/dev/probeX"


class PathServer(Watched):
    """A server in another process that can attach paths, and tells of what it is asked in the words for paths."""

    def __init__(self, peer: Peer, flags: int = 0, of_paths: bool = True) -> None:
        super().__init__(peer, flags=flags, of_paths=of_paths)

    def attach(self, path: str = PATH, flags: int = 0, file_type: int = 0) -> int:
        """Serve a path."""
        attached: int = self.peer.run(attach_path, self.chid, path, file_type, flags)
        return attached

    def detach(self, attached: int) -> str:
        """Serve it no longer; what resmgr_detach says."""
        return str(self.peer.run(detach_path, attached))


def attach_path(qnx: Any, chid: int, path: str, file_type: int, flags: int) -> int:
    """In another process: serve a path."""
    return int(qnx.resmgr_attach(chid, path, file_type, flags))


def detach_path(qnx: Any, attached: int) -> str:
    """In another process: serve a path no longer."""
    return told(qnx.resmgr_detach, attached)


def open_and_close(qnx: Any, path: str, oflag: int = os.O_RDWR, mode: int = 0) -> str:
    """Whether open gives a descriptor, which is closed again, or its error."""
    try:
        fd = qnx.open(path, oflag, mode)
    except OSError as error:
        return failed(error)
    told(qnx.close, fd)
    return "a fd"


def open_as(qnx: Any, path: str, oflag: int = os.O_RDWR, mode: int = 0) -> str:
    """The same, and the descriptor is detached, so that the server is not told."""
    try:
        fd = qnx.open(path, oflag, mode)
    except OSError as error:
        return failed(error)
    if told(qnx.ConnectDetach, fd) != "0":
        os.close(fd)
    return "a fd"


# Attaching.


def attach_paths(qnx: Any) -> Answers:
    """Attach and detach one path with all kinds of arguments."""
    chid = qnx.ChannelCreate(0)

    def attach(path: str = PATH, file_type: int = 0, flags: int = 0) -> str:
        return told(qnx.resmgr_attach, chid, path, file_type, flags)

    first = attach()
    yield "2.RA02", first
    second = attach()
    yield "2.RA03", second
    yield "2.RA04", open_and_close(qnx, PATH)
    yield "2.RA05", nothing_or(qnx, chid)
    yield "2.RA06", " ".join(told(qnx.resmgr_detach, int(number)) for number in (second, second, 99, -1))
    yield "2.RA08", " ".join(attach(file_type=file_type) for file_type in (-1, -2))
    yield "2.RA09", " ".join(attach(flags=flags) for flags in (0x8000, 0x300, 3, 0x1F))
    yield "2.RA12", told(qnx.resmgr_attach, 999, PATH)
    qnx.ChannelDestroy(chid)
    yield "2.RA14", attach()


@measured(*(f"2.RA{case}" for case in ("02", "03", "04", "05", "06", "08", "09", "12", "14")))
def test_a_path_is_attached_and_detached(alone: Peer) -> Answers:
    """Each attachment has a number."""
    yield from played(alone, attach_paths)


PATHS = (
    "dev/probeN1",
    "",
    ".",
    "..",
    "probeN2",
    "/dev/../dev/probeN3",
    "/dev/./probeN4",
    "/dev//probeN5",
    "/dev/probeN6/",
    "/..",
    "/../probeN7",
    "/dev/probeN8/..",
    "/dev",
    "/",
    "/proc",
    "/nowhere/at/all",
    "/dev/null",
    "/dev/null/x",
    "/fs/cd0/probe",
    "/fs/cd0",
    "//dev/probeN9",
    "/dev/probe N10",
    "/dev/probeN11/.",
)
PATH_LENGTHS = (200, 255, 256, 300, 500, 1000, 1023, 1024, 1025, 1100)


def path_of_length(length: int, component: int) -> str:
    """A path that is so long, with components of a length or a single one."""
    rest = length - len("/dev/")
    if not component:
        return "/dev/" + "p" * rest
    return "/dev/" + ("p" * component + "/") * (rest // (component + 1)) + "p" * (rest % (component + 1) or 1)


def attach_all_kinds(qnx: Any) -> Answers:
    """Attach and detach many paths."""
    os.chdir("/")
    chid = qnx.ChannelCreate(0)

    def attach_and_detach(path: str) -> str:
        try:
            attached = qnx.resmgr_attach(chid, path)
        except OSError as error:
            return failed(error)
        return f"ok {told(qnx.resmgr_detach, attached)}"

    for case, path in enumerate(PATHS):
        yield f"2.RN{case:02}", f"'{path}': {attach_and_detach(path)}"
    for case, length in enumerate(PATH_LENGTHS):
        yield f"2.RN3{case}", f"{length}: {attach_and_detach(path_of_length(length, 0))}"
        yield f"2.RN4{case}", f"{length}: {attach_and_detach(path_of_length(length, 9))}"


@measured(*(f"2.RN{case:02}" for case in range(23)), *(f"2.RN{case}" for case in range(30, 50)))
def test_which_paths_can_be_attached(alone: Peer) -> Answers:
    """All of them: they need not exist, and may."""
    yield from played(alone, attach_all_kinds)


@pytest.fixture
def root() -> Iterator[None]:
    """Be in the root directory."""
    before = os.getcwd()
    os.chdir("/")
    yield
    os.chdir(before)


#: A path that is attached, the flags, and three that are opened then.
OPENED: Tuple[Tuple[str, int, Tuple[str, str, str]], ...] = (
    ("dev/probeN1", 0, ("/dev/probeN1", "/dev/dev/probeN1", "dev/probeN1")),
    ("probeN2", 0, ("/probeN2", "/dev/probeN2", "probeN2")),
    ("/dev/../dev/probeN3", 0, ("/dev/probeN3", "/dev/../dev/probeN3", "/dev/./probeN3")),
    ("/dev/./probeN4", 0, ("/dev/probeN4", "/dev/./probeN4", "/dev//probeN4")),
    ("/dev//probeN5", 0, ("/dev/probeN5", "/dev//probeN5", "//dev/probeN5")),
    ("/dev/probeN6/", 0, ("/dev/probeN6", "/dev/probeN6/", "/dev/probeN6/x")),
    ("/dev/probeN6/", RESMGR_FLAG_DIR, ("/dev/probeN6", "/dev/probeN6/", "/dev/probeN6/x")),
    ("/dev/probeN8/..", 0, ("/dev/probeN8", "/dev", "/dev/probeN8/x")),
    ("/../probeN7", 0, ("/probeN7", "/../probeN7", "probeN7")),
    ("/dev/null", 0, ("/dev/null", "/dev/null/x", "/dev/zero")),
    ("/dev/null", RESMGR_FLAG_AFTER, ("/dev/null", "/dev/null/x", "/dev/zero")),
    ("/dev", 0, ("/dev", "/dev/null", "/dev/nothingness")),
    ("/dev", RESMGR_FLAG_DIR, ("/dev", "/dev/null", "/dev/nothingness")),
    ("/nowhere/at/all", 0, ("/nowhere/at/all", "/nowhere", "/nowhere/at")),
    ("/nowhere/at/all", RESMGR_FLAG_DIR, ("/nowhere/at/all", "/nowhere/x", "/nowhere/at/all/x")),
    ("/dev/null/x", 0, ("/dev/null/x", "/dev/null", "/dev/null/y")),
    ("/fs/cd0/probe", 0, ("/fs/cd0/probe", "/fs/cd0", "/fs/cd0/probe/x")),
    ("/", RESMGR_FLAG_DIR, ("/", "/nothingness", "/dev/nothingness")),
    ("", 0, ("/", "/nothingness", "/dev/nothingness")),
    (".", 0, ("/", ".", "/.")),
    ("..", 0, ("/", "..", "/dev/..")),
    ("/dev/a/probeD", 0, ("/dev/a/probeD", "/dev/a", "/dev/a/z")),
    ("/dev/NULL", 0, ("/dev/NULL", "/dev/null", "/DEV/null")),
)


def go_to(_qnx: Any, directory: str) -> None:
    """In another process: change the working directory."""
    os.chdir(directory)


def asked_for(server: PathServer) -> str:
    """What a server was asked for, if anything."""
    log = server.saw()
    return "server not asked" if log == "(nothing)" else f"server asked for {log.split(' (path_len')[0].split(' ')[1]}"


@measured(*(f"2.RW{case:02}" for case in range(len(OPENED))))
def test_where_a_path_that_was_attached_is_found(qnx: Any, start_peer: StartPeer, root: None) -> Answers:
    """Where it leads to, however it is written; it comes before what the host has there."""
    server = PathServer(start_peer())
    server.peer.run(go_to, "/")
    for case, (path, flags, opened) in enumerate(OPENED):
        attached = server.attach(path, flags)
        said = [f"'{one}': {open_as(qnx, one, os.O_RDONLY)}, {asked_for(server)}" for one in opened]
        server.detach(attached)
        yield f"2.RW{case:02}", f"'{path}' {flags:#x}: ok; {'; '.join(said)}"


LONG_PATHS = (255, 256, 500, 1000, 1022, 1023, 1024, 1025, 1100)
FILE_TYPES = (0, 1, 2, 3, 4, 6, 9, 11, 12)


@measured(
    *(f"2.RW{50 + case}" for case in range(len(LONG_PATHS))),
    *(f"2.RW{60 + case}" for case in range(len(FILE_TYPES))),
    "2.RW70",
    "2.RW80",
)
def test_long_paths_file_types_and_two_paths_of_one_server(qnx: Any, start_peer: StartPeer) -> Answers:
    """What lies below a directory can be long; which attachment is meant stands in the message."""
    server = PathServer(start_peer())
    attached = server.attach(flags=RESMGR_FLAG_DIR)
    for case, length in enumerate(LONG_PATHS):
        said = open_as(qnx, f"{PATH}/".ljust(length, "p"))
        yield f"2.RW{50 + case}", f"{length}: {said}; {'not asked' if server.saw() == '(nothing)' else 'asked'}"
    server.detach(attached)
    for case, file_type in enumerate(FILE_TYPES):
        attached = server.attach(file_type=file_type)
        yield f"2.RW{60 + case}", f"{file_type}: ok; {open_and_close(qnx, PATH, os.O_RDONLY)}; {server.saw()}"
        server.detach(attached)
    attached = server.attach("", RESMGR_FLAG_FTYPEONLY, FTYPE_NAME)
    yield "2.RW70", f"ok; open {open_as(qnx, '/probeNothing')}; {server.saw()}"
    server.detach(attached)
    numbers = [server.attach(PATH), server.attach(PATH + "2")]
    messages = []
    for path in (PATH, PATH + "2"):
        open_as(qnx, path)
        server.saw()
        messages.append(f"[{words(server.last_message())}]")
    yield "2.RW80", f"ok {numbers[1]}: {' / '.join(messages)}"


# Opening.

OPEN_FLAGS = {
    "a": (0x0, 0),
    "b": (0x1, 0),
    "c": (0x82, 0),
    "d": (0x102, 0x1A0),
    "e": (0x502, 0x180),
    "f": (0x201, 0),
    "g": (0x802, 0),
    "h": (0xA, 0),
    "i": (0x2002, 0),
    "k": (0x3, 0),
    "l": (0x40000000, 0),
}
OPEN_ERRORS = (
    *("ENOENT", "EACCES", "ENOSYS", "EBUSY", "EPERM", "EAGAIN", "EINTR", "ENOTDIR", "ELOOP", "EXDEV", "ESRCH"),
    *("ECHILD", "ENOREMOTE", "ETIMEDOUT", "EBADF", "EOK"),
)
OPEN_STATUSES = {
    "a": 1,
    "b": 5,
    "c": 0xD,
    "d": 0x7FFF,
    "e": 0x8000,
    "f": 0x10000,
    "g": 0x20000,
    "h": 0x40000,
    "i": -1,
    "k": -(2**31),
    "m": 0x40000 - 2**31,
}
OPEN_SIZES = (8, 20, 64)
LETTERS = "abcdefghijklmnop"


@measured(
    *("2.RO01", "2.RO02", "2.RO03", "2.RO04"),
    *(f"2.RO1{letter}" for letter in OPEN_FLAGS),
    *(f"2.RO2{letter}" for letter in LETTERS),
    *(f"2.RO3{letter}" for letter in OPEN_STATUSES),
    *(f"2.RO4{letter}" for letter in LETTERS[: len(OPEN_SIZES)]),
)
def test_what_an_open_sends_and_what_it_makes_of_the_answer(qnx: Any, start_peer: StartPeer) -> Answers:
    """One message, whose answer decides."""
    server = PathServer(start_peer())
    yield "2.RO01", f"ok; {server.attach()}"
    fd = qnx.open(PATH, os.O_RDWR)
    seen = server.saw()
    yield "2.RO02", f"a fd: [{words(server.last_message())}]; {seen}"
    info = server_info(qnx, fd)
    yield "2.RO03", f"{yes(info.pid == server.pid)} {yes(info.chid == server.chid)} {yes(info.coid == fd)}"
    qnx.close(fd)
    yield "2.RO04", server.saw()
    for letter, (flags, mode) in OPEN_FLAGS.items():
        said = open_as(qnx, PATH, host_flags(flags), mode)
        yield f"2.RO1{letter}", f"{flags:#x} {mode:#x}: {said}; {server.saw()}"
    for letter, name in zip(LETTERS, OPEN_ERRORS):
        server.behave(open_error=error_number(name))
        yield f"2.RO2{letter}", f"{name}: {open_and_close(qnx, PATH)}; {server.saw()}"
    for letter, status in OPEN_STATUSES.items():
        server.behave(opens=(status, 0))
        yield f"2.RO3{letter}", f"{status % 2**32:x}: {open_and_close(qnx, PATH)}; {server.saw()}"
    for letter, size in zip(LETTERS, OPEN_SIZES):
        server.behave(opens=(0, size))
        yield f"2.RO4{letter}", f"{size}: {open_and_close(qnx, PATH)}; {server.saw()}"


def open_only(qnx: Any, path: str) -> str:
    """What open says; a descriptor is kept."""
    said = told(qnx.open, path, os.O_RDWR)
    return "a fd" if said.isdigit() else said


@measured("2.RO50", "2.RO51", "2.RO52", "2.RO53", "2.RO54", "2.RO55")
def test_an_open_that_is_not_answered(alone: Peer, start_peer: StartPeer) -> Answers:
    """It waits, and fails if the server is lost."""
    server = PathServer(start_peer())
    server.attach()
    server.behave(holds=True)
    opening = alone.start(open_only, PATH)
    seen = server.saw_at_last()
    yield "2.RO50", f"{state(opening)}; {seen}"
    answered = server.answer_held()
    yield "2.RO51", f"{answered}; {opening.result()}"
    opening = alone.start(open_only, PATH)
    server.saw_at_last()
    server.peer.kill()
    yield "2.RO52", opening.result()
    yield "2.RO53", alone.run(open_only, PATH)
    server = PathServer(start_peer())
    server.attach()
    server.behave(exits=True)
    yield "2.RO54", alone.run(open_only, PATH)
    # The descriptor of 2.RO51 is 3.
    fd = alone.run(lowest_descriptor)
    yield "2.RO55", str(fd - 1)


def lowest_descriptor(_qnx: Any) -> int:
    """In another process: the lowest free descriptor."""
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    return fd


#: What is opened, in terms of what is attached.
BELOW = {
    "a": PATH,
    "b": PATH + "/",
    "c": PATH + "/a",
    "d": PATH + "/a/b",
    "e": PATH + "/a/b/",
    "f": PATH + "/.",
    "g": PATH + "/a/.",
    "h": PATH + "/..",
    "i": PATH + "/a/../b",
    "j": PATH + "//a",
    "k": "/dev/../dev/probeX/q",
    "l": "probeX/r",
    "m": PATH + "Y",
    "n": PATH + "/a b",
}
ATTACHED_BELOW = (
    ("0", 0, BELOW),
    ("1", RESMGR_FLAG_DIR, BELOW),
    ("2", RESMGR_FLAG_DIR | RESMGR_FLAG_OPAQUE, "abcde"),
    ("3", RESMGR_FLAG_DIR | RESMGR_FLAG_BEFORE, "abcde"),
)


@measured(*(f"2.RD{number}{letter}" for number, _flags, letters in ATTACHED_BELOW for letter in letters))
def test_what_lies_below_a_path(alone: Peer, start_peer: StartPeer) -> Answers:
    """It is asked for where the path was attached as a directory."""
    server = PathServer(start_peer())
    alone.run(go_to, "/dev")
    for number, flags, letters in ATTACHED_BELOW:
        attached = server.attach(flags=flags)
        for letter in letters:
            said, seen = alone.run(open_and_close, BELOW[letter]), server.saw()
            if flags & RESMGR_FLAG_OPAQUE:
                seen = seen.replace("reply_max 2456 ", "").replace("reply_max 2520 ", "")
                seen = seen.replace(" room 2456", "").replace(" room 2520", "")
            yield f"2.RD{number}{letter}", f"{flags:#x} {BELOW[letter]}: {said}; {seen}"
        server.detach(attached)


def create_below(qnx: Any) -> str:
    """In another process: create what lies below a path; the descriptor."""
    return told(qnx.open, PATH + "/k", os.O_RDWR | os.O_CREAT, 0o644)


@measured("2.RC020", "2.RC120", "2.RC220")
def test_an_open_that_creates(alone: Peer, start_peer: StartPeer) -> Answers:
    """What it is to be created with stands in the message."""
    server = PathServer(start_peer())
    server.attach(flags=RESMGR_FLAG_DIR)
    for name, how, manners in (
        ("2.RC020", "ENOSYS", {"open_error": errno.ENOSYS}),
        ("2.RC120", "EOK without data", {}),
        ("2.RC220", "EOK with 72 zero bytes", {"opens": (0, 72)}),
    ):
        server.behave(**manners)
        said = alone.run(create_below)
        yield name, f"server answers {how}: {said}; saw {server.saw()}"


# Several servers of one path.

PLAIN = 0
ORDERS = {
    "0": (PLAIN, PLAIN),
    "1": (PLAIN, RESMGR_FLAG_BEFORE),
    "2": (PLAIN, RESMGR_FLAG_AFTER),
    "3": (RESMGR_FLAG_BEFORE, PLAIN),
    "4": (RESMGR_FLAG_AFTER, PLAIN),
    "5": (RESMGR_FLAG_BEFORE, RESMGR_FLAG_BEFORE),
    "6": (RESMGR_FLAG_AFTER, RESMGR_FLAG_AFTER),
    "7": (RESMGR_FLAG_DIR, RESMGR_FLAG_DIR),
    "8": (PLAIN, RESMGR_FLAG_DIR),
}
FLAG_NAMES = {PLAIN: "plain", RESMGR_FLAG_BEFORE: "BEFORE", RESMGR_FLAG_AFTER: "AFTER", RESMGR_FLAG_DIR: "DIR"}
PASSED_ON = ("ENOENT", "ENOSYS")
ALL_ERRORS = (*PASSED_ON, "EACCES", "EBUSY", "EIO", "ENOTDIR", "ESRCH", "ENXIO", "EINTR", "EAGAIN")


def errors_of(order: str) -> Sequence[str]:
    """The errors that servers answer."""
    return ALL_ERRORS if order == "0" else PASSED_ON


def cases_of_two(order: str) -> List[str]:
    """The cases of two servers."""
    answers = [f"{letter}{number}" for letter in "cd" for number in range(len(errors_of(order)))]
    return [f"2.RT{order}{rest}" for rest in ("a", "b", *answers, "e", "f", "g", "h")]


class Two:
    """Two servers of one path."""

    def __init__(self, first: PathServer, second: PathServer) -> None:
        self.both = (first, second)

    def behave(self, *errors: str) -> None:
        """Answer by these errors, or with a descriptor."""
        for server, error in zip(self.both, errors):
            server.behave(open_error=error_number(error) if error else 0)

    def asked(self) -> str:
        """Which of them were asked."""
        asked = ["asked" if server.asked_at() else "not asked" for server in self.both]
        return f"first {asked[0]} second {asked[1]}"


@measured(*(case for order in ORDERS for case in cases_of_two(order)))
def test_two_servers_of_one_path(alone: Peer, start_peer: StartPeer) -> Answers:
    """One is asked, and if it passes the open on or is lost, the other one."""
    client = Party(alone)
    for order, flags in ORDERS.items():
        names = ", ".join(FLAG_NAMES[flag] for flag in flags)
        two = Two(PathServer(start_peer()), PathServer(start_peer()))
        for server, flag in zip(two.both, flags):
            server.attach(flags=flag)

        def opened(*errors: str, two: Two = two) -> str:
            two.behave(*errors)
            return f"{alone.run(open_as, PATH)}; {two.asked()}"

        yield f"2.RT{order}a", f"{names}: ok ok"
        yield f"2.RT{order}b", f"{names}: {opened('', '')}"
        for number, error in enumerate(errors_of(order)):
            yield f"2.RT{order}c{number}", f"{names}: {error}: {opened(error, '')}"
            yield f"2.RT{order}d{number}", f"{names}: {error}: {opened('', error)}"
        yield f"2.RT{order}e", f"{names}: {opened('ENOSYS', 'ENOENT')}"
        yield f"2.RT{order}f", f"{names}: {opened('EACCES', 'EBUSY')}"

        two.behave("", "")
        old = client.make("open", PATH, os.O_RDWR)
        asked, other = two.both if "first asked" in two.asked() else two.both[::-1]
        os.kill(asked.pid, signal.SIGKILL)
        said = alone.run(open_as, PATH)
        yield f"2.RT{order}g", f"{names}: {said}; {'the other' if other.asked_at() else 'nobody'}"
        asked.peer.kill()
        said = alone.run(open_as, PATH)
        reached = "the other" if other.asked_at() else "nobody"
        yield f"2.RT{order}h", f"{names}: {said}; {reached}; {client.told('read', old, 1)}"
        client.told("ConnectDetach", old)
        other.peer.kill()


THREE = {
    "2.RV00": "plain plain plain",
    "2.RV01": "plain BEFORE BEFORE",
    "2.RV02": "BEFORE plain BEFORE",
    "2.RV03": "AFTER AFTER plain",
    "2.RV04": "AFTER plain AFTER",
    "2.RV05": "plain AFTER BEFORE",
    "2.RV06": "BEFORE BEFORE BEFORE",
}


@measured(*THREE)
def test_the_order_in_which_servers_are_asked(alone: Peer, start_peer: StartPeer) -> Answers:
    """Those that want to be before, the oldest first; the others, the newest first; those that want to be after."""
    flags = {name: flag for flag, name in FLAG_NAMES.items()}
    servers = [PathServer(peer) for peer in (start_peer(), start_peer(), start_peer())]
    for server in servers:
        server.behave(open_error=errno.ENOENT)
    for case, names in THREE.items():
        attached = [server.attach(flags=flags[name]) for server, name in zip(servers, names.split(" "))]
        said = alone.run(open_as, PATH)
        times = {server.asked_at()[0]: number for number, server in enumerate(servers, 1)}
        order = " ".join(str(times[time]) for time in sorted(times))
        yield case, f"{names}: {order} ; then {said}"
        for server, number in zip(servers, attached):
            server.detach(number)


@measured("2.RV10")
def test_an_open_right_after_the_only_server_was_killed(alone: Peer, start_peer: StartPeer) -> Answers:
    """Nobody is there any more."""
    said = []
    for _ in range(6):
        server = PathServer(start_peer())
        server.attach()
        os.kill(server.pid, signal.SIGKILL)
        said.append(alone.run(open_as, PATH))
        server.peer.kill()
    yield "2.RV10", " ".join(said)


@measured("2.RY01", "2.RY02", "2.RY03", "2.RY04", "2.RY05")
def test_the_server_that_is_asked_goes(alone: Peer, start_peer: StartPeer) -> Answers:
    """The same open goes on to the other one; it waits for one that is only stopped."""
    other = PathServer(start_peer())
    other.attach()

    def asked() -> PathServer:
        server = PathServer(start_peer())
        server.attach()
        return server

    def reached(said: str) -> str:
        return f"{said}; {'the other' if other.asked_at() else 'nobody'}"

    server = asked()
    server.behave(holds=True)
    opening = alone.start(open_as, PATH)
    server.saw_at_last()
    server.peer.kill()
    yield "2.RY01", reached(opening.result())
    server = asked()
    server.behave(exits=True)
    yield "2.RY02", reached(alone.run(open_as, PATH))
    server = asked()
    server.stop()
    Party(server.peer).make("ChannelDestroy", server.chid)
    yield "2.RY03", reached(alone.run(open_as, PATH))
    server.peer.kill()
    server = asked()
    server.peer.stop()
    opening = alone.start(open_as, PATH)
    yield "2.RY04", state(opening)
    server.peer.signal(signal.SIGCONT)
    yield "2.RY05", opening.result()


@measured("2.RY06", "2.RY07", "2.RY08", "2.RY09", "2.RY10", "2.RY11", "2.RY12")
def test_servers_of_a_path_and_of_what_lies_below(alone: Peer, start_peer: StartPeer) -> Answers:
    """The deeper path is asked first; who detaches is asked no more; who wants to be asked again is."""
    two = Two(PathServer(start_peer()), PathServer(start_peer()))
    first, second = two.both
    attached = [server.attach() for server in two.both]

    def opened(path: str = PATH) -> str:
        return f"{alone.run(open_as, path)}; {two.asked()}"

    detached = second.detach(attached[1])
    yield "2.RY06", f"{detached}; {opened().partition(' second')[0]}"
    attached[1] = second.attach()
    yield "2.RY07", f"ok; {opened()}"
    first.detach(attached[0])
    attached[0] = first.attach(flags=RESMGR_FLAG_DIR)
    deep = second.attach(PATH + "/deep")
    first.saw()
    yield "2.RY08", f"ok; {opened(PATH + '/deep')}"
    two.behave("", "ENOENT")
    said = alone.run(open_as, PATH + "/deep")
    yield "2.RY09", f"{said}; {first.saw().partition(' mode')[0]}"
    second.detach(deep)
    second.attach(PATH + "/deep", RESMGR_FLAG_OPAQUE)
    said = alone.run(open_as, PATH + "/deep")
    yield "2.RY10", f"ok; {said}; {first.saw()}"
    first.detach(attached[0])
    second.asked_at()
    second.behave(open_error=ERESTART)
    opening = alone.start(open_as, PATH)
    # It comes again and again: three times is often enough.
    count = 0
    while not opening.done and count < 3:
        count += len(second.asked_at())
    yield "2.RY11", f"{'done' if opening.done else 'blocked'}; {'many times' if count >= 3 else count}"
    second.behave()
    yield "2.RY12", opening.result()


# The server detaches, or is the client itself.


@measured("2.RX01", "2.RX02", "2.RX03", "2.RX04", "2.RX05", "2.RX07")
def test_a_server_detaches_its_path(alone: Peer, start_peer: StartPeer) -> Answers:
    """Who has it open stays connected."""
    server, client = PathServer(start_peer()), Party(alone)
    attached = server.attach()
    fd = client.make("open", PATH, os.O_RDWR)
    server.saw()
    yield "2.RX01", server.detach(attached)
    yield "2.RX02", f"{alone.run(open_as, PATH)}; {server.saw()}"
    server.behave(file_error=errno.ENOSYS)
    server.tell_bytes(True)
    said = client.told("read", fd, 4)
    seen = server.saw()
    written = client.told("write", fd, b"a")
    yield "2.RX03", f"{said}; {seen}; {written}; {client.told('close', fd)}"
    yield "2.RX04", server.saw()
    server.attach()
    yield "2.RX05", f"ok; {alone.run(open_as, PATH)}"
    server.stop()
    Party(server.peer).make("ChannelDestroy", server.chid)
    yield "2.RX07", alone.run(open_as, PATH)


def serve_oneself(qnx: Any) -> Answers:
    """Open a path of the same process."""
    chid = qnx.ChannelCreate(0)
    for name, flags in (("2.RX10", 0), ("2.RX11", RESMGR_FLAG_SELF)):
        attached = qnx.resmgr_attach(chid, PATH, 0, flags)
        opening = Task(open_as, qnx, PATH)
        seen = "(nothing)"
        if opening.is_blocked():
            found = receive(qnx, chid)
            seen = "the connect" if str(found).startswith("io 0x100/2 ") else str(found)
            qnx.MsgReply(found.rcvid, 0)
        yield name, f"{flags:#x}: {attached}; {opening.result()}; {seen}"
        qnx.resmgr_detach(attached)
    qnx.resmgr_attach(chid, PATH, 0, RESMGR_FLAG_SELF)
    opening = Task(open_as, qnx, PATH)
    yield "2.RX20", state(opening)
    found = receive(qnx, chid)
    yield "2.RX21", f"{found}; {told(qnx.MsgReply, found.rcvid, 0)}; open {opening.result()}"


@measured("2.RX10", "2.RX11", "2.RX20", "2.RX21")
def test_a_process_opens_its_own_path(alone: Peer) -> Answers:
    """If it has said that it wants to."""
    yield from played(alone, serve_oneself)


# Clients that end.


@measured("2.RV21", "2.RV22", "2.RV23")
def test_a_client_of_a_path_ends(start_peer: StartPeer) -> Answers:
    """What the server sees of it."""
    server = PathServer(start_peer(), NTO_CHF_DISCONNECT)
    server.attach()

    def client(with_side_channel: bool) -> Peer:
        peer = start_peer()
        party = Party(peer)
        party.make("open", PATH, os.O_RDWR)
        if with_side_channel:
            party.make("ConnectAttach", 0, server.pid, server.chid)
        server.saw()
        return peer

    peer = client(with_side_channel=True)
    peer.process.kill()
    yield "2.RV21", server.saw_at_last()
    peer = client(with_side_channel=False)
    peer.leave()
    yield "2.RV22", server.saw_at_last()
    peer = client(with_side_channel=False)
    server.stop()
    peer.leave()
    ended = str(End(peer))
    seen = str(Party(server.peer).peer.run(next_item, server.chid))
    yield "2.RV23", f"{ended}; {seen}"


def next_item(qnx: Any, chid: int) -> str:
    """In another process: the next item of a channel."""
    found = receive(qnx, chid)
    if found.rcvid:
        return f"io {found.io_type:x}/4 len {found.info.srcmsglen} room {found.info.dstmsglen}"
    return str(found).replace("value 0 ", "")


# A file at a path, as the first recording has it.

FILE_ERRORS = ("EPERM", "ENOENT", "ENOSYS", "EINVAL", "EBADF", "ESRCH", "ENXIO", "EROFS", "EBUSY", "errno-1")


def without_room(log: str) -> str:
    """What was seen, without the room for the answer to _IO_CONNECT."""
    return log.replace("len 41 room 2456", "len 41")


@measured(*(f"PA{case:02}" for case in (*range(1, 15), *range(20, 39))), "XQ09")
def test_a_file_at_a_path(alone: Peer, start_peer: StartPeer) -> Answers:
    """It is opened, used, lost, and taken up again by another server under the old number."""
    server, client = PathServer(start_peer(), of_paths=False), Reader(alone)
    server.attach()
    yield "PA01", "ok"
    fd = client.make("open", PATH, os.O_RDWR)
    lowest = alone.run(lowest_descriptor)
    yield "PA02", f"{'the lowest fd or so' if fd < lowest else fd}; {without_room(server.saw())}"
    yield "PA03", f"{client.told('ConnectFlags', 0, fd, 0, 0)} {client.get_flags(fd)}"
    yield "PA04", client.read(fd, 10)
    yield "PA05", client.read_into(fd, 3)
    yield "PA06", f"{client.told('write', fd, b'seven..')} {client.told('write', fd, b'')}"
    yield "PA07", client.told("lseek", fd, 5, os.SEEK_SET)
    yield "PA08", server.saw()
    copy = client.make("dup", fd)
    yield "PA09", f"{yes(copy > fd)} {client.get_flags(copy)}; {server.saw()}"
    twice = " ".join(client.told("dup2", fd, 33) for _ in range(2))
    yield "PA10", f"{twice}; {server.saw()}"
    yield "PA11", f"{client.told('close', 33)} {client.told('close', 33)}; {server.saw()}"
    server.behave(error=errno.EPERM)
    calls: Tuple[Tuple[Any, ...], ...] = (("read", fd, 1), ("write", fd, b"x"), ("lseek", fd, 0, 0), ("dup", fd))
    yield "PA12", " ".join(client.told(*call) for call in (*calls, ("close", copy)))
    server.behave()
    server.saw()
    other = client.make("open", PATH, os.O_WRONLY | os.O_CLOEXEC)
    yield "PA13", f"ok; {without_room(server.saw())}"
    yield "PA14", client.told("ConnectFlags", 0, other, 0, 0)
    client.make("close", other)
    server.saw()
    for case, name in enumerate(FILE_ERRORS, 20):
        server.behave(open_error=-1 if name == "errno-1" else error_number(name))
        yield f"PA{case}", f"{name}: {alone.run(open_as, PATH)}; {without_room(server.saw())}"
    free = alone.run(lowest_descriptor)
    yield "PA30", "no fd is lost" if free == lowest else f"{free - lowest} are lost"
    server.peer.kill()
    yield "PA31", " ".join(client.told(*call) for call in calls)
    yield "PA32", alone.run(open_as, PATH)
    server = PathServer(start_peer(), of_paths=False)
    server.attach()
    new = client.make("open", PATH, os.O_RDWR)
    yield "PA33", f"{yes(new != fd)}; {without_room(server.saw())}"
    yield "PA34", f"{named(client.told('dup2', new, fd), fd, 'the old number')}; {server.saw()}"
    yield "PA35", f"{client.told('close', new)}; {server.saw()}"
    yield "PA36", client.read(fd, 10).partition(" ")[0]
    server.peer.kill()
    server = PathServer(start_peer(), of_paths=False)
    server.attach()
    closed = client.told("close", fd)
    yield "PA37", f"{closed}, {named(client.told('open', PATH, os.O_RDWR), fd, 'the old number')}"
    yield "PA38", without_room(server.saw())
    server.peer.kill()
    yield "XQ09", alone.run(open_as, PATH)
