"""How fast are pictures of heads: images a second and memory, against plain loops.

    python benchmarks/render.py                       # this machine's CPU
    python benchmarks/render.py --batch 256           # a GPU

Heads of the procedural face model, each with coefficients, pose and light of its own.
"picture" is `ops.render.render_head`, "gradient" the same with the gradient by all
coefficients. "XLA loop" and "numpy loop" find the visible triangles by the loop that
one writes first, one triangle after the other: over the whole picture in a compiled
loop, and over the triangle's bounding box in Python; "visible" is `rasterise`, which
does the same. All must agree. Memory is what XLA plans for temporaries.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import timing
from tables import aligned

from gptface_jax.data.facemodel import open_model
from gptface_jax.ops import morphable, render


def coefficients(basis, batch: int, seed: int = 0) -> dict[str, jax.Array]:
    """Heads of different people, turned by up to half a radian."""
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return jnp.asarray(rng.normal(0, scale, (batch, *shape)), jnp.float32)

    return {
        "id_coeffs": normal(len(basis["identity"])),
        "exp_coeffs": jnp.abs(normal(len(basis["expression"]), scale=0.2)),
        "albedo_coeffs": normal(len(basis["albedo"])),
        "sh_light": render.ambient() + normal(9, 3, scale=0.1),
        "pose": normal(6, scale=0.1),
    }


def xla_loop(projection, triangles, size: int) -> jax.Array:
    """int32 [B,S,S] by a compiled loop over triangles."""
    x = jnp.arange(size, dtype=jnp.float32)

    def one(places, near):
        def step(number, carry):
            best, shown = carry
            corner, depth = places[triangles[number]], near[triangles[number]]
            away = corner - jnp.stack(jnp.meshgrid(x, x), -1)[:, :, None]
            u, v = jnp.roll(away, -1, 2), jnp.roll(away, -2, 2)
            parts = v[..., 0] * u[..., 1] - u[..., 0] * v[..., 1]
            area = jnp.sum(parts, -1)
            here = jnp.all(parts >= 0, -1) & (area > 1e-9)
            nearness = jnp.sum(parts * depth, -1) / jnp.where(here, area, 1.0)
            better = here & (nearness > best)
            return jnp.where(better, nearness, best), jnp.where(better, number, shown)

        start = jnp.full((size, size), -jnp.inf), jnp.full((size, size), -1, jnp.int32)
        return jax.lax.fori_loop(0, len(triangles), step, start)[1]

    return jax.lax.map(
        lambda pair: one(*pair), (projection.places, projection.nearness)
    )


def numpy_loop(places, near, triangles, size: int) -> np.ndarray:
    """int [S,S] of one picture by a loop over triangles in Python."""
    best = np.full((size, size), -np.inf)
    shown = np.full((size, size), -1)
    for number, triangle in enumerate(triangles):
        (ax, ay), (bx, by), (cx, cy) = places[triangle]
        area = (cx - ax) * (by - ay) - (bx - ax) * (cy - ay)
        x0, x1 = max(0, np.ceil(min(ax, bx, cx))), min(size - 1, max(ax, bx, cx))
        y0, y1 = max(0, np.ceil(min(ay, by, cy))), min(size - 1, max(ay, by, cy))
        if area <= 1e-9 or x0 > x1 or y0 > y1:
            continue
        ys, xs = np.mgrid[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
        a = (cx - xs) * (by - ys) - (bx - xs) * (cy - ys)
        b = (ax - xs) * (cy - ys) - (cx - xs) * (ay - ys)
        c = area - a - b
        depth = (
            a * near[triangle[0]] + b * near[triangle[1]] + c * near[triangle[2]]
        ) / area
        window = best[ys, xs]
        better = (a >= 0) & (b >= 0) & (c >= 0) & (depth > window)
        best[ys, xs] = np.where(better, depth, window)
        shown[ys, xs] = np.where(better, number, shown[ys, xs])
    return shown


def measured(size: int, batch: int, vertices: int, repeats: int) -> list[list[str]]:
    """Rows of the table for one size of pictures."""
    model = open_model(max_vertices=vertices)
    basis = {name: jnp.asarray(getattr(model, name)) for name in morphable.ARRAYS}
    coeffs = coefficients(basis, batch)
    triangles = basis["triangles"]

    def projected(coeffs):
        heads = morphable.vertices(basis, coeffs["id_coeffs"], coeffs["exp_coeffs"])
        return render.project(heads, coeffs["pose"], size)

    def picture(coeffs):
        return render.render_head(basis, coeffs, size).colour

    programs = {
        "picture": picture,
        "gradient": jax.grad(lambda c: jnp.sum(picture(c) ** 2)),
        "visible": lambda c: render.rasterise(projected(c), triangles, size),
        "XLA loop": lambda c: xla_loop(projected(c), triangles, size),
    }
    compiled = {
        name: jax.jit(program).lower(coeffs).compile()
        for name, program in programs.items()
    }
    places, near, _ = (np.asarray(x) for x in projected(coeffs))
    plain = np.asarray(triangles)
    shown = np.asarray(compiled["visible"](coeffs))
    for name, other in (
        ("XLA loop", np.asarray(compiled["XLA loop"](coeffs))),
        ("numpy loop", numpy_loop(places[0], near[0], plain, size)[None]),
    ):
        differ = np.mean(shown[: len(other)] != other)
        if differ > 2e-3:
            raise SystemExit(f"{name} differs in {differ:.4f} of the pixels")
    functions = {
        name: lambda program=program: jax.block_until_ready(program(coeffs))
        for name, program in compiled.items()
    }
    functions["numpy loop"] = lambda: numpy_loop(places[0], near[0], plain, size)
    spent = timing.interleaved(functions, repeats)
    rows = []
    for name, seconds in spent.items():
        images = 1 if name == "numpy loop" else batch
        memory = "-"
        if name in compiled:
            memory = (
                f"{compiled[name].memory_analysis().temp_size_in_bytes / 2**20:.1f}"
            )
        rows.append(
            [f"{size} px, {name}", f"{images / seconds:.1f}", memory, str(len(plain))]
        )
    return rows


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch", type=int, default=8, help="pictures at a time")
    parser.add_argument(
        "--vertices", type=int, default=0, help="budget of the mesh; default all"
    )
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    rows = [["", "images/s", "MiB", "triangles"]]
    for size in options.size:
        rows += measured(size, options.batch, options.vertices, options.repeats)
    print(aligned(rows))


if __name__ == "__main__":
    main()
