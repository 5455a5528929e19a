"""What the scores, tables, pictures and warnings of a report on evaluations are called, and what they mean."""

from collections.abc import Iterable

from .wording import Score, score_for

BENCHMARK_LABELS = {
    "aime24": "AIME 2024",
    "aime25": "AIME 2025",
    "amc23": "AMC 2023",
    "gsm8k": "GSM8K",
    "math500": "MATH 500",
    "gaokao2023en": "Gaokao 2023 EN",
    "olympiadbench": "Olympiad Bench",
    "college_math": "College Math",
}
TASK_LABELS = {
    "arc_challenge": "ARC challenge",
    "hellaswag": "HellaSwag",
    "mmlu": "MMLU",
    "truthfulqa_mc2": "TruthfulQA",
    "winogrande": "WinoGrande",
    "gsm8k": "GSM8K",
}

_SCORES = (
    Score("self_bleu", "Self-BLEU", 1, 1, "overlap of an answer with the others to its problem; 100 = all the same"),
    Score(
        "self_bleu_single_reference",
        "Self-BLEU, one reference",
        1,
        1,
        "overlap with a single other answer, as GEM's published script computes it; not comparable with Self-BLEU",
    ),
    Score("self_bleu_diversity", "text diversity", 1, 1, "100 - Self-BLEU: more = less overlap between answers"),
    Score("distinct_answers", "distinct answers", 1, 2, "different final answers per problem, wrong ones included"),
    Score("answer_entropy", "answer entropy", 1, 2, "spread of the final answers of a problem, nats; 0 = all the same"),
    Score(
        "distinct_n",
        "distinct-n",
        1,
        3,
        "distinct n-grams over all, mean over n = 1, 2, 3; falls with the length of answers",
    ),
    Score("embedding_diversity", "embedding diversity", 1, 3, "1 - mean cosine between answers; more = less alike"),
    Score("vendi", "Vendi", 1, 2, "effective number of different answers, from embeddings"),
    Score("entropy", "token entropy", 1, 3, "nats per token, how hot it runs; of samples: mean -log probability"),
    Score("length", "length", 1, 0, "tokens per answer"),
    Score("words", "words", 1, 0, "words per answer"),
    Score("mean_reward", "mean reward", 1, 3, "mean of the reward function"),
    Score("accuracy", "accuracy", 100, 1, "% of the samples that are right, mean over problems"),
    Score("ce", "cross-entropy", 1, 3, "-log probability of the text's own tokens, nats per token"),
    Score("perplexity", "perplexity", 1, 2, "exp of the cross-entropy"),
    Score("kl_to_reference", "KL to reference", 1, 3, "distance from the reference's next token, nats per token"),
    *(
        Score(f"p_label_p{share}", f"p(token) at {share} %", 1, 3, f"{share} % of the text's tokens are less probable")
        for share in (10, 25, 50, 75, 90)
    ),
    Score("top1", "top-1", 100, 1, "% of tokens that are the likeliest one"),
    Score("worse", "texts worse", 100, 1, "% of texts that became less likely"),
    Score("base_perplexity", "base perplexity", 1, 2, "perplexity of the held-aside text under the base"),
    Score("tuned_perplexity", "tuned perplexity", 1, 2, "perplexity of the held-aside text under the tuned model"),
    Score("difference", "loss added", 1, 3, "nats per token by which the tuned model is worse; paired"),
    Score("perplexity_ratio", "perplexity ratio", 1, 3, "tuned perplexity / base perplexity; above 1 = forgotten"),
    Score("kl_to_base", "KL to base", 1, 3, "how far the distribution of the next token moved, nats per token"),
)
_FAMILIES = {
    "avg": ("% right, mean over {k} samples", 100, 1),
    "pass": ("% chance that at least one of {k} samples is right", 100, 1),
    "maj": ("% right when {k} samples vote", 100, 1),
    "weighted_maj": ("% right when {k} samples vote, each with the exponential of its score as weight", 100, 1),
    "best_of": ("% right when a score picks one of {k} samples", 100, 1),
    "expected_max": ("mean best score among {k} samples, in units of the score", 1, 3),
}
CURVES = ("pass", "maj", "weighted_maj", "best_of")  # families in percent that are drawn and listed over k
DIVERSITY = (
    "self_bleu",
    "distinct_answers",
    "answer_entropy",
    "distinct_n",
    "embedding_diversity",
    "vendi",
    "self_bleu_single_reference",
    "entropy",
    "length",
)
RATES = {
    "truncated": (
        "answers were cut off at the token limit",
        "Raise --max_new_tokens and sample again.",
    ),
    "timeout": (
        "grades ran out of time",
        "They count as wrong. Grade the stored samples again (--regrade) on a machine that is not overloaded.",
    ),
    "unparsed": (
        "answers have no final answer that can be read",
        "They count as wrong whatever they say. Look into the stored samples: the chat template, the prompt, or the "
        "token limit may not suit the model.",
    ),
}

