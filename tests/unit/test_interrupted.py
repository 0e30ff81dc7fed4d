"""What a signal handler may do at any step of a call of the fallback: it cannot wait for what it has interrupted.

The handler is called before one step of Python's own, and the call begun anew for the next step, so that nothing is
left to chance.
"""

import contextlib
import os
import sys
import threading
from errno import EBADF
from types import FrameType
from typing import Any, Callable, List, Optional

import pytest
from ha_qnx.fallback.numbers import Slots
from ha_qnx.fallback.threads import Thread, Threads

import ha_qnx
from ha_qnx import NTO_CHF_COID_DISCONNECT, NTO_CHF_DISCONNECT, NTO_TIMEOUT_RECEIVE, PULSE_CODE_DISCONNECT, Pulse
from ha_qnx.rules import Attachments
from ha_qnx.watching import Counts

_PACKAGE = os.path.dirname(ha_qnx.__file__)


def interrupted_at(step: int, call: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Make a call, and call a handler before one of its steps in the package; whether it has so many."""
    steps = 0

    def at_step(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        steps += event == "opcode"
        if steps < step:
            return at_step
        sys.settrace(None)
        above: Optional[FrameType] = frame
        while above is not None:
            above.f_trace = None
            above = above.f_back
        if steps == step:
            steps += 1
            handler()
        return None

    def at_call(frame: FrameType, _event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes = True
        return at_step

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps > step


def interrupt_everywhere(
    call: Callable[[], object], handler: Callable[[], object], then: Callable[[], object], stride: int = 1
) -> None:
    """Interrupt a call at each of its steps, or each so many; look after it every time."""
    step = 1
    while interrupted_at(step, call, handler):
        then()
        step += stride
    assert step > 1
    then()


class Station:
    """A channel of this process, what is done with it, and how things are to be afterwards."""

    def __init__(self) -> None:
        self.qnx: Any = ha_qnx.backend("fallback")
        self.chids = [self.qnx.ChannelCreate(flags) for flags in (NTO_CHF_COID_DISCONNECT, NTO_CHF_DISCONNECT)]
        self.chid = self.chids[-1]
        self.kept: List[int] = []
        self.descriptors: Optional[int] = None

    def end(self) -> None:
        for chid in self.chids:
            self.qnx.ChannelDestroy(chid)

    # What is done.

    def connect(self) -> None:
        self.qnx.ConnectDetach(self.qnx.ConnectAttach(0, 0, self.chid))

    def connect_to_descriptor(self) -> None:
        self.qnx.ConnectDetach(self.qnx.ConnectAttach(0, 0, self.chid, 0))

    def connect_for_good(self) -> None:
        self.kept.append(self.qnx.ConnectAttach(0, 0, self.chid))

    def pulse(self) -> None:
        coid = self.qnx.ConnectAttach(0, 0, self.chid)
        self.qnx.MsgSendPulse(coid, 10, 5, 6)
        self.qnx.ConnectDetach(coid)

    def receive(self) -> None:
        self.pulse()
        self._receive_until(5)

    def create(self) -> None:
        self.qnx.ChannelDestroy(self.qnx.ChannelCreate(NTO_CHF_DISCONNECT))

    def take_name(self) -> None:
        self.qnx.name_detach(self.qnx.name_attach("interrupted"))

    # How things are to be.

    def is_as_it_was(self) -> None:
        """Connections that were kept are alive, numbers the lowest that are free, and nothing was left open."""
        while self.kept:
            coid = self.kept.pop()
            self.qnx.MsgSendPulse(coid, 10, 7, 0)
            self.qnx.ConnectDetach(coid)
            assert 7 in self._received()
        self._received()
        first, second = (self.qnx.ConnectAttach(0, 0, self.chid) for _ in range(2))
        assert second == first + 1
        self.qnx.ConnectDetach(first)
        self.qnx.ConnectDetach(second)
        assert self._received() == [PULSE_CODE_DISCONNECT]
        descriptors = len(os.listdir("/dev/fd"))
        assert self.descriptors in (None, descriptors)
        self.descriptors = descriptors

    def _received(self) -> List[int]:
        """The codes of all the pulses that wait."""
        codes: List[int] = []
        try:
            while True:
                codes.append(self._receive_until(None))
        except TimeoutError:
            return codes

    def _receive_until(self, code: Optional[int]) -> int:
        pulse = Pulse()
        while True:
            self.qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 0 if code is None else 10**10)
            assert self.qnx.MsgReceive(self.chid, pulse) == 0
            if pulse.code == PULSE_CODE_DISCONNECT:
                self.qnx.ConnectDetach(pulse.scoid)
            if code in (None, pulse.code):
                return int(pulse.code)


STRIDE = 17  # One of each few steps is looked at, another one of every pair.


@pytest.mark.slow
@pytest.mark.usefixtures("shared_directory", "no_collection")
@pytest.mark.parametrize(
    ("call", "handler"),
    [
        ("connect", "connect"),
        ("connect", "connect_for_good"),
        ("connect", "create"),
        ("connect", "take_name"),
        ("connect_to_descriptor", "connect_to_descriptor"),
        ("connect_for_good", "connect"),
        ("create", "connect"),
        ("create", "create"),
        ("pulse", "pulse"),
        ("receive", "connect"),
        ("receive", "connect_for_good"),
        ("receive", "create"),
        ("take_name", "connect"),
    ],
)
def test_a_signal_handler_connects_and_creates_at_any_step(call: str, handler: str) -> None:
    """A handler finds no lock that it would have to wait for, and leaves nothing half done."""
    station = Station()
    try:
        station.connect_to_descriptor()  # What is made once, for the first of them, is made.
        station.take_name()
        station.is_as_it_was()
        interrupt_everywhere(getattr(station, call), getattr(station, handler), station.is_as_it_was, STRIDE)
    finally:
        station.end()


def test_a_signal_handler_takes_numbers_at_any_step() -> None:
    """Numbers are never given twice, nor lost, and the lowest is given first."""
    slots = Slots()
    taken: List[int] = []

    def take_some() -> None:
        taken.extend((slots.take(), slots.take()))
        if slots.take_exactly(7):
            taken.append(7)

    def all_are_there() -> None:
        assert len(set(taken)) == len(taken)
        while taken:
            slots.give_back(taken.pop())
        taken.extend(slots.take() for _ in range(10))
        assert taken == list(range(1, 11))
        while taken:
            slots.give_back(taken.pop())

    interrupt_everywhere(take_some, take_some, all_are_there)


def test_a_signal_handler_makes_the_first_call_of_its_thread() -> None:
    """A thread has one number, though a handler wants to know it while it is made; a second one is given back."""
    threads = Threads()
    seen: List[Thread] = []
    ended: List[int] = []
    threads.on_exit = ended.append

    def ask() -> None:
        seen.append(threads.local.thread)

    def there_is_one() -> None:
        last = seen.pop()
        assert all(thread is last for thread in seen)
        assert threads.known() == [last]
        assert threads.find(threading.get_ident()) is last
        assert not ended
        vars(threads.local).clear()  # As at the end of a thread.
        assert ended == [last.tid]
        assert threads.known() == []
        numbers = [threads.numbers.take() for _ in range(3)]
        assert numbers == [1, 2, 3]
        for number in numbers:
            threads.numbers.give_back(number)
        seen.clear()
        ended.clear()

    vars(threads.local).clear()
    ended.clear()
    interrupt_everywhere(ask, ask, there_is_one)


def test_a_signal_handler_fails_at_any_step_of_a_recovery() -> None:
    """One failure, one recovery: a handler whose call has failed as well recovers, or fails, and waits for nobody."""
    calls: List[int] = []
    attachments = Attachments(Counts("fallback"))

    def function(coid: int, _handle: object) -> int:
        calls.append(coid)
        return coid

    attachments.attach(5, function, None, replace=False)
    attachment = attachments.get(5)
    generation = 0

    def recover() -> None:
        attachment.recover(5, generation, OSError(EBADF, "lost"))

    def handler() -> None:
        with contextlib.suppress(OSError):  # Its call is plain, as one of the recovery function would be.
            recover()

    def once() -> None:
        nonlocal generation
        assert calls == [5]
        calls.clear()
        generation = attachment.generation

    interrupt_everywhere(recover, handler, once)
