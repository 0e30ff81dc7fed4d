"""Who takes part: processes in which scenes are played, and calls that may be blocked there."""

import traceback
from typing import Any, Callable, List, Optional, Tuple

from ..clients import Call, transact
from ..peers import Peer, PeerError
from ..waiting import eventually
from .asking import Answers
from .notation import failed, told

Scene = Callable[..., Answers]


# Scenes in other processes.


def play(qnx: Any, scene: Scene, *args: Any) -> "Tuple[List[Tuple[str, str]], Optional[str]]":
    """In another process: all answers of a scene, and what went wrong after them."""
    answers = []
    try:
        for answer in scene(qnx, *args):
            answers.append(answer)
    except Exception:
        return answers, traceback.format_exc()
    return answers, None


def played(peer: Peer, scene: Scene, *args: Any) -> Answers:
    """The answers of a scene that is played in another process, in its main thread."""
    answers, problem = peer.run(play, scene, *args)
    yield from answers
    if problem is not None:
        raise PeerError(problem)


def make(qnx: Any, call: str, *args: Any) -> Any:
    """Make a call by its name."""
    return getattr(qnx, call)(*args)


class Party:
    """A process that makes calls, one after the other, as it is told."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.pid = peer.pid

    def make(self, call: str, *args: Any) -> Any:
        """What a call returns there."""
        return self.peer.run(make, call, *args)

    def told(self, call: str, *args: Any) -> str:
        """What a call says there."""
        return told(self.make, call, *args)

    def send(self, coid: int, message: bytes = b"message", room: int = 0) -> str:
        """The status of a message that is sent from there."""
        return outcome(self.begin(coid, message, room))

    def begin(self, coid: int, message: bytes = b"message", room: int = 0) -> Call:
        """Begin to send a message, in a thread there."""
        return self.peer.start(transact, coid, message, room)


# Calls that may be blocked.


def outcome(call: Call) -> str:
    """What a call said in the end; of a message, only the status."""
    try:
        result = call.result()
    except OSError as error:
        return failed(error)
    return str(result[0] if isinstance(result, tuple) else result)


def state(call: Call) -> str:
    """``blocked``, or what the call said."""
    return "blocked" if call.is_blocked() else outcome(call)


def said_at_last(call: Callable[[], Any]) -> str:
    """What a call says when it has become an error, or that it does not: a host may need a moment."""
    try:
        return str(eventually(lambda: told(call).startswith("-1") and told(call), "an error", 2.0))
    except AssertionError:
        return "no error"
