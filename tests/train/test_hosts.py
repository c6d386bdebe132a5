"""Who is in a job, by flags and by launchers; the roll call that names the missing."""

import json
import socket
import threading

import pytest
from simulated_devices import free_port

from gptface_jax.core.errors import UserError
from gptface_jax.train import hosts

SLURM = {
    "SLURM_JOB_ID": "71234",
    "SLURM_STEP_NODELIST": "gpu[007-010,12],x3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "CUDA_VISIBLE_DEVICES": "0,1",
}
JOBSET = {
    "JAX_COORDINATOR_ADDRESS": "train-workers-0-0.train:8476",
    "JAX_NUM_PROCESSES": "4",
    "JOB_COMPLETION_INDEX": "3",
}
GKE = {"TPU_WORKER_HOSTNAMES": "t-0,t-1", "TPU_WORKER_ID": "1"}


def test_launchers_are_recognised():
    found = hosts.from_environment(SLURM)
    assert found == hosts.Cluster("SLURM", "gpu007:21234", 8, 5, (1,))
    found = hosts.from_environment({**SLURM, "SLURM_STEP_NUM_NODES": "8"})
    assert found.local_device_ids is None  # one task a node has all of its GPUs
    found = hosts.from_environment(JOBSET)
    assert (found.num_processes, found.process_id) == (4, 3)
    assert hosts.from_environment(GKE).coordinator == "t-0:8476"


def test_jobs_of_one_process_join_nobody():
    assert hosts.from_environment({}) is None
    # An interactive allocation is not a step of srun.
    assert hosts.from_environment({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}) is None
    assert (
        hosts.from_environment(
            {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
        )
        is None
    )
    assert hosts.from_environment({**GKE, "TPU_WORKER_HOSTNAMES": "t-0"}) is None
    hosts.join(None)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("gpu[007-010,12],x", "gpu007"),
        ("gpu[7],x", "gpu7"),
        ("r1n[03,05]-ib", "r1n03-ib"),
    ],
)
def test_first_host_of_a_list(nodes, first):
    assert hosts.first_host(nodes) == first


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("h:1", 2, None), "--process-id missing"),
        ((None, 2, 0), "--coordinator missing"),
        (("h", 2, 0), "has no port"),
        (("h:1", 2, 2), "process_id 2 is not among 2"),
    ],
)
def test_flags_that_cannot_work(flags, told):
    with pytest.raises(UserError, match=told):
        hosts.from_flags(*flags)


def test_an_incomplete_environment():
    with pytest.raises(UserError, match="not JAX_NUM_PROCESSES"):
        hosts.from_environment({"JAX_COORDINATOR_ADDRESS": "h:1"})


def call_roll(present, count, timeout, port=None):
    """{place in `present`: answer or message} of processes in threads."""
    port = port or free_port()
    results = {}

    def one(place, number):
        cluster = hosts.from_flags(f"127.0.0.1:{port}", count, number)
        try:
            results[place] = hosts.roll_call(cluster, timeout)
        except UserError as error:
            results[place] = str(error)

    threads = [threading.Thread(target=one, args=x) for x in enumerate(present)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_all_present():
    results = call_roll([2, 1, 0], 3, 20)
    assert [len(names) for names in results.values()] == [3, 3, 3]


def test_every_process_learns_who_is_missing():
    results = call_roll([0, 2], 4, 1.0)
    for text in results.values():
        assert "processes 1, 3 of 4 did not answer within 1 s" in text
        assert f"2 ({socket.gethostname()})" in text


def test_process_0_is_missing():
    (text,) = call_roll([1], 2, 0.5).values()
    assert "did not reach process 0 at 127.0.0.1" in text and "refused" in text


def test_two_processes_with_one_number():
    results = call_roll([0, 1, 1], 3, 20)
    assert all(
        "two processes say that they are process 1" in x for x in results.values()
    )


def call_and_die(port, number, count):
    """A process that calls, and ends before it is answered."""
    call = {"process": number, "host": "other", "of": count}
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                s.sendall((json.dumps(call) + "\n").encode())
                return
        except OSError:
            threading.Event().wait(0.05)


@pytest.mark.parametrize("again", [True, False])
def test_a_process_that_ends_during_the_roll_call_may_start_again(again):
    port, results = free_port(), {}
    first = threading.Thread(
        target=lambda: results.update(call_roll([0], 3, 1.0, port))
    )
    first.start()
    call_and_die(port, 1, 3)
    others = call_roll([1, 2] if again else [2], 3, 5.0, port)
    first.join(20)
    for answer in (*results.values(), *others.values()):
        if again:
            assert answer == [socket.gethostname()] * 3
        else:
            assert "process 1 of 3 did not answer" in answer


def test_strangers_do_not_disturb():
    port = free_port()

    def stranger():
        for line in ("GET / HTTP/1.0\r\n\r\n", json.dumps([1]) + "\n", '{"a": 1}\n'):
            for _ in range(50):
                try:
                    with socket.create_connection(("127.0.0.1", port), 1) as s:
                        s.sendall(line.encode())
                    break
                except OSError:
                    threading.Event().wait(0.05)

    visitor = threading.Thread(target=stranger)
    results = {}

    def server():
        results.update(call_roll([0], 2, 3.0, port))

    waiting = threading.Thread(target=server)
    waiting.start()
    visitor.start()
    visitor.join(20)
    waiting.join(20)
    assert "process 1 of 2 did not answer" in results[0]


def test_a_taken_port_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = hosts.from_flags(f"127.0.0.1:{port}", 2, 0)
        with pytest.raises(UserError, match=f"cannot listen on port {port}"):
            hosts.roll_call(cluster, 1.0)
