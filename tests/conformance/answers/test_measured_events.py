"""Events that a server delivers: while its client waits, afterwards, and when the client or its connections go."""

import signal
from functools import partial
from typing import Any, List, Tuple

from ha_qnx import (
    NTO_CHF_DISCONNECT,
    NTO_CHF_UNBLOCK,
    NTO_SIDE_CHANNEL,
    SIGEV_FLAG_CRITICAL,
    SIGEV_INTR,
    SIGEV_NONE,
    SIGEV_PULSE,
    SIGEV_SIGNAL,
    SIGEV_UNBLOCK,
    SigEvent,
    SigVal,
)

from ..peers import Peer
from ..waiting import eventually
from .asking import Answers, measured
from .ledgers import nothing_or, receive
from .notation import told
from .parties import Party, outcome, state
from .test_measured_timers import cases, described, nothing_more

_SIGNAL_CODE, _SIGNAL_THREAD = SIGEV_SIGNAL + 1, SIGEV_SIGNAL + 2
#: A notify that TimerCreate takes, and MsgDeliverEvent does not.
_MEMORY = SIGEV_SIGNAL - 1 + 8
_SIGUSR1_OF_QNX = 16

_seen: List[int] = []


# What is called in the processes that take part.


def note_signals(_qnx: Any, ignored: bool = False) -> None:
    _seen.clear()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN if ignored else lambda number, _frame: _seen.append(number))


def seen_signals(_qnx: Any) -> List[int]:
    return list(_seen)


def deliver(qnx: Any, rcvid: int, notify: int, number: int = 0, *more: int) -> str:
    """Deliver an event, and say what was said, as of a form that returns its error; ``more``: priority, code, value."""
    priority, code, value = (*more, *(10, 0, 0)[len(more) :])
    event = SigEvent(notify, sigev_coid=number, sigev_value=SigVal(sival_int=value))
    event.sigev_code, event.sigev_priority = code, priority
    return told(qnx.MsgDeliverEvent, rcvid, event).replace("-1 ", "+")


def take_message(qnx: Any, chid: int) -> int:
    return receive(qnx, chid).rcvid


def take_pulses(qnx: Any, chid: int, count: int) -> str:
    """So many pulses, and whether there is anything more."""
    return "; ".join([*(described(qnx, receive(qnx, chid).pulse) for _ in range(count)), nothing_more(qnx, chid)])


class Scene:
    """A server, and a client with a channel of its own."""

    def __init__(self, client: Peer, server: Peer, flags: int = 0) -> None:
        self.client, self.server = Party(client), Party(server)
        self.chid = self.server.make("ChannelCreate", flags)
        self.coid = self.connect()
        self.mine = self.client.make("ChannelCreate", 0)
        self.own = self.client.make("ConnectAttach", 0, 0, self.mine)

    def connect(self, index: int = NTO_SIDE_CHANNEL) -> int:
        """Another connection of the client to the server."""
        return int(self.client.make("ConnectAttach", 0, self.server.pid, self.chid, index))

    def send(self, coid: int = -1) -> Tuple[Any, int]:
        """A message of the client, which waits for its answer: the call, and its rcvid."""
        call = self.client.begin(self.coid if coid < 0 else coid)
        return call, self.server.peer.run(take_message, self.chid)

    def answered(self, coid: int = -1) -> int:
        """The rcvid of a message that was answered, and whose thread has ended."""
        call, rcvid = self.send(coid)
        self.server.make("MsgReply", rcvid, 0)
        assert outcome(call) == "0"
        return rcvid

    def deliver(self, rcvid: int, notify: int, number: int = 0, *more: int) -> str:
        return str(self.server.peer.run(deliver, rcvid, notify, number, *more))

    def pulse(self, rcvid: int, coid: int, *more: int) -> str:
        return self.deliver(rcvid, SIGEV_PULSE, coid, *more)

    def received(self, count: int) -> str:
        return str(self.client.peer.run(take_pulses, self.mine, count))

    def log(self) -> str:
        """What waits at the server."""
        return str(self.server.peer.run(nothing_or, self.chid)).replace(" value 8 ", " ")


