"""What everything in a report is called and what it means: metrics, units, tasks, stages, objectives, controls."""

from dataclasses import dataclass

NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown. `better` is +1 where more is better, -1 where less is, 0 where neither is."""

    label: str
    meaning: str
    better: int = 0


METRICS = {
    "mean_reward": Metric("mean reward", "mean of the reward function over all samples", 1),
    "distinct_correct": Metric("distinct correct", "different right answers among the samples of a problem", 1),
    "distinct_answers": Metric("distinct answers", "different final answers of a problem, wrong ones included"),
    "answer_entropy": Metric("answer entropy", "spread of the final answers of a problem, nats; 0 = all the same"),
    "self_bleu": Metric("Self-BLEU", "overlap of a sample with the others of its problem; 100 = all the same"),
    "self_bleu_single_reference": Metric(
        "Self-BLEU, one reference",
        "overlap with one other sample, as GEM's script has it; not comparable with Self-BLEU",
    ),
    "distinct_n": Metric("distinct-n", "share of different n-grams, mean over n = 1, 2, 3; falls with length"),
    "words": Metric("words", "words of an answer"),
    "embedding_diversity": Metric("embedding diversity", "1 - mean cosine between answers; more = less alike"),
    "vendi": Metric("Vendi", "effective number of different answers, from embeddings"),
    "length": Metric("length", "tokens of an answer"),
    "sampled_entropy": Metric("entropy (of samples)", "-log p of the samples per token, nats: a free, noisy estimate"),
    "entropy": Metric("entropy", "exact uncertainty per generated token, nats"),
    "kl_to_reference": Metric("KL to reference", "how far the next-token distribution moved from the reference, nats"),
    "truncated": Metric("cut off", "samples that were cut off at the token limit", -1),
    "timed_out": Metric("timed out", "samples whose grading ran out of time; they count as wrong", -1),
    "unparsed": Metric("no answer", "samples without a readable final answer; they count as wrong", -1),
    "ce": Metric("cross-entropy", "-log p of the given text, nats per token", -1),
    "perplexity": Metric("perplexity", "exp of the cross-entropy", -1),
    "text_entropy": Metric("entropy on the text", "uncertainty about the text's next token, nats"),
    "text_kl_to_reference": Metric("KL on the text", "distance from the reference's next token, nats"),
    "top1": Metric("top-1", "tokens of the text that are the likeliest one", 1),
    "reference_ce": Metric("reference's cross-entropy", "-log p of the text under the reference, nats per token"),
    "ce_increase": Metric(
        "loss added", "cross-entropy of the text minus the reference's, nats; above 0 = forgotten", -1
    ),
    "perplexity_ratio": Metric("perplexity ratio", "perplexity divided by the reference's; above 1 = forgotten", -1),
    "worse": Metric("texts worse", "texts that became less likely than under the reference", -1),
    "loss": Metric("loss", "of this objective; not comparable between objectives", -1),
    "mask_rate": Metric("mask rate", "share of trained tokens below the threshold"),
    "kept_share": Metric("kept", "share of trained tokens that are imitated at all"),
    "gate_mean": Metric("gate", "mean pull towards the label, 1 for cross-entropy"),
    "effective_token_share": Metric("effective tokens", "share of tokens that the gradient rests on; 1 = all alike"),
    "reward": Metric("reward", "mean reward of the sampled completions", 1),
    "zero_variance": Metric("no signal", "share of groups in which all rewards are equal: they give no gradient", -1),
    "kl": Metric("KL", "of the policy to the reference model, nats"),
    "base_score": Metric("base", "score of the base model"),
    "tuned_score": Metric("tuned", "score of the tuned model", 1),
    "change": Metric("change", "tuned minus base on the same items; below 0 = forgotten", 1),
    "alignment_tax": Metric("alignment tax", "mean over tasks of base minus tuned; above 0 = forgotten", -1),
}
FAMILIES = {
    "pass": "chance that at least one of {k} samples is right",
    "maj": "right when {k} samples vote",
    "weighted_maj": "right when {k} samples vote, each weighted by the exponential of its score",
    "best_of": "right when the sample with the highest score among {k} is taken",
    "expected_max": "mean highest score among {k} samples",
}
DIVERSITY = (
    "distinct_correct", "distinct_answers", "answer_entropy", "self_bleu", "distinct_n", "embedding_diversity", "vendi",
    "entropy", "sampled_entropy", "kl_to_reference", "length", "words", "self_bleu_single_reference",
)  # fmt: skip
TOKEN_SCORES = (
    "ce", "ce_increase", "perplexity", "perplexity_ratio", "worse", "text_entropy", "text_kl_to_reference", "top1",
    "p_label_p10", "p_label_p25", "p_label_p50", "p_label_p75", "p_label_p90",
)  # fmt: skip
QUALITY = ("truncated", "timed_out", "unparsed")

UNITS = {  # factor and decimals of a number as it is shown
    "share": (100, 1), "count": (1, 2), "nats": (1, 3), "tokens": (1, 0), "words": (1, 0), "bleu": (1, 1),
    "score": (1, 3), "ratio": (1, 2),
}  # fmt: skip

TASKS = {
    "average": "average", "aime24": "AIME 2024", "aime25": "AIME 2025", "amc23": "AMC 2023", "gsm8k": "GSM8K",
    "math500": "MATH 500", "gaokao2023en": "Gaokao 2023 EN", "olympiadbench": "Olympiad Bench",
    "college_math": "College Math", "arc_challenge": "ARC challenge", "hellaswag": "HellaSwag", "mmlu": "MMLU",
    "truthfulqa_mc2": "TruthfulQA", "winogrande": "WinoGrande", "countdown": "Countdown",
    "lm-eval": "mean of general tasks",
}  # fmt: skip

CONTROLS = {
    "no_sft": "The starting model without any fine-tuning, then the same RL: what RL alone does.",
    "no_sft_sharpened": "The starting model sampled at the temperature that gives it the baseline's accuracy: how much of a "
    "gain is mere sharpening.",
    "stopped_early": "The baseline with fewer epochs: the cheapest way to keep diversity.",
    "matched_temperature": "The baseline's model sampled at another temperature: the cheapest way to get diversity.",
    "weight_averaging": "Mean of the starting weights and the baseline's: a cheap way to forget less.",
}
OBJECTIVES = {
    "nll": "Cross-entropy, the usual SFT loss.",
    "sed": "SED-SFT, arXiv:2602.07464: holds back on tokens where the model is unsure.",
    "gem": "GEM, arXiv:2408.16673: pushes down only what the model already overrates.",
    "dft": "DFT, arXiv:2508.05629: weighs every token by its own probability.",
    "eksft": "EKSFT, arXiv:2605.29303: leaves out the tokens of highest entropy and highest KL.",
}
OVER = {
    "seeds": "training seeds",
    "problems": "test problems: how far a number holds for other problems like these, not for another training run",
    "items": "items, not another training run",
    "rows": "rows of the data",
    "texts": "texts",
    "tasks": "the problems of these tasks, not another training run",
}


def metric(name: str) -> Metric:
    """How a metric is shown, pass@8 and the like included; an unknown one goes by its own name."""
    if name in METRICS:
        return METRICS[name]
    family, _, k = name.partition("@")
    if k and family in FAMILIES:
        meaning = "plain accuracy: the share of all samples that are right" if name == "pass@1" else FAMILIES[family]
        return Metric(name.replace("_", "-"), meaning.format(k=k), 1)
    if name.startswith("p_label_p"):
        share = name.removeprefix("p_label_p")
        return Metric(f"p(token), {share} %", f"{share} % of the text's tokens are less probable than this")
    return Metric(name.replace("_", " "), "as measured")


def heading(name: str, unit: str) -> str:
    return f"{metric(name).label}{NO_BREAK + '%' if unit == 'share' else ''}"


def task(name: str) -> str:
    return TASKS.get(name, name.replace("_", " "))


def number(value: float, unit: str, signed: bool = False) -> str:
    """A value as it is shown: 44.4 for a share of 0.444; a zero has no sign."""
    factor, decimals = UNITS.get(unit, (1, 3))
    text = f"{value * factor:{'+' if signed else ''}.{decimals}f}"
    return text if any(digit in "123456789" for digit in text) else text.lstrip("+-")
