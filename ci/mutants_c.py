"""Break the rules of libha for POSIX (fallback/libha) one at a time, and see that the conformance suite notices each.

As ci/mutants.py does for the package: each mutant is a library built from a copy of the sources with one rule broken,
and the suite runs on the backend ``native`` with it until the first failure. It takes a quarter of an hour or so:

    python ci/mutants_c.py [--only NAME ...] [--jobs N]

Run it with an interpreter that has ha_qnx and pytest installed. It needs a C compiler and CMake.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Iterator, Tuple

from mutants import Mutant, Outcome, judge, noticing_test

import ha_qnx

SOURCES = pathlib.Path(__file__).resolve().parents[1] / "fallback" / "libha"

RECOVERY = "src/client/recovery.c"
ATTACHING = "src/calls/ha.c"
SEND = "src/calls/send.c"
EXCHANGE = "src/client/exchange.c"
CONNECTION = "src/client/connection.c"
CONNECTION_TABLE = "src/client/table.c"
LANE = "src/server/server_lane.c"
CLIENT = "src/server/client.c"
QUEUE = "src/server/queue.c"
RCVID = "src/server/rcvid.c"
THREAD = "src/host/thread.c"
INTAKE = "src/server/intake.c"
FILE = "src/calls/file.c"
RECEIVE = "src/calls/receive.c"
RUNTIME = "src/host/runtime.c"
HELD = "src/host/held.c"
IONOTIFY = "src/calls/ionotify.c"

MUTANTS = (
    # When to recover.
    Mutant(
        "recovers from EIO",
        "recovery",
        RECOVERY,
        "(error != EBADF && error != ESRCH))\n        return false;",
        "(error != EBADF && error != ESRCH && error != EIO))\n        return false;",
    ),
    Mutant(
        "recovers from any error",
        "recovery",
        RECOVERY,
        "(error != EBADF && error != ESRCH))\n        return false;",
        "!error)\n        return false;",
    ),
    Mutant(
        "recovers from EBADF only",
        "recovery",
        RECOVERY,
        "(error != EBADF && error != ESRCH))\n        return false;",
        "error != EBADF)\n        return false;",
    ),
    Mutant(
        "recovers from ESRCH only",
        "recovery",
        RECOVERY,
        "(error != EBADF && error != ESRCH))\n        return false;",
        "error != ESRCH)\n        return false;",
    ),
    Mutant(
        "takes any number for a recovery",
        "recovery",
        RECOVERY,
        "function(coid, handle) == coid;",
        "function(coid, handle) >= 0;",
    ),
    Mutant(
        "never starts ICOUNT anew",
        "recovery_limits",
        RECOVERY,
        "    if (attachment)\n        atomic_store(&attachment->icount, 0);\n",
        "",
    ),
    Mutant(
        "starts ICOUNT anew after a recovery",
        "recovery_limits",
        RECOVERY,
        "    atomic_store(&attachment->generation, new_generation());\n    return attachment->is_back;",
        "    atomic_store(&attachment->generation, new_generation());\n"
        "    if (attachment->is_back)\n        atomic_store(&attachment->icount, 0);\n"
        "    return attachment->is_back;",
    ),
    Mutant(
        "makes the call that exceeds the limit",
        "recovery_limits",
        RECOVERY,
        "icount < attachment->icount_limit)",
        "icount <= attachment->icount_limit)",
    ),
    Mutant(
        "makes the call that exceeds the limit of all",
        "recovery_limits",
        RECOVERY,
        "attachment->acount < attachment->acount_limit)",
        "attachment->acount <= attachment->acount_limit)",
    ),
    Mutant(
        "recovers what another thread has recovered",
        "recovery_threads",
        RECOVERY,
        "    if (atomic_load(&attachment->generation) != generation)\n",
        "    if (!generation)\n",
    ),
    Mutant(
        "recovers in several threads at a time",
        "recovery_threads",
        RECOVERY,
        "    attachment->is_back = function(coid, handle) == coid;\n",
        "    pthread_mutex_unlock(&attachment->recovery);\n"
        "    attachment->is_back = function(coid, handle) == coid;\n"
        "    pthread_mutex_lock(&attachment->recovery);\n",
    ),
    Mutant(
        "recovers while it is suspended",
        "recovery recovery_limits",
        RECOVERY,
        "    bool allowed = !attachment->suspended &&",
        "    bool allowed = true &&",
    ),
    Mutant(
        "replaces a recovery function unasked",
        "attachments",
        RECOVERY,
        "    if (!(flags & HAREPLACERECOVERYFN))\n        return EEXIST; /* D1 */\n",
        "    (void)flags;\n",
    ),
    Mutant(
        "leaves duplicates without recovery",
        "attachments recovery",
        ATTACHING,
        "if (!error && (error = attachment_share(oldfd, copy)))",
        "if (false)",
    ),
    Mutant(
        "ends connections that are not HA-aware",
        "attachments",
        ATTACHING,
        "return attachment_exists(coid) ? connect_detach(coid) : EBADF;",
        "return connect_detach(coid);",
    ),
    Mutant(
        "sends pulses without recovery",
        "recovery",
        SEND,
        "        if (recover(coid, &ticket, error))\n            continue;\n        if (!error)\n",
        "        if (!error)\n",
    ),
    # Connections.
    Mutant(
        "ESRCH for EBADF on a connection whose server has gone",
        "lost errors",
        EXCHANGE,
        "int error = server_is_gone(exchange) ? EBADF : choose_kind(exchange, &kind);",
        "int error = server_is_gone(exchange) ? ESRCH : choose_kind(exchange, &kind);",
    ),
    Mutant(
        "EBADF for ESRCH when the server dies with the message",
        "lost errors",
        EXCHANGE,
        "error = lose_server(exchange, ESRCH);",
        "error = lose_server(exchange, EBADF);",
    ),
    Mutant(
        "sends on a number that is another's",
        "attachments",
        CONNECTION,
        "    if (!connection_has_its_number(connection)) {\n",
        "    if (false) {\n",
    ),
    Mutant(
        "does not report the death of a server",
        "disconnect",
        INTAKE,
        "        watch->has_ended = channel->has_deaths = true;\n",
        "        watch->has_ended = true;\n",
    ),
    Mutant(
        "does not report the death of a server to which the connection ends",
        "disconnect",
        CONNECTION_TABLE,
        "    if (trunk && deaths_heard_of(&trunk->watch, true))\n",
        "    if (false)\n",
    ),
    Mutant(
        "sends no disconnect pulse",
        "disconnect",
        CLIENT,
        "} else if (!(channel->flags & _NTO_CHF_DISCONNECT)) {",
        "} else if (true) {",
    ),
    Mutant(
        "sends disconnect pulses unasked",
        "disconnect",
        CLIENT,
        "} else if (!(channel->flags & _NTO_CHF_DISCONNECT)) {",
        "} else if (false) {",
    ),
    # Messages and pulses.
    Mutant(
        "receives without regard to priority",
        "exchange pulses",
        QUEUE,
        "    if (one->priority != other->priority)\n        return one->priority > other->priority;\n",
        "",
    ),
    Mutant(
        "receives without regard to time",
        "exchange pulses",
        QUEUE,
        "return one->time < other->time;",
        "return one->time > other->time;",
    ),
    Mutant(
        "keeps the receiver's priority",
        "pulses channels exchange",
        LANE,
        "        thread->priority = lane->message.priority; /* B30 */\n",
        "        (void)thread;\n",
    ),
    Mutant(
        "gives the rcvid of an answered message to the next",
        "rcvid",
        RCVID,
        "    for (;;) {\n        unsigned rcvid = next_number(block, rcvids);\n",
        "    (void)block;\n    (void)rcvids;\n    (void)next_number;\n    for (unsigned rcvid = 1;; rcvid++) {\n",
    ),
    Mutant(
        "sends pulses of any priority",
        "pulses",
        SEND,
        "priority < 1 || priority > 255 ? EINVAL : trunk_pulse",
        "priority < 1 || priority > 65535 ? EINVAL : trunk_pulse",
    ),
    Mutant(
        "restarts nothing",
        "answers",
        EXCHANGE,
        "        if (!exchange->answered || error != ERESTART)\n",
        "        if (true)\n",
    ),
    Mutant(
        "puts all pieces of a long reply in one place",
        "exchange",
        LANE,
        ".status = (int64_t)(offset + done), .length = size};",
        ".status = (int64_t)offset, .length = size};",
    ),
    # Priorities.
    Mutant(
        "gives who receives a disconnect pulse the place that it had in the queue",
        "disconnect",
        RECEIVE,
        "thread->priority = arrival.pulse.priority;",
        "thread->priority = arrival.pulse.queued.priority;",
    ),
    # Blocked clients and timeouts.
    Mutant(
        "sends an unblock pulse that says nothing",
        "unblock",
        LANE,
        "_PULSE_CODE_UNBLOCK, lane->rcvid, lane->scoid,",
        "_PULSE_CODE_UNBLOCK, 0, lane->scoid,",
    ),
    Mutant(
        "delivers an unblock pulse after the answer",
        "answers",
        LANE,
        "        lane->unblock = channel_withdraw_unblock(lane->channel, lane->rcvid);\n",
        "",
    ),
    Mutant(
        "frees an unblocked client at once",
        "unblock",
        EXCHANGE,
        "    if (trunk_channel_flags(trunk) & _NTO_CHF_UNBLOCK) {\n",
        "    if (trunk_channel_flags(trunk) & 0) {\n",
    ),
    Mutant(
        "leaves a timeout armed",
        "timeouts",
        THREAD,
        "    thread->armed_flags = 0;\n    return timeout;\n",
        "    return timeout;\n",
    ),
    Mutant(
        "limits the wait for the answer, too",
        "timeouts",
        EXCHANGE,
        "        exchange->deadline = CLOCK_NEVER; /* The wait for the reply is not limited (B209). */\n"
        "        return GO_ON;\n",
        "        (void)trunk;\n",
    ),
    # Names and descriptors.
    Mutant(
        "lets two servers have a name",
        "names",
        HELD,
        "flock(*fd, LOCK_EX | LOCK_NB)",
        "flock(*fd, LOCK_SH | LOCK_NB)",
    ),
    Mutant(
        "says nothing to the server when a descriptor is closed",
        "descriptors",
        FILE,
        "    int error = send_bytes(fd, &message, sizeof message, &status);\n    if (error != EINTR)\n",
        "    int error = status ? send_bytes(fd, &message, sizeof message, &status) : 0;\n    if (error != EINTR)\n",
    ),
    Mutant(
        "ionotify hands in no event",
        "readiness",
        IONOTIFY,
        "        message.event = *event;\n",
        "        message.event.sigev_notify = 0;\n",
    ),
)


def notice(mutant: Mutant) -> Outcome:
    """Build a mutant and run the suite on it until a test notices."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        package = pathlib.Path(directory, "ha_qnx")
        shutil.copytree(pathlib.Path(ha_qnx.__file__).parent, package)
        # It is found beside the package, as where a platform wheel is installed.
        shutil.copy(build(mutant, pathlib.Path(directory, "library")), package / "libha_posix.so")
        test = noticing_test(directory, mutant.first)
    return Outcome(test, time.monotonic() - started)


