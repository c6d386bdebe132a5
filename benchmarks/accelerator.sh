#!/usr/bin/env bash
# Everything that waits for an accelerator, in runs of nine minutes; see accelerator.py.
#   bash benchmarks/accelerator.sh --out DIR            on the machine with the device
#   bash benchmarks/accelerator.sh --out DIR --tiny     rehearsal on a CPU
# The machine may have no network: where grain or ml-collections is missing, the wheels in
# the folder `wheels`, which wheels.txt says how to fetch, are installed into
# $TMPDIR/gptface_site first. What is there already comes before them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD:${PYTHONPATH:-}" PYTHONUNBUFFERED=1
export XLA_PYTHON_CLIENT_PREALLOCATE=false
if ! python3 -c "import grain, ml_collections" 2>/dev/null && compgen -G "wheels/*.whl" >/dev/null; then
  site="${TMPDIR:-/tmp}/gptface_site"
  python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" wheels/*.whl
  export PYTHONPATH="$PYTHONPATH:$site"
fi
exec python3 benchmarks/accelerator.py "$@"
