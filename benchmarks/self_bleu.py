"""What Self-BLEU costs, and that it is sacrebleu's number: both on the same texts, one after the other in one process.

    python benchmarks/self_bleu.py --prompts 500 --samples 16 --words 220

Texts are invented: each prompt has a worked answer out of sentences and formulas, and its samples are that answer with
sentences swapped, left out or written anew. Prompt by prompt, sacrebleu scores each sample with all others as references
and `self_bleu` scores the prompt; the order of the two alternates. Times are process CPU seconds on one thread, from
text to number: tokens remembered from earlier prompts are dropped for sacrebleu and kept for ours only as they are for
any user. Then `self_bleu` and `self_bleu_single_reference` alone for 8, 16, 32 and 64 samples a prompt.
Writes benchmarks/results/self_bleu_cpu_<date>.{json,md}.
"""

import argparse
import datetime
import json
import platform
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import sacrebleu
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

from manypaths.evaluation.bleu import self_bleu, self_bleu_single_reference

RESULTS = Path(__file__).parent / "results"
SAMPLES_OF_SCALING = (8, 16, 32, 64)
SENTENCES = (
    "We have that ${a}{x} + {b} = {c}$, so ${x} = \\frac{{{c} - {b}}}{{{a}}}$.",
    "Subtracting ${b}$ from both sides gives ${a}{x} = {c} - {b}$.",
    "Let ${x}$ be the number of {noun}s; then there are ${a}{x} + {b}$ {noun}s in all.",
    "By the {name} theorem, $\\sqrt{{{a}^2 + {b}^2}} < {c}$.",
    "The {noun} has area $\\frac{{1}}{{2}} \\cdot {a} \\cdot {b} = {c}.5$ square units.",
    "Therefore, the {noun} costs \\${a}.{b} in total, i.e. {c}% of the price.",
    "Note that {a}, {b} and {c} leave the same remainder when divided by {x}.",
    "Hence $\\binom{{{a}}}{{{b}}} = {c}$ ways to choose the {noun}s, which is what we want.",
    "If ${x} \\ge {a}$, then $f({x}) = {x}^2 - {b}{x} + {c} > 0$ and there is no solution.",
    "\\[\\sum_{{k=1}}^{{{a}}} k^2 = \\frac{{{b}({b}+1)}}{{{c}}}\\]",
)
NAMES = dict(
    x="xyznmk", noun=("triangle", "circle", "marble", "book", "coin"), name=("cosine", "Euler", "factor", "chord")
)


def sentence(draw: random.Random) -> str:
    numbers = {letter: draw.randint(1, 99) for letter in "abc"}
    return draw.choice(SENTENCES).format(**numbers, **{name: draw.choice(values) for name, values in NAMES.items()})


def make_prompt(draw: random.Random, samples: int, words: int) -> list[str]:
    """`samples` answers of about `words` words each, which share about two thirds of their sentences."""
    own: list[str] = []
    while sum(len(one.split()) for one in own) < words:
        own.append(sentence(draw))
    texts = []
    for _ in range(samples):
        lines = [one if draw.random() < 0.67 else sentence(draw) for one in own]
        place = draw.randrange(len(lines) - 1)
        lines[place], lines[place + 1] = lines[place + 1], lines[place]
        texts.append("\n".join(lines))
    return texts


def by_sacrebleu(texts: Sequence[str]) -> float:
    bleu = sacrebleu.BLEU(smooth_method="exp", effective_order=False)
    others = [[[other] for j, other in enumerate(texts) if j != i] for i in range(len(texts))]  # a stream per reference
    scores = [bleu.corpus_score([text], streams).score for text, streams in zip(texts, others, strict=True)]
    return sum(scores) / len(scores)


def timed(score: Callable[[Sequence[str]], float], texts: Sequence[str]) -> tuple[float, float]:
    Tokenizer13a.__call__.cache_clear()
    TokenizerRegexp.__call__.cache_clear()
    start = time.process_time()
    value = score(texts)
    return value, time.process_time() - start


