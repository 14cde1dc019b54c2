#!/bin/sh
# Create the environment $1 from uv.lock. Python is the only requirement: pip installs the pinned version of uv.
# With `uv` as $2, install only uv.
set -eu
venv=$1
log() { echo "setup: $*" >&2; }

"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || {
  log "Python 3.11 to 3.13 is required, and $PYTHON is another version; install it, or name it: make PYTHON=python3.12 …"
  exit 2
}
if [ ! -x "$venv/bin/pip" ] && [ ! -x "$venv/bin/uv" ]; then
  if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian packages venv and ensurepip separately from Python.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      log "installing python3-venv"
      { apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv; } >/dev/null
    else
      log "Python's venv is missing; install it (Debian, Ubuntu: sudo apt-get install python3-venv) and rerun the command"
      exit 2
    fi
  fi
  log "creating $venv"
  "$PYTHON" -m venv "$venv"
fi
[ "$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" = "$UV_VERSION" ] ||
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
[ "${2:-}" != uv ] || exit 0
log "installing the packages in uv.lock (some minutes the first time)"
# --inexact keeps uv itself, which is not in the lock file. Where Python writes no bytecode, uv does: otherwise, each
# process takes eight seconds longer to import TensorFlow.
UV_PROJECT_ENVIRONMENT=$venv "$venv/bin/uv" sync --locked --inexact --quiet --python "$venv/bin/python" \
  ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode}
touch "$venv/.ready"
