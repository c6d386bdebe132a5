"""A VQGAN of another project -> a model directory that every verb takes as tokenizer.

gptface import --format taming last.ckpt --config model.yaml --out my_vqgan
gptface reconstruct --tokenizer my_vqgan --images my_photos --out grid.png

The checkpoint is one of taming-transformers: of a VQModel or GumbelVQ, or of a
Net2NetTransformer, which contains one; as Lightning writes it (.ckpt), a plain state
dict (.pt, .pth, .bin) or .safetensors. Nothing in it is executed, and PyTorch is not
needed. Every weight must find its place: what belongs to the discriminator, the
perceptual loss or the transformer is left aside and counted, anything else is an error.
`gptface export --format taming` is the way back.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="the weights")
    parser.add_argument(
        "--format", required=True, choices=("taming",), help="where it comes from"
    )
    parser.add_argument(
        "--config",
        dest="yaml",
        metavar="X.yaml",
        required=True,
        help="the YAML that came with it: ddconfig, n_embed and embed_dim under "
        "model.params (or model.params.first_stage_config.params)",
    )
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="new folder")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps import importing

    for line in importing.import_taming(options.checkpoint, options.yaml, options.out):
        print(line)
    print(f"-> {options.out}")
