"""Evaluations from options to a folder of results, on invented benchmarks and a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from conftest import tiny_llama
from evaluations import read_rows, rows_of, save_model, score_of, write_benchmarks, write_rows
from manypaths.config import parse
from manypaths.evaluation import generate, pipeline
from manypaths.evaluation.benchmarks import BENCHMARKS
from manypaths.evaluation.config import EVAL_OPTIONS
from manypaths.evaluation.table import KEYS, Results, load_results
from manypaths.generation.samples import Backend
from manypaths.run_folder import locked

EVAL = (
    "import sys; from manypaths.config import parse; from manypaths.evaluation.config import EVAL_OPTIONS; "
    "from manypaths.evaluation.pipeline import evaluate; evaluate(*parse(EVAL_OPTIONS, sys.argv[1:], 'eval'))"
)
BRIEF = ("--model", "model", "--data_dir", "data", "--max_new_tokens", "12")
GSM8K = ("--benchmarks", "gsm8k")


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    """A working directory with `model` and the eight benchmarks in `data`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    save_model(tmp_path / "model", tokenizer)
    write_benchmarks(tmp_path / "data")
    return tmp_path


def evaluate(*words: str) -> Results:
    return pipeline.evaluate(*parse(EVAL_OPTIONS, list(words), "manypaths eval"))


def into(folder: str, *words: str) -> Results:
    return evaluate(*BRIEF, *words, "--output_dir", folder)


def refused(place, message: str, *words: str) -> None:
    before = sorted(os.listdir(place))
    with pytest.raises((ValueError, OSError, ImportError)) as caught:
        evaluate(*words)
    assert message in " ".join(str(caught.value).split()), caught.value
    assert sorted(os.listdir(place)) == before


def same(first: Results, second: Results) -> None:
    """Equal but for when they were made, where, and how long it took."""
    pd.testing.assert_frame_equal(first.scores, second.scores)
    pd.testing.assert_frame_equal(first.items, second.items)
    assert first.tasks == second.tasks


@pytest.mark.slow
@pytest.mark.heavy
def test_all_eight_killed_and_resumed_equal_an_undisturbed_run(place, capfd):
    words = [*BRIEF, "--benchmarks", "all", "--batch_size", "7", "--label", "tiny"]
    words += ["--max_new_tokens", "40", "--num_samples", "4"]
    whole = evaluate(*words, "--output_dir", "whole")
    samples = place / "killed" / "samples.jsonl"
    command = [sys.executable, "-c", EVAL, *words, "--output_dir", "killed"]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while run.poll() is None and (not samples.exists() or samples.read_bytes().count(b"\n") < 20):
        time.sleep(0.002)
    assert run.poll() is None, "it ended before it could be killed"
    run.send_signal(signal.SIGKILL)
    run.wait()
    seen = samples.read_bytes().count(b"\n")
    with samples.open("ab") as file:
        file.write(b'{"task": "gsm8k", "id": "gsm')  # as if the kill had fallen into a line
    capfd.readouterr()
    same(evaluate(*words, "--output_dir", "killed"), whole)
    assert f"{seen}/160" in capfd.readouterr().err, "it drew again what was there"
    lines = [sorted(map(json.dumps, read_rows(place / name / "samples.jsonl"))) for name in ("killed", "whole")]
    assert lines[0] == lines[1]
    for name in ("grades.jsonl", "problems.jsonl"):
        assert (place / "killed" / name).read_text() == (place / "whole" / name).read_text()
    assert [entry["task"] for entry in whole.tasks] == list(BENCHMARKS)
    average = score_of(whole.scores, "pass@1", task="average")
    assert average["n"] == 8 and average["over"] == "tasks" and average["method"] == "tiny"


