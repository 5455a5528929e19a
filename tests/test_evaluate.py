"""Whole evaluations through the command line, on invented benchmarks and a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import tiny_llama
from evaluations import read_rows, save_model, write_benchmarks, write_rows
from manypaths.cli.main import main
from manypaths.drawing import open_backend
from manypaths.evaluation.benchmarks import BENCHMARKS
from manypaths.evaluation.store import locked
from manypaths.generation.samples import Backend


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    """A working directory with `model` and the eight benchmarks in `data`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    save_model(tmp_path / "model", tokenizer)
    write_benchmarks(tmp_path / "data")
    return tmp_path


def evaluate(*words: str) -> int:
    return main(["eval", *words])


BRIEF = ("--model", "model", "--data_dir", "data", "--max_new_tokens", "12")


def results_in(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def measured(folder) -> dict:
    """The results without what may differ between two runs that are the same: when, and where to."""
    return {key: part for key, part in results_in(folder).items() if key != "created"}


def refused(capsys, place, message: str, *words: str) -> None:
    before = sorted(os.listdir(place))
    assert evaluate(*words) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("manypaths eval:")]
    assert len(error) == 1 and message in error[0], error
    assert sorted(os.listdir(place)) == before


def test_all_eight_killed_twice_and_resumed_equal_an_undisturbed_run(place):
    command = [sys.executable, "-m", "manypaths", "eval", *BRIEF, "--benchmarks", "all", "--batch_size", "7"]
    command += ["--max_new_tokens", "40", "--num_samples", "4", "--label", "tiny"]
    undisturbed = subprocess.run([*command, "--output_dir", "whole"], capture_output=True, text=True)
    assert undisturbed.returncode == 0, undisturbed.stderr
    samples = place / "killed" / "samples.jsonl"
    seen = 0
    for _ in range(2):
        run = subprocess.Popen([*command, "--output_dir", "killed"], stderr=subprocess.DEVNULL)
        while run.poll() is None and (not samples.exists() or samples.read_bytes().count(b"\n") < seen + 20):
            time.sleep(0.002)
        assert run.poll() is None, "it ended before it could be killed"
        run.send_signal(signal.SIGKILL)
        run.wait()
        seen = samples.read_bytes().count(b"\n")
    with samples.open("ab") as file:
        file.write(b'{"benchmark": "gsm8k", "id": "gsm')  # as if the kill had fallen into a line
    resumed = subprocess.run([*command, "--output_dir", "killed"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{seen}/160" in resumed.stderr, "it drew again what was there"
    assert measured(place / "killed") == measured(place / "whole")
    assert sorted(map(json.dumps, read_rows(samples))) == sorted(
        map(json.dumps, read_rows(place / "whole" / "samples.jsonl"))
    )
    assert (place / "killed" / "grades.jsonl").read_text() == (place / "whole" / "grades.jsonl").read_text()
    results = results_in(place / "whole")
    assert [one["benchmark"] for one in results["evaluations"]] == list(BENCHMARKS)
    (average,) = results["macro"]
    assert average["n"] == 8 and average["temperature"] is None


def test_every_score_says_how_it_was_made(place, capsys):
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "aime24", "--num_prompts", "3", "--output_dir", "out") == 0
    gsm8k, aime = results_in(place / "out")["evaluations"]
    assert (gsm8k["metric"], aime["metric"]) == ("avg@1", "avg@8")
    assert aime["sampling"] | {"backend": ""} == {
        "backend": "", "num_samples": 8, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "max_new_tokens": 12, "seed": 0,
        "prompt_format": "chat", "chat_template": aime["sampling"]["chat_template"],
    }  # fmt: skip
    assert len(aime["sampling"]["chat_template"]) == 12
    assert aime["sampling"]["backend"].startswith("transformers ")
    assert sum(aime["stops"].values()) == 24 and aime["truncated"] == aime["stops"].get("length", 0) / 24
    assert sum(aime["grader"]["counts"].values()) == 24 and aime["grader"]["mode"] == "lenient"
    assert aime["prompt_hash"] != gsm8k["prompt_hash"] and len(aime["prompt_hash"]) == 64
    for name in ("avg@8", "pass@1", "pass@8", "maj@4", "distinct_answers", "self_bleu", "entropy", "length"):
        assert set(aime["scores"][name]) >= {"value", "low", "high", "n"}, name
    assert "self_bleu" not in gsm8k["scores"]  # one sample has no others to be compared with
    assert (place / "out" / "report.html").is_file()
    shown = capsys.readouterr().out
    assert "AIME" in shown and "report.html" in shown


def test_more_samples_and_more_benchmarks_join_those_that_are_there(place):
    few = (*BRIEF, "--output_dir", "out", "--benchmarks", "gsm8k")
    assert evaluate(*few, "--num_samples", "2") == 0
    before = read_rows(place / "out" / "samples.jsonl")
    assert evaluate(*few, "amc23", "--num_samples", "4") == 0
    after = read_rows(place / "out" / "samples.jsonl")
    assert after[: len(before)] == before and len(after) == 40
    assert [one["num_samples"] for one in results_in(place / "out")["evaluations"]] == [4, 4]


def test_a_folder_with_samples_of_other_settings_is_refused(place, tokenizer, capsys):
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "--output_dir", "out") == 0
    before = (place / "out" / "results.json").read_text()
    for words, what in [
        (("--seed", "1"), "seed: 0, now 1"),
        (("--max_new_tokens", "13"), "max_new_tokens: 12, now 13"),
        (("--system_prompt", "Be brief."), "or other prompts for it (gsm8k-0000 differs)"),
        (("--dtype", "bfloat16"), "dtype: 'auto', now 'bfloat16'"),
    ]:
        refused(capsys, place, what, *BRIEF, "--benchmarks", "gsm8k", "--output_dir", "out", *words)
    save_model(place / "model", tokenizer, seed=1)
    refused(
        capsys,
        place,
        "of other weights (model)",
        *BRIEF,
        "--benchmarks",
        "gsm8k",
        "--output_dir",
        "out",
    )
    assert (place / "out" / "results.json").read_text() == before


