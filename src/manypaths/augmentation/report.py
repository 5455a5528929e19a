"""What a round of augmentation gave: yield and balance, answers a prompt, cost, and examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..generation.prompts import Prompt
from ..report import render
from ..report.table import Cell, Facts, Line, Report, Section, Table
from ..run_folder import write_whole

EXAMPLES = 8
LENGTH = 600  # characters shown of a text
MOST = 9  # answers a prompt that have a column of their own


@dataclass(frozen=True)
class Kept:
    """A new answer: sample number `index`, its text, and how many samples gave it or one that counts as the same."""

    index: int
    text: str
    seen: int


@dataclass(frozen=True)
class Answered:
    """What became of one prompt.

    known: the answers that the data has. right: samples that ended and the verifier accepts. distinct: different ones
    among these. new: those of them that the data lacks. kept: those that were added.
    """

    id: str
    prompt: Prompt
    known: Sequence[str]
    right: int
    distinct: int
    new: int
    kept: Sequence[Kept]


@dataclass(frozen=True)
class Outcome:
    """A whole round: how it was made, what it gave and cost, as JSON, and every prompt."""

    summary: Mapping[str, Any]
    prompts: Sequence[Answered]
    folder: Path


def report_of(outcome: Outcome) -> Report:
    summary = outcome.summary
    facts = [
        ("prompts", f"{summary['prompts']:,}"),
        ("samples, each a verifier call", f"{summary['verifier_calls']:,}"),
        ("tokens generated", f"{summary['tokens']:,}"),
        ("rows before", f"{summary['rows_before']:,}"),
        ("rows added", f"{summary['kept']:,}"),
    ]
    how = [(name.replace("_", " "), str(summary[name])) for name in (
        "data", "model", "round", "verifier", "distinct_by", "num_answers", "num_samples", "temperature", "top_p", "top_k",
        "max_new_tokens", "seed")]  # fmt: skip
    return Report(
        kicker=f"manypaths · augmentation · round {summary['round']}",
        title=f"More right answers for {summary['data']}",
        lead="",
        tone="none",
        badge="",
        verdict="",
        facts=facts,
        sections=[
            Section("Yield", ABOUT_YIELD, [yield_table(outcome)]),
            Section("Answers a prompt", "", [answers_table(outcome)]),
            Section("Examples", "", [Facts([pair for prompt in examples(outcome.prompts) for pair in shown(prompt)])]),
            Section("How it was made", "", [Facts(how)]),
        ],
    )


ABOUT_YIELD = (
    "Right: samples that ended and that the verifier accepts. Distinct: different ones among them, new: those that the data "
    "lacked, added: those of them that were kept. Quarters are of the prompts, by their share of right samples."
)


def yield_table(outcome: Outcome) -> Table:
    """All prompts and each quarter of them: how far easy prompts crowd out hard ones."""
    samples = outcome.summary["num_samples"]
    ranked = sorted(outcome.prompts, key=lambda prompt: prompt.right)
    cuts = [place * len(ranked) // 4 for place in range(5)]
    names = ["hardest quarter", "second", "third", "easiest quarter"]
    groups = {"all prompts": ranked}
    if len(ranked) >= 4:
        groups |= {name: ranked[cuts[place] : cuts[place + 1]] for place, name in enumerate(names)}
    total = max(1, sum(len(prompt.kept) for prompt in ranked))
    right = max(1, sum(prompt.right for prompt in ranked))
    lines = []
    for name, group in groups.items():
        kept = sum(len(prompt.kept) for prompt in group)
        values = [
            f"{len(group):,}",
            f"{fmean(prompt.right for prompt in group) / samples:.1%}",
            f"{sum(prompt.right for prompt in group) / right:.0%}",
            f"{fmean(prompt.distinct for prompt in group):.2f}",
            f"{fmean(prompt.new for prompt in group):.2f}",
            f"{kept / len(group):.2f}",
            f"{kept / total:.0%}",
            f"{sum(prompt.right == 0 for prompt in group):,}",
            f"{sum(not prompt.kept for prompt in group):,}",
        ]
        lines.append(Line(name, list(map(Cell, values)), "baseline" if name == "all prompts" else "method"))
    return Table("", COLUMNS, lines, corner="prompts")


COLUMNS = [
    ("prompts", "different ones"),
    ("right", "share of the samples"),
    ("share of right", "of all right samples"),
    ("distinct a prompt", "different right answers"),
    ("new a prompt", "that the data lacked"),
    ("added a prompt", "kept in sft.jsonl"),
    ("share of added", "of all rows added"),
    ("none right", "prompts without any right sample"),
    ("none added", "prompts to which nothing was added"),
]


def answers_table(outcome: Outcome) -> Table:
    """How many prompts have how many answers, before and after."""
    before = [len(prompt.known) for prompt in outcome.prompts]
    after = [len(prompt.known) + len(prompt.kept) for prompt in outcome.prompts]
    numbers = sorted({min(number, MOST) for number in before + after})
    lines = [
        Line(name, [
            *(Cell(f"{sum(min(number, MOST) == wanted for number in given):,}") for wanted in numbers),
            Cell(f"{fmean(given):.2f}"),
        ])
        for name, given in (("before", before), ("after", after))
    ]  # fmt: skip
    heads = [(f"{number} or more" if number == MOST else str(number), "answers") for number in numbers]
    return Table("", [*heads, ("mean", "answers a prompt")], lines, "Numbers of prompts.", corner="answers")


def examples(prompts: Sequence[Answered]) -> list[Answered]:
    """A few prompts from the hardest to the easiest."""
    ranked = sorted(prompts, key=lambda prompt: (prompt.right, prompt.id))
    number = min(EXAMPLES, len(ranked))
    return [ranked[place * (len(ranked) - 1) // max(1, number - 1)] for place in range(number)]


def shown(prompt: Answered) -> list[tuple[str, str]]:
    """A prompt, what the data has for it, and what was added."""
    asked = prompt.prompt if isinstance(prompt.prompt, str) else str(prompt.prompt[-1].get("content"))
    rows = [(f"{prompt.id}, {prompt.right} right", cut(asked)), *(("in the data", cut(text)) for text in prompt.known)]
    return rows + [(f"added, seen {kept.seen} times", cut(kept.text)) for kept in prompt.kept]


def cut(text: str) -> str:
    return text if len(text) <= LENGTH else f"{text[:LENGTH]}\u2026"


def write_report(report: Report, folder: Path) -> None:
    """report.md; there are no figures."""
    write_whole(folder / "report.md", render.markdown(report, str))
