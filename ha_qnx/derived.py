"""What backends have beside their own calls, as far as it follows from other lists.

Made by `python ci/interface.py`, from the contracts, the constants and the structures. It is not to be edited.
"""

from typing import ClassVar, Protocol, Type

from . import constants, kernel, structures
from .kernel import Kernel

__all__ = ["PlainCalls", "Vocabulary"]


class Vocabulary(Protocol):
    """QNX's constants, and the structures that messages and pulses are read with, as attributes of a backend."""

    CLOCK_MONOTONIC: ClassVar[int] = constants.CLOCK_MONOTONIC
    CLOCK_REALTIME: ClassVar[int] = constants.CLOCK_REALTIME
    CLOCK_SOFTTIME: ClassVar[int] = constants.CLOCK_SOFTTIME
    DCMD_ALL: ClassVar[int] = constants.DCMD_ALL
    DCMD_ALL_GETFLAGS: ClassVar[int] = constants.DCMD_ALL_GETFLAGS
    DCMD_ALL_SETFLAGS: ClassVar[int] = constants.DCMD_ALL_SETFLAGS
    DCMD_CHR: ClassVar[int] = constants.DCMD_CHR
    DCMD_CHR_ISATTY: ClassVar[int] = constants.DCMD_CHR_ISATTY
    DCMD_MISC: ClassVar[int] = constants.DCMD_MISC
    EBADFSYS: ClassVar[int] = constants.EBADFSYS
    ENONDP: ClassVar[int] = constants.ENONDP
    ENOREMOTE: ClassVar[int] = constants.ENOREMOTE
    EOK: ClassVar[int] = constants.EOK
    ERESTART: ClassVar[int] = constants.ERESTART
    ESRVRFAULT: ClassVar[int] = constants.ESRVRFAULT
    FTYPE_ANY: ClassVar[int] = constants.FTYPE_ANY
    FTYPE_NAME: ClassVar[int] = constants.FTYPE_NAME
    HAREPLACERECOVERYFN: ClassVar[int] = constants.HAREPLACERECOVERYFN
    HA_RECOVERY_ACOUNT: ClassVar[int] = constants.HA_RECOVERY_ACOUNT
    HA_RECOVERY_ENABLE: ClassVar[int] = constants.HA_RECOVERY_ENABLE
    HA_RECOVERY_ICOUNT: ClassVar[int] = constants.HA_RECOVERY_ICOUNT
    HA_RECOVERY_RESET_ACOUNT: ClassVar[int] = constants.HA_RECOVERY_RESET_ACOUNT
    HA_RECOVERY_RESET_ICOUNT: ClassVar[int] = constants.HA_RECOVERY_RESET_ICOUNT
    HA_RECOVERY_SUSPEND: ClassVar[int] = constants.HA_RECOVERY_SUSPEND
    IO_BASE: ClassVar[int] = constants.IO_BASE
    IO_CHMOD: ClassVar[int] = constants.IO_CHMOD
    IO_CLOSE: ClassVar[int] = constants.IO_CLOSE
    IO_CONNECT: ClassVar[int] = constants.IO_CONNECT
    IO_CONNECT_OPEN: ClassVar[int] = constants.IO_CONNECT_OPEN
    IO_DEVCTL: ClassVar[int] = constants.IO_DEVCTL
    IO_DUP: ClassVar[int] = constants.IO_DUP
    IO_LSEEK: ClassVar[int] = constants.IO_LSEEK
    IO_MAX: ClassVar[int] = constants.IO_MAX
    IO_NOTIFY: ClassVar[int] = constants.IO_NOTIFY
    IO_NOTIFY64: ClassVar[int] = constants.IO_NOTIFY64
    IO_READ: ClassVar[int] = constants.IO_READ
    IO_SPACE: ClassVar[int] = constants.IO_SPACE
    IO_STAT: ClassVar[int] = constants.IO_STAT
    IO_SYNC: ClassVar[int] = constants.IO_SYNC
    IO_WRITE: ClassVar[int] = constants.IO_WRITE
    IO_XTYPE_MASK: ClassVar[int] = constants.IO_XTYPE_MASK
    IO_XTYPE_NONE: ClassVar[int] = constants.IO_XTYPE_NONE
    IO_XTYPE_OFFSET: ClassVar[int] = constants.IO_XTYPE_OFFSET
    NAME_FLAG_ATTACH_GLOBAL: ClassVar[int] = constants.NAME_FLAG_ATTACH_GLOBAL
    NAME_FLAG_DETACH_SAVEDPP: ClassVar[int] = constants.NAME_FLAG_DETACH_SAVEDPP
    ND_LOCAL_NODE: ClassVar[int] = constants.ND_LOCAL_NODE
    NOTIFY_ACTION_CONDARM: ClassVar[int] = constants.NOTIFY_ACTION_CONDARM
    NOTIFY_ACTION_POLL: ClassVar[int] = constants.NOTIFY_ACTION_POLL
    NOTIFY_ACTION_POLLARM: ClassVar[int] = constants.NOTIFY_ACTION_POLLARM
    NOTIFY_ACTION_TRANARM: ClassVar[int] = constants.NOTIFY_ACTION_TRANARM
    NOTIFY_CONDE_RDBAND: ClassVar[int] = constants.NOTIFY_CONDE_RDBAND
    NOTIFY_CONDE_RDNORM: ClassVar[int] = constants.NOTIFY_CONDE_RDNORM
    NOTIFY_CONDE_WRNORM: ClassVar[int] = constants.NOTIFY_CONDE_WRNORM
    NOTIFY_COND_EXTEN: ClassVar[int] = constants.NOTIFY_COND_EXTEN
    NOTIFY_COND_INPUT: ClassVar[int] = constants.NOTIFY_COND_INPUT
    NOTIFY_COND_MASK: ClassVar[int] = constants.NOTIFY_COND_MASK
    NOTIFY_COND_OBAND: ClassVar[int] = constants.NOTIFY_COND_OBAND
    NOTIFY_COND_OUTPUT: ClassVar[int] = constants.NOTIFY_COND_OUTPUT
    NTO_CHF_COID_DISCONNECT: ClassVar[int] = constants.NTO_CHF_COID_DISCONNECT
    NTO_CHF_DISCONNECT: ClassVar[int] = constants.NTO_CHF_DISCONNECT
    NTO_CHF_FIXED_PRIORITY: ClassVar[int] = constants.NTO_CHF_FIXED_PRIORITY
    NTO_CHF_NET_MSG: ClassVar[int] = constants.NTO_CHF_NET_MSG
    NTO_CHF_PRIVATE: ClassVar[int] = constants.NTO_CHF_PRIVATE
    NTO_CHF_REPLY_LEN: ClassVar[int] = constants.NTO_CHF_REPLY_LEN
    NTO_CHF_SENDER_LEN: ClassVar[int] = constants.NTO_CHF_SENDER_LEN
    NTO_CHF_THREAD_DEATH: ClassVar[int] = constants.NTO_CHF_THREAD_DEATH
    NTO_CHF_UNBLOCK: ClassVar[int] = constants.NTO_CHF_UNBLOCK
    NTO_COF_CLOEXEC: ClassVar[int] = constants.NTO_COF_CLOEXEC
    NTO_COF_DEAD: ClassVar[int] = constants.NTO_COF_DEAD
    NTO_COF_NOSHARE: ClassVar[int] = constants.NTO_COF_NOSHARE
    NTO_MI_ENDIAN_BIG: ClassVar[int] = constants.NTO_MI_ENDIAN_BIG
    NTO_MI_ENDIAN_DIFF: ClassVar[int] = constants.NTO_MI_ENDIAN_DIFF
    NTO_MI_UNBLOCK_REQ: ClassVar[int] = constants.NTO_MI_UNBLOCK_REQ
    NTO_SIDE_CHANNEL: ClassVar[int] = constants.NTO_SIDE_CHANNEL
    NTO_TIMEOUT_RECEIVE: ClassVar[int] = constants.NTO_TIMEOUT_RECEIVE
    NTO_TIMEOUT_REPLY: ClassVar[int] = constants.NTO_TIMEOUT_REPLY
    NTO_TIMEOUT_SEND: ClassVar[int] = constants.NTO_TIMEOUT_SEND
    NTO_TI_ABSOLUTE: ClassVar[int] = constants.NTO_TI_ABSOLUTE
    NTO_TI_ACTIVE: ClassVar[int] = constants.NTO_TI_ACTIVE
    NTO_TI_EXPIRED: ClassVar[int] = constants.NTO_TI_EXPIRED
    NTO_TI_TOD_BASED: ClassVar[int] = constants.NTO_TI_TOD_BASED
    POSIX_DEVDIR_FROM: ClassVar[int] = constants.POSIX_DEVDIR_FROM
    POSIX_DEVDIR_NONE: ClassVar[int] = constants.POSIX_DEVDIR_NONE
    POSIX_DEVDIR_TO: ClassVar[int] = constants.POSIX_DEVDIR_TO
    POSIX_DEVDIR_TOFROM: ClassVar[int] = constants.POSIX_DEVDIR_TOFROM
    PULSE_CODE_COIDDEATH: ClassVar[int] = constants.PULSE_CODE_COIDDEATH
    PULSE_CODE_DISCONNECT: ClassVar[int] = constants.PULSE_CODE_DISCONNECT
    PULSE_CODE_MAXAVAIL: ClassVar[int] = constants.PULSE_CODE_MAXAVAIL
    PULSE_CODE_MINAVAIL: ClassVar[int] = constants.PULSE_CODE_MINAVAIL
    PULSE_CODE_THREADDEATH: ClassVar[int] = constants.PULSE_CODE_THREADDEATH
    PULSE_CODE_UNBLOCK: ClassVar[int] = constants.PULSE_CODE_UNBLOCK
    PULSE_SUBTYPE: ClassVar[int] = constants.PULSE_SUBTYPE
    PULSE_TYPE: ClassVar[int] = constants.PULSE_TYPE
    RESMGR_FLAG_AFTER: ClassVar[int] = constants.RESMGR_FLAG_AFTER
    RESMGR_FLAG_BEFORE: ClassVar[int] = constants.RESMGR_FLAG_BEFORE
    RESMGR_FLAG_DIR: ClassVar[int] = constants.RESMGR_FLAG_DIR
    RESMGR_FLAG_FTYPEALL: ClassVar[int] = constants.RESMGR_FLAG_FTYPEALL
    RESMGR_FLAG_FTYPEONLY: ClassVar[int] = constants.RESMGR_FLAG_FTYPEONLY
    RESMGR_FLAG_OPAQUE: ClassVar[int] = constants.RESMGR_FLAG_OPAQUE
    RESMGR_FLAG_SELF: ClassVar[int] = constants.RESMGR_FLAG_SELF
    SIGEV_FLAG_CRITICAL: ClassVar[int] = constants.SIGEV_FLAG_CRITICAL
    SIGEV_INTR: ClassVar[int] = constants.SIGEV_INTR
    SIGEV_NONE: ClassVar[int] = constants.SIGEV_NONE
    SIGEV_PULSE: ClassVar[int] = constants.SIGEV_PULSE
    SIGEV_PULSE_PRIO_INHERIT: ClassVar[int] = constants.SIGEV_PULSE_PRIO_INHERIT
    SIGEV_SIGNAL: ClassVar[int] = constants.SIGEV_SIGNAL
    SIGEV_UNBLOCK: ClassVar[int] = constants.SIGEV_UNBLOCK
    SI_NOTIFY: ClassVar[int] = constants.SI_NOTIFY
    SYSMGR_CHID: ClassVar[int] = constants.SYSMGR_CHID
    SYSMGR_COID: ClassVar[int] = constants.SYSMGR_COID
    SYSMGR_PID: ClassVar[int] = constants.SYSMGR_PID
    TIMER_ABSTIME: ClassVar[int] = constants.TIMER_ABSTIME
    ClientInfo: ClassVar[Type[structures.ClientInfo]] = structures.ClientInfo
    Credentials: ClassVar[Type[structures.Credentials]] = structures.Credentials
    Itimer: ClassVar[Type[structures.Itimer]] = structures.Itimer
    Itimerspec: ClassVar[Type[structures.Itimerspec]] = structures.Itimerspec
    MessageInfo: ClassVar[Type[structures.MessageInfo]] = structures.MessageInfo
    Pulse: ClassVar[Type[structures.Pulse]] = structures.Pulse
    SigEvent: ClassVar[Type[structures.SigEvent]] = structures.SigEvent
    SigVal: ClassVar[Type[structures.SigVal]] = structures.SigVal
    TimerStatus: ClassVar[Type[structures.TimerStatus]] = structures.TimerStatus
    Timespec: ClassVar[Type[structures.Timespec]] = structures.Timespec
    Name: ClassVar[Type[kernel.Name]] = kernel.Name