def test_every_score_says_how_it_was_made(place):
    results = into("out", "--benchmarks", "gsm8k", "aime24", "--num_prompts", "3")
    gsm8k, aime = results.tasks
    assert (gsm8k["num_samples"], aime["num_samples"]) == (1, 8)
    assert aime["sampling"] | {"backend": ""} == {
        "backend": "", "num_samples": 8, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "max_new_tokens": 12, "seed": 0,
        "prompt_format": "chat", "chat_template": aime["sampling"]["chat_template"],
    }  # fmt: skip
    assert len(aime["sampling"]["chat_template"]) == 12
    assert aime["sampling"]["backend"].startswith("transformers ")
    assert sum(aime["stops"].values()) == 24 and aime["grader"]["mode"] == "lenient"
    assert aime["prompt_hash"] != gsm8k["prompt_hash"]
    metrics = set(rows_of(results.scores, task="aime24")["metric"])
    assert {"pass@1", "pass@8", "maj@4", "distinct_answers", "self_bleu", "sampled_entropy", "length"} <= metrics
    assert "self_bleu" not in set(rows_of(results.scores, task="gsm8k")["metric"])  # one sample has no others
    (run,) = results.runs
    assert (run["method"], run["stage"], run["seed"], run["role"]) == ("model", "", None, "method")
    assert run["folder"] == str(place / "out") and results.header["settings"]["num_prompts"] == 3
    assert len(rows_of(results.items, task="aime24", metric="num_correct")) == 3


@pytest.mark.slow
def test_more_samples_benchmarks_and_problems_join_those_that_are_there(place):
    into("out", *GSM8K, "--num_samples", "2", "--num_prompts", "2")
    before = read_rows(place / "out" / "samples.jsonl")
    write_rows(place / "texts.jsonl", [{"text": "one two three"}, {"text": "four five six"}])
    evaluate("--model", "model", "--data", "texts.jsonl", "--output_dir", "out")
    results = into("out", *GSM8K, "amc23", "--num_samples", "4")
    after = read_rows(place / "out" / "samples.jsonl")
    assert after[: len(before)] == before and len(after) == 40
    assert [(entry["task"], entry["num_samples"], entry["num_problems"]) for entry in results.tasks] == [
        ("gsm8k", 4, 5), ("amc23", 4, 5),
    ]  # fmt: skip
    assert score_of(results.scores, "ce", task="texts")["n"] == 2 and "pass@2" in set(results.scores["metric"])
    assert not results.scores.duplicated([*KEYS, "metric"]).any()
    assert not results.items.duplicated([*KEYS, "item", "metric"]).any()
    assert len(read_rows(place / "out" / "problems.jsonl")) == 10


def test_a_folder_with_samples_of_other_settings_is_refused(place, tokenizer):
    into("out", *GSM8K)
    before = (place / "out" / "results.json").read_text()
    words = (*BRIEF, *GSM8K, "--output_dir", "out")
    for more, what in [
        (("--seed", "1"), "gsm8k at 1.seed: there 0, now 1"),
        (("--max_new_tokens", "13"), "max_new_tokens: there 12, now 13"),
        (("--system_prompt", "Be brief."), "or other prompts for it (gsm8k-0000 differs)"),
        (("--dtype", "bfloat16"), "dtype: there 'auto', now 'bfloat16'"),
    ]:
        refused(place, what, *words, *more)
    (place / "judge_all.py").write_text("def one(completions, **columns):\n    return [1.0] * len(completions)\n")
    write_rows(place / "gsm8k.jsonl", [{"prompt": "one two"}])
    own = ("--data", "gsm8k.jsonl", "--reward", "judge_all:one", "--max_new_tokens", "12", "--seed", "0")
    refused(place, "holds another", "--model", "model", *own, "--output_dir", "out")
    save_model(place / "model", tokenizer, seed=1)
    refused(place, "weights: there", *words)
    assert (place / "out" / "results.json").read_text() == before


