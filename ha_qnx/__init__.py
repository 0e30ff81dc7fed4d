"""QNX's client recovery library for Python.

A client gives a connection a recovery function. When the server behind the connection dies, the call that was under way
does not fail: the function reconnects under the same number, and the message is sent again.

The module's names are the calls of the default backend (see ``backend``), QNX's constants without their leading
underscores, and the structures that messages and pulses are read with. The calls are described in ``ha_qnx.kernel`` and
``ha_qnx.api``; ``help(ha_qnx.MsgSend)`` shows each.
"""

import importlib
from typing import TYPE_CHECKING, Any, List

from . import calls, constants, dcmds, events, structures
from .api import CALLS, Backend, RecoveryFunction
from .backends import BackendUnavailableError, backend, backend_name
from .constants import *  # noqa: F403  # the constants are public here, all of them
from .dcmds import *  # noqa: F403  # as above
from .events import *  # noqa: F403  # as above
from .kernel import Name
from .structures import *  # noqa: F403  # as above

#: The one place of the version: what packages and the C library, when they are built, take from this line.
__version__ = "0.1.0"

__all__ = [
    "CALLS",
    "LATER",
    "Backend",
    "BackendUnavailableError",
    "Connection",
    "Inbox",
    "Name",
    "Received",
    "RecoveryEvent",
    "RecoveryFunction",
    "Request",
    "Service",
    "Stats",
    "aio",
    "backend",
    "backend_name",
    "connect",
    "on_event",
    "stats",
    "strategies",
]
__all__ += calls.__all__
__all__ += constants.__all__
__all__ += dcmds.__all__
__all__ += events.__all__
__all__ += structures.__all__

# Where the names are that most programs do not use: their modules are loaded when they are.
_LATER = {
    "LATER": "service",
    "Connection": "connection",
    "Inbox": "inbox",
    "Received": "inbox",
    "RecoveryEvent": "watching",
    "Request": "service",
    "Service": "service",
    "Stats": "watching",
    "aio": "aio",
    "connect": "connection",
    "on_event": "watching",
    "stats": "connection",
    "strategies": "strategies",
}

if TYPE_CHECKING:
    from . import aio, strategies
    from .calls import *  # noqa: F403  # as above
    from .connection import Connection, connect, stats
    from .inbox import Inbox, Received
    from .service import LATER, Request, Service
    from .watching import RecoveryEvent, Stats, on_event
else:

    def __getattr__(name: str) -> Any:
        """Find what is loaded when it is first used: the calls, in the default backend, and the names above."""
        if name in CALLS:
            found = globals()[name] = getattr(calls, name)
            return found
        if name in _LATER:
            module = importlib.import_module(f".{_LATER[name]}", __name__)
            found = globals()[name] = module if _LATER[name] == name else getattr(module, name)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted({*globals(), *CALLS, *_LATER})
