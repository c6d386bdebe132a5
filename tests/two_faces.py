"""A photo of two faces, and the frame in which a model wants one."""

from __future__ import annotations

import pathlib

from PIL import Image

# Eyes, nose and corners of the mouth as shares of the side.
FRAME = ((0.37, 0.44), (0.63, 0.44), (0.5, 0.58), (0.39, 0.73), (0.62, 0.73))
_PHOTO = pathlib.Path(__file__).parents[1] / "gptface_jax/assets/astronaut.jpg"


def photo() -> Image.Image:
    """500 wide, 250 high; the larger face is on the right."""
    whole = Image.open(_PHOTO)
    page = Image.new("RGB", (500, 250), (90, 110, 100))
    for side, place in ((180, (20, 60)), (240, (250, 5))):
        page.paste(whole.resize((side, side), Image.Resampling.LANCZOS), place)
    return page
