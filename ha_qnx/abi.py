"""The C interface of QNX's kernel calls and of libha, as data.

Every declaration that the binding uses stands here once; ``types_of`` and ``record`` turn them into what ctypes needs.
A type is a word ("rcvid", "size"). What it is in C depends on the *data model*:

* ``LP64_7``, SDP 7.x on 64 bits, also that of the C library for POSIX hosts that comes with this package;
* ``LP64_8``, SDP 8.x, where a rcvid has 64 bits;
* ``ILP32_6``, 6.x, where lengths are int and the record of a message is shorter.

``ci/abi_check.py`` compares the tables with what a C compiler makes of them, and with the record of QNX's declarations
that they were made from.
"""

import ctypes
from struct import Struct
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Type

# Which library declares a function. What libha covers is taken from there, as far as it exports it.
LIBC, LIBHA = "c", "ha"

# How a function tells of a failure.
ERRNO = "-1 and errno"
NULL = "NULL and errno"
NEGATIVE = "negative errno"
POSITIVE = "positive errno"
UNKNOWN = "positive or negative errno"


class Prototype(NamedTuple):
    """A function of the C interface."""

    library: str
    result: str
    name: str
    parameters: Tuple[Tuple[str, str], ...]
    failure: str
    variadic: bool


class Model(NamedTuple):
    """What the words are on one kind of system: ctypes types, of which those of another word size describe only."""

    name: str
    types: Mapping[str, Any]
    info: str


def _function(
    library: str,
    result: str,
    name: str,
    parameters: str,
    failure: str = ERRNO,
    r: Optional[str] = None,
    variadic: bool = False,
) -> Iterator[Prototype]:
    """A function and, if ``r`` says how that tells of a failure, its form that sets no errno."""
    pairs = [parameter.split(":") for parameter in parameters.split()]
    typed = tuple((word, kind) for word, kind in pairs)
    yield Prototype(library, result, name, typed, failure, variadic)
    if r is not None:
        yield Prototype(library, result, name + "_r", typed, r, variadic)


_SEND = "coid:int smsg:pointer sbytes:length rmsg:pointer rbytes:length"
_SENDV = "coid:int siov:iov* sparts:length riov:iov* rparts:length"
_SENDSV = "coid:int smsg:pointer sbytes:length riov:iov* rparts:length"
_SENDVS = "coid:int siov:iov* sparts:length rmsg:pointer rbytes:length"
_HA = "rfn:recovery rhdl:pointer haflags:uint"

