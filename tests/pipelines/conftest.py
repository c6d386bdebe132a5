"""The face of the photograph that comes with the package."""

import pytest

from gptface_jax.pipelines import faces


@pytest.fixture(scope="session")
def face(astronaut):
    (found,) = faces.find(astronaut)
    return found
