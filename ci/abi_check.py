"""Check the declarations of the ctypes binding (ha_qnx/abi.py) against a C compiler and the record of QNX's ABI.

    python ci/abi_check.py            check; exit status 1 and one line for each difference
    python ci/abi_check.py --prove    plant errors in the table, one at a time, and see that each is found

Three comparisons:

* sizes and offsets as ctypes lays the structures out, with those of the compiler: for LP64, and for ILP32 with -m32 -S
  (which needs no 32-bit libraries: nothing is linked or run);
* every prototype, structure and constant of the table with ci/qnx_abi.json, for each data model;
* every prototype with the header of the C library for POSIX hosts, fallback/libha/include/ha_posix.h.

Run it with an interpreter that has ha_qnx installed. CC names the compiler (cc).
"""

import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple
from unittest import mock

from ha_qnx import abi, constants

HERE = pathlib.Path(__file__).resolve().parent
HEADER = HERE.parent / "fallback" / "libha" / "include" / "ha_posix.h"
RECORD = HERE / "qnx_abi.json"

# What a word of the table is in C, told independently of the table: for 64 and for 32 bits.
IN_C = {
    "int": ("int", "int"),
    "uint": ("unsigned", "unsigned"),
    "i8": ("int8_t", "int8_t"),
    "u8": ("uint8_t", "uint8_t"),
    "i16": ("int16_t", "int16_t"),
    "u16": ("uint16_t", "uint16_t"),
    "i32": ("int32_t", "int32_t"),
    "u32": ("uint32_t", "uint32_t"),
    "u64": ("uint64_t", "uint64_t"),
    "nd": ("uint32_t", "uint32_t"),
    "pid": ("int32_t", "int32_t"),
    "mode": ("uint32_t", "uint32_t"),
    "ftype": ("int", "int"),
    "pointer": ("void *", "void *"),
    "string": ("char *", "char *"),
    "length": ("size_t", "int"),
    "size": ("size_t", "size_t"),
    "ssize": ("ptrdiff_t", "ptrdiff_t"),
    "count": ("ptrdiff_t", "int"),
    "status": ("long", "int"),
    "offset": ("int64_t", "int32_t"),
    "rcvid": ("int", "int"),
}

# The models' names in the record, and the structures' and unions' names there.
COLUMNS = {abi.LP64_7.name: "lp64", abi.LP64_8.name: "lp64_8x", abi.ILP32_6.name: "ilp32_6x"}
RECORDED_AS = {
    "iov": "iov_t",
    "pulse": "_pulse",
    "info64": "_msg_info64",
    "info32": "_msg_info",
    "cred": "_cred_info",
    "client": "_client_info",
    "name": "name_attach_t",
    "sigval": "sigval",
    "event64": "sigevent",
    "event32": "sigevent",
    "itimer": "_itimer",
    "timer64": "_timer_info",
    "timer32": "_timer_info",
}
POINTED_AT = {
    "iov*": "iov_t", "client*": "_client_info", "name*": "name_attach_t", "event*": "sigevent", "itimer*": "_itimer",
    "timer*": "_timer_info",
}  # fmt: skip
# What is only passed on: the record has it as an address.
OPAQUE = {
    "dispatch*": "dispatch_t *", "attr*": "resmgr_attr_t *", "connects*": "resmgr_connect_funcs_t *",
    "ios*": "resmgr_io_funcs_t *",
}  # fmt: skip
# The C library for POSIX hosts has it not: it is for a libc that has no dispatch_create_channel.
NOT_IN_HEADER = frozenset(("pathmgr_link",))
# How the record says it that a function tells of a failure.
FAILURES = {
    "-1 and errno": abi.ERRNO,
    "NULL and errno": abi.NULL,
    "negative errno": abi.NEGATIVE,
    "positive errno": abi.POSITIVE,
    "sign not found": abi.UNKNOWN,
}
# Constants of ours that are numbers of the host, or that the record does not have.
OURS = frozenset(
    ("TIMER_ABSTIME", "FTYPE_ANY", "FTYPE_NAME", "ERESTART", "ENOREMOTE", "ENONDP", "EBADFSYS", "ESRVRFAULT", "EOK",
     "CLOCK_REALTIME", "CLOCK_MONOTONIC", "CLOCK_SOFTTIME", "SIGEV_NONE", "SIGEV_SIGNAL", "SIGEV_PULSE",
     "SIGEV_UNBLOCK", "SIGEV_INTR", "POSIX_DEVDIR_NONE", "POSIX_DEVDIR_FROM", "POSIX_DEVDIR_TO", "POSIX_DEVDIR_TOFROM",
     "DCMD_ALL", "DCMD_CHR", "DCMD_MISC", "DCMD_ALL_GETFLAGS", "DCMD_ALL_SETFLAGS", "DCMD_CHR_ISATTY")
)  # fmt: skip


