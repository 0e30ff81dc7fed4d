"""Timeouts: which calls they end, which calls end them, and what the server sees of it."""

import os
import time
from typing import Any, Callable, Dict, Optional

from ha_qnx import (
    NTO_CHF_UNBLOCK,
    NTO_TIMEOUT_RECEIVE,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    TIMER_ABSTIME,
)

from ..clients import Client, Start
from ..receiving import PULSE_SIZE, SHORT, outlast_timeouts, receive_message
from ..waiting import Task
from .asking import Answers, measured
from .ledgers import nothing_or, receive, released
from .notation import error_name, told
from .parties import outcome, state

SEND, REPLY, RECEIVE = NTO_TIMEOUT_SEND, NTO_TIMEOUT_REPLY, NTO_TIMEOUT_RECEIVE

#: A message that waits for a receiver is received in this time, in nanoseconds.
ENOUGH = 250_000_000

#: It has expired before anything else can be done.
EXPIRED = 1


def timed(call: Callable[[], str], nanoseconds: int) -> str:
    """What is said, and whether that was too soon."""
    start = time.monotonic_ns()
    said = call()
    return f"{said} {'after the time' if time.monotonic_ns() - start >= nanoseconds else 'too soon'}"


# Receiving.


def limit_receiving(qnx: Any) -> Answers:
    """Receive with each kind of limit, in a thread that has had none."""
    chid = qnx.ChannelCreate(0)

    def receiving() -> str:
        return told(qnx.MsgReceive, chid, bytearray(PULSE_SIZE))

    yield "TO01", f"{qnx.TimerTimeout(RECEIVE, SHORT)}; {receiving()}"
    qnx.TimerTimeout(RECEIVE, SHORT)
    yield "TO02", timed(receiving, SHORT).partition("ETIMEDOUT ")[2]
    for name, limit in (("TO03", None), ("TO04", 0)):
        qnx.TimerTimeout(RECEIVE, limit)
        yield name, receiving()
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, 1, 1)
    qnx.TimerTimeout(RECEIVE, None)
    yield "TO05", receiving()
    qnx.TimerTimeout(RECEIVE | TIMER_ABSTIME, time.monotonic_ns() + SHORT)
    yield "TO06", timed(receiving, SHORT - 1_000_000)
    qnx.TimerTimeout(RECEIVE | TIMER_ABSTIME, time.monotonic_ns() - SHORT)
    yield "TO07", receiving()
    qnx.TimerTimeout(RECEIVE, SHORT)
    yield "TO13", hex(qnx.TimerTimeout(0, None))
    states = (RECEIVE, SEND | REPLY, RECEIVE)
    yield "TO14", " ".join(hex(before) for before in [qnx.TimerTimeout(flags, SHORT) for flags in states][1:])
    everything = told(qnx.TimerTimeout, 2**32 - 1, SHORT)
    yield "TO15", everything if everything.startswith("-1 ") else "ok"
    qnx.TimerTimeout(0, None)


@measured("TO01", "TO02", "TO03", "TO04", "TO05", "TO06", "TO07", "TO13", "TO14", "TO15")
def test_the_wait_of_a_receiver_is_limited(qnx: Any) -> Answers:
    """By a time, by a point in time, or altogether; TimerTimeout tells what was set before."""
    yield from Task(lambda: list(limit_receiving(qnx))).result()


class Armed:
    """A thread that has a timeout for receiving, and what it does then."""

    def __init__(self, qnx: Any, chid: int) -> None:
        self.qnx = qnx
        self.other = qnx.ChannelCreate(0)
        self.own = qnx.ConnectAttach(0, 0, chid)
        self.elsewhere = qnx.ConnectAttach(0, 0, self.other)

    def create_and_destroy(self) -> None:
        self.qnx.ChannelDestroy(self.qnx.ChannelCreate(0))

    def attach_and_detach(self) -> None:
        self.qnx.ConnectDetach(self.qnx.ConnectAttach(0, 0, self.other))

    def limit_anew(self, flags: int) -> None:
        self.qnx.TimerTimeout(flags, EXPIRED)

    def pulse(self, coid: int) -> None:
        told(self.qnx.MsgSendPulse, coid, 10, 1, 1)

    def exchange(self) -> None:
        """Send a message that is answered."""
        answering = Task(lambda: released(self.qnx, receive(self.qnx, self.other).rcvid, 0))
        self.qnx.MsgSend(self.elsewhere, b"message")
        answering.result()

    def find_a_pulse(self) -> None:
        """Receive what is there already."""
        self.qnx.MsgReceive(self.other, bytearray(PULSE_SIZE))

    def write_nothing(self) -> None:
        """Write no bytes."""
        fd = os.open(os.devnull, os.O_WRONLY)
        self.qnx.write(fd, b"")
        os.close(fd)


