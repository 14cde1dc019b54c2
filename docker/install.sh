#!/bin/sh
# Install the dependency groups $1 from uv.lock into /opt/venv, without packages and files for compilers and tests.
set -eu
groups=$1
set --
for group in $groups; do [ "$group" = kfp ] || set -- "$@" --group "$group"; done
uv sync --locked --no-install-project --no-default-groups --no-install-package libclang --no-install-package wheel "$@"
# In a container, kfp imports only itself and the standard library; its 34 dependencies are for compilers and clients.
case " $groups " in
  *" kfp "*)
    uv export --quiet --locked --no-emit-project --only-group kfp | awk '/^kfp==/, !/\\$/' > kfp.txt
    uv pip install --quiet --python /opt/venv --no-deps --require-hashes --requirement kfp.txt
    ;;
esac
find /opt/venv/lib -type d \( -name tests -o -name __pycache__ -o -path '*/tensorflow/include' -o -path '*/pyarrow/include' \) \
  -prune -exec rm -rf {} +
# Python cannot write bytecode to a read-only root, and without it TensorFlow takes longer to import.
# Templates of some packages are not valid Python: compiling them fails, but nothing imports them.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib >/dev/null || true
