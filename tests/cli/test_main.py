import json
import os
import subprocess
import sys

import pytest

from conftest import tiny_llama
from manypaths.cli.main import VERBS, main
from manypaths.worlds import load_base

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


def refused(capsys, message, code, left=()):
    """The exit code says user's mistake, stderr is one line with the message, nothing was written."""
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("manypaths ")]
    assert code == 2 and len(lines) == 1 and message in lines[0], error
    assert "Traceback" not in error
    assert set(os.listdir()) - {"__pycache__"} == {"start", "chats.jsonl", *left}


def test_sft_trains_saves_and_records_the_run(start, capsys):
    assert sft("--objective", "sed", "--learning-rate", "1e-3", "--calibration-fraction", "0.5") == 0
    record = json.loads((start / "out" / "manypaths_run.json").read_text())
    assert (record["objective"], record["learning_rate"], record["stage"]) == ("sed", 1e-3, "sft")
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
    assert json.loads((start / "out" / "manypaths_run.json").read_text())["objective_kwargs"] == {"weight": 0.2}
    assert "eval_ce" in capsys.readouterr().out
    assert not list((start / "out").glob("checkpoint-*"))


def test_lora(start):
    assert sft("--use_peft", "--lora_target_modules", "q_proj", "v_proj", "--objective", "gem") == 0
    assert (start / "out" / "adapter_model.safetensors").is_file()


def test_resume_continues_the_same_run_only(start, capsys):
    assert sft("--save_steps", "1") == 0
    capsys.readouterr()
    assert sft("--resume_from_checkpoint", "true", "--max_steps", "4") == 0
    assert json.loads((start / "out" / "checkpoint-4" / "trainer_state.json").read_text())["global_step"] == 4
    before = sorted(path.name for path in (start / "out").iterdir())
    capsys.readouterr()
    code = sft("--objective", "gem")
    refused(capsys, "holds another run (objective: there 'nll', now 'gem')", code, left=["out"])
    assert sorted(path.name for path in (start / "out").iterdir()) == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--objective", "gemm"], "Unknown objective 'gemm'. Did you mean gem"),
        (["--objective", "sed", "--objective_kwargs", "{top_k: 1"], "objective_kwargs is not JSON"),
        (["--objectve", "sed"], "unknown option 'objectve'; did you mean objective"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--config", "none.yaml"], "No recipe at none.yaml"),
        (["--resume_from_checkpoint", "true"], "out holds no checkpoint to resume from"),
        (["--resume_from_checkpoint", "there"], "There is no checkpoint folder there"),
        (["--dataset_name", "none.jsonl"], "No data file at none.jsonl"),
        (["--dataset_name", "start/model.safetensors"], "Cannot read start/model.safetensors"),
        (["--model_name_or_path", "./none"], "There is no model in ./none"),
        (["--model_name_or_path", "none"], "'none' is no folder here and no model of the hub"),
        (["--eval_dataset_name", "chats.jsonl"], "eval_strategy is no"),
        (["--eval_strategy", "epoch"], "Cannot take split 'test' of chats.jsonl"),
        (
            ["--dataset_columns", '{"text": "none"}'],
            "no column 'none' to use as 'text'; found prompt, completion, answer",
        ),
        (["--dataset_columns", "text"], "dataset_columns is not JSON"),
        (["--max_length", "2"], "no trained token"),
        (["--accelerate_config", "none"], "none is neither a file nor a valid config"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(start, capsys, extra, message):
    refused(capsys, message, sft(*extra))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.jsonl is empty"),
        ('{"text": "a"}\n{"text" "b"}\n', "bad.jsonl, line 2: broken JSON"),
        ("[1, 2]\n", "bad.jsonl, line 1: a row must be a JSON object, found a list"),
        (
            '{"question": "a", "reply": "b"}\n',
            "bad.jsonl has the columns question, reply; accepted are: input_ids;",
        ),
        ('{"input_ids": [3, 4], "labels": [-100, -100]}\n', "no trained token"),
    ],
)
def test_bad_data_is_one_line_and_leaves_nothing(start, capsys, content, message):
    (start / "bad.jsonl").write_text(content)
    refused(capsys, message, sft(data="bad.jsonl"), left=["bad.jsonl"])


