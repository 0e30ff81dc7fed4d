"""Waiting for a server to arrive."""

import os
import pathlib
from typing import Iterator

import pytest
from ha_qnx.conformance.waiting import DEADLINE, Task

import ha_qnx
from ha_qnx.arrivals import Arrivals

pytestmark = pytest.mark.usefixtures("shared_directory")


@pytest.fixture
def arrivals() -> Iterator[Arrivals]:
    """Arrivals that see the runtime directory."""
    with Arrivals() as found:
        yield found


@pytest.mark.parametrize("name", ["one", "a/b", "n" * 300])
def test_the_host_tells_of_a_name(arrivals: Arrivals, name: str) -> None:
    """Long names lie in directories of their own, which are watched as they come."""
    assert arrivals.wakes
    before = len(os.listdir("/proc/self/fd"))
    waiting = Task(arrivals.wait, DEADLINE)
    waiting.wait_until_blocked()
    attached = ha_qnx.name_attach(name)
    waiting.result()
    ha_qnx.name_detach(attached)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_the_host_tells_of_a_channel(arrivals: Arrivals) -> None:
    """For those who connect to a process and a channel without a name."""
    waiting = Task(arrivals.wait, DEADLINE)
    waiting.wait_until_blocked()
    chid = ha_qnx.ChannelCreate()
    waiting.result()
    ha_qnx.ChannelDestroy(chid)


def test_what_arrived_before_the_wait_is_not_missed(arrivals: Arrivals) -> None:
    """A wait after that returns at once, though it may wait for an hour."""
    ha_qnx.name_detach(ha_qnx.name_attach("one"))
    Task(arrivals.wait, 3600.0).result()


def test_without_a_directory_to_watch_there_is_polling(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Before the first server has made it, or on a host without inotify."""
    monkeypatch.setenv("HA_QNX_RUNTIME", str(tmp_path / "none"))
    with Arrivals() as arrivals:
        assert not arrivals.wakes
        arrivals.wait(DEADLINE)


def test_a_host_that_has_no_room_for_a_watch_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inotify's number of users is limited: -1 is no descriptor."""
    monkeypatch.setattr("ha_qnx.arrivals._inotify", lambda: -1)
    with Arrivals() as arrivals:
        assert not arrivals.wakes
        arrivals.wait(DEADLINE)


def test_a_wait_is_never_longer_than_asked_for(arrivals: Arrivals) -> None:
    """Nothing arrives, and it ends."""
    Task(arrivals.wait, 0.01).result()
    Task(arrivals.wait, 0.0).result()


def test_nothing_stays_open(arrivals: Arrivals) -> None:
    """The descriptor goes with the context, whatever ended it."""
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="out"), Arrivals():
        raise ValueError("out")
    assert sorted(os.listdir("/proc/self/fd")) == before
