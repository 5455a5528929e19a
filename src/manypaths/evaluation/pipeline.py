"""`manypaths eval`: problems -> samples -> grades -> scores, from options to a folder of results."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from datasets import Dataset

from ..data.config import DataConfig
from ..data.formats import check_tokenizer_fits
from ..generation.precomputed import read_completions
from ..generation.prompts import template_errors_told
from ..generation.samples import Sample, SampleKey, Sampling
from ..models.loading import check_model, default_device, free_memory, load_model, load_tokenizer
from ..run_folder import RunFolder, content_fingerprint, fingerprint, read_run, settings_of
from ..training.curves import curves
from .benchmarks import MAIN
from .config import EVAL_OPTIONS, EvalConfig, check_options, given_options, origin, short_name
from .diversity import named_encoder
from .generate import BACKENDS, Plan, generate, open_backend, plan_generation
from .grades import check_same_grader, grade_task
from .log import SAMPLES, SampleLog, check_same_problems, read_problems, read_samples, write_grades, write_problems
from .reward_model import scorer
from .scores import Part, averages, reward_model_scores, score_task
from .table import AVERAGE, RESULTS, Results, given, item_frame, load_results, new_header, score_frame, write_results
from .tasks import SAMPLING, Task, completed_tasks, load_rows, read_tasks, samples_of, taught_rows
from .token_scores import TEXT_METRICS, reread, score_texts

__all__ = ["EVAL_OPTIONS", "evaluate"]

LEAVES = (SAMPLES, RESULTS)
FORGETTING_METRICS = frozenset(("base_score", "tuned_score", "change", "alignment_tax"))
REREAD_METRICS = ("entropy", "kl_to_reference")
Load = Callable[[str, str], Any]


class Judges(NamedTuple):
    """What judges the samples beside the grader, and their names, which are kept so that `rescore` asks them again."""

    names: dict[str, str | None]
    scorer: Callable[..., list[float]] | None
    encoder: Any
    correct_at: float


class Work(NamedTuple):
    """What an evaluation is going to do, known before a model is loaded or anything is written."""

    settings: dict[str, Any]  # of the folder: what the samples depend on
    parts: dict[str, dict[str, Any]]
    texts: Dataset | None
    tasks: list[Task]
    plan: Plan | None  # None for completions made elsewhere, and where nothing is sampled
    completions: dict[SampleKey, Sample]
    judges: Judges


def evaluate(data: DataConfig, config: EvalConfig) -> Results:
    """Measure a model, and write results.json, items.parquet and all texts into `config.output_dir`.

    Any of: benchmarks and prompts (samples, graded, with their diversity), data (token scores where rows hold an answer
    to learn from; samples with a reward or `num_samples`), forgetting (lm-eval tasks on model and reference). Or
    completions made elsewhere, or the stored samples of a folder graded again (`rescore`). Results of the same model that
    the folder holds already stay, unless measured again.

    Raises ValueError or FileNotFoundError for whatever can be known before a model is loaded, with nothing written.
    """
    started = time.monotonic()
    check_options(data, config)
    if config.rescore is not None:
        return rescore(data, config)
    work = prepare(data, config)
    name = config.model_name_or_path or config.completions
    run = origin(config, None if config.completions is not None else read_run(name))
    with RunFolder(config.output_dir, "eval", work.settings, work.parts, leaves=LEAVES) as folder:
        results = load_results(folder.path) if (folder.path / RESULTS).is_file() else Results()
        check_same_problems(work.tasks, folder.path)
        check_same_grader(work.tasks, results.tasks)
        before = results.runs[0]["seconds"] if results.runs else 0.0
        run |= {"role": "method", "model": name, "weights": work.settings.get("weights"), "notes": ""}
        run |= {"training": {} if config.model_name_or_path is None else curves(name)}
        run |= {"folder": str(folder.path.absolute())}
        results = replace(results, header=new_header(settings_of(data, config)))
        for part in measured(data, config, work, folder):
            results = with_part(results, part, {**run, "seconds": round(before + time.monotonic() - started, 1)})
            folder.record()
            write_results(results, folder.path)
    return load_results(config.output_dir)


def prepare(data: DataConfig, config: EvalConfig) -> Work:
    """Every check that needs no model in memory."""
    model = config.model_name_or_path
    for path in (model, config.reference):
        if path is not None:
            check_model(path)
    judges = load_judges(asdict(config))
    rows = load_rows(data, config)
    tasks = read_tasks(data, config, rows)
    if config.completions is not None:
        tasks, completions = completed_tasks(tasks, read_completions(config.completions), config)
        settings = {"completions": fingerprint([[*key, *asdict(one).values()] for key, one in completions.items()])}
        return Work(settings, {}, None, tasks, None, completions, judges)
    texts = None if rows is None else taught_rows(rows)
    if rows is not None and texts is None and short_name(data.dataset_name) not in {task.name for task in tasks}:
        raise ValueError(f"{data.dataset_name} has prompts only: give a --reward or --num_samples to draw answers.")
    plan = plan_generation(tasks, config) if tasks else None
    if config.forgetting:
        check_forgetting(config)
    settings = {"weights": content_fingerprint(model), "dtype": config.dtype, "backend": config.backend}
    return Work(settings, {} if plan is None else plan.parts(), texts, tasks, plan, {}, judges)


def load_judges(names: Mapping[str, Any]) -> Judges:
    reward_model, embedding_model = names["reward_model"], names["embedding_model"]
    return Judges(
        {"reward_model": reward_model, "embedding_model": embedding_model},
        None if reward_model is None else scorer(reward_model),
        None if embedding_model is None else named_encoder(embedding_model),
        names["correct_at"],
    )


def measured(data: DataConfig, config: EvalConfig, work: Work, folder: RunFolder) -> Iterator[Part]:
    """What is measured, part by part, so that each can be written before the next begins."""
    load = functools.cache(load_model)  # a model is loaded once, and given back when nothing reads it any more
    reference = None if config.reference is None else functools.partial(load, config.reference, config.dtype)
    if work.texts is not None:
        yield token_part(data, config, work.texts, load, reference)
    yield from sampled_parts(config, work, folder, load, reference)
    forget_models(load)
    if config.forgetting:
        from .forgetting import forgetting

        lost = forgetting(
            config.reference,
            config.model_name_or_path,
            tasks=config.forgetting,
            task_dir=config.task_dir,
            limit=config.num_prompts,
            dtype=config.dtype,
            batch_size=8 if default_device().type == "cpu" else "auto",
            folder=folder.path / "forgetting",
        )
        tables = (lost.scores, lost.items, lost.tasks)
        yield Part(*([{"temperature": None, **row} for row in rows] for rows in tables))


def sampled_parts(
    config: EvalConfig, work: Work, folder: RunFolder, load: Load, reference: Callable[[], Any] | None
) -> Iterator[Part]:
    """The tasks, when all their samples are there: from the model, or from elsewhere."""
    with SampleLog(folder.path) as log:
        if work.plan is None:
            keep_completions(work, log, folder)
        else:
            if config.backend == "vllm":
                forget_models(load)  # it wants all of the memory
            generate(work.plan, log, folder, lambda: open_backend(config, work.plan, load))
        for place, task in enumerate(work.tasks):
            samples, again = samples_of(task, log.samples), {}
            if work.plan is None:
                how = {"backend": "completions", "num_samples": len(samples[0]), "temperature": task.sampled_at}
            else:
                how = work.plan.sampling(task, folder.notes.get(BACKENDS, ()))
                if config.reread_samples and task.sampled_at:
                    model, other = load(config.model_name_or_path, config.dtype), reference and reference()
                    ids = work.plan.prompt_ids[place]
                    again = reread(model, other, ids, samples, task.sampled_at, config.reread_samples)
            yield task_part(task, samples, folder.path, work.judges, how, again)


def keep_completions(work: Work, log: SampleLog, folder: RunFolder) -> None:
    """Bring completions made elsewhere into the folder, so that they can be scored again."""
    if work.tasks:
        folder.record()
        write_problems(work.tasks, folder.path)
    for key in [key for key in work.completions if key not in log.samples]:
        log.add(key, work.completions[key])


def forget_models(load: Any) -> None:
    load.cache_clear()
    free_memory()


def token_part(
    data: DataConfig, config: EvalConfig, texts: Dataset, load: Load, reference: Callable[[], Any] | None
) -> Part:
    """The scores of the data's own answers."""
    model = load(config.model_name_or_path, config.dtype)
    tokenizer = load_tokenizer(config.model_name_or_path, config.chat_template_path)
    check_tokenizer_fits(model, tokenizer)
    how = {"max_length": config.max_length, "assistant_only_loss": config.assistant_only_loss}
    with template_errors_told():
        return score_texts(short_name(data.dataset_name), model, tokenizer, texts, reference and reference(), **how)