def test_temperatures(place):
    results = into("out", "--benchmarks", "gsm8k", "amc23", "--temperatures", "0.5,1.5", "--num_samples", "3")
    assert [(entry["task"], entry["temperature"]) for entry in results.tasks] == [
        ("gsm8k", 0.5), ("gsm8k", 1.5), ("amc23", 0.5), ("amc23", 1.5),
    ]  # fmt: skip
    assert list(rows_of(results.scores, task="average", metric="pass@1")["temperature"]) == [0.5, 1.5]
    low, high = (score_of(results.scores, "sampled_entropy", task="gsm8k", temperature=at)["value"] for at in (0.5, 1.5))
    assert low < high


def test_temperatures_may_be_a_list_in_a_recipe_and_hold_greedy(place):
    (place / "eval.yaml").write_text(
        "model: model\ndata_dir: data\nbenchmarks: [gsm8k]\ntemperatures: [0, 1.5]\nnum_samples: 2\n"
        "max_new_tokens: 3\noutput_dir: out\n"
    )
    tasks = evaluate("--config", "eval.yaml").tasks
    assert [(entry["temperature"], entry["num_samples"]) for entry in tasks] == [(0.0, 1), (1.5, 2)]


def test_open_ended_prompts_are_judged_for_diversity_only(place):
    write_rows(place / "poems.jsonl", [{"instruction": "one two three"}, {"instruction": "four five"}])
    results = into("out", "--prompts", "poems.jsonl", "--num_samples", "4")
    (poems,) = results.tasks
    metrics = set(results.scores["metric"])
    assert (poems["task"], poems["grader"]) == ("poems", None)
    assert "self_bleu" in metrics and not any("pass@" in metric for metric in metrics)
    assert not (place / "out" / "grades.jsonl").read_text()


@pytest.mark.slow
def test_best_of_n_with_a_function_and_embeddings_with_another(place):
    (place / "judge_mine.py").write_text(
        "def length(prompts, texts):\n    return [float(len(text)) for text in texts]\n\n"
        "def letters(texts):\n    return [[1.0, text.count('e'), text.count('o')] for text in texts]\n"
    )
    words = ("--num_samples", "4", "--reward_model", "judge_mine:length", "--embedding_model", "judge_mine:letters")
    results = into("out", *GSM8K, *words)
    assert {"best_of@1", "best_of@4", "weighted_maj@2", "embedding_diversity", "vendi"} <= set(results.scores["metric"])
    texts = [row["text"] for row in read_rows(place / "out" / "samples.jsonl")]
    notes = read_rows(place / "out" / "grades.jsonl")
    assert sorted(row["score"] for row in notes) == sorted(len(text) for text in texts)
    longest = {}
    for row in notes:
        longest[row["id"]] = max(longest.get(row["id"], 0), row["score"])
    assert score_of(results.scores, "expected_max@4")["value"] == pytest.approx(sum(longest.values()) / 5)
    write_rows(place / "texts.jsonl", [{"text": "one two three"}, {"text": "four five"}])
    evaluate("--model", "model", "--data", "texts.jsonl", "--reference", "model", "--output_dir", "out")
    before = load_results("out")
    same(evaluate("--rescore", "out"), before)  # the judges of before are asked again
    assert "best_of@2" in set(before.scores["metric"]) and "ce_increase" in set(before.scores["metric"])
    evaluate("--model", "model", "--data", "texts.jsonl", "--num_prompts", "1", "--output_dir", "out")
    assert "ce_increase" not in set(load_results("out").scores["metric"])  # it was of other texts


def test_completions_are_read_again_for_exact_entropy_and_kl(place, tokenizer):
    save_model(place / "base", tokenizer, seed=1)
    words = ("--num_samples", "4", "--temperature", "0.8")
    results = into("out", *GSM8K, *words, "--reference", "base", "--reread_samples", "2")
    entropy, kl = (score_of(results.scores, metric) for metric in ("entropy", "kl_to_reference"))
    assert 0 < entropy["low"] <= entropy["value"] <= entropy["high"] and entropy["over"] == "problems"
    assert kl["value"] > 0 and len(rows_of(results.items, metric="kl_to_reference")) == 5
    again = evaluate("--rescore", "out", "--grader", "strict")
    for metric, before in (("entropy", entropy), ("kl_to_reference", kl)):
        assert [score_of(again.scores, metric)[name] for name in ("value", "low")] == [before["value"], before["low"]]
    assert "entropy" not in set(into("plain", *GSM8K, *words).scores["metric"])  # not without a reference


