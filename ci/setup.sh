# For ci/test and ci/demo: a virtual environment for an interpreter, with the wheel of this checkout in it.
# shellcheck shell=sh
#
# What is tested and shown is the wheel, never the source tree. Everything that is made lies in the checkout, where git
# ignores it: .venv-VERSION/ and build/wheel/. A second run uses both again; the wheel is built anew when a file that
# could be in it has changed.

checkout=${checkout:-$(cd "$(dirname "$0")/.." && pwd)} || exit 1
wheels=$checkout/build/wheel
PIP_DISABLE_PIP_VERSION_CHECK=1
PIP_ROOT_USER_ACTION=ignore
export PIP_DISABLE_PIP_VERSION_CHECK PIP_ROOT_USER_ACTION
unset PYTHONPATH PYTHONHOME HA_QNX_PURE
# Each process of each run would compile all the tests anew.
unset PYTHONDONTWRITEBYTECODE

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s\n' "$0: $*" >&2
    exit 1
}

# minor_version PYTHON: such as 3.11; what is missing, in a sentence, if this interpreter cannot be used.
minor_version() {
    command -v "$1" >/dev/null 2>&1 ||
        fail "there is no $1: install Python 3.8 or newer (Debian's package is python3), or name one: PYTHON=/path/to/python"
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 8))' ||
        fail "$1 is too old or does not run: Python 3.8 or newer is needed"
    "$1" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$1 cannot make virtual environments: install its venv module (Debian's package is python3-venv)"
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# prepare PYTHON: sets venv to a virtual environment of this interpreter that has the wheel.
prepare() {
    version=$(minor_version "$1") || exit 1
    venv=$checkout/.venv-$version
    make_venv "$1"
    build_wheel
    install_wheel
}

# make_venv PYTHON: the virtual environment, unless it is there and of this very interpreter.
make_venv() {
    identity="$venv $("$1" -c 'import sys; print(sys.version, sys.base_prefix)')"
    if [ "$(cat "$venv/made-by" 2>/dev/null)" = "$identity" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        return
    fi
    say "making $venv"
    rm -rf "$venv"
    "$1" -m venv "$venv" || fail "no virtual environment could be made in $venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip || fail "pip could not be upgraded"
    printf '%s\n' "$identity" >"$venv/made-by"
}

# install_group NAME: the requirements of a dependency group of pyproject.toml. (pip's own --group is too young for
# Python 3.8, so they are read here, with the TOML reader that Python has or pip brings.)
install_group() {
    requirements=$("$venv/bin/python" - "$checkout/pyproject.toml" "$1" <<'END'
import sys

try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib

with open(sys.argv[1], "rb") as file:
    print("\n".join(tomllib.load(file)["dependency-groups"][sys.argv[2]]))
END
    ) || fail "the dependency group $1 cannot be read from pyproject.toml"
    if [ "$(cat "$venv/group-$1" 2>/dev/null)" != "$requirements" ]; then
        say "installing what the group $1 needs"
        printf '%s\n' "$requirements" >"$venv/requirements-$1"
        "$venv/bin/python" -m pip install --quiet -r "$venv/requirements-$1" || fail "the group $1 could not be installed"
        mv "$venv/requirements-$1" "$venv/group-$1"
    fi
}

# has_compiler: whether there is a C compiler that compiles. CC may have options, too.
has_compiler() {
    # shellcheck disable=SC2086
    printf 'int main(void) { return 0; }\n' | ${CC:-cc} -x c -c -o /dev/null - >/dev/null 2>&1
}

# build_wheel: sets sources to the fingerprint of the checkout and of what it is built with, and builds the wheel unless
# there is one of them. Where there is no compiler, a wheel without the C library comes out.
build_wheel() {
    has_compiler && compiler=${CC:-cc} || compiler=
    sources=$("$venv/bin/python" - "$checkout" "$compiler" "${CFLAGS:-} ${LDFLAGS:-} ${CMAKE_ARGS:-}" <<'END'
import hashlib
import os
import sys

# Files that are never part of the wheel, and directories that others write to while this runs.
SKIPPED = {"build", "dist", "__pycache__", os.path.join("tests", "unit")}

digest = hashlib.sha256(repr(sys.argv[2:]).encode())
os.chdir(sys.argv[1])
for directory, subdirectories, files in os.walk("."):
    paths = {name: os.path.normpath(os.path.join(directory, name)) for name in subdirectories + files}
    subdirectories[:] = sorted(
        name for name in subdirectories if name[0] != "." and name not in SKIPPED and paths[name] not in SKIPPED
    )
    for name in sorted(files):
        with open(paths[name], "rb") as file:
            content = file.read()
        digest.update(("%s %d\n" % (paths[name], len(content))).encode() + content)
print(digest.hexdigest())
END
    ) || fail "the sources cannot be read"
    if [ "$(cat "$wheels/sources" 2>/dev/null)" = "$sources" ]; then
        return
    fi
    say "building the wheel"
    rm -rf "$wheels"
    mkdir -p "$wheels"
    "$venv/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$checkout" || fail "the wheel could not be built"
    printf '%s\n' "$sources" >"$wheels/sources"
}

# install_wheel: the wheel into the virtual environment, and a look that it is the wheel which is imported.
install_wheel() {
    if [ "$(cat "$venv/sources" 2>/dev/null)" != "$sources" ]; then
        rm -f "$venv/sources"
        "$venv/bin/python" -m pip uninstall --quiet --yes ha_qnx 2>/dev/null
        "$venv/bin/python" -m pip install --quiet "$wheels"/*.whl || fail "the wheel could not be installed"
        printf '%s\n' "$sources" >"$venv/sources"
    fi
    (cd "$venv" && bin/python -c 'import ha_qnx, sys; sys.exit(not ha_qnx.__file__.startswith(sys.prefix))') ||
        fail "ha_qnx is not imported from $venv"
}