def task_part(
    task: Task, samples: list[list[Sample]], folder: Path, judges: Judges, sampling: Mapping[str, Any], again: Any
) -> Part:
    """One task graded and scored; its lines of grades.jsonl are written."""
    grades = grade_task(task, samples, judges.correct_at)
    rewards = None if judges.scorer is None else reward_model_scores(task, samples, judges.scorer)
    notes = [[{} for _ in row] for row in samples] if grades is None else grades.notes
    if rewards is not None:
        notes = [
            [{**note, "score": score} for note, score in zip(*pair, strict=True)]
            for pair in zip(notes, rewards, strict=True)
        ]
    write_grades(task, notes, folder)
    part = score_task(task, samples, grades, sampling=sampling, rewards=rewards, encoder=judges.encoder, reread=again)
    return part._replace(tasks=[{**entry, **judges.names} for entry in part.tasks])


def with_part(results: Results, part: Part, run: Mapping[str, Any]) -> Results:
    """The results with what was measured now in place of what was measured before; averages are made anew."""
    names = {name: run[name] for name in ("method", "stage", "seed")}
    results = given(results, **names)
    fresh = given(Results(score_frame(part.scores), item_frame(part.items), [], part.tasks), **names)
    tasks = list(
        {(task["task"], task["temperature"], task["group"]): task for task in results.tasks + fresh.tasks}.values()
    )
    scores = in_place(results.scores, fresh.scores)
    groups = {task["group"] for task in tasks if task.get("grader")} - {MAIN}
    scores = scores[~scores["task"].isin({AVERAGE, *groups})]
    means = given(Results(score_frame(averages(scores, tasks))), **names).scores
    return replace(
        results,
        scores=pd.concat([scores, means], ignore_index=True),
        items=in_place(results.items, fresh.items),
        tasks=tasks,
        runs=[dict(run)],
    )