def test_files_of_a_world_are_ordinary_benchmarks(place):
    rows = [{"prompt": f"one two {place}", "numbers": [1, 2, 3], "target": 6} for place in range(3)]
    write_rows(place / "test.jsonl", rows)
    write_rows(place / "sort.jsonl", [{"prompt": "three one", "answer": "one three"}] * 2)
    common = "problem: prompt\nprompt_format: text\nmax_new_tokens: 4\n"
    (place / "test.yaml").write_text(
        f"name: countdown\nsource: test.jsonl\nanswer: null\ngrader: countdown\nnum_samples: 4\n{common}"
    )
    (place / "sort.yaml").write_text(
        f"name: sort\nsource: sort.jsonl\ngrader: exact\ngroup: side tasks\ntemperature: 0\n{common}"
    )
    results = evaluate("--model", "model", "--benchmarks", "test.yaml", "sort.yaml", "--output_dir", "out")
    assert score_of(results.scores, "pass@4", task="countdown")["value"] == 0.0
    assert "side" in score_of(results.scores, "pass@1", task="sort")["flags"]
    assert [entry["grader"]["name"] for entry in results.tasks] == ["countdown", "exact"]
    same(evaluate("--rescore", "out"), results)  # the rows that graders read are in the folder


def test_data_with_a_reward_is_a_task_and_can_be_scored_again(place):
    (place / "judge_own.py").write_text(
        "def short(completions, bonus, **columns):\n"
        "    return [float(len(str(one)) < 99) + more for one, more in zip(completions, bonus)]\n"
    )
    write_rows(place / "own.jsonl", [{"prompt": "one two", "bonus": 0.0}, {"prompt": "three", "bonus": 1.0}])
    words = ("--data", "own.jsonl", "--reward", "judge_own:short", "--num_samples", "2", "--max_new_tokens", "5")
    results = evaluate("--model", "model", *words, "--output_dir", "out")
    assert score_of(results.scores, "mean_reward")["value"] == 1.5 and score_of(results.scores, "pass@1")["value"] == 1.0
    same(evaluate("--rescore", "out"), results)
    again = evaluate("--rescore", "out", "--correct_at", "2")
    assert score_of(again.scores, "pass@1")["value"] == 0.5 and again.tasks[0]["grader"]["correct_at"] == 2.0


def test_data_with_answers_and_a_reward_gets_token_scores_and_samples(place):
    write_rows(place / "own.jsonl", [{"prompt": "one two", "completion": " three", "answer": "three"}] * 2)
    words = ("--data", "own.jsonl", "--reward", "exact", "--num_samples", "2", "--max_new_tokens", "3")
    results = evaluate("--model", "model", *words, "--output_dir", "out")
    assert {"ce", "p_label_p50", "pass@1", "self_bleu"} - set(results.scores["metric"]) <= {"self_bleu"}
    assert set(results.scores["task"]) == {"own"} and set(results.scores["over"]) == {"texts", "problems"}
    assert len(read_rows(place / "out" / "problems.jsonl")) == 2
    same(evaluate("--rescore", "out"), results)


