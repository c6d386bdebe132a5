"""The tabs Ask and Draw, of models that answer questions and draw faces."""

from __future__ import annotations

import pathlib

import gradio as gr
import numpy as np

from gptface_jax.apps.web.service import PROGRESS, Service, photo_input, shown_errors
from gptface_jax.apps.web.tabs import face_options
from gptface_jax.core.errors import UserError

_ALL = "everything it knows"
_QUESTIONS = 16  # at once
_DRAWN = 16


def ask(service: Service) -> None:
    """Questions about a photo, answered with a confidence, and a sentence."""
    known = service.model.learnt.questions
    names = [question.name for question in known]
    first = [q.name for q in known if q.key.label in ("Smiling", "expression")] or names
    with gr.Row():
        with gr.Column(min_width=320):
            face = gr.Number(0, precision=0, minimum=0, label="face", visible=False)
            photo = photo_input(service, "Photo", face, elem_id="asked")
            align = gr.Checkbox(
                True, label="Find faces", visible=service.finds_faces,
                info="otherwise the middle square is taken for an upright face",
            )  # fmt: skip
            questions = gr.Dropdown(
                [_ALL, *names], value=first[:1], multiselect=True, label="Questions",
                allow_custom_value=True, elem_id="questions",
                info="or in your own words, e.g. wearing a hat",
            )  # fmt: skip
            run = gr.Button("Ask", variant="primary", elem_id="ask")
            say = gr.Button("Sentence for the photo")
        with gr.Column(min_width=320):
            table = gr.Dataframe(
                headers=["question", "answer", "confidence"], interactive=False,
                label="Guesses by appearance, often wrong: no facts about a person",
                wrap=True, elem_id="answers",
            )  # fmt: skip
            looked = gr.Image(
                label="Where it looked for the first answer", interactive=False,
                height=280, elem_id="looked",
            )  # fmt: skip

    @shown_errors()
    def ask(photo, questions, face, align, progress=PROGRESS):
        photo, asked = service.photo(photo), list(questions or ())
        if not asked:
            raise UserError("there is no question; choose one or write your own")
        if len(asked) > _QUESTIONS:
            raise UserError(f"{len(asked)} questions; ask at most {_QUESTIONS} at once")
        say, where = service.wait(progress, "ask"), face_options(face, align)
        say(0, "looking at the photo")
        if _ALL in asked:
            found = service.model.answers(photo, **where)
            asked = [answer.question for answer in found]
        else:
            found = [service.model.ask(photo, words, **where) for words in asked]
        rows = [
            [
                a.question,
                a.text if a.value is not None else "none",
                _short(a.confidence),
            ]
            for a in found
        ]
        return rows, service.model.attention(photo, asked[0], **where)

    @shown_errors()
    def caption(photo, face, align, progress=PROGRESS):
        photo = service.photo(photo)
        service.wait(progress, "caption")(0, "writing a sentence")
        talker = service.model.ask.__self__  # not a GPTFace in front of it
        found = talker.caption(photo, **face_options(face, align))
        return [["a sentence", text, _short(chance)] for text, chance in found]

    chosen = [face, align]
    run.click(
        ask, [photo, questions, *chosen], [table, looked], api_name="ask",
        **service.busy,
    )  # fmt: skip
    say.click(
        caption, [photo, *chosen], table, api_visibility="private", **service.busy
    )


def draw(service: Service) -> None:
    """Faces out of nothing, after a sentence and attributes."""
    with gr.Row():
        with gr.Column(min_width=320):
            text = gr.Textbox(label="Sentence", elem_id="drawn-text")
            attributes = gr.Textbox(
                label="Attributes", placeholder="Smiling=true; Eyeglasses=false",
                elem_id="drawn-attributes",
            )  # fmt: skip
            count = gr.Slider(1, _DRAWN, 8, step=1, label="Faces")
            candidates = gr.Slider(
                1, 8, 1, step=1, label="Candidates a face, of which the best is kept"
            )
            warmth = gr.Slider(0, 2, 1, step=0.1, label="Temperature")
            seed = gr.Number(service.seed, precision=0, label="Seed")
            run = gr.Button("Draw", variant="primary", elem_id="draw")
        with gr.Column(min_width=320):
            shown = gr.Gallery(
                label="Drawn by the model", columns=4, object_fit="contain",
                interactive=False, elem_id="drawn",
            )  # fmt: skip
            files = gr.File(
                label="Sheet, sidecar", file_count="multiple", interactive=False
            )

    @shown_errors()
    def draw(text, attributes, count, warmth, seed, candidates, progress=PROGRESS):
        total = int(count) * int(candidates)
        service.wait(progress, "synthesize", total, warmth)(0, "drawing")
        drawn = service.model.synthesize(
            text, attributes, int(count), seed=seed, temperature=warmth,
            candidates=int(candidates),
        )  # fmt: skip
        for note in drawn.details.get("notes", ()):
            gr.Info(note)
        paths = drawn.save(pathlib.Path(service.folder(), "drawn.png"))
        return [np.asarray(image) for image in drawn], [str(path) for path in paths]

    run.click(
        draw, [text, attributes, count, warmth, seed, candidates], [shown, files],
        api_name="synthesize", **service.busy,
    )  # fmt: skip


def _short(chance: float) -> float:
    return round(chance, 3)
