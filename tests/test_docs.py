"""Every command in README and docs: it parses, its files exist, its chain runs."""

import argparse
import importlib.util
import json
import pathlib
import re
import shlex

import numpy as np
import pytest
import tiny_faceptor
import two_faces
from PIL import Image

from gptface_jax.cli.main import VERBS, main, verb_module
from gptface_jax.core.config import load_config, load_sweep, override
from gptface_jax.data.synthetic import SyntheticFaces

PAGES = [pathlib.Path("README.md"), *sorted(pathlib.Path("docs").rglob("*.md"))]

# In the order in which their commands run.
RESULTS = (
    "tokenizer",
    "matching",
    "guidance",
    "strength",
    "restoration",
    "faces",
    "stitching",
    "masking",
    "probing",
    "decoding",
    "watermark",
    "speed",
    "photographs",
    "versions",
)


def commands(page: pathlib.Path) -> list[list[str]]:
    """The `gptface` commands of a page's bash blocks."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "gptface" in words:
                found.append(words[words.index("gptface") + 1 :])
    return found


ALL = [(p.name, c) for p in PAGES for c in commands(p)]


def test_there_are_commands():
    assert {c[0] for _, c in ALL} >= {"quickstart", "train", "tokenize", "edit"}


@pytest.mark.parametrize("page,command", ALL, ids=lambda v: str(v)[:60])
def test_documented_commands_parse(page, command):
    verb, *rest = command
    assert verb in VERBS
    parser = argparse.ArgumentParser(exit_on_error=False)
    verb_module(verb).add_arguments(parser)
    options, overrides = parser.parse_known_args(rest)
    assert all(o.startswith("--config.") for o in overrides), overrides
    if getattr(options, "config", None):
        config = load_config(options.config)
        override(config, [o.removeprefix("--config.") for o in overrides])


STORIES = [[p] for p in PAGES if p.parent.name != "results"]
STORIES.append([p for p in PAGES if p.parent.name == "results"])


@pytest.mark.parametrize("pages", STORIES, ids=lambda pages: pages[0].stem)
def test_no_two_commands_write_into_one_folder(pages):
    """The second would be refused: other settings are another run, another cache."""
    flags = {"train": "--workdir", "prepare": "--out", "tokenize": "--out"}
    written = {}
    for verb, *rest in (c for p in pages for c in commands(p)):
        if verb in flags and "--beam" not in rest:  # the same job on other clusters
            folder = rest[rest.index(flags[verb]) + 1]
            assert written.setdefault(folder, [verb, *rest]) == [verb, *rest], folder


def test_the_gallery_has_every_verb():
    assert {command[0] for command in commands(pathlib.Path("docs/gallery.md"))} == (
        set(VERBS)
    )


def test_python_blocks_compile():
    blocks = 0
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
            compile(block, page.name, "exec")
            blocks += 1
    assert blocks


def _anchors(page: pathlib.Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", text, re.M):
        words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        twice = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", a) is not None
                    for a in found)  # fmt: skip
        found.add(f"{slug}-{twice}" if twice else slug)
    return found


LINKED = [*PAGES, *map(pathlib.Path, ("CONTRIBUTING.md", "CHANGELOG.md"))]
LINKED += sorted(pathlib.Path("gptface_jax").rglob("*.md"))


def test_links_lead_somewhere():
    for page in LINKED:
        for target, anchor in re.findall(
            r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()
        ):
            if not target.startswith("http"):
                there = page.parent / target if target else page
                assert there.exists(), f"{page}: {target}"
                if anchor and there.suffix == ".md":
                    assert anchor in _anchors(there), f"{page}: {target}#{anchor}"


@pytest.mark.parametrize("name", ["demo64", "vqgan128"])
def test_model_cards_are_those_that_models_were_exported_with(name):
    card = pathlib.Path("docs", f"{name}_card.md").read_text()
    assert pathlib.Path("gptface_jax/models", name, "README.md").read_text() == card


def test_the_table_of_licences_names_all_that_is_shipped():
    """Whatever is not code or text stands under a row of docs/licences.md."""
    page = pathlib.Path("docs/licences.md").read_text()
    rows = re.findall(r"^\| (?!what|---)(.*?) \|$", page, re.M)
    named = [n for row in rows for n in re.findall(r"`([\w./]+)`", row)]
    assert all(pathlib.Path(name).exists() for name in named), named
    texts = (".py", ".html", ".md", ".sh", ".yaml", ".sbatch", ".typed", ".pyc")
    for top in ("gptface_jax", "configs", "launch", "docs", "tests"):
        for path in pathlib.Path(top).rglob("*"):
            ours = path.suffix in texts or path.name == "Dockerfile"
            if path.is_file() and not ours:
                inside = any(path.is_relative_to(name) for name in named)
                assert inside, f"{path}: whose is it? say so in docs/licences.md"


@pytest.mark.slow
def test_the_reference_is_built_and_its_links_lead_somewhere(tmp_path):
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("make_reference", "docs/make_reference.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "a.html").write_text('<a href="b.html#x">b</a><p id="y">')
    (tmp_path / "b.html").write_text('<a href="a.html#y">a</a><a href="c.html">c</a>')
    assert module.broken_links(tmp_path) == ["a.html: b.html#x", "b.html: c.html"]
    assert (
        module.main(["--module", "gptface_jax.ops", "--out", str(tmp_path / "o")]) == 0
    )
    assert "span_mask" in (tmp_path / "o/gptface_jax/ops/masking.html").read_text()


def test_named_functions_exist():
    """`path.py` `name` in the tables of README and docs/equations.md."""
    found = 0
    for page in (PAGES[0], pathlib.Path("docs/equations.md")):
        for path, names in re.findall(
            r"`([a-z_0-9/]+\.py)` ((?:`[.\w]+`(?:, )?)+)", page.read_text()
        ):
            code = pathlib.Path("gptface_jax", path).read_text()
            for name in re.findall(r"`([.\w]+)`", names):
                last = name.rsplit(".", 1)[-1]
                assert re.search(rf"(def|class) {last}\b|import.*\b{last}\b", code), (
                    name
                )
                found += 1
    assert found > 20


def test_ci_and_the_guide_repeat_the_readme():
    readme = PAGES[0].read_text()
    set_up, tests = re.search(
        r"(python3 -m venv.*uv) && (\S+uv run pytest.*)", readme
    ).groups()
    ci = pathlib.Path(".ci/run").read_text()
    assert set_up in ci and ci.rstrip().endswith(tests)
    guide = commands(pathlib.Path("docs/guide.md"))
    own_photos = [c for c in commands(PAGES[0]) if c[0] != "quickstart"]
    assert own_photos == guide[:4]


# `faces64.py:tiny` reads drawn faces; with this it reads the tiny tokenizer's caches.
# So do the experiments that change it.
_OF_CODES = ("configs/gptface", "experiments/weak_text", "experiments/masks")
_TINY_CACHE = ("--config.data.image_ids=cache",)
_OUTPUTS = ("photos", "sets/", "tokens/", "runs/", "again", "gptface_jax/models/")
# What `launch/sweep.py` trains or nothing here does, and a run that stands for it.
_SWEPT = {
    **{
        f"runs/tokenizers128/{name}": "runs/vqgan64"
        for name in ("features", "pixels", "codes_4096", "rotation", "wide")
    },
    "runs/tokenizers64/f8_1024": "runs/vqgan64",
    "runs/tokenizers64/f16_1024": "runs/vqgan64",
    "runs/weak_text/rho_1": "runs/gptface64",
    # Of the bundled tokenizer's codes.
    "runs/web/packed": pathlib.Path(__file__).parents[1] / "gptface_jax/models/demo64",
    "runs/shared128b": "runs/gptface64",
    **{
        f"runs/masks/{name}": "runs/gptface64"
        for name in ("span", "random", "mixed", "span_40", "span_10_to_100")
    },
}


_FORMS = (":gan", ":decoder", ":conditional")  # that have tiny ones of their own


def small(command: list[str], folder: pathlib.Path) -> list[str]:
    """A documented command in a folder of its own, with configs' :tiny form."""
    words = []
    for word in command:
        for start in _OUTPUTS:
            place = rf"(?<![\w/.]){re.escape(start)}"
            word = re.sub(place, f"{folder}/{start}", word)
        if re.fullmatch(r"\w+\.(json|png)", word):
            word = f"{folder}/{word}"
        config = re.fullmatch(r"(configs/.*\.py)(:\w+)?", word)
        if config:
            form = config[2] if config[2] in _FORMS else ""
            word = f"{config[1]}:tiny{form.replace(':', '_')}"
        words.append(word)
    if command[0] == "train":
        words += ["--quiet", "--config.total_steps=4"]
        if words[words.index("--config") + 1].endswith(":tiny_gan"):
            words.append("--config.model.level_channels=(8,8,16)")  # as of :tiny
        if any(name in " ".join(command) for name in _OF_CODES):
            tokens = f"{{'kind': 'tokens', 'path': '{folder}/tokens/lfw_train'}}"
            for part in ("train", "eval"):
                if not any(w.startswith(f"--config.data.{part}=") for w in command):
                    words.append(f"--config.data.{part}={tokens}")
            words += _TINY_CACHE
    elif command[0] in ("prepare", "tokenize", "reconstruct", "evaluate") or (
        "--measure" in command
    ):
        words += ["--quiet", "--limit", "200" if "expressions" in command else "12"]
        if "probe" in command:
            words += ["--seeds", "0", "--epochs", "1"]
        if "edits" in words or "strength" in words:
            words += ["--attributes", "Smiling"]
        if "--methods" in words:
            methods = load_sweep(command[command.index("--methods") + 1])
            words += ["--only", next(iter(methods)), "--decode-seeds", "0"]
    return words


