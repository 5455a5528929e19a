"""Base against tuned through lm-eval, on local tasks with invented data; no network, no download."""

import json
import random
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError

import pytest
import torch
import yaml

from conftest import CHAT_TEMPLATE, WORDS, tiny_llama
from manypaths.cli.main import main
from manypaths.evaluation import forgetting as subject
from manypaths.evaluation.forgetting import SUITE, forgetting
from manypaths.evaluation.statistics import (
    Estimate,
    bootstrap_estimate,
    mean_of_estimates,
    paired_estimate,
    share_estimate,
)
from manypaths.evaluation.table import item_frame, load_scores, score_frame

pytest.importorskip("lm_eval")

CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}} is",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{gold}}",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}
ANSWER = {
    "output_type": "generate_until",
    "doc_to_text": "{{question}} equals",
    "doc_to_target": "{{gold}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "filter_list": [
        {"name": "strict-match", "filter": [{"function": "regex", "regex_pattern": "#### (.*)"}, {"function": "take_first"}]},
        {"name": "flexible-extract", "filter": [{"function": "regex", "regex_pattern": "(.+)"}, {"function": "take_first"}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """No hub, a cache of data sets that goes away, and no inspection of the machine."""
    import datasets
    import huggingface_hub

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr("torch.utils.collect_env.get_pretty_env_info", lambda: "")  # asks a dozen programs, each time
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            patch.setenv(name, "1")
        yield


def write_task(folder, name, config, rows, num_examples=4):
    """A task's YAML, its items, and examples for shots."""
    files = {}
    for split, some in (("test", rows), ("train", questions(num_examples, seed=99))):
        path = folder / f"{name}_{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
        files[split] = str(path)
    source = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files}}
    splits = {"training_split": "train", "fewshot_split": "train", "test_split": "test"}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**source, **splits, **config}))


def questions(number, seed):
    draw = random.Random(seed)
    words = WORDS.split()
    return [
        {"question": " ".join(draw.sample(words, 4)), "choices": draw.sample(words, 4), "gold": str(draw.randrange(4))}
        for _ in range(number)
    ]


@pytest.fixture(scope="module")
def models(tokenizer, tmp_path_factory):
    """Folders of two models of the same vocabulary that differ in all weights and are sure of what they say."""
    folders = []
    for name, seed in (("base", 0), ("tuned", 1)):
        model = tiny_llama(len(tokenizer), seed)
        model.lm_head.weight.data.mul_(40)
        folder = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture(scope="module")
def task_dir(tmp_path_factory, models, tokenizer):
    """Tasks: `quiz` and `trivia` (choice), their group `exam`, and `sums` (generation), whose golds are in part
    what the base says and in part what the tuned model says."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("tasks")
    write_task(folder, "quiz", CHOICE, questions(20, seed=1))
    write_task(folder, "trivia", CHOICE, questions(9, seed=2))
    group = {"group": "exam", "task": ["quiz", "trivia"]}
    (folder / "exam.yaml").write_text(
        yaml.safe_dump({**group, "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]})
    )
    rows = questions(10, seed=3)
    write_task(folder, "sums", ANSWER, rows)
    said = []
    for model in models:
        lm = subject.harness_model(model)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found = simple_evaluate(model=lm, tasks=["sums"], task_manager=manager, num_fewshot=0)
        said.append(
            {one["doc_id"]: one["filtered_resps"][0] for one in found["samples"]["sums"] if one["filter"][0] == "f"}
        )
    for place, row in enumerate(rows):
        row["gold"] = said[0][place] if place < 5 else said[1][place] if place < 7 else "nothing"
    write_task(folder, "sums", ANSWER, rows)
    return folder


@pytest.fixture(scope="module")
def result(models, task_dir):
    return forgetting(*models, tasks=["quiz", "sums"], task_dir=task_dir, shots={"quiz": 2}, batch_size=4)


@pytest.fixture(scope="module")
def own(models, task_dir):
    """What lm-eval says by itself: {(model, task): results of simple_evaluate}."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(task_dir), include_defaults=False)
    found = {}
    for side, model in zip(("base", "tuned"), models, strict=True):
        lm = HFLM(pretrained=model, batch_size=4, device="cpu")
        for task, shots in (("quiz", 2), ("sums", 0), ("exam", 1)):
            found[side, task] = simple_evaluate(model=lm, tasks=[task], task_manager=manager, num_fewshot=shots)
    return found


