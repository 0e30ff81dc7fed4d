"""Lines of the specification that no test reaches, and why: errors, channels, connections, messages, limits."""

from typing import Dict

_NO_FORM = "this project does not offer these forms: its calls raise OSError instead"
_NO_ADDRESS = "Python passes buffers, not addresses: there is no bad one to pass"
_NO_EVENT = "this project does not offer MsgDeliverEvent"
_NO_BUFFER = "no buffer can be that large"

REASONS: Dict[str, str] = {
    "B3": _NO_FORM,
    "B4": _NO_FORM,
    "B5": _NO_FORM,
    "B28": "abilities are given by QNX's process manager; its manual does not say what happens without this one",
    "B45": "a kernel without memory for its tables cannot be had without harm to everybody else",
    "B105": _NO_ADDRESS,
    "B106": _NO_ADDRESS,
    "B107": _NO_ADDRESS,
    "B108": _NO_ADDRESS,
    "B126": "this project does not offer MsgCurrent",
    "B130": "advice to servers, which says nothing of what happens to those that do not take it",
    "B132": "what the client sees is undefined",
    "B133": "holds for 6.x only, and B131 took its place",
    "B151": _NO_ADDRESS,
    "B154": "says what cannot be relied on",
    "B155": _NO_EVENT,
    "B156": _NO_EVENT,
    "B157": _NO_EVENT,
    "B346": _NO_BUFFER,
    "B347": _NO_BUFFER,
    "B349": "lengths are counted in 64 bits, which no vector that fits into memory overflows",
    "B350": "a bound of one release; here memory is the only one (D22)",
    "B352": "a vector is a sequence, and no sequence has a negative number of parts",
    "B354": "a process runs out of descriptors long before that",
}
