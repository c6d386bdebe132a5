"""What a model would need, and which settings make it fit."""

import dataclasses

import pytest

from gptface_jax.apps import describing
from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import base, registry, training
from gptface_jax.nn.transformer import REMAT
from gptface_jax.train import sharding
from gptface_jax.train.planning import cost, estimates, hardware

GPTFACE = "configs/gptface/faces64.py:tiny"


def test_ways_to_fit_recompute_before_they_split_the_batch():
    ways = describing.ways_to_fit(load_config(GPTFACE))  # batches of 4
    key = "model.transformer.remat"
    assert [w[key] for w in ways] == [*REMAT, "full", "full"]
    assert [w.get("grad_accum", 1) for w in ways] == [1] * len(REMAT) + [2, 4]
    ways = describing.ways_to_fit(load_config("configs/vqgan/faces64.py:tiny"))
    assert ways == [{}, {"grad_accum": 2}, {"grad_accum": 4}]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (GPTFACE, "means over masked tokens are within 1/2"),
        (GPTFACE + " contrastive", "contrastive negatives and means over masked"),
        ("configs/vqgan/faces64.py:tiny", ""),
        ("configs/faceptor/mini.py:tiny", "batch statistics are within 1/2"),
    ],
)
def test_what_microbatches_change_is_said(name, part):
    path, _, contrastive = name.partition(" ")
    config = load_config(path)
    if path == GPTFACE:
        config.objective.contrastive_weight = 0.5 if contrastive else 0.0
        config.model.contrastive_width = 8
    system = registry.make(config)
    assert system.note_on_microbatches(1) == ""
    note = system.note_on_microbatches(2)
    assert (part in note) if part else not note


def test_training_says_it_too(monkeypatch, tmp_path, capsys):
    config = load_config("configs/faceptor/mini.py:tiny")
    config.grad_accum = 2
    system = registry.make(config)
    made = base.Experiment(config, system, None, {})
    monkeypatch.setattr(training, "build", lambda *_: made)
    monkeypatch.setattr(training.loop, "train", lambda *_, **__: None)
    training.train(config, tmp_path)
    said = capsys.readouterr().err
    assert "note: grad_accum 2 changes the objective: batch statistics" in said


@dataclasses.dataclass(frozen=True)
class Planned:
    memory: object


@pytest.fixture
def compiled(monkeypatch):
    """Stands in for the compiler: {remat or grad_accum: bytes, or an error}."""

    def install(sizes):
        device = hardware.ACCELERATORS["v5e"]

        def cost_of(config, **where):
            assert where == {"topology": "v5e:2x4", "mesh": None}
            size = sizes[config.grad_accum, config.model.transformer.remat]
            if isinstance(size, Exception):
                raise size
            total = type("Memory", (), {"total": size})
            return Planned(total), device, sharding.MeshConfig()

        monkeypatch.setattr(describing, "cost_of", cost_of)

    return install


def test_what_fits_is_told_from_what_does_not(compiled):
    config = load_config(GPTFACE)
    where = {"topology": "v5e:2x4", "mesh": None}
    compiled(
        {
            (1, "none"): describing.DoesNotFit("the step does not fit: 20G; try"),
            (1, "projections"): 16 * 2**30,
            (1, "full"): 2**30,
            (2, "full"): UserError("batch_size 4 does not divide by 8"),
            (4, "full"): 2**30,
        }
    )
    remat = "model.transformer.remat"
    fine, line, found = describing.fits(config, {remat: "none"}, **where)
    assert not fine and line.endswith("the step does not fit: 20G") and not found
    fine, line, _ = describing.fits(config, {remat: "projections"}, **where)
    assert not fine and "16.00 GiB of 15.75 GiB, does not fit" in line
    fine, line, found = describing.fits(config, {remat: "full"}, **where)
    assert fine and line.startswith(f"--config.{remat}=full: ") and found
    more = {remat: "full", "grad_accum": 2}
    assert "does not divide" in describing.fits(config, more, **where)[1]
    assert config.model.transformer.remat == "none"  # as it was
    config.objective.contrastive_weight, config.model.contrastive_width = 0.5, 8
    _, line, _ = describing.fits(config, {remat: "full", "grad_accum": 4}, **where)
    assert line.endswith(
        "fits; grad_accum 4 changes the objective: contrastive negatives and means "
        "over masked tokens are within 1/4 of the batch"
    )


def test_where_the_compiler_expects_the_time_to_go():
    def operation(kind, cycles, count=1, where="a/layers/norm/add"):
        return estimates.Operation(kind, cycles, count, "f32[8]", where)

    dear = [operation("copies", 100_000, where=f"step/{i}") for i in range(20)]
    found = cost.Cost(
        mesh={"data": 8, "fsdp": 1, "tensor": 1},
        parameters=1,
        model_flops=1e9,
        counted_flops=1e9,
        compiled_flops=1.0,
        memory=cost.Memory(*[0] * 6),
        collectives=(),
        operations=(
            operation("products", 1_500_000, 12),
            # Alike in all that is shown.
            operation("copies", 150_000, 12),
            operation("copies", 150_000, 8, "jit/b/layers/norm/add"),
            operation("kernels", 0, 36),
            *dear,
        ),
    )
    device, mesh = hardware.ACCELERATORS["v5e"], sharding.MeshConfig()
    table = describing.cost_table(found, device, mesh)
    lines = [line.split() for line in table.splitlines()]
    assert "36 runs of kernels" in table
    assert ["all", "15.333", "ms"] in lines  # 23 million cycles at 1.5 GHz
    assert ["products", "12.000", "ms"] in lines and ["copies", "3.333", "ms"] in lines
    first = lines.index(["copies", *"2.000 ms f32[8] x 20 layers/norm/add".split()])
    assert lines[first + 1][:2] == ["copies", "0.067"] and len(lines) == first + 12
    # Compilers that expect nothing.
    plain = dataclasses.replace(found, operations=())
    assert "expects" not in describing.cost_table(plain, device, mesh)
    assert "expects" not in describing.cost_table(found, None, mesh)


def test_the_command_says_what_it_needs(gptface_command, capsys):
    assert gptface_command("describe", "--config", GPTFACE, "--fit") == 2
    assert "--fit needs --topology" in capsys.readouterr().err
    assert gptface_command("describe", "--model", "demo", "--mesh", "fsdp") == 2
    assert "--mesh and --topology need --config" in capsys.readouterr().err


def test_unknown_systems_are_named():
    config = load_config(GPTFACE)
    config.system = "gptfce"
    with pytest.raises(UserError, match="did you mean 'gptface'"):
        describing.of_config(config)