def test_temperatures(place):
    words = ("--benchmarks", "gsm8k", "amc23", "--temperatures", "0.5,1.5", "--num_samples", "3")
    assert evaluate(*BRIEF, *words, "--output_dir", "out") == 0
    results = results_in(place / "out")
    assert [(one["benchmark"], one["temperature"]) for one in results["evaluations"]] == [
        ("gsm8k", 0.5), ("gsm8k", 1.5), ("amc23", 0.5), ("amc23", 1.5),
    ]  # fmt: skip
    assert [one["temperature"] for one in results["macro"]] == [0.5, 1.5]
    cold, hot = (results["evaluations"][place]["scores"]["entropy"]["value"] for place in (0, 1))
    assert cold < hot


def test_open_ended_prompts_are_judged_for_diversity_only(place):
    write_rows(place / "poems.jsonl", [{"instruction": "one two three"}, {"instruction": "four five"}])
    assert evaluate(*BRIEF, "--prompts", "poems.jsonl", "--num_samples", "4", "--output_dir", "out") == 0
    (poems,) = results_in(place / "out")["evaluations"]
    assert poems["benchmark"] == "poems" and poems["metric"] is None and poems["grader"] is None
    assert "self_bleu" in poems["scores"] and not any("pass@" in name for name in poems["scores"])
    assert not (place / "out" / "grades.jsonl").read_text()


