"""Joining the processes of one job, before anything touches a device.

First a roll call over plain TCP at the coordinator's address: JAX itself ends the
process without a word about who is missing. Then `jax.distributed`, then one
collective over all devices, with a time limit.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from gptface_jax.core.errors import UserError

log = logging.getLogger(__name__)

_PORT = 8476


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Address and numbers by which the processes of a job find each other.

    Attributes:
      launcher: what said so, for messages.
      coordinator: host:port of process 0; "" where only JAX can find it.
      num_processes, process_id: how many there are and which this is.
      local_device_ids: accelerators of this process; None for all of its machine.
    """

    launcher: str
    coordinator: str = ""
    num_processes: int = 0
    process_id: int = -1
    local_device_ids: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.coordinator and not 0 <= self.process_id < self.num_processes:
            raise UserError(
                f"{self.launcher}: process_id {self.process_id} is not among "
                f"{self.num_processes} processes; it counts from 0"
            )
        port = self.coordinator.rpartition(":")[2]
        if self.coordinator and not (port.isdigit() and ":" in self.coordinator):
            raise UserError(
                f"{self.launcher}: coordinator '{self.coordinator}' has no port; "
                "write host:port"
            )


def from_flags(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Cluster | None:
    """The cluster that command-line flags describe, None without any.

    Raises:
      UserError: some are given and others not.
    """
    given = {
        "--coordinator": coordinator,
        "--num-processes": num_processes,
        "--process-id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise UserError(f"{' and '.join(missing)} missing: give all of {list(given)}")
    return Cluster("flags", coordinator, num_processes, process_id)


def from_environment(environ: Mapping[str, str]) -> Cluster | None:
    """The cluster that a launcher's variables describe.

    Known are JAX_COORDINATOR_ADDRESS with JAX_NUM_PROCESSES and JAX_PROCESS_ID or
    JOB_COMPLETION_INDEX (launch/jobset_*.yaml set them), SLURM steps (`srun`) and
    TPU pods on GKE.

    Returns:
      None for a job of one process.

    Raises:
      UserError: variables that contradict each other.
    """
    get = environ.get
    if address := get("JAX_COORDINATOR_ADDRESS"):
        index = get("JAX_PROCESS_ID") or get("JOB_COMPLETION_INDEX")
        count = get("JAX_NUM_PROCESSES")
        if index is None or count is None:
            raise UserError(
                "JAX_COORDINATOR_ADDRESS is set, but not JAX_NUM_PROCESSES and "
                "JAX_PROCESS_ID (or JOB_COMPLETION_INDEX)"
            )
        found = Cluster("environment", address, int(count), int(index))
    elif get("SLURM_STEP_NODELIST") and get("SLURM_PROCID"):
        found = _slurm(environ)
    elif len(hosts := [h for h in get("TPU_WORKER_HOSTNAMES", "").split(",") if h]) > 1:
        worker = int(get("TPU_WORKER_ID", "0"))
        found = Cluster("TPU pod", f"{hosts[0]}:{_PORT}", len(hosts), worker)
    else:
        return None
    return found if found.num_processes > 1 else None


def _slurm(environ: Mapping[str, str]) -> Cluster:
    """A step of `srun`. Several tasks on a node take one of its GPUs each."""
    job = int(environ.get("SLURM_JOB_ID", "0"))
    count = int(environ.get("SLURM_STEP_NUM_TASKS") or environ["SLURM_NTASKS"])
    # In the range that Linux leaves alone, another one for every job.
    port = 20000 + job % 10000
    nodes = int(environ.get("SLURM_STEP_NUM_NODES", "1"))
    local = None
    visible = environ.get("CUDA_VISIBLE_DEVICES", "")
    if count > nodes and "," in visible:
        local = (int(environ["SLURM_LOCALID"]),)
    first = first_host(environ["SLURM_STEP_NODELIST"])
    return Cluster(
        "SLURM", f"{first}:{port}", count, int(environ["SLURM_PROCID"]), local
    )


def first_host(nodes: str) -> str:
    """First name of a SLURM host list: "gpu[007-010,12],x" -> "gpu007"."""
    match = re.match(r"([^,\[]*)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in match.groups())


def join(cluster: Cluster | None, *, timeout: float = 300.0) -> None:
    """Joins the other processes of the job; call it before anything else of JAX.

    Args:
      cluster: None for a job of one process, which returns at once.
      timeout: seconds that the slowest process may take, for each of the steps.

    Raises:
      UserError: a process did not answer; the message names it.
    """
    if cluster is None:
        return
    names = None
    if cluster.coordinator:
        # JAX would wait until its own time limit and name nobody: who is missing is
        # found out by plain sockets first.
        names = roll_call(cluster, timeout)
    import jax

    log.info("joining %s", cluster)
    if cluster.coordinator:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.num_processes,
            cluster.process_id,
            local_device_ids=cluster.local_device_ids,
            cluster_detection_method="deactivate",
            initialization_timeout=round(timeout),
        )
    else:
        jax.distributed.initialize(initialization_timeout=round(timeout))
    first_collective(timeout, names)


def roll_call(cluster: Cluster, timeout: float) -> list[str]:
    """Waits until every process has called at the coordinator's address.

    Returns:
      Host names by process.

    Raises:
      UserError: not all called in time, two claim one number, or the coordinator
        cannot be reached.
    """
    end = time.monotonic() + timeout
    mine = {"process": cluster.process_id, "host": socket.gethostname()}
    mine["of"] = cluster.num_processes
    if cluster.process_id == 0:
        answer = _answer_calls(cluster, mine, end)
    else:
        answer = _call(cluster, mine, end)
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["hosts"]


def _answer_calls(cluster: Cluster, mine: dict, end: float) -> dict[str, Any]:
    """Process 0: collects the calls, then tells all the same answer."""
    calls, hosts = {}, {0: mine["host"]}  # connection -> process; process -> host
    address = ("", int(cluster.coordinator.rpartition(":")[2]))
    timeout = end - time.monotonic()
    try:
        # On the port that JAX will use: if it is blocked, that is found here too.
        server = socket.create_server(address, backlog=1024)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on port {address[1]}: {error.strerror}; is "
            "another job using it? Choose another port in --coordinator"
        ) from None
    error = ""
    with server:
        while not error:
            if len(hosts) == cluster.num_processes:
                _forget_gone(calls, hosts, hosts)
            if len(hosts) == cluster.num_processes:
                break
            server.settimeout(max(0.05, end - time.monotonic()))
            try:
                connection, _ = server.accept()
                # Something else may knock (a port scanner) and say nothing.
                connection.settimeout(5.0)
                other = json.loads(connection.makefile().readline(10_000))
                number, host = int(other["process"]), str(other["host"])[:100]
            except TimeoutError:
                if time.monotonic() < end:
                    continue
                missing = [i for i in range(cluster.num_processes) if i not in hosts]
                error = (
                    f"{_listed(missing)} of {cluster.num_processes} did not answer "
                    f"within {timeout:.0f} s; {_present(hosts)} did. Look at the log "
                    f"of {_listed(missing[:1])}: is it running, and can it reach "
                    f"{cluster.coordinator}?"
                )
                break
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not one of us, or a process that died
            if number in hosts:  # one that was restarted meanwhile calls again
                _forget_gone(calls, hosts, (number,), wait=1.0)
            error = _wrong(number, host, other.get("of"), hosts, cluster)
            calls[connection], hosts[number] = number, host
        ordered = [hosts.get(i, "") for i in range(cluster.num_processes)]
        answer = {"error": error} if error else {"hosts": ordered}
        for connection in calls:
            with connection:
                try:
                    connection.settimeout(5.0)
                    connection.sendall((json.dumps(answer) + "\n").encode())
                except OSError:
                    pass  # it has gone; the next step will miss it
    return answer


def _forget_gone(
    calls: dict[socket.socket, int],
    hosts: dict[int, str],
    among: Collection[int],
    wait: float = 0.0,
) -> None:
    """Takes out those of `among` that ended since they called."""
    for connection, number in list(calls.items()):
        if number in among and _ended(connection, wait):
            connection.close()
            del calls[connection], hosts[number]


def _ended(connection: socket.socket, wait: float) -> bool:
    """Whether the other side has closed, or is found to know of it no more."""
    try:
        # A machine that was restarted rejects it; JSON passes over a blank.
        connection.sendall(b" ")
        connection.settimeout(wait)
        return not connection.recv(1)
    except (BlockingIOError, TimeoutError):
        return False
    except OSError:
        return True


def _wrong(
    number: int, host: str, count: Any, hosts: Mapping[int, str], cluster
) -> str:
    if count != cluster.num_processes:
        return (
            f"process {number} on {host} was started as one of {count} processes, "
            f"process 0 as one of {cluster.num_processes}"
        )
    if number in hosts:
        return (
            f"two processes say that they are process {number}: on {hosts[number]} and "
            f"on {host}; give every one its own --process-id"
        )
    return ""


def _call(cluster: Cluster, mine: dict, end: float) -> dict[str, Any]:
    """Every other process: calls until process 0 listens, waits for the answer."""
    host, _, port = cluster.coordinator.rpartition(":")
    timeout = end - time.monotonic()
    reason = "no answer"
    while time.monotonic() < end:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), 5.0) as to:
                to.sendall((json.dumps(mine) + "\n").encode())
                # Process 0 gives up first, and says why.
                to.settimeout(max(0.1, end - time.monotonic()) + 10.0)
                line = to.makefile().readline()
                if line:
                    return json.loads(line)
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(0.2)
    raise UserError(
        f"process {mine['process']} ({mine['host']}) did not reach process 0 at "
        f"{cluster.coordinator} within {timeout:.0f} s: {reason}; is process 0 running "
        "there, and is the port open?"
    )


