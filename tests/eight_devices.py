"""Runs Python in a process of its own that has eight simulated devices."""

import json
import os
import subprocess
import sys


def run(*command, path):
    """What it prints after RESULT, as JSON.

    Args:
      command: arguments of python.
      path: folder that it may import from.
    """
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
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
