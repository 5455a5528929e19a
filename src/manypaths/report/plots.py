"""Three pictures of a report: diversity against accuracy, pass@k, forgetting. Matplotlib figures, no state."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .summary import (
    Estimate,
    estimate,
    methods_of,
    runs_of,
    score_keys,
    short_label_of,
    stages_of,
)
from .wording import CONTROLS, STAGES, pass_ks, score_for

INK, LINE, PAPER, GREY = "#1f2328", "#d5d9df", "#fefefe", "#868c95"
THEME_COLORS = {INK: "var(--ink)", LINE: "var(--line)", PAPER: "var(--paper)", GREY: "var(--grey)"}
OWN_COLORS = {"ce": INK, "sed": "#2f7fc1", "gem": "#1b9a74", "dft": "#d9641e", "eksft": "#b5559a"}
MORE_COLORS = ("#b8860b", "#6a5acd", "#4aa3a2", "#a0522d", "#708238")
CONTROL_STYLES = {
    "base": ("s", ":"),
    "base_sharp": ("D", "-."),
    "ce_early": ("^", "--"),
    "ce_hot": ("v", (0, (1, 2))),
}
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "manypaths",
    "text.parse_math": False,  # a model may have dollar signs in its name
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Plot:
    """A drawn figure with its file stem, heading, and the sentence that tells how to read it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Style:
    """How one method looks in every picture."""

    color: str
    marker: str
    dashes: str | tuple
    width: float


def plots_of(results: Mapping) -> list[Plot]:
    """All pictures that the results can fill."""
    with matplotlib.rc_context(SETTINGS):
        drawn = [_frontier(results), _pass_curves(results), _forgetting(results)]
    return [plot for plot in drawn if plot]


