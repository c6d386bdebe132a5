"""Every command in README and docs: it parses, its files exist, its chain runs."""

import argparse
import importlib
import json
import pathlib
import re
import shlex

import pytest
from PIL import Image

from gptface_jax.cli.main import VERBS, main
from gptface_jax.core.config import load_config, override
from gptface_jax.data.synthetic import SyntheticFaces

PAGES = [pathlib.Path("README.md"), *sorted(pathlib.Path("docs").glob("*.md"))]


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
    module = importlib.import_module(f"gptface_jax.cli.{verb}")
    module.add_arguments(parser)
    options, overrides = parser.parse_known_args(rest)
    assert all(o.startswith("--config.") for o in overrides), overrides
    if getattr(options, "config", None):
        config = load_config(options.config)
        override(config, [o.removeprefix("--config.") for o in overrides])


def test_python_blocks_compile():
    blocks = 0
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
            compile(block, page.name, "exec")
            blocks += 1
    assert blocks


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_from_a_folder_of_photos_to_an_edit(tmp_path):
    """The guide's four commands, with the configs' :tiny form."""
    photos = tmp_path / "photos"
    photos.mkdir()
    faces = SyntheticFaces(size=48, count=12)
    rows = []
    for i in range(12):
        Image.fromarray(faces[i].image).save(photos / f"{i}.jpg")
        labels = {k: v for k, v in faces[i].labels.items() if k != "Age"}
        rows.append(json.dumps({"file_name": f"{i}.jpg", **labels}))
    (photos / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    chain = commands(pathlib.Path("docs/guide.md"))[:4]
    assert [c[0] for c in chain] == ["train", "tokenize", "train", "edit"]
    tiny_gptface = (
        "--config.data.image_ids=cache",
        "--config.model.layout.grid=(8, 8)",
        "--config.model.max_positions=80",
        "--config.model.vocab.codebook_size=32",
    )
    for number, command in enumerate(chain):
        words = []
        for word in command:
            for start in ("photos", "tokens/", "runs/", "edited.png"):
                place = rf"(?<![\w/.]){re.escape(start)}"
                word = re.sub(place, f"{tmp_path}/{start}", word)
            words.append(word + ":tiny" if word.endswith(".py") else word)
        if number == 2:
            words += tiny_gptface
        assert main(words) == 0, words
    assert (tmp_path / "edited.png").is_file()
    assert (tmp_path / "edited.json").is_file()