def items(found, task, metric, chosen="none"):
    rows = [one for one in found["samples"][task] if one["filter"] == chosen]
    return [float(one[metric]) for one in sorted(rows, key=lambda one: one["doc_id"])]


def estimate_of(result, task, metric):
    """A score of a task as an Estimate; every row has all columns of the table but those of the model."""
    (row,) = [row for row in result.scores if (row["task"], row["metric"]) == (task, metric)]
    assert set(row) == {"task", "metric", "value", "low", "high", "n", "over", "unit", "flags"}
    return Estimate(**{name: row[name] for name in ("value", "low", "high", "n", "over")})


def facts_of(result, task):
    (facts,) = [facts for facts in result.tasks if facts["task"] == task]
    return facts


def numbers(estimate):
    return estimate.value, estimate.low, estimate.high


@pytest.mark.parametrize(
    ("task", "metric", "chosen", "shots"),
    [("quiz", "acc_norm", "none", 2), ("sums", "exact_match", "flexible-extract", 0)],
)
def test_scores_are_lm_evals_own_and_differences_are_paired(result, own, task, metric, chosen, shots):
    facts = facts_of(result, task)
    assert [facts[name] for name in ("metric", "filter", "shots", "group")] == [metric, chosen, shots, "lm-eval"]
    scored = {}
    for side in ("base", "tuned"):
        scored[side] = items(own[side, task], task, metric, chosen)
        found = estimate_of(result, task, f"{side}_score")
        assert found.value == pytest.approx(own[side, task]["results"][task][f"{metric},{chosen}"])
        assert numbers(found) == pytest.approx(numbers(share_estimate(scored[side], "items")))
        assert (found.n, found.over) == (len(scored[side]), "items")
    expected = paired_estimate(scored["tuned"], scored["base"], "items")
    assert expected.low < expected.high
    assert numbers(estimate_of(result, task, "change")) == pytest.approx(numbers(expected))
    rows = {(row["metric"], row["item"]): row["value"] for row in result.items if row["task"] == task}
    assert len(rows) == 3 * len(scored["base"])
    for place, (before, after) in enumerate(zip(scored["base"], scored["tuned"], strict=True)):
        found = [rows[name, str(place)] for name in ("base_score", "tuned_score", "change")]
        assert found == [before, after, after - before]


def test_known_golds_give_known_scores(result):
    assert estimate_of(result, "sums", "base_score").value >= 0.5
    assert estimate_of(result, "sums", "tuned_score").value >= 0.2  # more where both say the same


def test_the_alignment_tax_is_the_mean_loss_with_the_tasks_own_spreads(result):
    tax = estimate_of(result, "lm-eval", "alignment_tax")
    changes = mean_of_estimates([estimate_of(result, task, "change") for task in ("quiz", "sums")])
    assert numbers(tax) == pytest.approx((-changes.value, -changes.high, -changes.low))
    assert (tax.n, tax.over, result.scores[-1]["unit"]) == (2, "tasks", "share")


def test_the_result_says_how_it_was_made_and_fits_the_tables(result, models):
    assert json.loads(json.dumps(asdict(result))) == asdict(result)
    for facts in result.tasks:
        assert [facts[name] for name in ("base", "tuned", "chat_template", "limit", "seed")] == [
            *models,
            False,
            None,
            1234,
        ]
    scores, items = score_frame(result.scores), item_frame(result.items)
    assert len(scores) == 7 and set(scores["method"]) == {""} and scores["temperature"].isna().all()
    assert len(items) == 3 * 30 and items["value"].notna().all()


@pytest.mark.slow
def test_a_group_is_pooled_over_its_subtasks(models, task_dir, own):
    result = forgetting(*models, tasks="exam", task_dir=task_dir, shots=1, batch_size=4)
    assert (facts_of(result, "exam")["metric"], facts_of(result, "exam")["shots"]) == ("acc", 1)
    parts = []
    for task in ("quiz", "trivia"):
        columns = [items(own[side, "exam"], task, "acc") for side in ("tuned", "base")]
        parts.append(paired_estimate(*columns, "items"))
    for side in ("base", "tuned"):
        found = estimate_of(result, "exam", f"{side}_score")
        assert found.value == pytest.approx(own[side, "exam"]["results"]["exam"]["acc,none"]) and found.n == 29
    change = estimate_of(result, "exam", "change")
    assert numbers(change) == pytest.approx(numbers(mean_of_estimates(parts, weights=[20 / 29, 9 / 29])))
    assert {"quiz/0", "trivia/8"} <= {row["item"] for row in result.items}