FUNCTIONS: Tuple[Prototype, ...] = (
    # Channels and connections.
    *_function(LIBC, "int", "ChannelCreate", "flags:uint", r=NEGATIVE),
    *_function(LIBC, "int", "ChannelDestroy", "chid:int", r=POSITIVE),
    *_function(LIBC, "int", "ConnectAttach", "nd:nd pid:pid chid:int index:uint flags:int", r=NEGATIVE),
    *_function(LIBC, "int", "ConnectDetach", "coid:int", r=POSITIVE),
    *_function(LIBC, "int", "ConnectServerInfo", "pid:pid coid:int info:info*", r=NEGATIVE),
    *_function(LIBC, "int", "ConnectFlags", "pid:pid coid:int mask:uint bits:uint", r=NEGATIVE),
    *_function(LIBC, "int", "ConnectClientInfo", "scoid:int info:client* ngroups:int", r=POSITIVE),
    # Sending.
    *_function(LIBC, "status", "MsgSend", _SEND, r=NEGATIVE),
    *_function(LIBC, "status", "MsgSendnc", _SEND, r=NEGATIVE),
    *_function(LIBC, "status", "MsgSendsv", _SENDSV, r=NEGATIVE),
    *_function(LIBC, "status", "MsgSendsvnc", _SENDSV, r=NEGATIVE),
    *_function(LIBC, "status", "MsgSendvs", _SENDVS, r=NEGATIVE),
    *_function(LIBC, "status", "MsgSendvsnc", _SENDVS, r=NEGATIVE),
    *_function(LIBC, "status", "MsgSendv", _SENDV, r=NEGATIVE),
    *_function(LIBC, "status", "MsgSendvnc", _SENDV, r=NEGATIVE),
    *_function(LIBC, "int", "MsgSendPulse", "coid:int priority:int code:int value:int", r=POSITIVE),
    *_function(LIBC, "int", "MsgSendPulsePtr", "coid:int priority:int code:int value:pointer", r=POSITIVE),
    # Events that a server delivers to its clients.
    *_function(LIBC, "int", "MsgDeliverEvent", "rcvid:rcvid event:event*", r=POSITIVE),
    *_function(LIBC, "int", "MsgRegisterEvent", "event:event* coid:int"),
    *_function(LIBC, "int", "MsgUnregisterEvent", "event:event*"),
    *_function(LIBC, "int", "ionotify", "fd:int action:int flags:int event:event*"),
    # Timers. timer_create() and its kind are made of these.
    *_function(LIBC, "int", "TimerCreate", "id:int notify:event*"),
    *_function(LIBC, "int", "TimerDestroy", "id:int"),
    *_function(LIBC, "int", "TimerSettime", "id:int flags:int itime:itimer* oitime:itimer*"),
    *_function(LIBC, "int", "TimerInfo", "pid:pid id:int flags:int info:timer*"),
    *_function(LIBC, "int", "TimerTimeout", "id:int flags:int notify:event* ntime:u64* otime:u64*", r=NEGATIVE),
    # Receiving and answering.
    *_function(LIBC, "rcvid", "MsgReceive", "chid:int msg:pointer bytes:length info:info*", r=NEGATIVE),
    *_function(LIBC, "rcvid", "MsgReceivev", "chid:int riov:iov* rparts:length info:info*", r=NEGATIVE),
    *_function(LIBC, "int", "MsgReceivePulse", "chid:int pulse:pointer bytes:length info:info*", r=NEGATIVE),
    *_function(LIBC, "int", "MsgReply", "rcvid:rcvid status:status msg:pointer bytes:length", r=NEGATIVE),
    *_function(LIBC, "int", "MsgReplyv", "rcvid:rcvid status:status riov:iov* rparts:length", r=NEGATIVE),
    *_function(LIBC, "int", "MsgError", "rcvid:rcvid err:int", r=POSITIVE),
    *_function(LIBC, "count", "MsgRead", "rcvid:rcvid msg:pointer bytes:length offset:length", r=NEGATIVE),
    *_function(LIBC, "count", "MsgReadv", "rcvid:rcvid iov:iov* parts:length offset:length", r=NEGATIVE),
    *_function(LIBC, "count", "MsgWrite", "rcvid:rcvid msg:pointer bytes:length offset:length", r=NEGATIVE),
    *_function(LIBC, "count", "MsgWritev", "rcvid:rcvid iov:iov* parts:length offset:length", r=NEGATIVE),
    *_function(LIBC, "int", "MsgInfo", "rcvid:rcvid info:info*", r=POSITIVE),
    # Names.
    *_function(LIBC, "name*", "name_attach", "dpp:pointer path:string flags:uint", failure=NULL),
    *_function(LIBC, "int", "name_detach", "attach:name* flags:uint"),
    *_function(LIBC, "int", "name_open", "name:string flags:int"),
    *_function(LIBC, "int", "name_close", "coid:int"),
    # Paths. (pathmgr_link is what resmgr_attach does its work by; it is used where there is no handle for a channel.)
    *_function(LIBC, "dispatch*", "dispatch_create_channel", "chid:int flags:uint", failure=NULL),
    *_function(LIBC, "int", "dispatch_destroy", "dpp:dispatch*"),
    *_function(
        LIBC,
        "int",
        "resmgr_attach",
        "dpp:dispatch* attr:attr* path:string file_type:ftype flags:uint connect_funcs:connects* io_funcs:ios* "
        "handle:pointer",
    ),
    *_function(LIBC, "int", "resmgr_detach", "dpp:dispatch* id:int flags:uint"),
    *_function(
        LIBC,
        "int",
        "pathmgr_link",
        "path:string nd:nd pid:pid chid:int handle:uint file_type:ftype flags:uint",
    ),
    # Descriptors. A variadic function takes a mode after these, as an int, with O_CREAT.
    *_function(LIBC, "int", "open", "path:string oflag:int", variadic=True),
    *_function(LIBC, "int", "close", "fd:int"),
    *_function(LIBC, "ssize", "read", "fd:int buf:pointer nbytes:size"),
    *_function(LIBC, "ssize", "write", "fd:int buf:pointer nbytes:size"),
    *_function(LIBC, "offset", "lseek", "fd:int offset:offset whence:int"),
    *_function(LIBC, "int", "dup", "fd:int"),
    *_function(LIBC, "int", "dup2", "fd:int fd2:int"),
    # libha.
    *_function(LIBHA, "int", "ha_attach", "coid:int rfn:recovery rhdl:pointer flags:uint"),
    *_function(LIBHA, "int", "ha_detach", "coid:int"),
    *_function(LIBHA, "int", "ha_connection_ctrl", "coid:int command:int args:pointer"),
    *_function(LIBHA, "int", "ha_open", "path:string oflag:int " + _HA, variadic=True),
    *_function(LIBHA, "int", "ha_open64", "path:string oflag:int " + _HA, variadic=True),
    *_function(LIBHA, "int", "ha_reopen", "oldfd:int path:string oflag:int", variadic=True),
    *_function(LIBHA, "int", "ha_creat", "path:string mode:mode " + _HA),
    *_function(LIBHA, "int", "ha_creat64", "path:string mode:mode " + _HA),
    *_function(LIBHA, "int", "ha_ConnectAttach", "nd:nd pid:pid chid:int index:uint flags:uint " + _HA, r=NEGATIVE),
    *_function(LIBHA, "int", "ha_ConnectDetach", "coid:int", r=UNKNOWN),
    *_function(LIBHA, "int", "ha_ReConnectAttach", "oldcoid:int nd:nd pid:pid chid:int index:uint flags:uint"),
    *_function(LIBHA, "int", "ha_close", "fd:int"),
    *_function(LIBHA, "int", "ha_dup", "oldfd:int"),
)

