"""`manypaths augment`: prompts -> samples -> right answers -> distinct ones -> the same data with more answers a prompt.

Rejection sampling fine-tuning (RFT, arXiv:2308.01825) draws from a model, keeps what a verifier calls right and different,
and trains on it beside the demonstrations. This is the data; nothing is trained here.
"""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..config import json_mapping
from ..data.config import DataConfig
from ..data.formats import PROMPT_FORMATS, SFT_FORMATS, UNTRAINABLE, load_training_data
from ..evaluation.config import short_name
from ..evaluation.generate import Plan, generate, open_backend, plan_generation
from ..evaluation.grades import Grades, grade_task
from ..evaluation.log import SAMPLES, SampleLog, check_same_problems, write_grades, write_lines
from ..evaluation.tasks import Task, data_tasks, prompts_of, samples_of
from ..generation.samples import Sample
from ..grading import same_answers
from ..grading.graders import GOLD_COLUMNS, as_completion, check_golds, completion_text, gold_answer
from ..models.loading import check_model, load_model
from ..run_folder import RunFolder, content_fingerprint, json_text, shortened, write_whole
from .config import AugmentConfig, as_evaluation, check_options
from .distinct import Keys, fewest_first, keys_by
from .report import Answered, Kept, Outcome, report_of, write_report

OUTPUT, UNANSWERED, YIELD = "sft.jsonl", "unanswered.jsonl", "yield.json"
SOURCE, PROVENANCE = "source", "provenance"
DEMONSTRATION, AUGMENTED = "demonstration", "augmented"
UNASKED = ("tools", "chat_template_kwargs", "image", "images", *UNTRAINABLE)  # columns that sampling cannot pass on


@dataclass(frozen=True)
class Rows:
    """The data, put together by prompt.

    rows: the data's own, as `sft` reads them. places: [P][rows of one prompt], in order of their first. answers: [rows]
    the text of each, None where it has none. round: of what is added now, 1 where the data was never augmented.
    """

    rows: Dataset
    places: Sequence[Sequence[int]]
    answers: Sequence[str | None]
    round: int

    def first(self, prompt: int) -> dict[str, Any]:
        return self.rows[self.places[prompt][0]]


def augment(data: DataConfig, config: AugmentConfig) -> Outcome:
    """Write `config.output_dir`/sft.jsonl: every row of the data, then up to `num_answers` new right answers a prompt.

    A row says in `source` whether it is a demonstration or augmented, and then in `provenance` by which model, round, seed,
    sample, temperature and verifier. Beside it lie samples.jsonl, grades.jsonl, yield.json and a report; unanswered.jsonl
    has the prompts of rows without a demonstration for which no right answer came. A killed run goes on where it was.
    The data may be the sft.jsonl of an earlier round; its answers are known, and count towards `num_answers`.

    Raises ValueError or FileNotFoundError: options or data that cannot be used, a sft.jsonl that is there already, and
    after the first samples a model that never ends, or a verifier that accepts all of them or none.
    """
    check_options(data, config)
    model = config.model_name_or_path
    check_model(model)
    path = Path(config.output_dir) / OUTPUT
    if path.exists():
        raise ValueError(
            f"{path} is there already. Choose another --output_dir, or remove the file to choose again from the samples."
        )
    keys = keys_by(config.distinct)
    rows, task = read_task(data, config)
    plan = plan_generation([task], as_evaluation(config))
    settings = {"weights": content_fingerprint(model), "dtype": config.dtype, "backend": config.backend}
    settings |= {"reward": config.reward[0]}
    with RunFolder(path.parent, "augment", settings, plan.parts(), leaves=(SAMPLES, OUTPUT)) as folder:
        check_same_problems([task], folder.path)
        samples, grades = drawn(plan, config, keys, folder)
        answered = choose(rows, task, plan, samples, grades, keys, config)
        outcome = Outcome(summary_of(data, config, rows, task, samples, answered), answered, folder.path)
        write_grades(task, grades.notes, folder.path)
        write_outcome(outcome, rows, task, config)
        folder.record()
        write_lines(path, output_rows(outcome, rows, config))  # last: where it is, the run is finished
    return outcome


