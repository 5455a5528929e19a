from pathlib import Path

import pytest
import yaml

from manypaths.cli.launch import LaunchConfig
from manypaths.config import RecipeLoader, parse
from manypaths.grading.graders import resolve_grader
from manypaths.models.loading import machine_defaults
from manypaths.objectives import resolve
from manypaths.training.config import GRPO_OPTIONS, SFT_OPTIONS
from manypaths.training.run import column_map

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
SFT = [*SFT_OPTIONS, LaunchConfig]
GRPO = [*GRPO_OPTIONS, LaunchConfig]


def read(path):
    types = GRPO if path.stem.startswith("grpo") else SFT
    argv = ["--config", str(path), "--report_to", "none"]
    # without a GPU accelerate refuses what the papers used: several processes with bf16 and vLLM
    return dict(zip((t.__name__ for t in types), parse(types, argv, "recipe", **machine_defaults()), strict=True))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_parser_reads_every_recipe(path):
    options = read(path)
    data, model = options["TrainingDataConfig"], options["ModelConfig"]
    assert data.dataset_name and model.model_name_or_path
    column_map(data.dataset_columns)
    if "SFTConfig" in options:
        config = options["SFTConfig"]
        resolve(config.objective, **(config.objective_kwargs or {}))
    else:
        config = options["GRPOConfig"]
        assert [resolve_grader(name) for name in options["RewardConfig"].reward_funcs]
    for key, value in yaml.load(path.read_text(), RecipeLoader).items():
        holders = [part for part in options.values() if hasattr(part, key)]
        assert holders, key
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert any(getattr(part, key) == value for part in holders), key


def test_there_is_a_recipe_for_each_seed_paper_and_each_says_where_its_figures_are_from():
    assert {path.stem for path in RECIPES} >= {
        "ce_llama",
        "dft_numinamath",
        "eksft_qwen3",
        "gem_numinamath",
        "gem_ultrafeedback",
        "grpo_math",
        "laptop_sft",
        "sed_llama",
        "sed_qwen_math",
    }
    for path in RECIPES:
        assert path.stem == "laptop_sft" or "# Sources: " in path.read_text(), path


def test_the_baseline_differs_from_sed_in_the_objective_only():
    sed, ce = (
        yaml.load((RECIPES[0].parent / name).read_text(), RecipeLoader) for name in ("sed_llama.yaml", "ce_llama.yaml")
    )
    different = {key for key in {*sed, *ce} if sed.get(key) != ce.get(key)}
    assert different == {
        "objective",
        "objective_kwargs",
        "calibration_fraction",
        "calibration_sequences",
        "output_dir",
    }
    assert sed["calibration_fraction"] == 0.3 and sed["objective_kwargs"]["weight"] == 1.0