def first_collective(timeout: float, names: list[str] | None = None) -> None:
    """Sums a number over all devices of all processes, within a time limit.

    Args:
      timeout: in seconds.
      names: host of every process, for the message.

    Raises:
      UserError: it took longer; names the processes that did not finish.
    """

    done = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            _sum_over_devices()
        except BaseException as error:  # handed to the caller's thread
            failed.append(error)
        done.set()

    # In a thread, for a collective that hangs cannot be interrupted.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    if done.wait(timeout):
        if failed:
            raise UserError(f"the first collective failed: {failed[0]}")
        return
    # Through the coordinator, which goes on working when the accelerators do not.
    ended = {key for key, _ in _global_state().client.key_value_dir_get(_DONE)}
    count = _global_state().num_processes
    hosts = {i: (names or [""] * count)[i] for i in range(count)}
    missing = [i for i in hosts if f"{_DONE}{i}" not in ended]
    raise UserError(
        f"{_listed(missing)} of {count} did not finish the first collective within "
        f"{timeout:.0f} s ({_present({i: hosts[i] for i in missing})}); are the "
        "accelerators there free, and may the hosts reach each other on all ports?"
    )


_DONE = "gptface/first_collective/"


def _sum_over_devices() -> None:
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    mesh = jax.make_mesh((jax.device_count(),), ("all",))
    where, whole = (NamedSharding(mesh, PartitionSpec(*a)) for a in (["all"], []))
    ones = np.ones(jax.local_device_count(), np.int32)
    array = jax.make_array_from_process_local_data(where, ones)
    total = int(jax.jit(lambda x: x.sum(), out_shardings=whole)(array))
    if total != jax.device_count():
        raise RuntimeError(f"{jax.device_count()} devices add up to {total}")
    _global_state().client.key_value_set(f"{_DONE}{jax.process_index()}", "1")


def _global_state() -> Any:
    """JAX's client of the coordinator; it has no public name."""
    from jax._src import distributed

    return distributed.global_state


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"process{'es' if len(numbers) > 1 else ''} {shown}{more}"


def _present(hosts: Mapping[int, str]) -> str:
    shown = [f"{i} ({name})" if name else str(i) for i, name in sorted(hosts.items())]
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more
