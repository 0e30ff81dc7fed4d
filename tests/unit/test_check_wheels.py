"""ci/check_wheels.py: sound wheels have no fault, and each fault that is planted is found and told."""

import base64
import hashlib
import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
import zipfile
from typing import Dict, List, Optional, Tuple

import pytest

from ha_qnx import abi

pytestmark = pytest.mark.slow

SCRIPT = pathlib.Path(__file__).parents[2] / "ci" / "check_wheels.py"
MACHINE = platform.machine()
LINUX = f"linux_{MACHINE}"
LIBRARY = "ha_qnx/libha_posix.so"
INFO = "ha_qnx-1.0.dist-info"
COMMANDS = "[console_scripts]\nha-qnx = ha_qnx.commands.cli:main\n"
FUNCTIONS = [
    *(abi.posix_symbol(function.name) for function in abi.FUNCTIONS if function.name != "pathmgr_link"),
    "ha_posix_version",
    "ha_posix_interrupt_main_only",
    "ha_posix_unblock",
    *("MsgReceivePulsev", "MsgReceivePulsev_r", "TimerCreate_r", "TimerSettime_r", "TimerInfo_r", "TimerDestroy_r"),
    "devctl",
    *(f"ha_posix_timer_{call}" for call in ("create", "settime", "gettime", "getoverrun", "delete")),
]

Files = Dict[str, Optional[bytes]]


def pure_files(tag: str = "any") -> Files:
    """What a small wheel has in it."""
    names = (
        "__init__",
        "commands/cli",
        "fallback/kernel",
        "conformance/conftest",
        "conformance/test_recovery",
        "examples/__init__",
    )
    return {
        **{f"ha_qnx/{name}.py": b"pass\n" for name in names},
        "ha_qnx/conformance/SPECIFICATION.md": b"# What it does\n",
        "ha_qnx/py.typed": b"",
        f"{INFO}/METADATA": b"Metadata-Version: 2.2\nName: ha_qnx\nVersion: 1.0\n",
        f"{INFO}/WHEEL": f"Root-Is-Purelib: {str(tag == 'any').lower()}\nTag: py3-none-{tag}\n".encode(),
        f"{INFO}/entry_points.txt": COMMANDS.encode(),
        f"{INFO}/licenses/LICENSE": b"Apache\n",
    }


def write_wheel(directory: pathlib.Path, name: str, files: Files, record: Tuple[str, str] = ("", "")) -> None:
    """Write a wheel; None for the content of a file leaves it out, and ``record`` is a replacement in RECORD."""
    there = {path: content for path, content in files.items() if content is not None}
    rows = []
    for path, content in there.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}\n")
    there[f"{INFO}/RECORD"] = ("".join(rows) + f"{INFO}/RECORD,,\n").replace(*record).encode()
    with zipfile.ZipFile(directory / name, "w") as archive:
        for path, content in there.items():
            archive.writestr(path, content)


def write_pure(directory: pathlib.Path, changes: Files) -> None:
    write_wheel(directory, "ha_qnx-1.0-py3-none-any.whl", {**pure_files(), **changes})


def write_platform(directory: pathlib.Path, library: Optional[bytes], tag: str = LINUX) -> None:
    write_wheel(directory, f"ha_qnx-1.0-py3-none-{tag}.whl", {**pure_files(tag), LIBRARY: library})