def test_mistakes_are_refused_before_anything_is_written(place, tokenizer):
    bare = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="<eos>")
    bare.chat_template = None
    save_model(place / "base", bare)
    tiny_llama(100).save_pretrained(place / "wordless")
    write_rows(place / "own.jsonl", [{"prompt": "one two", "completion": "three"}])
    gsm8k = (*GSM8K, "--data_dir", "data")
    model = ("--model", "model")
    for message, words in [
        ("--model is missing", gsm8k),
        ("Nothing to measure", model),
        ("Unknown benchmark 'gsm9k'. Did you mean gsm8k", (*model, "--benchmarks", "gsm9k")),
        ("has no chat template. Give one with --chat_template_path", ("--model", "base", *gsm8k)),
        ("--max_new_tokens to", (*model, *gsm8k)),  # 3072 new tokens, 256 positions
        ("of problem gsm8k-0000", (*model, *gsm8k)),
        ("not both", (*model, *gsm8k, "--temperature", "1", "--temperatures", "1,2")),
        ("each temperature once", (*model, *gsm8k, "--temperatures", "1,1")),
        ("--num_samples must be at least 1, got 0", (*model, *gsm8k, "--num_samples", "0")),
        ("--batch_size must be at least 1, got 0", (*model, *gsm8k, "--batch_size", "0")),
        ("temperature 0 gives 2 equal samples", (*BRIEF, *GSM8K, "--temperature", "0", "--num_samples", "2")),
        ("--forgetting needs --reference", (*model, "--forgetting", "gem")),
        ("no function 'score'", (*BRIEF, *GSM8K, "--reward_model", "json:score")),
        ("is for --backend vllm", (*BRIEF, *GSM8K, "--vllm_server_base_url", "http://localhost:1")),
        ("chat_template_kwargs is not JSON", (*BRIEF, *GSM8K, "--chat_template_kwargs", "{no")),
        ("--completions does not go with --num_samples", ("--completions", "x.jsonl", *gsm8k, "--num_samples", "3")),
        ("nowhere", (*BRIEF, *GSM8K, "--reward_model", "./nowhere")),
        ("--reward grades the samples of --data", (*BRIEF, *GSM8K, "--reward", "math")),
        ("--temperatures is for sampling", (*model, "--data", "own.jsonl", "--temperatures", "1,2")),
        ("own.jsonl is a file", (*BRIEF, *GSM8K, "--output_dir", "own.jsonl")),
        ("there are completion, prompt", (*model, "--data", "own.jsonl", "--reward", "math")),
        ("Cannot load a tokenizer from wordless", ("--model", "wordless", *gsm8k)),
        ("own is judged for diversity", (*BRIEF, "--prompts", "own.jsonl", "--num_samples", "1")),
        ("There is no model in ./nowhere", ("--model", "./nowhere", *gsm8k)),
        ("There is no model in ./nowhere", (*BRIEF, *GSM8K, "--reference", "./nowhere")),
        ("vllm", (*BRIEF, *GSM8K, "--backend", "vllm")),
    ]:
        refused(place, message, *words)
    write_rows(place / "own.jsonl", [{"prompt": "one two"}])
    refused(place, "own.jsonl has prompts only: give a --reward or --num_samples", *model, "--data", "own.jsonl")


def test_a_base_model_without_chat_template_is_asked_in_plain_text(place, tokenizer):
    bare = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="<eos>")
    save_model(place / "base", bare)
    words = ("--model", "base", *GSM8K, "--data_dir", "data", "--max_new_tokens", "5")
    evaluate(*words, "--prompt_format", "text", "--output_dir", "text")
    (place / "chat.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %} so ")
    evaluate(*words, "--chat_template_path", "chat.jinja", "--output_dir", "chat")
    (row, *_) = read_rows(place / "text" / "problems.jsonl")
    assert row["prompt"].startswith("one plus four is?\nPlease reason") and row["answer"] == "3"


def test_every_way_to_evaluate_waits_for_the_folder(place):
    write_rows(place / "texts.jsonl", [{"text": "one two three"}])
    into("out", *GSM8K)
    with locked(place / "out"):
        for words in (("--model", "model", "--data", "texts.jsonl", "--output_dir", "out"), ("--rescore", "out")):
            with pytest.raises(ValueError, match="Another run is writing to out"):
                evaluate(*words)


