"""What another user's client passes to a server."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Iterator

import pytest
from ha_qnx.conformance.waiting import DEADLINE
from ha_qnx.fallback import host

SERVER = """
import os, sys, ha_qnx, ha_qnx.fallback.runtime
qnx = ha_qnx.backend(sys.argv[1])
os.setresuid(64001, 64001, 64001)
name = qnx.name_attach("withheld")
print("attached", flush=True)
while True:
    rcvid = qnx.MsgReceive(name.chid, bytearray(100))
    if rcvid:
        qnx.MsgReply(rcvid, 7)
"""

CLIENT = """
import os, sys, ha_qnx, ha_qnx.fallback.runtime
qnx = ha_qnx.backend("fallback")
if sys.argv[1] == "withholds":
    os.fchmod = lambda fd, mode: None
os.setresuid(64002, 64002, 64002)
try:
    print(qnx.MsgSend(qnx.name_open("withheld"), b"hello"))
except OSError:
    print("refused")
"""


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A runtime directory of root's, where everybody may attach and connect."""
    if os.geteuid():
        pytest.skip("only root can be several users")
    above = pathlib.Path(tempfile.mkdtemp(prefix="ha"))
    above.chmod(0o755)
    command = [sys.executable, "-m", "ha_qnx", "doctor", "--setup", str(above / "run"), "--servers", str(os.getgid())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # our own command
    monkeypatch.setenv("HA_QNX_RUNTIME", str(above / "run"))
    yield
    shutil.rmtree(above)


@pytest.mark.usefixtures("shared")
@pytest.mark.skipif(host.PORTABLE, reason="only Linux gives a pipe that was passed a description of its own")
@pytest.mark.parametrize("backend", ["fallback", "native"])
def test_a_pipe_that_a_server_may_not_open_is_refused(backend: str) -> None:
    """Its owner could make it wait, for any time; others are served as before."""
    server = subprocess.Popen(  # noqa: S603  # our own server
        [sys.executable, "-c", SERVER, backend], stdout=subprocess.PIPE, text=True
    )
    with contextlib.ExitStack() as stack:
        stack.callback(server.communicate)
        stack.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == "attached\n"
        for what, said in (("passes", "7"), ("withholds", "refused"), ("passes", "7")):
            client = [sys.executable, "-c", CLIENT, what]
            done = subprocess.run(client, timeout=DEADLINE, capture_output=True, text=True, check=False)  # noqa: S603
            assert done.stdout == said + "\n", done.stderr
