"""QNX's kernel calls on any POSIX host, in Python: channels, connections, messages, pulses, names.

``kernel.SocketKernel`` is the kernel of one process; its contract is ``ha_qnx.kernel.Kernel``. How processes talk to
each other is in PROTOCOL.md. libha speaks it, too: the C library in ``libha/``, the twin of what is here.

The way of one message
======================

1.  A server calls ChannelCreate. ``kernel`` makes a ``channels.Channel``, and ``runtime`` has the directory in which
    others find its socket.
2.  A client calls ConnectAttach. ``table`` looks for a trunk to that channel, or opens one, and gives the new
    ``connections.Connection`` a number: a slot (``numbers``) or a descriptor. Nobody waits for the server.
3.  The client calls MsgSend. ``kernel`` takes an idle lane of the connection, writes the message into it as one frame
    (``wire``), or into the window of the lane if it is large, and reads the reply. Almost every message goes that way,
    so it is written out there; what is in parts, limited by a timeout, interrupted or otherwise unusual is in
    ``exchange``. If no lane is idle, the connection opens one, and the trunk passes its far ends to the server.
4.  A thread of the server is in MsgReceive, at the poller of the channel (``host``). If the news is a plain message in
    a lane that was idle, ``channels`` receives it there and then. Else it takes in all the news: new clients, their
    lanes, pulses, messages, ends. ``server_lane`` looks at each message without taking it, ``queue`` says which comes
    first, and that one is taken out of its lane and gets a rcvid. Where several threads wait, ``receivers`` knows
    which of them.
5.  The server calls MsgReply. ``kernel`` finds the lane by the rcvid and writes the reply, if it is plain; all that is
    not is in ``server_lane``.
6.  The client has read the reply, and the lane is idle again.

If the server dies, the host closes its ends of the lanes: the client finds that nobody reads from the lane (EBADF: the
message did not go out), or that nothing more comes (ESRCH: it was lost with the server). What follows from that,
recovery, is not known here: ``ha_qnx.recovery`` sees to it on any kernel.

What the words mean
===================

channel     where a server receives. Its number in its process is the *chid*; its address is PID.CHID.TOKEN.
connection  what a client sends on. Its number is the *coid*: a descriptor, under which lies a placeholder of ours whose
            file position, the *cookie*, tells it from anything else (D17); or a slot, if it is a side channel.
client      a process with connections to a channel, as the server sees it: one, however many connections it has. Its
            number there is the *scoid*.
trunk       the stream socket between a client and a channel. Its end is the end of the client, or of the channel.
lane        two pipes between a connection and a channel, one each way, for one message at a time. A trunk passes it.
window      memory that both sides of a lane share, for a message or a reply that is too large for its pipes.
page        memory that both sides of a lane share and look at before they sleep, if they are told to.
frame       what is written to a trunk or a lane in one piece.
exchange    one message and its reply.
rcvid       the number of a message that was received and is not answered.
pulse       a message of a few bytes that nobody answers. A client has one pipe for all it sends to a channel.
timeout     what TimerTimeout arms: which states of the thread's next blocking call it limits, and for how long. Its
            *deadline* is the point in time when it ends.
receiver    a thread in MsgReceive; it is *parked* if it is in MsgReceivePulse and others are to be served first.
news        what a poller tells: a descriptor, and what happened to it.
timer       what TimerCreate makes. Its *home* is where it is seen to: the poller of the channel that its pulses go to,
            if that is one of this process, or a thread that all others share (``timers``, ``homes``, ``alarms``).
entry       what others find a channel, a name or a path by, in the runtime directory; ``keeper`` makes it again if
            somebody has removed it.
slot        a number below 65535 that channels, side channels and clients of a process share.

Which file does what, here and in libha/src
===========================================

kernel       calls/create.c calls/connect.c calls/send.c calls/receive.c calls/reply.c calls/timeout.c calls/name.c
             calls/file.c calls/resmgr.c process.c
opening      calls/open.c
table        client/table.c client/inherited.c client/successor.c
connections  client/trunk.c client/lane.c client/connection.c
exchange     client/exchange.c
forking      process.c
channels     server/channel.c server/intake.c server/client.c server/deaths.c
receivers    server/receivers.c
queue        server/queue.c
server_lane  server/server_lane.c server/client.c server/rcvid.c server/ranges.c
numbers      number.c
threads      host/thread.c calls/timeout.c
timer_calls  calls/timer.c
timers       timers.c
homes        timers.c
alarms       timers.c
event_calls  calls/event.c calls/ionotify.c
pulse_pipes  client/trunk.c server/outlet.c
deliveries   client/events.c client/said.c server/outlet.c server/heard.c
keeper       server/keeper.c
door         host/door.c
runtime      host/runtime.c host/names.c
paths        host/paths.c
host         host/descriptor.c host/wait.c host/held.c host/signals.c
spinning     host/spin.c
pages
wire         wire.h
limits       at the top of each file

What libha has beyond that has its counterpart in ``ha_qnx``, since other backends use it, too: calls/ha.c and
client/recovery.c in ``recovery`` and ``rules``, calls/devctl.c in ``files``, client/io_message.c in ``iomessages``,
host/plain_path.c in ``paths``, host/vector.c in ``buffers``.
"""