def test_a_folder_with_an_adapter_is_a_model_and_its_base_counts(place, tokenizer):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained("model")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained("adapter")
    tokenizer.save_pretrained("adapter")
    words = (*GSM8K, "--data_dir", "data", "--max_new_tokens", "4", "--num_samples", "2")
    evaluate("--model", "adapter", *words, "--output_dir", "out")
    evaluate("--model", "model", *words, "--output_dir", "plain")
    drawn = [[row["logprob"] for row in read_rows(place / name / "samples.jsonl")] for name in ("out", "plain")]
    assert drawn[0] != drawn[1]
    save_model(place / "model", tokenizer, seed=1)
    refused(place, "weights: there", "--model", "adapter", *words, "--output_dir", "out")


def test_the_model_here_has_a_name_and_what_its_folder_remembers_counts(place, monkeypatch):
    (place / "model" / "manypaths_run.json").write_text(
        json.dumps({"subcommand": "sft", "settings": {"seed": 3, "objective": "sed"}, "parts": {}, "notes": {}})
    )
    monkeypatch.chdir(place / "model")
    words = (*GSM8K, "--data_dir", "../data", "--max_new_tokens", "3", "--output_dir", "../out")
    results = evaluate("--model", ".", *words)
    assert set(results.scores["method"]) == {"model"} and set(results.scores["stage"]) == {"sft"}
    assert set(results.items["seed"]) == {3.0} and results.runs[0]["objective"] == "sed"


def test_template_settings_reach_the_template(place, tokenizer):
    save_model(place / "thinking", tokenizer)
    (place / "thinking" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if think %} so {% endif %}"
    )
    words = (*GSM8K, "--data_dir", "data", "--max_new_tokens", "4", "--model", "thinking")
    seen = [
        evaluate(*words, "--chat_template_kwargs", f'{{"think": {name}}}', "--output_dir", name).tasks[0]
        for name in ("true", "false")
    ]
    assert seen[0]["prompt_hash"] == seen[1]["prompt_hash"]
    assert seen[0]["sampling"]["chat_template"] != seen[1]["sampling"]["chat_template"]
    texts = [[row["text"] for row in read_rows(place / name / "samples.jsonl")] for name in ("true", "false")]
    assert texts[0] != texts[1]


@pytest.mark.slow
def test_unknown_forgetting_tasks_are_refused_first(place):
    pytest.importorskip("lm_eval")
    (place / "tasks").mkdir()
    words = (*GSM8K, "--reference", "model", "--forgetting", "no_such_task", "--task_dir", "tasks")
    refused(place, "lm-eval knows no task 'no_such_task'", *BRIEF, *words)


def test_a_folder_is_graded_by_one_set_of_rules(place):
    into("out", *GSM8K, "--grader", "strict")
    refused(place, "was graded strict by grader version", *BRIEF, "--benchmarks", "amc23", "--output_dir", "out")
    into("out", *GSM8K)  # the only one, measured again
    evaluate("--rescore", "out", "--grader", "strict")
    write_rows(place / "poems.jsonl", [{"instruction": "one two three"}])
    into("out", "--prompts", "poems.jsonl", "--num_samples", "2")  # nothing to grade
    evaluate("--rescore", "out", "--grader", "lenient")
    results = into("out", "--benchmarks", "amc23")
    assert [(entry["grader"] or {}).get("mode") for entry in results.tasks] == ["lenient", None, "lenient"]


