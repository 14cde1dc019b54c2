#!/bin/sh
# Makes /opt/venv of the dependency groups in $1, as uv.lock names them, without what only a compiler or a test reads.
set -eu
groups=$1
set --
for group in $groups; do set -- "$@" --group "$group"; done
uv sync --locked --no-install-project --no-default-groups --no-install-package libclang --no-install-package wheel "$@"
find /opt/venv/lib -type d \( -name tests -o -name __pycache__ -o -path '*/tensorflow/include' -o -path '*/pyarrow/include' \) \
  -prune -exec rm -rf {} +
# A read-only root can't keep bytecode, and without it TensorFlow takes longer to import.
# Some packages bring templates that are no code: those fail, and no import reads them.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib >/dev/null || true
