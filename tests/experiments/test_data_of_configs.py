"""What experiments open of the data that a config names."""

from gptface_jax.experiments import base


def test_evaluation_on_the_training_pictures_is_said(capsys):
    drawn = {"kind": "synthetic", "count": 3, "size": 16}
    same = base.DataConfig(train=drawn, eval=dict(drawn))
    assert len(base.open_eval(same, {})) == 3
    assert "data.eval is data.train" in capsys.readouterr().err
    other = base.DataConfig(train=drawn, eval={**drawn, "seed": 1})
    assert len(base.open_eval(other, {})) == 3
    assert base.open_eval(base.DataConfig(train=drawn), {}) is None
    assert not capsys.readouterr().err