def compare(prompts: Sequence[Sequence[str]]) -> dict:
    """CPU seconds of both over all prompts, and the largest difference of their values."""
    seconds = {"sacrebleu": 0.0, "self_bleu": 0.0, "self_bleu_single_reference": 0.0}
    largest, mean = 0.0, 0.0
    for number, texts in enumerate(prompts):
        order = [("sacrebleu", by_sacrebleu), ("self_bleu", self_bleu)]
        values = {}
        for name, score in order[:: 1 if number % 2 else -1]:
            values[name], spent = timed(score, texts)
            seconds[name] += spent
        seconds["self_bleu_single_reference"] += timed(self_bleu_single_reference, texts)[1]
        largest = max(largest, abs(values["sacrebleu"] - values["self_bleu"]))
        mean += values["self_bleu"] / len(prompts)
    return {"seconds": seconds, "largest_difference": largest, "mean_self_bleu": mean}


def scaling(seed: int, prompts: int, words: int) -> list[dict[str, float]]:
    """Milliseconds per prompt and per sample for more and more samples; the best of three rounds."""
    rows = []
    for samples in SAMPLES_OF_SCALING:
        draw = random.Random(seed)
        texts = [make_prompt(draw, samples, words) for _ in range(prompts)]
        row: dict[str, float] = {"samples": samples}
        for score in (self_bleu, self_bleu_single_reference):
            rounds = [sum(timed(score, one)[1] for one in texts) / prompts * 1000 for _ in range(3)]
            row[score.__name__] = min(rounds)
        rows.append(row)
    return rows


def processor() -> str:
    found = (
        re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if Path("/proc/cpuinfo").exists()
        else None
    )
    return found[1] if found else platform.processor()


def markdown(record: dict) -> str:
    shape, found = record["shape"], record["comparison"]
    seconds = found["seconds"]
    lines = [
        f"# Cost of Self-BLEU, {record['date']}",
        "",
        f"`python benchmarks/self_bleu.py --prompts {shape['prompts']} --samples {shape['samples']} --words {shape['words']}` "
        f"on {record['hardware']}, one thread; sacrebleu {record['versions']['sacrebleu']}, numpy "
        f"{record['versions']['numpy']}, python {record['versions']['python']}. Invented maths-like texts, "
        f"{shape['mean_words']:.0f} words and {shape['mean_tokens']:.0f} 13a tokens each on average; process CPU seconds, "
        "alternating prompt by prompt in one process, the tokenizer's memory dropped before each.",
        "",
        "| method | CPU s | share of sacrebleu |",
        "|---|--:|--:|",
        *(f"| {name} | {spent:.2f} | {spent / seconds['sacrebleu']:.4f} |" for name, spent in seconds.items()),
        "",
        f"Largest difference of `self_bleu` from sacrebleu over {shape['prompts']} prompts: {found['largest_difference']:.1e} "
        f"(mean value {found['mean_self_bleu']:.2f}).",
        "",
        f"Cost by samples per prompt ({record['scaling_prompts']} prompts, best of three rounds); linear means the same "
        "time per sample.",
        "",
        "| samples | self_bleu, ms a prompt | ms a sample | single reference, ms a prompt | ms a sample |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in record["scaling"]:
        own, single = row["self_bleu"], row["self_bleu_single_reference"]
        lines.append(
            f"| {row['samples']} | {own:.2f} | {own / row['samples']:.3f} | {single:.2f} | {single / row['samples']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--words", type=int, default=220)
    parser.add_argument("--scaling_prompts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    prompts = [make_prompt(draw, arguments.samples, arguments.words) for _ in range(arguments.prompts)]
    texts = [text for one in prompts for text in one]
    tokenize = sacrebleu.BLEU().tokenizer
    date = datetime.date.today().isoformat()
    record = {
        "date": date,
        "hardware": processor(),
        "versions": {
            "sacrebleu": sacrebleu.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "shape": {
            "prompts": arguments.prompts,
            "samples": arguments.samples,
            "words": arguments.words,
            "mean_words": sum(len(text.split()) for text in texts) / len(texts),
            "mean_tokens": sum(len(tokenize(text).split()) for text in texts[:1000]) / len(texts[:1000]),
        },
        "comparison": compare(prompts),
        "scaling_prompts": arguments.scaling_prompts,
        "scaling": scaling(arguments.seed, arguments.scaling_prompts, arguments.words),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"self_bleu_cpu_{date}"
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
