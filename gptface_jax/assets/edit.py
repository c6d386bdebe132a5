"""Edits a photo by the StableHLO program in this folder.

pip install jax numpy pillow safetensors tokenizers flatbuffers
python edit.py --image photo.jpg --mask mask.png --text "a smiling woman" --out new.png

The mask is a picture, white = may change. The program sees the photo's central square.
How the picture was made is in its metadata and in new.json beside it. Transparency,
camera and date of the photo are not kept, as `gptface edit` keeps them.

Exported programs load for six months of JAX releases only: config.json says under
"program", "made_with" which versions made this one. When a newer JAX refuses it,
install those, or export the model again.
"""

import argparse
import datetime
import json
import pathlib
import tempfile

import jax
import numpy as np
from jax import export
from PIL import Image, ImageOps, PngImagePlugin
from safetensors.numpy import load_file
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
# What common tools read of a picture's origin.
XMP = """\
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about=""
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/\
compositeWithTrainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def tree(flat):
    """Nested dict {"a": {"b": x}} of {"a/b": x}, float32."""
    nested = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        node = nested
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = np.asarray(value, np.float32)
    return nested


class Editor:
    """The program with its weights."""

    def __init__(self, folder=HERE):
        folder = pathlib.Path(folder)
        self.about = json.loads((folder / "config.json").read_text())["program"]
        program = (folder / self.about["file"]).read_bytes()
        made = self.about.get("made_with", {})
        try:
            exported = export.deserialize(bytearray(program))
        except Exception as error:
            pins = " ".join(f"{name}=={version}" for name, version in made.items())
            raise SystemExit(
                f"JAX {jax.__version__} cannot load {self.about['file']} ({error}); it "
                f"loads for six months of releases: pip install {pins}"
            ) from None
        self.run = jax.jit(exported.call)
        self.weights = {
            name: tree(load_file(folder / f"{name}.safetensors"))
            for name in ("vqgan", "gptface")
        }
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def text_ids(self, text):
        most = self.about["max_text_tokens"]
        plain = text.replace("[", " [ ")  # [MASK] in a text is no mask
        ids = self.tokenizer.encode(plain, add_special_tokens=False).ids[:most]
        return np.array(ids + [self.about["pad_id"]] * (most - len(ids)), np.int32)

    def __call__(self, images, masks, texts, seeds):
        """Dict of arrays for uint8 [B,S,S,3], bool [B,S,S], B texts and B seeds."""
        text_ids = np.stack([self.text_ids(text) for text in texts])
        seeds = np.array(seeds, np.uint32)
        return jax.device_get(self.run(self.weights, images, masks, text_ids, seeds))


def read_mask(path, size):
    """The mask as a grey picture of the photo's size; ValueError where it is none."""
    mask = Image.open(path)
    levels = np.asarray(mask.convert("L"))
    if mask.has_transparency_data or ((levels >= 32) & (levels < 224)).mean() > 0.25:
        raise ValueError(
            f"--mask {path} is transparent or of many tones; paint what may change in "
            "white on black"
        )
    if levels.max() < 128:
        raise ValueError(f"--mask {path} marks nothing; white (255) may change")
    return mask.convert("L").resize(size)


def save_together(out, sidecar, photo, info, details):
    """Both files, or none of them; the picture is there last."""
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=out.parent) as room:
        room = pathlib.Path(room)
        (room / sidecar.name).write_text(json.dumps(details, indent=2) + "\n")
        photo.save(room / out.name, pnginfo=info)
        for path in (sidecar, out):
            (room / path.name).rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("image", "mask", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--text", default="")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    if out.suffix.lower() != ".png":
        parser.error(f"--out {out} must end in .png, which is exact")
    sidecar = out.with_suffix(".json")
    for taken in (out, sidecar):
        if taken.exists():
            parser.error(f"{taken} exists; write to another name")
    try:  # before the program is loaded
        photo = ImageOps.exif_transpose(Image.open(options.image)).convert("RGB")
        mask = read_mask(options.mask, photo.size)
        out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    editor = Editor()
    count, size = editor.about["batch_size"], editor.about["size"]
    side = min(photo.size)
    x, y = (photo.width - side) // 2, (photo.height - side) // 2
    box = (x, y, x + side, y + side)
    # What is to be hidden has no share in the pixels beside it: RGBA is resized so.
    seen = photo.crop(box)
    seen.putalpha(mask.crop(box).point(lambda level: 255 * (level <= 127)))
    small = np.asarray(seen.resize((size, size), Image.Resampling.LANCZOS))[..., :3]
    inside = np.asarray(mask.crop(box).resize((size, size), Image.Resampling.BOX)) > 0
    found = editor(
        np.stack([small] * count),
        np.stack([inside] * count),
        [options.text] * count,
        [options.seed] * count,
    )
    drawn = Image.fromarray(found["images"][0]).resize((side, side))
    # Outside the mask every pixel stays the photo's own.
    photo.paste(drawn, box, mask.crop(box).point(lambda level: 255 * (level > 127)))
    details = {
        "file": out.name,
        **editor.about["details"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "text": options.text,
        "seed": options.seed,
        "mask": {"file": pathlib.Path(options.mask).name},
        "size": list(photo.size),
        "crop": list(box),
        "final_log_prob": float(found["final_log_prob"][0]),
    }
    info = PngImagePlugin.PngInfo()
    info.add_text("gptface_jax", json.dumps(details))
    info.add_text("Comment", "Edited by a generative model (gptface_jax)")
    info.add_itxt("XML:com.adobe.xmp", XMP)
    save_together(out, sidecar, photo, info, details)
    print(f"p(text matches) {np.exp(found['final_log_prob'][0]):.3f} -> {options.out}")


if __name__ == "__main__":
    main()
