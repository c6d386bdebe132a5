"""BlazeFace and the face mesh against outputs of the originals."""

import jax
import numpy as np
import pytest

from gptface_jax.core import trees
from gptface_jax.interop import mediapipe
from gptface_jax.nn import face_finder


def test_anchors_are_the_middles_of_their_cells():
    anchors = face_finder.anchors(128, 128)
    assert anchors.shape == (896, 2)
    # Two in a cell of 8 pixels, raster order; six in a cell of 16 from 2 * 16 * 16 on.
    np.testing.assert_array_equal(anchors[:4], [[4, 4], [4, 4], [12, 4], [12, 4]])
    np.testing.assert_array_equal(anchors[2 * 16], [4, 12])
    np.testing.assert_array_equal(anchors[512:519], [[8, 8]] * 6 + [[24, 8]])
    np.testing.assert_array_equal(anchors[-1], [120, 120])


def test_a_wider_canvas_has_more_anchors():
    boxes, logits = jax.eval_shape(
        lambda images: face_finder.BlazeFace().init_with_output(
            jax.random.key(0), images
        )[0],
        jax.ShapeDtypeStruct((2, 64, 96, 3), np.float32),
    )
    count = len(face_finder.anchors(64, 96))
    assert boxes.shape == (2, count, 16) and logits.shape == (2, count)
    assert count == 2 * 8 * 12 + 6 * 4 * 6


def test_parameter_paths_are_public():
    paths = trees.flatten(mediapipe.shapes("blazeface"))
    assert len(paths) == 2 + 16 * 4 + 4 * 2
    assert {"stem/kernel", "fine_0/depthwise/kernel", "coarse_logits/bias"} <= set(
        paths
    )
    paths = trees.flatten(mediapipe.shapes("face_mesh"))
    assert {"trunk_13/act/slope", "points_2/pointwise/bias", "presence_out/kernel"} <= (
        set(paths)
    )


@pytest.mark.shared
def test_parity_with_the_originals(shared):
    golden = np.load(shared / "models" / "face_finding_golden.npz")
    detector = face_finder.BlazeFace()
    pixels = golden["detector_input"].astype(np.float32) / 127.5 - 1
    params = {"params": mediapipe.read("blazeface")}
    boxes, logits = jax.jit(detector.apply)(params, pixels)
    wanted = golden["detector_boxes"]
    np.testing.assert_allclose(boxes, wanted, atol=1e-4 * np.ptp(wanted))
    wanted = golden["detector_scores"][..., 0]
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * np.ptp(wanted))

    pixels = golden["mesh_input"].astype(np.float32) / 255
    params = {"params": mediapipe.read("face_mesh")}
    points, presence = jax.jit(face_finder.FaceMesh().apply)(params, pixels)
    np.testing.assert_allclose(points, golden["mesh_points"], atol=0.02)  # pixels
    np.testing.assert_allclose(presence, golden["mesh_presence"], atol=0.02)
