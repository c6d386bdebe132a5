"""The same losses, gradients and tokens on every mesh; gathered is what must be."""

import os

import numpy as np
import pytest
import simulated_devices

HERE = os.path.dirname(os.path.abspath(__file__))
FOUR = ("1x1x1", "8x1x1", "1x8x1", "2x2x2")
AXES = {
    "1x1x1": set(),
    "8x1x1": {"data"},
    "1x8x1": {"fsdp"},
    "two_slices": {"data", "fsdp"},
    "2x2x2": {"data", "fsdp", "tensor"},
    "lengths": {"data", "fsdp", "tensor"},
}


def report(*cases):
    return simulated_devices.run("meshes_worker.py", *cases, path=HERE)


def check(results):
    for case, found in results.items():
        system, mesh = case.split(":")
        if system == "tokens":
            assert found == 0, case
            continue
        # float32: sums in another order.
        np.testing.assert_allclose(found["losses"], found["expected"], 2e-6, 0, case)
        assert found["gradients"] < 1e-4, (case, found["gradients"])
        if mesh == "explicit":
            continue
        assert found["optimizer"], case
        axes = {axis for names in found["axes"] for axis in names.split("+")}
        assert axes == AXES[mesh], case
        # Convolutions have no split of their own over "tensor".
        if system == "gptface" or "tensor" not in AXES[mesh]:
            assert not found["unexpected"], case


@pytest.mark.slow
def test_losses_gradients_tokens_and_collectives_of_eight_devices():
    check(report("gptface:2x2x2", "gptface:explicit", "tokens:2x2x2"))


@pytest.mark.slow
def test_slices_split_lengths_and_the_other_meshes():
    systems = {
        "gptface": ("1x1x1", "8x1x1", "1x8x1", "two_slices", "lengths"),
        "tokens": FOUR,
        "vqgan": FOUR,
        "judge": FOUR,
        "faceptor": FOUR,
    }
    check(report(*(f"{s}:{m}" for s, names in systems.items() for m in names)))
