"""Records -> examples by which 3D faces are learnt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, image, schemes
from gptface_jax.data.record import Record
from gptface_jax.data.task_examples import TaskTransform
from gptface_jax.data.text import TextTokenizer
from gptface_jax.data.transforms import CaptionOptions, PaletteIds


@dataclasses.dataclass(frozen=True)
class FaceExample:
    """A picture with its landmarks, a text, and the head that it shows if it is known.

    {"image" float32 [S,S,3] in [-1,1], "landmarks" [68,2] (x, y) as shares of the side,
    "landmark_mask" [68], "known" [], the coefficients of `sizes`, float32, 0 where they
    are not known; "text_ids" int32 [m], and with a palette "image_ids" int32 [n]}.

    Attributes:
      size: S.
      tokenizer: of the text.
      max_text_tokens: m.
      sizes: entry of `Record.face3d` -> shape.
      model: digests of the face model whose coefficients they are.
      captions: how texts are made.
      palette: makes codes of colours, where no tokenizer does.
    """

    size: int
    tokenizer: TextTokenizer
    max_text_tokens: int
    sizes: Mapping[str, tuple[int, ...]]
    model: tuple[str, ...]
    captions: CaptionOptions = CaptionOptions()
    palette: PaletteIds | None = None

    def __call__(self, record: Record, rng: np.random.Generator) -> dict:
        empty = self.captions.empty_fraction
        text = ""
        if not (empty and rng.random() < empty):
            text = self.captions.text(record, rng)
        shown = geometry.squared(dataclasses.replace(record, parsing=None), self.size)
        points, mask = self._landmarks(shown)
        example = {
            "image": image.to_unit_range(shown.image),
            "landmarks": points,
            "landmark_mask": mask,
            "text_ids": self.tokenizer.encode([text], self.max_text_tokens)[0],
            **self._head(shown),
        }
        if self.palette is not None:
            example["image_ids"] = (
                self.palette.add(shown).image_ids.reshape(-1).astype(np.int32)
            )
        return example

    def _landmarks(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        points = record.landmarks
        if points is None:
            return np.zeros((68, 2), np.float32), np.zeros(68, np.float32)
        if len(points) != len(schemes.LANDMARKS["ibug68"]):
            raise UserError(
                f"record '{record.source}' has landmarks {list(points.shape)}; 3D "
                "faces are learnt by the 68 iBUG points: run `gptface prepare "
                "--landmarks`"
            )
        shares = np.float32((points + 0.5) / self.size)
        known = np.isfinite(shares).all(1)
        return np.where(known[:, None], shares, 0), known.astype(np.float32)

    def _head(self, record: Record) -> dict[str, np.ndarray]:
        head = record.face3d
        if head is None:
            none = {n: np.zeros(s, np.float32) for n, s in self.sizes.items()}
            return {"known": np.float32(0), **none}
        found = {name: np.asarray(head[name], np.float32) for name in self.sizes}
        wrong = [n for n, shape in self.sizes.items() if found[n].shape != shape]
        if wrong or head["model"] not in self.model:
            (modes,) = self.sizes["id_coeffs"]
            raise UserError(
                f"record '{record.source}' holds coefficients of face model "
                f"{head['model']} with {len(head['id_coeffs'])} modes of identity, not "
                f"of {self.model[0]} with {modes}; render faces with model= and "
                "max_vertices= of data.face_model and data.face_vertices, and "
                f"num_identity={modes}, or set model.faces.identity to the modes that "
                "the face model has"
            )
        return {"known": np.float32(1), **found}


@dataclasses.dataclass(frozen=True)
class AnswerExample:
    """A rendered face, and a sequence in which something about it is said.

    `sequences.assemble` of one of the tasks by chance, its number "task", and beside
    them coefficients and "image" or "image_ids" of `FaceExample`. The codes of picture
    and head are not known here: in their places stand code 0 and the task's tail.

    Attributes:
      face: of the picture and its head.
      tasks: about pictures; each as often as the others.
      grid: rows and columns of the picture's codes.
    """

    face: FaceExample
    tasks: tuple[TaskTransform, ...]
    grid: tuple[int, int]

    def __call__(self, record: Record, rng: np.random.Generator) -> dict:
        if record.face3d is None:
            raise UserError(
                f"a record of '{record.source}' holds no head, and answers end in one; "
                "give rendered faces"
            )
        shown = self.face(record, rng)
        kept = {"image", "image_ids", *self.face.sizes}
        if self.face.palette is not None:
            kept.discard("image")
        blank = np.zeros(self.grid, np.uint16)
        task = self.tasks[int(rng.integers(len(self.tasks)))]
        said = task(dataclasses.replace(record, image_ids=blank), rng)
        return {n: value for n, value in shown.items() if n in kept} | said