def run(directory: pathlib.Path, *options: str, path: str = os.devnull) -> "subprocess.CompletedProcess[str]":
    """Run the script on a directory, with a PATH that has no auditwheel unless a test puts one there."""
    return subprocess.run(  # noqa: S603  # ours
        [sys.executable, str(SCRIPT), *options, str(directory)],
        cwd="/",
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


def faults(directory: pathlib.Path, *options: str, path: str = os.devnull) -> List[str]:
    """What it finds: exit status 1, and a line for each fault."""
    ended = run(directory, *options, path=path)
    assert (ended.returncode, ended.stderr) == (1, "")
    return ended.stdout.splitlines()


def compile_library(directory: pathlib.Path, functions: List[str], *options: str, source: str = "") -> bytes:
    """A real shared library with these functions."""
    compiler = shutil.which("cc")
    assert compiler is not None, "there is no cc: these tests need a C compiler"
    (directory / "library.c").write_text(source + "".join(f"int {name}(void) {{ return 0; }}\n" for name in functions))
    command = [compiler, "-shared", "-fPIC", "-fno-builtin", "library.c", "-o", "library.so", *options]
    subprocess.run(command, cwd=directory, check=True, timeout=60)  # noqa: S603  # the compiler, on our source
    return (directory / "library.so").read_bytes()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library that exports what it has to, has functions of its own besides, and needs nothing but the C library."""
    source = """
    #include <stdio.h>
    static int own(void) { return puts(""); }
    __attribute__((visibility("hidden"))) int between_files(void) { return own(); }
    """
    return compile_library(tmp_path_factory.mktemp("library"), FUNCTIONS, source=source)


# Both kinds of wheels.


def test_sound_wheels_have_no_fault(tmp_path: pathlib.Path, library: bytes) -> None:
    """The pure wheel and the one for a platform, side by side."""
    write_pure(tmp_path, {})
    write_platform(tmp_path, library)
    ended = run(tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"no fault in ha_qnx-1.0-py3-none-any.whl, ha_qnx-1.0-py3-none-{LINUX}.whl")


PLANTED: List[Tuple[str, Files, str]] = [
    ("py.typed", {"ha_qnx/py.typed": None}, "it lacks ha_qnx/py.typed"),
    ("fallback", {"ha_qnx/fallback/kernel.py": None}, "it lacks ha_qnx/fallback/kernel.py"),
    ("conformance", {"ha_qnx/conformance/conftest.py": None}, "it lacks ha_qnx/conformance/conftest.py"),
    (
        "specification",
        {"ha_qnx/conformance/SPECIFICATION.md": None},
        "it lacks ha_qnx/conformance/SPECIFICATION.md",
    ),
    ("examples", {"ha_qnx/examples/__init__.py": None}, "it lacks ha_qnx/examples/__init__.py"),
    ("licence", {f"{INFO}/licenses/LICENSE": None}, "it lacks the LICENSE"),
    ("unit tests", {"tests/unit/test_a.py": b""}, "tests/unit/test_a.py does not belong there"),
    ("unit tests in the package", {"ha_qnx/unit/test_a.py": b""}, "ha_qnx/unit/test_a.py does not belong there"),
    ("ci", {"ci/demo": b""}, "ci/demo does not belong there"),
    ("compiled", {"ha_qnx/commands/cli.pyc": b""}, "ha_qnx/commands/cli.pyc does not belong there"),
    ("binary", {"ha_qnx/helper": b"\x7fELF..."}, "it is for any platform, and contains ha_qnx/helper"),
    ("for macOS", {"ha_qnx/helper": b"\xcf\xfa\xed\xfe..."}, "it is for any platform, and contains ha_qnx/helper"),
    (
        "header",
        {"ha_qnx/include/ha_posix.h": b""},
        "it is for any platform, and contains ha_qnx/include/ha_posix.h",
    ),
    (
        "other command",
        {f"{INFO}/entry_points.txt": b"[console_scripts]\nha-qnx = ha_qnx.commands.cli:run\n"},
        "its commands are not ha-qnx = ha_qnx.commands.cli:main",
    ),
    (
        "no commands",
        {f"{INFO}/entry_points.txt": None},
        "its commands are not ha-qnx = ha_qnx.commands.cli:main",
    ),
    (
        "other version",
        {f"{INFO}/METADATA": b"Name: ha_qnx\nVersion: 1.1\n"},
        "its metadata is of ha_qnx 1.1",
    ),
    (
        "other tag",
        {f"{INFO}/WHEEL": b"Root-Is-Purelib: true\nTag: cp311-cp311-linux_x86_64\n"},
        "its metadata has the tags cp311-cp311-linux_x86_64, which are not those of its name",
    ),
    (
        "not pure",
        {f"{INFO}/WHEEL": b"Root-Is-Purelib: false\nTag: py3-none-any\n"},
        "its metadata says Root-Is-Purelib: false",
    ),
]


@pytest.mark.parametrize(("changes", "fault"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_a_fault_is_found(tmp_path: pathlib.Path, changes: Files, fault: str) -> None:
    """It is told in a sentence behind the wheel's name, and nothing else is."""
    write_pure(tmp_path, changes)
    assert faults(tmp_path) == [f"ha_qnx-1.0-py3-none-any.whl: {fault}"]


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (("ha_qnx/commands/cli.py,", "ha_qnx/other.py,"), "RECORD does not list ha_qnx/commands/cli.py"),
        (("ha_qnx/commands/cli.py,", "ha_qnx/other.py,"), "RECORD lists ha_qnx/other.py, which is not there"),
        (
            ("ha_qnx/commands/cli.py,sha256=", "ha_qnx/commands/cli.py,sha256=x"),
            "ha_qnx/commands/cli.py is not what RECORD says",
        ),
    ],
)
def test_a_record_that_does_not_fit_is_found(tmp_path: pathlib.Path, record: Tuple[str, str], fault: str) -> None:
    """An installer may refuse such a wheel."""
    write_wheel(tmp_path, "ha_qnx-1.0-py3-none-any.whl", pure_files(), record)
    assert f"ha_qnx-1.0-py3-none-any.whl: {fault}" in faults(tmp_path)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("ha_qnx-1.0-cp311-cp311-linux_x86_64.whl", "the tag cp311-cp311-linux_x86_64 binds it to an interpreter"),
        ("ha_qnx-1.0-py3-none-win_amd64.whl", "the platform win_amd64 is none of those that wheels are built for"),
        (
            "ha_qnx-1.0-py3-none-manylinux_2_28_x86_64.musllinux_1_2_aarch64.whl",
            "its name has more than one machine",
        ),
        ("ha_qnx-1.0-py3-none-any.linux_x86_64.whl", "its name says that it is for any platform, and for some"),
        ("ha_qnx-1.0.whl", "this is no name for a wheel of ha_qnx"),
        ("other-1.0-py3-none-any.whl", "this is no name for a wheel of ha_qnx: it is a wheel of other"),
    ],
)
def test_a_name_that_does_not_fit_is_found(tmp_path: pathlib.Path, name: str, fault: str) -> None:
    """The name decides who gets the wheel."""
    write_wheel(tmp_path, name, pure_files())
    assert any(line.startswith(f"{name}: {fault}") for line in faults(tmp_path))


