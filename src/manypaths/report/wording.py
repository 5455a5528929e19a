"""What rows, columns and worlds are called, and what they mean: every word the renderers share."""

from collections.abc import Mapping
from dataclasses import dataclass

BASELINE = "ce"
CONTROLS = ("base", "base_sharp", "ce_early", "ce_hot")
ROW_ORDER = ("base", "base_sharp", "ce", "ce_early", "ce_hot", "sed", "gem", "dft", "eksft")
STAGES = {"sft": "before RL", "rl": "after RL"}

LABELS = {
    "base": "no SFT",
    "base_sharp": "no SFT, sharpened",
    "ce": "CE",
    "ce_early": "CE, stopped early",
    "ce_hot": "CE, sampled hotter",
    "sed": "SED",
    "gem": "GEM",
    "dft": "DFT",
    "eksft": "EKSFT",
}

METHOD_NOTES = {
    "base": "Control: the starting model itself, without any fine-tuning.",
    "base_sharp": "Control: the starting model with larger logits, set to reach CE's pass@1. It shows how much is "
    "mere sharpening.",
    "ce": "Cross-entropy, the usual SFT loss. Every difference is taken against this row.",
    "ce_early": "Control: cross-entropy for fewer epochs. The cheapest way to keep diversity.",
    "ce_hot": "Control: the CE model sampled at a higher temperature. The other cheap way.",
    "sed": "SED-SFT, arXiv:2602.07464: holds back on tokens where the model is unsure.",
    "gem": "GEM, arXiv:2408.16673: pushes down only what the model already overrates.",
    "dft": "DFT, arXiv:2508.05629: weighs every token by its own probability.",
    "eksft": "EKSFT, arXiv:2605.29303: leaves out the tokens of highest entropy and highest KL.",
}


@dataclass(frozen=True)
class Score:
    """A column: its key in the results, heading, factor and decimals for display, and meaning."""

    key: str
    label: str
    factor: float
    decimals: int
    meaning: str


_FIXED_SCORES = (
    Score("greedy", "greedy", 100, 1, "% of prompts solved by always taking the likeliest token"),
    Score("distinct_correct", "distinct correct", 1, 2, "different right answers among the samples of a prompt"),
    Score("self_bleu", "Self-BLEU", 1, 1, "overlap between samples of one prompt; 100 = all the same"),
    Score("entropy", "entropy", 1, 3, "mean uncertainty per generated token, nats"),
    Score("kl_to_base", "KL to base", 1, 3, "drift from the starting model per token, nats"),
    Score("side_tasks", "side tasks", 100, 1, "% right on other tasks the base could do; less = forgotten"),
    Score(
        "base_countdown_loss",
        "base loss",
        1,
        3,
        "loss on pre-training text, nats per token; more = forgotten",
    ),
)
_MAIN = ("greedy", "distinct_correct", "self_bleu", "entropy", "kl_to_base", "side_tasks")

WORLDS = {
    "recall": (
        "Most problems have many right answers. What does fine-tuning on one of them leave?",
        "Countdown: reach a target from three numbers. Every prompt has at least four right answers, and a tiny "
        "model that has seen them all is fine-tuned on demonstrations that show just one. Each row below uses "
        "the same demonstrations with another loss; then every model gets the same reinforcement learning (RL) "
        "with exact rewards.",
    ),
    "coldstart": (
        "Answers in a notation the model was never asked for: where fine-tuning is necessary.",
        "Countdown in a new notation: a tiny model can read and write the notation but was never asked to answer "
        "in it, so RL alone finds nothing to reward. Each row below learns from the same demonstrations with "
        "another loss; then every model gets the same reinforcement learning (RL) with exact rewards.",
    ),
}

READING_HELP = (
    "pass@k: chance that at least one of k samples is right (pass@1 is plain accuracy). Distinct correct answers: "
    "different right answers among the samples of a prompt. A control is a cheap alternative that a new objective "
    "has to beat. Brackets hold 95 % intervals; a claim counts as visible only when they leave out zero."
)
INTERVAL_NOTE = (
    "All runs of a world share one starting model and one set of test prompts, so no interval here speaks about "
    "other starting models or other tasks."
)
DIFFERENCE_NOTE = (
    "Differences are taken on the same seed, or with a single seed on the same prompts. Bold: the 95 % interval "
    "leaves out zero. There is no correction for many comparisons: of twenty true zeros one is expected to turn bold."
)
OVER = {
    "seeds": "training seeds",
    "prompts": "the test prompts of the pooled runs, which leaves out how much training runs differ",
    "prompts, unpaired": "the test items of both runs, taken as independent",
}


def score_for(key: str) -> Score:
    """The column of any score key: pass@k, side_<task>, or one of the fixed ones; unknown keys are shown raw."""
    for score in _FIXED_SCORES:
        if score.key == key:
            return score
    if key.startswith("pass@"):
        k = key.removeprefix("pass@")
        samples = "one sample is" if k == "1" else f"at least one of {k} samples is"
        return Score(key, key, 100, 1, f"% chance that {samples} right")
    if key.startswith("old_pass@"):
        own = key.removeprefix("old_")
        return Score(key, f"old notation {own}", 100, 1, f"{own} on the request and notation of pre-training")
    if key.startswith("side_"):
        return Score(key, key.removeprefix("side_"), 100, 1, "% right on this side task")
    return Score(key, key.replace("_", " "), 1, 3, "as recorded by the evaluation")


def main_columns(available: set[str]) -> list[Score]:
    """Columns of the main tables, in reading order, as far as the results hold them."""
    ks = pass_ks(available)
    chosen = sorted({k for k in ks if k in (1, 8)} | set(ks[-1:]))
    keys = [f"pass@{k}" for k in chosen] + [score.key for score in _FIXED_SCORES if score.key in _MAIN]
    keys += [f"old_pass@{k}" for k in pass_ks(available, "old_pass@")]
    return [score_for(key) for key in keys if key in available]


def pass_ks(available: set[str], prefix: str = "pass@") -> list[int]:
    """The k of every pass@k among the score names, rising."""
    return sorted(int(key.removeprefix(prefix)) for key in available if key.startswith(prefix))


def number(score: Score, value: float, signed: bool = False) -> str:
    """A value in display units, for example 44.4 for an accuracy of 0.444."""
    text = f"{value * score.factor:{'+' if signed else ''}.{score.decimals}f}"
    is_zero = not any(digit in "123456789" for digit in text)
    return text.lstrip("+-") if is_zero else text


def world_story(results: Mapping) -> tuple[str, str]:
    """Question and explanation at the top of a report; neutral words for a world we do not know."""
    neutral = (
        "What does the fine-tuning objective change, before and after RL?",
        "Every row uses the same data with another loss; rows marked as controls are cheap alternatives.",
    )
    return WORLDS.get(results["world"], neutral)