NONE = 99_999

#: What a thread does between TimerTimeout and MsgReceive.
BETWEEN: Dict[str, Callable[[Armed], object]] = {
    "TC01": Armed.create_and_destroy,
    "TC03": lambda armed: armed.limit_anew(0),
    "TC04": lambda armed: armed.pulse(NONE),
    "TC06": lambda armed: told(armed.qnx.MsgReply, NONE, 0),
    "TC07": lambda armed: armed.qnx.ConnectServerInfo(0, armed.own),
    "TC08": lambda armed: told(armed.qnx.TimerTimeout, 1, EXPIRED),
    "TC09": lambda armed: told(armed.qnx.MsgReceive, NONE, bytearray(PULSE_SIZE)),
    "TC10": lambda armed: armed.pulse(armed.elsewhere),
    "TC11": Armed.exchange,
    "TC12": Armed.attach_and_detach,
    "TC13": lambda armed: told(armed.qnx.ConnectDetach, NONE),
    "TC14": lambda armed: armed.qnx.ConnectFlags(0, armed.own, 0, 0),
    "TC15": lambda armed: time.sleep(0.001),
    "TC16": lambda armed: time.clock_gettime(time.CLOCK_MONOTONIC),
    "TC17": Armed.create_and_destroy,
    "TC18": lambda armed: told(armed.qnx.MsgSend, NONE, b"message"),
    "TC19": Armed.find_a_pulse,
    "TC20": lambda armed: os.getpid(),
    "TC21": lambda armed: told(armed.qnx.ConnectAttach, 0, 0, NONE),
    "TC22": Armed.write_nothing,
}

#: What is limited, where it is not receiving; and where it may not wait at all.
FLAGS = {"TC00": 0, "TC02": SEND | REPLY}
AT_ONCE = ("TC17",)


def receive_after(qnx: Any, name: str, armed: Armed, chid: int) -> int:
    """Set a limit, do something else, and receive."""
    if name == "TC19":
        qnx.MsgSendPulse(armed.elsewhere, 10, 1, 1)
    between = BETWEEN.get(name)
    qnx.TimerTimeout(FLAGS.get(name, RECEIVE), None if name in AT_ONCE else EXPIRED)
    if between is not None:
        between(armed)
    return int(qnx.MsgReceive(chid, bytearray(PULSE_SIZE)))


@measured(*FLAGS, *BETWEEN)
def test_what_ends_a_timeout_before_its_call(qnx: Any, start: Start) -> Answers:
    """A call that fails, and one that could have blocked; not one that succeeds without blocking."""
    for name in sorted((*FLAGS, *BETWEEN)):
        chid = qnx.ChannelCreate(0)
        receiving = start(receive_after, qnx, name, Armed(qnx, chid), chid)
        said = state(receiving)
        yield name, "blocked for good" if said == "blocked" else said
        qnx.ChannelDestroy(chid)


# Sending.


def send_limited(qnx: Any, coid: int, flags: int, nanoseconds: Optional[int]) -> int:
    """Send a message with a timeout."""
    qnx.TimerTimeout(flags, nanoseconds)
    return int(qnx.MsgSend(coid, b"message"))


def send_timed(qnx: Any, coid: int, flags: int, nanoseconds: int) -> str:
    """The same, and whether it ended too soon."""
    return timed(lambda: told(send_limited, qnx, coid, flags, nanoseconds), nanoseconds)


