"""Requests of the API of `gptface serve` by name, and those that make no sense."""

import inspect
import io
import socket

import numpy as np
import page_models
import pytest
from PIL import Image

from gptface_jax.core.errors import UserError

pytest.importorskip("gradio")
import gradio as gr  # noqa: E402
import httpx  # noqa: E402
from starlette import applications, responses, routing, testclient  # noqa: E402

from gptface_jax.apps.web import hosts, page, refusals, server, service  # noqa: E402

MARK = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def api():
    """Answers of a server: (verb, body) -> (status, text)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with server.serving(page_models.Sees(), port=port) as address:
        calls = f"{address}gradio_api/call"

        def asked(verb, body):
            answer = httpx.post(f"{calls}/v2/{verb}", json=body)
            if answer.status_code != 200:
                return answer.status_code, answer.text
            event = answer.json()["event_id"]
            answer = httpx.get(f"{calls}/{verb}/{event}", timeout=60)
            return answer.status_code, answer.text

        asked.upload = f"{address}gradio_api/upload"
        yield asked


@pytest.fixture(scope="module")
def photo(api):
    file = io.BytesIO()
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(file, "png")
    (path,) = httpx.post(api.upload, files={"files": file.getvalue()}).json()
    return {"path": path, **MARK}


def test_names_that_others_gave_this_address_are_refused(api):
    for host, status in (
        ("edit.example", 400), ("127.0.0.1.example:7860", 400), ("localhost:1", 200),
        ("[::1]:7860", 200), ("", 400),
    ):  # fmt: skip
        answer = httpx.post(api.upload, files={"files": b"x"}, headers={"host": host})
        assert answer.status_code == status, host
    for host, other in (("localhost", 400), ("127.0.0.2", 400), ("0.0.0.0", 200)):
        middleware = [hosts.checked(host)]
        there = applications.Starlette(
            routes=[routing.Route("/", lambda request: responses.Response())],
            middleware=middleware,
        )
        for name in (host, "edit.example"):
            answer = testclient.TestClient(there, f"http://{name}").get("/")
            assert answer.status_code == (200 if name == host else other)


def test_what_is_not_named_is_as_the_page_begins(api, photo):
    status, said = api("perceive", {"photo": photo})
    assert status == 200 and "event: complete" in said and "happiness" in said
    assert "there is no photo yet" in api("perceive", {})[1]


@pytest.mark.parametrize(
    "verb,body,status,said",
    [
        ("perceve", {}, 404, "there is no 'perceve' (did you mean 'perceive'?)"),
        ("perceive", {"foto": 1}, 400, "no argument 'foto' (did you mean 'photo'?)"),
        ("perceive", {"photo": "photo.jpg"}, 200, "photo is 'photo.jpg'; give {'path"),
        ("perceive", {"photo": {"path": "/etc/passwd"}}, 200, "; give {'path'"),
        ("perceive", {"face": -1}, 200, "face is -1; use 0 or more"),
        ("perceive", {"face": "two"}, 200, "face is 'two'; give a whole number"),
        ("perceive", {"align": "yes"}, 200, "align is 'yes'; give"),
    ],
)
def test_what_makes_no_sense_is_answered_in_a_line(
    api, verb, body, status, said, capfd
):
    assert api(verb, body)[0] == status
    assert said in api(verb, body)[1]
    assert "Traceback" not in capfd.readouterr().err


def test_values_keep_to_ranges_and_choices():
    def function(share, kind, *rest):
        """Takes two values by name."""

    blocks = [gr.Slider(0, 1, 0.5), gr.Radio(["a", "b"], value="b"), gr.Number(3)]
    for given in ([0.2, "a", 1], [0.2, "a", 1, "more"]):
        assert refusals.of_their_types(function, blocks, given) == given
    assert refusals.of_their_types(function, blocks, [None] * 3) == [0.5, "b", 3]
    for given, said in (
        ([2, "a", 1], "share is 2; use 0 to 1"),
        ([0, "c", 1], "kind is 'c'; use a, b"),
        ([0, ["a"], 1], r"kind is \['a'\]; use a, b"),
    ):
        with pytest.raises(UserError, match=said):
            refusals.of_their_types(function, blocks, given)


def test_a_text_that_no_answer_could_repeat_is_refused():
    with pytest.raises(UserError, match=r"text is 'a\\ud800'; give Unicode"):
        refusals.of_its_type(gr.Textbox(), "a\ud800", "text")
    assert refusals.of_its_type(gr.Textbox(), "\u5973\n", "text") == "\u5973\n"


def test_one_of_several_choices_needs_no_list():
    block = gr.Dropdown(["a", "b"], value=["b"], multiselect=True)
    for given, meant in (("a", ["a"]), (["a", "b"], ["a", "b"]), (None, ["b"])):
        assert refusals.of_its_type(block, given, "asked") == meant
    for given in (3, ["a", 3]):
        with pytest.raises(UserError, match="asked is .*; give"):
            refusals.of_its_type(block, given, "asked")


def test_names_of_the_api_are_those_of_errors():
    """Those that gradio takes from a function are its arguments."""
    built = page.build(service.Service(page_models.Sees(), 0, 10**6, 1, ""))
    (named,) = built.get_api_info()["named_endpoints"].values()
    (event,) = (f for f in built.fns.values() if f.api_name == "perceive")
    names = [p["parameter_name"] for p in named["parameters"]]
    assert names == [*inspect.signature(event.fn).parameters][: len(names)]