def test_best_of_n_with_a_function_and_embeddings_with_another(place):
    (place / "judge_mine.py").write_text(
        "def length(prompts, texts):\n    return [float(len(text)) for text in texts]\n\n"
        "def letters(texts):\n    return [[1.0, text.count('e'), text.count('o')] for text in texts]\n"
    )
    words = ("--benchmarks", "gsm8k", "--num_samples", "4", "--reward_model", "judge_mine:length")
    assert evaluate(*BRIEF, *words, "--embedding_model", "judge_mine:letters", "--output_dir", "out") == 0
    (gsm8k,) = results_in(place / "out")["evaluations"]
    scores = gsm8k["scores"]
    assert {"best_of@1", "best_of@4", "weighted_maj@2", "embedding_diversity", "vendi"} <= set(scores)
    texts = [row["text"] for row in read_rows(place / "out" / "samples.jsonl")]
    notes = read_rows(place / "out" / "grades.jsonl")
    assert sorted(row["score"] for row in notes) == sorted(len(text) for text in texts)
    longest = {}
    for row in notes:
        longest[row["id"]] = max(longest.get(row["id"], 0), row["score"])
    assert scores["expected_max@4"]["value"] == pytest.approx(sum(longest.values()) / 5)


def test_mistakes_are_refused_before_anything_is_written(place, tokenizer, capsys):
    bare = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="<eos>")
    bare.chat_template = None
    save_model(place / "base", bare)
    tiny_llama(100).save_pretrained(place / "wordless")
    write_rows(place / "own.jsonl", [{"prompt": "one two", "completion": "three"}])
    gsm8k = ("--benchmarks", "gsm8k", "--data_dir", "data")
    for message, words in [
        ("--model is missing", gsm8k),
        ("Nothing to measure", ("--model", "model")),
        ("Unknown benchmark 'gsm9k'. Did you mean gsm8k", ("--model", "model", "--benchmarks", "gsm9k")),
        ("has no chat template. Give one with --chat_template_path", ("--model", "base", *gsm8k)),
        ("--max_new_tokens to", ("--model", "model", *gsm8k)),  # 3072 new tokens, 256 positions
        ("of problem gsm8k-0000", ("--model", "model", *gsm8k)),
        ("not both", ("--model", "model", *gsm8k, "--temperature", "1", "--temperatures", "1,2")),
        ("each temperature once", ("--model", "model", *gsm8k, "--temperatures", "1,1")),
        ("--num_samples must be at least 1, got 0", ("--model", "model", *gsm8k, "--num_samples", "0")),
        ("temperature 0 gives 2 equal samples", (*BRIEF, *gsm8k, "--temperature", "0", "--num_samples", "2")),
        ("--forgetting needs --reference", ("--model", "model", "--forgetting", "gem")),
        ("--world does not go with --benchmarks", ("--model", "model", *gsm8k, "--world", "recall")),
        ("no function 'score'", (*BRIEF, *gsm8k, "--reward_model", "json:score")),
        ("is for --backend vllm", (*BRIEF, *gsm8k, "--vllm_server_base_url", "http://localhost:1")),
        ("chat_template_kwargs is not JSON", (*BRIEF, *gsm8k, "--chat_template_kwargs", "{no")),
        ("--samples does not go with --num_samples", ("--samples", "x.jsonl", *gsm8k, "--num_samples", "3")),
        ("nowhere", (*BRIEF, *gsm8k, "--reward_model", "./nowhere")),
        ("--reward grades the samples of --data", (*BRIEF, *gsm8k, "--reward", "math")),
        ("--reference is for --data, --forgetting or --world", (*BRIEF, *gsm8k, "--reference", "model")),
        ("--temperatures is for sampling", ("--model", "model", "--data", "own.jsonl", "--temperatures", "1,2")),
        ("own.jsonl is a file, and a report is a folder", (*BRIEF, *gsm8k, "--output_dir", "own.jsonl")),
        ("found completion, prompt", ("--model", "model", "--data", "own.jsonl", "--reward", "math")),
        ("Cannot load a tokenizer from wordless", ("--model", "wordless", *gsm8k)),
        ("own is judged for diversity", (*BRIEF, "--prompts", "own.jsonl", "--num_samples", "1")),
        ("There is no model in ./nowhere", ("--model", "./nowhere", *gsm8k)),
        ("vllm", (*BRIEF, *gsm8k, "--backend", "vllm")),
    ]:
        refused(capsys, place, message, *words)


