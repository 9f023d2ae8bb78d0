# shellcheck shell=bash
# Sourced by the scripts beside it: `environment NAME ARGUMENTS...` leaves a virtual environment in $VENV where
# `pip install ARGUMENTS...` has been done. When nothing changed since, it is used as it is, without the network.
#
#   PYTHON   the interpreter to make it with (default: the first suitable one on PATH)
#   VENV     where it is (default: .venv beside pyproject.toml)

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset PYTHONHOME PYTHONPATH

say() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; }
version() { "$1" -c 'import platform, sys; print(platform.python_implementation(), sys.version)'; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python from 3.11 to 3.13 that runs"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if suits "$candidate"; then printf '%s\n' "$candidate"; return; fi
  done
  fail "no Python from 3.11 to 3.13 found; set PYTHON to one"
}

# Whether $VENV runs, belongs to this directory and, if PYTHON is set, is of that version.
venv_is_usable() {
  suits "$VENV/bin/python" && [ "$(cat "$VENV/.root" 2>/dev/null)" = "$ROOT" ] || return 1
  [ -z "${PYTHON:-}" ] || [ "$(version "$PYTHON")" = "$(version "$VENV/bin/python")" ]
}

make_venv() {
  local python
  python=$(find_python)
  say "making $VENV with $("$python" --version)"
  "$python" -m venv --clear "$VENV" || fail "$python has no working venv module (on Debian and Ubuntu: python3-venv)"
  # The pip that comes with an old Python cannot resolve the dependencies.
  "$VENV/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
  printf '%s\n' "$ROOT" >"$VENV/.root"
}

stamp() { { cat "$ROOT/pyproject.toml" "${BASH_SOURCE[0]}"; printf '%s\n' "$@"; } | "$VENV/bin/python" -c \
  'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

is_installed() { [ "$(cat "$VENV/.installed-$1" 2>/dev/null)" = "$(stamp "${@:2}")" ]; }

install() {
  local name=$1
  shift
  say "installing what '$name' needs into $VENV"
  (cd "$ROOT" && "$VENV/bin/python" -m pip install --quiet "$@")
  stamp "$@" >"$VENV/.installed-$name"
}

set_up() {
  venv_is_usable || make_venv
  is_installed "$@" || install "$@"
}

environment() {
  if venv_is_usable && is_installed "$@"; then return; fi
  mkdir -p "$VENV" && [ -w "$VENV" ] || fail "$VENV is not writable; set VENV to another place"
  if command -v flock >/dev/null; then
    (flock 9; set_up "$@") 9<"$ROOT"  # two scripts at once make one environment
  else
    set_up "$@"
  fi
}
