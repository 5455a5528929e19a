"""The public surface, what importing it costs, and sizes at which a file or function is asked to split."""

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
FILE_LINES, FUNCTION_LINES = 400, 80


def test_public_names():
    """A new name here is a promise to users: add it on purpose, with documentation."""
    assert manypaths.__all__ == [
        "OBJECTIVES", "STATISTICS", "Objective", "Projection", "SFTConfig", "SFTTrainer", "attach", "detach",
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
    heavy = ("torch", "transformers", "trl", "triton", "datasets", "peft", "matplotlib", "vllm")
    code = f"import sys, manypaths; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]", "import it inside the function that needs it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= FILE_LINES, (
        f"{path.name} has {lines} lines, more than {FILE_LINES}: it holds more than one idea. "
        "Move one of them to a file of its own."
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES, (
                f"{node.name} in {path.name} has {length} lines, more than {FUNCTION_LINES}: "
                "give the steps it consists of names of their own."
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_is(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path.name} starts with no docstring."


def names_of(config: type, beyond: type = object) -> list[str]:
    inherited = {field.name for field in fields(beyond)} if is_dataclass(beyond) else set()
    return [field.name for field in fields(config) if field.name not in inherited]


def test_verbs_and_options():
    """An option is a promise too. Before adding one: can an objective's hyper-parameter or TRL's option do it?"""
    import trl

    from manypaths.cli import main as cli
    from manypaths.cli import options
    from manypaths.training.grpo import GRPOConfig

    assert list(cli.VERBS) == ["quickstart", "sft", "grpo", "eval", "report", "objectives"]
    assert names_of(manypaths.SFTConfig, trl.SFTConfig) == [
        "objective", "objective_kwargs", "calibration_fraction", "calibration_sequences", "reference",
    ]  # fmt: skip
    assert names_of(GRPOConfig, trl.GRPOConfig) == ["preflight_prompts"]
    assert names_of(options.QuickstartArguments) == [
        "world", "objectives", "seeds", "seed", "rl_steps", "output_dir", "workers",
    ]  # fmt: skip
    assert names_of(options.EvalArguments) == [
        "model", "label", "benchmarks", "data_dir", "prompts", "samples", "regrade", "grader", "reward_model",
        "embedding_model", "data", "world", "reference", "forgetting", "task_dir", "reward", "correct_at", "num_prompts",
        "max_length", "assistant_only_loss", "dtype", "split", "data_config", "data_columns", "data_format", "output_dir",
    ]  # fmt: skip
    assert names_of(options.SamplingArguments) == [
        "num_samples", "temperature", "temperatures", "top_p", "top_k", "max_new_tokens", "seed", "batch_size",
        "prompt_format", "chat_template_path", "chat_template_kwargs", "system_prompt", "backend",
        "vllm_server_base_url", "vllm_tensor_parallel_size", "vllm_gpu_memory_utilization",
    ]  # fmt: skip
    assert names_of(options.ReportArguments) == ["results", "output_dir"]
    assert names_of(options.DataArguments) == [
        "dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "eval_dataset_name",
        "dataset_columns", "dataset_format", "system_prompt",
    ]  # fmt: skip
