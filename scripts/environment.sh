#!/usr/bin/env bash
# Builds or refreshes .venv from a lock file: `environment.sh demo` (what running needs) or `environment.sh dev` (everything).
# Quiet and instant when nothing changed. Works in a folder whose path has spaces; uses uv when it is there.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

kind=${1:-dev}
case $kind in
  demo) lock=requirements-demo.lock ;;
  dev) lock=requirements.lock ;;
  *) echo "usage: scripts/environment.sh demo|dev" >&2; exit 2 ;;
esac

say() { printf '%s\n' "$*" >&2; }

# What an environment was built from. The folder is part of it: a moved environment's scripts point to the old place.
fingerprint() { { pwd; cat -- "$1" pyproject.toml; } | cksum; }
stamp() { printf '.venv/.built-%s' "$1"; }
is_current() { [ -x .venv/bin/python ] && [ "$(cat "$(stamp "$1")" 2>/dev/null)" = "$2" ]; }

# The dev environment holds all that the demo needs.
if is_current "$kind" "$(fingerprint "$lock")" || is_current dev "$(fingerprint requirements.lock)"; then
  exit 0
fi

find_python() {
  local name needs="venv, ensurepip"
  ! command -v uv >/dev/null 2>&1 || needs="sys"
  for name in ${PYTHON:+"$PYTHON"} python3.14 python3.13 python3.12 python3.11 python3 python; do
    # Asked, not trusted: a name on PATH may be a version manager's shim without a Python behind it.
    if "$name" -c "import sys, $needs; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; then
      printf '%s' "$name"
      return 0
    fi
  done
  return 1
}

no_python() {
  say "Error: No Python 3.11 or newer with its venv module was found."
  say "  why:  looked for \$PYTHON, python3.14 … python3.11, python3 and python on PATH."
  say "  next: install Python (Debian and Ubuntu: apt install python3 python3-venv), or: PYTHON=/path/to/python3.12 make $1"
  exit 1
}

# Created when it is missing, half made, or was moved here from another folder.
make_venv() {
  local python=$1
  if [ -x .venv/bin/python ] && [ "$(cat .venv/.folder 2>/dev/null)" = "$PWD" ] \
    && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    return 0
  fi
  rm -rf .venv
  if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --python "$python" .venv
  else
    "$python" -m venv .venv
  fi
  pwd > .venv/.folder
}

install_with_uv() {
  uv pip install --python .venv/bin/python --require-hashes --requirements "$lock"
  uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
}

install_with_pip() {
  # One line for each file that is fetched; errors come on stderr and stay whole.
  .venv/bin/python -m pip install --progress-bar off --disable-pip-version-check --require-hashes --requirement "$lock" \
    | awk '/^ *(Downloading|Using cached) /{sub(/.*\//, "", $2); print "  " $2 " " $3 " " $4; fflush()}' >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
}

python=$(find_python) || no_python "$([ "$kind" = demo ] && echo demo || echo env)"
count=$(grep -c '^[A-Za-z]' "$lock")
make_venv "$python"
if command -v uv >/dev/null 2>&1; then tool=uv; else tool=pip; fi
say "Building .venv with $(.venv/bin/python --version) and $tool: up to $count packages from $lock (once) …"
"install_with_$tool"
fingerprint "$lock" > "$(stamp "$kind")"
say "The environment is ready: .venv/bin/cdc-lake"