def build(mutant: Mutant, directory: pathlib.Path) -> pathlib.Path:
    """Build the library with a broken rule; returns its path.

    Raises:
        SystemExit: it cannot be built.
    """
    for tool in ("cmake", os.environ.get("CC", "cc").split()[0]):
        if shutil.which(tool) is None:
            raise SystemExit(f"there is no {tool}: the library cannot be built without it")
    sources, made = directory / "sources", directory / "made"
    shutil.copytree(SOURCES, sources)
    if mutant.old:
        source = sources / mutant.file
        source.write_text(source.read_text().replace(mutant.old, mutant.new))
    for command in (["cmake", "-S", str(sources), "-B", str(made)], ["cmake", "--build", str(made)]):
        outcome = subprocess.run(  # noqa: S603  # our own sources, with the tool that is to build them
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if outcome.returncode:
            raise SystemExit(f"{mutant.name!r} cannot be built\n{outcome.stdout}")
    return made / "libha_posix.so"


def misplaced(mutants: Tuple[Mutant, ...]) -> Iterator[str]:
    """A sentence for each mutant that cannot be made of the sources, which have moved on."""
    for mutant in mutants:
        count = (SOURCES / mutant.file).read_text().count(mutant.old)
        if count != 1:
            yield f"{mutant.name!r}: its text stands {count} times in {mutant.file}"


def main() -> int:
    os.environ["HA_QNX_BACKEND"] = "native"
    os.environ.pop("HA_QNX_LIBHA", None)
    return judge(__doc__ or "", MUTANTS, misplaced, notice)


if __name__ == "__main__":
    sys.exit(main())