@cases("EV01", "EV02", "EV03", "EV04", "EV05", "EV06", "EV07", "EV08")
def test_a_pulse_is_delivered_to_a_connection_of_the_client(alone: Peer, other: Peer) -> Answers:
    """With what the event says; or the server is told why not."""
    scene = Scene(alone, other)
    call, rcvid = scene.send()
    low = scene.client.make("ConnectAttach", 0, 0, scene.mine, 0)
    yield "2.EV01", f"{scene.pulse(rcvid, scene.own, 12, 6, 42)}; {scene.received(1)}"
    yield "2.EV02", f"{scene.pulse(rcvid, low, 10, 7, 43)}; {scene.received(1)}"
    yield "2.EV03", f"{scene.pulse(rcvid, scene.own + 77, 10, 7, 43)}; {scene.received(0)}"
    said = scene.pulse(rcvid, scene.coid, 10, 8, 8)
    yield "2.EV04", f"{said}; {scene.received(0)}; {scene.log()}"
    said = " ".join(scene.pulse(rcvid, scene.own, 10, code, place) for place, code in enumerate((-1, -64, -128), 1))
    yield "2.EV05", f"{said}; {scene.received(3)}"
    said = " ".join(scene.pulse(rcvid, scene.own, level, 1, place) for place, level in enumerate((0, 200, 300), 1))
    yield "2.EV06", f"{said}; {scene.received(2)}"
    yield "2.EV07", " ".join(scene.pulse(bad, scene.own, 10, 1, 1) for bad in (0x10001, -1))
    kinds = (SIGEV_NONE, _MEMORY, 99, SIGEV_PULSE | SIGEV_FLAG_CRITICAL)
    said = " ".join(scene.deliver(rcvid, kind, scene.own, 10, 1, 1) for kind in kinds)
    yield "2.EV08", f"{said}; {scene.received(1)}"
    scene.server.make("MsgReply", rcvid, 0)
    outcome(call)


@cases("EV10", "EV11", "EV12", "EV13", "EV14")
def test_the_event_of_a_client_that_waits_frees_it_where_it_says_so(alone: Peer, other: Peer) -> Answers:
    """By a pulse to the server, which has asked for that; other pulses are delivered before and after its answer."""
    scene = Scene(alone, other, NTO_CHF_UNBLOCK)
    call, rcvid = scene.send()
    yield "2.EV10", f"{scene.pulse(rcvid, scene.own, 10, 5, 5)}; {scene.received(1)}; {state(call)}"
    said = scene.deliver(rcvid, SIGEV_UNBLOCK)
    log = scene.log().replace(f" value {rcvid}", "")
    yield "2.EV11", f"{said}; {state(call)}; {log}"
    yield "2.EV12", f"{scene.server.told('MsgReply', rcvid, 17)}; {outcome(call)}"
    yield "2.EV13", f"{scene.pulse(rcvid, scene.own, 10, 6, 6)}; {scene.received(1)}"
    yield "2.EV14", f"{scene.pulse(rcvid, scene.own, 10, 6, 7)}; {scene.received(1)}"


@cases("EV20", "EV21", "EV22", "EV24", "EV25")
def test_a_client_is_freed_whose_server_does_not_hear_of_it(alone: Peer, other: Peer) -> Answers:
    """Its call fails, and nobody is left to answer."""
    scene = Scene(alone, other)
    call, rcvid = scene.send()
    yield "2.EV20", state(call)
    yield "2.EV21", scene.deliver(rcvid, SIGEV_UNBLOCK)
    yield "2.EV22", outcome(call)
    yield "2.EV24", scene.server.told("MsgReply", rcvid, 0).replace("-1 ", "-")
    yield "2.EV25", f"{scene.deliver(rcvid, SIGEV_UNBLOCK)} {scene.deliver(rcvid, SIGEV_INTR)}"


@cases("EI01")
def test_an_event_for_interruptwait_is_taken(alone: Peer, other: Peer) -> Answers:
    """Though there is nobody in that call here."""
    scene = Scene(alone, other)
    call, rcvid = scene.send()
    yield "2.EI01", scene.deliver(rcvid, SIGEV_INTR)
    scene.server.make("MsgReply", rcvid, 0)
    outcome(call)


@cases("EV50", "EV51")
def test_the_channel_of_an_event_has_gone(alone: Peer, other: Peer) -> Answers:
    """The server is told so; and priorities have 8 bits."""
    scene = Scene(alone, other)
    rcvid = scene.answered()
    chid = scene.client.make("ChannelCreate", 0)
    coid = scene.client.make("ConnectAttach", 0, 0, chid)
    scene.client.make("ChannelDestroy", chid)
    yield "2.EV50", scene.pulse(rcvid, coid, 10, 1, 1)
    said = scene.deliver(rcvid, SIGEV_PULSE | SIGEV_FLAG_CRITICAL, scene.own, -2, 1, (1 << 31) - 1)
    yield "2.EV51", f"{said}; {scene.received(1)}"


