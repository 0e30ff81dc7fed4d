"""Readiness: what ionotify sends, and what becomes of a server's answers."""

import struct
from errno import ENOSYS
from typing import Any

from ha_qnx import (
    NOTIFY_ACTION_POLLARM,
    NOTIFY_COND_INPUT,
    SIGEV_PULSE_INIT,
    SIGEV_PULSE_PRIO_INHERIT,
    SigEvent,
)

from ..receiving import assert_nothing_waits, receive_pulse
from ..servers import Seen, Server, Start, opened
from ..test_readiness import EVENT, answer, deliver
from .asking import Answers, measured
from .notation import is_side, told, yes

VALUE = 291


def asked(seen: Seen) -> str:
    """A message as far as it is the same each time: action, flags, and what kind of event."""
    kind, length = struct.unpack_from("=HH", seen.data)
    words = " ".join(seen.data[at : at + 4].hex() for at in (4, 8, EVENT))
    return f"io {kind:x}/{length:x} len {seen.size} room {seen.room}: {words}"


@measured("2.DN01", "2.DN02", "2.DN03", "2.DN04")
def test_a_server_is_asked(qnx: Any, start: Start, server: Server) -> Answers:
    """It refuses, it says what holds, it arms the event, and it says nothing."""
    chid = qnx.ChannelCreate(0)
    event: SigEvent = SIGEV_PULSE_INIT(qnx.ConnectAttach(0, 0, chid), SIGEV_PULSE_PRIO_INHERIT, 7, VALUE)
    fd = opened(qnx, start, server)

    def ask() -> Any:
        return start(qnx.ionotify, fd, NOTIFY_ACTION_POLLARM, NOTIFY_COND_INPUT, event)

    task = ask()
    seen = server.refuse(ENOSYS)
    yield "2.DN01", f"{told(task.result)}; {asked(seen)}"
    task = ask()
    server.answer(0, answer(NOTIFY_COND_INPUT))
    yield "2.DN02", yes(task.result() == NOTIFY_COND_INPUT)
    task = ask()
    seen = server.answer(0, answer(0))
    result = task.result()
    delivered = server.peer.run(deliver, seen)
    pulse = receive_pulse(qnx, chid)
    assert_nothing_waits(qnx, chid)
    where = "side" if is_side(pulse.scoid) else pulse.scoid
    kind = f"code {pulse.code} value {pulse.value.sival_int} type {pulse.type}/{pulse.subtype} scoid {where}"
    yield "2.DN03", f"{result}; {delivered}; {kind}; nothing more"
    task = ask()
    server.answer(9)
    yield "2.DN04", yes(task.result() != -1)
