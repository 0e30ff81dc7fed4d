"""Lines of the specification that no test checks, and why.

A reason says in a few words what keeps any test from telling whether the line holds. ``ci/coverage.py`` sees to it that
every line has either tests or a reason, and not both.
"""

from typing import Dict, Tuple

#: The reasons that will no longer hold one day.
LATER: Tuple[str, ...] = ()

REASONS: Dict[str, Tuple[str, ...]] = {
    # Calls, forms and arguments that this project does not offer.
    "this project does not offer these forms: its calls raise OSError instead": ("B3", "B4", "B5"),
    "this project does not offer MsgCurrent": ("B126",),
    "TimerTimeout returns no remaining time here, and nanosleep is none of the calls": ("B224",),
    "QNX's spawn is no call of this interface": ("B282",),
    "QNX's resource manager library is no part of this interface": ("B343", "B417"),
    "this project offers none of these calls yet": ("B432",),
    "a Service does so, which is above these calls: tests/unit/test_notifying.py": ("B495", "B496"),
    "select and poll are the host's; under the drop-in, tests/unit/test_readiness.py has them": (
        "B497",
        "B498",
        "D112",
        "D138",
    ),
    "a Service is above these calls: tests/unit/test_notifying.py": ("D113",),
    "what the host says of its own files": ("D114",),
    "asyncio's own, whatever its tasks wait for: tests/unit/test_aio.py": ("D139",),
    "an Inbox is above these calls: tests/unit/test_inbox.py": ("D115",),
    # What Python does not let a program do.
    "Python passes buffers, not addresses: there is no bad one to pass": ("B105", "B106", "B107", "B108", "B151"),
    "Python cancels no threads": ("B268",),
    "no buffer can be that large": ("B346", "B347"),
    "lengths are counted in 64 bits, which no vector that fits into memory overflows": ("B349",),
    "a vector is a sequence, and no sequence has a negative number of parts": ("B352",),
    "how C programs are linked; a Python program gets the covers from the backend that it asks for": ("B405",),
    # What cannot be brought about, or not without harm.
    "a kernel without memory for its tables cannot be had without harm to everybody else": ("B45",),
    "needs a server whose kernel has no memory left for a pulse": ("B193",),
    "needs processes of two users, and the right to be both": ("B249", "B418"),
    "a process runs out of descriptors long before that": ("B354",),
    "a moment in the death of a server that no test can hit at will; D15 says that it is not imitated": ("B167",),
    "a moment in the death of a server that no test can hit at will": ("B251",),
    "needs a client that breaks the rules of the wire, which no public call does: tests/faults has some": (
        "D67",
        "D68",
        "D69",
    ),
    "fills a pipe and leaves it so; a client that shares no trunk is no client of QNX's": ("D92",),
    "takes more clients than a suite should start: tests/unit/test_backlog.py": ("D126",),
    "what connections, not the calls, promise: tests/unit/test_deadlines.py": ("D125",),
    "takes all descriptors of a process from it: tests/unit/test_closed_behind.py": ("D120",),
    "decided by the environment of the suite: ci/test --all runs it so, and tests/unit/test_spinning.py": ("D110",),
    "decided by the environment of the suite: ci/test --all runs it so, and tests/unit/test_pages.py": ("D116",),
    # Lines that promise nothing.
    "abilities are given by QNX's process manager; its manual does not say what happens without this one": ("B28",),
    "advice to servers, which says nothing of what happens to those that do not take it": ("B130",),
    "what the client sees is undefined": ("B132",),
    "a use that QNX does not support, so that there is no outcome to expect": ("B161",),
    "which release of QNX has a libha is nothing that a program could check": ("B404",),
    # Lines that hold elsewhere, or that were decided otherwise.
    "no bound was met on QNX, and here memory is the only one (D22)": ("B350",),
}

#: What is left of lines that have tests.
PARTS: Dict[str, Tuple[str, ...]] = {}