def test_a_model_that_fails_leaves_what_was_there(place, monkeypatch):
    def broken(*_):
        raise ValueError("the model broke")

    (place / "out").mkdir()
    (place / "out" / "mine.txt").write_text("keep")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "open_backend", broken)
        refused(place, "the model broke", *BRIEF, *GSM8K, "--output_dir", "new")
        refused(place, "the model broke", *BRIEF, *GSM8K, "--output_dir", "out")
    assert sorted(os.listdir(place / "out")) == [".lock", "mine.txt"]

    def half(*options):
        backend = generate.open_backend(*options)

        def draw(requests, done):
            for number, pair in enumerate(backend.draw(requests, done)):
                if number == 3:
                    raise ValueError("the machine went away")
                yield pair

        return Backend("half", draw)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "open_backend", half)
        with pytest.raises(ValueError, match="the machine went away"):
            into("new", *GSM8K)
    assert len(read_rows(place / "new" / "samples.jsonl")) == 3
    results = into("new", *GSM8K)
    assert results.tasks[0]["sampling"]["backend"].startswith("half, transformers ")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "open_backend", broken)  # no model is loaded where nothing is missing
        same(into("new", *GSM8K), results)


# Without a model: completions with known answers, and stored samples scored again.

PROBLEMS = [
    {"id": "p1", "problem": "1 + 1?", "answer": "2"},
    {"id": "p2", "problem": "Half of one?", "answer": r"\frac{1}{2}"},
    {"id": "p3", "problem": "Which letter?", "answer": "B"},
]
TEXTS = {
    "p1": [r"\boxed{2}", r"It is \boxed{2}.", r"\boxed{3}", r"\boxed{2.0}"],  # three of four
    "p2": [r"\boxed{0.5}", r"\boxed{\frac{2}{4}}", r"\boxed{2}", r"\boxed{2}"],  # two of four, a tied vote
    "p3": ["no idea at all", r"\boxed{}", r"The answer is A.", r"\boxed{C}"],  # none
}


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "math500.jsonl", PROBLEMS)
    rows = [{"id": name, "text": text} for name, texts in TEXTS.items() for text in texts]
    write_rows(tmp_path / "texts.jsonl", rows)
    return tmp_path


def completed(*words: str) -> Results:
    return evaluate("--completions", "texts.jsonl", "--benchmarks", "math500", "--data_dir", "data", *words)


def values(results: Results) -> dict[str, float]:
    return dict(zip(results.scores["metric"], results.scores["value"], strict=True))