def test_a_tokenizer_larger_than_the_embedding_is_refused(start, capsys, tokenizer):
    tiny_llama(len(tokenizer) - 3).save_pretrained("start")
    refused(capsys, "the model's embedding only", sft())


def test_unmarked_assistant_part_is_refused(start, capsys):
    write(
        "talk.jsonl",
        [{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}],
    )
    (start / "start" / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    refused(
        capsys,
        "not training-compatible",
        sft("--assistant_only_loss", data="talk.jsonl"),
        left=["talk.jsonl"],
    )


def test_debug_shows_the_traceback(start, monkeypatch):
    monkeypatch.setenv("MANYPATHS_DEBUG", "1")
    with pytest.raises(ValueError, match="Unknown objective"):
        sft("--objective", "gemm")


def test_grpo_with_an_own_reward_and_its_refusals(start, capsys):
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

    refused(capsys, "--reward is missing", grpo(), left=["grpo_mine.py"])
    refused(capsys, "Unknown reward 'mth'. Did you mean math", grpo("--reward", "mth"), left=["grpo_mine.py"])
    code = grpo("--reward", "grpo_mine:never", "--max_completion_length", "200")
    refused(capsys, "all rewards are equal", code, left=["grpo_mine.py"])
    assert grpo("--reward", "grpo_mine:odd", "--preflight_prompts", "0") == 0
    assert (start / "rl" / "model.safetensors").is_file()
    assert json.loads((start / "rl" / "manypaths_run.json").read_text())["rewards"] == ["grpo_mine:odd"]


def test_eval_on_data(start, capsys):
    (start / "eval_mine.py").write_text(
        "def odd(completion_ids, **columns):\n    return [float(sum(i) % 2) for i in completion_ids]\n"
    )
    given = {"--model": "start", "--data": "chats.jsonl", "--reference": "start", "--reward": "eval_mine:odd"}
    code = main(["eval", *flat(given), "--num_samples", "2", "--max-new-tokens", "5", "--output_dir", "ev"])
    assert code == 0
    results = json.loads((start / "ev" / "results.json").read_text())
    assert results["tokens"]["scores"]["kl_to_reference"]["value"] == pytest.approx(0, abs=1e-6)
    assert results["ledger"]["scores"]["difference"]["value"] == pytest.approx(0, abs=1e-6)
    (samples,) = results["evaluations"]
    assert {"pass@1", "pass@2", "mean_reward", "distinct_answers"} <= set(samples["scores"])
    assert samples["benchmark"] == "chats" and samples["grader"]["reward"] == "eval_mine:odd"
    assert samples["sampling"]["num_samples"] == 2 and results["settings"]["reward"] == "eval_mine:odd"
    assert len((start / "ev" / "samples.jsonl").read_text().splitlines()) == 8
    out = capsys.readouterr().out
    assert "perplexity" in out.lower() and "pass@2" in out


def test_a_reward_that_fails_keeps_the_samples(start, capsys):
    (start / "eval_bad.py").write_text(
        "def nan(completions, **columns):\n    return [float('nan')] * len(completions)\n"
    )
    given = {"--model": "start", "--data": "chats.jsonl", "--reward": "eval_bad:nan", "--output_dir": "ev"}
    assert main(["eval", *flat(given), "--num_samples", "2", "--max-new-tokens", "5"]) == 2
    assert "rewards must be finite" in capsys.readouterr().err
    assert len((start / "ev" / "samples.jsonl").read_text().splitlines()) == 8
    results = json.loads((start / "ev/results.json").read_text())
    assert "tokens" in results and "evaluations" not in results


def test_eval_mistakes(start, capsys):
    write("prompts.jsonl", [{"prompt": "one"}])
    for argv, message in [
        (["--data", "chats.jsonl"], "--model is missing"),
        (["--model", "start"], "Nothing to measure: give --benchmarks, --prompts, --data"),
        (
            ["--model", "start", "--data", "prompts.jsonl"],
            "has prompts only: give a --reward or --num_samples",
        ),
        (["--model", "start", "--world", "recal"], "Unknown world 'recal'"),
        (["--model", "start", "--data", "chats.jsonl", "--reward", "mth"], "Unknown reward 'mth'"),
        (
            ["--model", "start", "--data", "chats.jsonl", "--num_samples", "2", "--top_p", "3"],
            "top_p must lie in",
        ),
    ]:
        refused(capsys, message, main(["eval", *argv]), left=["prompts.jsonl"])


def test_eval_of_conversations_draws_from_what_stands_before_the_answer(start):
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    write("talk.jsonl", [{"messages": chat}])
    argv = ["eval", "--model", "start", "--data", "talk.jsonl", "--num_samples", "2", "--max_new_tokens", "3"]
    assert main([*argv, "--output_dir", "ev"]) == 0
    (row,) = map(json.loads, (start / "ev" / "problems.jsonl").read_text().splitlines())
    assert row["prompt"] == chat[:1]
    (samples,) = json.loads((start / "ev" / "results.json").read_text())["evaluations"]
    assert samples["metric"] is None and samples["num_samples"] == 2


def test_eval_in_a_world(start, capsys, monkeypatch):
    seen = {}

    def evaluate(model, world, **settings):
        seen.update(settings, world=world)
        return {"scores": {"pass@1": {"value": 0.5, "low": 0.4, "high": 0.6}}}

    monkeypatch.setattr("manypaths.worlds.evaluate", evaluate)
    load_base("recall")[0].save_pretrained("base")
    assert main(["eval", "--model", "base", "--world", "recall", "--num-prompts", "20", "--output_dir", "ev"]) == 0
    assert (seen["world"], seen["num_prompts"], seen["num_samples"], seen["base"]) == ("recall", 20, 64, None)
    assert json.loads((start / "ev" / "results.json").read_text())["evaluation"]["scores"]["pass@1"]["value"] == 0.5


def test_eval_in_a_world_refuses_a_foreign_model(start, capsys):
    assert main(["eval", "--model", "start", "--world", "recall", "--output_dir", "ev"]) == 2
    assert "is no model of the built-in worlds" in capsys.readouterr().err and not (start / "ev").exists()


def test_quickstart_hands_its_options_over(monkeypatch):
    seen = {}
    monkeypatch.setattr("manypaths.experiment.quickstart", lambda **settings: seen.update(settings))
    assert main(["quickstart", "--objectives", "sed, gem", "--rl-steps", "3", "--world", "coldstart", "--seeds=2"]) == 0
    assert seen == {
        "world": "coldstart",
        "objectives": ["sed", "gem"],
        "seeds": 2,
        "seed": 0,
        "rl_steps": 3,
        "output_dir": "quickstart",
        "workers": 2,
    }


def test_objectives_lists_them_all(capsys, monkeypatch):
    from manypaths.objectives import OBJECTIVES

    monkeypatch.setenv("COLUMNS", "200")
    assert main(["objectives"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in OBJECTIVES)
    assert "threshold=(calibrated)" in out and "2602.07464" in out


def test_help_version_and_unknown_verbs(capsys):
    for argv in ([], ["--help"], ["-h"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in VERBS)
    assert main(["sfft"]) == 2
    assert "manypaths sfft: there is no such verb. Did you mean sft" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["eval", "--help"])
    assert ended.value.code == 0 and "--num_samples" in capsys.readouterr().out


def test_help_loads_no_trainer():
    code = (
        "import sys\nfrom manypaths.cli.main import main\nmain(['--help'])\n"
        "assert not {'torch', 'trl', 'transformers', 'datasets', 'accelerate'} & set(sys.modules), set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ})


def test_a_checkpoint_is_never_replaced_without_being_told(start, capsys):
    assert sft("--save_steps", "2") == 0
    capsys.readouterr()
    assert sft("--save_steps", "2") == 2
    assert "Add --resume_from_checkpoint true to go on from it, or false" in capsys.readouterr().err
    assert sft("--save_steps", "2", "--resume_from_checkpoint", "false") == 0


def test_a_run_that_fails_at_its_first_step_claims_no_folder(start, capsys):
    (start / "bad.py").write_text("def loss(logprob):\n    return logprob * float('nan')\n")
    assert sft("--objective", "bad:loss") == 2
    assert "gave nan at trained token 0" in capsys.readouterr().err
    assert sft("--objective", "nll") == 0
