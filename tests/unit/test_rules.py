"""The rules of recovery, without a kernel."""

import contextlib
import sys
import threading
import weakref
from errno import EBADF, EEXIST, EINVAL, EIO, ENOENT, ESRCH
from typing import Any, List, Optional

import pytest
from ha_qnx.conformance.waiting import Task

from ha_qnx import (
    HA_RECOVERY_ACOUNT,
    HA_RECOVERY_ENABLE,
    HA_RECOVERY_ICOUNT,
    HA_RECOVERY_RESET_ACOUNT,
    HA_RECOVERY_RESET_ICOUNT,
    HA_RECOVERY_SUSPEND,
    rules,
)
from ha_qnx.rules import LOST, Attachment, Attachments
from ha_qnx.watching import Counts

COID = 5


def lost() -> OSError:
    return OSError(EBADF, "lost")


class Recorder:
    """A recovery function that notes its calls and returns, or raises, what it is told to."""

    def __init__(self, result: Any = COID) -> None:
        self.result = result
        self.calls: List[Any] = []

    def __call__(self, coid: int, handle: Any) -> Any:
        self.calls.append((coid, handle))
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def attached(function: Any, handle: object = None) -> Attachment:
    attachments = Attachments(Counts("fallback"))
    attachments.attach(COID, function, handle, replace=False)
    return attachments.get(COID)


def recover(attachment: Attachment, generation: Optional[int] = None, coid: int = COID) -> None:
    attachment.recover(coid, attachment.generation if generation is None else generation, lost())


def is_refused(attachment: Attachment) -> bool:
    """Whether the caller gets the error of its call instead of a recovery."""
    try:
        recover(attachment)
    except OSError:
        return True
    return False


def test_ebadf_and_esrch_mean_that_a_connection_is_lost() -> None:
    """No other errno starts a recovery."""
    assert set(LOST) == {EBADF, ESRCH}
    assert EIO not in LOST


def test_the_recovery_function_gets_the_connection_and_its_handle() -> None:
    """The handle is passed as it is."""
    function, handle = Recorder(), object()
    recover(attached(function, handle))
    assert function.calls == [(COID, handle)]


@pytest.mark.parametrize("result", [-1, COID + 1, None, "5", 5.0], ids=repr)
def test_only_the_connections_own_number_says_that_it_is_recovered(result: Any) -> None:
    """Anything else is a failure, and the caller gets the error of its call."""
    attachment, failure = attached(Recorder(result)), lost()
    with pytest.raises(OSError, match="lost") as raised:
        attachment.recover(COID, 0, failure)
    assert raised.value is failure
    with pytest.raises(OSError, match="lost") as raised:
        attachment.recover(COID, 0, failure)
    assert raised.value is failure, "a failure that is older than the recovery shares its outcome"


def test_what_the_recovery_function_raises_is_the_cause_of_the_error() -> None:
    """An exception counts as -1."""
    reason = RuntimeError("no server")
    with pytest.raises(OSError, match="the server was lost, and its recovery function raised RuntimeError") as raised:
        recover(attached(Recorder(reason)))
    assert raised.value.__cause__ is reason
    assert raised.value.errno == lost().errno


def test_an_error_of_the_recovery_function_tells_what_became_of_the_server() -> None:
    """Its text and its file name are in the text of the error that the caller gets, with the errno of its call."""
    reason = FileNotFoundError(ENOENT, "no successor within 1 s", "ledger")
    with pytest.raises(OSError, match="the server of 'ledger' was lost; no successor within 1 s") as raised:
        recover(attached(Recorder(reason)))
    assert raised.value.errno == lost().errno
    assert raised.value.__cause__ is reason


def test_threads_that_failed_together_share_a_failed_recovery() -> None:
    """One failure, one recovery, one outcome: the function is called once, and each caller is told the same."""
    entered, leave = threading.Event(), threading.Event()
    calls: List[int] = []

    def function(coid: int, _handle: object) -> int:
        calls.append(coid)
        entered.set()
        assert leave.wait(10)
        raise FileNotFoundError(ENOENT, "no successor", "ledger")

    attachment = attached(function)
    errors: List[OSError] = []

    def fail() -> None:
        try:
            recover(attachment, 0)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=fail) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    leave.set()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert {error.strerror for error in errors} == {"the server of 'ledger' was lost; no successor"}
    assert {error.__cause__.errno for error in errors if isinstance(error.__cause__, OSError)} == {ENOENT}
    assert len(errors) == 5


def test_what_is_no_exception_passes_through() -> None:
    """KeyboardInterrupt and SystemExit are not turned into an error, and leave the attachment usable."""
    function = Recorder(KeyboardInterrupt())
    attachment = attached(function)
    with pytest.raises(KeyboardInterrupt):
        recover(attachment)
    function.result = COID
    recover(attachment)
    assert len(function.calls) == 2