CUT = {  # what cut answers do, by who grades them
    "gold": "A cut answer has no final box and counts as wrong, so accuracy is too low and diversity is that of "
    "beginnings.",
    "reward": "A reward function sees only the beginning of a cut answer, and so do the measures of diversity.",
    "nobody": "Of prompts that nobody grades, diversity is that of beginnings.",
}

INTERVALS = (
    "95 % intervals over the problems of the benchmarks: how far a number holds for other problems like these. They say "
    "nothing about other training seeds, prompts or benchmarks"
)
TABLE_TEXT = (
    "Headline score of every benchmark in percent. \u00b1 is half of a 95 % interval over problems, brackets hold its limits "
    "where it is lopsided: how far a number holds for other problems like these. It says nothing about training the model "
    "again with another seed."
)
ACCURACY_TEXT = (
    "Headline score with its 95 % interval over problems. Overlapping intervals do not mean that models are alike: they "
    "answered the same problems, so read the paired differences."
)
PAIRS_TEXT = (
    "Difference on the same problems, in percentage points, with its 95 % interval over problems (not corrected). An "
    "asterisk marks what is left after correcting for the number of comparisons. No asterisk is no proof of equality."
)
PASS_TEXT = (
    "Chance that at least one of k samples is right; k = 1 is accuracy, the right end is what the model can find at "
    "all. Bands: 95 % intervals over problems. Curves of answers that can be guessed rise whatever the model knows."
)
SAMPLES_TEXT = (
    "What k samples are worth: pass@k needs a judge who knows the answer and is the upper bound, maj@k takes the most "
    "frequent answer, weighted-maj@k lets votes count by the exponential of a score, best-of-k takes the sample with the "
    "highest score. Bands: 95 % intervals over problems. Where maj@k "
    "stays flat, samples agree, rightly or wrongly."
)
DIVERSITY_TEXT = (
    "How different the answers to one problem are, with 95 % intervals over problems. All of them also move with "
    "sampling temperature, and with mistakes: see the comparison at matched accuracy before praising a model for them. "
    "Values for other numbers of samples or other lengths are not comparable."
)
HEAT_TEXT = (
    "Any model becomes more diverse when it is sampled hotter. One line a model, one point a temperature (the number "
    "beside it), crosses: 95 % intervals over problems. Along a line only the heat changes; {better} "
    "Points of one line share their problems, so they move together."
)
HEAT_BETTER = {
    "accuracy": "a model is more diverse in itself where its line lies further up and to the right.",
    "entropy": "a model is more diverse in itself where its line lies higher above the same entropy.",
}
MATCHED_TEXT = (
    "Difference to {base} where both models have the same accuracy, or the same entropy per token, averaged over the "
    "range both reach (lines between sampled temperatures, never beyond; where a curve passes a value twice the hottest "
    "temperature counts). 95 % intervals over problems; bold leaves out zero, not corrected for the number of rows."
)
TAX_TEXT = (
    "Scores in percent; difference: tuned minus base, in percentage points, with its paired 95 % interval over items. "
    "Alignment tax: mean over tasks of base minus tuned, so above zero = forgotten. Bold: the interval leaves out zero; "
    "no correction for many comparisons."
)
FORGETTING_TEXT = (
    "Tuned minus base on general tasks, in percentage points: below zero = forgotten. 95 % intervals over items, "
    "paired; the tasks are taken as given. A tuned model that only changed its answer format loses points, too."
)
TRUST_TEXT = (
    "Shares of samples that distort the scores; the worst benchmark of each row in brackets. Above "
    "5 % the numbers of that benchmark are not to be trusted (\u2020)."
)
FAMILY_NOTE = (
    "* p < 0.05 after Holm's correction over all {count} comparisons of this table with the {first} row (paired "
    "sign-flip tests on the same problems). Bold: the highest number of its column{group}, shown only where it also "
    "carries that mark or is the first row and all others do; it does not say that the best beats the second."
)


def evaluation_score(name: str) -> Score:
    """The column of any score name; unknown ones are shown raw."""
    for score in _SCORES:
        if score.key == name:
            return score
    family, at, k = name.partition("@")
    if at and family in _FAMILIES:
        meaning, factor, decimals = _FAMILIES[family]
        return Score(name, name.replace("_", "-"), factor, decimals, meaning.format(k=k))
    return score_for(name)


def benchmark_label(name: str) -> str:
    return BENCHMARK_LABELS.get(name, name.replace("_", " "))


def task_label(name: str) -> str:
    return TASK_LABELS.get(name, name.replace("_", " "))


def family_ks(names: Iterable[str], family: str) -> list[int]:
    """The k of every `family`@k among the score names, rising."""
    return sorted(int(name.partition("@")[2]) for name in names if name.partition("@")[0] == family and "@" in name)
