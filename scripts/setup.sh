#!/bin/sh
# Makes the environment in $1 from uv.lock, with nothing but Python: uv comes from the package index, pinned.
# With `uv` as $2 it stops once uv is there.
set -eu
venv=$1
say() { echo "setup: $*" >&2; }

"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || {
  say "Python 3.11 to 3.13 is needed, and $PYTHON is not; install it, or say which: make PYTHON=python3.12 …"
  exit 2
}
if [ ! -x "$venv/bin/pip" ] && [ ! -x "$venv/bin/uv" ]; then
  if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian's Python comes without the parts that make an environment.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      say "installing python3-venv"
      { apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv; } >/dev/null
    else
      say "Python's venv is missing; install it (Debian, Ubuntu: sudo apt-get install python3-venv) and run the same command again."
      exit 2
    fi
  fi
  say "making $venv"
  "$PYTHON" -m venv "$venv"
fi
[ "$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" = "$UV_VERSION" ] ||
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
[ "${2:-}" != uv ] || exit 0
say "installing what uv.lock names (some minutes the first time)"
# --inexact keeps uv itself, which the lock does not name.
UV_PROJECT_ENVIRONMENT=$venv "$venv/bin/uv" sync --locked --inexact --quiet --python "$venv/bin/python"
touch "$venv/.ready"
