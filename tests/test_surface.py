"""The public surface, what importing it costs, and which rooms may know of which."""

import ast
import inspect
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import manypaths

SOURCE = Path(manypaths.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def test_public_names():
    """A new name here is a promise to users: add it on purpose, with documentation."""
    assert manypaths.__all__ == [
        "OBJECTIVES", "STATISTICS", "Objective", "Projection", "SFTConfig", "SFTTrainer", "attach", "calibrate",
        "detach",
        "objectives", "resolve", "token_statistics",
    ]  # fmt: skip
    assert all(getattr(manypaths, name) is not None for name in manypaths.__all__)


@pytest.mark.parametrize("name", manypaths.__all__)
def test_public_names_explain_themselves(name):
    value = getattr(manypaths, name)
    if callable(value) or inspect.ismodule(value):
        assert len(inspect.getdoc(value) or "") > 20, f"manypaths.{name} needs a docstring that says what it is for."


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'SFTTrainr'"):
        manypaths.SFTTrainr  # noqa: B018


def test_importing_is_light():
    """Neither the trainer's nor the kernels' libraries load before they are used."""
    heavy = ("torch", "transformers", "trl", "triton", "datasets", "peft", "pandas", "altair", "scipy", "vllm")
    code = f"import sys, manypaths; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]", "import it inside the function that needs it"


# From the top: a room may import from the rooms of lower lines, and of its own line where they stand together.
LEVELS = (
    ("cli",), ("doctor",), ("experiment",), ("augmentation",), ("report",), ("evaluation",), ("training", "generation"),
    ("grading", "models", "data", "worlds"), ("engine", "objectives"), ("config", "functions", "run_folder"), ("option_help",),
)  # fmt: skip
# The places where a higher room is needed, each for one reason.
ALLOWED = {
    ("training", "generation"),  # GRPO's preflight samples as an evaluation does
    ("grading", "worlds"),  # the graders of the built-in worlds
    ("models", "data"),
    ("engine", "objectives"), ("objectives", "engine"),  # the registry reads the table of statistics
}  # fmt: skip


def rooms_imported(path: Path) -> set[str]:
    """The rooms that a file of the package imports from, inside functions too."""
    package = ["manypaths", *path.relative_to(SOURCE).parent.parts]
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            full = [*base, *(node.module or "").split(".")] if node.module else [*base, node.names[0].name]
            rooms.add(full[1] if len(full) > 1 else "")
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downwards(path):
    level = {room: place for place, rooms in enumerate(LEVELS) for room in rooms}
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room not in level:
        return
    for other in rooms_imported(path) - {room}:
        assert level[other] > level[room] or (room, other) in ALLOWED, f"{path.name} of {room} imports from {other}."


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_is(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path.name} starts with no docstring."


def names_of(config: type, beyond: type = object) -> list[str]:
    inherited = {field.name for field in fields(beyond)} if is_dataclass(beyond) else set()
    return [field.name for field in fields(config) if field.name not in inherited]


def test_subcommands_and_options():
    """An option is a promise too. Before adding one: can an objective's hyper-parameter or TRL's option do it?"""
    import trl

    from manypaths.augmentation.config import AugmentConfig
    from manypaths.cli.main import SUBCOMMANDS
    from manypaths.data.config import DataConfig
    from manypaths.doctor.config import DoctorConfig
    from manypaths.evaluation.config import EvalConfig
    from manypaths.training.config import GRPOConfig, RewardConfig

    assert list(SUBCOMMANDS) == [
        "quickstart",
        "experiment",
        "doctor",
        "sft",
        "grpo",
        "eval",
        "augment",
        "average",
        "report",
        "world",
        "objectives",
    ]
    assert names_of(manypaths.SFTConfig, trl.SFTConfig) == [
        "objective", "objective_kwargs", "calibration_fraction", "calibration_sequences", "selection_scope",
        "reference", "reference_cache",
    ]  # fmt: skip
    assert names_of(GRPOConfig, trl.GRPOConfig) == ["preflight_prompts"]
    assert names_of(DoctorConfig) == ["gpu"]
    assert names_of(RewardConfig) == ["reward_funcs"]
    assert names_of(DataConfig) == [
        "dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "eval_dataset_name",
        "dataset_columns", "dataset_format", "system_prompt",
    ]  # fmt: skip
    assert names_of(EvalConfig) == [
        "model_name_or_path", "label", "stage", "train_seed", "benchmarks", "data_dir", "prompts", "completions", "rescore",
        "grader", "reward", "correct_at", "reward_model", "embedding_model", "reference", "reread_samples", "forgetting",
        "task_dir", "num_prompts", "max_length", "assistant_only_loss", "dtype", "num_samples", "temperature",
        "temperatures", "top_p", "top_k", "max_new_tokens", "seed", "batch_size", "prompt_format", "chat_template_path",
        "chat_template_kwargs", "backend", "vllm_server_base_url", "vllm_tensor_parallel_size",
        "vllm_gpu_memory_utilization", "output_dir",
    ]  # fmt: skip
    assert names_of(AugmentConfig) == [
        "model_name_or_path", "reward", "num_answers", "distinct", "num_samples", "temperature", "top_p", "top_k",
        "max_new_tokens", "seed", "grader", "correct_at", "preflight_samples", "dtype", "batch_size", "chat_template_path",
        "chat_template_kwargs", "backend", "vllm_server_base_url", "vllm_tensor_parallel_size",
        "vllm_gpu_memory_utilization", "output_dir",
    ]  # fmt: skip
