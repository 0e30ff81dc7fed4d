"""The contract of a kernel: QNX's channels, connections, messages, pulses, names and descriptors.

Everything above it, ``ha_qnx.recovery`` first of all, works on any object that keeps this contract. Every call

* checks its arguments before it does anything: a wrong type is a TypeError, a buffer that is not contiguous a
  BufferError, a number outside its C type a ValueError, a flag, command or priority that QNX does not know an
  OSError with EINVAL;
* raises OSError with the errno for a failure, so that ESRCH is a ProcessLookupError, EINTR an InterruptedError,
  ETIMEDOUT a TimeoutError; there is no other exception, save those that signal handlers raise;
* returns 0 where C returns 0, so that code and manuals carry over.

What is sent is any bytes-like object, or None for an empty message. What is received goes into any writable buffer, or
None. A vector is a sequence of such buffers.

"B" with a number is a line of the specification (QNX's behaviour, fact by fact), "D" with a number a decision of this
project where QNX leaves something open or a POSIX host must differ. ``ha-qnx explain B73 D17`` prints such lines.
"""

import os
from typing import TYPE_CHECKING, Any, Optional, Protocol, Sequence, Union

from .constants import FTYPE_ANY, NTO_SIDE_CHANNEL
from .structures import ClientInfo, Itimer, MessageInfo, SigEvent, TimerStatus

__all__ = ["BytesLike", "Kernel", "Name", "StrPath", "Vector"]

# Anything with the buffer interface, so no str. Python can name that type only from 3.12 on, a type checker always.
if TYPE_CHECKING:
    from typing_extensions import Buffer as BytesLike
else:
    BytesLike = Any
Vector = Sequence[BytesLike]
StrPath = Union[str, bytes, "os.PathLike[str]"]


#: Where QNX keeps the names of name_attach. They are for name_open; nothing there can be opened.
NAME_ROOT = "/dev/name"
NAME_PREFIX = f"{NAME_ROOT}/local/"


class Name:
    """What name_attach has registered: ``path`` is the name, ``chid`` the channel that is reached by it."""

    def __init__(self, path: str, chid: int) -> None:
        self.path = path
        self.chid = chid

    def __repr__(self) -> str:
        return f"<Name {self.path!r} chid={self.chid}>"


