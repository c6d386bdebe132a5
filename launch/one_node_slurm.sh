#!/usr/bin/env bash
# A SLURM of one node on this machine, to try launch/slurm*.sbatch and launch/sweep.py:
#
#   sudo apt-get install slurm-wlm munge
#   sudo launch/one_node_slurm.sh start && sinfo
#   sudo launch/one_node_slurm.sh try     # a run, an interruption, an array, a sweep
#   sudo launch/one_node_slurm.sh stop
#
# For tests only: it runs as root and replaces /etc/slurm/slurm.conf.
set -euo pipefail
cd "$(dirname "$0")/.."
state=/var/tmp/one_node_slurm

start() {
  mkdir -p "$state/ctl" "$state/d" /run/munge /var/log/munge
  chown munge: /run/munge /var/log/munge
  pgrep -x munged >/dev/null || runuser -u munge -- munged
  cat >/etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2
MinJobAge=3600
KillWait=30
StateSaveLocation=$state/ctl
SlurmdSpoolDir=$state/d
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  slurmctld
  slurmd
  for _ in $(seq 30); do
    [[ $(sinfo -h -o %t 2>/dev/null) == idle* ]] && return
    sleep 1
  done
  tail -n 5 "$state"/*.log >&2
  return 1
}

stop() {
  for name in slurmd slurmctld munged; do pkill -x "$name" || true; done
  rm -rf "$state"
}

# Waits for a job to leave the queue, shows how it ended, and demands that it completed.
await() {
  while [[ -n $(squeue -h -j "$1") ]]; do sleep 1; done
  scontrol show job "$1" | grep -o 'JobState=[A-Z]*\|Restarts=[0-9]*\|ExitCode=[0-9:]*' | xargs
  scontrol show job "$1" | grep -q JobState=COMPLETED || { tail -n 20 "$2" && return 1; }
}

lines() { grep -c '"loss"' "$1/metrics.jsonl"; }

try() {
  local out=$state/try tiny=(--config configs/judge/faces64.py:tiny) job
  export GPTFACE=${GPTFACE:-$PWD/.venv/bin/gptface} JAX_PLATFORMS=cpu
  rm -rf "$out" && mkdir -p "$out"

  echo "== one run of two processes"
  job=$(sbatch --parsable --ntasks=2 --ntasks-per-node=2 --output="$out/%j.log" \
    launch/slurm.sbatch "${tiny[@]}" --workdir "$out/two")
  await "$job" "$out/$job.log"
  [[ $(lines "$out/two") == 4 ]]

  echo "== interrupted by SIGTERM, saved, queued again by itself, finished"
  job=$(sbatch --parsable --output="$out/%j.log" launch/slurm.sbatch "${tiny[@]}" \
    --workdir "$out/long" --config.total_steps=3000 --config.checkpoint_every=5000)
  until grep -q '"loss"' "$out/long/metrics.jsonl" 2>/dev/null; do sleep 1; done
  scancel --signal=TERM "$job"
  await "$job" "$out/$job.log"
  grep 'queued again\|stopped after' "$out/$job.log"
  [[ $(lines "$out/long") == 3000 ]]

  echo "== an array of two seeds"
  job=$(sbatch --parsable --array=0-1 --output="$out/%A_%a.log" \
    launch/slurm_array.sbatch "${tiny[@]}" --workdir "$out/seeds")
  await "$job" "$out/${job}_1.log"
  [[ $(lines "$out/seeds/seed_0") == 4 && $(lines "$out/seeds/seed_1") == 4 ]]

  echo "== a sweep"
  .venv/bin/python launch/sweep.py "${tiny[@]}" --out "$out/sweep" --executor slurm \
    --parallel 2 --set cpus_per_task=1 --config.model.channels="(8, 16)"
  echo "all of it worked"
}

case ${1:-} in
  start | stop | try) "$1" ;;
  *)
    echo "one_node_slurm.sh: use start, try or stop" >&2
    exit 2
    ;;
esac
