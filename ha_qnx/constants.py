"""QNX's constants under QNX's names, without the leading underscore.

The numbers are those of QNX. Error numbers are the exception: they are the host's, so that an ``OSError`` means the
same here as everywhere else in Python; those that only QNX knows keep QNX's numbers (decision D18).
"""

import errno as _errno
import os as _os
import struct as _struct
import time as _time
from typing import Final

from .platforms import is_qnx as _is_qnx

# Channels (ChannelCreate) and the flags of a connection (ConnectAttach, ConnectFlags).
NTO_CHF_FIXED_PRIORITY: Final = 0x0001
NTO_CHF_UNBLOCK: Final = 0x0002
NTO_CHF_THREAD_DEATH: Final = 0x0004
NTO_CHF_DISCONNECT: Final = 0x0008
NTO_CHF_NET_MSG: Final = 0x0010
NTO_CHF_SENDER_LEN: Final = 0x0020
NTO_CHF_COID_DISCONNECT: Final = 0x0040
NTO_CHF_REPLY_LEN: Final = 0x0080
NTO_CHF_PRIVATE: Final = 0x1000

NTO_COF_CLOEXEC: Final = 0x0001
NTO_COF_DEAD: Final = 0x0002
NTO_COF_NOSHARE: Final = 0x0040

NTO_SIDE_CHANNEL: Final = 0x4000_0000
ND_LOCAL_NODE: Final = 0
SYSMGR_PID: Final = 1
SYSMGR_CHID: Final = 1
SYSMGR_COID: Final = NTO_SIDE_CHANNEL

# Pulses.
PULSE_TYPE: Final = 0
PULSE_SUBTYPE: Final = 0
PULSE_CODE_UNBLOCK: Final = -32
PULSE_CODE_DISCONNECT: Final = -33
PULSE_CODE_THREADDEATH: Final = -34
PULSE_CODE_COIDDEATH: Final = -35
PULSE_CODE_MINAVAIL: Final = 0
PULSE_CODE_MAXAVAIL: Final = 127

# The flags of MessageInfo.
NTO_MI_ENDIAN_BIG: Final = 0x0001
NTO_MI_ENDIAN_DIFF: Final = 0x0002
NTO_MI_UNBLOCK_REQ: Final = 0x0100

# TimerTimeout.
NTO_TIMEOUT_SEND: Final = 0x0010
NTO_TIMEOUT_RECEIVE: Final = 0x0020
NTO_TIMEOUT_REPLY: Final = 0x0040
TIMER_ABSTIME: Final = 0x8000_0000

# Timers. Clocks are the host's, like the numbers of errors; CLOCK_SOFTTIME, which only QNX has, goes like
# CLOCK_REALTIME elsewhere (decision D77).
CLOCK_REALTIME: Final[int] = _time.CLOCK_REALTIME
CLOCK_MONOTONIC: Final[int] = _time.CLOCK_MONOTONIC
CLOCK_SOFTTIME: Final[int] = 1 if _is_qnx() else _time.CLOCK_REALTIME
NTO_TI_ACTIVE: Final = 0x0001
NTO_TI_ABSOLUTE: Final = 0x0002
NTO_TI_EXPIRED: Final = 0x0004
NTO_TI_TOD_BASED: Final = 0x0008

# What an event does (SigEvent). On 64 bits, 7.x marks each of them, and so do we on hosts, which have its layouts.
_marked = 0x80 if _struct.calcsize("P") == 8 and not (_is_qnx() and _os.uname().release.startswith("8")) else 0
SIGEV_NONE: Final = 0
SIGEV_SIGNAL: Final[int] = 1 | _marked
SIGEV_PULSE: Final[int] = 4 | _marked
SIGEV_UNBLOCK: Final[int] = 5 | _marked
SIGEV_INTR: Final[int] = 6 | _marked
SIGEV_FLAG_CRITICAL: Final = 0x0100
SIGEV_PULSE_PRIO_INHERIT: Final = -1

# Names.
NAME_FLAG_ATTACH_GLOBAL: Final = 0x0002
NAME_FLAG_DETACH_SAVEDPP: Final = 0x0001

