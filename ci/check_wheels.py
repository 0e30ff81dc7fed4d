"""Check wheels before anybody installs them: names, tags, contents, and the C library in them.

    python ci/check_wheels.py DIRECTORY...             every wheel in there; together they have to fit each other
    python ci/check_wheels.py --release DIRECTORY...   for publication: one wheel for each platform, and no other

Exit status: 0, all is well; 1, with one line for each fault; 2, wrong use, also if there is no wheel. Where auditwheel
is in the PATH, it is asked whether a platform wheel runs on what its name promises.

Run it with an interpreter that has ha_qnx installed: the C library has to export what its ha_qnx.abi declares.
"""

import argparse
import base64
import configparser
import contextlib
import csv
import email.parser
import hashlib
import io
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from typing import Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from ha_qnx import abi

LIBRARY = "ha_qnx/libha_posix.so"
HEADER = "ha_qnx/include/ha_posix.h"
NEEDED_FILES = (
    "ha_qnx/__init__.py",
    "ha_qnx/commands/cli.py",
    "ha_qnx/py.typed",
    "ha_qnx/fallback/kernel.py",
    "ha_qnx/conformance/conftest.py",
    "ha_qnx/conformance/test_recovery.py",
    "ha_qnx/conformance/SPECIFICATION.md",
    "ha_qnx/examples/__init__.py",
)
KNOWN_DIRECTORIES = (
    "ha_qnx",
    "ha_qnx/native",
    "ha_qnx/commands",
    "ha_qnx/commands/demo",
    "ha_qnx/fallback",
    "ha_qnx/conformance",
    "ha_qnx/conformance/answers",
    "ha_qnx/examples",
    "ha_qnx/serial_ports",
)
ENTRY_POINTS = {"ha-qnx": "ha_qnx.commands.cli:main"}

# What the binding calls on a target only.
_OF_TARGETS = {"pathmgr_link"}
EXPORTED = {abi.posix_symbol(function.name) for function in abi.FUNCTIONS} - _OF_TARGETS | {
    "ha_posix_version",
    "ha_posix_interrupt_main_only",
    "ha_posix_unblock",
    # For programs in C; the package makes them of other calls.
    *("MsgReceivePulsev", "MsgReceivePulsev_r", "TimerCreate_r", "TimerSettime_r", "TimerInfo_r", "TimerDestroy_r"),
    "devctl",
    "ha_posix_timer_create",
    "ha_posix_timer_settime",
    "ha_posix_timer_gettime",
    "ha_posix_timer_getoverrun",
    "ha_posix_timer_delete",
}
# What some linkers and C libraries let every shared library export.
OF_THE_LINKER = {"_init", "_fini", "_edata", "_end", "__bss_start"}

# The machine in a platform tag, as an ELF file has it.
MACHINES = {"x86_64": 62, "aarch64": 183}
# What the library may need: the C library, under the names that it has for each kind of platform.
NEEDED_LIBRARIES = {
    "linux": r"libc\.so\.6|libpthread\.so\.0|ld-linux[\w-]*\.so\.\d|libc\.(musl-\w+\.)?so(\.1)?|ld-musl-\w+\.so\.1",
    "manylinux": r"libc\.so\.6|libpthread\.so\.0|ld-linux[\w-]*\.so\.\d",
    "musllinux": r"libc\.(musl-\w+\.)?so(\.1)?|ld-musl-\w+\.so\.1",
}
PLATFORM = re.compile(
    r"(?P<kind>linux|manylinux|musllinux)(_(?P<major>\d+)_(?P<minor>\d+))?_(?P<machine>x86_64|aarch64)"
)
RELEASED = {(kind, machine) for kind in ("manylinux", "musllinux") for machine in MACHINES}
PURE = Tag("py3", "none", "any")

# How files begin that are no text: ELF, Mach-O, an archive of object files, Windows.
BINARY = (
    b"\x7fELF",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
    b"!<arch>\n",
    b"MZ",
)


# ELF.


class ElfError(Exception):
    """This is no shared library that can be read; the text says why."""


class Elf(NamedTuple):
    """What there is to know about a shared library."""

    machine: int
    #: The libraries that it needs, and where else it would look for them.
    needed: List[str]
    search_paths: List[str]
    exported: Set[str]


