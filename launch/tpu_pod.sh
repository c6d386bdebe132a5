#!/usr/bin/env bash
# All hosts of a Cloud TPU pod slice, through gcloud:
#
#   export TPU=my-v5e-64 ZONE=us-east5-b PROJECT=my-project
#   launch/tpu_pod.sh setup https://github.com/me/gptface_jax.git
#   launch/tpu_pod.sh train --config configs/gptface/pretrain_base.py --workdir /mnt/shared/run
#   launch/tpu_pod.sh logs      # the last lines of every host
#   launch/tpu_pod.sh stop      # every host saves and ends
#
# `setup` gets a Python of its own by uv (PYTHON=3.13 another one): the system's of these
# machines may be older than the project needs. The work folder must be one that all hosts see, under the same path: a Filestore or a
# bucket that gcsfuse mounts; gs:// itself is refused. `train` leaves the run in the background;
# given again after a stop or a repair it resumes.
set -euo pipefail
: "${TPU:?name of the TPU}" "${ZONE:?its zone}"
verb=${1:?setup, train, logs or stop}
shift

everywhere() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" \
    ${PROJECT:+--project "$PROJECT"} --worker=all --command "$1"
}

case $verb in
  setup)
    everywhere "git clone -q ${1:?address of the repository} gptface_jax || git -C gptface_jax pull -q
      cd gptface_jax && python3 -m venv .uv && .uv/bin/pip install -q uv
      .uv/bin/uv venv -q --python ${PYTHON:-3.12} --allow-existing .venv &&
      .uv/bin/uv pip install -q --python .venv '.[tpu]'"
    ;;
  train)
    everywhere "cd gptface_jax && nohup .venv/bin/gptface train --quiet --distributed $(printf '%q ' "$@") >>train.log 2>&1 </dev/null & sleep 5; tail -n 3 gptface_jax/train.log"
    ;;
  logs) everywhere "tail -n ${1:-5} gptface_jax/train.log" ;;
  stop) everywhere "pkill -TERM -f '[g]ptface train'" ;;
  *)
    echo "tpu_pod.sh: '$verb' is unknown; use setup, train, logs or stop" >&2
    exit 2
    ;;
esac