def in_place(table: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """The table with the fresh rows where those of the same task, temperature and kind of metric were, or at the end."""
    places = {kind: place for place, kind in enumerate(dict.fromkeys([*kinds(table), *kinds(fresh)]))}
    measured = set(kinds(fresh))
    both = pd.concat([table[[kind not in measured for kind in kinds(table)]], fresh], ignore_index=True)
    order = pd.Series([places[kind] for kind in kinds(both)], dtype="int64").sort_values(kind="stable").index
    return both.loc[order].reset_index(drop=True)


def kinds(table: pd.DataFrame) -> Iterator[tuple[str, float | None, str]]:
    for task, temperature, metric in zip(table["task"], table["temperature"], table["metric"], strict=True):
        kind = "texts" if metric in TEXT_METRICS else "forgetting" if metric in FORGETTING_METRICS else "samples"
        yield task, None if temperature != temperature else temperature, kind


def check_forgetting(config: EvalConfig) -> None:
    """That lm-eval is there and knows the tasks; its own errors say what to do."""
    from .forgetting import task_names
    from .harness import harness_version, load_tasks

    harness_version()
    load_tasks(task_names(config.forgetting), config.task_dir)


def rescore(data: DataConfig, config: EvalConfig) -> Results:
    """A folder's results with its stored samples graded and scored again; what has no samples stays as it is.

    Grader, reward model and embedding model are those of before unless others are given; a new name alone grades nothing.
    """
    folder = Path(config.rescore)
    results, known = load_results(folder), read_run(folder)
    if known is None or known["subcommand"] != "eval":
        raise ValueError(f"{folder} is not the folder of an evaluation, which alone can be scored again.")
    changes = {"method": config.label, "stage": config.stage, "seed": config.train_seed}
    (run,) = results.runs
    run = {**run, **{name: value for name, value in changes.items() if value is not None}}
    judging = [name for name in given_options(data, config) if name not in ("rescore", "label", "stage", "train_seed")]
    entries = [entry for entry in results.tasks if "sampling" in entry]
    only_names = not judging and any(value is not None for value in changes.values())
    if not entries and not only_names:
        raise ValueError(f"{folder} holds no samples to grade again; only a new --label can be given to it.")
    with RunFolder(folder, "eval", known["settings"]):
        results = given(results, *(run[name] for name in changes))
        samples = {} if only_names else read_samples(folder / SAMPLES)
        for entry in [] if only_names else entries:
            results = with_part(results, rescored(entry, results.items, samples, config, folder), run)
        write_results(results, folder)
    return load_results(folder)


def rescored(
    entry: Mapping[str, Any], items: pd.DataFrame, samples: Mapping[SampleKey, Sample], config: EvalConfig, folder: Path
) -> Part:
    """One task of the folder, graded and scored again; what was read again with the model stays."""
    problems, prompts = read_problems(folder, entry["task"], entry["num_problems"])
    grader, how = entry["grader"] or {}, entry["sampling"]
    task = Task(
        entry["task"],
        entry["temperature"],
        problems,
        prompts,
        Sampling(**{name: how[name] for name in SAMPLING}) if "seed" in how else None,
        grader.get("name"),
        (config.grader or grader["mode"]) if grader.get("name") == "math" else None,
        entry["answers"],
        entry["group"],
        entry["excluded"],
        None if "seed" in how else how["temperature"],
    )
    names = {name: getattr(config, name) or entry[name] for name in ("reward_model", "embedding_model")}
    given_value = config.correct_at != EvalConfig().correct_at
    names["correct_at"] = config.correct_at if given_value else grader.get("correct_at", config.correct_at)
    asked = items["temperature"].isna() if task.temperature is None else items["temperature"] == task.temperature
    own = items[asked & (items["task"] == task.name)].set_index(["metric", "item"])["value"]
    again = {
        metric: [own[metric, problem.id] for problem in problems]
        for metric in REREAD_METRICS
        if metric in own.index.get_level_values("metric")
    }
    return task_part(task, samples_of(task, samples), folder, load_judges(names), how, again)