@cases("EV52", "EV53", "EV54", "EV55", "EV56", "EV57")
def test_an_event_is_a_signal_to_the_client(alone: Peer, other: Peer) -> Answers:
    """Its handler runs, or it is ignored; numbers and codes that there are none of are refused."""
    scene = Scene(alone, other)
    call, rcvid = scene.send()
    for case, kind, code in (("EV52", SIGEV_SIGNAL, 0), ("EV53", _SIGNAL_CODE, -5), ("EV54", _SIGNAL_THREAD, -5)):
        scene.client.peer.run(note_signals)
        said = scene.deliver(rcvid, kind, signal.SIGUSR1, 0, code)
        eventually(partial(scene.client.peer.run, seen_signals), "a signal")
        (number,) = scene.client.peer.run(seen_signals)
        yield f"2.{case}", f"{said}; {_SIGUSR1_OF_QNX if number == signal.SIGUSR1 else number}"
    yield "2.EV55", " ".join(scene.deliver(rcvid, SIGEV_SIGNAL, number) for number in (0, 99, -1))
    kinds = (_SIGNAL_CODE, _SIGNAL_THREAD)
    yield "2.EV56", " ".join(scene.deliver(rcvid, kind, signal.SIGUSR1, 0, 1) for kind in kinds)
    scene.client.peer.run(note_signals, True)
    yield "2.EV57", scene.deliver(rcvid, SIGEV_SIGNAL, signal.SIGUSR1)
    scene.server.make("MsgReply", rcvid, 0)
    outcome(call)


@cases("EV60", "EV61", "EV62")
def test_an_event_comes_as_long_as_a_connection_is_left(alone: Peer, other: Peer) -> Answers:
    """Be it another one than that of the message; after the last one, a new one does not help."""
    scene = Scene(alone, other, NTO_CHF_DISCONNECT)
    second = scene.connect()
    rcvid = scene.answered(second)
    yield "2.EV60", f"{scene.pulse(rcvid, scene.own, 10, 1, 1)}; {scene.received(1)}"
    scene.client.make("ConnectDetach", second)
    yield "2.EV61", f"{scene.pulse(rcvid, scene.own, 10, 1, 2)}; {scene.received(1)}"
    scene.client.make("ConnectDetach", scene.coid)
    scene.coid = scene.connect()
    said = scene.pulse(rcvid, scene.own, 10, 1, 3)
    log = scene.log().replace(" value 0", "")
    yield "2.EV62", f"{said}; {scene.received(0)}; {log}"


@cases("EP02", "EP03", "EP04")
def test_an_event_does_not_reach_a_client_that_was_killed(alone: Peer, other: Peer) -> Answers:
    """It did as long as that lived."""
    scene = Scene(alone, other, NTO_CHF_DISCONNECT)
    rcvid = scene.answered()
    yield "2.EP02", scene.pulse(rcvid, scene.own, 10, 6, 66)
    _word, code, _word, value, *_rest = scene.received(1).split()
    yield "2.EP03", f"{code} {value}"
    alone.kill()
    eventually(lambda: scene.pulse(rcvid, scene.own, 10, 6, 67) != "0", "an end of the client")
    said = scene.pulse(rcvid, scene.own, 10, 6, 67)
    log = scene.log().replace(" value 0", "")
    yield "2.EP04", f"{said}; {log}"


@measured("QX02", "QX04", "QX05", "QX06", "QX07")
def test_an_event_acts_before_the_answer_and_after_it(alone: Peer, other: Peer) -> Answers:
    """What it is for may be missing, or the message never have been."""
    scene = Scene(alone, other)
    call, rcvid = scene.send()
    said = scene.pulse(rcvid, scene.own, 10, 7, 55)
    yield "QX02", f"{said}; {scene.client.peer.run(nothing_or, scene.mine)}"
    scene.server.make("MsgReply", rcvid, 0)
    outcome(call)
    said = scene.pulse(rcvid, scene.own, 10, 7, 55)
    yield "QX04", f"{said}; {scene.client.peer.run(nothing_or, scene.mine)}"
    yield "QX05", scene.pulse(rcvid, scene.own + 77, 10, 7, 55).replace("+", "-1 ")
    chid = scene.client.make("ChannelCreate", 0)
    gone = scene.client.make("ConnectAttach", 0, 0, chid)
    scene.client.make("ChannelDestroy", chid)
    yield "QX06", scene.pulse(rcvid, gone, 10, 7, 55).replace("+", "-1 ")
    yield "QX07", scene.pulse(12345, scene.own, 10, 7, 55).replace("+", "-1 ")
