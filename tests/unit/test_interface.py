"""ci/interface.py: what it writes for a call, constant or structure that is new, and how it tells what is outdated."""

import pathlib
import shutil
import subprocess
import sys

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]
SCRIPT = CHECKOUT / "ci" / "interface.py"


class Package:
    """A copy of the package's sources."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        for source in (CHECKOUT / "ha_qnx").glob("*.py"):
            shutil.copy(source, directory)

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a text that stands once in a file."""
        text = self.text(name)
        assert text.count(old) == 1
        (self.directory / name).write_text(text.replace(old, new), encoding="utf-8")

    def text(self, name: str) -> str:
        return (self.directory / name).read_text(encoding="utf-8")

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run the script on it."""
        return subprocess.run(  # noqa: S603  # ours
            [sys.executable, str(SCRIPT), "--package", str(self.directory), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def package(tmp_path: pathlib.Path) -> Package:
    return Package(tmp_path)


def test_what_is_checked_in_is_current(package: Package) -> None:
    """Nothing is to be written."""
    outcome = package.run("--check")
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_a_new_call_of_the_kernel_is_exported_typed_and_passed_on(package: Package) -> None:
    """Its contract is all that is to be written by hand."""
    call = "    def MsgPigeon(self, rcvid: int) -> int:\n        ...\n\n    def MsgInfo("
    package.change("kernel.py", "    def MsgInfo(", call)
    outcome = package.run("--check")
    assert outcome.returncode == 1
    assert outcome.stdout.startswith("derived.py and calls.py: not what the contracts say now")
    assert package.run().returncode == 0
    assert '    "MsgPigeon",\n' in package.text("calls.py")
    assert "    MsgPigeon = _default.MsgPigeon\n" in package.text("calls.py")
    assert "        self.MsgPigeon = kernel.MsgPigeon\n" in package.text("derived.py")
    assert package.run("--check").returncode == 0


def test_a_call_that_recovers_is_not_passed_on(package: Package) -> None:
    """What the class of the backends that recover, or a part of it, implements is not the kernel's own."""
    assert "self.MsgReply = " in package.text("derived.py")
    package.change("recovery.py", "    def MsgSend(", "    def MsgReply(self) -> int:\n        ...\n\n    def MsgSend(")
    package.run()
    assert "self.MsgReply = " not in package.text("derived.py")
    assert "MsgReply = _default.MsgReply\n" in package.text("calls.py")


def test_what_only_recovery_needs_is_not_exported(package: Package) -> None:
    """It is passed on, but is no call of QNX's."""
    assert "self.is_open = kernel.is_open\n" in package.text("derived.py")
    assert "is_open" not in package.text("calls.py")


def test_constants_and_structures_are_attributes(package: Package) -> None:
    """A new one is written, and one that is gone leaves nothing that would not even be imported."""
    package.change("constants.py", '    "EOK",\n', '    "EPIGEON",\n')
    package.change("constants.py", "EOK: Final = 0", "EPIGEON: Final = 5")
    package.change("structures.py", '    "Pulse",\n', '    "Pigeon",\n    "Pulse",\n')
    package.run()
    text = package.text("derived.py")
    assert "    EPIGEON: ClassVar[int] = constants.EPIGEON\n" in text
    assert "    Pigeon: ClassVar[Type[structures.Pigeon]] = structures.Pigeon\n" in text
    assert "EOK" not in text


def test_what_it_has_written_may_be_broken(package: Package) -> None:
    """It does not read it: two lines of work that have both added a call are put in order by writing it anew."""
    before = package.text("calls.py")
    (package.directory / "calls.py").write_text("<<<<<<< ours\n", encoding="utf-8")
    assert package.run().returncode == 0
    assert package.text("calls.py") == before
