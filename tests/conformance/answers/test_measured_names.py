"""Names: which there can be, who finds them, and what the server is told."""

import os
from typing import Any

from ha_qnx import NAME_FLAG_ATTACH_GLOBAL, NTO_CHF_COID_DISCONNECT, MessageInfo

from ..peers import Peer
from ..servers import StartPeer
from .asking import Answers, measured
from .notation import is_side, succeeds, told, yes
from .parties import played
from .watched import Watch, Watched

#: Names, as they are written in the table, in the order in which they are attached.
NAMES = {
    "LN00": "x/",
    "LN01": "a//b",
    "LN02": ".",
    "LN03": "./x",
    "LN04": "a/.",
    "LN05": "..a",
    "LN06": "a..",
    "LN07": "a/..b",
    "LN08": "a b",
    "LN09": "ä",
    "LN10": "*",
    "LN11": "a\tb",
    "LN12": "UPPER",
    "LN13": "upper",
}
LENGTHS = {"LN20": 48, "LN21": 100, "LN22": 240, "LN23": 255, "LN24": 256, "LN25": 300}

NO_NAMES = (None, "", "/x", "a/../b", "..", "x/..")


def kind_of(said: str) -> str:
    """A number told by its kind."""
    return ("side" if is_side(int(said)) else "a descriptor") if said.isdigit() else said


def attach_and_open(qnx: Any, name: str) -> str:
    """What name_attach and name_open say to a name."""
    attached = succeeds(qnx.name_attach, name)
    return f"{attached}, {succeeds(qnx.name_open, name) if attached == 'ok' else '-'}"


def attach_names(qnx: Any) -> Answers:
    """Attach one name after the other, and open it."""
    for case, name in NAMES.items():
        yield case, f"'{name}': {attach_and_open(qnx, name)}".replace("\t", " ")
    for case, length in LENGTHS.items():
        yield case, f"{length}: {attach_and_open(qnx, 'n' * length)}"
    attached = qnx.name_attach("destroyed")
    qnx.ChannelDestroy(attached.chid)
    yield "LN30", f"{told(qnx.name_open, 'destroyed')}; {told(qnx.name_attach, 'destroyed')}"
    yield "LN31", told(qnx.name_detach, attached)
    yield "LN32", succeeds(qnx.name_attach, "destroyed")


@measured(*NAMES, *LENGTHS, "LN30", "LN31", "LN32")
def test_which_names_there_can_be(alone: Peer) -> Answers:
    """They are tidied; two that come to the same are one."""
    yield from played(alone, attach_names)


def refuse_names(qnx: Any) -> Answers:
    """Attach a name, and what cannot be attached beside it."""
    attached = qnx.name_attach("probe1")
    yield "NA01", "ok"
    yield "NA02", "positive" if attached.chid > 0 else str(attached.chid)
    yield "NA03", told(qnx.name_attach, "probe1")
    yield "NA04", str(qnx.ChannelCreate(0) - attached.chid)
    yield "NA05", " ".join(told(qnx.name_attach, name) for name in NO_NAMES)
    yield "NA06", succeeds(qnx.name_attach, "dir/probe2")
    yield "NA07", told(qnx.ChannelCreate, NTO_CHF_COID_DISCONNECT)
    yield "NA08", told(qnx.name_attach, "global", NAME_FLAG_ATTACH_GLOBAL)
    yield "NA08b", " ".join(succeeds(qnx.name_attach, f"flag{flag}", flag) for flag in (4, 0x80))
    yield "XQ10b", told(qnx.name_open, "probe1", NAME_FLAG_ATTACH_GLOBAL)
    names = ("nobody", "dir", "", None, "/x", "a/../b")
    yield "NA13", " ".join(kind_of(told(qnx.name_open, name)) for name in names)
    yield "NA14", " ".join(succeeds(qnx.name_open, name) for name in ("dir/probe2", "probe1/more", "dir/nobody"))
    yield "NA20", succeeds(qnx.name_attach, "/".join(["n" * 99] * 11))
    yield "NA21", succeeds(qnx.name_attach, "n" * 250)
    yield "NA22", succeeds(qnx.name_open, "probe1", 1)


