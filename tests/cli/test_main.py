import dataclasses
import json
import os
import subprocess
import sys

import pytest

from conftest import tiny_llama
from manypaths.cli.main import SUBCOMMANDS, main
from manypaths.evaluation.config import EVAL_OPTIONS
from manypaths.option_help import USUAL
from manypaths.training.config import GRPO_OPTIONS, SFT_OPTIONS

QUIET = [
    "--report_to",
    "none",
    "--disable_tqdm",
    "true",
    "--logging_steps",
    "1",
    "--gradient_checkpointing",
    "false",
]


@pytest.fixture
def start(tmp_path, tokenizer, monkeypatch):
    """A model folder `start` and a data file `chats.jsonl` in an own working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    tiny_llama(len(tokenizer)).save_pretrained("start")
    tokenizer.save_pretrained("start")
    rows = [
        {"prompt": f"one {word} is", "completion": " two three", "answer": "7"}
        for word in ["four", "five", "six", "seven"]
    ]
    write("chats.jsonl", rows)
    return tmp_path


def write(name, rows):
    with open(name, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def sft(*extra, data="chats.jsonl"):
    given = {
        "--model_name_or_path": "start",
        "--dataset_name": data,
        "--output_dir": "out",
        "--max_steps": "2",
    }
    return main(["sft", *flat(given), "--per_device_train_batch_size", "2", *QUIET, *extra])


def flat(options):
    return [token for option in options.items() for token in option]


def refused(capsys, message, code, left):
    """The exit code says user's mistake, one line has the message, nothing was written."""
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("manypaths ")]
    assert code == 2 and len(lines) == 1 and message in lines[0], error
    assert "Traceback" not in error
    assert set(os.listdir()) - {"__pycache__"} == {"start", "chats.jsonl", *left}


def test_sft_trains_saves_and_records_the_run(start, capsys):
    assert sft("--objective", "sed", "--learning-rate", "1e-3", "--calibration-fraction", "0.5") == 0
    run = json.loads((start / "out" / "manypaths_run.json").read_text())
    assert (run["subcommand"], run["settings"]["objective"], run["settings"]["learning_rate"]) == ("sft", "sed", 1e-3)
    assert (start / "out" / "model.safetensors").is_file() and (start / "out" / "tokenizer.json").is_file()
    out = capsys.readouterr().out
    assert "calibrated threshold" in out and "model saved to out" in out


def test_recipe_own_objective_and_evaluation_data(start, capsys):
    (start / "mine.py").write_text("def plain(logprob, *, weight=1.0):\n    return -weight * logprob\n")
    (start / "recipe.yaml").write_text(
        "objective: mine:plain\nobjective_kwargs: {weight: 2e-1}\neval_strategy: steps\neval_steps: 1\n"
        "eval_dataset_name: chats.jsonl\nsave_strategy: no\n"
    )
    assert sft("--config", "recipe.yaml") == 0
    assert json.loads((start / "out" / "manypaths_run.json").read_text())["settings"]["objective_kwargs"] == {"weight": 0.2}
    assert "evaluation at step 2: loss" in capsys.readouterr().out
    assert not list((start / "out").glob("checkpoint-*"))


@pytest.mark.slow
def test_lora(start):
    assert sft("--use_peft", "--lora_target_modules", "q_proj", "v_proj", "--objective", "gem") == 0
    assert (start / "out" / "adapter_model.safetensors").is_file()


def test_resume_continues_the_same_run_only(start, capsys):
    assert sft("--save_steps", "1") == 0
    weights = (start / "out" / "model.safetensors").read_bytes()
    (start / "out" / "checkpoint-2" / "trainer_state.json").unlink()  # as a kill in the middle of saving leaves it
    (start / "out" / "model.safetensors").unlink()
    capsys.readouterr()
    assert sft("--save_steps", "1", "--resume_from_checkpoint", "true") == 0
    assert (start / "out" / "model.safetensors").read_bytes() == weights
    before = sorted(path.name for path in (start / "out").iterdir())
    for change, message in (
        (["--objective", "gem"], "objective: there 'nll', now 'gem'"),
        (["--max_steps", "4"], "max_steps: there 2, now 4"),
        (["--dataset_train_split", "train[:2]"], "dataset_train_split: there 'train', now 'train[:2]'"),
    ):
        capsys.readouterr()
        code = sft("--resume_from_checkpoint", "true", *change)
        refused(capsys, f"holds another run ({message})", code, left=["out"])
    assert sorted(path.name for path in (start / "out").iterdir()) == before


def test_debug_shows_the_traceback(start, monkeypatch):
    monkeypatch.setenv("MANYPATHS_DEBUG", "1")
    with pytest.raises(ValueError, match="Unknown objective"):
        sft("--objective", "gemm")


def test_grpo_with_an_own_reward_and_a_hopeless_one(start, capsys):
    (start / "grpo_mine.py").write_text(
        "def odd(completion_ids, **columns):\n    return [float(sum(ids) % 2) for ids in completion_ids]\n"
        "def never(completions, **columns):\n    return [0.0] * len(completions)\n"
    )

    def grpo(*extra):
        given = {
            "--model_name_or_path": "start",
            "--data": "chats.jsonl",
            "--output_dir": "rl",
            "--max_steps": "1",
        }
        sizes = {
            "--num_generations": "4",
            "--per_device_train_batch_size": "4",
            "--max_completion_length": "30",
        }
        return main(["grpo", *flat(given), *flat(sizes), *QUIET, *extra])

    code = grpo("--reward", "grpo_mine:never", "--max_completion_length", "200")
    refused(capsys, "all rewards are equal", code, left=["grpo_mine.py"])
    assert grpo("--reward", "grpo_mine:odd", "--preflight_prompts", "0") == 0
    assert (start / "rl" / "model.safetensors").is_file()
    settings = json.loads((start / "rl" / "manypaths_run.json").read_text())["settings"]
    assert settings["reward_funcs"] == ["grpo_mine:odd"]