# I/O messages.
IO_CONNECT: Final = 0x100
IO_READ: Final = 0x101
IO_WRITE: Final = 0x102
IO_STAT: Final = 0x104
IO_NOTIFY: Final = 0x105
IO_DEVCTL: Final = 0x106
IO_LSEEK: Final = 0x109
IO_CHMOD: Final = 0x10A
IO_SPACE: Final = 0x110
IO_DUP: Final = 0x115
IO_CLOSE: Final = 0x116
IO_SYNC: Final = 0x119
IO_NOTIFY64: Final = 0x120
IO_BASE: Final = 0x100
IO_MAX: Final = 0x1FF
IO_CONNECT_OPEN: Final = 2
IO_XTYPE_NONE: Final = 0
IO_XTYPE_OFFSET: Final = 5
IO_XTYPE_MASK: Final = 0xFF
FTYPE_ANY: Final = 0
FTYPE_NAME: Final = 12

# Device commands (devctl): which way data goes, what kind of device, and those that libc sends by itself.
POSIX_DEVDIR_NONE: Final = 0
POSIX_DEVDIR_FROM: Final = 0x4000_0000
POSIX_DEVDIR_TO: Final = 0x8000_0000
POSIX_DEVDIR_TOFROM: Final = 0xC000_0000
DCMD_ALL: Final = 1
DCMD_CHR: Final = 3
DCMD_MISC: Final = 5
DCMD_ALL_GETFLAGS: Final = 0x4004_0101
DCMD_ALL_SETFLAGS: Final = 0x8004_0102
DCMD_CHR_ISATTY: Final = 0x0318

# Readiness (ionotify): what a server is to do, and the conditions that it is asked about. CONDE_... counts with EXTEN.
NOTIFY_ACTION_TRANARM: Final = 0
NOTIFY_ACTION_CONDARM: Final = 1
NOTIFY_ACTION_POLL: Final = 2
NOTIFY_ACTION_POLLARM: Final = 3
NOTIFY_COND_INPUT: Final = 0x1000_0000
NOTIFY_COND_OUTPUT: Final = 0x2000_0000
NOTIFY_COND_OBAND: Final = 0x4000_0000
NOTIFY_COND_EXTEN: Final = 0x8000_0000
NOTIFY_COND_MASK: Final = 0xF000_0000
NOTIFY_CONDE_RDNORM: Final = 0x0001
NOTIFY_CONDE_WRNORM: Final = 0x0002
NOTIFY_CONDE_RDBAND: Final = 0x0004
SI_NOTIFY: Final = -6

# Paths (resmgr_attach).
RESMGR_FLAG_BEFORE: Final = 0x0001
RESMGR_FLAG_AFTER: Final = 0x0002
RESMGR_FLAG_OPAQUE: Final = 0x0004
RESMGR_FLAG_FTYPEONLY: Final = 0x0008
RESMGR_FLAG_FTYPEALL: Final = 0x0010
RESMGR_FLAG_DIR: Final = 0x0100
RESMGR_FLAG_SELF: Final = 0x0200

# libha.
HAREPLACERECOVERYFN: Final = 1
HA_RECOVERY_ACOUNT: Final = 1
HA_RECOVERY_ICOUNT: Final = 2
HA_RECOVERY_SUSPEND: Final = 3
HA_RECOVERY_ENABLE: Final = 4
HA_RECOVERY_RESET_ICOUNT: Final = 5
HA_RECOVERY_RESET_ACOUNT: Final = 6

# Error numbers that QNX has and a host may lack.
EOK: Final = 0
ERESTART: Final[int] = getattr(_errno, "ERESTART", 91)
ENOREMOTE: Final[int] = getattr(_errno, "ENOREMOTE", 300)
ENONDP: Final[int] = getattr(_errno, "ENONDP", 301)
EBADFSYS: Final[int] = getattr(_errno, "EBADFSYS", 302)
ESRVRFAULT: Final[int] = getattr(_errno, "ESRVRFAULT", 312)