@measured("TS01", "TS02", "TS03", "TS14")
def test_nobody_receives_a_message_in_time(qnx: Any, client: Client) -> Answers:
    """It is withdrawn."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    yield "TS01", client.run(send_timed, coid, SEND | REPLY, SHORT)
    yield "TS02", nothing_or(qnx, chid)
    yield "TS03", f"{told(client.run, send_limited, coid, SEND, None)}; {nothing_or(qnx, chid)}"
    yield "TS14", told(client.run, send_limited, NONE, SEND, None)


@measured("TS04", "TS05", "TS06", "TS07", "TS08", "TS09", "TS10", "TS11", "TS15")
def test_a_message_is_queued_before_it_is_received(qnx: Any, client: Client) -> Answers:
    """When the time for the answer begins, and when that for a receiver ends."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)

    def begin(flags: int, nanoseconds: Optional[int]) -> Any:
        return client.start(send_limited, coid, flags, nanoseconds).wait_until_blocked()

    call = client.start(send_limited, coid, REPLY, 0)
    yield "TS04", state(call)
    normal = client.send(coid, b"normal")
    found = receive(qnx, chid)
    yield "TS05", f"{found.data.decode()}; {outcome(call)}"
    qnx.MsgReply(found.rcvid, 0)
    normal.result()

    call = client.start(send_limited, coid, REPLY, SHORT)
    outlast_timeouts(qnx)
    yield "TS06", state(call)
    rcvid = receive_message(qnx, chid)
    outlast_timeouts(qnx)
    said = state(call)
    yield "TS07", f"{'blocked much later' if said == 'blocked' else said}; MsgReply {told(qnx.MsgReply, rcvid, 0)}"

    call = begin(SEND, ENOUGH)
    rcvid = receive_message(qnx, chid)
    outlast_timeouts(qnx, ENOUGH)
    yield "TS08", state(call)
    answered = told(qnx.MsgReply, rcvid, 3)
    yield "TS09", f"{answered}; {outcome(call)}"

    call = begin(SEND | REPLY, ENOUGH)
    rcvid = receive_message(qnx, chid)
    yield "TS10", outcome(call)
    yield "TS11", told(qnx.MsgReply, rcvid, 0)

    call = client.start(send_limited, coid, RECEIVE, SHORT)
    outlast_timeouts(qnx)
    yield "TS15", state(call)
    qnx.MsgReply(receive_message(qnx, chid), 0)
    call.result()


@measured("TS12", "TS13", "TS20", "TS21", "TS22")
def test_a_receiver_waits_for_a_message(qnx: Any, start: Start, client: Client) -> Answers:
    """Then only the time for the answer counts."""
    for name, flags, nanoseconds in (
        ("TS20", SEND, ENOUGH),
        ("TS21", REPLY, SHORT),
        ("TS22", SEND | REPLY, ENOUGH),
    ):
        chid = qnx.ChannelCreate(0)
        receiving = start(receive_message, qnx, chid).wait_until_blocked()
        call = client.start(send_limited, client.attach(chid), flags, nanoseconds)
        receiving.result()
        outlast_timeouts(qnx, nanoseconds)
        limited = {SEND: "SEND", REPLY: "REPLY"}.get(flags, "SEND|REPLY")
        yield name, f"{limited}: {state(call)}"
        qnx.ChannelDestroy(chid)
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    receiving = start(receive_message, qnx, chid).wait_until_blocked()
    call = client.start(send_limited, coid, SEND, None)
    qnx.MsgReply(receiving.result(), 8)
    yield "TS13", outcome(call)
    receiving = start(receive_message, qnx, chid).wait_until_blocked()
    said = told(client.run, send_limited, coid, REPLY, 0)
    yield "TS12", f"{said}; {'blocked' if receiving.is_blocked() else 'a message'}"
    qnx.ChannelDestroy(chid)


@measured("TS30", "TS33")
def test_a_timeout_is_for_one_call_of_one_thread(qnx: Any, client: Client) -> Answers:
    """It leaves nothing behind, neither for the server nor for other threads."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    said = told(client.run, send_limited, client.attach(chid), SEND | REPLY, SHORT)
    yield "TS30", f"{said}; {nothing_or(qnx, chid)}"
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    call = client.start(send_limited, coid, SEND | REPLY, 10 * ENOUGH)
    qnx.MsgReply(receive_message(qnx, chid), 8)
    later = client.send(coid)
    outlast_timeouts(qnx)
    yield "TS33", f"{outcome(call)}; {state(later)}"
    qnx.MsgReply(receive_message(qnx, chid), 0)
    later.result()


@measured("XR01", "XR07")
def test_the_forms_that_return_errors(qnx: Any) -> Answers:
    """They return the negative errno."""
    plain, parts = (NONE, b"message", bytearray(8)), (NONE, [b"message"], [bytearray(8)])
    calls = (
        (qnx.MsgSend_r, plain),
        (qnx.MsgSendv_r, parts),
        (qnx.MsgSendnc_r, plain),
        (qnx.MsgSendsv_r, (NONE, b"message", [bytearray(8)])),
        (qnx.MsgSendvs_r, (NONE, [b"message"], bytearray(8))),
        (qnx.MsgSendvsnc_r, (NONE, [b"message"], bytearray(8))),
    )
    yield "XR01", " ".join("-" + error_name(-call(*args)) for call, args in calls)
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    qnx.TimerTimeout(SEND | REPLY, SHORT)
    yield "XR07", "-" + error_name(-qnx.MsgSend_r(coid, b"message"))
