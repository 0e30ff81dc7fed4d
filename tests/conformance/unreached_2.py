"""Lines of the specification that no test can reach, or that are about what this project does not offer."""

REASONS = {
    "B161": "a use that QNX does not support, so that there is no outcome to expect",
    "B167": "a moment in the death of a server that no test can hit at will; D15 says that it is not imitated",
    "B193": "needs a server whose kernel has no memory left for a pulse",
    "B219": "TimerTimeout takes no event here: a timeout always unblocks the call",
    "B220": "TimerTimeout takes no event here: a timeout always unblocks the call",
    "B224": "TimerTimeout returns no remaining time here, and nanosleep is none of the calls",
    "B225": "TimerTimeout takes no clock here",
    "B231": "which thread of a process takes a signal is the host's business; D19 says what matters here",
    "B249": "needs processes of two users, and the right to be both",
    "B251": "a moment in the death of a server that no test can hit at will",
    "B253": "says what a sender may see, not what it has to see",
    "B268": "Python cancels no threads",
}
