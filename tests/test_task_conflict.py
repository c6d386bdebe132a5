"""The benchmark of conflicts between tasks, on the smallest run that has several."""

import importlib

import numpy as np
import pytest

from gptface_jax.core.config import load_config
from gptface_jax.experiments import training


@pytest.mark.slow  # compiles the gradients of six tasks
def test_the_conflict_of_the_tasks_of_a_run(root, monkeypatch, tmp_path):
    """A task agrees with itself, and with another as much as the other with it."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    config = load_config("configs/faceptor/mini.py:tiny")
    config.total_steps = 1
    training.train(config, tmp_path, progress=False)
    measure = importlib.import_module("task_conflict").measure
    tasks, cosines = measure(str(tmp_path), 2, None)
    assert tasks == sorted(config.batch_size) and cosines.shape == (2, 6, 6)
    np.testing.assert_allclose(np.einsum("bii->bi", cosines), 1, atol=1e-5)
    np.testing.assert_allclose(cosines, cosines.swapaxes(1, 2), atol=1e-6)
    assert (np.abs(cosines[:, ~np.eye(6, dtype=bool)]) < 0.9999).all()
    assert (cosines[0] != cosines[1]).any()  # of other pictures
