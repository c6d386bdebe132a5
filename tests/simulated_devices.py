"""Processes of their own that have simulated devices."""

import json
import os
import socket
import subprocess
import sys


def flags(devices: int) -> str:
    """Value of XLA_FLAGS for that many simulated devices."""
    return f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"


def free_port() -> int:
    """For a coordinator of processes on this machine."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(*command, path):
    """What a program on eight devices prints after RESULT, as JSON.

    Args:
      command: arguments of python.
      path: folder that it may import from.
    """
    environment = {
        **os.environ,
        "XLA_FLAGS": flags(8),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": path,
    }
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=path,
        env=environment,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))
