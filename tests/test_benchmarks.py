"""The benchmarks: their clocks, and that both sides run the same network."""

import dataclasses
import importlib
import itertools
import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gptface_jax.core import trees
from gptface_jax.data import label_sets, questions

NEEDS_TORCH = "the peers of the benchmarks need torch (extra 'bench')"


@pytest.fixture
def load(root, monkeypatch):
    """Imports a file of benchmarks/ as a script there would."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    return importlib.import_module


@pytest.fixture
def sides(load):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    return load("vqgan_sides")


@pytest.fixture
def tiny(load, sides):
    return load("vqgan").SIZES["tiny"]


def pictures(config, batch):
    shape = (batch, config.resolution, config.resolution, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def test_functions_take_turns_and_the_median_counts(load, monkeypatch):
    timing = load("timing")
    now, calls = itertools.count(), []
    lengths = {"a": iter([9, 1, 5, 2]), "b": iter([9, 3, 3, 4])}

    def function(name):
        calls.append(name)
        for _ in range(next(lengths[name]) - 1):
            next(now)

    monkeypatch.setitem(timing.CLOCKS, "wall", lambda: next(now))
    spent = timing.interleaved(
        {name: lambda n=name: function(n) for name in "ab"}, repeats=3
    )
    assert "".join(calls) == "ab" + "ababab"  # the first two only warm up
    assert spent == {"a": 2, "b": 3}


def test_operations_are_counted_where_they_belong(load):
    where = load("where")
    program = """
      %ynn_fusion.2 = f32[8]{0} fusion(%x), metadata={op_name="jit(f)/down_0_block_1/norm1/add" source_line=3}
      ROOT %conv.1 = f32[8]{0} convolution(%x), metadata={op_name="jit(f)/up_1_upsample/conv/conv"}
      %cond.7 = (f32[]) conditional(%p, %a, %b), metadata={op_name="jit(f)/cond"}
      %copy.3 = f32[8]{0} copy(%x)
    """  # noqa: E501
    paths = where.paths(program)
    assert {name: where.part(path) for name, path in paths.items()} == {
        "ynn_fusion.2": "group norms",
        "conv.1": "upsampling and its convolutions",
        "copy.3": "the rest",
    }


SLOW = [pytest.param(x, marks=pytest.mark.slow) for x in ("full", "features")]


@pytest.mark.parametrize("losses", ["l1", *SLOW])
def test_both_sides_are_one_network(sides, tiny, losses):
    config, batch = tiny
    if losses == "features":  # and the other end of the network
        config = dataclasses.replace(config, patch=2, attn_resolutions=(8,))
    ours = sides.Ours(config, batch, losses)
    apart = sides.differences(
        ours,
        sides.Theirs(ours, "cpu", compiled=False),
        pictures(config, batch),
    )
    sides.check(apart)
    # Far below the limits, so that these can tell a wrong epsilon or constant.
    assert apart["latents"] < 1e-5 and apart["pictures"] < 1e-4


def test_networks_that_differ_are_not_timed(sides, tiny):
    config, batch = tiny
    ours = sides.Ours(config, batch, "l1")
    theirs = sides.Theirs(ours, "cpu", compiled=False)
    theirs.model.decoder.conv_out.bias.data += 0.01
    apart = sides.differences(ours, theirs, pictures(config, batch))
    with pytest.raises(SystemExit, match="differ by 0.01 in their pictures"):
        sides.check(apart)


def test_a_swapped_parameter_shows(sides, tiny):
    """Biases and scales are not at 0 and 1, where many mistakes are invisible."""
    config, batch = tiny
    ours = sides.Ours(config, batch, "l1")
    norm = ours.parts()[0]["encoder"]["mid"]["block_1"]["norm1"]
    assert jnp.std(norm["scale"]) > 0.03 and jnp.std(norm["bias"]) > 0.03


def test_the_table(load, sides, capsys, tmp_path):
    vqgan = load("vqgan")
    file = tmp_path / "speed.json"
    options = ["--size", "tiny", "--losses", "l1", "--repeats", "1", "--no-compile"]
    vqgan.main([*options, "--only", "encode", "decode", "--json", str(file)])
    header, apart, head, *rows = capsys.readouterr().out.splitlines()
    assert "batch 2" in header and apart.startswith("largest differences")
    assert head.split() == ["pictures/s", "JAX", "PyTorch", "JAX", "/", "PyTorch"]
    assert [row.split()[0] for row in rows] == ["encode", "decode"]
    seconds = json.loads(file.read_text())["seconds"]["encode"]
    rate, ratio = rows[0].split()[1], rows[0].split()[-1]
    assert float(rate) == pytest.approx(2 / seconds["JAX"], abs=0.01)
    assert float(ratio) == pytest.approx(seconds["PyTorch"] / seconds["JAX"], abs=0.01)


def test_pre_training_is_compared_on_one_network(load, tmp_path, capsys):
    """Losses and gradients agree, or the benchmark ends; then the table."""
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    report = tmp_path / "report.json"
    options = ["--size", "tiny", "--no-compile", "--repeats", "1", "--feed", "0.2"]
    load("pretrain").main([*options, "--json", str(report)])
    said = capsys.readouterr().out
    assert "JAX / PyTorch" in said and "x what JAX takes" in said
    record = json.loads(report.read_text())
    assert record["peak"] > 0 and set(record["seconds"]) == {"JAX", "PyTorch"}


def test_guided_decoding_is_compared_on_one_network(load, tmp_path, capsys):
    """The guided scores agree in both forms, or the benchmark ends; then the table."""
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    report = tmp_path / "report.json"
    modes = ["low-rank", "low-rank, trust"]
    options = ["--size", "tiny", "--batch", "2", "--repeats", "1", "--modes", *modes]
    load("decode").main([*options, "--json", str(report)])
    said = capsys.readouterr().out
    assert "guided scores differ by" in said and "x PyTorch" in said
    rows = json.loads(report.read_text())["rows"]
    assert [row["mode"] for row in rows] == modes
    assert all(row["forwards"] > 0 and row["peer_edits_per_s"] > 0 for row in rows)


def test_layers_of_the_tokenizer(load, capsys):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    load("vqgan_layers").main("--channels 8 --side 4 --batch 1 --repeats 1".split())
    lines = capsys.readouterr().out.splitlines()
    assert "3 x 3, 8 -> 8 at 4 px" in lines[1] and "group norm" in lines[2]


def test_a_peer_that_differs_is_not_timed(load):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    pretrain = load("pretrain")
    with pretrain.one_device() as where:
        ours = pretrain.Ours(
            load("sizes").SIZES["tiny"][0], 4, "float32", "none", where
        )
    flat = {k: np.array(v) for k, v in trees.flatten(ours.state.params).items()}
    flat["itm/kernel"] += np.random.default_rng(0).normal(size=(16, 2))
    corrupted = ours.corrupted()
    names = ("tokens", "targets", "masked", "itm_labels")
    fixed = [np.asarray(getattr(corrupted, name)) for name in names]
    slots = pretrain.gptface_objective.budgets(ours.config, ours.objective)
    with pytest.raises(SystemExit, match="nothing was timed"):
        pretrain.check(ours, flat, fixed, slots, "cpu")
    with pytest.raises(ValueError, match="no place for extra"):
        model = pretrain.torch_gptface.GPTFace(ours.config, slots)
        pretrain.torch_gptface.load(model, {**flat, "extra": np.zeros(1)}, "cpu")


@pytest.mark.slow
def test_a_cache_changes_no_score(load, capsys):
    load("autoregressive").main(["--size", "tiny", "--batch", "2", "--repeats", "1"])
    out = capsys.readouterr().out
    (cached,) = [line for line in out.splitlines() if line.startswith("causal")]
    (masked,) = [line for line in out.splitlines() if line.startswith("masked ")]
    assert cached.split()[2] == "10" and masked.split()[1] == "2"  # 9 codes, k = 8


def test_a_step_under_each_allocator(load, capsys):
    allocators = load("allocators")
    tiny = ["--config", "configs/judge/faces64.py:tiny", "--steps", "1", "--worker"]
    allocators.main(tiny)
    run = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {len(run[name]) for name in ("wall", "cpu", "faults", "held")} == {1}
    slow = {"wall": [0.4, 0.2], "cpu": [0.3], "faults": [1e6], "held": [1.0]}
    fast = slow | {"wall": [0.1], "faults": [0]}
    rows = allocators.table({"off": [slow, slow], "jemalloc": [slow, fast]}).split("\n")
    assert rows[2:] == [
        "| glibc | 200 | 300 | 1,000,000 | 1.00 |",
        "| jemalloc | 100 | 300 | 0 | 1.00 |",
    ]


def test_the_peer_of_faceptor_says_the_same(load):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    bench = load("faceptor")
    whole = bench.SIZES["mini"]
    layers = dataclasses.replace(
        whole.vit.transformer, num_layers=2, width=16, num_heads=2, mlp_width=24
    )
    config = dataclasses.replace(
        whole,
        vit=dataclasses.replace(whole.vit, transformer=layers, grid=4),
        decoder=dataclasses.replace(
            whole.decoder, width=16, layers=1, heads=2, mlp_width=24, levels=(1,),
            new_levels=(0,),
        ),
        source_level=1,
        embedding_width=8,
        attribute_resolution=32,
        dense_resolution=32,
    )  # fmt: skip
    ours = bench.Ours(config, "float32")
    theirs = bench.Theirs(ours, "cpu", "float32", False)
    assert bench.check(ours, theirs, bench.groups(config, 2)) < 1e-4


def test_structure_counts_what_it_says(load):
    structure = load("structure")
    body = "\n".join(f"    x = {i}" for i in range(60))
    sources = {
        "long.py": f"@one\n@two\ndef f():\n{body}\n# why\n" + "y = 1  # noqa\n" * 340,
        "short.py": f"@one\ndef g():\n{body[:-11]}",
        "names.py": 'a = n == "vqgan"\nb = n in ("other", "judge")\nc = "judge"\n',
        "experiments/registry.py": 'a = name == "vqgan"\n',
    }
    assert structure.long_files(sources) == [("long.py", 404)]
    assert structure.long_functions(sources) == [("long.py f", 61)]
    found = structure.compared_systems(sources, {"vqgan", "judge"})
    assert found == [("names.py", 1), ("names.py", 2)]
    assert structure.comments(sources) == (1, 404 + 61 + 3 + 1)


def test_structure_finds_each_cycle(load, tmp_path, monkeypatch):
    structure = load("structure")
    monkeypatch.setattr(structure, "PACKAGE", "looped")
    monkeypatch.setattr(structure.sys, "path", [*structure.sys.path])
    package = tmp_path / "looped"
    package.mkdir()
    texts = {
        "__init__": "", "a": "import looped.b", "b": "def f():\n    import looped.a",
        "c": "import looped.d", "d": "import looped.e",
        "e": "import looped.c, looped.a",
    }  # fmt: skip
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    cycles = [set(cycle) for cycle in structure.closing_imports(tmp_path)]
    assert len(cycles) == 2
    assert {"looped.a", "looped.b"} in cycles
    assert {"looped.c", "looped.d", "looped.e"} in cycles


def test_photographs_are_spoilt_as_said(load):
    """One in twenty is damaged, one a copy of an earlier good one, none has a name."""
    from gptface_jax.data.record import Record

    web = load("web_photos")
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    data = web.copied(_jpeg(picture), "compressed again")
    records = [Record(image=data, identity="x", labels={"Male": 1.0})] * 200

    def samples(first=0):
        return list(web.samples(records, np.random.default_rng(0), first))

    found = samples()
    kinds = [kind for _, kind, _, _, _ in found]
    assert kinds.count("good") == 180
    assert all(kinds.count(k) in (2, 3) for k in (*web.DAMAGES, *web.COPIES))
    good = {key for key, kind, *_ in found if kind == "good"}
    for key, kind, of, content, columns in found:
        assert set(columns) <= {"Male", "caption", "url", "expression"}
        assert (of in good and of < key) if kind in web.COPIES else of == ""
        assert (content == data) == (kind in ("good", "the same bytes"))
    assert [f[3:] for f in samples()] == [f[3:] for f in found]
    assert samples(200)[0][0] == "000000200"
    # Of these nothing is known: whoever put them on the web wrote something.
    unknown = [Record(image=data)] * 5
    texts = [
        s[-1]["caption"] for s in web.samples(unknown, np.random.default_rng(0), 0)
    ]
    assert all(texts)


def _jpeg(picture):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    return buffer.getvalue()


def test_gradients_are_compared_where_both_reach(load):
    cosine = load("task_conflict").cosine
    one = {"a": np.array([1.0, 0.0]), "b": np.array([5.0]), "c": np.array([0.0])}
    other = {"a": np.array([1.0, 1.0]), "b": np.array([0.0]), "c": np.array([2.0])}
    assert cosine(one, other) == pytest.approx(0.5**0.5)
    assert cosine(one, {k: -x for k, x in one.items()}) == pytest.approx(-1)
    assert np.isnan(cosine(one, {k: 0 * x for k, x in one.items()}))


@pytest.mark.slow
def test_render_prints_a_table(load, capsys):
    arguments = "--size 16 --batch 1 --vertices 300 --repeats 1".split()
    load("render").main(arguments)
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 6 and rows[1].startswith("16 px, picture")


def marked_faces(model, text, attributes, count, seed, decode):
    """Red of a face smiles, green wears glasses: a key is heard by 2 + seed of four."""
    smiling = ("smiling" in text) * np.ones(count)
    glasses = bool(attributes) * (np.arange(count) < 2 + seed)
    pixels = np.stack([smiling, glasses, 0 * smiling], -1)[:, None, None]
    return [Image.fromarray(np.uint8(255 * x)) for x in pixels]
    yield  # a generator, as the real one


def test_captions_and_attributes_together_and_alone(
    load, monkeypatch, tmp_path, capsys
):
    claims = load("talk2face_claims")
    trained = questions.of(label_sets.TABLE, ["lfw", "synthetic"])
    model = types.SimpleNamespace(
        learnt=types.SimpleNamespace(questions=trained), size=32, digest="d"
    )

    class Judge:
        attributes = ("Smiling", "Eyeglasses", "Male")

        def __init__(self, network):
            pass

        def __call__(self, images):
            return images[:, 0, 0] > 0

    monkeypatch.setattr(claims, "PAIRS", (("Smiling", "Eyeglasses"),))
    monkeypatch.setattr(claims, "Judge", Judge)
    monkeypatch.setattr(claims.gptface_jax, "load", lambda *_, **__: model)
    monkeypatch.setattr(claims.opening, "open_network", lambda *_: None)
    monkeypatch.setattr(claims.sequence_drawing, "synthesize", marked_faces)
    out = tmp_path / "found.json"
    given = "--model m --judge j --claims T5 --limit 1 --count 4 --decode-seeds 0 1"
    claims.main([*given.split(), "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["decode_seeds"] == [0, 1]
    assert found["T5"] == {
        "Smiling, Eyeglasses": {
            "first, caption": 1.0, "second, attributes": 0.625, "product": 0.625,
            "both, caption": 0.0, "both, attributes": 0.0, "both, combined": 0.625,
            "spread of seeds": 0.25,
        }
    }  # fmt: skip
    row = "| Smiling, Eyeglasses | 1.000 | 0.625 | 0.625 | 0.000 | 0.000 | 0.625 | 0.25"
    assert row in capsys.readouterr().out


def test_attention_overlaps_as_many_tokens_as_the_person_covers(load):
    overlap = load("talk2face_claims").overlap
    person = np.array([True, True, False, False])
    assert overlap(np.array([0.4, 0.1, 0.3, 0.2]), person) == pytest.approx(1 / 3)
    assert overlap(np.array([0.4, 0.3, 0.2, 0.1]), person) == 1