def test_a_model_loses_nothing_against_itself_loaded_or_not(models, task_dir, tokenizer):
    """Nothing was seen to change; that the other items would not either is another matter, so limits have width."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(models[0]), tokenizer
    result = forgetting(models[0], loaded, tasks=["quiz", "sums"], task_dir=task_dir, limit=6)
    for task in ("quiz", "sums"):
        assert estimate_of(result, task, "change") == paired_estimate([0.0] * 6, [0.0] * 6, "items")
    tax = estimate_of(result, "lm-eval", "alignment_tax")
    assert tax.value == 0.0 and tax.low == -tax.high < 0.0


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same(models, task_dir, tmp_path, monkeypatch, result):
    """Killed in the tuned model's second task: the base is not loaded again, nor the finished task run again."""
    ran, opened = [], []
    measure, harness_model = subject.measure, subject.harness_model

    def counted(lm, **options):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(options["tasks"][0].task_name)
        return measure(lm, **options)

    monkeypatch.setattr(
        subject, "harness_model", lambda source, **k: opened.append(source) or harness_model(source, **k)
    )
    monkeypatch.setattr(subject, "measure", counted)
    options = {
        "tasks": ["quiz", "sums"],
        "task_dir": task_dir,
        "shots": {"quiz": 2},
        "batch_size": 4,
        "folder": tmp_path,
    }
    with pytest.raises(KeyboardInterrupt):
        forgetting(*models, **options)
    assert opened == models and len(list(tmp_path.glob("*.json"))) == 3
    ran.clear()
    opened.clear()
    assert forgetting(*models, **options) == result
    assert (ran, opened) == (["sums"], [models[1]])
    ran.clear()
    forgetting(*models, **{**options, "tasks": "quiz", "limit": 3})  # other settings: nothing kept fits
    assert ran == ["quiz", "quiz"]


@pytest.mark.slow
def test_the_tuned_models_chat_template_serves_both(models, task_dir, tokenizer, monkeypatch):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(models[0])
    plain, other = subject.tokenizer_of((model, tokenizer)), subject.tokenizer_of((model, tokenizer))
    plain.chat_template = None
    other.chat_template = CHAT_TEMPLATE.replace("<|", "<").replace("|>", ">")
    options = {"tasks": "quiz", "task_dir": task_dir, "limit": 4, "apply_chat_template": True}
    prompts = []
    monkeypatch.setattr(subject, "check_same_items", lambda name, *both: prompts.extend(both))
    result = forgetting((model, plain), (model, other), **options)
    hashes = [record["quiz"]["prompt_hash"] for record in prompts]
    assert result.tasks[0]["chat_template"] is True and hashes[0] == hashes[1]
    forgetting((model, plain), (model, other), **{**options, "apply_chat_template": False})
    assert prompts[2]["quiz"]["prompt_hash"] != hashes[0]
    assert plain.chat_template is None  # the caller's tokenizer is left alone
    with pytest.raises(ValueError, match="has no chat template"):
        forgetting((model, other), (model, plain), **options)


def test_the_seed_draws_the_shots(models, task_dir):
    manager, loaded = subject.load_tasks(["quiz"], task_dir)
    lm = subject.harness_model(models[0])
    found = [subject.measure(lm, manager, loaded["quiz"], shots=1, limit=8, seed=seed) for seed in (1, 2, 1)]
    prompts = [one["tasks"]["quiz"]["prompt_hash"] for one in found]
    assert prompts[0] == prompts[2] != prompts[1]


