"""The import table of the rooms, and modules that import alone."""

import pathlib
import subprocess
import sys


def test_import_contracts():
    command = pathlib.Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
    assert "0 broken" in done.stdout


def test_models_import_without_grain_and_ml_collections():
    code = (
        "import sys\n"
        "for name in ('grain', 'ml_collections', 'array_record'):\n"
        "    sys.modules[name] = None\n"
        "import gptface_jax.systems.gptface, gptface_jax.systems.vqgan\n"
        "import gptface_jax.systems.judge, gptface_jax.nn.transformer\n"
        "import gptface_jax.systems.gptface.decode\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
