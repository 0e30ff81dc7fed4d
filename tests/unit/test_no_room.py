"""A server whose table of descriptors is full, and pulses (D67)."""

import os
from errno import EMFILE
from typing import NoReturn

import pytest
from ha_qnx.conformance.waiting import Task
from ha_qnx.fallback.channels import Channel
from ha_qnx.fallback.kernel import SocketKernel

from ha_qnx import NTO_TIMEOUT_RECEIVE, Pulse


def test_pulses_that_find_no_room_are_refused_until_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """EAGAIN, as if too many waited; EBADF would say that the channel is gone."""
    kernel = SocketKernel()
    chid = kernel.ChannelCreate(0)
    coid = kernel.ConnectAttach(0, 0, chid)
    with monkeypatch.context() as full:
        full.setattr(Channel, "_has_room_for", lambda *_what: False)
        kernel.MsgSendPulse(coid, 10, 1, 1)  # Nobody can know yet.
        kernel.TimerTimeout(NTO_TIMEOUT_RECEIVE, 1_000_000)
        with pytest.raises(TimeoutError):
            kernel.MsgReceive(chid, bytearray(16))
        with pytest.raises(BlockingIOError):
            kernel.MsgSendPulse(coid, 10, 1, 2)
    kernel.MsgSendPulse(coid, 10, 1, 3)
    pulse = Pulse()
    assert kernel.MsgReceive(chid, pulse) == 0
    assert pulse.value.sival_int == 3
    kernel.MsgSendPulse(coid, 10, 1, 4)
    assert kernel.MsgReceive(chid, pulse) == 0
    assert pulse.value.sival_int == 4
    kernel.ConnectDetach(coid)
    kernel.ChannelDestroy(chid)


def test_a_receiver_of_pulses_waits_also_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """While another thread is in MsgReceive, it is parked, and has a turn when that leaves."""
    kernel = SocketKernel()
    chid = kernel.ChannelCreate(0)
    coid = kernel.ConnectAttach(0, 0, chid)
    kernel.MsgSendPulse(coid, 10, 1, 0)
    assert kernel.MsgReceive(chid, Pulse()) == 0
    receiving = Task(kernel.MsgReceive, chid, Pulse()).wait_until_blocked()

    def no_room() -> NoReturn:
        raise OSError(EMFILE, os.strerror(EMFILE))

    monkeypatch.setattr(os, "pipe", no_room)
    pulse = Pulse()
    parked = Task(kernel.MsgReceivePulse, chid, pulse)
    kernel.MsgSendPulse(coid, 10, 1, 1)
    assert receiving.result() == 0
    kernel.MsgSendPulse(coid, 10, 1, 2)
    parked.result()
    assert pulse.value.sival_int == 2
    kernel.ConnectDetach(coid)
    kernel.ChannelDestroy(chid)