def check() -> List[str]:
    """Every difference, as a sentence."""
    record = json.loads(RECORD.read_text())
    differences: List[str] = []
    for model in abi.MODELS:
        differences += layouts_of_compiler(model)
        differences += prototypes_of_record(model, record["functions"])
        differences += layouts_of_record(model, record["structs"])
    return differences + constants_of_record(record["constants"]) + prototypes_of_header()


# The compiler.


def layouts_of_compiler(model: abi.Model) -> List[str]:
    """Sizes and offsets that the compiler sees differently from ctypes."""
    narrow = model is abi.ILP32_6
    wanted: Dict[str, int] = {}
    source = ["#include <stddef.h>", "#include <stdint.h>"]
    for name in (*abi.UNIONS, *abi.RECORDS):
        if is_of_another_size(name, model):
            continue
        try:
            made = abi.record(name, model)
        except KeyError as error:
            return [f"{model.name}: {name} has a member of the unknown type {error}"]
        kind = "union" if name in abi.UNIONS else "struct"
        source.append(f"{kind} {name} {{ {' '.join(members_in_c(name, narrow))} }};")
        wanted[f"sizeof {kind} {name}"] = ctypes.sizeof(made)
        for member, _type in abi.fields(name, model):
            wanted[f"offsetof {kind} {name} {member}"] = getattr(made, member).offset
    for word, (wide_type, narrow_type) in IN_C.items():
        source.append(f"typedef {narrow_type if narrow else wide_type} word_{word};")
        if not (word in ("pointer", "string") and narrow):
            wanted[f"sizeof word_{word}"] = ctypes.sizeof(model.types[word])
    if model is abi.LP64_8:
        source = [line.replace("typedef int word_rcvid", "typedef int64_t word_rcvid") for line in source]
    expressions = {key: expression_in_c(key) for key in wanted}
    source.append("void values(void) {")
    source += [f'__asm__ volatile("\\n=> {key} %c0" : : "i"({text}));' for key, text in expressions.items()]
    source.append("}")
    found = values_of_compiler("\n".join(source), ["-m32"] if narrow else [])
    return [
        f"{model.name}: {key} is {found.get(key)} for the compiler, and {value} for ctypes"
        for key, value in wanted.items()
        if found.get(key) != value
    ]


def is_of_another_size(name: str, model: abi.Model) -> bool:
    """Whether a structure has a layout for each size of words, and this is not that of the model."""
    return name.endswith(("32", "64")) and name[-2:] != model.info[-2:]


def members_in_c(name: str, narrow: bool) -> Iterator[str]:
    """The members of a structure as C declares them."""
    for member in (abi.RECORDS.get(name) or abi.UNIONS[name]).split():
        word, kind = member.split(":")
        kind, _times, count = kind.partition("*")
        text = IN_C[kind][narrow] if kind in IN_C else f"{'union' if kind in abi.UNIONS else 'struct'} {kind}"
        yield f"{text} {word}{f'[{count}]' if count else ''};"


def expression_in_c(key: str) -> str:
    """``sizeof struct x`` and ``offsetof struct x y`` as C expressions."""
    operator, *words = key.split()
    return f"sizeof({' '.join(words)})" if operator == "sizeof" else f"offsetof({' '.join(words[:-1])}, {words[-1]})"


