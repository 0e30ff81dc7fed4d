"""The binding to libha when luck is bad: files that are no libha, and recovery functions that do what they must not."""

import os
import pathlib
import subprocess
import sys
import textwrap
import types
from typing import Any, Callable, Dict, List

import pytest

import ha_qnx
from ha_qnx import abi, backends
from ha_qnx.native.kernel import NativeKernel
from ha_qnx.native.libraries import Libraries

pytestmark = pytest.mark.slow

RECOVERIES = pathlib.Path(__file__).parents[2] / "ci" / "recoveries.py"

# Libraries.


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test loads for itself."""
    monkeypatch.setattr(backends, "_made", {})


def why_not(monkeypatch: pytest.MonkeyPatch, library: object) -> str:
    """What is said of a library that HA_QNX_LIBHA names and that cannot be used."""
    monkeypatch.setenv("HA_QNX_LIBHA", str(library))
    with pytest.raises(ha_qnx.BackendUnavailableError) as raised:
        ha_qnx.backend("native")
    (candidate,) = raised.value.candidates
    assert candidate.name == "native"
    return candidate.reason


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """It is named."""
    missing = tmp_path / "libha.so.2"
    assert why_not(monkeypatch, missing).startswith(f"{missing}: cannot open shared object file")


def test_an_installation_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedies are named."""
    monkeypatch.delenv("HA_QNX_LIBHA", raising=False)
    monkeypatch.setattr("ha_qnx.native.libraries._OWN_NAME", "libha_nowhere.so")
    with pytest.raises(ha_qnx.BackendUnavailableError, match=r"has no libha_nowhere\.so: install a platform wheel"):
        ha_qnx.backend("native")


@pytest.mark.parametrize("content", [b"", b"no library, whatever its name\n", bytes(100_000)])
def test_a_file_that_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, content: bytes) -> None:
    """It is named, with what the loader says."""
    path = tmp_path / "libha.so.2"
    path.write_bytes(content)
    reason = why_not(monkeypatch, path)
    assert reason.startswith(f"{path}: ")
    assert "file too short" in reason or "invalid ELF header" in reason


def test_a_directory_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """It is named, too."""
    assert why_not(monkeypatch, tmp_path).startswith(f"{tmp_path}: ")


def test_a_library_of_the_other_word_size(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, libha: str) -> None:
    """It is named, and said to be of the wrong class."""
    content = bytearray(pathlib.Path(libha).read_bytes())
    assert content[4] in (1, 2)  # EI_CLASS: 32 or 64 bits.
    content[4] = 3 - content[4]
    other = tmp_path / "libha.so.2"
    other.write_bytes(content)
    assert why_not(monkeypatch, other).startswith(f"{other}: wrong ELF class: ELFCLASS{32 * content[4]}")


def test_a_library_that_is_something_else(monkeypatch: pytest.MonkeyPatch, compile_c: Callable[..., str]) -> None:
    """On a host, only libha for POSIX hosts will do, and it says that it is."""
    other = compile_c("libother.so", "-shared", "-fPIC", source="int other(void) { return 0; }")
    assert why_not(monkeypatch, other).startswith(f"{other}: it does not export ha_posix_version")


def test_a_library_without_a_symbol(monkeypatch: pytest.MonkeyPatch, compile_c: Callable[..., str]) -> None:
    """All that are missing and needed are named, but none that there is a substitute for."""
    source = 'const char *ha_posix_version(void) { return "libha for POSIX 0"; } int ha_attach(void) { return 0; }'
    poor = compile_c("libpoor.so", "-shared", "-fPIC", source=source)
    where, _colon, names = why_not(monkeypatch, poor).partition(": it does not export ")
    lacking = names.split(", ")
    assert where == poor
    assert {"ChannelCreate", "MsgSendPulse", "ha_ReConnectAttach", "ha_detach", "open"} <= set(lacking)
    assert "ha_attach" not in lacking
    assert not [name for name in lacking if name.endswith(("_r", "64"))]


# On QNX, as far as a host can tell: the kernel calls are in the process from the start, as those of libc are there, and
# another library covers them.

AS_ON_QNX = """
import os, sys, types
import ha_qnx
from ha_qnx.native import libraries
sys.platform = "qnx"
os.uname = lambda: types.SimpleNamespace(release={release!r})
"""
PLAIN_LIBC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>

