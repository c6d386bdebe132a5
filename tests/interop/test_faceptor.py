"""Faceptor against what its reference implementation computed, and its files."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.core import perception_tasks, trees
from gptface_jax.core.errors import UserError
from gptface_jax.interop import faceptor, state_dict
from gptface_jax.nn import query_decoder
from gptface_jax.nn.perception import Perception
from gptface_jax.nn.transformer import PRESENT
from gptface_jax.nn.vit import ViT, resized_positions
from gptface_jax.ops import heatmaps, losses
from gptface_jax.systems.faceptor import model, objective

GOLDEN = pathlib.Path("../shared/golden")
FILE, SIZES = GOLDEN / "faceptor.ckpt", GOLDEN / "faceptor.json"
NAIVE = GOLDEN / "faceptor_naive.ckpt"
pytestmark = pytest.mark.shared
# The second has all that the first has, and the levels of Layer-Attention.
STAGES = pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2])
VALUES = ("age_morph2", "biattr_celeba", "affect_affectnet", "affect_rafdb")
PARTS = {"age_morph2": ("kl", "l1"), "align_300w": ("points", "maps")}
DENSE = ("parsing_celebam", "align_300w")


@pytest.fixture(scope="module")
def golden():
    if not FILE.is_file():
        pytest.skip("../shared/golden is not there")
    with np.load(GOLDEN / "faceptor.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def sizes(golden):
    return json.loads(SIZES.read_text())


@pytest.fixture(scope="module")
def loaded(golden):
    return faceptor.load(FILE, SIZES)


def variables(loaded):
    return {"params": loaded[1], **loaded[2]}


def maps_of(golden, group):
    return dict(enumerate(golden[f"features_{group}"]))


def close(found, wanted, atol=2e-4, rtol=0.0):
    np.testing.assert_allclose(np.asarray(found), wanted, atol=atol, rtol=rtol)


def test_features_and_positions(golden, loaded):
    config, params, _ = loaded
    encode = jax.jit(
        lambda x: ViT(config.vit).apply({"params": params["backbone"]}, x, (0, 1, 2, 3))
    )
    for group, count in (("attribute", 2), ("dense", 1)):
        close(encode(golden[f"images_{group}"][:count]), golden[f"features_{group}"])
    for name, side in (("attribute", 5), ("dense", 8), ("odd", 11)):
        position = resized_positions(params["backbone"]["position"], (side, side))
        close(position, golden[f"positions_{name}"], 1e-5)
    position = resized_positions(jnp.asarray(golden["pretrained_positions"]), (8, 8))
    close(position, params["backbone"]["position"], 1e-5)


def test_positions_of_the_memory(golden, loaded):
    config = loaded[0]
    module = Perception(config)
    place = lambda module, grid: module.decoder.grid_positions(grid)  # noqa: E731
    for name, grid in (("attribute", (5, 5)), ("dense", (8, 8))):
        close(query_decoder.sine_positions(grid, 32), golden[f"sine_{name}"], 1e-5)
        found = module.apply(variables(loaded), grid, method=place)
        close(found, golden[f"memory_positions_{name}"], 1e-5)
    close(query_decoder.sine_positions((3, 5), 32), golden["sine_3x5"], 1e-5)


@pytest.mark.slow
@STAGES
def test_the_decoder_layer_by_layer(golden, loaded, stage):
    """States after every part of every layer, and which level is looked at."""
    config = loaded[0]
    module = Perception(config)

    def decoded(module, maps, tasks):
        levels = config.decoder.read(stage)
        projected = module.decoder.projected([maps[level] for level in levels])
        return module.decoder(tasks, projected)

    def run(group, *tasks):
        apply = lambda v, m: module.apply(  # noqa: E731
            v, m, tasks, method=decoded, mutable=["trace", PRESENT]
        )
        return jax.jit(apply)(variables(loaded), maps_of(golden, group))

    for group, tasks in (("attribute", VALUES), ("dense", DENSE)):
        for task, states in run(group, *tasks)[0].items():
            close(states, golden[f"stage{stage}_decoder_{task}"])
    _, kept = run("attribute", "affect_rafdb")
    (trace,) = kept["trace"]["decoder"]["layers"]["affect_rafdb"]
    close(trace, golden[f"stage{stage}_trace_affect_rafdb"])
    cross = kept[PRESENT]["decoder"]["layers"]["cross_attention"]
    logits = jnp.einsum("lbnqh,lbnkh->lbnqk", cross["query"], cross["key"])
    share = jax.nn.softmax(logits * cross["query"].shape[-1] ** -0.5).mean(2)
    by_level = share.reshape(*share.shape[:3], -1, 25).sum(-1)
    close(by_level, golden[f"stage{stage}_attention_share_affect_rafdb"])


@STAGES
def test_every_output(golden, loaded, stage):
    apply = jax.jit(model.apply_to_maps, static_argnums=(0, 4, 5))
    given = (*loaded, maps_of(golden, "attribute"), (*VALUES, "recog_ms1mv3"), stage)
    found = apply(*given)
    for task in VALUES:
        close(found[task], golden[f"stage{stage}_out_{task}"])
    close(found["recog_ms1mv3"], golden["stage1_out_recog_ms1mv3"], 2e-4, 1e-5)
    maps = maps_of(golden, "dense")
    found = apply(*loaded, maps, DENSE, stage)
    close(found["align_300w"], golden[f"stage{stage}_landmarks_align_300w"], 1e-5)
    if stage == 1:
        ends = found["parsing_celebam"][..., jnp.array([0, -1])]
        close(ends, golden["stage1_out_parsing_celebam"])
    raw = Perception(loaded[0]).apply(
        variables(loaded), maps, DENSE, stage, method="read"
    )
    for task in DENSE:
        close(raw[task], golden[f"stage{stage}_map_{task}"])


def test_the_pixel_decoder(golden, loaded):
    module = Perception(loaded[0])

    def pixels(module, maps):
        (source,) = module.decoder.projected([maps[3]])
        return source, module.map.pixels(source)

    source, found = module.apply(
        variables(loaded), maps_of(golden, "dense"), method=pixels
    )
    close(source, golden["pixel_source"])
    close(found[..., :8], golden["pixel_features"])


@pytest.mark.slow
def test_from_pictures(golden, loaded):
    """The public function, from pictures to answers."""
    found = model.apply(*loaded, golden["images_attribute"][:2], ["affect_rafdb"], 2)
    close(found["affect_rafdb"], golden["stage2_out_affect_rafdb"])
    with pytest.raises(ValueError, match="task 'affect_raf' is not the model's"):
        model.apply(*loaded, golden["images_attribute"], ["affect_raf"], 1)
    with pytest.raises(ValueError, match="stage is 3"):
        model.apply(*loaded, golden["images_attribute"], ["affect_rafdb"], 3)
    with pytest.raises(ValueError, match="multiples of 16"):
        model.apply(*loaded, golden["images_attribute"][:, :70], ["affect_rafdb"], 1)


def batches_of(golden, sizes, names):
    """Feeds as the reference was trained on them; its pictures are normalised."""
    batches = {}
    for task in sizes["tasks"]:
        name = task["name"]
        group = "dense" if task["interpreter"] == "map_v2" else "attribute"
        label = golden[f"label_{name}"]
        batches[name] = {
            "image": golden[f"images_{group}"][slice(*task["train_slice"])],
            # Pixels of the first 128 by their middles -> shares of the side.
            "label": (label + 0.5) / 128 if name == "align_300w" else label,
            "weight": np.ones(len(label), np.float32),
        }
    return {name: batches[name] for name in names}


@STAGES
def test_losses_and_gradients(golden, sizes, loaded, stage):
    config, params, state = loaded
    module = Perception(dataclasses.replace(config, pixels="unit"))
    alpha = {task["name"]: task["alpha"] for task in sizes["tasks"]}
    names = {1: [*alpha], 2: sizes["stage2_loss_tasks"]}[stage]
    weights = {name: alpha[name] for name in names}
    options = objective.ObjectiveConfig(weights=weights, stage=stage)
    loss = objective.make_loss(module, options, names)
    batches, key = batches_of(golden, sizes, names), jax.random.key(0)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params):
        return loss(params, state, {}, batches, key, 0)

    (total, (new, metrics)), grads = run(params)
    close(total, golden[f"stage{stage}_loss_total"], 0, 1e-5)
    mean = {name: losses.mean(pair) for name, pair in metrics.items()}
    for name in names:
        wanted = golden[f"stage{stage}_loss_{name}"]
        kind = PARTS.get(name, [perception_tasks.family(name).loss])
        close([mean[f"{name}/{part}"] for part in ("loss", *kind)], wanted, 0, 1e-5)
    slopes = faceptor.to_state_dict(config, grads, state)
    norms = golden[f"stage{stage}_grad_norms"]
    for name, wanted in zip(sizes["grad_norm_names"][f"stage{stage}"], norms):
        found = np.linalg.norm(slopes[f"module.{name}"].astype(np.float64))
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5, err_msg=name)
    prefix = f"stage{stage}_grad_"
    for name in (n for n in golden if n.startswith(prefix) and n[12:] != "norms"):
        wanted = golden[name]
        found = slopes["module." + name.removeprefix(prefix)]
        close(found, wanted, 1e-4 * np.abs(wanted).max())
    if stage == 1:
        statistics = faceptor.to_state_dict(config, params, new)
        at = "module.heads_module.interpreters.feature_v2."
        for name in (
            "head.1.running_mean",
            "head.1.running_var",
            "head.3.running_mean",
            "head.3.running_var",
        ):
            close(statistics[at + name], golden[f"stage1_after_{name}"])
        before = faceptor.to_state_dict(config, params, state)
        name = f"{at}head.1.num_batches_tracked"
        assert statistics[name] == before[name] + 1


def test_outputs_in_training(golden, sizes, loaded):
    """Identities by the statistics of the batch; all else is as in evaluation."""
    config, params, state = loaded
    module = Perception(dataclasses.replace(config, pixels="unit"))
    names = ["recog_ms1mv3", "affect_affectnet"]
    images = {k: x["image"] for k, x in batches_of(golden, sizes, names).items()}
    key = jax.random.key(0)
    raw, _ = jax.jit(lambda v: objective.forward(module, v, images, 1, key))(
        variables(loaded)
    )
    for name in names:
        close(raw[name], golden[f"stage1_train_out_{name}"], 2e-4, 1e-5)


def test_targets(golden):
    found = losses.age_distribution(golden["label_age_morph2"], 101)
    close(found, golden["label_distribution_age_morph2"], 1e-6)
    truth = (golden["label_align_300w"] + 0.5) / 128
    found = heatmaps.painted(truth, (32, 32), 5.0)
    close(found, golden["target_heatmap_align_300w"], 1e-5)
    found = heatmaps.painted(golden["geometry_points"], (12, 20), 4.0)
    close(found, golden["geometry_heatmap"], 1e-5)
    found = heatmaps.centroids(golden["geometry_heatmap_in"])
    close(found, golden["geometry_points_out"], 1e-5)


def test_the_naive_heads(golden):
    config, params, state = faceptor.load_heads(NAIVE, SIZES)
    tasks = ("affect_affectnet", "affect_rafdb")
    maps = maps_of(golden, "attribute")
    found = model.apply_to_maps(config, params, state, maps, tasks)
    for task in tasks:
        close(found[task], golden[f"naive_out_{task}"], 2e-4, 1e-5)
    read = jax.jit(
        lambda v, m: Perception(config).apply(
            v, m, ("parsing_celebam", "parsing_lapa"), method="read"
        )
    )
    found = read({"params": params, **state}, maps_of(golden, "dense"))
    close(jnp.concatenate([*found.values()], -1), golden["naive_dense_logits"])


@pytest.mark.parametrize("path,load", [(FILE, "load"), (NAIVE, "load_heads")])
def test_round_trip_is_exact(golden, tmp_path, path, load):
    read = getattr(faceptor, load)
    config, params, state = read(path, SIZES)
    faceptor.save(tmp_path / "out.pth.tar", config, params, state, step=7)
    before, after = state_dict.read(path), state_dict.read(tmp_path / "out.pth.tar")
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert array.dtype == after[name].dtype and array.shape == after[name].shape
        assert array.tobytes() == after[name].tobytes(), name
    again = read(tmp_path / "out.pth.tar", SIZES)
    assert again[0] == config
    assert trees.digest(again[1]) == trees.digest(params)


def test_stage_1_is_the_file_without_the_new_levels(golden, loaded, tmp_path):
    state = {k: v for k, v in state_dict.read(FILE).items() if ".new_" not in k}
    state = {k: v for k, v in state.items() if "classifier" not in k}
    state_dict.write(tmp_path / "stage1.ckpt", state)
    config, params, stats = faceptor.load(tmp_path / "stage1.ckpt", SIZES)
    assert config.decoder.new_levels == () and config.last_stage == 1
    maps = maps_of(golden, "attribute")
    found = model.apply_to_maps(config, params, stats, maps, ["age_morph2"], 1)
    close(found["age_morph2"], golden["stage1_out_age_morph2"])
    with pytest.raises(ValueError, match="no levels of stage 2"):
        model.apply_to_maps(config, params, stats, maps, ["age_morph2"], 2)


def damaged(change):
    """The file with a change, as load sees it."""

    def write(tmp_path):
        state = change(dict(state_dict.read(FILE)))
        state_dict.write(tmp_path / "bad.ckpt", state)
        return tmp_path / "bad.ckpt"

    return write


PROJ = "module.heads_module.decoder.input_proj.0.weight"
ALIAS = "module.heads_module.interpreters.map_v2.mask_map.1.ln.weight"


@pytest.mark.parametrize(
    "change,said",
    [
        (lambda s: {k: v for k, v in s.items() if k != PROJ}, "lacks 1: .*input_proj"),
        (lambda s: s | {"module.more": np.zeros(3, np.float32)}, "1 unknown: more"),
        (lambda s: s | {PROJ: s[PROJ][:5]}, r"is \[5, 64, 1, 1\], not \[32"),
        (lambda s: s | {ALIAS: s[ALIAS] + 1}, "should repeat another weight"),
        (lambda s: s | {PROJ: s[PROJ].astype(np.int64)}, "is int64"),
    ],
)
def test_a_file_that_is_not_right_is_refused(golden, tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        faceptor.load(damaged(change)(tmp_path), SIZES)


def test_configs_that_make_no_sense(golden, sizes):
    with pytest.raises(UserError, match="lacks 'backbone'"):
        faceptor.read_config({})
    bad = {**sizes, "tasks": [{"name": "pose_300w", "queries": 3}]}
    with pytest.raises(UserError, match="'pose_300w' is of no known family"):
        faceptor.read_config(bad)
    bad = {**sizes, "pixel_source_level": 2}
    with pytest.raises(UserError, match="source_level 2 is none of"):
        faceptor.read_config(bad)


def test_an_encoder_of_farl(golden, loaded, tmp_path):
    """The encoder alone, beside a text tower that is not read, at another grid."""
    config, params, _ = loaded
    at = "module.backbone_module."
    state = {
        name.removeprefix(at): array
        for name, array in state_dict.read(FILE).items()
        if name.startswith(at)
    }
    state["visual.positional_embedding"] = golden["pretrained_positions"]
    text = np.zeros((4, 4), np.float32)
    names = """transformer.resblocks.0.attn.in_proj_weight text_projection logit_scale
    positional_embedding token_embedding.weight"""
    state |= dict.fromkeys(names.split(), text)
    state_dict.write(tmp_path / "farl.pth", state)
    vit, found = faceptor.load_farl(tmp_path / "farl.pth", grid=8)
    # Heads are 64 wide in every CLIP; these are 16.
    assert vit.transformer.num_heads == 1
    assert (vit.patch, vit.grid, vit.output_width) == (16, 8, 24)
    flat, wanted = trees.flatten(found), trees.flatten(params["backbone"])
    assert flat.keys() == wanted.keys()
    for name, array in wanted.items():
        close(flat[name], array, 1e-6)
    state_dict.write(tmp_path / "odd.pth", state | {"visual.more": text})
    with pytest.raises(UserError, match="unknown: visual.more"):
        faceptor.load_farl(tmp_path / "odd.pth")
    state_dict.write(tmp_path / "none.pth", {"weight": text})
    with pytest.raises(UserError, match="holds no ViT"):
        faceptor.load_farl(tmp_path / "none.pth")
