"""Networks of another project -> a model directory, for every verb to open.

gptface import --format taming last.ckpt --config model.yaml --out my_vqgan
gptface reconstruct --tokenizer my_vqgan --images my_photos --out grid.png

gptface import --format tencent talk2face.bin --config talk2face.json \\
    --tokenizer my_vqgan --vocab google_uncased_en_vocab.txt --frame frame.json \\
    --out my_talk2face
gptface ask --model my_talk2face --image photo.jpg --question age

gptface import --format faceptor checkpoint_rank0_iter_50000.pth.tar \\
    --config faceptor.json --out my_faceptor
gptface perceive --model my_faceptor --image photo.jpg --out seen.png

gptface import --format farl FaRL-Base-Patch16-LAIONFace20M-ep64.pth --out farl

taming: a VQModel or GumbelVQ of taming-transformers, or a Net2NetTransformer, which
contains one; as Lightning writes it (.ckpt), a plain state dict (.pt, .pth, .bin) or
.safetensors. `gptface export --format taming` is the way back.

tencent: a Talk2Face of TencentPretrain, with the VQGAN and the vocabulary that it was
trained with. The released script maps pixels to [-1,1] twice, so that its codes are of
pictures in [-3,1]: --pixel-map double does so, single does not. No checkpoint says
where in the training pictures faces are: `gptface faces --measure` finds it out on some
of them, and --frame is its file. Without, faces of photos are not looked for.

faceptor: a released Faceptor, of either stage, or a naive one. farl: the encoder of
pictures of a FaRL or CLIP ViT, for --config.init_from of configs/faceptor.

Nothing in a checkpoint is executed, and PyTorch is not needed. Every weight must find
its place: what belongs to the discriminator, the perceptual loss or the transformer of
a VQGAN's checkpoint is left aside and counted, anything else is an error.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _upright
from gptface_jax.core.errors import UserError

_TENCENT = ("tokenizer", "vocab", "pixel_map", "frame")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="the weights")
    parser.add_argument(
        "--format",
        required=True,
        choices=("taming", "tencent", "faceptor", "farl"),
        help="where it comes from",
    )
    parser.add_argument(
        "--config",
        dest="described",
        metavar="X.yaml",
        help="what came with it: a YAML with ddconfig, n_embed and embed_dim under "
        "model.params (or model.params.first_stage_config.params); of tencent a JSON "
        "with hidden_size, heads_num, layers_num, feedforward_size and vocab_size; of "
        "faceptor a JSON with backbone, decoder, recognition and tasks "
        "(docs/faceptor.md); of farl nothing",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="VQGAN",
        help="tencent: model directory, run or bundled name of the VQGAN of its codes",
    )
    parser.add_argument(
        "--vocab", help="tencent: vocab.txt, a folder with one, or a hub id"
    )
    parser.add_argument(
        "--pixel-map",
        choices=("double", "single", "clip_then_map"),
        help="tencent: what the VQGAN's encoder is given of a picture: double = "
        "[-3,1] as the released script does (default), single = [-1,1], "
        "clip_then_map = CLIP's normalisation and that mapping",
    )
    parser.add_argument(
        "--frame",
        metavar="FILE.json",
        help="tencent: where the training pictures show a face, by `gptface faces "
        "--measure`; without, the central square of a photo is taken as it is",
    )
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="new folder")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps import importing

    given = {k: v for k in _TENCENT if (v := getattr(options, k)) is not None}
    if options.format != "tencent":
        for name in given:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} is for --format tencent; leave it out")
    if (options.described is None) != (options.format == "farl"):
        needs = "is missing" if options.described is None else "is not for farl"
        raise UserError(f"--config {needs}; see --help")
    where = options.checkpoint, options.described, options.out
    if options.format == "tencent":
        for name in ("tokenizer", "vocab"):
            if name not in given:
                raise UserError(f"--{name} is missing; --format tencent needs it")
        if options.frame:
            given["frame"] = _upright.read_frame(options.frame)
    read = {
        "tencent": lambda: importing.import_tencent(*where, **given),
        "taming": lambda: importing.import_taming(*where),
        "faceptor": lambda: importing.import_faceptor(*where),
        "farl": lambda: importing.import_farl(options.checkpoint, options.out),
    }
    for line in read[options.format]():
        print(line)
    print(f"-> {options.out}")
