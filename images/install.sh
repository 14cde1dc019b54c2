#!/bin/sh
# Makes /opt/venv of the dependency groups in "$@", as uv.lock names them, without what only a compiler or a test reads.
set -eu
for group; do shift; set -- "$@" --group "$group"; done
uv sync --locked --no-default-groups --no-install-package libclang --no-install-package wheel "$@"
find /opt/venv/lib -type d \( -name tests -o -name __pycache__ -o -path '*/tensorflow/include' -o -path '*/pyarrow/include' \) \
  -prune -exec rm -rf {} +
# A read-only root can't keep bytecode, and without it TensorFlow takes twice as long to import.
# Some packages bring templates that are no code: those fail, and no import reads them.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib >/dev/null || true
