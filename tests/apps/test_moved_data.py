"""A run goes on with data that lie elsewhere now, and not with other data."""

import shutil

import pytest
from PIL import Image

from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.experiments import training


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """(folder of photos, run of two steps on them)."""
    root = tmp_path_factory.mktemp("moved")
    (root / "photos").mkdir()
    faces = SyntheticFaces(size=32, count=8, seed=3)
    for i in range(8):
        Image.fromarray(faces[i].image).save(root / "photos" / f"{i}.png")
    training.train(config(root / "photos", 2), root / "run", progress=False)
    return root / "photos", root / "run"


def config(photos, steps):
    made = load_config("configs/vqgan/faces64.py:tiny")
    made.total_steps = steps
    made.batch_size = 2
    spec = {"kind": "folder", "path": str(photos)}
    with made.unlocked():
        made.data.train = {"kind": "mixture", "sources": (spec, spec)}
        made.data.eval = spec
    return made


@pytest.mark.slow
def test_moved_photos(first, tmp_path, monkeypatch):
    photos, run = first
    moved = shutil.copytree(photos, tmp_path / "elsewhere")
    again = shutil.copytree(run, tmp_path / "run")
    given, relative = config(moved, 2), config("elsewhere", 2)
    assert int(training.train(given, again, progress=False).step) == 2
    monkeypatch.chdir(tmp_path)
    assert int(training.train(relative, again, progress=False).step) == 2


@pytest.mark.slow
def test_other_photos(first, tmp_path):
    photos, run = first
    changed = shutil.copytree(photos, tmp_path / "photos")
    (changed / "7.png").unlink()
    again = shutil.copytree(run, tmp_path / "run")
    before = sorted(again.rglob("*"))
    with pytest.raises(UserError) as caught:
        training.train(config(changed, 2), again, progress=False)
    assert "of another run: data.eval.path is " in str(caught.value)
    said = (
        "not only moved (data.train, data.eval: files were added, removed or altered)"
    )
    assert said in str(caught.value)
    assert f"--config.init_from='{again}'" in str(caught.value)
    assert "delete" not in str(caught.value)
    assert sorted(again.rglob("*")) == before
    # Anything else of the spec is compared as before.
    other = config(photos, 2)
    with other.unlocked():
        other.data.eval.limit = 3
    with pytest.raises(UserError, match="data.eval.limit is 'not set' there and 3"):
        training.train(other, again, progress=False)


@pytest.mark.slow
def test_a_photo_that_was_mended(first, tmp_path, caplog):
    photos, run = first
    again = shutil.copytree(run, tmp_path / "run")
    kept = (photos / "7.png").read_bytes()
    (photos / "7.png").write_bytes(kept + b"mended")
    try:
        assert int(training.train(config(photos, 2), again, progress=False).step) == 2
    finally:
        (photos / "7.png").write_bytes(kept)
    (said,) = [r.getMessage() for r in caplog.records if "altered" in r.getMessage()]
    assert said.endswith("added, removed or altered since step 2; going on")