__all__ = [
    "CLOCK_MONOTONIC",
    "CLOCK_REALTIME",
    "CLOCK_SOFTTIME",
    "DCMD_ALL",
    "DCMD_ALL_GETFLAGS",
    "DCMD_ALL_SETFLAGS",
    "DCMD_CHR",
    "DCMD_CHR_ISATTY",
    "DCMD_MISC",
    "EBADFSYS",
    "ENONDP",
    "ENOREMOTE",
    "EOK",
    "ERESTART",
    "ESRVRFAULT",
    "FTYPE_ANY",
    "FTYPE_NAME",
    "HAREPLACERECOVERYFN",
    "HA_RECOVERY_ACOUNT",
    "HA_RECOVERY_ENABLE",
    "HA_RECOVERY_ICOUNT",
    "HA_RECOVERY_RESET_ACOUNT",
    "HA_RECOVERY_RESET_ICOUNT",
    "HA_RECOVERY_SUSPEND",
    "IO_BASE",
    "IO_CHMOD",
    "IO_CLOSE",
    "IO_CONNECT",
    "IO_CONNECT_OPEN",
    "IO_DEVCTL",
    "IO_DUP",
    "IO_LSEEK",
    "IO_MAX",
    "IO_NOTIFY",
    "IO_NOTIFY64",
    "IO_READ",
    "IO_SPACE",
    "IO_STAT",
    "IO_SYNC",
    "IO_WRITE",
    "IO_XTYPE_MASK",
    "IO_XTYPE_NONE",
    "IO_XTYPE_OFFSET",
    "NAME_FLAG_ATTACH_GLOBAL",
    "NAME_FLAG_DETACH_SAVEDPP",
    "ND_LOCAL_NODE",
    "NOTIFY_ACTION_CONDARM",
    "NOTIFY_ACTION_POLL",
    "NOTIFY_ACTION_POLLARM",
    "NOTIFY_ACTION_TRANARM",
    "NOTIFY_CONDE_RDBAND",
    "NOTIFY_CONDE_RDNORM",
    "NOTIFY_CONDE_WRNORM",
    "NOTIFY_COND_EXTEN",
    "NOTIFY_COND_INPUT",
    "NOTIFY_COND_MASK",
    "NOTIFY_COND_OBAND",
    "NOTIFY_COND_OUTPUT",
    "NTO_CHF_COID_DISCONNECT",
    "NTO_CHF_DISCONNECT",
    "NTO_CHF_FIXED_PRIORITY",
    "NTO_CHF_NET_MSG",
    "NTO_CHF_PRIVATE",
    "NTO_CHF_REPLY_LEN",
    "NTO_CHF_SENDER_LEN",
    "NTO_CHF_THREAD_DEATH",
    "NTO_CHF_UNBLOCK",
    "NTO_COF_CLOEXEC",
    "NTO_COF_DEAD",
    "NTO_COF_NOSHARE",
    "NTO_MI_ENDIAN_BIG",
    "NTO_MI_ENDIAN_DIFF",
    "NTO_MI_UNBLOCK_REQ",
    "NTO_SIDE_CHANNEL",
    "NTO_TIMEOUT_RECEIVE",
    "NTO_TIMEOUT_REPLY",
    "NTO_TIMEOUT_SEND",
    "NTO_TI_ABSOLUTE",
    "NTO_TI_ACTIVE",
    "NTO_TI_EXPIRED",
    "NTO_TI_TOD_BASED",
    "POSIX_DEVDIR_FROM",
    "POSIX_DEVDIR_NONE",
    "POSIX_DEVDIR_TO",
    "POSIX_DEVDIR_TOFROM",
    "PULSE_CODE_COIDDEATH",
    "PULSE_CODE_DISCONNECT",
    "PULSE_CODE_MAXAVAIL",
    "PULSE_CODE_MINAVAIL",
    "PULSE_CODE_THREADDEATH",
    "PULSE_CODE_UNBLOCK",
    "PULSE_SUBTYPE",
    "PULSE_TYPE",
    "RESMGR_FLAG_AFTER",
    "RESMGR_FLAG_BEFORE",
    "RESMGR_FLAG_DIR",
    "RESMGR_FLAG_FTYPEALL",
    "RESMGR_FLAG_FTYPEONLY",
    "RESMGR_FLAG_OPAQUE",
    "RESMGR_FLAG_SELF",
    "SIGEV_FLAG_CRITICAL",
    "SIGEV_INTR",
    "SIGEV_NONE",
    "SIGEV_PULSE",
    "SIGEV_PULSE_PRIO_INHERIT",
    "SIGEV_SIGNAL",
    "SIGEV_UNBLOCK",
    "SI_NOTIFY",
    "SYSMGR_CHID",
    "SYSMGR_COID",
    "SYSMGR_PID",
    "TIMER_ABSTIME",
]
