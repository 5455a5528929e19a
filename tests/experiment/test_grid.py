import pytest
import yaml

from conftest import tiny_llama
from manypaths.experiment.controls import plan
from manypaths.experiment.grid import CONTROLS, check_options, read_grid
from manypaths.experiment.run import QuickstartConfig, expendable_models, quickstart_grid
from manypaths.experiment.stages import ModelOf


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A small experiment whose files lie in the current folder and in its output_dir."""
    monkeypatch.chdir(tmp_path)
    tiny_llama(50).save_pretrained("models/start")
    (tmp_path / "data.jsonl").write_text('{"prompt": "one", "completion": "two"}\n')
    for seed in "01":
        (tmp_path / "out" / "world" / seed).mkdir(parents=True)
        (tmp_path / "out" / "world" / seed / "rl.jsonl").write_text('{"prompt": "one"}\n')
    (tmp_path / "main.yaml").write_text("name: sums\nsource: data.jsonl\n")
    (tmp_path / "side.yaml").write_text("name: aside\nsource: data.jsonl\ngroup: side tasks\n")
    return {
        "model_name_or_path": "models/start",
        "baseline": "CE",
        "seeds": [0, 1],
        "sft": {"data": "./data.jsonl", "num_train_epochs": 9, "learning_rate": 1e-4},
        "grpo": {"dataset_name": "world/{seed}/rl.jsonl", "reward": "math", "temperature": 0.8, "preflight_prompts": 4},
        "eval": {"benchmarks": ["./main.yaml", "./side.yaml"], "reference": "models/start", "num_samples": 4},
        "methods": {
            "CE": {"objective": "nll"},
            "my SED": {
                "objective": "sed",
                "objective_kwargs": {"top_k": 5},
                "learning_rate": 2e-4,
                "sft": {"seed": "10{seed}"},
                "grpo": {"beta": 0.1},
                "eval": {"num_samples": 8},
            },
        },
        "output_dir": "out",
    }


def rows_of(recipe, **overrides):
    rows, stages, left_out = plan(read_grid({**recipe, **overrides}))
    return {(row.control or row.method, row.seed): row for row in rows}, stages, left_out


def test_methods_are_ordinary_runs_with_their_overrides(recipe, tmp_path):
    rows, stages, _ = rows_of(recipe)
    ce, sed = rows["CE", 1], rows["my SED", 1]
    assert (ce.role, sed.role, sed.objective_kwargs) == ("baseline", "method", {"top_k": 5})
    assert sed.training.subcommand == "sft" and sed.rl.subcommand == "grpo" and sed.after.subcommand == "eval"
    assert sed.training.options["learning_rate"] == 2e-4 and ce.training.options["learning_rate"] == 1e-4
    assert (ce.training.options["seed"], sed.training.options["seed"]) == (1, "101")
    assert ce.training.options["dataset_name"] == str(tmp_path / "data.jsonl") and "data" not in ce.training.options
    assert sed.rl.options["dataset_name"] == str(tmp_path / "out" / "world" / "1" / "rl.jsonl")
    assert sed.rl.options["reward_funcs"] == "math" and sed.rl.options["beta"] == 0.1 and "beta" not in ce.rl.options
    assert sed.rl.options["model_name_or_path"] == ModelOf(sed.training) == sed.before.options["model_name_or_path"]
    assert sed.after.options["model_name_or_path"] == ModelOf(sed.rl) and sed.after.options["num_samples"] == 8
    assert [sed.after.options[name] for name in ("label", "stage", "train_seed")] == ["my SED", "rl", 1]
    check_options(read_grid(recipe), stages)
    assert [stages.index(parent) < place for place, stage in enumerate(stages) for parent in stage.parents]


def test_the_folder_of_a_stage_says_what_it_is_and_the_command_can_be_given_by_hand(recipe, tmp_path):
    rows, *_ = rows_of(recipe)
    stage = rows["my SED", 0].training
    assert stage.folder == tmp_path / "out" / "stages" / f"my-SED-0-sft-{stage.key}"
    assert stage.by_hand.startswith("manypaths sft --report_to none")
    assert "--objective_kwargs '{\"top_k\": 5}'" in stage.by_hand
    stage.write_config()
    options = yaml.safe_load((stage.folder / "config.yaml").read_text())
    assert options["objective"] == "sed" and options["output_dir"] == str(stage.folder / "output")


def test_more_seeds_and_methods_join_what_is_there(recipe):
    before = {stage.key for stage in rows_of(recipe, seeds=[0])[1]}
    assert before < {stage.key for stage in rows_of(recipe, seeds=2)[1]}
    more = {**recipe["methods"], "GEM": {"objective": "gem"}}
    after = rows_of(recipe, seeds=[0], methods=more)[1]
    changed = {stage.name for stage in after if stage.key not in before}
    assert changed == {
        "GEM-0-sft", "GEM-0-eval-sft", "GEM-0-grpo", "GEM-0-eval-rl", "CE-matched-temperature-0-eval-sft",
    }  # fmt: skip


def test_every_comparison_has_its_controls(recipe):
    rows, stages, left_out = rows_of(recipe)
    assert {name for name, _ in rows} == {"CE", "my SED", *CONTROLS} and left_out == []
    base, sharp, early = rows["no_sft", 0], rows["no_sft_sharpened", 0], rows["stopped_early", 0]
    assert base.training is None and base.model.endswith("models/start") and base.rl.options["preflight_prompts"] == 0
    assert rows["CE", 0].before in sharp.before.options["temperature"].stages
    assert sharp.rl.options["temperature"].settings == {"start": 0.8}
    assert early.training.options["num_train_epochs"] == pytest.approx(0.33 * 9)
    matched, averaged = rows["matched_temperature", 0], rows["weight_averaging", 0]
    assert matched.model == ModelOf(rows["CE", 0].training) and matched.rl is None
    assert {rows["my SED", 0].before, rows["CE", 0].before} <= set(matched.before.parents)
    assert averaged.training.options["tuned"] == ModelOf(rows["CE", 0].training) and averaged.rl is not None
    sweeps = [stage for stage in stages if stage.name.endswith("-sweep")]
    assert len(sweeps) == 4 and all("reference" not in stage.options for stage in sweeps)
    assert all([path.rpartition("/")[2] for path in stage.options["benchmarks"]] == ["main.yaml"] for stage in sweeps)
    assert {row.role for row in rows.values() if row.control} == {"control"}


def test_controls_that_are_not_wanted_or_not_possible_are_told(recipe):
    controls = {"no_sft": False, "stopped_early": {"from": "checkpoint", "fraction": 0.5}, "weight_averaging": None}
    rows, _, left_out = rows_of(recipe, seeds=[0], controls=controls)
    assert ("no_sft", 0) not in rows and left_out[0]["method"] == "no SFT" and left_out[0]["reason"] == "not asked for"
    assert rows["stopped_early", 0].model == ModelOf(rows["CE", 0].training, 0.5)
    sft = {**recipe["sft"], "save_strategy": "no"}
    rows, _, left_out = rows_of(recipe, seeds=[0], controls=controls, sft=sft)
    assert ("stopped_early", 0) not in rows and "needs checkpoints" in left_out[1]["reason"]


def test_without_rl_and_with_a_model_that_is_there(recipe):
    methods = {"ready": {"sft": False, "model_name_or_path": "models/start"}, **recipe["methods"]}
    rows, stages, _ = rows_of(recipe, grpo=None, seeds=1, methods=methods)
    assert "grpo" not in {stage.subcommand for stage in stages} and rows["ready", 0].training is None
    assert rows["ready", 0].before is rows["no_sft", 0].before  # the same evaluation of the same model


def test_models_that_stay(recipe):
    for keep, gone in (("all", set()), ("final", {"sft", "average"}), ("none", {"sft", "average", "grpo"})):
        grid = read_grid({**recipe, "keep_models": keep})
        rows, stages, _ = plan(grid)
        expendable = expendable_models(grid, rows, stages)
        assert {stage.subcommand for stage in stages if stage.key in expendable} == gone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {}}, "unknown 'method'; did you mean methods"),
        ({"baseline": "ce"}, "the baseline 'ce' is not a method. Methods: CE, my SED"),
        ({"seeds": [0, 0]}, "a list of different ones"),
        ({"seeds": 0}, "seeds must be"),
        ({"eval": None}, "eval is missing"),
        ({"controls": {"no_stf": True}}, "unknown 'no_stf'; did you mean no_sft"),
        ({"controls": {"stopped_early": {"share": 0.5}}}, "control stopped_early: unknown 'share'"),
        ({"controls": {"stopped_early": {"fraction": 3}}}, "fraction of stopped_early must lie between 0 and 1"),
        ({"controls": {"no_sft": 3}}, "must be true, false or a mapping"),
        ({"compute": {"worker": 2}}, "unknown option 'worker'; did you mean workers"),
        ({"compute": {"executor": "slurm"}}, "executor is 'slurm'"),
        ({"keep_models": "some"}, "choose one of all, final, none"),
        ({"sft": [1]}, "sft must be a mapping"),
    ],
)
def test_a_wrong_section_is_one_line(recipe, changes, message):
    with pytest.raises(ValueError, match="the experiment") as error:
        read_grid({**recipe, **changes})
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"objectiv": "sed"}, "new-0-sft (sft): unknown option 'objectiv'; did you mean objective"),
        ({"objective": "sde"}, "Unknown objective 'sde'"),
        ({"num_train_epochs": "many"}, "invalid float value: 'many'"),
        ({"dataset_name": "./dta.jsonl"}, "new-0-sft (sft): There is no data at ./dta.jsonl"),
        ({"objective_kwargs": {"topk": 3}, "objective": "sed"}, "new-0-sft (sft)"),
        ({"grpo": {"num_generation": 4}}, "new-0-grpo (grpo): unknown option 'num_generation'; did you mean num_g"),
        ({"eval": {"num_samples": 0}}, "--num_samples must be at least 1"),
        ({"eval": {"benchmarks": ["gsm9k"]}}, "Unknown benchmark 'gsm9k'. Did you mean gsm8k"),
        ({"grpo": {"reward": "maths"}}, "maths"),
    ],
)
def test_a_wrong_option_of_one_method_is_one_line_before_anything_runs(recipe, method, message):
    grid = read_grid({**recipe, "methods": {**recipe["methods"], "new": method}})
    with pytest.raises(ValueError) as error:
        check_options(grid, plan(grid)[1])
    assert message in str(error.value)


@pytest.mark.parametrize("world", ["recall", "coldstart"])
def test_the_packaged_experiments(world, tmp_path):
    grid = quickstart_grid(QuickstartConfig(world=world, output_dir=str(tmp_path), seeds=2, seed=3, rl_steps=7))
    assert grid.seeds == (3, 4) and grid.grpo["max_steps"] == 7 and grid.world == world and "CE" in grid.methods
    chosen = quickstart_grid(QuickstartConfig(world=world, objectives="sed, focal", rl_steps=0))
    assert list(chosen.methods) == ["CE", "SED", "focal"] and chosen.grpo is None
    assert chosen.methods["SED"]["objective_kwargs"] == {"top_k": 10}
    assert chosen.methods["focal"] == {"objective": "focal"}


@pytest.mark.parametrize("options", [{"world": "countdwn"}, {"seeds": 0}, {"rl_steps": -1}])
def test_a_quickstart_that_cannot_be(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        quickstart_grid(QuickstartConfig(**options))
