"""Waiting for a server to arrive."""

import contextlib
import os
import pathlib
import shutil
from typing import Any, Iterator

import pytest
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually
from ha_qnx.fallback.runtime import wire_directory

import ha_qnx
from ha_qnx import arrivals as arrivals_module
from ha_qnx.arrivals import Arrivals

pytestmark = pytest.mark.usefixtures("shared_directory")


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arrivals]:
    """Arrivals that see the runtime directory, and do not look by themselves."""
    monkeypatch.setattr("ha_qnx.arrivals._LOOK_AGAIN", 3600.0)
    with Arrivals() as found:
        yield found


def watching_descriptors() -> int:
    """How many descriptors of inotify are open."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum("inotify" in link for link in links)


@pytest.mark.parametrize("name", ["one", "a/b", "n" * 300])
def test_the_host_tells_of_a_name(arrivals: Arrivals, name: str) -> None:
    """Long names lie in directories of their own, which are watched as they come."""
    assert arrivals.wakes
    before = watching_descriptors()
    waiting = Task(arrivals.wait, DEADLINE)
    waiting.wait_until_blocked()
    attached = ha_qnx.name_attach(name)
    waiting.result()
    ha_qnx.name_detach(attached)
    assert watching_descriptors() == before


def test_directories_are_watched_as_they_come(arrivals: Arrivals) -> None:
    """A name in one that was made after the watch began ends a wait, too."""
    names = pathlib.Path(wire_directory()) / "names"
    (names / "made-later+").mkdir()
    Task(arrivals.wait, 3600.0).result()
    waiting = Task(arrivals.wait, DEADLINE)
    waiting.wait_until_blocked()
    (names / "made-later+" / "name").touch()
    waiting.result()


def test_a_directory_that_goes_while_it_is_about_to_be_watched_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that of a path does when its last server is gone; what comes is told all the same."""
    paths = pathlib.Path(wire_directory()) / "paths"
    (paths / "gone=").mkdir()
    add_watch = arrivals_module._add_watch

    def add_after_it_went(fd: int, directory: str) -> bool:
        if directory == str(paths / "gone="):
            (paths / "gone=").rmdir()
        return add_watch(fd, directory)

    monkeypatch.setattr("ha_qnx.arrivals._LOOK_AGAIN", 3600.0)
    monkeypatch.setattr(arrivals_module, "_add_watch", add_after_it_went)
    with Arrivals() as arrivals:
        assert arrivals.wakes
        Task(arrivals.wait, 0.0).result()
        waiting = Task(arrivals.wait, DEADLINE)
        waiting.wait_until_blocked()
        (paths / "gone=").mkdir()
        monkeypatch.undo()
        waiting.result()


def test_a_directory_that_comes_while_it_is_looked_for_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch of the one above begins before that is read, and so tells of it."""
    names = pathlib.Path(wire_directory()) / "names"
    scandir = os.scandir

    def come_afterwards(directory: str) -> Any:
        found = scandir(directory)
        if directory == str(names) and not (names / "comes+").exists():
            (names / "comes+").mkdir()
        return found

    monkeypatch.setattr("ha_qnx.arrivals._LOOK_AGAIN", 3600.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", come_afterwards)
        arrivals = Arrivals()
    with arrivals:
        Task(arrivals.wait, DEADLINE).result()
        waiting = Task(arrivals.wait, DEADLINE)
        waiting.wait_until_blocked()
        (names / "comes+" / "name").touch()
        waiting.result()


def test_a_runtime_directory_that_vanishes_is_looked_for(arrivals: Arrivals) -> None:
    """There is nothing to watch any more, so the wait is short from then on."""

    def wait() -> None:
        while arrivals.wakes:
            arrivals.wait(3600.0)
        arrivals.wait(3600.0)

    waiting = Task(wait)
    waiting.wait_until_blocked()
    shutil.rmtree(wire_directory())
    try:
        waiting.result()
    finally:
        for room in ("channels", "names", "paths"):
            os.makedirs(os.path.join(wire_directory(), room), mode=0o700, exist_ok=True)


def test_a_name_that_changes_hands_is_an_arrival(arrivals: Arrivals) -> None:
    """A successor writes into the file that a dead server has left behind."""
    file = pathlib.Path(wire_directory()) / "names" / "left-behind"
    file.touch()
    Task(arrivals.wait, 3600.0).result()
    waiting = Task(arrivals.wait, DEADLINE)
    waiting.wait_until_blocked()
    file.write_text("a new owner")
    waiting.result()


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
    before = watching_descriptors()
    with pytest.raises(ValueError, match="out"), Arrivals():
        raise ValueError("out")
    eventually(lambda: watching_descriptors() <= before, "the descriptor to be closed")