def values_of_compiler(source: str, options: List[str]) -> Dict[str, int]:
    """What the compiler makes of the expressions of a source, from its assembly."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "values.c")
        path.write_text(source)
        command = [*os.environ.get("CC", "cc").split(), "-ffreestanding", *options, "-S", "-o", "-", str(path)]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # the compiler
    if outcome.returncode:
        raise SystemExit(f"the compiler failed: {' '.join(command)}\n{outcome.stderr}")
    pattern = re.compile(r"^=> (.*) \$?(-?\d+)$", re.MULTILINE)
    return {match.group(1): int(match.group(2)) for match in pattern.finditer(outcome.stdout)}


# The record.


class Recorded(NamedTuple):
    """A function as the record has it for a data model."""

    result: str
    parameters: List[Tuple[str, str]]
    failure: str


def recorded_function(name: str, functions: Dict[str, Any], model: abi.Model) -> Recorded:
    """A function of the record."""
    entry = functions[name]
    column = COLUMNS[model.name]
    types = entry.get(column) or entry["lp64"]
    failure = next(ours for theirs, ours in FAILURES.items() if entry["returns_errors_as"].startswith(theirs))
    return Recorded(types["restype"], [(word, kind) for word, kind in types["argtypes"]], failure)


def prototypes_of_record(model: abi.Model, functions: Dict[str, Any]) -> List[str]:
    """Prototypes that the record has otherwise."""
    differences = []
    for function in abi.FUNCTIONS:
        if function.name not in functions:
            differences.append(f"{function.name} is not in the record")
            continue
        recorded = recorded_function(function.name, functions, model)
        ours = Recorded(
            name_of_type(function.result, model),
            [(word, name_of_type(kind, model)) for word, kind in function.parameters],
            function.failure,
        )
        for what, own, theirs in zip(Recorded._fields, ours, recorded):
            if not same(own, theirs):
                differences.append(f"{model.name}: {function.name}: {what} is {own}, and {theirs} in the record")
        if function.library != ("ha" if functions[function.name]["lib"] == "ha" else "c"):
            differences.append(f"{function.name} is not of the library {function.library}")
        if function.variadic != ("variadic" in functions[function.name]):
            differences.append(f"{function.name} is variadic here or in the record, and not in both")
    missing = {name for name in functions if name.startswith(("ha_", "MsgSend", "MsgReceive", "Connect", "Channel"))}
    missing -= {function.name for function in abi.FUNCTIONS} | NOT_BOUND
    return differences + [f"{name} is in the record and not in the table" for name in sorted(missing)]


# Functions of the record that the binding does without: streams are Python's own, and the others have no use here.
NOT_BOUND = frozenset(("ha_fopen", "ha_fclose", "MsgReceivePulsev", "MsgReceivePulsev_r"))


def same(own: Any, theirs: Any) -> bool:
    """Whether two types, or two lists of parameters, are the same; the names of parameters are."""
    if isinstance(own, list):
        return len(own) == len(theirs) and all(a[0] == b[0] and same(a[1], b[1]) for a, b in zip(own, theirs))
    return bool(own == theirs)


def name_of_type(word: str, model: abi.Model) -> str:
    """What the record calls a type of the table in a data model."""
    if word == "recovery":
        return "CFUNCTYPE(c_int, c_int, c_void_p)"
    if word == "info*":
        return f"POINTER({RECORDED_AS[model.info]})"
    if word == "u64*":
        return "POINTER(c_uint64)"
    if word in POINTED_AT:
        return f"POINTER({POINTED_AT[word]})"
    if word in OPAQUE:
        return "c_void_p"
    names = {
        "pointer": "c_void_p", "string": "c_char_p", "int": "c_int", "uint": "c_uint", "pid": "c_int32",
        "nd": "c_uint32", "mode": "c_uint32", "size": "c_size_t", "ssize": "c_ssize_t", "ftype": "c_int",
    }  # fmt: skip
    if word in names:
        return names[word]
    c_type = model.types[word]
    by_type = {
        "length": {ctypes.c_size_t: "c_size_t", ctypes.c_int: "c_int"},
        "count": {ctypes.c_ssize_t: "c_ssize_t", ctypes.c_int: "c_int"},
        "status": {ctypes.c_long: "c_long", ctypes.c_int: "c_int"},
        "rcvid": {ctypes.c_int: "c_int", ctypes.c_int64: "c_int64"},
        "offset": {ctypes.c_int64: "c_int64", ctypes.c_int32: "c_int32"},
    }
    return by_type.get(word, {}).get(c_type, f"{c_type.__name__}, which is no type for {word!r}")


def layouts_of_record(model: abi.Model, structs: Dict[str, Any]) -> List[str]:
    """Structures that the record lays out otherwise."""
    column = "ilp32_6x" if model is abi.ILP32_6 else "lp64"
    differences = []
    for name in (*abi.UNIONS, *abi.RECORDS):
        recorded = structs[RECORDED_AS[name]][column]
        if recorded is None or is_of_another_size(name, model):
            continue
        made = abi.record(name, model)
        ours = [[member, getattr(made, member).offset] for member, _type in abi.fields(name, model)]
        theirs = [[member, offset] for member, _type, offset in recorded["fields"]]
        if (ctypes.sizeof(made), ours) != (recorded["size"], theirs):
            own = f"{ctypes.sizeof(made)} bytes, {ours}"
            differences.append(f"{model.name}: {name} is {own}, and {recorded['size']} bytes, {theirs} in the record")
    return differences


def constants_of_record(recorded: Dict[str, int]) -> List[str]:
    """Constants that have another value in the record."""
    differences = []
    for name in constants.__all__:
        if name in OURS:
            continue
        theirs = next((recorded[key] for key in (name, f"_{name}") if key in recorded), None)
        if theirs != getattr(constants, name):
            differences.append(f"{name} is {getattr(constants, name):#x}, and {theirs} in the record")
    return differences


# The header.


def prototypes_of_header() -> List[str]:
    """Prototypes that the header of the C library for POSIX hosts has otherwise."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    declared: Dict[str, Tuple[str, List[str]]] = {}
    for result, name, parameters in re.findall(r"^([a-z_0-9 ]+[ *]+)(\w+)\(([^)]*)\);", text, re.MULTILINE):
        kinds = [plain_type(parameter, named=True) for parameter in parameters.split(",") if parameter.strip() != "..."]
        declared[name] = plain_type(result, named=False), kinds
    differences = []
    for function in abi.FUNCTIONS:
        if function.name in NOT_IN_HEADER:
            continue
        ours = header_type(function.result), [header_type(kind) for _word, kind in function.parameters]
        theirs = declared.get(abi.posix_symbol(function.name))
        if ours != theirs:
            differences.append(f"{function.name} is {ours}, and {theirs} in {HEADER.name}")
    return differences