@measured(
    *(f"NA{case}" for case in ["01", "02", "03", "04", "05", "06", "07", "08", "08b", "13", "14", "20", "21", "22"]),
    "XQ10b",
)
def test_names_that_cannot_be(alone: Peer) -> Answers:
    """What name_attach and name_open refuse, and what they take."""
    yield from played(alone, refuse_names)


def info_of(qnx: Any, coid: int) -> MessageInfo:
    """What is known about a connection."""
    info = MessageInfo()
    qnx.ConnectServerInfo(0, coid, info)
    return info


def open_an_own_name(qnx: Any) -> Answers:
    """Open a name of the same process, and close it."""
    attached = qnx.name_attach("probe1")
    server = Watch(qnx, attached.chid)
    coid = qnx.name_open("probe1")
    yield "NA09", "a side channel" if is_side(coid) else "a descriptor"
    yield "NA10", server.saw()
    info = info_of(qnx, coid)
    yield "NA11", f"{info.flags} {'the' if info.chid == attached.chid else 'no'} name's"
    other = qnx.name_open("probe1")
    for number in (coid, other):
        qnx.MsgSend(number, b"message")
    scoids = [info_of(qnx, number).scoid for number in (coid, other)]
    yield "NA12", f"{yes(coid != other)} {'equal' if scoids[0] == scoids[1] else 'differ'}"
    server.saw()
    closed = f"{told(qnx.name_close, other)} {told(qnx.name_close, other)}"
    yield "NA15", f"{closed}; {server.saw()}"
    closed = told(qnx.name_close, coid)
    yield "NA16", f"{closed}; {server.saw_at_last()}"
    coid = qnx.name_open("probe1")
    server.stop()
    yield "NA17", told(qnx.name_detach, attached)
    yield "NA18", f"{told(qnx.MsgSend, coid, b'message')} {told(qnx.name_open, 'probe1')}"
    yield "NA19", f"{succeeds(qnx.name_attach, 'probe1')} {told(qnx.MsgSend, coid, b'message')}"


@measured(*(f"NA{case:02}" for case in (9, 10, 11, 12, 15, 16, 17, 18, 19)))
def test_a_name_of_the_same_process(alone: Peer) -> Answers:
    """It is opened and closed like any other; the server is told of neither, only of the last client that goes."""
    yield from played(alone, open_an_own_name)


@measured("NP01", "NP02", "NP03", "NP04", "NP05", "NP06", "NP07", "NP08", "NP24", "NP25")
def test_a_name_of_another_process(qnx: Any, start_peer: StartPeer, name: str) -> Answers:
    """One server has it at a time, and clients reach it by name_open alone."""
    server = Watched(start_peer(), name)
    server.behave(status=9)
    yield "NP01", "ok"
    yield "NP02", told(qnx.name_attach, name)
    coid = qnx.name_open(name)
    yield "NP03", f"ok; {server.saw()}"
    yield "NP04", told(qnx.MsgSend, coid, b"message")
    yield "NP05", told(qnx.dup, coid)
    other = qnx.name_open(name)
    qnx.name_close(other)
    yield "NP06", server.saw()
    qnx.name_close(coid)
    seen = server.saw_at_last()
    coid = qnx.name_open(name)
    rest = server.saw()
    yield "NP07", seen if rest == "(nothing)" else f"{seen}; {rest}"
    opened = told(qnx.open, f"/dev/name/local/{name}", os.O_RDWR)
    yield "NP08", "a fd" if opened.isdigit() else opened
    server.peer.kill()
    yield "NP24", f"{told(qnx.name_open, name)} {succeeds(qnx.name_attach, name)}"
    yield "NP25", told(qnx.MsgSend, coid, b"message")
