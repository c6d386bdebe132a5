#!/usr/bin/env bash
# Several processes on this machine, as if on several hosts:
#
#   launch/local.sh --config configs/gptface/faces64.py:tiny --workdir runs/two
#   PROCESSES=4 PORT=12400 launch/local.sh --config ... --workdir ...
#
# The arguments are those of `gptface train`. GPUs are dealt out in equal shares. When a
# process fails the others are ended; Ctrl-C and SIGTERM reach all, and they save.
set -uo pipefail
processes=${PROCESSES:-2}
export JAX_COORDINATOR_ADDRESS="localhost:${PORT:-12345}" JAX_NUM_PROCESSES=$processes

gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
share=$((gpus / processes))
stop() { jobs -pr | xargs -r kill -TERM; }
asked=
trap stop EXIT
trap 'asked=1; stop' INT TERM

for ((id = 0; id < processes; id++)); do
  if ((share > 0)); then
    first=$((id * share))
    devices=$(seq -s, "$first" $((first + share - 1)))
    export CUDA_VISIBLE_DEVICES=$devices
  fi
  JAX_PROCESS_ID=$id "${GPTFACE:-gptface}" train "$@" &
done

worst=0
while [[ -n $(jobs -pr) ]]; do
  wait -n
  status=$?
  if [[ -n $asked ]] && ((status > 128)); then
    asked= # only this `wait` was interrupted
  elif ((status != 0)); then
    # 75: asked to end, and saved; a process that failed counts for more.
    ((worst == 0 || worst == 75)) && worst=$status
    ((status == 75)) || stop
  fi
done
exit "$worst"
