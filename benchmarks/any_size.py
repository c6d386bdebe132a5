"""What tiles, bfloat16 and a chunked search change: quality and memory, not speed.

    python benchmarks/any_size.py --tokenizer runs/vqgan64 --images synthetic
    python benchmarks/any_size.py --tokenizer runs/vqgan64 --images my_photos

Tiles are tried on one large picture (the astronaut of the package, enlarged);
bfloat16 on `--images`, at the tokenizer's own resolution. Memory is what the compiled
program asks for besides its arguments.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from tables import aligned

from gptface_jax.apps.quickstart import ASTRONAUT
from gptface_jax.cli import _source
from gptface_jax.data import image, image_io, photo_batches, sources
from gptface_jax.experiments import opening
from gptface_jax.ops import quantize
from gptface_jax.pipelines import networks
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer

TILES = ((32, 0), (32, 8), (48, 8), (64, 8), (64, 16))


def tiles(network: networks.Network, side: int) -> str:
    vqgan = ImageTokenizer(network)
    ids = vqgan.encode(image.fit(image_io.decode(ASTRONAUT), side)[None])
    rows = [["tile", "overlap", "PSNR to whole", "largest, levels", "border gradient"]]
    for tile, overlap in TILES:
        if max(ids.shape[1:]) <= tile:
            continue
        effect = vqgan.tiling_effect(ids, tile, overlap)
        ratio = effect["border_gradient"] / effect["border_gradient_whole"]
        figures = f"{effect['psnr']:.1f}", f"{effect['largest']:.0f}", f"{ratio:.3f}"
        rows.append([str(tile), str(overlap), *figures])
    return aligned(rows)


def megabytes(function, *shapes) -> str:
    memory = jax.jit(function).lower(*shapes).compile().memory_analysis()
    return f"{memory.temp_size_in_bytes / 2**20:.0f}"


def memory(network: networks.Network) -> str:
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), network.params
    )

    def decode(params, ids):
        return network.module.apply({"params": params}, ids, method="decode")

    rows = [["program", "MiB"]]
    for side in (64, 128, 256):
        ids = jax.ShapeDtypeStruct((1, side, side), jnp.int32)
        rows.append([f"decode {side} x {side} tokens", megabytes(decode, params, ids)])
    z = jax.ShapeDtypeStruct((64, 441, 256), jnp.float32)
    codebook = jax.ShapeDtypeStruct((8192, 256), jnp.float32)

    def at_once(z, codebook):
        return jnp.argmin(quantize.distances(z, codebook), -1)

    what = "nearest of 8,192 codes for 64 x 441 latents"
    rows.append([f"{what}, all distances", megabytes(at_once, z, codebook)])
    rows.append([f"{what}, in chunks", megabytes(quantize.nearest, z, codebook)])
    return aligned(rows)


def agreement(network: networks.Network, spec: dict) -> str:
    """Share of positions where bfloat16 finds the code of float32."""
    full = ImageTokenizer(network, dtype="float32")
    half = ImageTokenizer(network, dtype="bfloat16")
    source, same = sources.open_source(spec), []
    size = network.config.resolution
    for _, photos in photo_batches.photo_batches(source, size, 32, progress=False):
        same.append(full.encode(photos) == half.encode(photos))
    same = np.concatenate(same)
    return f"{100 * same.mean():.2f} % of {same.size} codes of {len(same)} pictures"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", required=True, help="run or model directory")
    parser.add_argument("--side", type=int, default=1024, help="of the large picture")
    _source.add_arguments(parser)
    options = parser.parse_args(arguments)
    network = opening.open_network(options.tokenizer, "vqgan")
    print(f"decoding in tiles, {options.side} px\n{tiles(network, options.side)}\n")
    print(f"memory of temporaries\n{memory(network)}\n")
    same = agreement(network, _source.spec(options))
    print(f"bfloat16 finds the code of float32 at {same}")


if __name__ == "__main__":
    main()
