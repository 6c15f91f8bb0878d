"""Where a key stands in a TOML file, for messages that name it."""

from __future__ import annotations

import pytest

from snn_deploy.toml import located, tomllib

TEXT = """\
# epochs = 1: a comment is no key
[data]
name = "[training] epochs = 2"  # nor is a string, nor [training]
augment = { type = "flip" }

[model]
note = '''
timesteps = 1
'''
timesteps = 2
input = { kind = "constant", shape = [1, 8, 8] }
layers = [
  { type = "conv", channels = 3 },  # a bracket ]
  { type = "residual", shortcut = [
      { type = "conv", kernel = 9 },
    ], layers = [
      { type = "a } b", kernel = 3 },
      { type = "conv", kernel = 2 },
  ]},
  { type = "linear", features = 3 },
]
"lif" = { decay = 3 }

  [training]
stages = [
  { kind = "ann" },
  { epochs = 3 },
]
noise.zeta = 3
threads = 1
learning_rate=0.1
epochs = 7

[model.spike]
width = 3
"""

PLACES = {
    "[training] epochs: give either": "epochs = 7",
    "[training] learning_rate: no": "learning_rate=0.1",
    "[training] rate: not there": "[training]",
    "[training]: a table": "[training]",
    "[training]: unknown key 'threads'": "threads = 1",
    "[training] stages: no": "stages = [",
    "[training] stages[0].epochs: not there": '{ kind = "ann" }',
    "[training] stages[1].epochs: no": "{ epochs = 3 }",
    "[training] stages[2].epochs: not there": "stages = [",
    "[training] noise.zeta: no": "noise.zeta = 3",
    "[training] noise: unknown key 'zeta'": "noise.zeta = 3",
    "[model] timesteps: no": "timesteps = 2",
    "[model] input.shape: no": "input = {",
    "[model] lif.decay: no": '"lif" = {',
    "[model]: unknown key 'lif'": '"lif" = {',
    "[model] layers[0].channels: no": "channels = 3",
    "[model] layers[0].kernel: not there": "channels = 3",
    "[model] layers[1].shortcut[0].kernel: no": "kernel = 9",
    "[model] layers[1].layers[0].kernel: no": "kernel = 3",
    "[model] layers[1].layers[1].kernel: no": "kernel = 2",
    "[model] layers[2].features: no": "features = 3",
    "[model] spike.width: no": "width = 3",
    "[model] spike: a table": "[model.spike]",
    "[data] augment[0].type: no": "augment = {",
    "[data] name: unknown": "name = ",
    "unknown table [training]": "  [training]\nstages",
}


@pytest.mark.parametrize("message", PLACES)
def test_the_line_of_the_deepest_part_that_is_there(message: str) -> None:
    assert tomllib.loads(TEXT)["training"]["epochs"] == 7
    mark = PLACES[message]
    place = TEXT.rindex(mark) if mark.startswith("[training]") else TEXT.index(mark)
    line = TEXT[:place].count("\n") + 1
    assert located(TEXT, message, "recipe.toml") == f"recipe.toml:{line}"


@pytest.mark.parametrize(
    "message", ["not valid TOML", "a table [model] is needed", "[extra] key: no", ""]
)
def test_without_a_place_the_file_alone(message: str) -> None:
    assert located(TEXT, message, "recipe.toml") == "recipe.toml"


def test_tables_written_inline_or_one_by_one() -> None:
    inline = (
        'title = "x"\ndata = { name = 3 }\ntraining.epochs = 0\n[[training.stages]]\nepochs = 1\n'
    )
    inline += "[[training.stages]]\nkind = 'ann'\nepochs = 2\n"
    assert located(inline, "[data] name: no", "f") == "f:2"
    assert located(inline, "[training] epochs: no", "f") == "f:3"
    assert located(inline, "[training] stages[0].epochs: no", "f") == "f:5"
    assert located(inline, "[training] stages[1].epochs: no", "f") == "f:8"
    assert located("", "[data] name: no", "f") == "f"