def read_task(data: DataConfig, config: AugmentConfig) -> tuple[Rows, Task]:
    """The data by prompt, and every prompt once as something to sample and grade.

    Raises ValueError for what the verifier lacks, prompts that cannot be asked as the data has them, columns in the way of
    the provenance, and one prompt with different right answers.
    """
    name, reward = data.dataset_name, config.reward[0]
    rows = load_training_data(
        name, split=data.dataset_train_split, name=data.dataset_config, formats=(*SFT_FORMATS, *PROMPT_FORMATS),
        columns=json_mapping(data.dataset_columns, "dataset_columns", '{"prompt": "question"}'),
        layout=data.dataset_format, system_prompt=data.system_prompt, keep_all_columns=True,
    )  # fmt: skip
    for column in UNASKED:
        if column in rows.column_names:
            raise ValueError(f"{name} has a column {column}, which sampling does not hand to the model; take it away.")
    taught = answer_column(rows)
    asked = rows.remove_columns("prompt") if taught == "messages" and "prompt" in rows.column_names else rows
    prompts = prompts_of(asked, name)
    check_golds(reward, rows, name)
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(json_text(prompt), []).append(place)
    if reward in ("math", "exact"):
        check_one_gold(rows, places.values(), reward, name)
    firsts = [own[0] for own in places.values()]
    (task,) = data_tasks(data, as_evaluation(config), asked.select(firsts))
    answers = [None] * len(rows) if taught is None else list(map(answer_of, rows[taught]))
    return Rows(rows, list(places.values()), answers, 1 + last_round(rows, name)), task


def answer_column(rows: Dataset) -> str | None:
    """Where the answers are; None for prompts alone."""
    names = rows.column_names
    return "completion" if {"prompt", "completion"} <= {*names} else "messages" if "messages" in names else None


def answer_of(value: str | list[dict[str, Any]]) -> str | None:
    """The text of a completion or of a conversation's last message, if that is an answer."""
    return completion_text(value) if isinstance(value, str) or value[-1]["role"] == "assistant" else None


def check_one_gold(rows: Dataset, groups: Any, reward: str, source: str) -> None:
    """That rows of one prompt agree on the right answer, since its samples are graded by one."""
    golds = rows[next(column for column in GOLD_COLUMNS if column in rows.column_names)]
    read = gold_answer if reward == "math" else str
    for first, *others in groups:
        for other in others:
            pair = read(golds[first]), read(golds[other])
            if pair[0] != pair[1] and not (reward == "math" and same_answers([pair])[0]):
                raise ValueError(
                    f"{source}: rows {first + 1} and {other + 1} ask the same and have different right answers, "
                    f"{shortened(pair[0])} and {shortened(pair[1])}; take the wrong one out."
                )


def last_round(rows: Dataset, source: str) -> int:
    """The round that the data is from; 0 for data that was never augmented."""
    names = rows.column_names
    ours = SOURCE in names and {*rows[SOURCE]} <= {DEMONSTRATION, AUGMENTED}
    for column in (SOURCE, PROVENANCE):
        if column in names and not ours:
            raise ValueError(
                f"{source} has a column {column} of its own, where augment says where a row is from. Give it another name: "
                f'--dataset_columns \'{{"origin": "{column}"}}\'.'
            )
    made = rows[PROVENANCE] if PROVENANCE in names else []
    return max((value["round"] for value in made if value is not None), default=0)


def drawn(plan: Plan, config: AugmentConfig, keys: Keys, folder: RunFolder) -> tuple[list[list[Sample]], Grades]:
    """All samples [P][n] and their grades, after model and verifier were tried on the first ones."""
    evaluation = as_evaluation(config)
    backend = functools.cache(lambda: open_backend(evaluation, plan, load_model))
    trial = beginning(plan, config.preflight_samples)
    with SampleLog(folder.path) as log:
        if trial is not None:
            generate(trial, log, folder, backend)
            (task,) = trial.tasks
            first = samples_of(task, log.samples)
            check_first(task, first, grade_task(task, first, config.correct_at), keys, config)
        generate(plan, log, folder, backend)
        (task,) = plan.tasks
        samples = samples_of(task, log.samples)
    return samples, grade_task(task, samples, config.correct_at)