def plain_type(text: str, named: bool) -> str:
    """A C type without const, without the name of what has it, and with its stars behind one space."""
    words = re.sub(r"\bconst\b", " ", text).replace("*", " * ").split()
    if named and words[-1] != "*":
        words.pop()
    return " ".join("int" if word == "clockid_t" else word for word in words)


def header_type(word: str) -> str:
    """What a type of the table is in the header, where it is not what it is in C everywhere."""
    special = {
        "ssize": "ssize_t", "count": "ssize_t", "mode": "mode_t", "recovery": "RFp", "iov*": "iov_t *",
        "info*": "struct _msg_info64 *", "client*": "struct _client_info *", "name*": "name_attach_t *",
        "event*": "struct ha_posix_sigevent *", "itimer*": "struct _itimer *", "timer*": "struct _timer_info *",
        "u64*": "uint64_t *", "ftype": "enum _file_type", **OPAQUE,
    }  # fmt: skip
    return special.get(word) or " ".join(IN_C[word][0].replace("*", " * ").split())


# Proof.


def planted() -> Iterator[Tuple[str, Callable[[], Any]]]:
    """Errors, each with what puts it into the table until its context ends."""

    def function(name: str, **changes: Any) -> Callable[[], Any]:
        changed = tuple(f._replace(**changes) if f.name == name else f for f in abi.FUNCTIONS)
        return lambda: mock.patch.object(abi, "FUNCTIONS", changed)

    def member(name: str, old: str, new: str) -> Callable[[], Any]:
        text = abi.RECORDS[name]
        if old not in text:
            raise SystemExit(f"{old!r} is no member of {name}")
        return lambda: mock.patch.dict(abi.RECORDS, {name: text.replace(old, new)})

    def word(model: abi.Model, name: str, c_type: Any) -> Callable[[], Any]:
        return lambda: mock.patch.dict(model.types, {name: c_type})

    send = abi.BY_NAME["MsgSend"].parameters
    yield "the result of MsgSend is an int", function("MsgSend", result="int")
    yield "a result is missing", function("MsgReceive", result="")
    yield (
        "two arguments of MsgSend in the wrong order",
        function("MsgSend", parameters=(send[0], *send[3:], *send[1:3])),
    )
    yield (
        "a length of MsgRead with 32 bits",
        function(
            "MsgRead",
            parameters=tuple(
                (name, "int" if name == "bytes" else kind) for name, kind in abi.BY_NAME["MsgRead"].parameters
            ),
        ),
    )
    yield (
        "an argument of ha_attach is missing",
        function("ha_attach", parameters=abi.BY_NAME["ha_attach"].parameters[:3]),
    )
    yield "the sign of MsgError_r", function("MsgError_r", failure=abi.NEGATIVE)
    yield "ha_open is not variadic", function("ha_open", variadic=False)
    yield "two members of a pulse in the wrong order", member("pulse", "subtype:u16 code:i8", "code:i8 subtype:u16")
    yield "a priority with 32 bits", member("info64", "priority:i16", "priority:i32")
    yield (
        "the order of 7.x in the record of 6.x",
        member(
            "info32",
            "msglen:i32 srcmsglen:i32 dstmsglen:i32 priority:i16 flags:i16",
            "priority:i16 flags:i16 msglen:i32 srcmsglen:i32 dstmsglen:i32",
        ),
    )
    yield "seven groups", member("cred", "grouplist:i32*8", "grouplist:i32*7")
    yield "a rcvid with 32 bits on 8.x", word(abi.LP64_8, "rcvid", ctypes.c_int)
    yield "a length with 64 bits on 6.x", word(abi.ILP32_6, "length", ctypes.c_size_t)
    yield "an offset with 32 bits on 7.x", word(abi.LP64_7, "offset", ctypes.c_int32)
    yield "a constant", lambda: mock.patch.object(constants, "NTO_CHF_UNBLOCK", 4)
    yield (
        "a function is missing",
        lambda: mock.patch.object(abi, "FUNCTIONS", tuple(f for f in abi.FUNCTIONS if f.name != "ha_reopen")),
    )


def prove() -> int:
    """Plant each error and see that it is found; returns the exit status."""
    unnoticed = 0
    for number, (what, plant) in enumerate(planted(), 1):
        with plant():
            try:
                found = check()
            except (KeyError, IndexError) as error:
                found = [f"{type(error).__name__}: {error}"]
        unnoticed += not found
        print(f"{number:2}. {what}: {found[0] if found else 'NOT FOUND'}", flush=True)
    with contextlib.suppress(IndexError):
        print(f"without an error planted: {check()[0]}")
        return 1
    return 1 if unnoticed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prove", action="store_true", help="plant errors and see that each is found")
    if parser.parse_args().prove:
        return prove()
    differences = check()
    for difference in differences:
        print(difference)
    counts = f"{len(abi.FUNCTIONS)} prototypes, {len(abi.RECORDS) + len(abi.UNIONS)} structures"
    counts += f", {len(constants.__all__)} constants, {len(abi.MODELS)} data models"
    print(f"{counts}: {len(differences) or 'no'} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