def test_a_base_model_without_chat_template_is_asked_in_plain_text(place, tokenizer):
    bare = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="<eos>")
    save_model(place / "base", bare)
    words = ("--model", "base", "--benchmarks", "gsm8k", "--data_dir", "data", "--max_new_tokens", "5")
    assert evaluate(*words, "--prompt_format", "text", "--output_dir", "text") == 0
    (place / "chat.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %} so ")
    assert evaluate(*words, "--chat_template_path", "chat.jinja", "--output_dir", "chat") == 0
    (row, *_) = read_rows(place / "text" / "problems.jsonl")
    assert row["prompt"].startswith("one plus four is?\nPlease reason") and row["answer"] == "3"


def test_two_runs_into_one_folder(place, capsys):
    import fcntl

    (place / "out").mkdir()
    with (place / "out" / "samples.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "--output_dir", "out") == 2
    assert "Another run is writing to out" in capsys.readouterr().err


def test_a_folder_with_an_adapter_is_a_model(place, tokenizer):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained("model")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained("adapter")
    tokenizer.save_pretrained("adapter")
    words = ("--benchmarks", "gsm8k", "--data_dir", "data", "--max_new_tokens", "12", "--num_samples", "2")
    assert evaluate("--model", "adapter", *words, "--output_dir", "out") == 0
    assert evaluate("--model", "model", *words, "--output_dir", "plain") == 0
    drawn = [[row["logprob"] for row in read_rows(place / name / "samples.jsonl")] for name in ("out", "plain")]
    assert drawn[0] != drawn[1]


def test_further_commands_join_what_the_folder_holds(place):
    write_rows(place / "texts.jsonl", [{"text": "one two three"}, {"text": "four five six"}])
    out = ("--output_dir", "out")
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "--num_prompts", "2", *out) == 0  # a trial
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", *out) == 0
    assert evaluate("--model", "model", "--data", "texts.jsonl", *out) == 0
    assert evaluate(*BRIEF, "--benchmarks", "amc23", "--num_samples", "2", "--batch_size", "3", *out) == 0
    results = results_in(place / "out")
    assert [(one["benchmark"], one["num_problems"]) for one in results["evaluations"]] == [("gsm8k", 5), ("amc23", 5)]
    assert results["tokens"]["num_rows"] == 2 and results["macro"][0]["n"] == 2
    assert len(read_rows(place / "out" / "problems.jsonl")) == 10
    assert evaluate("--regrade", "out", "--grader", "strict") == 0
    again = results_in(place / "out")
    assert [one["grader"]["mode"] for one in again["evaluations"]] == ["strict"] * 2
    assert again["tokens"] == results["tokens"]


def test_regrading_leaves_alone_what_a_reward_graded(place, capsys):
    (place / "judge_own.py").write_text(
        "def short(completions, **columns):\n    return [float(len(str(one)) < 99) for one in completions]\n"
    )
    write_rows(place / "own.jsonl", [{"prompt": "one two"}, {"prompt": "three"}])
    out = ("--output_dir", "out")
    words = ("--data", "own.jsonl", "--reward", "judge_own:short", "--num_samples", "2", "--max_new_tokens", "5")
    assert evaluate("--model", "model", *words, *out) == 0
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", *out) == 0
    before = results_in(place / "out")
    assert "macro" not in before  # data of one's own is no benchmark to average with
    assert evaluate("--regrade", "out") == 0
    assert "own stays as it was graded" in capsys.readouterr().out
    assert results_in(place / "out")["evaluations"] == before["evaluations"]


def test_the_folder_may_be_the_models_own(place):
    for _ in range(2):
        assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "--output_dir", "model") == 0


