"""A program that closes every descriptor that it finds, as daemons do, and then opens files of its own."""

import os
import pathlib
import subprocess
import sys

import pytest

from ha_qnx import backends

# Both kinds of connections, messages, pulses; then all of that is closed, and files take all numbers that there are.
# What the call does to them is printed. (Of each window of the fallback, mmap keeps a descriptor of its own: it makes
# none here.)
PROGRAM = """
import contextlib, ctypes, os, resource, sys, threading
from ha_qnx import NTO_SIDE_CHANNEL, NTO_TIMEOUT_RECEIVE, backends
with contextlib.suppress(OSError):
    ctypes.CDLL("libgcc_s.so.1")  # The end of a thread needs it (3.8), when no file can be opened any more.
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
call, directory = sys.argv[2:]
much = 100_000 if sys.argv[1] == "native" else 100
qnx = backends.backend(sys.argv[1])
chid = qnx.ChannelCreate(0)

def serve():
    buffer = bytearray(100_000)
    for _message in range(4):
        qnx.MsgReply(qnx.MsgReceive(chid, buffer), 0)

serving = threading.Thread(target=serve)
serving.start()
side, low = (qnx.ConnectAttach(0, 0, chid, index) for index in (NTO_SIDE_CHANNEL, 0))
for coid in (side, low):
    qnx.MsgSend(coid, b"small")
    qnx.MsgSend(coid, bytes(much))
serving.join()
qnx.MsgSendPulse(side, 10, 1, 1)
os.closerange(3, 64)
files = {}
try:
    while True:
        fd = os.open(os.path.join(directory, str(len(files))), os.O_RDWR | os.O_CREAT)
        os.write(fd, b"content")
        files[fd] = os.fstat(fd).st_ino
except OSError:
    pass
os.close(files.popitem()[0])  # Room for what the call needs.
try:
    {
        "detach a side channel": lambda: qnx.ConnectDetach(side),
        "detach a descriptor": lambda: qnx.ConnectDetach(low),
        "send": lambda: qnx.MsgSend(low, b"small"),
        "send much": lambda: qnx.MsgSend(low, bytes(much)),
        "pulse": lambda: qnx.MsgSendPulse(low, 10, 1, 1),
        "destroy": lambda: qnx.ChannelDestroy(chid),
    }[call]()
except OSError:
    pass
for fd, inode in files.items():
    try:
        found = os.fstat(fd).st_ino == inode and os.pread(fd, 100, 0) == b"content" and os.lseek(fd, 0, 1) == 7
    except OSError:
        found = False
    if not found:
        print(fd, "of", sorted(files))
os._exit(0)
"""


_CALLS = ["detach a side channel", "detach a descriptor", "send", "send much", "pulse", "destroy"]


@pytest.mark.parametrize(
    ("backend", "call"), [*(("native", call) for call in _CALLS), *(("fallback", call) for call in _CALLS[:-1])]
)
def test_files_that_took_the_places_of_ours_are_left_alone(backend: str, call: str, tmp_path: pathlib.Path) -> None:
    """D17: none is closed, written to or moved, whatever is done with what was connected before."""
    backends.backend(backend)
    (tmp_path / "files").mkdir()
    ran = subprocess.run(  # noqa: S603  # our own program, in our own interpreter
        [sys.executable, "-c", PROGRAM, backend, call, str(tmp_path / "files")],
        env={**os.environ, "HA_QNX_RUNTIME": str(tmp_path / "run")},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == ""
