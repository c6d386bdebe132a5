"""What all tabs share: the model, its limits, and how errors are shown."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from typing import Any

import gradio as gr
from PIL import Image

from gptface_jax.apps.web import faces, work
from gptface_jax.core.errors import UserError
from gptface_jax.data import photo as photos
from gptface_jax.pipelines import provenance
from gptface_jax.pipelines.perception import PerceptionModel

PROGRESS = gr.Progress()  # as a default it stands for the one of the request


@dataclasses.dataclass(frozen=True)
class Service:
    """The model that answers all requests, with the limits of each.

    Attributes:
      model: what `apps.api.load` opened; answers every request.
      seed: where the page begins.
      max_pixels: of a photo.
      concurrency: requests that the model answers at the same time.
      files: folder of what is handed out; it goes with the server.
      compiled: kinds of requests that were answered before.
    """

    model: Any
    seed: int
    max_pixels: int
    concurrency: int
    files: str
    compiled: set[Any] = dataclasses.field(default_factory=set)

    @property
    def busy(self) -> dict[str, Any]:
        """Options of an event that needs the model: all such events share one queue."""
        return {"concurrency_id": "model", "concurrency_limit": self.concurrency}

    @property
    def finds_faces(self) -> bool:
        """Whether faces can be found and brought to where the model wants them."""
        return self.model.frame is not None

    @property
    def perception(self) -> PerceptionModel | None:
        """The model that perceives, this one or one beside it; None for none."""
        return getattr(getattr(self.model, "perceive", None), "__self__", None)

    @property
    def sees_regions(self) -> bool:
        """Whether regions can be seen in a photo, besides by the mesh of its face."""
        return self.perception is not None and self.perception.predicts_parsing

    @property
    def whose(self) -> str:
        """Words for the form: which face the named regions are of."""
        if self.finds_faces:
            return "of the face"
        return "of an upright face that fills the middle square"

    def photo(self, data: bytes | None, name: str = "photo") -> Image.Image:
        """The photo of an upload, upright.

        It keeps the record of earlier edits and all metadata but the location.

        Raises:
          UserError: nothing was uploaded, or no picture.
        """
        if data is None:
            raise UserError(f"there is no {name} yet; upload one")
        photo = photos.read(data, self.max_pixels).as_stored()
        if earlier := provenance.details_of(data):
            photo.info["xmp"] = provenance.packet(earlier)
        return photo

    def opened(
        self, photo: work.Photo, align: bool, progress: gr.Progress
    ) -> faces.Opened:
        """A photo with its faces, see `faces.opened`; notes on them are shown."""
        if align and self.finds_faces:
            self.wait(progress, "faces")(0, "looking for faces")
        found = faces.opened(self.model, photo, align)
        for note in faces.notes(found):
            gr.Info(note)
        return found

    def folder(self) -> str:
        """A new folder among the files."""
        return tempfile.mkdtemp(prefix="made-", dir=self.files)

    def wait(self, progress: gr.Progress, *kind: Any) -> Any:
        """A `work.Say` for a kind of request, which is compiled the first time."""
        first = kind not in self.compiled
        self.compiled.add(kind)

        def say(share: float, what: str) -> None:
            compiling = first and share == 0
            note = "; the first with these options is compiled, up to a minute"
            progress(share, desc=what + (note if compiling else ""))

        return say


@contextlib.contextmanager
def shown_errors():
    """Context, or decorator, that shows a `UserError` as its one line of text.

    Without it gradio would show the name of the exception and print a traceback.
    """
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def photo_input(
    service: Service, label: str, face: gr.Number | None = None, **options: Any
) -> gr.File:
    """An upload that shows the photo, or at once an error where it is none.

    Args:
      service: its limits.
      label: above the upload.
      face: takes the number of the face that is clicked, 0 where there is no choice;
        without it none are looked for.
      **options: of the upload.
    """
    upload = gr.File(
        label=label, type="binary", file_types=["image"], height=140, **options
    )
    seen = gr.Image(
        visible=False, height=250, interactive=False, buttons=[],
        label="Faces: click the one to look at",
    )  # fmt: skip
    opened = gr.State()

    def shown(photo):
        picture = gr.Image(
            faces.outlined(photo), visible=True, show_label=photo.several,
            elem_classes="below-label" if photo.several else None,
        )  # fmt: skip
        return [picture, photo, photo.number or 0][: len(parts)]

    @shown_errors()
    def show(data, progress=PROGRESS):
        return shown(service.opened(service.photo(data), face is not None, progress))

    def clear():
        return [gr.Image(None, visible=False), None, 0][: len(parts)]

    def choose(opened, event: gr.SelectData):
        return shown(opened.at(event.index))

    parts = [seen, opened] if face is None else [seen, opened, face]
    upload.upload(
        show, upload, parts, show_progress_on=upload, api_visibility="private"
    )  # the picture may be hidden
    upload.clear(clear, None, parts, api_visibility="private")
    if face is not None:
        seen.select(choose, opened, parts, api_visibility="private")
    return upload