def test_what_is_no_wheel_is_found(tmp_path: pathlib.Path) -> None:
    """A file that was cut off, for instance."""
    (tmp_path / "ha_qnx-1.0-py3-none-any.whl").write_bytes(b"PK")
    assert faults(tmp_path) == ["ha_qnx-1.0-py3-none-any.whl: it cannot be read: File is not a zip file"]


def test_a_file_that_is_there_twice_is_found(tmp_path: pathlib.Path) -> None:
    """Which one is installed would be up to the installer."""
    write_pure(tmp_path, {})
    wheel = tmp_path / "ha_qnx-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("ha_qnx/commands/cli.py", b"pass\n")
    assert faults(tmp_path) == ["ha_qnx-1.0-py3-none-any.whl: it has two files of the same name"]


def test_wheels_that_differ_in_their_python_are_found(tmp_path: pathlib.Path, library: bytes) -> None:
    """One of them was built from something else."""
    write_pure(tmp_path, {"ha_qnx/commands/cli.py": b"raise\n"})
    write_platform(tmp_path, library)
    assert faults(tmp_path) == [
        f"ha_qnx/commands/cli.py is not the same in ha_qnx-1.0-py3-none-any.whl and in ha_qnx-1.0-py3-none-{LINUX}.whl"
    ]


def test_no_wheel_at_all_is_wrong_use(tmp_path: pathlib.Path) -> None:
    """A build that made none must not look like success."""
    ended = run(tmp_path)
    assert ended.returncode == 2
    assert "there is no wheel" in ended.stderr


# The library.


def test_a_platform_wheel_without_the_library_is_found(tmp_path: pathlib.Path) -> None:
    """That is what would come out if the library could not be built, and nobody looked."""
    write_platform(tmp_path, None)
    (fault,) = faults(tmp_path)
    assert f"it is for one platform, and has no {LIBRARY}" in fault


def test_a_function_that_is_not_exported_is_found(tmp_path: pathlib.Path) -> None:
    """A hidden one does not count; each is named."""
    source = "".join(f'__attribute__((visibility("hidden"))) int {name}(void);\n' for name in ("ha_dup", "MsgInfo"))
    content = compile_library(tmp_path, FUNCTIONS, source=source)
    write_platform(tmp_path, content)
    assert [fault.partition(": ")[2] for fault in faults(tmp_path)] == [
        f"{LIBRARY} does not export MsgInfo",
        f"{LIBRARY} does not export ha_dup",
    ]