@pytest.mark.slow
def test_prompts_beyond_the_context_are_counted(models, task_dir, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(models[0])
    model.config.max_position_embeddings = 12
    both = forgetting((model, tokenizer), (model, tokenizer), tasks=["quiz", "sums"], task_dir=task_dir, shots=1)
    assert facts_of(both, "quiz")["truncated"]["base"] == 20
    assert facts_of(both, "sums")["truncated"]["tuned"] == 10
    assert [row["flags"] for row in both.scores] == ["truncated"] * 6 + [""]


@pytest.mark.slow
def test_other_items_or_prompts_are_refused(models, task_dir, monkeypatch):
    measure = subject.measure
    for part, message in (("doc_hash", "different items of quiz"), ("prompt_hash", "different prompts in quiz")):
        sides = iter(("base", "tuned"))

        def changed(lm, part=part, sides=sides, **options):
            record = measure(lm, **options)
            record["tasks"]["quiz"][part][1] += next(sides)
            return record

        monkeypatch.setattr(subject, "measure", changed)
        with pytest.raises(ValueError, match=message):
            forgetting(*models, tasks="quiz", task_dir=task_dir, limit=3)


@pytest.mark.slow
def test_a_score_that_is_no_mean_is_not_paired(models, task_dir, tmp_path):
    write_task(tmp_path, "median", {**CHOICE, "metric_list": [
        {"metric": "acc", "aggregation": "median", "higher_is_better": True}]}, questions(7, seed=5))  # fmt: skip
    result = forgetting(*models, tasks=["median"], task_dir=tmp_path)
    assert "acc,none is not a mean over items" in facts_of(result, "median")["note"]
    estimates = [estimate_of(result, "median", name) for name in ("base_score", "tuned_score", "change")]
    estimates.append(estimate_of(result, "lm-eval", "alignment_tax"))
    assert [(estimate.low, estimate.high) for estimate in estimates] == [(None, None)] * 4
    single = estimate_of(forgetting(*models, tasks="quiz", task_dir=task_dir, limit=1), "quiz", "base_score")
    assert (single.n, single.high - single.low) == (1, pytest.approx(0.975))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["quizz"]}, "knows no task 'quizz'. Near names: quiz"),
        ({"tasks": []}, "No task is given"),
        ({"task_dir": "nowhere"}, "no folder nowhere"),
        ({"shots": {"other": 1}}, "shots names other"),
        ({"metrics": {"other": "acc,none"}}, "metrics names other"),
        ({"metrics": {"quiz": "acc"}}, "no metric 'acc'; choose by metrics among 'acc,none', 'acc_norm,none'"),
        ({"tasks": "fixed", "shots": 5}, "fixed is fixed at 0 shots"),
        ({"tasks": "odd"}, "odd has none of acc_norm, acc, exact_match; choose by metrics among 'brier_score,none'"),
        ({"tasks": "odd", "metrics": {"odd": "brier_score,none"}}, "better when lower"),
        ({"tasks": "away"}, r"away could not be loaded \(ConnectionError.*dataset_path: json"),
    ],
)
def test_bad_input_is_refused_before_a_model_is_loaded(options, message, task_dir, tmp_path, monkeypatch):
    from lm_eval.tasks import TaskManager

    brier = {"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False}
    write_task(tmp_path, "quiz", CHOICE, questions(3, seed=1))
    write_task(tmp_path, "fixed", {**CHOICE, "num_fewshot": 0}, questions(3, seed=1))
    write_task(tmp_path, "odd", {**CHOICE, "metric_list": [brier]}, questions(3, seed=1))
    write_task(tmp_path, "away", {**CHOICE, "dataset_path": "nobody/nothing", "dataset_kwargs": None}, [])
    small = TaskManager(include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda **options: small)  # the built-in index takes seconds
    with pytest.raises(ValueError, match=message):
        forgetting("no/model", "no/other", **{"tasks": "quiz", "task_dir": tmp_path, **options})


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("manypaths.evaluation.harness.version", absent)
    with pytest.raises(ImportError, match=r"pip install 'manypaths\[forgetting\]'"):
        forgetting("base", "tuned")


@pytest.mark.parametrize(("found", "fits"), [("0.4.11", False), ("0.4.12", True), ("0.4.13", True), ("0.5.0", False)])
def test_the_supported_versions(monkeypatch, found, fits):
    monkeypatch.setattr("manypaths.evaluation.harness.version", lambda name: found)
    if fits:
        assert subject.harness_version() == found
    else:
        with pytest.raises(ImportError, match=rf"lm-eval {found} is installed.*0\.4\.12"):
            subject.harness_version()


def test_the_suite_is_lm_evals_six_tasks():
    """Names, metrics and filters exist in the installed lm-eval (read from its YAML files, without the data)."""
    from pathlib import Path

    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    root = Path(lm_eval.tasks.__file__).parent
    folders = ["arc", "hellaswag", "mmlu/default", "truthfulqa", "winogrande", "gsm8k"]
    manager = TaskManager(include_path=[str(root / name) for name in folders], include_defaults=False)
    assert [one.shots for one in SUITE.values()] == [25, 10, 5, 0, 5, 5]
    for name, (key, _) in SUITE.items():
        config = manager.task_index[name].cfg
        metric, _, chosen = key.partition(",")
        listed = config.get("metric_list") or config["aggregate_metric_list"]
        assert metric in [one["metric"] for one in listed]
        assert chosen in [one["name"] for one in config.get("filter_list", [{"name": "none"}])]


@pytest.mark.slow
def test_the_suite_runs_on_local_data(models, tmp_path, monkeypatch):
    """All six under their own names, the suite's shots and metrics; the built-in tasks are not even listed."""
    from lm_eval.tasks import TaskManager

    asked = []
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda **options: asked.append(options) or TaskManager(**options))
    for name in SUITE:
        config = ANSWER if name == "gsm8k" else CHOICE
        task = {"mmlu": "mmlu_anatomy"}.get(name, name)
        write_task(tmp_path, task, config, questions(3, seed=7), num_examples=26)
    group = {"group": "mmlu", "task": ["mmlu_anatomy"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "mmlu.yaml").write_text(yaml.safe_dump(group))
    result = forgetting(*models, task_dir=tmp_path, limit=2)
    assert [one["include_defaults"] for one in asked] == [False]
    assert {facts["task"]: (f"{facts['metric']},{facts['filter']}", facts["shots"]) for facts in result.tasks} == SUITE
    tax = estimate_of(result, "lm-eval", "alignment_tax")
    assert tax.n == 6 and tax.low < tax.high


def test_shots_are_the_callers_the_suites_or_the_tasks():
    assert [subject.shots_for("gsm8k", shots) for shots in (None, 3, {"gsm8k": 0}, {"quiz": 1})] == [5, 3, 0, 5]
    assert subject.shots_for("quiz", None) is None


@pytest.mark.parametrize(
    ("largest", "unit", "estimate"), [(1.0, "share", share_estimate), (40.0, "score", bootstrap_estimate)]
)
def test_strata_of_equal_weight(largest, unit, estimate):
    """A group whose score is the plain mean of its subtasks keeps those weights in its limits."""
    columns = {"a": ([0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]), "b": ([0.0, 0.0, 1.0], [1.0, 0.0, 1.0])}
    columns = {name: [[largest * value for value in side] for side in both] for name, both in columns.items()}
    known = {"truncated": 0, "shots": 1, "version": 1.0}
    sides = [
        {
            name: {**known, "doc_id": list(range(len(both[side]))), "values": {"acc,none": both[side]}}
            for name, both in columns.items()
        }
        for side in (0, 1)
    ]
    means = [(sum(columns["a"][side]) / 4 + sum(columns["b"][side]) / 3) / 2 for side in (0, 1)]
    part = subject.part_of("exam", "acc,none", means, sides)
    expected = mean_of_estimates([paired_estimate(*reversed(both), "items") for both in columns.values()])
    assert numbers(part.change) == pytest.approx(numbers(expected)) and part.change.value == pytest.approx(largest / 6)
    base = mean_of_estimates([estimate(both[0], "items") for both in columns.values()])
    assert (part.scores[0]["value"], part.scores[0]["low"]) == pytest.approx((base.value, base.low))
    assert (part.unit, part.change.n, part.scores[0]["metric"]) == (unit, 7, "base_score")


def test_a_named_model_is_loaded_in_the_dtype_asked_for(models):
    model = subject.harness_model(models[0], dtype="bfloat16").model
    assert model.dtype == torch.bfloat16 and not model.training


@pytest.mark.slow
def test_the_subcommand(models, task_dir, tmp_path):
    base, tuned = models
    argv = ["eval", "--model", tuned, "--reference", base, "--forgetting", "quiz", "sums", "--task_dir", str(task_dir)]
    assert main([*argv, "--num_prompts", "6", "--output_dir", str(tmp_path / "out")]) == 0
    scores = load_scores(tmp_path / "out")
    alone = score_frame(forgetting(base, tuned, tasks=["quiz", "sums"], task_dir=task_dir, limit=6).scores)
    kept = scores[scores["metric"].isin(alone["metric"])]
    assert (
        kept[["task", "metric", "value", "low", "high"]].values.tolist()
        == alone[["task", "metric", "value", "low", "high"]].values.tolist()
    )
