"""Many clients of one page, and jobs that are killed again and again."""

import concurrent.futures
import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import simulated_devices
from PIL import Image

import gptface_jax
from gptface_jax.data.synthetic import SyntheticFaces

CLIENTS, REQUESTS = 20, 10  # 200 edits a round
CUT, DAMAGED = 18, 19  # clients
KEEP = 15  # seconds for which the page keeps files
REGIONS = ("mouth", "hair", "eyes", "nose", "hat")
JOBS, KILLS = 48, 12
HERE = pathlib.Path(__file__).parent


def encoded(pixels) -> bytes:
    with io.BytesIO() as data:
        Image.fromarray(pixels).save(data, "PNG")
        return data.getvalue()


class Client:
    """One of many: its own photo, and its own sentence and seed for each request."""

    def __init__(self, address: str, number: int):
        import httpx

        self.http = httpx.Client(base_url=f"{address}gradio_api/", timeout=300)
        self.number = number
        # Of a size of its own too: what reaches another client would not fit.
        size = 40 + 2 * number
        self.photo = SyntheticFaces(size=size, count=1, seed=number)[0].image

    def asked(self, request: int) -> dict:
        return {
            "text": f"a {('man', 'woman')[request % 2]} {self.number} {request}",
            "region": REGIONS[(self.number + request) % len(REGIONS)],
            "seed": 100 * self.number + request,
        }

    def upload(self, data: bytes) -> dict:
        sent = self.http.post("upload", files={"files": ("photo.png", data)})
        (path,) = sent.raise_for_status().json()
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def start(self, photo: dict, request: int) -> str:
        asked = self.asked(request)
        data = [photo, asked["text"], None, asked["region"], 1, 0, 64, asked["seed"], 1]
        answer = self.http.post("call/edit", json={"data": data})
        return f"call/edit/{answer.raise_for_status().json()['event_id']}"

    def edit(self, request: int) -> tuple[np.ndarray, dict]:
        """Picture and sidecar."""
        told = self.http.get(self.start(self.upload(encoded(self.photo)), request)).text
        assert "event: complete" in told, told
        (files,) = json.loads(told.rpartition("data: ")[2])
        got = [self.http.get(f"file={file['path']}").content for file in files]
        return np.asarray(Image.open(io.BytesIO(got[0]))), json.loads(got[2])

    def cut_off(self, request: int) -> None:
        """Goes away in the middle of the answer."""
        where = self.start(self.upload(encoded(self.photo)), request)
        with self.http.stream("GET", where):
            pass

    def damaged(self, request: int) -> str:
        """What is said to a file that is no picture."""
        good = encoded(self.photo)
        wrong = (good[: len(good) // 2], b"GIF89a", b"<html>", b"\0" * 9, good[::-1])
        photo = self.upload(wrong[request % len(wrong)])
        return self.http.get(self.start(photo, request)).text


def work(client: Client) -> list:
    """What came of a client's requests."""
    found = []
    for request in range(REQUESTS):
        if client.number == CUT and request >= REQUESTS // 2:
            client.cut_off(request)
        elif client.number == DAMAGED:
            found.append(client.damaged(request))
        else:
            found.append(client.edit(request))
    return found


def memory(process) -> float:
    """Resident, in MB."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def held(folder) -> list[str]:
    """Files that the page keeps."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads memory from /proc")
def test_200_edits_of_20_clients_at_once(tiny, tmp_path, capsys):
    pytest.importorskip("gradio")
    port = simulated_devices.free_port()
    script, model = HERE / "serve_for_a_drill.py", tiny / "model"
    arguments = (script, model, port, KEEP, tmp_path)
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http"), address
        Client(address, 0).edit(0)  # compiled
        rounds, files = [memory(process)], []
        start = time.monotonic()
        for _ in range(2):
            clients = [Client(address, number) for number in range(CLIENTS)]
            with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
                answers = list(pool.map(work, clients))
            files.append(len(held(tmp_path)))
            until = time.monotonic() + 4 * KEEP
            while held(tmp_path) and time.monotonic() < until:
                time.sleep(1)
            rounds.append(memory(process))
            files.append(len(held(tmp_path)))
        seconds = time.monotonic() - start
        here = gptface_jax.load(model)
        for client, found in zip(clients, answers):
            if client.number == DAMAGED:
                assert len(found) == REQUESTS
                for told in found:
                    assert "event: error" in told and "Traceback" not in told
                continue
            assert len(found) == (REQUESTS // 2 if client.number == CUT else REQUESTS)
            for request, (pixels, sidecar) in enumerate(found):
                asked = client.asked(request)
                assert (sidecar["text"], sidecar["seed"]) == (
                    asked["text"], asked["seed"]
                )  # fmt: skip
                same = here.edit(
                    client.photo, **asked, k=64, samples=1, cfg=1.0, guidance="none"
                )
                np.testing.assert_array_equal(pixels, np.asarray(same.image))
        with capsys.disabled():
            print(f"\nmemory {rounds} MB, files {files}, {seconds:.0f} s")
        assert process.poll() is None
        assert files[1] == files[3] == 0
        assert rounds[2] < rounds[1] + 20
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert not list(tmp_path.iterdir())


def started(host, port, folder, out):
    """One of two hosts with the same jobs."""
    code = "import sys; from gptface_jax.cli.main import main; sys.exit(main())"
    arguments = (
        "edit", "--jobs", folder / "jobs.jsonl", "--out", out, "--model",
        folder / "model", "--batch-size", 2, "--quiet", "--num-processes", 2,
        "--process-id", host, "--coordinator", f"127.0.0.1:{port}",
    )  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(out) -> dict[str, tuple[int, int]]:
    """Job -> which file it is, of those that a result tells of; each is told once."""
    found = {}
    for path in out.glob("results*.jsonl"):
        for line in path.read_text().split("\n")[:-1]:
            if not line.endswith("}"):
                continue  # torn by a kill
            row = json.loads(line)
            assert "error" not in row, row
            status = (out / row["file"]).stat()
            assert row["id"] not in found
            found[row["id"]] = (status.st_ino, status.st_mtime_ns)
    return found


@pytest.mark.slow
def test_jobs_of_two_hosts_killed_at_random_are_done_once(tiny, tmp_path, capsys):
    (tmp_path / "model").symlink_to(tiny / "model")
    faces = SyntheticFaces(size=40, count=JOBS, seed=3)
    lines = []
    for i in range(JOBS):
        Image.fromarray(faces[i].image).save(tmp_path / f"{i}.png")
        line = {"id": f"job{i}", "image": f"{i}.png", "text": "a man", "k": 2}
        lines.append(line | {"region": REGIONS[i % len(REGIONS)], "samples": 2})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "jobs.jsonl").write_text(text)
    rng, out, done, kills = random.Random(0), tmp_path / "out", {}, []
    out.mkdir()
    for attempt in range(100):
        port = simulated_devices.free_port()
        pair = [started(host, port, tmp_path, out) for host in range(2)]
        # A scheduler starts both again once one is gone.
        if len(kills) < KILLS:
            before, until = len(done), time.monotonic() + 120
            while len(finished_lines(out)) <= before and time.monotonic() < until:
                if all(p.poll() is not None for p in pair):
                    break
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 0.5))
            rng.shuffle(pair)
            for process in pair:
                process.kill()
                time.sleep(rng.uniform(0, 0.3))
        status = [process.wait(300) for process in pair]
        errors = [process.stderr.read() for process in pair]
        now = finished(out)
        # What was finished once is left as it is.
        assert done.items() <= now.items(), attempt
        killed = sum(s == -signal.SIGKILL for s in status)
        kills += [len(now)] * bool(killed)
        done = now
        if status == [0, 0]:
            break
        assert killed, errors
    with capsys.disabled():
        print(f"\nkilled after {kills} of {JOBS} jobs, {attempt + 1} starts")
    assert set(done) == {line["id"] for line in lines}
    left = {p.suffix for p in out.iterdir()}
    assert left <= {".png", ".json", ".jsonl"}, sorted(map(str, out.iterdir()))
    assert len(list(out.glob("*.png"))) == len(list(out.glob("job*.json"))) == JOBS
    model = gptface_jax.load(tiny / "model")
    alone = tmp_path / "alone"
    from gptface_jax.apps import batch

    jobs = batch.read_jobs(tmp_path / "jobs.jsonl", "edit", {})
    batch.run(model, jobs, alone, batch_size=2, progress=False)
    for job in jobs:
        ours, theirs = (Image.open(d / f"{job.name}.png") for d in (out, alone))
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def finished_lines(out) -> list[str]:
    """Lines of results that are whole."""
    paths = out.glob("results*.jsonl")
    return [x for p in paths for x in p.read_text().split("\n")[:-1] if x.endswith("}")]