class Kernel(Protocol):
    """The kernel calls that a client and a server need.

    ``is_open``, ``open_at`` and ``attach_at`` are no calls of QNX's: they are what recovery needs in addition, and
    ``unblock`` is what asyncio needs.
    """

    # Channels.

    def ChannelCreate(self, flags: int = 0) -> int:
        """Create a channel, on which this process receives messages and pulses.

        Args:
            flags: NTO_CHF_UNBLOCK, NTO_CHF_DISCONNECT, NTO_CHF_COID_DISCONNECT, NTO_CHF_THREAD_DEATH,
                NTO_CHF_FIXED_PRIORITY, NTO_CHF_PRIVATE (for this process only); NTO_CHF_SENDER_LEN and
                NTO_CHF_REPLY_LEN, which change nothing.

        Returns:
            The channel ID, positive.

        Raises:
            OSError: EBUSY, one channel of this process has NTO_CHF_COID_DISCONNECT or NTO_CHF_THREAD_DEATH already
                (B24); EPERM, NTO_CHF_NET_MSG (B26); EAGAIN, EMFILE, ENFILE, ENOMEM, the host has no room; EINVAL.

        Follows ChannelCreate(), B11 to B30.
        """

    def ChannelDestroy(self, chid: int) -> int:
        """Destroy a channel: blocked clients get ESRCH, idle ones EBADF when they next use their connection.

        Returns:
            0.

        Raises:
            OSError: EINVAL, there is no such channel (B17).

        Follows ChannelDestroy(), B16 to B25.
        """

    # Connections.

    def ConnectAttach(self, nd: int, pid: int, chid: int, index: int = NTO_SIDE_CHANNEL, flags: int = 0) -> int:
        """Connect to a channel; the server is not told.

        Args:
            nd: the node, 0 (ND_LOCAL_NODE).
            pid: the server's process, 0 for this one.
            chid: the server's channel.
            index: NTO_SIDE_CHANNEL for a side channel, else the lowest number the connection may have.
            flags: NTO_COF_CLOEXEC, which is in force anyway; NTO_COF_NOSHARE.

        Returns:
            The connection ID: the lowest free number from ``index`` on, or the lowest free side channel.

        Raises:
            OSError: ESRCH, no such process or channel (B38, B39); ENXIO, the process is a zombie (B40); ENOREMOTE,
                another node (D21); EINVAL, an unknown flag or an index beyond the limit of descriptors (B42, B44);
                EMFILE, too many connections (B43); EAGAIN, ENFILE, ENOMEM, the host has no room; ETIMEDOUT, the
                server takes no clients in (D126).

        Follows ConnectAttach(), B31 to B52.
        """

    def ConnectDetach(self, coid: int) -> int:
        """End a connection, or release the number of a client that has left (the scoid of a disconnect pulse).

        Threads of this process that are blocked on the connection fail with EBADF; on a channel with NTO_CHF_UNBLOCK
        they wait for the server's answer (B58).

        Returns:
            0, also for a connection whose server is gone.

        Raises:
            OSError: EINVAL, there is no such connection (B54), or the client is still there (B60); EPERM, SYSMGR_COID.

        Follows ConnectDetach(), B53 to B62.
        """

    def ConnectServerInfo(self, pid: int, coid: int, info: Optional[MessageInfo] = None) -> int:
        """Find a connection of a process, and describe the server's side of it.

        Args:
            pid: 0 for this process.
            coid: the connection, or where to start looking.
            info: filled in with nd, pid, chid, scoid (0 before the server has taken note of it, D28), coid, flags;
                flags has NTO_COF_DEAD if the server is gone. Without it, dead connections are passed over.

        Returns:
            The number found: ``coid``, or else the next higher one; side channels come after all others.

        Raises:
            OSError: EINVAL, there is none; ESRCH, no such process; EPERM, the host cannot look into another process.

        Follows ConnectServerInfo(), B63 to B69.
        """

    def ConnectFlags(self, pid: int, coid: int, mask: int, bits: int) -> int:
        """Change flags of a connection, or only ask for them with a mask of 0.

        Args:
            pid: 0 for this process.
            coid: the connection.
            mask: the flags to change: NTO_COF_CLOEXEC.
            bits: what they become.

        Returns:
            The flags before.

        Raises:
            OSError: EBADF, there is no such connection (B70); ESRCH, no such process; EPERM as for ConnectServerInfo;
                EINVAL, a flag that cannot be changed.

        Follows ConnectFlags(), B69 to B71.
        """

    def ConnectClientInfo(self, scoid: int, ngroups: int = 0) -> ClientInfo:
        """Tell who a client is.

        Args:
            scoid: the server connection of a message or a pulse; -1 for this process itself.
            ngroups: how many supplementary groups to list, at most 8 of which fit.

        Returns:
            Process, session and credentials, as the host's kernel vouches for them.

        Raises:
            OSError: EINVAL, there is no such client.

        Follows ConnectClientInfo(), B72.
        """

    # Sending.

    def MsgSend(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        """Send a message and wait for the reply.

        Args:
            coid: the connection.
            smsg: the message.
            rmsg: where the reply goes; what does not fit is cut off without notice, what is not written to stays.

        Returns:
            The status of the server's MsgReply, whatever it is.

        Raises:
            OSError: EBADF, the connection does not exist, or its server was gone before the message went out; ESRCH,
                the server was lost while it had the message: it may have acted on it (B158 to B179). EINTR, a signal
                handler ran in the main thread; ETIMEDOUT, a TimerTimeout expired; on a channel with NTO_CHF_UNBLOCK
                only if the server agrees (B180 to B195). Any errno that the server gives to MsgError. ENOSYS, the
                number is an ordinary descriptor of the host (D32). EMFILE, ENFILE, ENOMEM, EAGAIN, the host has no
                room.

        Follows MsgSend(), B73 to B108.
        """

    def MsgSendv(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        """Send a message made of parts, and receive the reply in parts. Otherwise as MsgSend.

        The server sees one string of bytes; the parts of the reply are filled in order (B93 to B95).
        """

    def MsgSendsv(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        """Send one buffer and receive the reply in parts. Otherwise as MsgSend (B96)."""

    def MsgSendvs(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        """Send a message made of parts and receive the reply in one buffer. Otherwise as MsgSend (B96)."""

    def MsgSendnc(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        """As MsgSend, but no cancellation point: Python cancels no threads, so there is no difference (B97)."""

    def MsgSendvnc(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        """As MsgSendv, but no cancellation point (B97)."""

    def MsgSendsvnc(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        """As MsgSendsv, but no cancellation point (B97)."""

    def MsgSendvsnc(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        """As MsgSendvs, but no cancellation point (B97)."""

    def MsgSendPulse(self, coid: int, priority: int, code: int, value: int) -> int:
        """Send a pulse: a code of 8 bits and a value of 32, without waiting for anybody.

        Args:
            coid: the connection.
            priority: 1 to 255, or -1 for that of the calling thread.
            code: 0 to 127 for applications; negative ones are the system's. Only the low 8 bits arrive.
            value: a 32-bit signed number.

        Returns:
            0.

        Raises:
            OSError: EBADF, the connection does not exist or its server is gone (B248); EINVAL, another priority (D30);
                EAGAIN, as many pulses wait as the host holds (B250).

        Follows MsgSendPulse(), B233 to B261.
        """

    def MsgSendPulsePtr(self, coid: int, priority: int, code: int, value: int) -> int:
        """As MsgSendPulse, with an address for the value: a number from 0 that has room in a ``void *`` (B243).

        It is sent as it is, and its receiver finds it in ``pulse.value.sival_ptr``, where 0 is None. To another process
        it means nothing but what the two have agreed on.
        """

    def MsgDeliverEvent(self, rcvid: int, event: SigEvent) -> int:
        """Let an event act in a client, without waiting for it: now, or long after its message is answered.

        Args:
            rcvid: of any message of that client, answered or not, as long as it has a connection to that channel left.
            event: as the client has handed it in. The connection of a pulse is one of the client's: a pulse comes as if
                the client had sent it. On a host it does so when a thread of the client receives on any channel (D91).
                SIGEV_UNBLOCK frees the client's thread, if it waits for the answer to this message.

        Returns:
            0.

        Raises:
            OSError: ESRCH, there is no such client, or it has gone, or has no such connection; EBADF, the channel that
                the pulse is for is destroyed; EINVAL, no event that can be delivered; EAGAIN, as many wait as the host
                holds (D92).

        Follows MsgDeliverEvent(), B155 to B157, B460 to B465, D90 to D92.
        """

    def MsgRegisterEvent(self, event: SigEvent, coid: int) -> int:
        """Allow a server to deliver an event, which 7.1 and later want before it is handed in.

        Args:
            event: the event, which may be changed by that.
            coid: the connection to the server, or one of the negative numbers that stand for several.

        Returns:
            0. Where the system knows no registering, as hosts do, nothing happens.

        Raises:
            OSError: EBADF, the connection does not exist.

        Follows MsgRegisterEvent(), D93.
        """

    def MsgUnregisterEvent(self, event: SigEvent) -> int:
        """Take back what MsgRegisterEvent has allowed.

        Returns:
            0.

        Follows MsgUnregisterEvent(), D93.
        """

    def ionotify(self, fd: int, action: int, flags: int, event: Optional[SigEvent] = None) -> int:
        """Ask a server which conditions hold, and to be told when one of the others does: an _IO_NOTIFY message.

        The server delivers the event by MsgDeliverEvent, once; to be told again, ask again. Of one descriptor and one
        condition there is one event: each call replaces the one before, and without an event only takes it back.

        Args:
            fd: a descriptor.
            action: NOTIFY_ACTION_POLLARM, tell what holds, or else arm the event; NOTIFY_ACTION_POLL, only tell;
                NOTIFY_ACTION_TRANARM, only arm it, for what comes anew; NOTIFY_ACTION_CONDARM, arm it if nothing holds.
            flags: the conditions: NOTIFY_COND_INPUT, NOTIFY_COND_OUTPUT, NOTIFY_COND_OBAND.
            event: as SIGEV_PULSE_INIT makes it. Before it is handed in, 7.1 and later want it to be registered, by
                MsgRegisterEvent.

        Returns:
            Those of the conditions that hold, as the server says, a number without a sign; 0 if it has armed the event.

        Raises:
            TypeError, ValueError: an argument is none.
            OSError: ENOSYS, the server knows nothing of readiness, or the descriptor is one of the host, for which
                there is select (D111); EBADF, it is not open, or its server is gone; EAGAIN, CONDARM has armed the
                event; what else the server answers; ESRCH, EINTR, ETIMEDOUT as MsgSend.

        Follows ionotify(), B490 to B494.
        """

    # Timers.

    def TimerCreate(self, id: int, notify: Optional[SigEvent] = None) -> int:
        """Create a timer, which does nothing until it is set. A child of this process does not have it.

        Args:
            id: the clock: CLOCK_MONOTONIC, CLOCK_REALTIME or CLOCK_SOFTTIME.
            notify: what happens when it expires, as SIGEV_PULSE_INIT or SIGEV_SIGNAL_INIT make it; None for SIGALRM.
                The pulses of a timer are queued at the moment of each expiry, whether somebody receives or not. If the
                connection is detached or the channel destroyed, nothing happens, and nobody is told.

        Returns:
            The number of the timer.

        Raises:
            OSError: EINVAL, another clock, or an event that no timer can have; EBADF, the event's connection does not
                exist; EAGAIN, EMFILE, ENOMEM, the host has no room.

        Follows TimerCreate(), B441 to B446, D77 to D79.
        """

    def TimerSettime(self, id: int, flags: int, itime: Itimer, oitime: Optional[Itimer] = None) -> int:
        """Set a timer, or stop it.

        Args:
            id: the timer.
            flags: TIMER_ABSTIME, ``itime.nsec`` is a point of the timer's clock: time.monotonic_ns() or
                time.time_ns(). One that has passed lets it expire at once. Else it counts from now.
            itime: when it expires first, 0 to stop it, and at what intervals then, 0 for never.
            oitime: filled in with what was left of the time that was set before, and with the interval.

        Returns:
            0.

        Raises:
            OSError: EINVAL, there is no such timer.

        Follows TimerSettime(), B447 to B449.
        """

    def TimerInfo(self, pid: int, id: int, flags: int = 0) -> TimerStatus:
        """Tell what is known about a timer.

        Args:
            pid: 0 for this process.
            id: the timer.
            flags: 0.

        Returns:
            ``otime`` is what is left until it expires, ``itime`` what it was set to.

        Raises:
            OSError: EINVAL, there is no such timer; ESRCH, no such process; EPERM, the host cannot look into another
                process.

        Follows TimerInfo(), B449.
        """

    def TimerDestroy(self, id: int) -> int:
        """Destroy a timer. Pulses of it that wait on their channel stay there.

        Returns:
            0.

        Raises:
            OSError: EINVAL, there is no such timer.

        Follows TimerDestroy(), B450.
        """

    def TimerTimeout(self, flags: int, ntime: Optional[int], *c_form: Any) -> int:
        """Limit the next call of this thread that can block.

        C's form is taken, too: ``TimerTimeout(clock, flags, notify, ntime, otime)``, whose ``notify`` is None or an
        event with SIGEV_UNBLOCK, and whose ``otime`` is None.

        Args:
            flags: the states to limit: NTO_TIMEOUT_SEND, NTO_TIMEOUT_REPLY, NTO_TIMEOUT_RECEIVE; with TIMER_ABSTIME,
                ``ntime`` is a point of time.monotonic_ns(). 0 takes a timeout back.
            ntime: nanoseconds; None or 0 lets the call fail at once if it has to block.
            c_form: the last three arguments of C's form.

        Returns:
            The flags of the timeout that was set before. Test for failure only (B223).

        Raises:
            TypeError: neither two arguments nor five.
            OSError: EINVAL, an unknown flag or clock; ENOTSUP, another event.

        Follows TimerTimeout(), B208 to B227, D20.
        """

    # Receiving and answering.

    def MsgReceive(self, chid: int, msg: Optional[BytesLike], info: Optional[MessageInfo] = None) -> int:
        """Wait for a message or a pulse.

        Args:
            chid: a channel of this process.
            msg: where it goes. A message that is longer is cut; MsgRead fetches the rest. A pulse needs the room of a
                Pulse: ``Pulse.from_buffer(msg)`` reads it.
            info: filled in for a message, left alone for a pulse.

        Returns:
            The rcvid of a message, positive: it has to be answered by MsgReply or MsgError. 0 for a pulse.

        Raises:
            OSError: ESRCH, there is no such channel, or it was destroyed meanwhile (B18, B109); EFAULT, there was no
                room for a pulse, which is lost (B252); EINTR, a signal handler ran in the main thread; ETIMEDOUT.

        Follows MsgReceive(), B73 to B126.
        """

    def MsgReceivev(self, chid: int, iov: Optional[Vector], info: Optional[MessageInfo] = None) -> int:
        """Wait for a message or a pulse and receive it in parts. A pulse goes into the first part (B254).

        Otherwise as MsgReceive.
        """

    def MsgReceivePulse(self, chid: int, pulse: Optional[BytesLike], info: Optional[MessageInfo] = None) -> int:
        """Wait for a pulse; messages stay where they are. Threads in MsgReceive are served first.

        Args:
            chid: a channel of this process.
            pulse: a Pulse, or any buffer with room for one.
            info: left alone.

        Returns:
            0.

        Raises:
            OSError: as MsgReceive.

        Follows MsgReceivePulse(), B256 to B259.
        """

    def MsgReply(self, rcvid: int, status: int, msg: Optional[BytesLike] = None) -> int:
        """Answer a message, from any thread, in any order.

        Args:
            rcvid: what MsgReceive returned.
            status: what the client's MsgSend returns. A negative one cannot be told from an error by MsgSend_r.
            msg: the reply; what exceeds the client's room is cut off without notice.

        Returns:
            0.

        Raises:
            OSError: ESRCH, the message is answered already, or its client is gone (B116 to B124).

        Follows MsgReply(), B76 to B95.
        """

    def MsgReplyv(self, rcvid: int, status: int, iov: Optional[Vector]) -> int:
        """Answer a message with a reply made of parts. Otherwise as MsgReply."""

    def MsgError(self, rcvid: int, error: int) -> int:
        """Let a client's MsgSend fail.

        Args:
            rcvid: what MsgReceive returned.
            error: the errno. 0 lets it succeed with status 0. ERESTART lets the client send again by itself. -1, after
                an unblock pulse, stands for the reason of that: EINTR or ETIMEDOUT.

        Returns:
            0.

        Raises:
            OSError: ESRCH, as MsgReply.

        Follows MsgError(), B127 to B135.
        """

    def MsgRead(self, rcvid: int, msg: Optional[BytesLike], offset: int = 0) -> int:
        """Read from a message that is not yet answered, as often as needed.

        Args:
            rcvid: what MsgReceive returned.
            msg: where it goes.
            offset: where to start in the message, in bytes.

        Returns:
            How many bytes there were, 0 behind the end.

        Raises:
            OSError: ESRCH, as MsgReply.

        Follows MsgRead(), B136 to B142.
        """

    def MsgReadv(self, rcvid: int, iov: Optional[Vector], offset: int = 0) -> int:
        """Read from a message into several parts. Otherwise as MsgRead."""

    def MsgWrite(self, rcvid: int, msg: Optional[BytesLike], offset: int = 0) -> int:
        """Write into the client's reply buffer before the answer.

        Args:
            rcvid: what MsgReceive returned.
            msg: the data.
            offset: where it goes in the reply, in bytes, over all its parts.

        Returns:
            How many bytes had room, 0 behind the end.

        Raises:
            OSError: ESRCH, as MsgReply.

        Follows MsgWrite(), B143 to B149.
        """

    def MsgWritev(self, rcvid: int, iov: Optional[Vector], offset: int = 0) -> int:
        """Write several parts into the client's reply buffer. Otherwise as MsgWrite."""

    def MsgInfo(self, rcvid: int) -> MessageInfo:
        """Tell what is known about a message that is not yet answered.

        Returns:
            As MsgReceive fills it in; flags has NTO_MI_UNBLOCK_REQ if the client wants to be freed.

        Raises:
            OSError: ESRCH, as MsgReply.

        Follows MsgInfo(), B150 to B154.
        """

    # Names.

    def name_attach(self, path: str, flags: int = 0) -> Name:
        """Create a channel and register a name for it.

        The channel has NTO_CHF_UNBLOCK, NTO_CHF_DISCONNECT and, unless another one of this process has it,
        NTO_CHF_COID_DISCONNECT.

        Args:
            path: the name, relative: what clients give to name_open. A slash at the end and double ones are taken out.
            flags: 0. (NAME_FLAG_ATTACH_GLOBAL needs QNX's global name service.)

        Returns:
            The name; its ``chid`` is the channel.

        Raises:
            OSError: EINVAL, no name that can be (B289, B290); EEXIST, a live server has it (B293); EPERM, this user may
                not attach it (D105, D106); ENOENT, there is no global name service (B292); ENAMETOOLONG; and as
                ChannelCreate.

        Follows name_attach(), B286 to B295.
        """

    def name_detach(self, name: Name, flags: int = 0) -> int:
        """Remove a name and destroy its channel.

        Args:
            name: what name_attach returned.
            flags: NAME_FLAG_DETACH_SAVEDPP keeps the channel.

        Returns:
            0.

        Raises:
            OSError: EINVAL, it is detached already, or an unknown flag.

        Follows name_detach(), B296, B297.
        """

    def name_open(self, path: str, flags: int = 0) -> int:
        """Connect to the server of a name, which is not told of it.

        Args:
            path: the name, relative.
            flags: 0.

        Returns:
            A side-channel connection, close-on-exec.

        Raises:
            OSError: ENOENT, no server has the name (B305), or there is no global name service (B292); ESRCH, its
                channel is destroyed; EINVAL, no name that can be; and as ConnectAttach. Where HA_QNX_GNS is 1, as on
                a target that runs gns, the server gets an _IO_CONNECT message and has to answer it with EOK; then also
                what it answers by MsgError, and EBADFSYS for another status.

        Follows name_open(), B298 to B309.
        """

    def name_close(self, coid: int) -> int:
        """End a connection that name_open made: the same as ConnectDetach (B307)."""

    # Paths.

    def resmgr_attach(self, chid: int, path: StrPath, file_type: int = FTYPE_ANY, flags: int = 0) -> int:
        """Serve a path: who opens it sends an _IO_CONNECT message, and then all others, to a channel of this process.

        QNX's function takes a dispatch handle and tables of functions. Here the server receives the messages itself,
        by MsgReceive, and answers them. Several servers may attach one path: an open asks the first, and on ENOENT,
        ENOSYS, ESRCH or ENXIO, or if it is lost, the next. That is QNX's own way to a hot standby.

        Args:
            chid: a channel of this process.
            path: any path. One that is relative is taken from the working directory. It need not exist, and comes
                before a file of the host that has it. An empty one stands for all paths, for who asks for just
                ``file_type``.
            file_type: what kind of file it is; clients' open asks for FTYPE_ANY.
            flags: RESMGR_FLAG_BEFORE, asked before those that are there; RESMGR_FLAG_AFTER, after them; without either,
                the newest first. RESMGR_FLAG_DIR, what lies below the path is asked for here, too, with the rest of
                the path in the message; RESMGR_FLAG_OPAQUE, nobody above is asked then; RESMGR_FLAG_SELF, this process
                may open it, too; RESMGR_FLAG_FTYPEALL, any type of file will do; RESMGR_FLAG_FTYPEONLY, an empty path
                has it anyway, and no other takes it.

        Returns:
            The number of the attachment, from 0 on. It is the ``handle`` of the _IO_CONNECT messages that it gets.

        Raises:
            OSError: EINVAL, no path that can be (one below /dev/name is for name_attach), a bad file_type, an unknown
                flag, or no channel of this process;
                EPERM, QNX lets only root attach a path, and a shared runtime directory those whom it was set up for
                (D105, D106); ENAMETOOLONG; EMFILE, ENFILE, ENOSPC, the host has no room.

        Follows resmgr_attach().
        """

    def resmgr_detach(self, id: int, flags: int = 0) -> int:
        """Serve a path no longer; whoever has it open stays connected.

        Args:
            id: what resmgr_attach returned.
            flags: 0.

        Returns:
            0.

        Raises:
            OSError: ENOENT, there is no such attachment; EINVAL, an unknown flag.

        Follows resmgr_detach().
        """

    # Descriptors.

    def open(self, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        """Open a path: connect to the server that has attached it, which gets an _IO_CONNECT message.

        Args:
            path: any path; what no server has attached is opened by the host.
            oflag: the host's open flags.
            mode: the permissions of a file that is created.

        Returns:
            The lowest free descriptor.

        Raises:
            OSError: ENOENT, there is nothing, or no server wants to serve it; ESRCH, the only server went before it
                answered, or has destroyed its channel; what a server answers by MsgError; ENOTDIR, what is served is no
                directory; ENAMETOOLONG; EINVAL, a path below /dev/name/: names are for name_open; else what the host's
                open says.

        Follows open(), B310 to B316.
        """

    def close(self, fd: int) -> int:
        """Close a descriptor. The server of a connection gets an _IO_CLOSE message.

        Returns:
            0.

        Raises:
            OSError: EBADF, it is not open, or its server is gone: the number is freed all the same; EINTR, it is still
                open; what the server answers by MsgError.

        Follows close(), B328 to B332.
        """

    def dup(self, fd: int) -> int:
        """Duplicate a descriptor. The server of a connection gets an _IO_DUP message on the new one.

        Returns:
            The lowest free descriptor, close-on-exec as everywhere in Python.

        Raises:
            OSError: EBADF, it is not open, or a side channel; ESRCH, its server is gone; EMFILE; what the server
                answers by MsgError.

        Follows dup(), B333 to B336, D27.
        """

    def dup2(self, fd: int, fd2: int) -> int:
        """Duplicate a descriptor under a given number; what was open there is closed first.

        Returns:
            ``fd2``.

        Raises:
            OSError: EBADF, ``fd`` is not open, a side channel, or its server is gone; or ``fd2`` is no possible
                descriptor, or was taken by another thread meanwhile; what the server answers by MsgError.

        Follows dup2(), B335 to B340.
        """

    # What recovery needs.

    def is_open(self, number: int) -> bool:
        """Whether a number is a connection that exists, be its server alive or dead."""

    def open_at(self, fd: int, path: StrPath, oflag: int, mode: int = 0o666) -> int:
        """Open a path under the number of an old connection, which is closed first.

        The server gets an _IO_CONNECT and no _IO_DUP message. If it fails, the old connection is dead but keeps its
        number, so that it may be tried again and nobody else gets the number meanwhile (D6).

        Returns:
            ``fd``.

        Raises:
            OSError: EBADF, the number belongs to something else by now, which is left alone; else as open.
        """

    def attach_at(self, coid: int, nd: int, pid: int, chid: int, flags: int) -> int:
        """Connect to a channel under the number of an old connection, side channels included. Otherwise as open_at.

        Returns:
            ``coid``.

        Raises:
            OSError: EBADF, the number belongs to something else by now, which is left alone; else as ConnectAttach.
        """

    # What asyncio needs.

    def unblock(self, thread: int) -> int:
        """Have a message that a thread waits with end with EINTR, the way a signal ends it (B180 to B183).

        If no thread of the server has received it yet, it is taken back. If one has, and the channel has
        NTO_CHF_UNBLOCK, the server gets an unblock pulse and decides; without that flag, the call ends. A thread that
        waits with no message goes on, and the one that it sends next is not concerned. It never blocks.

        On the fallback anywhere but on Linux, the call ends in any case: the server gets its pulse, and answers to
        nobody.

        Args:
            thread: as threading.get_ident() has it, of a thread that has not ended.

        Returns:
            0.

        Raises:
            OSError: ENOTSUP, this kernel has no way to do it.
        """