def save_plots(plots: list[Plot], folder: Path) -> dict[str, str]:
    """Write NAME.svg and NAME.png of every plot; returns {title: name of the PNG file}."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(SETTINGS):
        for plot in plots:
            plot.figure.savefig(folder / f"{plot.name}.svg", facecolor=PAPER, metadata={"Date": None})
            plot.figure.savefig(folder / f"{plot.name}.png", facecolor=PAPER, dpi=160)
    return {plot.title: f"{plot.name}.png" for plot in plots}


def inline_svg(plot: Plot) -> str:
    """The plot as an SVG element for a page: page fonts, colours from the page's theme, ids of its own."""
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        plot.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]+|(font: [^\"';]*?px) [^;\"]+", r"\1", text)
    for color, variable in THEME_COLORS.items():
        text = text.replace(color, variable)
    text = re.sub(r'\bid="', f'id="{plot.name}-', text)
    text = re.sub(r'href="#', f'href="#{plot.name}-', text)
    text = text.replace("url(#", f"url(#{plot.name}-")
    return text.replace("<svg ", f'<svg role="img" aria-label="{plot.title}" ', 1)


def _styles(results: Mapping) -> dict[str, Style]:
    styles = {}
    spare = iter(MORE_COLORS * 20)
    for method in methods_of(results):
        if method in CONTROLS:
            marker, dashes = CONTROL_STYLES[method]
            styles[method] = Style(GREY, marker, dashes, 1.4)
        else:
            color = OWN_COLORS[method] if method in OWN_COLORS else next(spare)
            styles[method] = Style(color, "o", "-", 2.4 if method == "ce" else 1.8)
    return styles


def _frontier(results: Mapping) -> Plot | None:
    """Accuracy to the right, different right answers upwards; an arrow from SFT to RL per method."""
    points = {
        method: {stage: _point(results, method, stage) for stage in stages_of(results)}
        for method in methods_of(results)
    }
    points = {method: {stage: at for stage, at in own.items() if at} for method, own in points.items()}
    points = {method: own for method, own in points.items() if own}
    if not points:
        return None
    figure = Figure(figsize=(7.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    styles, labels = _styles(results), []
    for method, own in points.items():
        style = styles[method]
        if len(own) == 2:
            arrow = {
                "arrowstyle": "-|>",
                "color": style.color,
                "lw": 1.1,
                "shrinkA": 5,
                "shrinkB": 5,
                "alpha": 0.75,
            }
            arrow["linestyle"] = "--" if method in CONTROLS else "-"
            ends = [tuple(one.value for one in own[stage]) for stage in ("rl", "sft")]
            axes.annotate("", *ends, arrowprops=arrow)
        for stage, at in own.items():
            _draw_point(axes, at, style, filled=stage == "rl")
        first = own.get("sft") or own["rl"]
        labels.append((short_label_of(results, method), first[0].value, first[1].value, style.color))
    axes.margins(x=0.16, y=0.1)
    top = axes.get_ylim()[1]
    axes.set_ylim(-0.06 * top, top)  # room for markers of methods that find nothing
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("accuracy: pass@1")
    axes.set_ylabel("diversity: distinct correct answers per prompt")
    place_labels(figure, axes, labels)
    caption = (
        "Up and to the right is better. Open marker: after SFT, filled: after RL, crosses: 95 % intervals. "
        "Grey markers are controls: cheap alternatives that a new objective has to beat."
    )
    return Plot("frontier", "Diversity against accuracy", caption, figure)


def _point(results: Mapping, method: str, stage: str) -> tuple[Estimate, Estimate] | None:
    found = [estimate(results, method, stage, key) for key in ("pass@1", "distinct_correct")]
    return tuple(found) if all(found) else None


def _draw_point(axes, at: tuple[Estimate, Estimate], style: Style, filled: bool) -> None:
    x, y = at
    if None not in (x.low, y.low):
        axes.plot([x.low, x.high], [y.value, y.value], color=style.color, lw=1, alpha=0.5)
        axes.plot([x.value, x.value], [y.low, y.high], color=style.color, lw=1, alpha=0.5)
    face = style.color if filled else PAPER
    axes.plot(x.value, y.value, style.marker, ms=7, mfc=face, mec=style.color, mew=1.6, zorder=3)


def place_labels(figure: Figure, axes, labels: list[tuple[str, float, float, str]]) -> None:
    """Names beside their points, each in the corner where it covers the fewest points and other names."""
    figure.draw_without_rendering()
    point = figure.dpi / 72
    marks = [line.get_xydata()[0] for line in axes.get_lines() if len(line.get_xydata()) == 1]
    taken = [(x - 6 * point, x + 6 * point, y - 6 * point, y + 6 * point) for x, y in axes.transData.transform(marks)]
    for label, x, y, color in labels:
        pixel_x, pixel_y = axes.transData.transform((x, y))
        width, height = len(label) * 5.6 * point, 12 * point
        boxes = {}
        for side, up in ((-1, 1), (-1, -1), (1, 1), (1, -1)):
            left = pixel_x + 6 * point if side > 0 else pixel_x - 6 * point - width
            bottom = pixel_y + 3 * point if up > 0 else pixel_y - 3 * point - height
            boxes[side, up] = (left, left + width, bottom, bottom + height)
        (side, up), box = min(boxes.items(), key=lambda corner: sum(_overlap(corner[1], other) for other in taken))
        taken.append(box)
        axes.annotate(
            label, (x, y), (6 * side, 3 * up), textcoords="offset points", color=color, size=9.5,
            ha="left" if side > 0 else "right", va="bottom" if up > 0 else "top",
        )  # fmt: skip


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """True when two (left, right, bottom, top) boxes touch."""
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _pass_curves(results: Mapping) -> Plot | None:
    """pass@k against k, one panel a stage."""
    ks = pass_ks(set(score_keys(results["runs"])))
    if len(ks) < 2:
        return None
    stages, styles = stages_of(results), _styles(results)
    figure = Figure(figsize=(7.4, 4.1), layout="constrained")
    panels = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    handles = {}
    for axes, stage in zip(panels, stages, strict=True):
        for method in methods_of(results):
            found = {k: estimate(results, method, stage, f"pass@{k}") for k in ks}
            found = {k: one for k, one in found.items() if one}
            if not found:
                continue
            style = styles[method]
            (line,) = axes.plot(
                list(found), [one.value for one in found.values()], color=style.color, linestyle=style.dashes,
                lw=style.width, marker=style.marker, ms=3.5,
            )  # fmt: skip
            handles.setdefault(short_label_of(results, method), line)
            if method not in CONTROLS and all(one.low is not None for one in found.values()):
                limits = [one.low for one in found.values()], [one.high for one in found.values()]
                axes.fill_between(list(found), *limits, color=style.color, alpha=0.12, lw=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_title(STAGES[stage])
        axes.set_xlabel("samples k")
    panels[0].set_ylabel("pass@k")
    lowest = min(value for axes in panels for line in axes.get_lines() for value in line.get_ydata())
    panels[0].set_ylim(max(0, int(lowest * 10) / 10 - 0.05), 1.02)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9)
    caption = (
        "Chance that at least one of k samples is right. The left end is accuracy, the right end is how much the "
        "model can still find: what RL and best-of-N live on. Bands: 95 % intervals."
    )
    return Plot("pass_at_k", "Accuracy at one sample and at many", caption, figure)


def _forgetting(results: Mapping) -> Plot | None:
    """What is left of the abilities of the base: side tasks, and the old notation where there is one."""
    available = set(score_keys(results["runs"]))
    keys = [key for key in ("side_tasks", "old_pass@1") if key in available]
    methods = [method for method in methods_of(results) if any(runs_of(results, method, s) for s in stages_of(results))]
    if not keys:
        return None
    figure = Figure(figsize=(7.4, 0.9 + 0.42 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    styles = _styles(results)
    shifts = {"sft": -0.19, "rl": 0.19} if len(stages_of(results)) == 2 else dict.fromkeys(stages_of(results), 0)
    for axes, key in zip(panels, keys, strict=True):
        for row, method in enumerate(methods):
            for stage, shift in shifts.items():
                found = estimate(results, method, stage, key)
                if found:
                    _bar(axes, row + shift, found, styles[method].color, filled=stage == "rl")
        base = estimate(results, "base", "sft", key)
        if base:
            axes.axvline(base.value, color=GREY, lw=1, ls=":")
        axes.grid(visible=False, axis="y")
        axes.set_title(score_for(key).label)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[0].set_yticks(range(len(methods)), [short_label_of(results, method) for method in methods])
    panels[0].tick_params(axis="y", length=0)
    panels[0].invert_yaxis()
    caption = (
        "Share still right on what the starting model could do (dotted line). Open bar: after SFT, filled bar: "
        "after RL. Shorter = more forgotten."
    )
    return Plot("forgetting", "What was forgotten", caption, figure)


def _bar(axes, place: float, found: Estimate, color: str, filled: bool) -> None:
    face = color if filled else PAPER
    axes.barh(place, found.value, height=0.32, facecolor=face, edgecolor=color, lw=1.2, alpha=0.9)
    if found.low is not None and found.high is not None:
        span = [max(found.low, 0), found.high]
        if filled:  # a halo keeps the line visible on a dark bar
            axes.plot(span, [place, place], color=PAPER, lw=2.6)
        axes.plot(span, [place, place], color=INK, lw=1)
