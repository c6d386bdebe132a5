#!/usr/bin/env bash
# Two processes on this machine, as on two hosts:
#   launch/local.sh configs/gptface/faces64.py:tiny runs/two
set -euo pipefail
config=$1 workdir=$2 port=${3:-12345}
for id in 0 1; do
  gptface train --config "$config" --workdir "$workdir" \
    --coordinator "localhost:$port" --num-processes 2 --process-id "$id" &
done
wait