def place_of_symbol(library: bytes, name: str) -> int:
    """Where the entry of a function lies in the table of dynamic symbols."""
    (start,) = struct.unpack_from("<Q", library, 40)
    size, count = struct.unpack_from("<HH", library, 58)
    sections = [struct.unpack_from("<IIQQQQI", library, start + size * number) for number in range(count)]
    (table,) = [section for section in sections if section[1] == 11]
    names = sections[table[6]][4]
    for place in range(table[4], table[4] + table[5], 24):
        (offset,) = struct.unpack_from("<I", library, place)
        if library.startswith(name.encode() + b"\0", names + offset):
            return place
    raise AssertionError(f"there is no {name}")


@pytest.mark.parametrize(
    ("offset", "changed"), [(4, b"\x02"), (5, b"\x02"), (6, b"\0\0")], ids=["local", "hidden", "undefined"]
)
def test_a_symbol_that_nobody_can_use_is_not_exported(
    tmp_path: pathlib.Path, library: bytes, offset: int, changed: bytes
) -> None:
    """That its name is in the table is not enough."""
    place = place_of_symbol(library, "ha_dup") + offset
    write_platform(tmp_path, library[:place] + changed + library[place + len(changed) :])
    (fault,) = faults(tmp_path)
    assert fault.endswith(f"{LIBRARY} does not export ha_dup")


def test_a_function_that_is_exported_by_mistake_is_found(tmp_path: pathlib.Path) -> None:
    """A library with a function open would take the place of the host's."""
    write_platform(tmp_path, compile_library(tmp_path, [*FUNCTIONS, "open", "helper"]))
    assert [fault.partition(": ")[2] for fault in faults(tmp_path)] == [
        f"{LIBRARY} exports helper, which is no part of the interface",
        f"{LIBRARY} exports open, which is no part of the interface",
    ]


def test_what_the_library_needs_is_found(tmp_path: pathlib.Path) -> None:
    """Another library may be missing where the wheel is installed; so may the directory where it is looked for."""
    options = ["-Wl,--no-as-needed", "-lm", "-Wl,-rpath,/opt/lib"]
    write_platform(tmp_path, compile_library(tmp_path, FUNCTIONS, *options))
    assert [fault.partition(": ")[2] for fault in faults(tmp_path)] == [
        f"{LIBRARY} needs libm.so.6: nothing but the C library of linux may be needed",
        f"{LIBRARY} looks for libraries in /opt/lib",
    ]


def test_a_library_for_another_c_library_is_found(tmp_path: pathlib.Path, library: bytes) -> None:
    """One built for glibc does not load where there is musl."""
    write_platform(tmp_path, library, f"musllinux_1_2_{MACHINE}")
    (fault,) = faults(tmp_path)
    assert fault.endswith(f"{LIBRARY} needs libc.so.6: nothing but the C library of musllinux may be needed")


@pytest.mark.parametrize(
    ("place", "content", "fault"),
    [
        (0, b"\x00ELF", "it is no ELF file"),
        (4, b"\x01", "it is not for 64 bits with the lower byte first"),
        (16, b"\x02\x00", "it is no shared library"),
        (18, b"\x28\x00", f"is for machine 40 of ELF, which is not {MACHINE}"),
        (40, b"\xff" * 8, "it is damaged"),
        (60, b"\x00\x00", "it has no dynamic section, or no dynamic symbols"),
    ],
    ids=["magic", "32 bits", "program", "machine", "place of the sections", "no sections"],
)
def test_a_library_that_cannot_be_loaded_is_found(
    tmp_path: pathlib.Path, library: bytes, place: int, content: bytes, fault: str
) -> None:
    """The header of the file is changed at one place."""
    write_platform(tmp_path, library[:place] + content + library[place + len(content) :])
    assert [line for line in faults(tmp_path) if fault in line]


@pytest.mark.parametrize("length", [10, 63, 64, 1000])
def test_a_library_that_was_cut_off_is_found(tmp_path: pathlib.Path, library: bytes, length: int) -> None:
    """Reading it ends with a fault, not with an error of this program."""
    write_platform(tmp_path, library[:length])
    (fault,) = faults(tmp_path)
    assert fault.endswith("it is damaged")