class PlainCalls:
    """The calls that have nothing to do with recovery: the kernel's own, as attributes of a backend that recovers."""

    def _pass_on(self, kernel: Kernel) -> None:
        self.ChannelCreate = kernel.ChannelCreate
        self.ChannelDestroy = kernel.ChannelDestroy
        self.ConnectServerInfo = kernel.ConnectServerInfo
        self.ConnectFlags = kernel.ConnectFlags
        self.ConnectClientInfo = kernel.ConnectClientInfo
        self.MsgDeliverEvent = kernel.MsgDeliverEvent
        self.MsgRegisterEvent = kernel.MsgRegisterEvent
        self.MsgUnregisterEvent = kernel.MsgUnregisterEvent
        self.TimerCreate = kernel.TimerCreate
        self.TimerSettime = kernel.TimerSettime
        self.TimerInfo = kernel.TimerInfo
        self.TimerDestroy = kernel.TimerDestroy
        self.TimerTimeout = kernel.TimerTimeout
        self.MsgReceive = kernel.MsgReceive
        self.MsgReceivev = kernel.MsgReceivev
        self.MsgReceivePulse = kernel.MsgReceivePulse
        self.MsgReply = kernel.MsgReply
        self.MsgReplyv = kernel.MsgReplyv
        self.MsgError = kernel.MsgError
        self.MsgRead = kernel.MsgRead
        self.MsgReadv = kernel.MsgReadv
        self.MsgWrite = kernel.MsgWrite
        self.MsgWritev = kernel.MsgWritev
        self.MsgInfo = kernel.MsgInfo
        self.name_attach = kernel.name_attach
        self.name_detach = kernel.name_detach
        self.resmgr_attach = kernel.resmgr_attach
        self.resmgr_detach = kernel.resmgr_detach
        self.is_open = kernel.is_open
        self.open_at = kernel.open_at
        self.attach_at = kernel.attach_at
        self.unblock = kernel.unblock
