"""The page of `gptface serve --rate`: what it asks, and what it keeps."""

import io
import json
import os
import re
import shutil
import signal
import socket

import numpy as np
import pytest
from PIL import Image

from gptface_jax.apps import rated
from gptface_jax.cli import serve
from gptface_jax.core.errors import UserError
from gptface_jax.data import ratings

pytest.importorskip("uvicorn")
import httpx  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from gptface_jax.apps.web import rating  # noqa: E402


def picture(path, value, **info):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path, **info)


def results(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row) for row in rows)
    (folder / "results.jsonl").write_text("".join(line + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path):
    """Two systems' edits of a photograph, two systems' words of another one."""
    root = tmp_path / "study"
    picture(root / "photos" / "a.jpg", 10)
    picture(root / "photos" / "b.png", 20)
    for value, name in ((30, "ours"), (40, "other")):
        picture(root / name / "a.png", value)
        picture(root / name / "a.strip.png", value)  # is not asked about
        source = {"source": {"image": "a.jpg"}, "text": "a hat"}
        results(root / name, {"id": "a", "file": "a.png", **source})
    (root / "ours" / "a.json").write_text('{"edited": true, "strength": {"Male": -2}}')
    picture(root / "real" / "c.png", 50)
    for name, words in (("tags1", ("hat", "man", "hat")), ("tags2", ("man", "old"))):
        found = [{"word": word, "score": 0.5} for word in words]
        row = {"id": "b", "source": {"image": "b.png"}, "found": found}
        results(root / name, row, {"id": "x", "error": "no picture"})
    return root


def test_questions_of_a_folder(folder):
    found = {ratings.question_key(q.row): q for q in rated.questions(folder)}
    ours, real = found["edit", "ours", "a"], found["edit", "real", "c"]
    assert (ours.text, ours.asked) == ("a hat, Male -2", ("quality", "agreement"))
    assert [p.name for p in ours.pictures] == ["a.jpg", "a.png"]
    assert (real.text, real.asked, len(real.pictures)) == ("", ("quality",), 1)
    words = {place[2]: q.row for place, q in found.items() if place[0] == "tag"}
    assert words["hat"]["ranks"] == {"tags1": 1} and words["old"]["words"] == 3
    assert words["man"]["ranks"] == {"tags1": 2, "tags2": 1}
    assert len(found) == 6
    orders = [
        [q.token for q in rated.in_order(list(found.values()), name)]
        for name in ("ann", "ann", "bob", "eve", "joe")
    ]
    assert orders[0] == orders[1] and len(set(map(tuple, orders))) > 2
    for order in orders:  # words of a photograph follow each other
        tags = [i for i, t in enumerate(order) if t in {q.token for q in
                rated.questions(folder) if q.row["kind"] == "tag"}]  # fmt: skip
        assert tags[-1] - tags[0] == 2


def test_a_folder_without_anything_to_rate(tmp_path):
    for root, said in ((tmp_path / "no", "is no folder"), (tmp_path, "nothing to")):
        with pytest.raises(UserError, match=said):
            rated.questions(root)
    # A photograph outside is not shown.
    picture(tmp_path.parent / "secret.png", 9)
    source = {"image": f"../{'secret.png'}"}
    results(tmp_path / "ours", {"id": "b", "source": source, "found": [{"word": "x"}]})
    with pytest.raises(UserError, match="'../secret.png' is not in"):
        rated.questions(tmp_path)


def test_answers_are_kept_apart_and_a_rater_goes_on(folder):
    client = TestClient(rating.application(rating.RatingService(folder)))
    page = client.get("/")
    assert "script-src" in page.headers["content-security-policy"]
    listed = client.get("/questions", params={"rater": "Ann"}).json()
    assert len(listed) == 6 and not any(q["answers"] for q in listed)
    told = json.dumps(listed)
    assert not any(name in told for name in ("ours", "other", "tags1", ".png"))
    for url in {url for q in listed for url in q["pictures"]}:
        with Image.open(io.BytesIO(client.get(f"/{url}").content)) as shown:
            assert shown.size == (8, 8) and not shown.info
    assert client.get("/pictures/0").status_code == 404

    def send(rater, question, answers):
        body = {"rater": rater, "question": question, "answers": answers}
        return client.post("/answers", json=body)

    for number, question in enumerate(listed[:4]):
        middle = {name: high - 1 for name, (_, high) in question["scales"].items()}
        assert send("Ann", question["question"], middle).json() == {"kept": True}
        if number == 0:  # changes a mind
            lowest = {name: low for name, (low, _) in question["scales"].items()}
            send("ann ", question["question"], lowest)
    again = client.get("/questions", params={"rater": "ANN"}).json()
    assert [q["question"] for q in again] == [q["question"] for q in listed]
    assert [bool(q["answers"]) for q in again] == [True] * 4 + [False] * 2
    assert again[0]["answers"] == lowest
    other = client.get("/questions", params={"rater": "bob"}).json()
    assert not any(q["answers"] for q in other)
    rows = ratings.read([folder])
    assert len(rows) == 4 and {row["rater"] for row in rows} == {"ann"}

    one = next(q for q in listed if "agreement" in q["scales"])["question"]
    for answers in ({}, {"quality": 3}, {"quality": 6, "agreement": 1}, None):
        assert send("ann", one, answers).status_code == 400
    assert send("ann", "0", {"quality": 3}).status_code == 400
    assert send("../x", one, {"quality": 3, "agreement": 3}).status_code == 400
    text = json.dumps({"rater": "ann"})
    assert client.post("/answers", content=text).status_code == 400
    large = client.post("/answers", json={"rater": "a" * 20_000})
    assert "at most 10000 bytes" in large.json()["detail"]
    assert len(ratings.read([folder])) == 4
    assert client.get("/questions", params={"rater": "a/b"}).status_code == 400


def test_the_commands(folder, gptface_command, monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *given: None)

    def wait():
        address = re.search(r"6 questions: open (\S+)", capsys.readouterr().out)[1]
        listed = httpx.get(f"{address}questions?rater=ann").json()
        for question in listed:
            answers = {name: high for name, (_, high) in question["scales"].items()}
            body = {"rater": "ann", "question": question["question"]}
            httpx.post(f"{address}answers", json={**body, "answers": answers})
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "wait", wait)
    assert gptface_command("serve", "--rate", folder, "--port", free_port()) == 130
    out = folder / "figures.json"
    assert gptface_command("evaluate", "ratings", folder, "--out", out) == 0
    table = capsys.readouterr().out.splitlines()
    assert "| ours | 1 | 5.00 | 5.00 |" in table and "| real | 1 | 5.00 |  |" in table
    assert json.loads(out.read_text())["tag"]["tags1"]["ndcg@5"]["mean"] < 1
    # A system that comes later has the ranks that it has, without anybody asked anew.
    words = [{"word": word} for word in ("man", "hat", "old")]
    source = {"source": {"image": "b.png"}, "found": words}
    results(folder / "late", {"id": "b", **source})
    assert gptface_command("evaluate", "ratings", folder, "--out", out) == 0
    capsys.readouterr()
    assert json.loads(out.read_text())["tag"]["late"]["ndcg@5"]["mean"] == 1
    assert gptface_command("evaluate", "ratings", folder / "photos") == 2
    assert "holds no ratings yet" in capsys.readouterr().err


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_one_server_a_folder(folder):
    port = free_port()
    with rating.serving(folder, port=port) as (address, count):
        assert count == 6 and httpx.get(address).status_code == 200
        # A name of another site that points here.
        told = httpx.get(address, headers={"host": f"study.example:{port}"})
        assert told.status_code == 400 and "Invalid host" in told.text
        with pytest.raises(UserError, match="open the page that is there"):
            with rating.serving(folder, port=port):
                pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be had"):
            with rating.serving(folder, port=port):
                pass
    with pytest.raises(UserError, match="port is 99999; give"):
        with rating.serving(folder, port=99999):
            pass
    assert [p.name for p in (folder / "ratings").glob("*")] == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_keys_answer_and_a_rater_goes_on_in_a_browser(folder, width):
    api = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("GPTFACE_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on PATH and none named by GPTFACE_CHROMIUM")
    with (
        rating.serving(folder, port=free_port()) as (address, count),
        api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )
        complaints = []

        def begin():
            page = browser.new_page(viewport={"width": width, "height": 844})
            page.set_default_timeout(20_000)
            page.on("console", lambda said: complaints.append(said.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(address)
            page.fill("#rater", "ann")
            page.keyboard.press("Enter")
            page.wait_for_selector("#rating:not([hidden])")
            return page

        def answer(page, key):
            """Rates what is shown by the same key, until it is kept."""
            done = int(page.inner_text("#count").split()[0])
            for _ in range(page.locator("fieldset").count()):
                page.keyboard.press(key)
            if done + 1 < count:
                page.wait_for_selector(f"text={done + 1} of {count} rated")
            else:
                page.wait_for_selector("#end:not([hidden])")

        page = begin()
        page.keyboard.press("9")  # beyond every scale
        for _ in range(2):
            answer(page, "2")
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("button.chosen")
        # A mind is changed.
        with page.expect_response("**/answers"):
            for _ in range(page.locator("fieldset").count()):
                page.keyboard.press("1")
        page.close()
        page = begin()
        page.wait_for_selector(f"text=2 of {count} rated")
        root = "document.documentElement"
        assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
        for _ in range(count - 2):
            answer(page, "2")
        browser.close()
    assert complaints == []
    rows = ratings.read([folder])
    values = [row[name] for row in rows for name in row if name in
              ("quality", "agreement", "grade")]  # fmt: skip
    assert len(rows) == count and set(values) <= {1, 2} and 1 in values
