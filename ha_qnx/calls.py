"""The calls of the default backend under their own names: what ``ha_qnx`` exports of them.

Made by `python ci/interface.py`, from the contracts in ``ha_qnx.kernel`` and ``ha_qnx.api``. It is not to be edited.
"""

from typing import TYPE_CHECKING, Any

from .backends import backend

__all__ = [
    "ChannelCreate",
    "ChannelDestroy",
    "ConnectAttach",
    "ConnectClientInfo",
    "ConnectDetach",
    "ConnectFlags",
    "ConnectServerInfo",
    "MsgDeliverEvent",
    "MsgError",
    "MsgInfo",
    "MsgRead",
    "MsgReadv",
    "MsgReceive",
    "MsgReceivePulse",
    "MsgReceivePulsev",
    "MsgReceivev",
    "MsgRegisterEvent",
    "MsgReply",
    "MsgReplyv",
    "MsgSend",
    "MsgSendPulse",
    "MsgSendPulsePtr",
    "MsgSendPulsePtr_r",
    "MsgSendPulse_r",
    "MsgSend_r",
    "MsgSendnc",
    "MsgSendnc_r",
    "MsgSendsv",
    "MsgSendsv_r",
    "MsgSendsvnc",
    "MsgSendsvnc_r",
    "MsgSendv",
    "MsgSendv_r",
    "MsgSendvnc",
    "MsgSendvnc_r",
    "MsgSendvs",
    "MsgSendvs_r",
    "MsgSendvsnc",
    "MsgSendvsnc_r",
    "MsgUnregisterEvent",
    "MsgWrite",
    "MsgWritev",
    "TimerCreate",
    "TimerDestroy",
    "TimerInfo",
    "TimerSettime",
    "TimerTimeout",
    "close",
    "devctl",
    "dup",
    "dup2",
    "fstat",
    "ha_ConnectAttach",
    "ha_ConnectAttach_r",
    "ha_ConnectDetach",
    "ha_ConnectDetach_r",
    "ha_ReConnectAttach",
    "ha_attach",
    "ha_close",
    "ha_connection_ctrl",
    "ha_creat",
    "ha_creat64",
    "ha_detach",
    "ha_dup",
    "ha_fclose",
    "ha_fopen",
    "ha_open",
    "ha_open64",
    "ha_reopen",
    "ionotify",
    "lseek",
    "name_attach",
    "name_close",
    "name_detach",
    "name_open",
    "open",
    "read",
    "readinto",
    "resmgr_attach",
    "resmgr_detach",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_settime",
    "write",
]

if TYPE_CHECKING:
    _default = backend()
    ChannelCreate = _default.ChannelCreate
    ChannelDestroy = _default.ChannelDestroy
    ConnectAttach = _default.ConnectAttach
    ConnectDetach = _default.ConnectDetach
    ConnectServerInfo = _default.ConnectServerInfo
    ConnectFlags = _default.ConnectFlags
    ConnectClientInfo = _default.ConnectClientInfo
    MsgSend = _default.MsgSend
    MsgSendv = _default.MsgSendv
    MsgSendsv = _default.MsgSendsv
    MsgSendvs = _default.MsgSendvs
    MsgSendnc = _default.MsgSendnc
    MsgSendvnc = _default.MsgSendvnc
    MsgSendsvnc = _default.MsgSendsvnc
    MsgSendvsnc = _default.MsgSendvsnc
    MsgSendPulse = _default.MsgSendPulse
    MsgSendPulsePtr = _default.MsgSendPulsePtr
    MsgDeliverEvent = _default.MsgDeliverEvent
    MsgRegisterEvent = _default.MsgRegisterEvent
    MsgUnregisterEvent = _default.MsgUnregisterEvent
    ionotify = _default.ionotify
    TimerCreate = _default.TimerCreate
    TimerSettime = _default.TimerSettime
    TimerInfo = _default.TimerInfo
    TimerDestroy = _default.TimerDestroy
    TimerTimeout = _default.TimerTimeout
    MsgReceive = _default.MsgReceive
    MsgReceivev = _default.MsgReceivev
    MsgReceivePulse = _default.MsgReceivePulse
    MsgReply = _default.MsgReply
    MsgReplyv = _default.MsgReplyv
    MsgError = _default.MsgError
    MsgRead = _default.MsgRead
    MsgReadv = _default.MsgReadv
    MsgWrite = _default.MsgWrite
    MsgWritev = _default.MsgWritev
    MsgInfo = _default.MsgInfo
    name_attach = _default.name_attach
    name_detach = _default.name_detach
    name_open = _default.name_open
    name_close = _default.name_close
    resmgr_attach = _default.resmgr_attach
    resmgr_detach = _default.resmgr_detach
    open = _default.open
    close = _default.close
    dup = _default.dup
    dup2 = _default.dup2
    ha_attach = _default.ha_attach
    ha_detach = _default.ha_detach
    ha_connection_ctrl = _default.ha_connection_ctrl
    ha_open = _default.ha_open
    ha_open64 = _default.ha_open64
    ha_creat = _default.ha_creat
    ha_creat64 = _default.ha_creat64
    ha_ConnectAttach = _default.ha_ConnectAttach
    ha_ConnectAttach_r = _default.ha_ConnectAttach_r
    ha_ConnectDetach = _default.ha_ConnectDetach
    ha_ConnectDetach_r = _default.ha_ConnectDetach_r
    ha_reopen = _default.ha_reopen
    ha_ReConnectAttach = _default.ha_ReConnectAttach
    ha_close = _default.ha_close
    ha_dup = _default.ha_dup
    read = _default.read
    readinto = _default.readinto
    write = _default.write
    lseek = _default.lseek
    fstat = _default.fstat
    devctl = _default.devctl
    ha_fopen = _default.ha_fopen
    ha_fclose = _default.ha_fclose
    MsgReceivePulsev = _default.MsgReceivePulsev
    timer_create = _default.timer_create
    timer_settime = _default.timer_settime
    timer_gettime = _default.timer_gettime
    timer_getoverrun = _default.timer_getoverrun
    timer_delete = _default.timer_delete
    MsgSend_r = _default.MsgSend_r
    MsgSendv_r = _default.MsgSendv_r
    MsgSendsv_r = _default.MsgSendsv_r
    MsgSendvs_r = _default.MsgSendvs_r
    MsgSendnc_r = _default.MsgSendnc_r
    MsgSendvnc_r = _default.MsgSendvnc_r
    MsgSendsvnc_r = _default.MsgSendsvnc_r
    MsgSendvsnc_r = _default.MsgSendvsnc_r
    MsgSendPulse_r = _default.MsgSendPulse_r
    MsgSendPulsePtr_r = _default.MsgSendPulsePtr_r
else:

    def __getattr__(name: str) -> Any:
        """Find a call in the default backend, which is made when the first of them is used."""
        if name in __all__:
            return getattr(backend(), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