def beginning(plan: Plan, samples: int) -> Plan | None:
    """The first samples of evenly spaced prompts, about so many in all; None for 0."""
    (task,), (ids,) = plan.tasks, plan.prompt_ids
    if not samples:
        return None
    number = min(len(ids), samples)
    spaced = [index * len(ids) // number for index in range(number)]
    each = min(task.sampling.num_samples, math.ceil(samples / number))
    first = replace(
        task,
        problems=[task.problems[place] for place in spaced],
        prompts=[task.prompts[place] for place in spaced],
        sampling=replace(task.sampling, num_samples=each),
    )
    return replace(plan, tasks=[first], prompt_ids=[[ids[place] for place in spaced]])


def check_first(
    task: Task, samples: Sequence[Sequence[Sample]], grades: Grades, keys: Keys, config: AugmentConfig
) -> None:
    """ValueError where the rest would be drawn for nothing."""
    every = [sample for group in samples for sample in group]
    right = [sample for sample, correct in flat_pairs(samples, grades.correct) if correct]
    first, skip = f"the first {len(every)} samples", "To go on all the same, set --preflight_samples 0."
    if not any(sample.finished for sample in every):
        raise ValueError(
            f"None of {first} ended within {task.sampling.max_new_tokens} tokens. Raise --max_new_tokens, or check that the "
            f"model was trained on the end token with prompts like these. {skip}"
        )
    if not right:
        raise ValueError(
            f"The verifier {task.grader} accepts none of {first}, for example {shortened(every[0].text)}. Try it on a right "
            f"answer, or take a model that solves some of these prompts. {skip}"
        )
    if len(right) == len(every):
        raise ValueError(
            f"The verifier {task.grader} accepts all of {first}, for example {shortened(every[0].text)}. Try it on a wrong "
            f"answer, or take harder prompts. {skip}"
        )
    if config.distinct == "chain" and not any(keys([sample.text for sample in right], {})):
        raise ValueError(
            f"No right answer among {first} has an equation, for example {shortened(right[0].text)}, and --distinct chain is "
            "for worked mathematics; take text or expression."
        )


def flat_pairs(samples: Sequence[Sequence[Sample]], correct: Sequence[Sequence[bool]]) -> list[tuple[Sample, bool]]:
    return [pair for group in zip(samples, correct, strict=True) for pair in zip(*group, strict=True)]


def choose(
    rows: Rows,
    task: Task,
    plan: Plan,
    samples: Sequence[Sequence[Sample]],
    grades: Grades,
    keys: Keys,
    config: AugmentConfig,
) -> list[Answered]:
    """For every prompt its right answers, and of those that the data lacks the ones to add."""
    answered, sources = [], rows.rows[SOURCE] if SOURCE in rows.rows.column_names else None
    end = plan.tokenizer.eos_token or ""
    for prompt, (problem, group, correct) in enumerate(zip(task.problems, samples, grades.correct, strict=True)):
        own = rows.places[prompt]
        known = [text.strip().removesuffix(end).strip() for place in own if (text := rows.answers[place])]
        places = [
            place
            for place, right in enumerate(correct)
            if right and group[place].finished and group[place].text.strip()
        ]
        texts = [group[place].text for place in places]
        every = keys([*known, *texts], problem.row)
        seen, found = set(every[: len(known)]), every[len(known) :]
        before = 0 if sources is None else sum(sources[place] == AUGMENTED for place in own)
        kept = [
            Kept(places[choice], as_continuation(plan, prompt, group[places[choice]]), found.count(found[choice]))
            for choice in fewest_first(found, texts, seen, config.num_answers - before)
        ]
        answered.append(
            Answered(problem.id, task.prompts[prompt], known, len(places), len({*found}), len({*found} - seen), kept)
        )
    return answered


def as_continuation(plan: Plan, prompt: int, sample: Sample) -> str:
    """The text that was graded, as it follows its prompt.

    Behind a plain prompt the space between the two belongs to it, which a tokenizer may drop at the start of a text.
    """
    if not isinstance(plan.tasks[0].prompts[prompt], str):
        return sample.text
    decode = functools.partial(plan.tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    ids = list(plan.prompt_ids[0][prompt])
    behind = decode(ids + list(sample.token_ids))[len(decode(ids)) :]
    return behind[: len(behind) - len(behind.lstrip())] + sample.text.lstrip()


def output_rows(outcome: Outcome, rows: Rows, config: AugmentConfig) -> list[dict[str, Any]]:
    """The data's own rows that have an answer, then those that were added, in the order of the prompts."""
    result = [
        {**row, SOURCE: row.get(SOURCE) or DEMONSTRATION, PROVENANCE: row.get(PROVENANCE)}
        for row, answer in zip(rows.rows, rows.answers, strict=True)
        if answer is not None
    ]
    how = {"model": config.model_name_or_path, "round": rows.round, "seed": config.seed}
    how |= {"temperature": config.temperature, "verifier": config.reward[0]}
    messages = answer_column(rows.rows) == "messages"
    for number, prompt in enumerate(outcome.prompts):
        for kept in prompt.kept:
            completion = as_completion(prompt.prompt, kept.text)
            answer = {"messages": [*prompt.prompt, *completion]} if messages else {"completion": completion}
            own = {SOURCE: AUGMENTED, PROVENANCE: {**how, "id": prompt.id, "sample": kept.index}}
            result.append({**rows.first(number), **answer, **own})
    return result


def summary_of(
    data: DataConfig,
    config: AugmentConfig,
    rows: Rows,
    task: Task,
    samples: Sequence[Sequence[Sample]],
    answered: Sequence[Answered],
) -> dict[str, Any]:
    """Yield and cost. A verifier call is one completion graded; tokens are those generated."""
    every = [sample for group in samples for sample in group]
    return {
        "data": short_name(data.dataset_name),
        "model": config.model_name_or_path,
        "round": rows.round,
        "verifier": config.reward[0],
        "distinct_by": config.distinct,
        "num_answers": config.num_answers,
        **asdict(task.sampling),
        "prompts": len(answered),
        "rows_before": sum(answer is not None for answer in rows.answers),
        "verifier_calls": len(every),
        "tokens": sum(sample.num_tokens for sample in every),
        "ended": sum(bool(sample.finished) for sample in every),
        "right": sum(prompt.right for prompt in answered),
        "distinct": sum(prompt.distinct for prompt in answered),
        "new": sum(prompt.new for prompt in answered),
        "kept": sum(len(prompt.kept) for prompt in answered),
        "prompts_without_right": sum(prompt.right == 0 for prompt in answered),
        "prompts_without_answer": sum(not prompt.known and not prompt.kept for prompt in answered),
        "answers_before": counted(len(prompt.known) for prompt in answered),
        "answers_after": counted(len(prompt.known) + len(prompt.kept) for prompt in answered),
    }


def counted(numbers: Any) -> dict[str, int]:
    """{how many answers: how many prompts have so many}."""
    numbers = list(numbers)
    return {str(number): numbers.count(number) for number in sorted({*numbers})}


def write_outcome(outcome: Outcome, rows: Rows, task: Task, config: AugmentConfig) -> None:
    """yield.json, the report, and where there are some the prompts that still have no answer."""
    write_whole(outcome.folder / YIELD, json.dumps(outcome.summary, indent=1) + "\n")
    write_report(report_of(outcome), outcome.folder)
    without = [number for number, prompt in enumerate(outcome.prompts) if not prompt.known and not prompt.kept]
    (outcome.folder / UNANSWERED).unlink(missing_ok=True)  # of an earlier choice
    if without:
        write_lines(outcome.folder / UNANSWERED, [rows.first(number) for number in without])