def put_photos(folder: pathlib.Path) -> None:
    """Twelve drawn faces with labels, as `photos`."""
    photos = folder / "photos"
    photos.mkdir()
    faces = SyntheticFaces(size=48, count=12)
    rows = []
    for i in range(12):
        Image.fromarray(faces[i].image).save(photos / f"{i}.jpg")
        labels = {k: v for k, v in faces[i].labels.items() if k != "Age"}
        rows.append(json.dumps({"file_name": f"{i}.jpg", **labels}))
    (photos / "metadata.jsonl").write_text("\n".join(rows) + "\n")


@pytest.mark.slow
def test_from_a_folder_of_photos_to_an_edit(tmp_path):
    """The four commands of README and guide."""
    put_photos(tmp_path)
    chain = commands(pathlib.Path("docs/guide.md"))[:4]
    assert [c[0] for c in chain] == ["train", "tokenize", "train", "edit"]
    for command in chain:
        words = small(command, tmp_path)
        assert main(words) == 0, words
    assert (tmp_path / "edited.png").is_file()
    assert (tmp_path / "edited.json").is_file()


@pytest.mark.slow
@pytest.mark.shared
def test_the_commands_behind_the_results_run(tmp_path, shared, capsys):
    """docs/demo64.md, then the pages of docs/results, in their order."""
    for run, stand_in in _SWEPT.items():
        (tmp_path / run).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / run).symlink_to(tmp_path / stand_in)
    put_photos(tmp_path)  # for what docs/results/data.md prepares of all photographs
    (tmp_path / "sets/photographs").mkdir(parents=True)
    for part in ("train", "validation"):
        (tmp_path / "sets/photographs" / part).symlink_to(tmp_path / "photos")
    for page in ("docs/demo64.md", *(f"docs/results/{name}.md" for name in RESULTS)):
        for command in commands(pathlib.Path(page)):
            if command[0] == "quickstart":  # tests/apps/test_demo_model.py
                continue
            words = small(command, tmp_path)
            assert main(words) == 0, (words, capsys.readouterr().err)


