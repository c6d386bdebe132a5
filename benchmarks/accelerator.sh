#!/usr/bin/env bash
# Everything that waits for an accelerator, in one run of twelve minutes; see accelerator.py.
#   bash benchmarks/accelerator.sh --out DIR            on the machine with the device
#   bash benchmarks/accelerator.sh --out DIR --tiny     rehearsal on a CPU
# Wheels in the folder `wheels`, of what the machine lacks (grain, ml-collections), are
# installed into DIR/site first: it may have no network.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD:${PYTHONPATH:-}" PYTHONUNBUFFERED=1
export XLA_PYTHON_CLIENT_PREALLOCATE=false
if compgen -G "wheels/*.whl" >/dev/null; then
  site="${TMPDIR:-/tmp}/gptface_site"
  python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" wheels/*.whl
  export PYTHONPATH="$PYTHONPATH:$site"
fi
exec python3 benchmarks/accelerator.py "$@"