def read_elf(content: bytes) -> Elf:
    """Read a shared library of a 64-bit machine with the lower byte first.

    Raises:
        ElfError: it is none, or it is damaged.
    """
    if content[:4] != b"\x7fELF":
        raise ElfError("it is no ELF file")
    if content[4:6] != b"\x02\x01":
        raise ElfError("it is not for 64 bits with the lower byte first")
    try:
        kind, machine = struct.unpack_from("<HH", content, 16)
        if kind != 3:  # ET_DYN
            raise ElfError("it is no shared library")
        return _read_sections(content, machine)
    except (struct.error, ValueError, IndexError, OverflowError):
        raise ElfError("it is damaged") from None


def _read_sections(content: bytes, machine: int) -> Elf:
    (offset,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", content, offset + size * number) for number in range(count)]

    def section(number: int) -> bytes:
        start, length = headers[number][4:6]
        if start + length > len(content):
            raise ValueError
        return content[start : start + length]

    def name(strings: bytes, start: int) -> str:
        return strings[start : strings.index(b"\0", start)].decode()

    needed: List[str] = []
    search_paths: List[str] = []
    exported: Set[str] = set()
    by_kind = {header[1]: number for number, header in enumerate(headers)}
    if 6 not in by_kind or 11 not in by_kind:  # SHT_DYNAMIC, SHT_DYNSYM
        raise ElfError("it has no dynamic section, or no dynamic symbols")
    strings = section(headers[by_kind[6]][6])
    for tag, value in struct.iter_unpack("<QQ", section(by_kind[6])):
        if tag == 0:  # DT_NULL: what follows is padding
            break
        if tag == 1:  # DT_NEEDED
            needed.append(name(strings, value))
        if tag in (15, 29):  # DT_RPATH, DT_RUNPATH
            search_paths.append(name(strings, value))
    strings = section(headers[by_kind[11]][6])
    for start, info, other, place, _value, _size in struct.iter_unpack("<IBBHQQ", section(by_kind[11])):
        # Neither undefined, nor local, nor hidden.
        if place != 0 and info >> 4 != 0 and other & 3 in (0, 3):
            exported.add(name(strings, start))
    return Elf(machine, needed, search_paths, exported)


# One wheel.


class Wheel:
    """A wheel file, opened."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        name, self.version, _build, self.tags = parse_wheel_filename(path.name)
        if name != "ha-qnx":
            raise InvalidWheelFilename(f"it is a wheel of {name}")
        self.metadata = f"ha_qnx-{self.version}.dist-info"
        with zipfile.ZipFile(path) as archive:
            self.names = [entry.filename for entry in archive.infolist()]
            self.files: Dict[str, bytes] = {entry: archive.read(entry) for entry in self.names if entry[-1] != "/"}

    @property
    def is_pure(self) -> bool:
        return self.tags == frozenset((PURE,))

    @property
    def platforms(self) -> List["re.Match[str]"]:
        """The platforms of its name that can be understood."""
        found = (PLATFORM.fullmatch(tag.platform) for tag in self.tags)
        return [match for match in found if match]

    def text(self, name: str) -> str:
        """A file of the metadata; none if it is missing."""
        return self.files.get(f"{self.metadata}/{name}", b"").decode()


def check_wheel(wheel: Wheel) -> Iterator[str]:
    """A sentence for each fault of a wheel."""
    yield from check_tags(wheel)
    yield from check_contents(wheel)
    yield from check_record(wheel)
    if wheel.is_pure:
        for name, content in sorted(wheel.files.items()):
            if content.startswith(BINARY) or name == HEADER:
                yield f"it is for any platform, and contains {name}"
    elif LIBRARY not in wheel.files:
        yield f"it is for one platform, and has no {LIBRARY}: the library could not be built?"
    else:
        yield from check_library(wheel)
        yield from ask_auditwheel(wheel)


def check_tags(wheel: Wheel) -> Iterator[str]:
    """Whom the wheel is for, by its name and by its metadata."""
    for tag in sorted(wheel.tags, key=str):
        if (tag.interpreter, tag.abi) != ("py3", "none"):
            yield f"the tag {tag} binds it to an interpreter: py3-none was to be expected"
        if tag != PURE and not PLATFORM.fullmatch(tag.platform):
            yield f"the platform {tag.platform} is none of those that wheels are built for"
    if PURE in wheel.tags and not wheel.is_pure:
        yield "its name says that it is for any platform, and for some"
    if len({match["machine"] for match in wheel.platforms}) > 1:
        yield "its name has more than one machine"
    headers = email.parser.HeaderParser().parsestr(wheel.text("WHEEL"))
    inside = {str(tag) for tag in headers.get_all("Tag", [])}
    if inside != {str(tag) for tag in wheel.tags}:
        yield f"its metadata has the tags {', '.join(sorted(inside)) or 'none'}, which are not those of its name"
    if headers.get("Root-Is-Purelib") != ("true" if wheel.is_pure else "false"):
        yield f"its metadata says Root-Is-Purelib: {headers.get('Root-Is-Purelib')}"


def check_contents(wheel: Wheel) -> Iterator[str]:
    """Whether everything is there, and nothing else."""
    for name in (*NEEDED_FILES, *(f"{wheel.metadata}/{name}" for name in ("METADATA", "WHEEL", "RECORD"))):
        if name not in wheel.files:
            yield f"it lacks {name}"
    if not any(name.startswith(wheel.metadata) and name.endswith("/LICENSE") for name in wheel.files):
        yield "it lacks the LICENSE"
    if len(set(wheel.names)) != len(wheel.names):
        yield "it has two files of the same name"
    for name in sorted(wheel.files):
        directory = name.rpartition("/")[0]
        known = directory in KNOWN_DIRECTORIES or name in (LIBRARY, HEADER)
        if not (known or name.startswith(wheel.metadata + "/")) or name.endswith(".pyc"):
            yield f"{name} does not belong there"
    metadata = email.parser.HeaderParser().parsestr(wheel.text("METADATA"))
    if canonicalize_name(metadata.get("Name", "")) != "ha-qnx" or metadata.get("Version") != str(wheel.version):
        yield f"its metadata is of {metadata.get('Name')} {metadata.get('Version')}"
    parser = configparser.ConfigParser(delimiters=("=",))
    with contextlib.suppress(configparser.Error):  # What cannot be read has no commands.
        parser.read_string(wheel.text("entry_points.txt"))
    if not parser.has_section("console_scripts") or dict(parser["console_scripts"]) != ENTRY_POINTS:
        yield "its commands are not " + ", ".join(f"{name} = {value}" for name, value in ENTRY_POINTS.items())


def check_record(wheel: Wheel) -> Iterator[str]:
    """Whether RECORD tells the truth: an installer that checks it would refuse the wheel."""
    listed: Dict[str, Tuple[str, str]] = {}
    for row in csv.reader(io.StringIO(wheel.text("RECORD"))):
        if len(row) == 3:
            listed[row[0]] = row[1], row[2]
    for name in sorted(set(listed) | set(wheel.files)):
        content = wheel.files.get(name)
        if name == f"{wheel.metadata}/RECORD":
            continue
        if content is None:
            yield f"RECORD lists {name}, which is not there"
        elif name not in listed:
            yield f"RECORD does not list {name}"
        else:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            if listed[name] != (f"sha256={digest}", str(len(content))):
                yield f"{name} is not what RECORD says"


def check_library(wheel: Wheel) -> Iterator[str]:
    """The C library: for which machine, what it exports, and what it needs."""
    for name, content in sorted(wheel.files.items()):
        if content.startswith(BINARY) and name != LIBRARY:
            yield f"{name} is a binary, and there is to be none but {LIBRARY}"
    try:
        library = read_elf(wheel.files[LIBRARY])
    except ElfError as error:
        yield f"{LIBRARY}: {error}"
        return
    for match in wheel.platforms:
        if library.machine != MACHINES[match["machine"]]:
            yield f"{LIBRARY} is for machine {library.machine} of ELF, which is not {match['machine']}"
        for name in library.needed:
            if not re.fullmatch(NEEDED_LIBRARIES[match["kind"]], name):
                yield f"{LIBRARY} needs {name}: nothing but the C library of {match['kind']} may be needed"
    for path in library.search_paths:
        yield f"{LIBRARY} looks for libraries in {path}"
    for name in sorted(EXPORTED - library.exported):
        yield f"{LIBRARY} does not export {name}"
    for name in sorted(library.exported - EXPORTED - OF_THE_LINKER):
        yield f"{LIBRARY} exports {name}, which is no part of the interface"


def ask_auditwheel(wheel: Wheel) -> Iterator[str]:
    """Whether the C library of the platforms in the name is new enough for it."""
    auditwheel = shutil.which("auditwheel")
    if auditwheel is None:
        return
    asked = subprocess.run(  # noqa: S603  # the tool that the caller has installed
        [auditwheel, "show", str(wheel.path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
    )
    output = asked.stdout.decode()
    found = next(
        (match for quoted in re.findall(r'"(\w+)"', output) for match in [PLATFORM.fullmatch(quoted)] if match), None
    )
    if asked.returncode != 0 or found is None:
        yield f"auditwheel does not understand it: {' '.join(output.split())}"
        return
    for match in wheel.platforms:
        if match["kind"] == "linux":
            continue  # It promises nothing.
        promised, actual = (
            (platform["kind"], int(platform["major"] or 0), int(platform["minor"] or 0)) for platform in (match, found)
        )
        if promised[0] != actual[0] or promised < actual:
            yield f"its name promises {match[0]}, and auditwheel finds {found[0]}"


# All of them.


def check_together(wheels: Sequence[Wheel]) -> Iterator[str]:
    """Wheels that stand side by side are of one version, and their Python is the same."""
    versions = sorted({wheel.version for wheel in wheels})
    if len(versions) > 1:
        yield f"there are wheels of {len(versions)} versions: {', '.join(map(str, versions))}"
        return
    first, *others = wheels
    for other in others:
        ours, theirs = (
            {name: content for name, content in wheel.files.items() if name not in (LIBRARY, HEADER)}
            for wheel in (first, other)
        )
        for name in sorted(set(ours) | set(theirs)):
            if not name.startswith(first.metadata) and ours.get(name) != theirs.get(name):
                yield f"{name} is not the same in {first.path.name} and in {other.path.name}"


def check_release(wheels: Sequence[Wheel]) -> Iterator[str]:
    """Whether there is a wheel for everybody."""
    platforms = {(match["kind"], match["machine"]) for wheel in wheels for match in wheel.platforms}
    for kind, machine in sorted(RELEASED - platforms):
        yield f"there is no wheel for {kind} on {machine}"
    if not any(wheel.is_pure for wheel in wheels):
        yield "there is no wheel for any platform, which is what a QNX target installs"
    for wheel in wheels:
        if any(match["kind"] == "linux" for match in wheel.platforms):
            yield f"{wheel.path.name}: linux is no platform to publish for; auditwheel repair gives it a better name"
    if any(wheel.version.is_devrelease or wheel.version.local for wheel in wheels):
        yield "this is no version to publish"


def check(paths: Sequence[pathlib.Path], release: bool) -> Iterator[str]:
    """A sentence for each fault."""
    wheels = []
    for path in paths:
        try:
            wheels.append(Wheel(path))
        except InvalidWheelFilename as error:
            yield f"{path.name}: this is no name for a wheel of ha_qnx: {error}"
        except (zipfile.BadZipFile, OSError) as error:
            yield f"{path.name}: it cannot be read: {error}"
    for wheel in wheels:
        for fault in check_wheel(wheel):
            yield f"{wheel.path.name}: {fault}"
    if wheels:
        yield from check_together(wheels)
    if release:
        yield from check_release(wheels)


def main() -> int:
    """Check what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directories", nargs="+", metavar="DIRECTORY", type=pathlib.Path, help="where the wheels are")
    parser.add_argument("--release", action="store_true", help="the wheels are to be published")
    options = parser.parse_args()
    paths = sorted(path for directory in options.directories for path in directory.glob("*.whl"))
    if not paths:
        parser.error("there is no wheel in " + ", ".join(map(str, options.directories)))
    faults = list(check(paths, options.release))
    for fault in faults:
        print(fault)
    if not faults:
        audited = "with auditwheel" if shutil.which("auditwheel") else "without auditwheel, which is not in the PATH"
        print(f"no fault in {', '.join(path.name for path in paths)} ({audited})")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
