"""The frames of the wire, as PROTOCOL.md describes them: numbers and layouts, nothing that does anything.

All numbers are in the byte order of the host, since both ends are on it.
"""

from struct import Struct
from typing import Final, Tuple, Union

VERSION: Final = 3
MAGIC: Final = b"HAQX"

# A frame never exceeds what POSIX lets a pipe take in one piece on Linux (PIPE_BUF), so a write is all or nothing.
FRAME_MAX: Final = 4096

# Frames on the trunk, each 32 bytes long.
HELLO: Final = 1
WELCOME: Final = 2
REFUSED: Final = 3
LANE: Final = 4
EVENTS: Final = 5
PAGE: Final = 6

# Frames on a lane. A message of one of the last two kinds has a timeout that the server has to know of.
MESSAGE: Final = 16
UNBLOCK: Final = 17
PULSE: Final = 18
MESSAGE_TELL: Final = 19
MESSAGE_EXPIRED: Final = 20
REPLY: Final = 32
ERROR: Final = 33
WRITE: Final = 34
RECEIVED: Final = 35
LOOK: Final = 36
# Never on the wire: a client writes it to itself, to wake a thread whose connection another thread has detached.
DETACHED: Final = 48
# Likewise, to wake one that another thread wants to stop waiting.
INTERRUPTED: Final = 49

# What a lane carries.
LANE_MESSAGES: Final = 0
LANE_PULSES: Final = 1

TRUNK_FRAME: Final = 32
# One frame passes no more descriptors: two ends, and a window.
LANE_DESCRIPTORS: Final = 3
hello: Final = Struct("=HH4sI20x")  # kind, version, magic, 1 if a file is passed with it
welcome: Final = Struct("=HHiII16x")  # kind, version, scoid, channel flags, 1 if pages are taken
refused: Final = Struct("=HHi24x")  # kind, version spoken here, errno of the reason if it is another
lane: Final = Struct("=HHiQ16x")  # kind, what it carries, coid, size of the window (PAGE: inode of the lane's pipe)

message: Final = Struct("=HHiQQQ")  # kind, priority, tid, bytes sent, room for the reply, time
unblock: Final = Struct("=HHi24x")  # kind, 0, errno of the reason
pulse: Final = Struct("=HHiiiQI4x")  # kind, priority, code, value, coid, time, the rest of the value
reply: Final = Struct("=HHiqQ")  # kind, 0, errno, status (WRITE: offset), length

# The headers of a message and of a reply, without the time, which does not matter for a message that can be received
# at once, and without the errno, which is 0 in a plain reply.
timeless_message: Final = Struct("=HHiQQ8x")
plain_reply: Final = Struct("=H6xqQ")

MESSAGE_HEADER: Final = message.size
REPLY_HEADER: Final = reply.size
PULSE_FRAME: Final = pulse.size

# The largest message, and the largest piece of a reply, that travel inside a frame; the most room for a reply on a lane
# without a window. A pipe holds as much as that, so that who answers does not wait.
INLINE_SEND: Final = FRAME_MAX - MESSAGE_HEADER
INLINE_REPLY: Final = FRAME_MAX - REPLY_HEADER
INLINE_ROOM: Final = 8 * FRAME_MAX

# A page: words at its beginning, then a message as one frame, and an answer.
PAGE_MESSAGE: Final = FRAME_MAX
PAGE_ANSWER: Final = 2 * FRAME_MAX
PAGE_SIZE: Final = 3 * FRAME_MAX


_POINTER: Final = Struct("=Q")
_VALUE_AND_REST: Final = Struct("=iI")


def value_and_rest(value: Union[int, bytes]) -> Tuple[int, int]:
    """An address, or the value of an event, as a pulse carries it: what has the place of a number, and what follows."""
    given = _POINTER.pack(value) if isinstance(value, int) else value.ljust(_POINTER.size, b"\0")
    number, rest = _VALUE_AND_REST.unpack(given)
    return number, rest


def reply_area(sent: int) -> int:
    """Where the reply lies in a window whose message has ``sent`` bytes: behind it, on a multiple of 8."""
    return (sent + 7) & ~7