def test_another_binary_beside_the_library_is_found(tmp_path: pathlib.Path, library: bytes) -> None:
    """Such as a library that a repair has copied into the wheel."""
    tag = LINUX
    files = {**pure_files(tag), LIBRARY: library, "ha_qnx/libother.so": library}
    write_wheel(tmp_path, f"ha_qnx-1.0-py3-none-{tag}.whl", files)
    (fault,) = faults(tmp_path)
    assert fault.endswith(f"ha_qnx/libother.so is a binary, and there is to be none but {LIBRARY}")


# auditwheel.

MANYLINUX = f"manylinux_2_28_{MACHINE}"


def plant_auditwheel(directory: pathlib.Path, says: str, status: int = 0) -> str:
    """A program of this name; returns the PATH with it."""
    place = directory / "bin"
    place.mkdir()
    program = place / "auditwheel"
    program.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    program.chmod(0o755)
    return str(place)


@pytest.mark.parametrize("found", [f"manylinux_2_28_{MACHINE}", f"manylinux_2_5_{MACHINE}"])
def test_what_auditwheel_confirms_has_no_fault(tmp_path: pathlib.Path, library: bytes, found: str) -> None:
    """What the name promises, or even less than that, is needed."""
    path = plant_auditwheel(tmp_path, f'consistent with the following platform tag: "{found}".')
    write_platform(tmp_path, library, MANYLINUX)
    ended = run(tmp_path, path=path)
    assert (ended.returncode, ended.stdout.endswith("(with auditwheel)\n")) == (0, True), ended.stdout


@pytest.mark.parametrize("found", [f"manylinux_2_34_{MACHINE}", f"musllinux_1_2_{MACHINE}", LINUX])
def test_a_name_that_promises_too_much_is_found(tmp_path: pathlib.Path, library: bytes, found: str) -> None:
    """The library was built where the C library is newer, or another one."""
    path = plant_auditwheel(tmp_path, f'consistent with the following platform tag: "{found}".')
    write_platform(tmp_path, library, MANYLINUX)
    (fault,) = faults(tmp_path, path=path)
    assert fault.endswith(f"its name promises {MANYLINUX}, and auditwheel finds {found}")


@pytest.mark.parametrize(("says", "status"), [(f'perhaps "{MANYLINUX}"', 1), ("nothing that we know", 0)])
def test_an_auditwheel_that_fails_is_no_confirmation(
    tmp_path: pathlib.Path, library: bytes, says: str, status: int
) -> None:
    """What it says is passed on."""
    path = plant_auditwheel(tmp_path, says, status)
    write_platform(tmp_path, library, MANYLINUX)
    (fault,) = faults(tmp_path, path=path)
    assert fault.endswith(f"auditwheel does not understand it: {says}")


# A release.


def test_a_release_has_a_wheel_for_everybody(tmp_path: pathlib.Path) -> None:
    """Each platform that is missing is named, and the pure wheel."""
    write_platform(tmp_path, None, "manylinux_2_28_x86_64")
    found = faults(tmp_path, "--release")
    assert [fault for fault in found if fault.startswith("there is no wheel")] == [
        "there is no wheel for manylinux on aarch64",
        "there is no wheel for musllinux on aarch64",
        "there is no wheel for musllinux on x86_64",
        "there is no wheel for any platform, which is what a QNX target installs",
    ]


def test_a_release_has_no_wheel_of_one_machine(tmp_path: pathlib.Path, library: bytes) -> None:
    """A wheel for linux runs on machines like the one that built it; nobody knows which those are."""
    write_platform(tmp_path, library)
    assert any(
        fault.startswith(f"ha_qnx-1.0-py3-none-{LINUX}.whl: linux is no platform to publish for")
        for fault in faults(tmp_path, "--release")
    )


def test_a_release_is_of_one_version(tmp_path: pathlib.Path) -> None:
    """Wheels that were left from before are found."""
    write_pure(tmp_path, {})
    write_wheel(tmp_path, "ha_qnx-1.1-py3-none-any.whl", pure_files())
    assert "there are wheels of 2 versions: 1.0, 1.1" in faults(tmp_path)


@pytest.mark.parametrize("version", ["1.0.dev1", "1.0+local"])
def test_a_version_for_ourselves_is_not_released(tmp_path: pathlib.Path, version: str) -> None:
    """Neither one of development nor one of this machine."""
    write_wheel(tmp_path, f"ha_qnx-{version}-py3-none-any.whl", pure_files())
    assert "this is no version to publish" in faults(tmp_path, "--release")
    assert "this is no version to publish" not in faults(tmp_path)
