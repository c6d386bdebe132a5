"""The import table of the rooms, and modules that import alone."""

import pathlib
import subprocess
import sys
import tomllib


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
        "import importlib, pathlib\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "rooms = 'core ops nn systems evaluate interop pipelines protocols'.split()\n"
        "for room in rooms:\n"
        "    for path in sorted(pathlib.Path('gptface_jax', room).rglob('*.py')):\n"
        "        importlib.import_module('.'.join(path.with_suffix('').parts))\n"
        "for path in sorted(pathlib.Path('benchmarks').glob('*.py')):\n"
        "    try:\n"
        "        importlib.import_module(path.stem)\n"
        "    except (ModuleNotFoundError, SystemExit) as error:\n"
        "        assert 'torch' in str(error), path\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_room_has_a_contract():
    """All folders but the command line, which may import everything."""
    linter = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["tool"]
    contracts = linter["importlinter"]["contracts"]
    covered = {
        module.removeprefix("gptface_jax.")
        for contract in contracts
        for module in contract.get("source_modules", ())
    }
    folders = {path.parent.name for path in pathlib.Path("gptface_jax").glob("*/*.py")}
    assert folders - covered == {"cli", "assets"}
