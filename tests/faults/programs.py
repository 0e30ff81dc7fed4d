"""Programs that chance makes up: lists of plain steps, and how the shortest one is found that still does what it did.

Plain generators with seeds, and not a state machine of hypothesis: what is compared is one program in three processes,
hundreds a second, and a process that runs a hundred of them makes each up by itself, from its number.
"""

import random
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

from ha_qnx import (
    NTO_CHF_COID_DISCONNECT,
    NTO_CHF_DISCONNECT,
    NTO_CHF_UNBLOCK,
    NTO_SIDE_CHANNEL,
)

#: The name of a call of World, and what it is called with. A fork has the steps of its child.
Step = Tuple[Any, ...]
Program = List[Step]

_SIZES = (0, 1, 4, 16, 100, 4000, 4040, 4064, 4065, 4096, 5000, 70_000)
_OFFSETS = (0, 0, 1, 3, 100, 4064, 5000, 80_000)
_PRIORITIES = (-1, 0, 1, 9, 10, 10, 63, 64, 300)
_CODES = (0, 1, 5, 63, 127, -1, -2, -128, 128, -129)
_FLAGS = (NTO_CHF_UNBLOCK, NTO_CHF_DISCONNECT, NTO_CHF_COID_DISCONNECT)


class Named(NamedTuple):
    """A program by its number, from which it is made again."""

    seed: int
    number: int

    def make(self) -> Program:
        rng = random.Random(f"{self.seed}/{self.number}")  # noqa: S311  # no secret depends on it
        return [("create", _flags(rng)), ("attach", -1, 0), *_steps(rng, rng.randrange(2, 24), _WEIGHTS)]


def _steps(rng: random.Random, count: int, weights: Dict[str, int]) -> Program:
    names = rng.choices(list(weights), list(weights.values()), k=count)
    return [(name, *_ARGUMENTS[name](rng)) for name in names]


def _which(rng: random.Random) -> int:
    """One of those there are, counted from the last one."""
    return -1 - min(int(rng.expovariate(0.7)), 9)


def _size(rng: random.Random) -> int:
    return rng.choice(_SIZES)


def _flags(rng: random.Random) -> int:
    return sum(flag for flag in _FLAGS if rng.random() < 0.3)


def _index(rng: random.Random) -> int:
    return rng.choice((NTO_SIDE_CHANNEL, NTO_SIDE_CHANNEL, 0, 0, 50, NTO_SIDE_CHANNEL | 20))


def _name(rng: random.Random) -> str:
    return rng.choice(("one", "two", "a/b", "", "a//b", "/x", ".", "..", "a\0b", "\udcff", "n" * 300))


def _attached_name(rng: random.Random) -> str:
    return rng.choice(("one", "two", "one", "two", _name(rng)))


def _forked(rng: random.Random) -> Program:
    return _steps(rng, rng.randrange(1, 6), _weights_without("fork"))


def _in_thread(rng: random.Random) -> Program:
    return _steps(rng, 1, _weights_without("fork", "in_thread"))


def _weights_without(*names: str) -> Dict[str, int]:
    return {name: weight for name, weight in _WEIGHTS.items() if name not in names}


def _recovery(rng: random.Random) -> str:
    return rng.choice(("again", "again", "refuses", "raises", "other"))


_ARGUMENTS: Dict[str, Callable[[random.Random], Sequence[Any]]] = {
    "create": lambda rng: (_flags(rng),),
    "destroy": lambda rng: (_which(rng),),
    "attach": lambda rng: (_which(rng), _index(rng)),
    "detach": lambda rng: (_which(rng),),
    "connect_flags": lambda rng: (_which(rng), rng.choice((0, 1, 1, 2, -1)), rng.choice((0, 1, 2))),
    "server_info": lambda rng: (_which(rng),),
    "pulse": lambda rng: (_which(rng), rng.choice(_PRIORITIES), rng.choice(_CODES), rng.choice((0, 1, -1))),
    "receive": lambda rng: (_which(rng), rng.choice((0, 4, 16, 64, 4000))),
    "receive_pulse": lambda rng: (_which(rng), rng.choice((0, 15, 16, 24, 64))),
    "give_up": lambda rng: (_which(rng), _size(rng)),
    "send": lambda rng: (_which(rng), _size(rng), _size(rng), _size(rng), rng.random() < 0.1),
    "read": lambda rng: (_which(rng), _size(rng), rng.choice(_OFFSETS)),
    "write": lambda rng: (_which(rng), _size(rng), rng.choice(_OFFSETS)),
    "reply": lambda rng: (_which(rng), rng.choice((0, 1, -1, 1 << 20, -(1 << 31))), _size(rng)),
    "fail": lambda rng: (_which(rng), rng.choice((0, 1, 5, 4, 3, 9, 260, 1000, -1))),
    "info": lambda rng: (_which(rng),),
    "client_info": lambda rng: (_which(rng),),
    "deliver": lambda rng: (_which(rng), _which(rng), rng.choice(_CODES)),
    "timer": lambda rng: (_which(rng), rng.choice((1, 5, 127))),
    "dup": lambda rng: (_which(rng),),
    "dup2": lambda rng: (_which(rng), _which(rng)),
    "close": lambda rng: (_which(rng),),
    "close_behind": lambda rng: (_which(rng),),
    "replace_behind": lambda rng: (_which(rng),),
    "name_attach": lambda rng: (_attached_name(rng),),
    "name_detach": lambda rng: (_which(rng),),
    "name_open": lambda rng: (_attached_name(rng),),
    "name_close": lambda rng: (_which(rng),),
    "ha_attach": lambda rng: (_which(rng), _recovery(rng)),
    "ha_detach": lambda rng: (_which(rng),),
    "ha_connect_attach": lambda rng: (_which(rng), _index(rng), _recovery(rng)),
    "ha_connect_detach": lambda rng: (_which(rng),),
    "ha_dup": lambda rng: (_which(rng),),
    "ha_control": lambda rng: (_which(rng), rng.randrange(8), rng.choice((-1, 0, 1, 5))),
    "in_thread": lambda rng: _in_thread(rng),
    "fork": lambda rng: _forked(rng),
}

_WEIGHTS = {
    **dict.fromkeys(_ARGUMENTS, 3),
    "create": 4,
    "attach": 8,
    "send": 16,
    "reply": 10,
    "fail": 4,
    "read": 5,
    "write": 5,
    "pulse": 8,
    "receive": 6,
    "destroy": 2,
    "timer": 1,
    "fork": 2,
    "give_up": 2,
    "close_behind": 1,
    "replace_behind": 1,
}


def shortest(program: Program, is_odd: Callable[[Program], bool], tries: int = 400) -> Program:
    """What is left of a program without the steps that it does not need to be odd: large parts go first."""
    length = max(1, len(program) // 2)
    while tries > 0:
        start, shorter = 0, False
        while start < len(program) and tries > 0:
            candidate = program[:start] + program[start + length :]
            tries -= 1
            if candidate and is_odd(candidate):
                program, shorter = candidate, True
            else:
                start += length
        if length == 1 and not shorter:
            break
        length = max(1, length // 2)
    return [_shorter_child(step, at, program, is_odd) for at, step in enumerate(program)]


def _shorter_child(step: Step, at: int, program: Program, is_odd: Callable[[Program], bool]) -> Step:
    """Of a fork, the child's steps."""
    if step[0] != "fork":
        return step
    before, behind = program[:at], program[at + 1 :]
    return ("fork", *shortest(list(step[1:]), lambda child: is_odd([*before, ("fork", *child), *behind]), 20))