def test_template_settings_reach_the_template(place, tokenizer):
    save_model(place / "thinking", tokenizer)
    (place / "thinking" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if think %} so {% endif %}"
    )
    words = ("--benchmarks", "gsm8k", "--data_dir", "data", "--max_new_tokens", "4", "--model", "thinking")
    seen = []
    for name in ("true", "false"):
        assert evaluate(*words, "--chat_template_kwargs", f'{{"think": {name}}}', "--output_dir", name) == 0
        seen.append(results_in(place / name)["evaluations"][0])
    assert seen[0]["prompt_hash"] == seen[1]["prompt_hash"]
    assert seen[0]["sampling"]["chat_template"] != seen[1]["sampling"]["chat_template"]
    texts = [[row["text"] for row in read_rows(place / name / "samples.jsonl")] for name in ("true", "false")]
    assert texts[0] != texts[1]


def test_an_adapter_on_other_weights_is_another_model(place, tokenizer, capsys):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained("model")
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained("adapter")
    tokenizer.save_pretrained("adapter")
    words = ("--model", "adapter", "--benchmarks", "gsm8k", "--data_dir", "data", "--max_new_tokens", "4")
    assert evaluate(*words, "--output_dir", "out") == 0
    save_model(place / "model", tokenizer, seed=1)
    refused(capsys, place, "of other weights (adapter)", *words, "--output_dir", "out")


def test_unknown_forgetting_tasks_are_refused_first(place, capsys):
    pytest.importorskip("lm_eval")
    (place / "tasks").mkdir()
    words = ("--benchmarks", "gsm8k", "--reference", "model", "--forgetting", "no_such_task", "--task_dir", "tasks")
    refused(capsys, place, "lm-eval knows no task 'no_such_task'", *BRIEF, *words)


def test_a_folder_is_graded_by_one_set_of_rules(place, capsys):
    out = ("--output_dir", "out")
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "--grader", "strict", *out) == 0
    refused(capsys, place, "was graded strict by grader version", *BRIEF, "--benchmarks", "amc23", *out)
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", *out) == 0  # the only one, measured again
    assert evaluate("--regrade", "out", "--grader", "strict") == 0
    write_rows(place / "poems.jsonl", [{"instruction": "one two three"}])
    assert evaluate(*BRIEF, "--prompts", "poems.jsonl", "--num_samples", "2", *out) == 0  # nothing to grade
    assert evaluate("--regrade", "out", "--grader", "lenient") == 0
    assert evaluate(*BRIEF, "--benchmarks", "amc23", *out) == 0


def test_a_reward_of_none_is_refused(place, capsys):
    (place / "none_mine.py").write_text("def none(completions, **columns):\n    return [None] * len(completions)\n")
    write_rows(place / "own.jsonl", [{"prompt": "one two"}])
    words = ("--data", "own.jsonl", "--reward", "none_mine:none", "--num_samples", "2", "--max_new_tokens", "3")
    assert evaluate("--model", "model", *words, "--output_dir", "out") == 2
    assert "Reward none_mine:none gave None" in capsys.readouterr().err


def test_temperatures_may_be_a_list_in_a_recipe_and_hold_greedy(place):
    (place / "eval.yaml").write_text(
        "model: model\ndata_dir: data\nbenchmarks: [gsm8k]\ntemperatures: [0, 1.5]\nnum_samples: 2\n"
        "max_new_tokens: 3\noutput_dir: out\n"
    )
    assert evaluate("--config", "eval.yaml") == 0
    found = [(one["temperature"], one["num_samples"]) for one in results_in(place / "out")["evaluations"]]
    assert found == [(0.0, 1), (1.5, 2)]


def test_a_set_of_another_kind_does_not_take_the_place_of_a_benchmark(place, capsys):
    (place / "judge_all.py").write_text("def one(completions, **columns):\n    return [1.0] * len(completions)\n")
    write_rows(place / "gsm8k.jsonl", [{"prompt": "one two"}])
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "--output_dir", "out") == 0
    before = (place / "out" / "results.json").read_text()
    words = ("--model", "model", "--data", "gsm8k.jsonl", "--reward", "judge_all:one", "--max_new_tokens", "3")
    refused(capsys, place, "holds another set called gsm8k", *words, "--output_dir", "out")
    assert (place / "out" / "results.json").read_text() == before


