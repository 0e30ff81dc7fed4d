"""What is bounded here, by how much, and why.

Where libha, the twin in C, has the same limit, its file is named, and its number is the same. One that both sides of
the wire need is in PROTOCOL.md, too. The sizes of frames are in wire.py, those of paths in runtime.py. Times are in
seconds.
"""

from typing import Final

# Numbers.

# Channels, side channels and clients of a process together: a table of QNX's kernel has no more entries (B354).
# libha: number.c.
SLOTS: Final = 65534
# Descriptors of ours lie from here on, or from the middle of what the process may have if that is less: it is usually
# 1024, so that the program has the lower half for itself.
OUR_DESCRIPTORS: Final = 512

# The client's side.

# The smallest window, in bytes. One that is larger than its message costs nothing: the host gives memory for what is
# written. libha: client/lane.c.
WINDOW_MIN: Final = 1 << 16
# Windows have sizes that are powers of two, up to this one, so that they can be used again, and are kept when their
# message is answered: to have the host give the memory anew costs several times what it costs to copy a message into
# it. Memory is not held for rare larger ones, which are as large as they need to be. libha: client/lane.h.
WINDOW_KEPT: Final = 1 << 26
# Of those that are larger than this, one connection keeps one. libha: client/lane.h.
WINDOW_LARGE: Final = 1 << 24
# So many windows are kept for one connection, the largest of them, which holds at most 112 MiB when it is not in use:
# what its messages have written to. Lanes without a window cost little: when a thread has ended, as many are kept as
# there are others. libha: client/connection.c.
WINDOWS_KEPT: Final = 4
# Up to this size they are kept in any case. libha: client/connection.c.
WINDOW_SMALL: Final = 1 << 20
# A larger one is kept if its connection has needed such a one shortly before, within so many seconds: what is sent once
# leaves no memory behind. libha: client/connection.c.
WINDOW_IDLE: Final = 10.0
# And if all larger ones of the process hold no more than so many bytes together. Where they do, those go of connections
# that have needed none for WINDOW_IDLE. libha: client/connection.c.
WINDOWS_SUM: Final = 1 << 28
# How long a lane is offered to a server that takes no notice, when the host holds no more for it.
# libha: client/trunk.c.
LANE_WAIT: Final = 30.0
# Waiting for that, or for room in the backlog of a server that takes no clients in, a client tries again after the
# first of these, then after twice that, and so on up to the other: the host does not say when it holds more.
RETRY_MIN: Final = 0.001
RETRY_MAX: Final = 0.05
# How long ConnectDetach waits at most until threads that wait for replies on the connection have left it, and how often
# it looks: such a thread may be the one that detaches, in a signal handler. libha: client/connection.c.
LEAVING: Final = 0.02
LEAVING_LOOK: Final = 0.0001
# How long a server of this process that waits in MsgReceive may take to be scheduled, where a client may not wait for a
# receiver at all (B216). libha: client/exchange.c.
RECEIVER_GRACE: Final = 0.2
# The same of a server of another process, which may wait or not (D36), and again, up to the one above, as long as the
# server has work that waits for a processor. libha: client/exchange.c.
POSSIBLE_RECEIVER_GRACE: Final = 0.02
# What a pipe for pulses is enlarged to, in bytes: Linux allows no user more (fs.pipe-max-size).
# libha: client/trunk.c.
PULSE_PIPE: Final = 1 << 20
# The longest that HA_QNX_SPIN_US may let a thread look before it waits, in microseconds. libha: host/spin.c.
SPIN_MAX: Final = 10_000
# After looking in vain, so many waits at most sleep at once. libha: host/spin.c.
SPIN_SKIPPED: Final = 64
# How many plain messages go by a lane, after its first, before it gets a page, where both sides look: what is used no
# more often does without, and a page that is passed wakes a thread of the server, as a new lane does.
PAGE_AFTER: Final = 3
# How old may be what a main thread that looks knows of signal handlers. libha: host/signals.c.
HANDLERS_LOOK: Final = 0.001

# The server's side.

# So often, in seconds, a server that waits looks whether it can still be found in the runtime directory. libha:
# server/keeper.c.
LOOK_AGAIN: Final = 1.0
# As deep as the host allows: it takes what it has for what is asked beyond that. libha: host/runtime.c.
BACKLOG: Final = 2**31 - 1
# Clients get descriptors below OUR_DESCRIPTORS when those above are all taken, but not the last ones: so many, or a
# quarter if that is less (D67).
SPARE_DESCRIPTORS: Final = 32
# How long a server whose table is full for everybody does not look whether somebody wants to connect.
ACCEPT_PAUSE: Final = 0.05
# Pulses in a channel's queue, a limit of memory: so many take 16 megabytes here, and 4 in libha. Those beyond them are
# left with the host until half of these are received, and when it holds no more, their clients get EAGAIN (B250). Those
# that a client has left behind are taken in all the same, up to twice as many (D69).
# libha: server/channel.h.
QUEUED_PULSES: Final = 1 << 16
# How long a client may leave a reply of several frames unread, which does not fit into a pipe that somebody has made
# smaller, before it is given up: the thread that answers waits meanwhile. libha: server/server_lane.c.
ANSWER_WAIT: Final = 1.0
# How often a thread in MsgReceivePulse looks whether one in MsgReceive has been away with its message, as long as
# messages come one upon the other: so late may it hear of a pulse then, and twice that. libha: server/receivers.c.
PARKED_LOOK: Final = 0.002
# A rcvid is positive, since 0 and -1 mean something else.
RCVID_MAX: Final = 2**31 - 1
# How many of them a lane takes at first, and at most: the number of a message's client is kept once for each time.
# libha: server/rcvid.c.
RCVIDS_FIRST: Final = 64
RCVIDS_MOST: Final = 1 << 20

# One turn of a thread that takes in what has arrived, so that no client, and no flood of new ones, keeps it from the
# others. What is left is taken in the next time.

# New clients.
ACCEPTS: Final = 64
# Reads from the trunk of one client, each of so many frames: one frame brings a lane, with at most three descriptors,
# and Linux passes up to 253 at once.
TRUNK_READS: Final = 64
TRUNK_FRAMES: Final = 64
# Pulses in one read.
PULSES_READ: Final = 1024
# Reads of the pulses that a client has left behind: twice as many as a pipe of PULSE_PIPE bytes holds, since somebody
# else may have its other end, too, and go on writing.
LAST_PULSE_READS: Final = 64
# Reads of a trunk that is to be closed, which holds fewer messages than that.
LAST_TRUNK_READS: Final = 1024
# Rounds of looking for news: a new client, its trunk with a lane, the lane with a message, and nothing more.
ROUNDS: Final = 4
# Turns of a receiver whose time is up: what came in time may lie behind thousands of clients that came and went. A
# flood of new ones does not keep it for ever: so many turns are four times what Linux holds for a server.
LATE_TURNS: Final = 64