def test_grpo_resumes_the_same_run_only(start, capsys):
    (start / "grpo_odd.py").write_text(
        "def odd(completion_ids, **columns):\n    return [float(sum(ids) % 2) for ids in completion_ids]\n"
    )
    argv = ["grpo", "--model_name_or_path", "start", "--data", "chats.jsonl", "--reward", "grpo_odd:odd", *QUIET]
    argv += ["--output_dir", "rl", "--max_steps", "1", "--num_generations", "4", "--per_device_train_batch_size", "4"]
    argv += ["--max_completion_length", "4", "--preflight_prompts", "0", "--save_steps", "1"]
    assert main(argv) == 0
    again = [*argv, "--resume_from_checkpoint", "true"]
    for name, value in (
        ("temperature", "0.7"), ("top_p", "0.9"), ("reward_weights", "2.0"), ("loss_type", "grpo"), ("epsilon", "0.3"),
        ("num_iterations", "2"), ("num_train_epochs", "7"),
    ):  # fmt: skip
        capsys.readouterr()
        assert main([*again, f"--{name}", value]) == 2
        assert f"holds another run ({name}: there" in capsys.readouterr().err


def test_eval_prints_and_reports(start, capsys):
    argv = ["eval", "--model", "start", "--data", "chats.jsonl", "--num_samples", "2", "--max-new-tokens", "4"]
    assert main([*argv, "--output_dir", "ev"]) == 0
    assert (start / "ev" / "results.json").is_file() and (start / "ev" / "report.html").is_file()
    assert "report: " in capsys.readouterr().out


def test_objectives_lists_them_all(capsys, monkeypatch):
    from manypaths.objectives import OBJECTIVES

    monkeypatch.setenv("COLUMNS", "200")
    assert main(["objectives"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in OBJECTIVES)
    assert "threshold=(calibrated)" in out and "2602.07464" in out


def test_help(capsys):
    for argv in ([], ["--help"], ["-h"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in SUBCOMMANDS)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_help_of_a_subcommand_is_one_screen(subcommand, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        main([subcommand, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0 and len(lines) <= 60 and max(map(len, lines)) <= 120
    types = {"sft": SFT_OPTIONS, "grpo": GRPO_OPTIONS, "eval": EVAL_OPTIONS}.get(subcommand, ())
    names = {field.name for kind in types for field in dataclasses.fields(kind)}
    usual = {name for names in USUAL.values() for name in names.split()}
    shown = {line.split()[0][2:] for line in lines if line.startswith("  --")}
    assert shown >= usual & names and shown >= {"dataset_name"} & names
    cut = {line.split()[0][2:] for line in lines if line.endswith("\u2026")}
    assert cut <= usual and len(cut) <= 5, f"no text of ours may be cut: {cut}"


def test_all_options_are_shown_when_asked(capsys):
    with pytest.raises(SystemExit):
        main(["sft", "--help_all"])
    assert "--adam_beta1" in capsys.readouterr().out


def test_what_is_wrong_with_the_options_is_told_before_a_trainer_is_imported():
    told = {
        "sft --objectiv sed": "did you mean objective",
        "sft --model x": "--dataset_name is missing",
        "grpo --model x --data y": "--reward is missing",
        "grpo --model x --data y --reward math --use_vllm true": "vLLM >=0.22,<0.32 is needed: pip install 'manypaths[vllm]'",
    }
    code = (
        f"import sys\nfrom manypaths.cli.main import main\nfor words in {[*told]}:\n    assert main(words.split()) == 2\n"
        "    assert not {'datasets', 'trl.trainer.sft_trainer', 'trl.trainer.grpo_trainer'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env={**os.environ})
    assert done.returncode == 0, done.stderr
    for message, line in zip(told.values(), done.stderr.splitlines()[-len(told) :], strict=True):
        assert message in line


def test_help_loads_no_trainer():
    code = (
        "import sys\nfrom manypaths.cli.main import main\nmain(['--help'])\n"
        "assert not {'torch', 'trl', 'transformers', 'datasets', 'accelerate'} & set(sys.modules), set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ})


@pytest.mark.slow
def test_a_checkpoint_is_never_replaced_without_being_told(start, capsys):
    assert sft("--save_steps", "2") == 0
    capsys.readouterr()
    assert sft("--save_steps", "2") == 2
    assert "Add --resume_from_checkpoint auto to go on from it, or false" in capsys.readouterr().err
    assert sft("--save_steps", "2", "--resume_from_checkpoint", "false") == 0


@pytest.mark.slow
def test_a_run_that_fails_at_its_first_step_claims_no_folder(start, capsys):
    (start / "bad.py").write_text("def loss(logprob):\n    return logprob * float('nan')\n")
    assert sft("--objective", "bad:loss") == 2
    assert "gave nan at trained token 0" in capsys.readouterr().err
    assert sft("--objective", "nll") == 0