_FIXED = {
    "int": ctypes.c_int,
    "uint": ctypes.c_uint,
    "i8": ctypes.c_int8,
    "u8": ctypes.c_uint8,
    "i16": ctypes.c_int16,
    "u16": ctypes.c_uint16,
    "i32": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "u64": ctypes.c_uint64,
    "nd": ctypes.c_uint32,
    "pid": ctypes.c_int32,
    "mode": ctypes.c_uint32,
    "ftype": ctypes.c_int,
}
_ADDRESSES = {"pointer": ctypes.c_void_p, "string": ctypes.c_char_p}
_WIDE = {
    **_FIXED,
    **_ADDRESSES,
    "length": ctypes.c_size_t,
    "size": ctypes.c_size_t,
    "ssize": ctypes.c_ssize_t,
    "count": ctypes.c_ssize_t,
    "status": ctypes.c_long,
    "offset": ctypes.c_int64,
    "rcvid": ctypes.c_int,
}
_NARROW = {
    **_FIXED,
    **_ADDRESSES,
    "length": ctypes.c_int,
    "size": ctypes.c_uint32,
    "ssize": ctypes.c_int32,
    "count": ctypes.c_int,
    "status": ctypes.c_int,
    "offset": ctypes.c_int32,
    "rcvid": ctypes.c_int,
}

LP64_7 = Model("LP64, SDP 7.x", _WIDE, "info64")
LP64_8 = Model("LP64, SDP 8.x", {**_WIDE, "rcvid": ctypes.c_int64}, "info64")
ILP32_6 = Model("ILP32, 6.x", _NARROW, "info32")
MODELS = (LP64_7, LP64_8, ILP32_6)

# What the structures of this interpreter's word size are.
HOST = LP64_7 if ctypes.sizeof(ctypes.c_void_p) == 8 else ILP32_6

# ``int (*)(int coid, void *handle)``
RecoveryCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)

