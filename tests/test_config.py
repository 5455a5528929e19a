import os
from dataclasses import dataclass, field
from typing import Literal

import pytest

from manypaths.config import parse


@dataclass
class Settings:
    learning_rate: float = 2e-5
    num_steps: int = 3
    packing: bool = False
    shuffle: bool = True
    name: str | None = None
    extra: dict | str | None = None
    modules: list[str] | None = None
    max_length: int | None = 1024
    kind: Literal["a", "b"] = "a"


@dataclass
class Other:
    output_dir: str = field(metadata={"help": "Where."})


def read(*argv, types=(Settings,), **defaults):
    return parse(types, argv, "prog", **defaults)[0]


def recipe(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    return str(tmp_path / "recipe.yaml")


def test_recipe_then_command_line(tmp_path):
    path = recipe(tmp_path, "learning_rate: 1e-5\nnum_steps: 7\n")
    settings = read("--config", path, "--num_steps", "9")
    assert (settings.learning_rate, settings.num_steps) == (1e-5, 9)
    assert read("--num-steps=9", f"--config={path}").num_steps == 9


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("learning_rate: 1e-5", "learning_rate", 1e-5),
        ("learning_rate: 3", "learning_rate", 3.0),
        ("learning-rate: .5", "learning_rate", 0.5),
        ("num_steps: 1e3", "num_steps", 1000),
        ("packing: true", "packing", True),
        ("shuffle: false", "shuffle", False),
        ("max_length: null", "max_length", None),
        ("max_length: none", "max_length", None),
        ("name: 2024", "name", "2024"),
        ("name: '--odd'", "name", "--odd"),
        ("name: 1e-5", "name", "1e-05"),
        ("modules: [q_proj, k_proj]", "modules", ["q_proj", "k_proj"]),
        ("modules: q_proj", "modules", ["q_proj"]),
        ("extra: {weight: 1e-2, top_k: 3}", "extra", '{"weight": 0.01, "top_k": 3}'),
        ("kind: b", "kind", "b"),
        ("name: no", "name", "no"),
        ("packing: yes", "packing", True),
        ("name: 1.5.2", "name", "1.5.2"),
    ],
)
def test_values_of_a_recipe(tmp_path, line, key, value):
    assert getattr(read("--config", recipe(tmp_path, line)), key) == value


def test_command_line_may_take_back_a_recipe(tmp_path):
    path = recipe(tmp_path, "packing: true\nshuffle: true\nmodules: [a, b]\n")
    settings = read("--config", path, "--packing", "false", "--no_shuffle", "--modules", "c")
    assert (settings.packing, settings.shuffle, settings.modules) == (False, False, ["c"])


def test_machine_defaults_give_way(tmp_path):
    assert read(num_steps=5).num_steps == 5
    assert read("--config", recipe(tmp_path, "num_steps: 6"), num_steps=5).num_steps == 6


def test_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MANYPATHS_TEST_A", "old")
    read("--config", recipe(tmp_path, "env:\n  MANYPATHS_TEST_A: 5\n"))
    assert os.environ["MANYPATHS_TEST_A"] == "5"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rat", "1"], "unknown option 'learning_rat'; did you mean learning_rate"),
        (["--learning-rat=1"], "unknown option 'learning-rat'; did you mean learning_rate"),
        (["--zzz"], "unknown option 'zzz'; see --help"),
        (["stray/file"], "unexpected 'stray/file'"),
        (["--learning_rate", "fast"], "learning_rate.*invalid float value: 'fast'"),
        (["--kind", "c"], "kind.*invalid choice"),
        (["--config"], "--config needs a value"),
    ],
)
def test_wrong_command_lines(argv, message):
    with pytest.raises(ValueError, match=message):
        read(*argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", r"recipe\.yaml: unknown option 'learning_rat'; did you mean learning_rate"),
        ("num_steps: many", "num_steps.*invalid int value: 'many'"),
        ("num_steps: 1.5", "num_steps.*invalid int value"),
        ("kind: c", "kind.*invalid choice"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "not readable YAML"),
        ("env: [a]", "env in .* must be a mapping"),
    ],
)
def test_wrong_recipes(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read("--config", recipe(tmp_path, text))


def test_each_dataclass_gets_its_own_fields():
    first, second = parse((Settings, Other), ["--output_dir", "x", "--num-steps", "4"], "prog")
    assert (first.num_steps, second.output_dir) == (4, "x")


def test_missing_recipe_and_missing_required_option(tmp_path):
    with pytest.raises(FileNotFoundError, match="No recipe at"):
        read("--config", str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match="required: --output_dir"):
        read(types=(Other,))
    assert read("--config", recipe(tmp_path, "output_dir: x"), types=(Other,)).output_dir == "x"


@dataclass
class Aliased:
    model_name_or_path: str | None = field(default=None, metadata={"help": "Model."})
    dataset_name: str | None = field(default=None, metadata={"help": "Data."})


def test_short_names_work_on_the_command_line_and_in_recipes(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: base\ndata: chats.jsonl\n")
    assert parse([Aliased], ["--config", str(recipe)], "prog") == (Aliased("base", "chats.jsonl"),)
    assert parse([Aliased], ["--model=tuned", "--data", "data"], "prog") == (Aliased("tuned", "data"),)
    recipe.write_text("model: base\nmodel_name_or_path: other\n")
    with pytest.raises(ValueError, match="model and model_name_or_path are one option"):
        parse([Aliased], ["--config", str(recipe)], "prog")