/* libc's own, which recover nothing. */
#define WITHOUT_RECOVERY(NAME, PARAMETERS, ARGUMENTS) \
    int NAME PARAMETERS \
    { \
        int (*control)(int, int, void *) = (int (*)(int, int, void *))dlsym(RTLD_NEXT, "ha_connection_ctrl"); \
        int (*call) PARAMETERS = (int (*) PARAMETERS)dlsym(RTLD_NEXT, #NAME); \
        control(coid, 3, 0); /* HA_RECOVERY_SUSPEND */ \
        int result = call ARGUMENTS, number = errno; \
        control(coid, 4, 0); /* HA_RECOVERY_ENABLE */ \
        errno = number; \
        return result; \
    }

WITHOUT_RECOVERY(MsgSendPulse, (int coid, int priority, int code, int value), (coid, priority, code, value))
WITHOUT_RECOVERY(ionotify, (int coid, int action, int flags, void *event), (coid, action, flags, event))
"""
LIBHA_2 = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

#define FORWARD(NAME, PARAMETERS, ARGUMENTS) \
    int NAME PARAMETERS \
    { \
        return ((int (*) PARAMETERS)dlsym(RTLD_DEFAULT, #NAME)) ARGUMENTS; \
    }
#define UNUSED(NAME) int NAME(void) { return -1; }

typedef int (*RFp)(int, void *);
FORWARD(ha_attach, (int a, RFp b, void *c, unsigned d), (a, b, c, d))
FORWARD(ha_detach, (int a), (a))
FORWARD(ha_connection_ctrl, (int a, int b, void *c), (a, b, c))
FORWARD(ha_ConnectAttach, (uint32_t a, int32_t b, int c, unsigned d, unsigned e, RFp f, void *g, unsigned h),
        (a, b, c, d, e, f, g, h))
FORWARD(ha_ConnectDetach, (int a), (a))
FORWARD(ha_ReConnectAttach, (int a, uint32_t b, int32_t c, int d, unsigned e, unsigned f), (a, b, c, d, e, f))
UNUSED(ha_open) UNUSED(ha_creat) UNUSED(ha_reopen) UNUSED(ha_close) UNUSED(ha_dup)
"""


@pytest.fixture
def run_on_qnx(
    compile_c: Callable[..., str], libha: str, tmp_path: pathlib.Path, runtime_directory: pathlib.Path
) -> Callable[..., str]:
    """Runs a program as on QNX: ``run_on_qnx(release, source)`` returns what it has printed."""
    preloaded = compile_c("libplain.so", "-shared", "-fPIC", source=PLAIN_LIBC)
    environment = {
        "LD_PRELOAD": f"{preloaded}:{libha}",
        "HA_QNX_LIBHA": compile_c("libha.so.2", "-shared", "-fPIC", source=LIBHA_2),
    }
    return lambda release, source: run(AS_ON_QNX.format(release=release) + source, tmp_path, environment)


def run(source: str, directory: pathlib.Path, environment: Dict[str, str]) -> str:
    """Run a program, which must end well and say nothing to stderr; returns what it has printed."""
    completed = subprocess.run(  # noqa: S603  # our own source, in our own interpreter
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(source)],
        cwd=directory,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    return completed.stdout


@pytest.mark.parametrize(
    ("release", "model"), [("7.0.0", "LP64, SDP 7.x"), ("7.1.0", "LP64, SDP 7.x"), ("8.0.0", "LP64, SDP 8.x")]
)
def test_the_release_chooses_the_declarations(run_on_qnx: Callable[..., str], release: str, model: str) -> None:
    """A library that does not say what it is has those of the system, and the reason is told."""
    # The library that stands for libc here has one of those that 8.0 has no more.
    eight = "libraries._BEFORE_8 = ('MsgReadiov', 'MsgKeyData'); " if release == "8.0.0" else ""
    show = "found = libraries.Libraries(True); print(found.model.name, found.reason, sep='|')"
    printed = run_on_qnx(release, eight + show)
    found, reason = printed.strip().split("|")
    assert found == model
    assert "pointers have 64 bits" in reason
    assert release in reason


@pytest.mark.parametrize("release", ["6.6.0", "9.0", "6.1.0-18-amd64"])
def test_an_unknown_release_is_refused(monkeypatch: pytest.MonkeyPatch, libha: str, release: str) -> None:
    """The sentence names it."""
    monkeypatch.setattr("sys.platform", "qnx")
    monkeypatch.setattr("os.uname", lambda: types.SimpleNamespace(release=release))
    monkeypatch.setattr("ha_qnx.native.libraries._version_of", lambda library: None)
    assert f"the release {release}" in why_not(monkeypatch, libha).replace("'", "")


def test_a_release_that_its_libc_belies_is_refused(monkeypatch: pytest.MonkeyPatch, libha: str) -> None:
    """What calls itself 8.0, with a function that 8.0 has no more, is unknown."""
    monkeypatch.setattr("sys.platform", "qnx")
    monkeypatch.setattr("os.uname", lambda: types.SimpleNamespace(release="8.0.0"))
    monkeypatch.setattr("ha_qnx.native.libraries._version_of", lambda library: None)
    monkeypatch.setattr("ha_qnx.native.libraries._BEFORE_8", ("printf", "MsgReadiov"))
    assert "the release 8.0.0 whose libc has printf is not known" in why_not(monkeypatch, libha)


def test_what_libc_lacks_is_not_laid_to_libha(monkeypatch: pytest.MonkeyPatch, compile_c: Callable[..., str]) -> None:
    """Both files are named, each with its own symbols."""
    monkeypatch.setattr("sys.platform", "qnx")
    monkeypatch.setattr("os.uname", lambda: types.SimpleNamespace(release="7.1.0"))
    poor = compile_c("libha.so.2", "-shared", "-fPIC", source="int ha_attach(void) { return 0; }")
    of_libha, of_libc = why_not(monkeypatch, poor).split("; ")
    assert of_libha.startswith(f"{poor}: it does not export ha_ConnectAttach, ")
    assert "ChannelCreate" not in of_libha
    assert of_libc.startswith("libc: it does not export ChannelCreate, ")
    assert "ha_" not in of_libc


def test_what_libha_does_not_cover_has_a_substitute(run_on_qnx: Callable[..., str]) -> None:
    """What is missing is listed, each with what takes its place."""
    printed = run_on_qnx(
        "7.1.0",
        "found = libraries.Libraries(True)\nfor name in found.missing: print(name, found.substitute(name), sep=': ')",
    )
    lines = printed.splitlines()
    assert "MsgSendPulse: libc's, which ha_qnx makes recover" in lines
    assert "MsgSend: libc's, which does not recover" in lines
    assert "MsgSend_r: MsgSend, whose errno is returned" in lines
    assert "ha_open64: ha_open" in lines
    assert not [line for line in lines if line.startswith(("ha_attach", "ChannelCreate:"))]


def test_pulses_recover_with_a_libha_that_does_not_cover_them(run_on_qnx: Callable[..., str]) -> None:
    """ha_qnx covers them instead (D11): they recover, unless that is suspended, and what is raised is the cause."""
    run_on_qnx(
        "7.1.0",
        """
from errno import EBADF, ESRCH
from ha_qnx.constants import HA_RECOVERY_ENABLE, HA_RECOVERY_SUSPEND, NTO_SIDE_CHANNEL
import logging
logging.getLogger("ha_qnx").addHandler(logging.NullHandler())
qnx = ha_qnx.backend("native")
assert "MsgSendPulse" in qnx.libraries.missing
channels = [qnx.ChannelCreate()]
calls = []

def lose():
    qnx.ChannelDestroy(channels.pop())

def recover(coid, handle):
    calls.append(handle)
    if handle == "raise":
        raise RuntimeError("no server")
    try:
        qnx.MsgSendPulse(coid, 10, 1, 2)
    except OSError as error:
        assert error.errno in (EBADF, ESRCH), error  # Plain in here (D10).
    else:
        raise AssertionError("the pulse was sent")
    channels.append(qnx.ChannelCreate())
    return qnx.ha_ReConnectAttach(coid, 0, 0, channels[0], NTO_SIDE_CHANNEL, 0)

def fails(coid):
    try:
        qnx.MsgSendPulse(coid, 10, 1, 2)
    except OSError as error:
        assert error.errno in (EBADF, ESRCH), error
        assert qnx.MsgSendPulse_r(coid, 10, 1, 2) in (-EBADF, -ESRCH)
        return error
    raise AssertionError("the pulse was sent")

coid = qnx.ha_ConnectAttach(0, 0, channels[0], NTO_SIDE_CHANNEL, 0, recover, "handle")
lose()
assert qnx.MsgSendPulse(coid, 10, 1, 2) == 0
assert calls == ["handle"]
lose()
assert qnx.MsgSendPulse_r(coid, 10, 1, 2) == 0
assert calls == ["handle"] * 2
lose()
qnx.ha_connection_ctrl(coid, HA_RECOVERY_SUSPEND)
assert fails(coid).__cause__ is None
assert calls == ["handle"] * 2
qnx.ha_connection_ctrl(coid, HA_RECOVERY_ENABLE)
qnx.ha_attach(coid, recover, "raise", ha_qnx.HAREPLACERECOVERYFN)
assert isinstance(fails(coid).__cause__, RuntimeError)
qnx.ha_detach(coid)
calls.clear()
assert fails(coid).__cause__ is None
assert calls == []
""",
    )


def test_ionotify_recovers_where_it_is_that_of_libc(run_on_qnx: Callable[..., str]) -> None:
    """ha_qnx covers it, too (D111): the next server is asked; what is not recovered is the error of the call."""
    run_on_qnx(
        "7.1.0",
        """
from errno import EBADF, ESRCH
from ha_qnx import NOTIFY_ACTION_POLLARM, NOTIFY_COND_INPUT
from ha_qnx.constants import NTO_SIDE_CHANNEL
from ha_qnx.iomessages import notify_reply
import logging, threading
logging.getLogger("ha_qnx").addHandler(logging.NullHandler())
qnx = ha_qnx.backend("native")
calls = []

def serve(chid):
    while True:
        try:
            qnx.MsgReply(qnx.MsgReceive(chid, bytearray(100)), 0, notify_reply(NOTIFY_COND_INPUT))
        except OSError:
            return

def start():
    channels.append(qnx.ChannelCreate())
    threading.Thread(target=serve, args=channels[-1:], daemon=True).start()

def recover(coid, handle):
    calls.append(handle)
    if handle == "raise":
        raise RuntimeError("no server")
    start()
    return qnx.ha_ReConnectAttach(coid, 0, 0, channels[0], NTO_SIDE_CHANNEL, 0)

def ask():
    return qnx.ionotify(coid, NOTIFY_ACTION_POLLARM, NOTIFY_COND_INPUT)

channels = []
start()
coid = qnx.ha_ConnectAttach(0, 0, channels[0], NTO_SIDE_CHANNEL, 0, recover, "handle")
assert ask() == NOTIFY_COND_INPUT
qnx.ChannelDestroy(channels.pop())
assert ask() == NOTIFY_COND_INPUT
assert calls == ["handle"]
qnx.ha_attach(coid, recover, "raise", ha_qnx.HAREPLACERECOVERYFN)
qnx.ChannelDestroy(channels.pop())
try:
    ask()
except OSError as error:
    assert error.errno in (EBADF, ESRCH), error
    assert isinstance(error.__cause__, RuntimeError)
else:
    raise AssertionError("nobody can have answered")
""",
    )


# Recovery functions. Each program has its connection and its server to itself, and must end well.

PROGRAM = """
import ctypes, errno, gc, logging, os, sys, threading, warnings, weakref
from errno import EBADF, EINVAL, ESRCH
import ha_qnx
from ha_qnx.constants import NTO_SIDE_CHANNEL

logging.getLogger("ha_qnx").addHandler(logging.NullHandler())
qnx = ha_qnx.backend("native")
threads = []

def give_up(*error):
    sys.__excepthook__(*error)
    sys.stderr.flush()
    os._exit(1)  # Whatever other threads wait for.

sys.excepthook = give_up

def make_server(daemon=False):
    chid = qnx.ChannelCreate()

    def serve():
        room = bytearray(100)
        try:
            while True:
                rcvid = qnx.MsgReceive(chid, room)
                if rcvid:
                    qnx.MsgReply(rcvid, 7, b"reply")
        except OSError as error:
            assert error.errno == ESRCH, error

    thread = threading.Thread(target=serve, daemon=daemon)
    thread.start()
    if not daemon:
        threads.append(thread)
    return chid

def end_server(chid):
    qnx.ChannelDestroy(chid)
    for thread in threads:
        thread.join()

def attach(chid, function, handle=None):
    return qnx.ha_ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, 0, function, handle)

def reconnect(coid, chid):
    return qnx.ha_ReConnectAttach(coid, 0, 0, chid, NTO_SIDE_CHANNEL, 0)

def fails(call, *arguments):
    try:
        result = call(*arguments)
    except OSError as error:
        return error
    raise AssertionError(result)

def send(coid):
    reply = bytearray(5)
    status = qnx.MsgSend(coid, b"message", reply)
    assert reply == b"reply", reply
    return status
"""
# What C programs do: calls on threads that Python did not start.
HELPER = r"""
#include <errno.h>
#include <pthread.h>
#include <stddef.h>

struct job {
    long (*send)(int, const void *, size_t, void *, size_t);
    int (*recover)(int, void *);
    int coid;
    void *handle;
    long result;
    int number;
};

static void *do_job(void *argument)
{
    struct job *job = argument;
    char reply[5];
    if (job->send)
        job->result = job->send(job->coid, "message", 7, reply, sizeof reply);
    else
        job->result = job->recover(job->coid, job->handle);
    job->number = errno;
    return NULL;
}

static long run(struct job *job)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, do_job, job) || pthread_join(thread, NULL))
        return -2;
    errno = job->number;
    return job->result;
}

long send_on_a_thread(long (*send)(int, const void *, size_t, void *, size_t), int coid)
{
    struct job job = {.send = send, .coid = coid};
    return run(&job);
}

long recover_on_a_thread(int (*recover)(int, void *), int coid, void *handle)
{
    struct job job = {.recover = recover, .coid = coid, .handle = handle};
    return run(&job);
}
"""


@pytest.fixture
def run_program(
    compile_c: Callable[..., str], libha: str, tmp_path: pathlib.Path, runtime_directory: pathlib.Path
) -> Callable[[str], str]:
    """Runs a program with the backend native."""
    helper = compile_c("libhelper.so", "-shared", "-fPIC", source=HELPER)
    load = f"""
helper = ctypes.CDLL({helper!r}, use_errno=True)
helper.send_on_a_thread.restype = helper.recover_on_a_thread.restype = ctypes.c_long
helper.recover_on_a_thread.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
send_of_c = ctypes.CDLL({libha!r}).MsgSend
"""
    environment = {"HA_QNX_LIBHA": libha, "HA_QNX_BACKEND": "native"}
    return lambda source: run(PROGRAM + load + source, tmp_path, environment)


@pytest.fixture
def run_recoveries(libha: str, tmp_path: pathlib.Path, runtime_directory: pathlib.Path) -> Callable[..., Any]:
    """Runs ci/recoveries.py."""

    def recover(*options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603  # our own program
            [sys.executable, str(RECOVERIES), *options],
            cwd=tmp_path,
            env={**os.environ, "HA_QNX_LIBHA": libha},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )

    return recover


def test_a_call_that_comes_after_ha_detach_finds_solid_ground(run_program: Callable[[str], str]) -> None:
    """Its token is unknown by then: nothing is recovered, and the function, long collected, is not called."""
    run_program(
        """
class Handle: pass

def make(calls):
    return lambda coid, handle: calls.append(coid) or coid

calls, handle, chid = [], Handle(), make_server()
coid = attach(chid, make(calls), handle)
token = qnx._by_coid[coid].token
callback = ctypes.cast(qnx._callback, ctypes.c_void_p)
assert helper.recover_on_a_thread(callback, coid, token) == coid
assert calls == [coid]
there = weakref.ref(handle)
del handle
gc.collect()
assert there() is not None
qnx.ha_detach(coid)
gc.collect()
assert there() is None
for stale in (token, 0, 2**63):
    assert helper.recover_on_a_thread(callback, coid, stale) == -1
    assert qnx._callback(coid, stale) == -1
assert calls == [coid]
end_server(chid)
assert fails(send, coid).__cause__ is None
"""
    )


@pytest.mark.parametrize("call", ["ConnectDetach", "ha_ConnectDetach", "ha_detach", "close"])
def test_a_recovery_function_ends_its_own_connection(run_program: Callable[[str], str], call: str) -> None:
    """Whatever it claims, the connection is lost: the send fails, and nothing is left that could be called again."""
    run_program(
        f"""
calls = []

def recover(coid, handle):
    calls.append(coid)
    try:
        qnx.{call}(coid)
    except OSError:
        return -1
    return coid

chid = make_server()
coid = attach(chid, recover)
end_server(chid)
assert fails(send, coid).errno == EBADF
assert 1 <= len(calls) <= 2, calls
chid = make_server()
other = qnx.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, 0)
assert send(other) == 7
end_server(chid)
"""
    )


def test_a_recovery_function_forks(run_program: Callable[[str], str]) -> None:
    """It returns through the library in the child as in its parent, and both end well."""
    run_program(
        """
warnings.simplefilter("ignore", DeprecationWarning)  # Of fork, where there are threads.
children = []

def recover(coid, handle):
    children.append(os.fork())
    return reconnect(coid, later) if children[0] else -1

chid, later = make_server(), make_server()
coid = attach(chid, recover)
qnx.ChannelDestroy(chid)
try:
    assert send(coid) == 7
except OSError as error:
    # In the child, which has no side channels.
    assert (children, error.errno) == ([0], EBADF)
    qnx.ChannelDestroy(qnx.ChannelCreate())
    os._exit(40)  # Python 3.8 cannot end a forked child otherwise, in its development mode.
assert os.WEXITSTATUS(os.waitpid(children[0], 0)[1]) == 40
assert send(coid) == 7
end_server(later)
"""
    )


@pytest.mark.parametrize("error", ["ValueError", "KeyboardInterrupt", "SystemExit", "MemoryError"])
def test_a_recovery_function_raises(run_program: Callable[[str], str], error: str) -> None:
    """Of an Exception, the call's own error is raised; another one passes through. The next recovery is as usual."""
    run_program(
        f"""
def recover(coid, handle):
    if handle:
        raise handle.pop()
    return reconnect(coid, chid)

raised = {error}("no server")
chid = make_server()
coid = attach(chid, recover, [raised])
end_server(chid)
chid = make_server()
try:
    send(coid)
except BaseException as error:
    if isinstance(raised, Exception):
        assert (error.errno, error.__cause__) == (EBADF, raised)
    else:
        assert error is raised
else:
    raise AssertionError("sent")
assert send(coid) == 7
end_server(chid)
error = fails(qnx.MsgSend, coid + 1, b"", bytearray(1))
assert (error.errno, error.__cause__) == (EBADF, None)
"""
    )


@pytest.mark.parametrize("result", ["None", "'1'", "1.0", "2**70", "-2**70", "object()"])
def test_a_recovery_function_returns_no_number_of_c(run_program: Callable[[str], str], result: str) -> None:
    """That counts as -1 (D12), and nothing is written to stderr about it."""
    run_program(
        f"""
chid = make_server()
coid = attach(chid, lambda coid, handle: {result})
end_server(chid)
assert fails(send, coid).errno == EBADF
"""
    )


def test_a_thread_that_python_did_not_start_recovers(run_program: Callable[[str], str]) -> None:
    """It calls the function like any other thread, again and again, and its message gets through."""
    run_program(
        """
here = threading.get_ident()
calls = []

def recover(coid, handle):
    assert handle == "handle"
    calls.append(threading.get_ident())
    return reconnect(coid, chid)

chid = make_server()
coid = attach(chid, recover, "handle")
for count in range(1, 21):
    end_server(chid)
    chid = make_server()
    assert helper.send_on_a_thread(send_of_c, coid) == 7
    assert len(calls) == count
assert here not in calls
end_server(chid)
"""
    )


def test_a_recovery_function_raises_on_a_thread_that_python_did_not_start(run_program: Callable[[str], str]) -> None:
    """C sees the error of the call; no exception is printed, or turns up in another thread."""
    run_program(
        """
def recover(coid, handle):
    raise handle

chid = make_server()
for error in (ValueError("no server"), KeyboardInterrupt(), SystemExit(3)):
    coid = attach(chid, recover, error)
    qnx.ha_attach(coid, recover, error, ha_qnx.HAREPLACERECOVERYFN)
    lost = qnx.ChannelCreate()
    reconnect(coid, lost)
    qnx.ChannelDestroy(lost)
    assert helper.send_on_a_thread(send_of_c, coid) == -1
    assert ctypes.get_errno() == EBADF
    assert fails(qnx.MsgReceive, 99, bytearray(1)).__cause__ is None
    qnx.ha_ConnectDetach(coid)
end_server(chid)
"""
    )


def test_a_recovery_function_runs_when_the_interpreter_ends(run_program: Callable[[str], str]) -> None:
    """A message that is sent at the very end is recovered like any other; threads that receive then hold up nothing."""
    printed = run_program(
        """
import atexit

@atexit.register
def say_goodbye():
    print(send(coid))

chid, later = make_server(), make_server(daemon=True)
coid = attach(chid, lambda coid, handle: reconnect(coid, later))
end_server(chid)
"""
    )
    assert printed == "7\n"


# What other threads do meanwhile, between the end of a C function and the next step of Python.

MEANWHILE = """
from errno import EINTR
from ha_qnx.constants import HA_RECOVERY_ICOUNT, HA_RECOVERY_SUSPEND

def replace(name, replacement):
    function = qnx._c[name]

    def call(*arguments):
        qnx._c[name] = function
        return replacement(function, *arguments)

    qnx._c[name] = call

def meanwhile(name, action, *arguments):
    def call(function, *those):
        result = function(*those)
        action(*arguments)
        return result

    replace(name, call)

def fail(name, result=-1):
    def call(function, *arguments):
        ctypes.set_errno(EINTR)
        return result

    replace(name, call)

def is_known(coid):
    assert qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 5) == 0
    assert qnx._by_token[qnx._by_coid[coid].token].coids == {coid}
    return coid in qnx.descriptors

calls = []

def recover(coid, handle):
    calls.append(coid)
    return -1

chid = qnx.ChannelCreate()
"""


@pytest.mark.parametrize("end", ["ha_ConnectDetach", "ha_ConnectDetach_r", "ConnectDetach", "name_close"])
def test_the_number_of_an_ended_connection_is_anothers_at_once(run_program: Callable[[str], str], end: str) -> None:
    """Its end takes away nothing of what is known of the new one."""
    run_program(
        f"""{MEANWHILE}
connections = [attach(chid, recover)]
meanwhile({end!r}, lambda: connections.append(attach(chid, recover)))
assert qnx.{end}(connections[0]) == 0
old, new = connections
assert old == new
assert is_known(new)
"""
    )


def test_a_connection_is_attached_again_at_once(run_program: Callable[[str], str]) -> None:
    """The end of its old attachment takes away nothing of the new one."""
    run_program(
        f"""{MEANWHILE}
coid = attach(chid, recover)
meanwhile("ha_detach", lambda: qnx.ha_attach(coid, recover))
qnx.ha_detach(coid)
assert is_known(coid)
"""
    )


@pytest.mark.parametrize(
    ("end", "function", "result"),
    [
        ("ha_detach", "ha_detach", -1),
        ("ha_ConnectDetach", "ha_ConnectDetach", -1),
        ("ha_ConnectDetach_r", "ha_ConnectDetach_r", -4),
        ("ha_close", "close", -1),
        ("ConnectDetach", "ConnectDetach", -1),
    ],
)
def test_a_connection_that_does_not_end_stays_as_it_is(
    run_program: Callable[[str], str], end: str, function: str, result: int
) -> None:
    """It is HA-aware, known, and has its limits and its counts."""
    run_program(
        f"""{MEANWHILE}
coid, limited = attach(chid, recover), attach(chid, recover)
qnx.ha_connection_ctrl(limited, HA_RECOVERY_ICOUNT, 0)
for number in (coid, limited):
    fail({function!r}, {result})
    try:
        assert qnx.{end}(number) == -EINTR
    except OSError as error:
        assert error.errno == EINTR, error
assert is_known(coid)
qnx.ChannelDestroy(chid)
fails(send, limited)
assert calls == []
fails(send, coid)
assert calls == [coid]
assert ha_qnx.stats(coid).failures == 1
fail({function!r}, {result})
try:
    qnx.{end}(coid)
except OSError:
    pass
assert ha_qnx.stats(coid).failures == 1
"""
    )


@pytest.mark.parametrize("wrong", ["'1'", "999", "1 << 40", "chid"])
@pytest.mark.parametrize("control", ["HA_RECOVERY_SUSPEND", "HA_RECOVERY_ICOUNT, 0"])
def test_a_connection_outlives_a_dup2_that_fails(run_program: Callable[[str], str], wrong: str, control: str) -> None:
    """It is as suspended or as limited as before, whether the other descriptor is wrong or closed meanwhile."""
    run_program(
        f"""{MEANWHILE}
fd = qnx.ha_ConnectAttach(0, 0, chid, 0, 0, recover)
qnx.ha_connection_ctrl(fd, {control})
other = {wrong}
if other == chid:
    other = qnx.ConnectAttach(0, 0, chid, 0)
    fail("dup2")
try:
    qnx.dup2(other, fd)
except (OSError, TypeError, ValueError):
    pass
else:
    raise AssertionError("duplicated")
qnx.ChannelDestroy(chid)
fails(send, fd)
assert calls == []
assert is_known(fd)
"""
    )


def test_the_original_of_a_duplicate_is_closed_at_once(run_program: Callable[[str], str]) -> None:
    """The duplicate has the attachment all the same."""
    run_program(
        f"""{MEANWHILE}
def serve():
    room = bytearray(100)
    for _message in range(2):
        qnx.MsgReply(qnx.MsgReceive(chid, room), 0)

server = threading.Thread(target=serve, daemon=True)
server.start()
fd = qnx.ha_ConnectAttach(0, 0, chid, 0, 0, recover)
meanwhile("ha_dup", qnx.close, fd)
copy = qnx.ha_dup(fd)
server.join()
qnx.ChannelDestroy(chid)
fails(send, copy)
assert calls == [copy]
assert is_known(copy)
"""
    )


def test_a_recovery_function_gets_its_own_handle(run_program: Callable[[str], str]) -> None:
    """Whenever another thread replaces the two."""
    run_program(
        f"""{MEANWHILE}
def set_number(number, flags=ha_qnx.HAREPLACERECOVERYFN):
    qnx.ha_attach(coid, lambda coid, handle: calls.append((number, handle)) or -1, number, flags)

def trace(frame, what, argument):
    if frame.f_code is not type(qnx)._recover.__code__:
        return None
    frame.f_trace_opcodes = True
    numbers.append(len(numbers))
    set_number(numbers[-1])
    return trace

numbers = [0]
coid = qnx.ConnectAttach(0, 0, chid)
set_number(0, 0)
sys.settrace(trace)
qnx._recover(coid, qnx._by_coid[coid].token)
sys.settrace(None)
((number, handle),) = calls
assert 0 < number == handle, calls
"""
    )


# What C must not be passed, and what must not be held.


@pytest.mark.parametrize("name", ["native", "hybrid"])
def test_only_a_message_info_is_filled_in(run_program: Callable[[str], str], name: str) -> None:
    """Another object of ctypes may be smaller than what is written there: it is a TypeError."""
    run_program(
        f"""
qnx = ha_qnx.backend({name!r})
chid = qnx.ChannelCreate()
coid = qnx.ConnectAttach(0, 0, chid)
room = bytearray(100)
qnx.MsgSendPulse(coid, 10, 1, 2)
for info in (ctypes.c_uint64(), ctypes.c_int(), (ctypes.c_char * 200)(), bytearray(200), 0):
    for call, arguments in (
        (qnx.ConnectServerInfo, (0, coid)),
        (qnx.MsgReceive, (chid, room)),
        (qnx.MsgReceivev, (chid, [room])),
        (qnx.MsgReceivePulse, (chid, room)),
    ):
        try:
            call(*arguments, info)
        except TypeError as error:
            assert "MessageInfo" in str(error), error
        else:
            raise AssertionError(call)
assert qnx.MsgReceive(chid, room, ha_qnx.MessageInfo()) == 0
"""
    )


def test_an_unknown_flag_is_returned(run_program: Callable[[str], str]) -> None:
    """As ha_ConnectAttach_r returns all errors."""
    run_program(
        """
chid = qnx.ChannelCreate()
assert qnx.ha_ConnectAttach_r(0, 0, chid, NTO_SIDE_CHANNEL, 0, print, None, 2) == -EINVAL
"""
    )


def test_a_connection_is_ended_by_any_integer(run_program: Callable[[str], str]) -> None:
    """What has ``__index__`` names the same connection."""
    run_program(
        """
class Number:
    def __init__(self, number):
        self.number = number
    def __index__(self):
        return self.number

chid = qnx.ChannelCreate()
for end in (qnx.ConnectDetach, qnx.ha_ConnectDetach, qnx.ha_ConnectDetach_r):
    coid = attach(chid, print)
    assert end(Number(coid)) == 0
    assert coid not in qnx.descriptors
    assert not qnx._by_coid
"""
    )


def test_a_child_attaches_a_name_while_its_parent_does(run_program: Callable[[str], str]) -> None:
    """Whatever a thread of the parent is about to do with its own names, nothing is held that the child waits for."""
    run_program(
        """
import signal
warnings.simplefilter("ignore", DeprecationWarning)  # Of fork, where there are threads.

class Names(dict):
    def __setitem__(self, name, address):
        super().__setitem__(name, address)
        if name.path == "two":
            os._exit(40)
        children.append(os.fork())
        if not children[0]:
            signal.alarm(10)  # It ends a child that waits in vain.
            qnx.name_attach("two")

children = []
qnx._names = Names()
name = qnx.name_attach("one")
status = os.waitpid(children[0], 0)[1]
assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 40, status
qnx.name_detach(name)
"""
    )


# Paths.


def test_a_channel_has_one_dispatch_handle_for_good(run_program: Callable[[str], str]) -> None:
    """It is made when a path is first attached to it, and never destroyed, which would destroy the channel."""
    run_program(
        """
made = []
create = qnx._c["dispatch_create_channel"]
qnx._c["dispatch_create_channel"] = lambda chid, flags: made.append(chid) or create(chid, flags)
qnx._c["dispatch_destroy"] = None  # Not to be called.
chid, other = qnx.ChannelCreate(), qnx.ChannelCreate()
assert [qnx.resmgr_attach(chid, path) for path in ("/dev/a", b"/dev/b", "/dev/b")] == [0, 1, 2]
assert qnx.resmgr_attach(other, "/dev/a") == 3
assert made == [chid, other]
assert qnx.resmgr_detach(1) == 0
assert fails(qnx.resmgr_detach, 1).errno == errno.ENOENT
assert fails(qnx.resmgr_detach, 0, 0x80).errno == EINVAL
assert qnx.resmgr_attach(chid, "/dev/c") == 1
qnx.ChannelDestroy(chid)
assert qnx.resmgr_detach(0) == 0  # What was attached stays so until then.
again = qnx.ChannelCreate()
assert again == chid
assert qnx.resmgr_attach(again, "/dev/a") == 0
assert made == [chid, other]
"""
    )


def test_a_path_that_cannot_be_attached(run_program: Callable[[str], str]) -> None:
    """What is wrong is said before the library is called; the error names the path."""
    run_program(
        """
qnx._c["resmgr_attach"] = None  # Not to be called.
chid = qnx.ChannelCreate()
for path in ("/dev/name", "/dev/name/local/x", "/dev/x/../name/x", "/dev/a\\0b", b"/dev/a\\0b"):
    error = fails(qnx.resmgr_attach, chid, path)
    assert (error.errno, error.filename) == (EINVAL, os.fsdecode(path)), error
for call in (qnx.open, lambda path, oflag: qnx.ha_open(path, oflag, print)):
    error = fails(call, "/dev/name/local/x", os.O_RDWR)
    assert (error.errno, error.filename) == (EINVAL, "/dev/name/local/x"), error
    assert "name_open" in str(error)
for path, wrong in ((7.5, TypeError), (None, TypeError)):
    try:
        qnx.resmgr_attach(chid, path)
    except wrong:
        continue
    raise AssertionError(path)
"""
    )


def test_paths_are_the_parents(run_program: Callable[[str], str]) -> None:
    """A child can neither detach what its parent serves, nor does its end end that."""
    run_program(
        """
warnings.simplefilter("ignore", DeprecationWarning)  # Of fork, where there are threads.
chid = make_server()
assert qnx.resmgr_attach(chid, "/dev/parents") == 0
child = os.fork()
if not child:
    assert fails(qnx.resmgr_detach, 0).errno == errno.ENOENT
    assert qnx.resmgr_attach(qnx.ChannelCreate(), "/dev/childs") == 0
    fd = qnx.open("/dev/parents", os.O_RDWR)
    os._exit(send(fd))
assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 7
assert qnx.resmgr_detach(0) == 0
end_server(chid)
"""
    )


def test_paths_without_dispatch_handles(run_program: Callable[[str], str]) -> None:
    """Where libc makes none, pathmgr_link attaches a path, with an id of ours; its link is closed to detach it."""
    run_program(
        """
links, closed = iter((1073741830, 1073741831, -1, 1073741832)), []

def pathmgr_link(*arguments):
    linked.append(arguments)
    result = next(links)
    if result < 0:
        ctypes.set_errno(errno.EPERM)
    return result

linked = []
for name in ("dispatch_create_channel", "dispatch_destroy", "resmgr_attach", "resmgr_detach"):
    del qnx._c[name]
qnx._c["pathmgr_link"] = pathmgr_link
qnx._c["close"] = lambda link: closed.append(link) or 0
assert [qnx.resmgr_attach(3, "/dev/a"), qnx.resmgr_attach(3, "/dev/b", 5, 0x101)] == [0, 1]
assert fails(qnx.resmgr_attach, 3, "/dev/c").errno == errno.EPERM
assert linked == [
    (b"/dev/a", 0, 0, 3, 0, 0, 0), (b"/dev/b", 0, 0, 3, 1, 5, 0x101), (b"/dev/c", 0, 0, 3, 2, 0, 0)
]
assert fails(qnx.resmgr_detach, 2).errno == errno.ENOENT
assert fails(qnx.resmgr_detach, 0, 1).errno == EINVAL
assert qnx.resmgr_detach(0) == 0
assert closed == [1073741830]
assert qnx.resmgr_attach(3, "/dev/c") == 0
assert fails(qnx.resmgr_detach, -1).errno == errno.ENOENT
"""
    )


# What recovery in Python makes of the kernel calls.


def test_a_number_stays_taken_while_its_server_has_not_come_back(run_program: Callable[[str], str]) -> None:
    """Recovery in Python connects elsewhere first: the old connection ends only when that has worked."""
    run_program(
        """
hybrid = ha_qnx.backend("hybrid")
kernel = hybrid._kernel
kernel.libraries.holds = False  # As on QNX.
detach, detached = kernel._c["ConnectDetach"], []
kernel._c["ConnectDetach"] = lambda coid: detached.append(coid) or detach(coid)
chid, other = hybrid.ChannelCreate(), hybrid.ChannelCreate()
for index in (0, NTO_SIDE_CHANNEL):
    coid = hybrid.ha_ConnectAttach(0, 0, chid, index, 0, print)
    hybrid.ChannelDestroy(chid)
    before = os.listdir("/proc/self/fd")
    for _try in range(3):
        assert fails(hybrid.ha_ReConnectAttach, coid, 0, 0, chid, index, 0).errno == ESRCH
    assert coid not in detached
    assert os.listdir("/proc/self/fd") == before  # Nothing is left of what was tried.
    assert fails(hybrid.MsgSendPulse, coid, 10, 1, 1).errno == EBADF
    assert hybrid.ha_ReConnectAttach(coid, 0, 0, other, index, 0) == coid
    assert detached.count(coid) == 1
    hybrid.MsgSendPulse(coid, 10, 1, 1)
    assert hybrid.MsgReceive(other, bytearray(100)) == 0
    hybrid.ha_ConnectDetach(coid)
    detached.clear()
    chid = hybrid.ChannelCreate()
"""
    )


@pytest.mark.parametrize("how", ["reopened", "connected again"])
def test_a_number_that_was_lost_to_a_file_is_not_closed(run_program: Callable[[str], str], how: str) -> None:
    """Where nothing holds a number while it is recovered, a file may get it: that is not closed with the connection."""
    run_program(
        f"""
hybrid = ha_qnx.backend("hybrid")
kernel = hybrid._kernel
kernel.libraries.holds = False
chid, other = hybrid.ChannelCreate(), hybrid.ChannelCreate()
coid = hybrid.ha_ConnectAttach(0, 0, chid, 0, 0, print)
detach, files = kernel._c["ConnectDetach"], []
def detach_and_open(number):
    result = detach(number)
    if number == coid and not files:
        files.append(os.open(os.devnull, os.O_RDONLY))
    return result
kernel._c["ConnectDetach"] = detach_and_open
hybrid.ChannelDestroy(chid)
if {how == "reopened"}:
    error = fails(hybrid.ha_reopen, coid, os.devnull, os.O_RDWR)
else:
    error = fails(hybrid.ha_ReConnectAttach, coid, 0, 0, other, 0, 0)
assert error.errno == EBADF
assert files == [coid]
before = os.fstat(coid)
assert fails(hybrid.ha_close, coid).errno == EBADF
assert os.path.samestat(os.fstat(coid), before)
os.close(coid)
assert hybrid.ConnectAttach(0, 0, other, 0) == coid
hybrid.MsgSendPulse(coid, 10, 1, 1)
hybrid.ConnectDetach(coid)
"""
    )


def test_a_side_channel_is_not_reopened(run_program: Callable[[str], str]) -> None:
    """The open of QNX gives descriptors only; the connection stays as it is."""
    run_program(
        """
hybrid = ha_qnx.backend("hybrid")
chid = hybrid.ChannelCreate()
coid = hybrid.ConnectAttach(0, 0, chid)
for path in ("/dev/null", "/dev/nobody"):
    assert fails(hybrid.ha_reopen, coid, path, os.O_RDWR).errno == EBADF
hybrid.MsgSendPulse(coid, 10, 1, 1)
assert hybrid.MsgReceive(chid, bytearray(100)) == 0
"""
    )


@pytest.mark.parametrize("model", abi.MODELS, ids=lambda model: str(model.name))
def test_a_number_that_c_cannot_hold_is_a_value_error(model: abi.Model) -> None:
    """Statuses and offsets have the widths of the data model, not those of this host."""
    passed: List[Any] = []

    def function(*arguments: Any) -> int:
        passed.append(arguments)
        return 0

    functions = dict.fromkeys(("MsgReply", "MsgRead"), function)
    kernel = NativeKernel(types.SimpleNamespace(functions=functions, model=model))  # type: ignore[arg-type]
    highest = (1 << (31 if model is abi.ILP32_6 else 63)) - 1
    for status in (highest, -highest - 1):
        kernel.MsgReply(1, status, None)
    kernel.MsgRead(1, None, highest)
    assert [arguments[1] for arguments in passed[:2]] == [highest, -highest - 1]
    assert passed[2][-1] == highest
    for call, number in (
        (kernel.MsgReply, highest + 1),
        (kernel.MsgReply, -highest - 2),
        (lambda rcvid, offset: kernel.MsgRead(rcvid, None, offset), highest + 1),
    ):
        with pytest.raises(ValueError, match="must be between"):
            call(1, number)
    assert len(passed) == 3


def test_recoveries_leave_nothing_behind(run_recoveries: Callable[..., Any]) -> None:
    """After 25,000 of them there is no more memory, no more descriptors, no more references than before."""
    outcome = run_recoveries("--count", "25000")
    assert outcome.returncode == 0, outcome.stdout


def test_the_model_of_the_library_for_posix_hosts(monkeypatch: pytest.MonkeyPatch, libha: str) -> None:
    """It says what it is, which settles the declarations; it lacks nothing."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    for with_libha in (True, False):
        found = Libraries(with_libha)
        assert found.path == libha
        assert (found.version or "").startswith("libha for POSIX ")
        assert found.model.name == "LP64, SDP 7.x"
        assert str(found.version) in found.reason
        assert list(found.missing) == []
