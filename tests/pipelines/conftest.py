"""The public-domain photograph that comes with the package."""

import pathlib

import numpy as np
import pytest
from PIL import Image

import gptface_jax
from gptface_jax.pipelines import faces


@pytest.fixture(scope="session")
def astronaut():
    """uint8 [512,512,3]: a face near (224, 125), about 100 pixels wide."""
    path = pathlib.Path(gptface_jax.__file__).parent / "assets" / "astronaut.jpg"
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="session")
def face(astronaut):
    (found,) = faces.find(astronaut)
    return found