def test_completions_have_exactly_the_known_scores(texts):
    results = completed("--output_dir", "out")
    scores = values(results)
    assert scores["pass@1"] == pytest.approx((3 / 4 + 2 / 4 + 0) / 3)
    assert scores["pass@2"] == pytest.approx((1 + (1 - 1 / 6) + 0) / 3)
    assert scores["pass@4"] == pytest.approx(2 / 3)
    assert scores["maj@4"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores["maj@2"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)  # a pair that differs is a tie
    assert scores["distinct_answers"] == pytest.approx((2 + 2 + 2) / 3)
    assert list(rows_of(results.items, metric="num_correct")["value"]) == [3, 2, 0]
    (entry,) = results.tasks
    assert entry["grader"]["counts"]["correct"] == 5 and sum(entry["grader"]["counts"].values()) == 12
    assert entry["sampling"] == {"backend": "completions", "num_samples": 4, "temperature": None}
    assert results.runs[0]["method"] == "texts"


def test_several_benchmarks_and_temperatures_in_one_file(texts):
    write_rows(texts / "data" / "gsm8k.jsonl", [{"id": "g", "problem": "?", "answer": "7"}])
    rows = [
        {"benchmark": "gsm8k", "id": "g", "index": 0, "temperature": temperature, "text": rf"\boxed{{{answer}}}"}
        for temperature, answer in ((0.5, 7), (1.0, 8))
    ]
    rows += [{"task": "math500", "id": one["id"], "index": 0, "text": rf"\boxed{{{one['answer']}}}"} for one in PROBLEMS]
    write_rows(texts / "texts.jsonl", rows)
    scores = completed("--benchmarks", "gsm8k", "math500", "--output_dir", "out").scores
    scores = rows_of(scores, metric="pass@1").fillna({"temperature": -1})
    assert list(zip(scores["task"], scores["temperature"], scores["value"], strict=True)) == [
        ("gsm8k", 0.5, 1.0), ("gsm8k", 1.0, 0.0), ("math500", -1, 1.0),
    ]  # fmt: skip


def test_completions_that_do_not_fit_leave_nothing(texts):
    words = ("--completions", "texts.jsonl", "--benchmarks", "math500", "--data_dir", "data", "--output_dir", "out")
    for row, message in [
        ({"id": "p1", "text": "x"}, "has texts for 1 of the 3 problems of math500, none for p2"),
        ({"id": "p1", "text": "x", "logprob": 0.5}, "line 1: logprob is a sum of logarithms"),
    ]:
        write_rows(texts / "texts.jsonl", [row])
        refused(texts, message, *words)


def test_rescore_reads_nothing_but_the_folder(texts):
    before = values(completed("--output_dir", "out"))
    lines = read_rows(texts / "out" / "samples.jsonl")
    for row in lines:
        if row["text"] == "The answer is A.":
            row["text"] = "The answer is B."
    write_rows(texts / "out" / "samples.jsonl", lines)
    (texts / "texts.jsonl").unlink()
    (texts / "data" / "math500.jsonl").unlink()
    assert values(evaluate("--rescore", "out"))["pass@1"] == pytest.approx(before["pass@1"] + 1 / 12)
    strict = evaluate("--rescore", "out", "--grader", "strict")
    assert values(strict)["pass@1"] == pytest.approx(before["pass@1"])  # no box, no credit
    assert strict.tasks[0]["grader"]["mode"] == "strict"
    renamed = evaluate("--rescore", "out", "--label", "renamed", "--train_seed", "4")  # a name changes nothing else
    assert values(renamed) == values(strict) and set(renamed.scores["method"]) == {"renamed"}
    assert set(renamed.items["seed"]) == {4.0} and renamed.runs[0]["method"] == renamed.tasks[0]["method"] == "renamed"
    same(evaluate("--rescore", "out"), renamed)  # by the rules of before


def test_options_that_rescoring_does_not_read(texts):
    completed("--output_dir", "out")
    for words in (["--output_dir", "new"], ["--num_samples", "3"], ["--model", "m"]):
        name = {"--model": "--model_name_or_path"}.get(words[0], words[0])
        refused(texts, f"--rescore does not go with {name}: leave that out", "--rescore", "out", *words)
    refused(texts, "nowhere holds no finished evaluation", "--rescore", "nowhere")


@pytest.mark.slow
def test_completions_that_changed_are_refused(texts):
    completed("--output_dir", "out")
    rows = [{**row, "stop": "length"} for row in read_rows(texts / "texts.jsonl")]
    write_rows(texts / "texts.jsonl", rows)
    with pytest.raises(ValueError, match="holds another run \\(completions: there"):
        completed("--output_dir", "out")
    scores = completed("--output_dir", "new").scores
    assert score_of(scores, "truncated")["value"] == 1.0 and "truncated" in scores["flags"][0]


def test_half_a_surrogate_pair_in_a_text(texts):
    lines = [f'{{"id": "{one["id"]}", "text": "\\ud83d \\\\boxed{{2}}"}}\n' for one in PROBLEMS]
    (texts / "texts.jsonl").write_text("".join(lines))
    assert values(completed("--output_dir", "out"))["pass@1"] == pytest.approx(1 / 3)
    evaluate("--rescore", "out")


def test_the_first_problems_only(texts):
    assert values(completed("--num_prompts", "2", "--output_dir", "out"))["pass@1"] == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_one_temperature_per_benchmark_is_its_default(texts):
    write_rows(texts / "texts.jsonl", [{"id": one["id"], "text": "x", "temperature": 0.7} for one in PROBLEMS])
    results = completed("--output_dir", "out")
    (entry,) = results.tasks
    assert (entry["temperature"], entry["sampling"]["temperature"]) == (None, 0.7)
    same(evaluate("--rescore", "out"), results)