def test_a_failure_older_than_a_completed_recovery_is_not_recovered_again() -> None:
    """The generation read before the call tells."""
    function = Recorder()
    attachment = attached(function)
    recover(attachment, generation=0)
    recover(attachment, generation=0)
    assert len(function.calls) == 1
    recover(attachment, generation=1)
    assert len(function.calls) == 2


def test_one_thread_recovers_at_a_time() -> None:
    """Threads that failed together wait for the first of them, and then need no recovery of their own."""
    entered, leave = threading.Event(), threading.Event()
    calls: List[int] = []

    def function(coid: int, _handle: object) -> int:
        calls.append(coid)
        entered.set()
        assert leave.wait(10)
        return coid

    attachment = attached(function)
    threads = [threading.Thread(target=recover, args=(attachment, 0)) for _ in range(10)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert calls == [COID]
    assert not any(thread.is_alive() for thread in threads)


def test_calls_inside_the_recovery_function_are_plain() -> None:
    """A failure there goes to the function itself."""
    failures: List[OSError] = []

    def function(coid: int, _handle: object) -> int:
        try:
            recover(attachment)
        except OSError as error:
            failures.append(error)
        return coid

    attachment = attached(function)
    recover(attachment)
    assert len(failures) == 1


def test_a_suspended_connection_is_an_ordinary_one_until_it_is_enabled() -> None:
    """Counts and limits stay as they are."""
    function = Recorder()
    attachment = attached(function)
    recover(attachment)
    attachment.control(HA_RECOVERY_SUSPEND, None)
    assert is_refused(attachment)
    attachment.control(HA_RECOVERY_ENABLE, None)
    assert not is_refused(attachment)
    assert len(function.calls) == attachment.acount == 2


@pytest.mark.parametrize("command", [HA_RECOVERY_ICOUNT, HA_RECOVERY_ACOUNT])
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_limit_bounds_the_calls(command: int, limit: int) -> None:
    """The call that would exceed it is not made."""
    function = Recorder()
    attachment = attached(function)
    attachment.control(command, limit)
    assert [is_refused(attachment) for _ in range(limit + 2)] == [False] * limit + [True] * 2
    assert len(function.calls) == limit


@pytest.mark.parametrize("command", [HA_RECOVERY_ICOUNT, HA_RECOVERY_ACOUNT])
def test_a_negative_limit_is_none(command: int) -> None:
    """It takes a limit back."""
    attachment = attached(Recorder())
    attachment.control(command, 0)
    assert is_refused(attachment)
    attachment.control(command, -7)
    assert not is_refused(attachment)


def test_calls_that_fail_count_too() -> None:
    """A limit bounds the calls of the function, not their success."""
    function = Recorder(-1)
    attachment = attached(function)
    attachment.control(HA_RECOVERY_ICOUNT, 2)
    assert all(is_refused(attachment) for _ in range(5))
    assert len(function.calls) == 2


def test_a_message_that_gets_through_starts_the_count_per_failure_anew() -> None:
    """The count in all goes on."""
    function = Recorder()
    attachment = attached(function)
    attachment.control(HA_RECOVERY_ICOUNT, 1)
    attachment.control(HA_RECOVERY_ACOUNT, 2)
    assert not is_refused(attachment)
    assert is_refused(attachment)
    attachment.message_got_through()
    assert not is_refused(attachment)
    attachment.message_got_through()
    assert is_refused(attachment)


def test_a_message_inside_the_recovery_function_does_not_start_the_count_anew() -> None:
    """A server that answers a login and dies again does not defeat the limit."""

    def function(coid: int, _handle: object) -> int:
        attachment.message_got_through()
        return coid

    attachment = attached(function)
    attachment.control(HA_RECOVERY_ICOUNT, 2)
    assert [is_refused(attachment) for _ in range(3)] == [False, False, True]


def test_counts_can_be_reset() -> None:
    """Each reset sets its own count to 0."""
    attachment = attached(Recorder())
    recover(attachment)
    attachment.control(HA_RECOVERY_RESET_ICOUNT, None)
    assert (attachment.icount, attachment.acount) == (0, 1)
    attachment.control(HA_RECOVERY_RESET_ACOUNT, None)
    assert (attachment.icount, attachment.acount) == (0, 0)


@pytest.mark.parametrize("command", [0, 7, -1])
def test_an_unknown_command_is_refused(command: int) -> None:
    """It is EINVAL and changes nothing."""
    attachment = attached(Recorder())
    with pytest.raises(OSError, match="unknown command") as raised:
        attachment.control(command, 1)
    assert raised.value.errno == EINVAL


def test_a_detached_connection_is_not_recovered() -> None:
    """Not even if the thread that failed had seen it attached."""
    attachments = Attachments(Counts("fallback"))
    attachments.attach(COID, Recorder(), None, replace=False)
    attachment = attachments.get(COID)
    attachments.detach(COID)
    assert is_refused(attachment)


def test_a_connection_is_attached_once() -> None:
    """A second attachment is EEXIST unless it replaces the first, and then keeps its counts."""
    attachments, second = Attachments(Counts("fallback")), Recorder()
    attachments.attach(COID, Recorder(), None, replace=False)
    recover(attachments.get(COID))
    with pytest.raises(OSError, match="HAREPLACERECOVERYFN") as raised:
        attachments.attach(COID, second, None, replace=False)
    assert raised.value.errno == EEXIST
    attachments.attach(COID, second, "handle", replace=True)
    recover(attachments.get(COID))
    assert second.calls == [(COID, "handle")]
    assert attachments.get(COID).acount == 2


def test_duplicates_share_one_attachment() -> None:
    """It lives as long as the last of them."""
    attachments = Attachments(Counts("fallback"))
    attachments.attach(COID, Recorder(), None, replace=False)
    attachments.share(COID, COID + 1)
    attachment = attachments.get(COID + 1)
    assert attachment is attachments.get(COID)
    attachments.take(COID)
    assert attachments.get(COID + 1) is attachment
    assert attachment.coids == {COID + 1}


def test_an_ended_connection_takes_its_attachment_along() -> None:
    """What is made under its number later is an ordinary connection."""
    attachments = Attachments(Counts("fallback"))
    attachments.attach(COID, Recorder(), None, replace=False)
    attachment = attachments.take(COID)
    assert attachment is not None
    assert attachments.take(COID) is None
    attachments.give_back(COID, attachment)
    assert attachments.get(COID) is attachment


def test_the_recovery_function_may_end_its_own_connection() -> None:
    """Its attachment stays."""
    attachments = Attachments(Counts("fallback"))

    def function(coid: int, _handle: object) -> int:
        assert attachments.take(coid) is None
        return coid

    attachments.attach(COID, function, None, replace=False)
    recover(attachments.get(COID))
    assert attachments.get(COID).generation == 1


def test_a_forked_child_keeps_the_connections_that_it_inherits() -> None:
    """A lock that another thread of the parent held does not hold the child up."""
    attachments = Attachments(Counts("fallback"))
    function = Recorder()
    for coid in (COID, COID + 1):
        attachments.attach(coid, function, None, replace=False)
    attachment = attachments.get(COID)
    attachment._lock.acquire()  # As another thread of the parent would.
    attachments.after_fork(keeps=lambda coid: coid == COID)
    recover(attachment)
    assert list(attachments.by_coid) == [COID]


class WatchedError(OSError):
    """An error that can be watched."""


@pytest.mark.parametrize("result", [-1, RuntimeError("no server"), KeyboardInterrupt()], ids=repr)
def test_an_error_is_freed_when_its_caller_is_done_with_it(no_collection: None, result: Any) -> None:
    """It is in no cycle, and neither is what it holds, such as the buffers of the call."""
    attachment, watched = attached(Recorder(result)), []

    def call() -> None:
        try:
            raise WatchedError(EBADF, "lost")
        except OSError as failure:
            watched.append(weakref.ref(failure))
            attachment.recover(COID, 0, failure)

    with contextlib.suppress(OSError, KeyboardInterrupt):
        call()
    if isinstance(result, BaseException):
        # The test has it, and with it what it was raised in.
        result.__traceback__ = result.__context__ = None
    assert watched[0]() is None


def test_a_forgotten_connection_is_closed_while_another_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may do that in the middle, in the same thread."""
    attachments = Attachments(Counts("fallback"))
    attachments.attach(COID, Recorder(), None, replace=False)

    def collect(*arguments: Any) -> Attachment:
        attachments.take(COID)
        return Attachment(*arguments)

    monkeypatch.setattr(rules, "Attachment", collect)
    Task(attachments.attach, COID + 1, Recorder(), None, False).result()
    assert list(attachments.by_coid) == [COID + 1]


def test_a_recovery_function_gets_its_own_handle() -> None:
    """Whenever another thread replaces the two."""
    attachments = Attachments(Counts("fallback"))
    calls: List[Any] = []

    def replace(number: int) -> None:
        def function(coid: int, handle: object) -> int:
            calls.append((number, handle))
            return coid

        attachments.attach(COID, function, number, replace=True)

    def trace(frame: Any, _what: str, _argument: Any) -> Any:
        """Replace them before each step of ``recover``."""
        if frame.f_code is not Attachment.recover.__code__:
            return None
        frame.f_trace_opcodes = True
        numbers.append(len(numbers))
        replace(numbers[-1])
        return trace

    def recover_while_they_are_replaced() -> None:
        sys.settrace(trace)
        try:
            recover(attachments.get(COID))
        finally:
            sys.settrace(None)

    numbers = [0]
    replace(0)
    Task(recover_while_they_are_replaced).result()
    ((number, handle),) = calls
    assert 0 < number == handle