def test_every_way_to_evaluate_waits_for_the_folder(place, capsys):
    write_rows(place / "texts.jsonl", [{"text": "one two three"}])
    assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "--output_dir", "out") == 0
    with locked(place / "out"):
        for words in (("--model", "model", "--data", "texts.jsonl", "--output_dir", "out"), ("--regrade", "out")):
            assert evaluate(*words) == 2
            assert "Another run is writing to out" in capsys.readouterr().err


def test_a_reward_model_is_asked_again_whatever_came_between(place):
    (place / "judge_length.py").write_text(
        "def score(prompts, texts):\n    return [float(len(one)) for one in texts]\n"
    )
    write_rows(place / "texts.jsonl", [{"text": "one two three"}, {"text": "four five"}])
    out = ("--output_dir", "out")
    words = ("--benchmarks", "gsm8k", "--num_samples", "2", "--reward_model", "judge_length:score")
    assert evaluate(*BRIEF, *words, *out) == 0
    assert evaluate("--model", "model", "--data", "texts.jsonl", "--reference", "model", *out) == 0
    before = results_in(place / "out")
    assert evaluate("--regrade", "out") == 0
    assert results_in(place / "out")["evaluations"] == before["evaluations"]
    assert "best_of@2" in before["evaluations"][0]["scores"] and "ledger" in before
    assert evaluate("--model", "model", "--data", "texts.jsonl", "--num_prompts", "1", *out) == 0
    assert "ledger" not in results_in(place / "out")  # it was of other texts


def test_a_model_that_fails_leaves_what_was_there(place, capsys, monkeypatch):
    def broken(plan):
        raise ValueError("the model broke")

    (place / "out").mkdir()
    (place / "out" / "mine.txt").write_text("keep")
    with monkeypatch.context() as patch:
        patch.setattr("manypaths.drawing.open_backend", broken)
        refused(capsys, place, "the model broke", *BRIEF, "--benchmarks", "gsm8k", "--output_dir", "new")
        refused(capsys, place, "the model broke", *BRIEF, "--benchmarks", "gsm8k", "--output_dir", "out")
    assert sorted(os.listdir(place / "out")) == [".lock", "mine.txt"]

    def half(plan):
        whole = open_backend(plan)

        def draw(requests, done):
            for number, one in enumerate(whole.draw(requests, done)):
                if number == 3:
                    raise ValueError("the machine went away")
                yield one

        return Backend("half", draw)

    with monkeypatch.context() as patch:
        patch.setattr("manypaths.drawing.open_backend", half)
        assert evaluate(*BRIEF, "--benchmarks", "gsm8k", "--output_dir", "new") == 2
    assert len(read_rows(place / "new" / "samples.jsonl")) == 3


def test_the_model_here_has_a_name(place, monkeypatch):
    monkeypatch.chdir(place / "model")
    words = ("--benchmarks", "gsm8k", "--data_dir", "../data", "--max_new_tokens", "3", "--output_dir", "../out")
    assert evaluate("--model", ".", *words) == 0
    assert results_in(place / "out")["label"] == "model"


def test_greedy_in_a_sweep_over_own_data(place):
    (place / "judge_all2.py").write_text("def one(completions, **columns):\n    return [1.0] * len(completions)\n")
    write_rows(place / "own.jsonl", [{"prompt": "one two"}])
    words = ("--data", "own.jsonl", "--reward", "judge_all2:one", "--max_new_tokens", "3", "--num_samples", "2")
    assert evaluate("--model", "model", *words, "--temperatures", "0,1", "--output_dir", "out") == 0
    assert [one["num_samples"] for one in results_in(place / "out")["evaluations"]] == [1, 2]
