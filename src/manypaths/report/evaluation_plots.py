"""The pictures of a report on evaluations. Matplotlib figures, no state."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from ..evaluation.intervals import Interval, mean_of_intervals
from .evaluation_comparison import AVERAGE, curve_benchmarks, heated
from .evaluation_forgetting import forgetting_of
from .evaluation_summary import (
    Entry,
    Evaluations,
    drawn_entries,
    graded_entries,
    headline,
    score_of,
)
from .evaluation_wording import (
    ACCURACY_TEXT,
    CURVES,
    DIVERSITY,
    DIVERSITY_TEXT,
    FORGETTING_TEXT,
    HEAT_BETTER,
    HEAT_TEXT,
    PASS_TEXT,
    SAMPLES_TEXT,
    benchmark_label,
    evaluation_score,
    family_ks,
    task_label,
)
from .plots import GREY, INK, MORE_COLORS, PAPER, SETTINGS, Plot, place_labels

COLORS = (INK, "#2f7fc1", "#d9641e", "#1b9a74", "#b5559a", *MORE_COLORS)
MARKERS = ("o", "s", "D", "^", "v", "P")
FAMILIES = dict(zip(CURVES, (("-", "o"), ("--", "s"), ("-.", "D"), (":", "^")), strict=True))
WIDTH, COLUMNS = 9.2, 3


def evaluation_plots(found: Evaluations, means: Mapping[Entry, Interval]) -> dict[str, Plot]:
    """All pictures that the results can fill, by name."""
    with matplotlib.rc_context(SETTINGS):
        drawn = [
            _accuracy(found, means), _pass_curves(found), _many_samples(found), _diversity(found), _heat(found),
            _forgetting(found),
        ]  # fmt: skip
    return {plot.name: plot for plot in drawn if plot}


def _styles(names: Sequence) -> dict:
    """Colour and marker of every model or row."""
    return {name: (COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]) for place, name in enumerate(names)}


def columns_for(panels: int) -> int:
    return 2 if panels == 4 else min(COLUMNS, panels)


def _grid(panels: int, height: float, **options) -> tuple[Figure, list]:
    columns = columns_for(panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).ravel())
    for spare in axes[panels:]:
        spare.set_visible(False)
    return figure, axes[:panels]


def _which(found: Evaluations) -> str:
    """At which temperature the pictures are drawn, where rows differ in it."""
    settings = {entry.setting for entry in found.entries}
    if len(found.results) == 1 or len(settings) == 1:
        return ""
    drawn = sorted(drawn_entries(found), key=lambda entry: -1 if entry.setting is None else entry.setting)
    names = " and ".join(dict.fromkeys(map(found.heat, drawn)))
    return f" Drawn at {names}; the other temperatures are in the tables."


def _accuracy(found: Evaluations, means: Mapping[Entry, Interval]) -> Plot | None:
    """Headline scores as points with intervals, one group a benchmark."""
    entries = _graded_drawn(found)
    names = [*found.graded, *([AVERAGE] if means else [])]
    if not entries or not names:
        return None
    figure = Figure(figsize=(WIDTH, 0.9 + len(names) * (0.26 + 0.14 * len(entries))), layout="constrained")
    axes = figure.add_subplot()
    styles = _styles(entries)
    step = 0.72 / max(len(entries), 3)
    for row, name in enumerate(names):
        for place, entry in enumerate(entries):
            one = means.get(entry) if name == AVERAGE else headline(found.get(entry, name))
            if one is not None:
                _point(axes, one, row + (place - (len(entries) - 1) / 2) * step, styles[entry])
    _rows(axes, [name if name == AVERAGE else benchmark_label(name) for name in names])
    if means:
        axes.axhline(len(names) - 1.5, color=GREY, lw=0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("accuracy")
    _legend(figure, styles, {entry: found.name(entry) for entry in entries})
    return Plot("accuracy", "Accuracy by benchmark", ACCURACY_TEXT + _which(found), figure)


def _pass_curves(found: Evaluations) -> Plot | None:
    """pass@k against k: the mean, then every benchmark that was sampled more than once."""
    entries = _graded_drawn(found)
    own_ks = {name: _shared_ks(found, entries, [name], "pass") for name in found.graded}
    own_ks = {name: ks for name, ks in own_ks.items() if len(ks) > 1}
    if not own_ks:
        return None
    alike = found.alike(list(own_ks))
    common = sorted(set.intersection(*(set(own_ks[name]) for name in alike)))
    complete = [entry for entry in entries if all((entry, name) in found.found for name in alike)]
    panels = [AVERAGE] if len(alike) > 1 and len(common) > 1 and complete else []
    panels += own_ks
    figure, grid = _grid(len(panels), 2.35)
    styles = _styles(entries)
    for axes, panel in zip(grid, panels, strict=True):
        names = alike if panel == AVERAGE else [panel]
        ks = common if panel == AVERAGE else own_ks[panel]
        for entry in entries:
            _curve(axes, found, entry, names, "pass", ks, styles[entry])
        _k_axis(axes, ks)
        axes.set_title(f"mean of {len(names)}" if panel == AVERAGE else benchmark_label(panel))
    for axes in grid[:: columns_for(len(grid))]:
        axes.set_ylabel("pass@k")
    _legend(figure, styles, {entry: found.name(entry) for entry in entries})
    return Plot("pass_at_k", "One sample and many: pass@k", PASS_TEXT + _which(found), figure)


def _many_samples(found: Evaluations) -> Plot | None:
    """pass@k, votes and best-of-k over the mean of benchmarks, one panel a row."""
    entries = _graded_drawn(found)
    names = found.alike([name for name in found.graded if entries and _shared_ks(found, entries, [name], "maj")])
    ks = {family: _shared_ks(found, entries, names, family) for family in FAMILIES} if names else {}
    if len(ks.get("pass", ())) < 2:
        return None
    figure, grid = _grid(len(entries), 2.5, sharey=True)
    styles = _styles(entries)
    handles = {}
    for axes, entry in zip(grid, entries, strict=True):
        for family, (dashes, marker) in FAMILIES.items():
            own = sorted({1, *ks[family]}) if ks[family] else []
            line = _curve(axes, found, entry, names, family, own, (styles[entry][0], marker), dashes)
            if line is not None:
                handles.setdefault(family.replace("_", "-") + "@k", line)
        _k_axis(axes, ks["pass"])
        axes.set_title(found.name(entry))
    for axes in grid[:: columns_for(len(grid))]:
        axes.set_ylabel("right")
    legend = figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=9)
    for handle in legend.legend_handles:
        handle.set_color(INK)
    mean = f" Mean of {len(names)} benchmarks." if len(names) > 1 else f" On {benchmark_label(names[0])}."
    return Plot("many_samples", "What many samples are worth", SAMPLES_TEXT + mean + _which(found), figure)


def _diversity(found: Evaluations) -> Plot | None:
    """Diversity scores as points with intervals, one panel a score, rows are models."""
    entries = drawn_entries(found)
    names = found.graded or found.open_ended
    shared = {
        key: [name for name in names if all(score_of(found.get(entry, name), key) for entry in entries)]
        for key in DIVERSITY
        if key not in ("length", "self_bleu_single_reference")
    }
    keys = [key for key, own in shared.items() if own]
    if not entries or not set(keys) - {"entropy"}:
        return None
    figure, grid = _grid(len(keys), 0.75 + 0.24 * len(entries), sharey=True)
    styles = _styles(entries)
    for axes, key in zip(grid, keys, strict=True):
        for row, entry in enumerate(entries):
            one = mean_of_intervals(score_of(found.get(entry, name), key) for name in shared[key])
            _point(axes, one, row, styles[entry])
        _rows(axes, [found.name(entry) for entry in entries])
        axes.set_title(evaluation_score(key).label)
        axes.margins(x=0.12)
    widest = max((shared[key] for key in keys), key=len)
    over = f" Mean of {len(widest)} benchmarks." if len(widest) > 1 else f" On {benchmark_label(widest[0])}."
    return Plot("diversity", "Diversity", DIVERSITY_TEXT + over + _which(found), figure)


def _heat(found: Evaluations) -> Plot | None:
    """Quality against diversity over temperature; for open-ended prompts entropy stands in for quality."""
    names = curve_benchmarks(found)
    curves = {label: heated(found, label) for label in found.labels()}
    curves = {label: entries for label, entries in curves.items() if entries}
    if not names or not any(len(entries) > 1 for entries in curves.values()):
        return None
    is_graded = names[0] in found.graded
    quality = "accuracy" if is_graded else "entropy"
    keys = [key for key in ("self_bleu", "distinct_answers") if all(
        score_of(found.get(entry, name), key) for entries in curves.values() for entry in entries for name in names
    )]  # fmt: skip
    if not keys or not (is_graded or _have(found, curves, names, "entropy")):
        return None
    figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
    grid = figure.subplots(1, len(keys), squeeze=False)[0]
    styles = _styles(list(curves))
    for axes, key in zip(grid, keys, strict=True):
        labels = []
        for label, entries in curves.items():
            points = [
                (
                    mean_of_intervals(_quality(found, entry, name, quality) for name in names),
                    _more_is_diverse(mean_of_intervals(score_of(found.found[entry, name], key) for name in names), key),
                )
                for entry in entries
            ]
            color, marker = styles[label]
            axes.plot([x.value for x, _ in points], [y.value for _, y in points], color=color, lw=1.6, zorder=2)
            for entry, (x, y) in zip(entries, points, strict=True):
                _cross(axes, x, y, color, marker)
                labels.append((f"{entry.setting:g}", x.value, y.value, color))
        axes.margins(0.1)
        axes.set_xlabel("accuracy" if is_graded else "entropy, nats per token")
        axes.set_ylabel("100 - Self-BLEU" if key == "self_bleu" else evaluation_score(key).label)
        if is_graded:
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        place_labels(figure, axes, labels)
    _legend(figure, styles, {label: label for label in curves})
    mean = f" Mean of {len(names)} benchmarks." if len(names) > 1 else f" On {benchmark_label(names[0])}."
    return Plot("heat", "Diversity is not heat", HEAT_TEXT.format(better=HEAT_BETTER[quality]) + mean, figure)


def _forgetting(found: Evaluations) -> Plot | None:
    """Difference to the base per general task, and their mean."""
    results = forgetting_of(found)
    if not results:
        return None
    tasks = list(dict.fromkeys(task for own in results.values() for task in own["tasks"]))
    figure = Figure(figsize=(WIDTH, 0.9 + (len(tasks) + 1) * (0.24 + 0.13 * len(results))), layout="constrained")
    axes = figure.add_subplot()
    styles = _styles(found.labels())
    step = 0.72 / max(len(results), 3)
    for place, (label, own) in enumerate(results.items()):
        shift = (place - (len(results) - 1) / 2) * step
        for row, task in enumerate(tasks):
            one = score_of({"scores": own["tasks"].get(task, {})}, "difference")
            if one is not None:
                _point(axes, _in_points(one), row + shift, styles[label])
        tax = score_of({"scores": own}, "alignment_tax")
        if tax is not None:
            _point(axes, _in_points(_negative(tax)), len(tasks) + shift, styles[label])
    _rows(axes, [*map(task_label, tasks), "mean (- alignment tax)"])
    axes.axvline(0, color=GREY, lw=1, ls=":")
    axes.axhline(len(tasks) - 0.5, color=GREY, lw=0.8)
    axes.set_xlabel("percentage points, tuned minus base")
    _legend(figure, {label: styles[label] for label in results}, {label: label for label in results})
    return Plot("forgetting", "What was forgotten", FORGETTING_TEXT, figure)


def _graded_drawn(found: Evaluations) -> list[Entry]:
    graded = graded_entries(found)
    return [entry for entry in drawn_entries(found) if entry in graded]


def _shared_ks(found: Evaluations, entries: Sequence[Entry], names: Sequence[str], family: str) -> list[int]:
    """The k that all these rows have on all these benchmarks, as far as they were evaluated on them."""
    own = [
        family_ks(found.found[entry, name]["scores"], family)
        for entry in entries
        for name in names
        if (entry, name) in found.found
    ]
    return sorted(set.intersection(*map(set, own))) if own else []


def _curve(axes, found, entry, names, family, ks, style, dashes="-"):
    """One line with its band; the single sample of maj@k and best-of-k is pass@1. None when nothing is there."""
    points = {}
    for k in ks:
        key = f"{family}@{k}"
        own = [found.get(entry, name) for name in names]
        one = mean_of_intervals(score_of(part, key) or (score_of(part, "pass@1") if k == 1 else None) for part in own)
        if one is not None:
            points[k] = one
    if not points:
        return None
    color, marker = style
    values = [one.value for one in points.values()]
    (line,) = axes.plot(list(points), values, color=color, ls=dashes, lw=1.7, marker=marker, ms=3.5)
    if all(one.low is not None for one in points.values()):
        limits = [max(one.low, 0.0) for one in points.values()], [min(one.high, 1.0) for one in points.values()]
        axes.fill_between(list(points), *limits, color=color, alpha=0.1, lw=0)
    return line


def _k_axis(axes, ks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_xlabel("samples k")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _point(axes, one: Interval, place: float, style: tuple[str, str]) -> None:
    color, marker = style
    if one.low is not None and one.high is not None:
        axes.plot([one.low, one.high], [place, place], color=color, lw=1.4, alpha=0.65, solid_capstyle="butt")
    axes.plot(one.value, place, marker, ms=5, mfc=color, mec=PAPER, mew=0.6, zorder=3)


def _cross(axes, x: Interval, y: Interval, color: str, marker: str) -> None:
    if None not in (x.low, y.low):
        axes.plot([x.low, x.high], [y.value, y.value], color=color, lw=0.9, alpha=0.4)
        axes.plot([x.value, x.value], [y.low, y.high], color=color, lw=0.9, alpha=0.4)
    axes.plot(x.value, y.value, marker, ms=6, mfc=color, mec=PAPER, mew=0.7, zorder=3)


def _rows(axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _legend(figure: Figure, styles: Mapping, names: Mapping) -> None:
    """Names under the picture; a single one needs no legend."""
    if len(names) < 2:
        return
    lines = [Line2D([], [], color=styles[key][0], marker=styles[key][1], ms=5, lw=1.6) for key in names]
    figure.legend(lines, names.values(), loc="outside lower center", ncols=4, fontsize=9)


def _quality(found: Evaluations, entry: Entry, name: str, quality: str) -> Interval | None:
    evaluation = found.found[entry, name]
    return headline(evaluation) if quality == "accuracy" else score_of(evaluation, quality)


def _have(found: Evaluations, curves: Mapping[str, Sequence[Entry]], names: Sequence[str], key: str) -> bool:
    return all(score_of(found.get(e, name), key) for entries in curves.values() for e in entries for name in names)


def _more_is_diverse(one: Interval, key: str) -> Interval:
    if key != "self_bleu":
        return one
    turned = _negative(one)
    limits = [None if limit is None else 100.0 + limit for limit in (turned.low, turned.high)]
    return Interval(100.0 - one.value, *limits, one.n)


def _negative(one: Interval) -> Interval:
    low = None if one.high is None else -one.high
    return Interval(-one.value, low, None if one.low is None else -one.low, one.n)


def _in_points(one: Interval) -> Interval:
    return Interval(*(None if part is None else 100.0 * part for part in (one.value, one.low, one.high)), one.n)
