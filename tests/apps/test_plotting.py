import json

import numpy as np
import pytest

from gptface_jax.apps import plotting
from gptface_jax.core.errors import UserError

pytest.importorskip("matplotlib")


def log(folder, rows):
    folder.mkdir()
    lines = [json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 9, "lo']))
    return folder


@pytest.fixture
def runs(tmp_path):
    first = [{"step": s, "loss": 4.0 / s, "lr": 0.1} for s in (1, 2, 4)]
    first += [{"step": 4, "eval/loss": 3.0, "eval/psnr": float("nan")}]
    first += [{"step": 4, "rewound_from": 6, "skipped": "loss is nan"}]
    a = log(tmp_path / "a", first)
    b = log(tmp_path / "b", [{"step": 1, "eval/psnr": 20.0}])
    return [a, b]


def test_what_is_finite_is_read_and_half_a_line_passed_over(runs):
    found = plotting.read_log(runs[0])
    assert set(found) == {"loss", "lr", "eval/loss"}
    steps, values = found["loss"]
    assert steps.tolist() == [1, 2, 4] and values.tolist() == [4.0, 2.0, 1.0]


def test_panels_join_training_and_held_out():
    names = ["psnr", "loss", "eval/loss", "eval/itm_40", "lr"]
    assert plotting.panels(names) == ["loss", "lr", "itm_40", "psnr"]
    assert plotting.panels(names, ["itm_*", "eval/loss"]) == ["itm_40", "loss"]
    with pytest.raises(UserError, match="no run logs 'los'.*did you mean 'loss'"):
        plotting.panels(names, ["los"])


def test_the_shares_of_time_are_one_panel(tmp_path):
    names = ["loss", "time/step", "time/input", "seconds"]
    assert plotting.panels(names[:-1]) == ["loss", "time"]
    rows = [
        {"step": 1, "loss": 2.0, "seconds": 9.0, "time/step": 0.2, "time/compile": 0.8},
        {"step": 2, "loss": 1.0, "seconds": 1.0, "time/step": 0.9, "time/input": 0.1},
        {"step": 3, "loss": 1.0, "seconds": 1.0, "time/step": 1.0},
    ]
    log = tmp_path / "metrics.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)))
    run = plotting.read_log(log)
    assert "seconds" not in run
    for runs in ({"a": run}, {"a": run, "b": run}):
        assert plotting.plot(runs, tmp_path / "t.png") == ["loss", "time"]
    assert (tmp_path / "t.png").is_file()


def test_smoothing_by_hand():
    values = np.array([1.0, 3.0, 5.0, 7.0])
    assert plotting.smoothed(values, 1).tolist() == values.tolist()
    assert plotting.smoothed(values, 2).tolist() == [1.0, 2.0, 4.0, 6.0]
    assert plotting.smoothed(values, 9).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_labels_leave_out_the_shared_folders():
    assert plotting.labels(["runs/a/x", "runs/b/x"]) == ["a/x", "b/x"]
    assert plotting.labels(["runs/a"]) == ["a"]


def test_the_command_draws_and_prints(runs, tmp_path, gptface_command, capsys):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "pictures" / "c.png"
    assert gptface_command("plot", *runs, tmp_path / "empty", "--out", out) == 0
    said = capsys.readouterr()
    assert "a, step 4: loss 1, eval/loss 3" in said.out
    assert "eval/psnr 20" in said.out and "passed over" in said.err
    assert out.read_bytes().startswith(b"\x89PNG")
    assert gptface_command("plot", tmp_path / "empty", "--out", out) == 2
    assert gptface_command("plot", runs[0], "--smooth", "0") == 2


def test_plots_are_of_known_kinds_and_their_folder_is_made(tmp_path):
    assert plotting.check("a/curves") == "png" and plotting.check("a.SVG") == "svg"
    with pytest.raises(UserError, match="'a.bmp' ends in '.bmp'; a plot is a .png"):
        plotting.check("a.bmp")
    figures = {"runs/a": {"span_15": 2.0, "random_15": 1.0}}
    plotting.hidden_codes(figures, tmp_path / "new" / "m.svg")
    assert (tmp_path / "new" / "m.svg").read_text().startswith("<?xml")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.svg"]


def test_hidden_codes_have_a_line_a_run(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    out = tmp_path / "m.png"
    figures = {
        f"runs/{name}": {"span_15": x, "span_40": x + 1, "random_15": x - 1}
        for name, x in (("a", 2.0), ("b", 3.0))
    }
    plotting.hidden_codes(figures, out)
    monkeypatch.undo()
    spans, random = kept[0].axes
    drawn = [line.get_xydata().tolist() for line in spans.lines]
    assert drawn == [[[15, 2.0], [40, 3.0]], [[15, 3.0], [40, 4.0]]]
    assert [line.get_ydata().tolist() for line in random.lines] == [[1.0], [2.0]]
    (legend,) = kept[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert out.is_file()
    plt.close(kept[0])