@pytest.mark.slow
def test_from_a_folder_of_photos_to_a_good_tokenizer(tmp_path, capsys):
    """docs/tokenizer.md; what is imported is tested in tests/cli."""
    put_photos(tmp_path)
    tiny_faceptor.write(tmp_path / "my_faceptor")
    for command in commands(pathlib.Path("docs/tokenizer.md")):
        if command[0] == "import" or "my_vqgan" in command:
            continue
        words = small(command, tmp_path)
        words = [str(tmp_path / w) if w == "my_faceptor" else w for w in words]
        assert main(words) == 0, (words, capsys.readouterr().err)
    assert (tmp_path / "comparison.png").is_file()
    figures = json.loads((tmp_path / "comparison.json").read_text())
    assert set(figures) == {"pixels", "gan"}
    assert len(list((tmp_path / "again").glob("*.png"))) == 12


@pytest.mark.slow
def test_the_readme_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    face = SyntheticFaces(size=128, count=4)[1].image
    for name in ("photo.jpg", "old.jpg"):
        Image.fromarray(face).save(name)
    two_faces.photo().save("group.jpg")
    mask = np.zeros(face.shape[:2], np.uint8)
    mask[70:110, 40:90] = 255
    Image.fromarray(mask).save("mask.png")
    readme = pathlib.Path(__file__).parents[1] / "README.md"
    (block,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    exec(compile(block, "README.md", "exec"), {})
    assert pathlib.Path("edited.strip.png").is_file()


@pytest.mark.slow
def test_the_guide_in_a_program_of_your_own():
    guide = pathlib.Path("docs/guide.md").read_text()
    (block,) = re.findall(r"```python\n(.*?from flax import nnx\n.*?)```", guide, re.S)
    names = {}
    exec(compile(block, "guide.md", "exec"), names)
    gptface, tokens = names["gptface"], names["tokens"]
    assert names["logits"].shape == (1, 98, 1024)

    def expected(module, tokens):
        return module.image_logits(module(tokens))

    variables = {"params": gptface.params}
    logits = gptface.module.apply(variables, tokens, method=expected)
    np.testing.assert_allclose(names["logits"], logits, atol=1e-3)


@pytest.mark.slow
def test_the_pictures_can_be_made_again(tmp_path, monkeypatch):
    path = pathlib.Path("docs/make_pictures.py").resolve()
    spec = importlib.util.spec_from_file_location("make_pictures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "IMAGES", tmp_path)
    module.faces()
    again = np.asarray(Image.open(tmp_path / "synthetic.png"))
    shown = np.asarray(Image.open("docs/images/synthetic.png"))
    # Processors round differently.
    np.testing.assert_allclose(again.astype(int), shown.astype(int), atol=1)
    pytest.importorskip("matplotlib")
    module.curves()
    module.tokenizer_curves()
    assert (tmp_path / "curves.png").is_file()
    assert (tmp_path / "tokenizer_curves.png").is_file()
