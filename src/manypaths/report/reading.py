"""What the numbers of a report carry, said in sentences: one per claim, each computed from its intervals.

A verdict is only as strong as the intervals behind it: "visible" needs every interval on the claimed side of zero.
Each sentence names the cheap control that a reader should compare with, and the seeds it rests on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .summary import (
    Efficiency,
    Estimate,
    check_runs,
    difference,
    efficiency,
    estimate,
    runs_of,
    score_keys,
    short_label_of,
)
from .wording import BASELINE, LABELS, STAGES, number, pass_ks, score_for

VERDICTS = {
    "visible": "Visible here",
    "partly": "Visible in part",
    "unclear": "Not distinguishable here",
    "mixed": "Mixed here",
    "opposite": "The opposite here",
}
NEXT_TO_NOTHING = 0.01


@dataclass(frozen=True)
class Reading:
    """One claim (key and title), its verdict (a key of VERDICTS), and what was seen.

    `plain` says in words who is above whom, `finding` gives the numbers, `control` those of the matching
    cheap alternative (empty where a claim has none), `basis` the seeds and what the intervals range over.
    """

    claim: str
    title: str
    verdict: str
    plain: str
    finding: str
    control: str
    basis: str

    @property
    def text(self) -> str:
        """All of it in a row: verdict, words, numbers, control and basis."""
        parts = [f"{VERDICTS[self.verdict]}: {self.plain}", self.finding, self.control, f"({self.basis})"]
        return " ".join(part for part in parts if part)


def readings(results: Mapping) -> list[Reading]:
    """The sentences for all claims whose methods were run; claims without their rows are left out.

    Raises ValueError as check_runs does.
    """
    check_runs(results)
    found = [
        *_cold_start(results),
        _collapse(results),
        _narrowing(results),
        _after_rl(results, "pass@1", "rl-accuracy", "Keeping answers in SFT pays in accuracy after RL"),
        _after_rl(results, _largest_pass(results), "rl-coverage", "Keeping answers in SFT pays in coverage after RL"),
        _forgetting(results),
        _best_of_n(results),
    ]
    return [reading for reading in found if reading]


def _collapse(results: Mapping) -> Reading | None:
    key, stage = "distinct_correct", "sft"
    kept = _differences(results, ("sed", "gem"), stage, key)
    if not kept:
        return None
    ce, base = estimate(results, BASELINE, stage, key), estimate(results, "base", stage, key)
    lost = difference(results, BASELINE, stage, key, "base")
    finding = f"CE has {_value(key, ce)} distinct correct answers per prompt"
    if base and lost:
        finding += f" (no SFT: {_value(key, base)}; CE against it {_change(key, lost)})"
    finding += f"; against CE, {_list(results, key, kept)}."
    price = _differences(results, kept, stage, "pass@1")
    if price:
        finding += f" In pass@1 against CE: {_list(results, 'pass@1', price)} points."
    plain = "in distinct correct answers after SFT, "
    if lost:
        relation = {1: "is above", 0: "cannot be told from", -1: "is below"}[lost.sign()]
        plain += f"CE {relation} the model without SFT; "
    plain += _sides(results, kept)
    plain += _sides_of_control(results, kept, "ce_early", stage, key) + "."
    control = _control(results, kept, "ce_early", stage, key)
    signs = [change.sign() for change in kept.values()] + ([-lost.sign()] if lost else [])
    title = f"CE collapses answers; {_names(results, kept)} keep{'' if len(kept) > 1 else 's'} more"
    basis = _basis([*kept.values(), lost])
    return Reading("collapse", title, _verdict(signs), plain, finding, control, basis)


def _narrowing(results: Mapping) -> Reading | None:
    stage, key = "sft", "distinct_correct"
    gain = difference(results, "dft", stage, "pass@1")
    change = difference(results, "dft", stage, key)
    if not gain or not change:
        return None
    finding = (
        f"{short_label_of(results, 'dft')} against CE: pass@1 {_change('pass@1', gain)} points, "
        f"distinct correct answers {_change(key, change)}."
    )
    plain = f"after SFT, in pass@1 {_sides(results, {'dft': gain})}; in distinct correct answers "
    plain += f"{_sides(results, {'dft': change})}{_sides_of_control(results, ['dft'], 'base_sharp', stage, key)}."
    control = _control(results, ["dft"], "base_sharp", stage, key)
    verdict = _verdict([gain.sign(), -change.sign()])
    title = "DFT raises accuracy and narrows"
    return Reading("narrowing", title, verdict, plain, finding, control, _basis([gain, change]))


def _after_rl(results: Mapping, key: str, claim: str, title: str) -> Reading | None:
    changes = _differences(results, ("sed", "gem", "eksft"), "rl", key)
    if not changes:
        return None
    ce = estimate(results, BASELINE, "rl", key)
    finding = f"CE ends at {_value(key, ce)}; against CE, {_list(results, key, changes)} points."
    plain = f"in {key} after RL, {_sides(results, changes)}"
    plain += _sides_of_control(results, changes, "ce_early", "rl", key) + "."
    control = _control(results, changes, "ce_early", "rl", key)
    base, untuned = estimate(results, "base", "rl", key), difference(results, "base", "rl", key)
    if base and untuned:
        control += f" No SFT + RL ends at {_value(key, base)} ({_change(key, untuned)} points against CE)."
    verdict = _verdict([change.sign() for change in changes.values()])
    return Reading(claim, title, verdict, plain, finding, control, _basis(changes.values()))


def _forgetting(results: Mapping) -> Reading | None:
    key, stage = "side_tasks", "sft"
    kept = _differences(results, ["gem"], stage, key)
    if not kept:
        return None
    ce, gem = estimate(results, BASELINE, stage, key), estimate(results, "gem", stage, key)
    finding = (
        f"{short_label_of(results, 'gem')} solves {_value(key, gem)} % of the side tasks, CE {_value(key, ce)} % "
        f"({_change(key, kept['gem'])} points)."
    )
    plain = f"on the side tasks after SFT, {_sides(results, kept)}"
    plain += _sides_of_control(results, kept, "ce_early", stage, key) + "."
    control = _control(results, kept, "ce_early", stage, key)
    verdict = _verdict([kept["gem"].sign()])
    return Reading("forgetting", "GEM forgets less", verdict, plain, finding, control, _basis(kept.values()))


def _best_of_n(results: Mapping) -> Reading | None:
    stage = "sft"
    shares = {method: efficiency(results, method, stage) for method in ("sed", "gem", "eksft", "ce_hot")}
    shares = {method: share for method, share in shares.items() if share}
    hot = shares.pop("ce_hot", None)
    if not shares:
        return None
    n = next(iter(shares.values())).n
    signs = {method: _share_sign(results, method, stage, share) for method, share in shares.items()}
    words = {
        1: "need{s} fewer samples than CE",
        0: "cannot be told from CE",
        -1: "need{s} more samples than CE",
    }
    plain = f"for CE's best of {n} after SFT, {_grouped(results, signs, words)}"
    needs = [f"{short_label_of(results, method)} {_needs(share)}" for method, share in shares.items()]
    control = f"The matching control was not run: {LABELS['ce_hot']}."
    if hot:
        hot_sign = _share_sign(results, "ce_hot", stage, hot)
        plain += f"; the control {_grouped(results, {'ce_hot': hot_sign}, words)}"
        control = f"Control: {short_label_of(results, 'ce_hot')}, {_needs(hot)}."
    title, finding = f"Fewer samples reach the same best of {n}", f"Of CE's {n} samples, {_join(needs)}."
    verdict = _verdict(list(signs.values()))
    return Reading("best-of-n", title, verdict, f"{plain}.", finding, control, _basis(shares.values()))


def _cold_start(results: Mapping) -> list[Reading | None]:
    """The two claims that only make sense where the base cannot answer at all."""
    if results["world"] != "coldstart":
        return []
    return [
        _nothing(results, "base", ["rl"], "rl-alone", "RL alone gets nothing"),
        _nothing(results, "dft", ["sft", "rl"], "dft-notation", "DFT never learns the notation"),
    ]


def _nothing(results: Mapping, method: str, stages: Sequence[str], claim: str, title: str) -> Reading | None:
    """Visible when the upper limit of pass@1 stays below 1 % at each stage, opposite when a lower limit does not."""
    own = {stage: estimate(results, method, stage, "pass@1") for stage in stages}
    own = {stage: found for stage, found in own.items() if found}
    if not own:
        return None
    name, parts = short_label_of(results, method), []
    for stage, found in own.items():
        part = f"{STAGES[stage]}, {_right_samples(results, method, stage)}pass@1 {_value('pass@1', found)} %"
        ce = estimate(results, BASELINE, stage, "pass@1")
        parts.append(part + (f" (CE: {_value('pass@1', ce)} %)" if ce else ""))
    signs = [-found.sign(NEXT_TO_NOTHING) for found in own.values()]
    words = {1: "stays below 1 %", 0: "cannot be told from 1 %", -1: "is above 1 %"}
    states = [f"{words[sign]} {STAGES[stage]}" for stage, sign in zip(own, signs, strict=True)]
    plain, finding = f"the pass@1 of {name} {_join(states)}.", f"{name}: {'; '.join(parts)}."
    return Reading(claim, title, _verdict(signs), plain, finding, "", _basis(own.values()))


def _right_samples(results: Mapping, method: str, stage: str) -> str:
    evaluations = [run["evaluation"] for run in runs_of(results, method, stage).values()]
    counts = [evaluation.get("per_prompt", {}).get("num_correct") for evaluation in evaluations]
    if not all(counts):
        return ""
    total = sum(len(own) * evaluation["num_samples"] for own, evaluation in zip(counts, evaluations, strict=True))
    return f"{sum(map(sum, counts)):,} of {total:,} samples right, "


def _verdict(signs: Sequence[int]) -> str:
    """From the side of zero each interval lies on (+1 as claimed, -1 against, 0 covers zero)."""
    if all(sign > 0 for sign in signs):
        return "visible"
    if all(sign < 0 for sign in signs):
        return "opposite"
    if all(sign == 0 for sign in signs):
        return "unclear"
    return "mixed" if any(sign < 0 for sign in signs) else "partly"


def _basis(estimates: Iterable[Estimate | Efficiency | None]) -> str:
    """The seeds a sentence rests on and what its intervals range over."""
    estimates = [one for one in estimates if one]
    seeds = sorted({one.num_seeds for one in estimates})
    over_prompts = any(one.interval_over and one.interval_over.startswith("prompts") for one in estimates)
    if seeds == [1]:
        return "One seed; 95 % intervals over prompts, so another training run may differ by more."
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    caution = " Two seeds make very wide intervals; run three or more." if seeds[0] == 2 else ""
    return f"{span} seeds; 95 % intervals over {'seeds, else over prompts' if over_prompts else 'seeds'}.{caution}"


def _differences(results: Mapping, methods, stage: str, key: str, baseline: str = BASELINE) -> dict[str, Estimate]:
    found = {method: difference(results, method, stage, key, baseline) for method in methods}
    return {method: change for method, change in found.items() if change}


def _control(results: Mapping, methods, control: str, stage: str, key: str) -> str:
    """How far the methods are from a control in a score where more is better."""
    changes = _differences(results, methods, stage, key, control)
    level = estimate(results, control, stage, key)
    if not changes or not level:
        return f"The matching control was not run: {LABELS[control]}."
    has = f"Control: {short_label_of(results, control)} has {_value(key, level)}"
    return f"{has}; against it, {_list(results, key, changes)}."


def _sides(results: Mapping, changes: Mapping[str, Estimate]) -> str:
    """Who lies above CE, who below, and who cannot be told from it."""
    words = {1: "{is} above CE", 0: "cannot be told from CE", -1: "{is} below CE"}
    return _grouped(results, {method: change.sign() for method, change in changes.items()}, words)


def _sides_of_control(results: Mapping, methods, control: str, stage: str, key: str) -> str:
    """The same against a control, to be appended to a sentence; empty when the control was not run."""
    changes = _differences(results, methods, stage, key, control)
    if not changes:
        return ""
    words = {1: "{is} above", 0: "cannot be told apart", -1: "{is} below"}
    sides = _grouped(results, {method: change.sign() for method, change in changes.items()}, words)
    return f"; against the control ({short_label_of(results, control)}), {sides}"


def _grouped(results: Mapping, signs: Mapping[str, int], words: Mapping[int, str]) -> str:
    """`SED and GEM are above CE, EKSFT cannot be told from CE`: methods joined by their sign."""
    parts = []
    for sign, verb in words.items():
        group = [method for method in signs if signs[method] == sign]
        if group:
            verb = verb.replace("{is}", "is" if len(group) == 1 else "are")
            parts.append(f"{_names(results, group)} {verb.replace('{s}', 's' if len(group) == 1 else '')}")
    return ", ".join(parts)


def _list(results: Mapping, key: str, changes: Mapping[str, Estimate]) -> str:
    """`SED +0.37 [+0.30, +0.44] and GEM +0.58 [+0.54, +0.62]`."""
    return _join([f"{short_label_of(results, method)} {_change(key, change)}" for method, change in changes.items()])


def _names(results: Mapping, methods) -> str:
    return _join([short_label_of(results, method) for method in methods])


def _value(key: str, found: Estimate) -> str:
    return number(score_for(key), found.value)


def _change(key: str, change: Estimate) -> str:
    score = score_for(key)
    if change.low is None or change.high is None:
        return f"{number(score, change.value, signed=True)} (no interval)"
    limits = f"{number(score, change.low, signed=True)}, {number(score, change.high, signed=True)}"
    return f"{number(score, change.value, signed=True)} [{limits}]"


def _needs(share: Efficiency) -> str:
    if share.value is None:
        missed = 1 - share.reached
        if share.interval_over == "prompts":
            return f"does not get there (nor do {missed:.0%} of resampled prompt sets)"
        return f"does not get there in {round(missed * share.num_seeds)} of {share.num_seeds} seeds"
    if share.low is None:
        return f"needs {share.value:.2f} (no interval)"
    high = f"{share.high:.2f}" if share.high is not None else "out of reach"
    return f"needs {share.value:.2f} [{share.low:.2f}, {high}]"


def _share_sign(results: Mapping, method: str, stage: str, share: Efficiency) -> int:
    """+1 when surely fewer samples suffice; -1 when even all of them surely stay below CE's level."""
    if share.high is not None and share.high < 1:
        return 1
    level = difference(results, method, stage, f"pass@{share.n}")
    return -1 if level and level.sign() < 0 else 0


def _largest_pass(results: Mapping) -> str:
    return f"pass@{pass_ks(set(score_keys(results['runs'])))[-1]}"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
