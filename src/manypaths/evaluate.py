"""`manypaths eval`: token scores, graded samples, or a built-in world, for one model."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from .evaluation.run import print_scores, record, sample_evidence, token_evidence, write_results
from .evaluation.sampling import Prompt, Sampling, prompt_hash, sample, write_samples
from .options import EvalArguments
from .training.data import COMPANIONS, PROMPT_FORMATS, SFT_FORMATS, check_tokenizer_fits, load_training_data
from .training.evidence import prepared_batches, row_statistics
from .training.grpo import grade
from .training.lm_head import plain_head
from .training.rewards import last_box, resolve_reward
from .training.run import check_model, column_map

NOT_A_SETTING = ("output_dir",)
TOKEN_BATCH = 8


def evaluate(options: EvalArguments) -> dict[str, Any]:
    """Measure a model, write results.json (and samples.jsonl), print the scores; returns the results.

    On data: token scores where rows hold an answer to learn from, and, with a reward or `num_samples`,
    samples for the rows' prompts. On a built-in world: the playground's evaluation.

    Raises ValueError or FileNotFoundError before anything is written.
    """
    if options.model is None:
        raise ValueError("--model is missing: a model folder or hub id.")
    if (options.data is None) == (options.world is None):
        raise ValueError("Give either --data, a file with rows, or --world, a built-in world.")
    for name, least in (("num_prompts", 1), ("num_samples", 0), ("batch_size", 1), ("max_new_tokens", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}.")
    check_model(options.model)
    results = evaluate_world(options) if options.world is not None else evaluate_data(options)
    path = write_results(results, options.output_dir)
    for part in ("tokens", "samples", "evaluation"):
        if part in results:
            print_scores(f"{part} of {options.model}", results[part])
    print(f"results: {path}")
    return results


def settings_of(options: EvalArguments) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name not in NOT_A_SETTING}


def evaluate_world(options: EvalArguments) -> dict[str, Any]:
    from .playground import WORLDS, evaluate
    from .playground.tokenizer import VOCABULARY

    if options.world not in WORLDS:
        raise ValueError(f"Unknown world {options.world!r}; choose one of {', '.join(WORLDS)}.")
    model = load_model(options.model, options.dtype)
    if len(plain_head(model).weight) != len(VOCABULARY):
        raise ValueError(f"{options.model} is no model of the built-in worlds: they have {len(VOCABULARY)} tokens.")
    base = None if options.reference is None else load_model(options.reference, options.dtype)
    measured = evaluate(
        model,
        options.world,
        base=base,
        seed=options.seed,
        num_prompts=options.num_prompts or 200,
        num_samples=options.num_samples or 64,
        temperature=options.temperature,
    )
    return record(settings_of(options), evaluation=measured)


def evaluate_data(options: EvalArguments) -> dict[str, Any]:
    reward = None if options.reward is None else resolve_reward(options.reward)
    sampling = sampling_of(options)
    rows = load_rows(options)
    taught = next((columns for columns in SFT_FORMATS if set(columns) <= set(rows.column_names)), None)
    if taught is None and sampling is None:
        raise ValueError(f"{options.data} has prompts only: give a --reward or --num_samples to draw answers.")
    prompts = [] if sampling is None else prompts_of(rows, options.data)
    model = load_model(options.model, options.dtype)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    check_tokenizer_fits(model, tokenizer)
    tokens = samples = None
    if taught is not None:
        tokens = token_scores(options, model, tokenizer, rows.select_columns(training_columns(rows, taught)))
    if sampling is not None:
        Path(options.output_dir).mkdir(parents=True, exist_ok=True)
        kept = Path(options.output_dir) / "samples.jsonl"
        drawn = sample(model, tokenizer, prompts, sampling, batch_size=options.batch_size, show_progress=True)
        write_samples(kept, prompts, drawn, None)  # before grading, which may fail
        asked = [{**row, "prompt": prompt} for row, prompt in zip(rows, prompts, strict=True)]
        grades = None if reward is None else grade(asked, drawn, [reward])
        samples = sample_evidence(drawn, grades, correct_at=options.correct_at, answer_of=final_answer)
        samples |= {"sampling": asdict(sampling), "prompt_hash": prompt_hash(tokenizer, prompts)}
        write_samples(kept, prompts, drawn, grades)
    else:
        (Path(options.output_dir) / "samples.jsonl").unlink(missing_ok=True)  # of another evaluation
    return record(settings_of(options), tokens=tokens, samples=samples)


def sampling_of(options: EvalArguments) -> Sampling | None:
    """How to sample; None when neither a reward nor a number of samples asks for it."""
    number = options.num_samples
    if number is None:
        number = 0 if options.reward is None else 1 if options.temperature == 0 else 8
    if number == 0:
        return None
    return Sampling(
        num_samples=number,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
    )


def load_rows(options: EvalArguments) -> Dataset:
    rows = load_training_data(
        options.data,
        split=options.split,
        name=options.data_config,
        formats=(*SFT_FORMATS, *PROMPT_FORMATS),
        columns=column_map(options.data_columns),
        layout=options.data_format,
        system_prompt=options.system_prompt,
        keep_all_columns=True,
    )
    return rows.select(range(min(len(rows), options.num_prompts or len(rows))))


def training_columns(rows: Dataset, taught: tuple[str, ...]) -> list[str]:
    return [column for column in rows.column_names if column in (*taught, *COMPANIONS)]


def prompts_of(rows: Dataset, source: str) -> list[Prompt]:
    """The column `prompt`, or conversations without the assistant's last message."""
    if "prompt" in rows.column_names:
        return list(rows["prompt"])
    if "messages" not in rows.column_names:
        found = ", ".join(rows.column_names)
        raise ValueError(f"Drawing answers needs a column prompt or messages; {source} has {found}.")
    conversations = [row[:-1] if row[-1]["role"] == "assistant" else row for row in rows["messages"]]
    if not all(conversations):
        raise ValueError(f"A conversation in {source} has nothing before the assistant's message to answer to.")
    return conversations


def token_scores(options: EvalArguments, model: Any, tokenizer: Any, rows: Dataset) -> dict[str, Any]:
    reference = None if options.reference is None else load_model(options.reference, options.dtype)
    settings = {"max_length": options.max_length, "assistant_only_loss": options.assistant_only_loss}
    batches = prepared_batches(model, tokenizer, rows, TOKEN_BATCH, **settings)
    return token_evidence(row_statistics(model, batches, reference))


def final_answer(text: str) -> str:
    """What stands in the last box, or else the whole text."""
    boxed = last_box(text)
    return text.strip() if boxed is None else boxed


def load_model(path: str, dtype: str) -> Any:
    check_model(path)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval()