# Structures: the members in order, each with its type; "3" after a type means three of them.
RECORDS: Dict[str, str] = {
    "iov": "iov_base:pointer iov_len:size",
    "pulse": "type:u16 subtype:u16 code:i8 zero:u8*3 value:sigval scoid:i32",
    "info64": "nd:u32 srcnd:u32 pid:i32 tid:i32 chid:i32 scoid:i32 coid:i32 priority:i16 flags:i16 "
    "msglen:ssize srcmsglen:ssize dstmsglen:ssize type_id:u32 reserved:u32",
    "info32": "nd:u32 srcnd:u32 pid:i32 tid:i32 chid:i32 scoid:i32 coid:i32 msglen:i32 srcmsglen:i32 dstmsglen:i32 "
    "priority:i16 flags:i16 reserved:u32",
    "cred": "ruid:i32 euid:i32 suid:i32 rgid:i32 egid:i32 sgid:i32 ngroups:u32 grouplist:i32*8",
    "client": "nd:u32 pid:i32 sid:i32 flags:u32 cred:cred",
    "name": "dpp:pointer chid:int mntid:int zero:int*2",
    # A member of a union stands for all of it: the coid also for a signal number, code and priority for what else is
    # there. On 64 bits, "zero" is what the alignment of the addresses in those unions leaves.
    # (In timer32 it is there where numbers of 64 bits are aligned to 8, and room to spare elsewhere.)
    "event64": "sigev_notify:int zero1:int sigev_coid:int zero2:int sigev_value:sigval sigev_code:i16 "
    "sigev_priority:i16 zero3:int",
    "event32": "sigev_notify:int sigev_coid:int sigev_value:sigval sigev_code:i16 sigev_priority:i16",
    "itimer": "nsec:u64 interval_nsec:u64",
    "timer64": "itime:itimer otime:itimer flags:u32 tid:i32 notify:i32 clockid:int overruns:u32 event:event64",
    "timer32": "itime:itimer otime:itimer flags:u32 tid:i32 notify:i32 clockid:int overruns:u32 event:event32 zero:u32",
}
# The one union: a number or an address.
UNIONS = {"sigval": "sival_int:int sival_ptr:pointer"}


def layout(name: str, model: Model) -> str:
    """The key in RECORDS of a structure that has one for each size of words: info, event, timer."""
    return name + model.info[-2:]


_Fields = List[Tuple[str, Any]]


def fields(name: str, model: Model, made: Optional[Dict[str, Any]] = None) -> _Fields:
    """The members of a structure or union with their ctypes types, for ``_fields_``.

    Args:
        name: a key of RECORDS or UNIONS.
        model: whose types.
        made: classes that stand for members which are structures themselves; the others are made here.
    """
    made = {} if made is None else made
    found: _Fields = []
    for member in (RECORDS.get(name) or UNIONS[name]).split():
        word, kind = member.split(":")
        kind, _times, count = kind.partition("*")
        if kind in model.types:
            found_type = _described(kind, model)
        elif kind in made:
            found_type = made[kind]
        else:
            found_type = made[kind] = record(kind, model)
        found.append((word, found_type * int(count) if count else found_type))
    return found


def _described(kind: str, model: Model) -> Any:
    """The type of a member; an address of another word size is only a number of that size."""
    if kind in _ADDRESSES and model.types["size"] is not ctypes.c_size_t:
        return model.types["size"]
    return model.types[kind]


def record(name: str, model: Model) -> Type[Any]:
    """A structure or union as a ctypes class of its own."""
    base = ctypes.Union if name in UNIONS else ctypes.Structure
    return type(name, (base,), {"_fields_": fields(name, model)})


def packing(name: str, model: Model) -> Struct:
    """A structure for the module struct: its numbers in order; of a union the first member, of an array nothing."""
    layout, end = "=", 0
    made = record(name, model)
    for member, kind in fields(name, model):
        kind = kind._fields_[0][1] if issubclass(kind, ctypes.Union) else kind
        if issubclass(kind, ctypes.Array):
            continue
        letter = {1: "b", 2: "h", 4: "i", 8: "q"}[ctypes.sizeof(kind)]
        start = getattr(made, member).offset
        layout += f"{start - end}x" + (letter.upper() if kind(-1).value > 0 else letter)
        end = start + ctypes.sizeof(kind)
    return Struct(f"{layout}{ctypes.sizeof(made) - end}x")


def types_of(function: Prototype, model: Model) -> Tuple[Any, List[Any]]:
    """The restype and the argtypes of a function; records are passed by their address."""
    return _passed(function.result, model), [_passed(kind, model) for _word, kind in function.parameters]


def _passed(kind: str, model: Model) -> Any:
    if kind == "recovery":
        return RecoveryCallback
    return ctypes.c_void_p if kind.endswith("*") else model.types[kind]


BY_NAME: Mapping[str, Prototype] = {function.name: function for function in FUNCTIONS}

#: Functions that a host has, too.
HOST_NAMES = frozenset(("open", "close", "read", "write", "lseek", "dup", "dup2"))


def posix_symbol(name: str) -> str:
    """What the library for POSIX hosts exports a function as: it must not take the place of one that the host has."""
    return f"ha_posix_{name}" if name in HOST_NAMES else name
