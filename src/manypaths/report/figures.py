"""The pictures: declarative charts on tidy rows, one specification for the page (with hover) and for SVG files.

A series has one colour, one shape and one dash in all charts. Colours come from the theme, so that one chart suits
light and dark pages; `hidden` holds the series that a reader has switched off.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import altair as alt

from ..evaluation.statistics import Estimate
from ..evaluation.table import AVERAGE
from . import glossary
from .claims import STAGE_WORDS
from .compare import MAIN, Row, Study
from .glossary import number
from .table import Figure, Panel

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# The baseline's colour, those of methods, those of controls: told apart by colour-blind readers, AA on their background.
PALETTES = {
    "light": (
        "#16202e",
        ("#0b63b0", "#b8470d", "#0a7355", "#9a2a78", "#7d6000", "#4a56c9"),
        ("#5d6877", "#7a6248", "#3d7380", "#775a80"),
    ),
    "dark": (
        "#f4f6f9",
        ("#6fb5ff", "#ff9f66", "#4fd3a3", "#f28ccb", "#e3c34d", "#a9b1ff"),
        ("#aab4c3", "#cdb394", "#8fc7d4", "#c9a9d3"),
    ),
}
INKS = {"light": ("#16202e", "#566273", "#e3e7ec"), "dark": ("#f4f6f9", "#aab4c3", "#333c49")}  # text, quiet, grid
SHAPES = {  # as SVG paths in a box of 16, for the legend
    "circle": "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11z", "square": "M3 3h10v10H3z", "diamond": "M8 1l6.5 7L8 15L1.5 8z",
    "triangle-up": "M8 2l6.5 11.5h-13z", "cross": "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z", "triangle-down": "M8 14L1.5 2.5h13z",
    "triangle-right": "M14 8L2.5 14.5v-13z", "triangle-left": "M2 8l11.5-6.5v13z",
}  # fmt: skip
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [10, 4], [4, 2, 1, 2], [1, 3], [6, 2, 1, 2, 1, 2])
SIZES = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 180, "titlePadding": 8}
SAMPLES = {"pass": "pass@k", "maj": "maj@k", "weighted_maj": "weighted maj@k", "best_of": "best of k"}
TRAINING = {
    "loss": "loss (of this objective)", "ce": "cross-entropy", "entropy": "entropy, nats", "reward": "reward",
    "mask_rate": "share of tokens below the threshold",
}  # fmt: skip

Values = list[dict[str, Any]]


def series_of(study: Study) -> list[str]:
    """Names of all series: methods, and before them the rows of a lone method."""
    return list(dict.fromkeys([*(study.name(row) for row in study.rows), *(row.method for row in study.rows)]))


def theme(study: Study, mode: str) -> dict[str, Any]:
    """The Vega-Lite configuration of a light or dark page."""
    ink, quiet, grid = INKS[mode]
    first, chromatic, muted = PALETTES[mode]
    names = series_of(study)
    controls = [name for name in names if name in study.controls]
    colors = {name: chromatic[(place - 1) % len(chromatic)] if place else first for place, name in enumerate(names)}
    colors |= {name: muted[place % len(muted)] for place, name in enumerate(controls)}
    axis = {"labelColor": quiet, "titleColor": ink, "gridColor": grid, "domainColor": grid, "tickColor": grid}
    return {
        "background": "transparent",
        "font": FONT,
        "range": {"category": [colors[name] for name in names]},
        "view": {"stroke": None},
        "axis": {**axis, **SIZES},
        "legend": {"labelColor": ink, "labelFontSize": 12, "labelLimit": 220},
        "title": {"color": ink, "fontSize": 13, "anchor": "start", "fontWeight": 600},
        "text": {"color": ink},
        "rule": {"color": quiet},
    }  # fmt: skip


def figures(study: Study) -> dict[str, Figure]:
    """All pictures that the results can fill, by name."""
    makers = (accuracy_and_diversity, samples, by_benchmark, temperature, forgetting, training)
    return {figure.name: figure for figure in (make(study) for make in makers) if figure is not None}


def accuracy_and_diversity(study: Study) -> Figure | None:
    """Accuracy against different right answers; an arrow leads from before RL to after it."""
    task = study.headline
    values = []
    for row, stage in itertools.product(study.main_rows if task else (), study.stages):
        x, y = (study.estimate(row, stage, task, metric) for metric in ("pass@1", "distinct_correct"))
        if x and y:
            told = {"accuracy": said(x, "share", " %"), "distinct": said(y, "count")}
            values.append({**described(study, row, stage), "x": x.value, "y": y.value, **told})
    if len(values) < 2:
        return None
    chart = canvas(study, values).encode(
        x=alt.X("x:Q", title="accuracy (pass@1)", axis=percent(), scale=alt.Scale(zero=False, padding=16)),
        y=alt.Y("y:Q", title="different right answers per problem", scale=alt.Scale(zero=False, padding=16)),
    )
    tips = ["series:N", "when:N", "accuracy:N", tip("different right answers", "distinct")]
    layers = [
        chart.mark_line(strokeWidth=1.2).encode(order="order:Q"),
        points(study, chart, values, tips, hollow="datum.when == 'before RL'"),
    ]
    two = {value["when"] for value in values} == set(STAGE_WORDS.values()) - {""}
    caption = "Further right is more accurate, further up finds more different right answers. " + (
        "Hollow: before RL. Filled: after RL. The line joins the two. " if two else ""
    )
    return figure(study, "accuracy_diversity", "Accuracy and diversity", caption.strip(),
                  [("", layers, 380)], values)  # fmt: skip


def samples(study: Study) -> Figure | None:
    """pass@k, votes and best of k over the number of samples, a panel for each stage and family."""
    task, panels, everything = study.headline, [], []
    for family, name in SAMPLES.items() if task else ():
        ks = sorted({1, *study.ks(task, family)})  # a single sample has nothing to vote with, and is pass@1
        drawn = [
            {
                **described(study, row, stage),
                "stage": stage,
                "k": k,
                "y": estimate.value,
                "text": said(estimate, "share", " %"),
            }
            for stage in study.stages
            for row in study.main_rows
            for k in (ks if len(ks) > 1 else ())
            for estimate in [study.estimate(row, stage, task, f"{family}@{k}" if k > 1 else "pass@1")]
            if estimate
        ]
        extent = [extreme((value["y"] for value in drawn), default=0) for extreme in (min, max)]
        for stage in study.stages:
            values = [value for value in drawn if value["stage"] == stage]
            if values:
                everything += values
                chart = canvas(study, values).encode(
                    x=alt.X("k:Q", title="samples k", scale=alt.Scale(type="log", base=2, nice=False),
                            axis=alt.Axis(values=ks, format="d", grid=False)),
                    y=alt.Y("y:Q", title=name, axis=percent(), scale=alt.Scale(domain=extent, nice=True)),
                )  # fmt: skip
                layers = [
                    chart.mark_line().encode(strokeDash=dash(study)),
                    points(study, chart, values, ["series:N", "k:Q", tip(name)]),
                ]
                panels.append((f"{name} {STAGE_WORDS[stage]}".strip(), layers, 300))
    if not panels:
        return None
    caption = (
        "How much more the model solves when it may try k times. pass@k needs a judge who knows the answer: it is what the "
        "model can find at all. k = 1 is accuracy."
    )
    return figure(study, "samples", "One sample and many", caption, panels, everything)


def by_benchmark(study: Study) -> Figure | None:
    """Accuracy of every benchmark with its interval."""
    stage, tasks = study.stages[-1], study.tasks(MAIN)
    if len(tasks) < 2:
        return None
    tasks = [*tasks, AVERAGE] if study.headline == AVERAGE else tasks
    values = dots(study, [(stage, task, "pass@1", glossary.task(task)) for task in tasks], study.main_rows)
    layers = dot_chart(study, values, "accuracy (pass@1)", [glossary.task(task) for task in tasks])
    caption = (
        "Accuracy with its 95 % interval. Overlapping intervals do not mean that models are alike: they answered the same "
        "problems, so read the paired differences."
    )
    return figure(study, "benchmarks", "Accuracy by benchmark", caption, [("", layers, None)], values)


def forgetting(study: Study) -> Figure | None:
    """Side groups before and after RL, changes of general tasks, loss added to texts: a panel each."""
    panels, everything = [], []
    for group in study.side_groups:
        columns = [(stage, group, "pass@1", STAGE_WORDS[stage] or "accuracy") for stage in study.stages]
        panels.append((group, dots(study, columns, study.main_rows), "accuracy (pass@1)"))
    last = study.stages[-1]
    general = list(dict.fromkeys(key[2] for key in study.values if key[3] == "change"))
    if general:
        columns = [(last, task, "change", glossary.task(task)) for task in general]
        panels.append(("general tasks, tuned minus base", dots(study, columns, study.main_rows), "change"))
    texts = list(dict.fromkeys(key[2] for key in study.values if key[3] == "ce_increase"))
    if texts:
        columns = [(last, task, "ce_increase", glossary.task(task)) for task in texts]
        panels.append(("loss added to texts, nats", dots(study, columns, study.main_rows), "nats"))
    panels = [(title, values, axis) for title, values, axis in panels if values]
    if not panels:
        return None
    charts = []
    for title, values, axis in panels:
        everything += values
        charts.append(
            (title, dot_chart(study, values, axis, list(dict.fromkeys(value["group"] for value in values))), None)
        )
    caption = "What the models still do besides what they were trained on, with 95 % intervals."
    return figure(study, "forgetting", "What was forgotten", caption, charts, everything)


def temperature(study: Study) -> Figure | None:
    """Quality against diversity, one line a method, one point a temperature."""
    tasks, curves = study.curves()
    stage = study.stages[-1]
    if not curves:
        return None
    graded = all("pass@1" in curve.scores for curve in curves.values())
    measured = set.intersection(*(set(curve.scores) for curve in curves.values()))
    quality = "pass@1" if graded else next((name for name in ("entropy", "sampled_entropy") if name in measured), None)
    panels, everything = [], []
    for metric in ("self_bleu", "distinct_answers"):
        if quality is None or metric not in measured:
            continue
        values = []
        for row in study.rows:
            if row.method in curves and row.temperature is not None:
                x, y = (mean_over(study, row, stage, tasks, name) for name in (quality, metric))
                diversity = 100 - y if metric == "self_bleu" else y
                values.append({
                    "series": row.method, "when": "", "order": row.temperature, "x": x, "y": diversity,
                    "temperature": f"{row.temperature:g}", "quality": number(x, study.unit(quality)),
                    "diversity": number(diversity, study.unit(metric)),
                })  # fmt: skip
        everything += values
        title = "100 - Self-BLEU" if metric == "self_bleu" else "different answers per problem"
        chart = canvas(study, values).encode(
            x=alt.X("x:Q", title="accuracy (pass@1)" if graded else "entropy, nats per token",
                    axis=percent() if graded else alt.Axis(), scale=alt.Scale(zero=False, padding=12)),
            y=alt.Y("y:Q", title=title, scale=alt.Scale(zero=False, padding=12)),
        )  # fmt: skip
        layers = [
            chart.mark_line(strokeWidth=1.2).encode(order="order:Q"),
            points(study, chart, values, ["series:N", "temperature:N", "quality:N", "diversity:N"]),
            chart.mark_text(dy=-12, fontSize=11).encode(text="temperature:N"),
        ]
        panels.append((title, layers, 320))
    caption = (
        "Any model becomes more diverse when it is sampled hotter. Along a line only the temperature changes (the number at "
        "the point); a model is more diverse in itself where its line lies above another's."
    )
    return figure(study, "temperature", "Diversity is not temperature", caption, panels, everything) if panels else None


def training(study: Study) -> Figure | None:
    """What was logged in training, averaged over seeds; a panel for each measure and stage."""
    panels, everything = [], []
    for stage in study.stages:
        for name, title in TRAINING.items():
            if (stage, name) == ("rl", "loss"):
                continue  # a policy gradient's loss says nothing
            values = [value for row in study.main_rows for value in logged(study, row, stage, name)]
            if values:
                everything += values
                chart = canvas(study, values).encode(
                    x=alt.X("x:Q", title="step", scale=alt.Scale(nice=False), axis=alt.Axis(format="d", tickMinStep=1)),
                    y=alt.Y("y:Q", title=None, scale=alt.Scale(zero=False)),
                )
                tips = ["series:N", tip("step", "x"), tip(name)]
                layers = [chart.mark_line().encode(strokeDash=dash(study), tooltip=tips)]
                panels.append((f"{title}, {'RL' if stage == 'rl' else 'SFT'}", layers, 220))
    if not panels:
        return None
    caption = "Values of different objectives are not comparable in loss; cross-entropy is."
    if len({seed for _, _, seed in study.runs}) > 1:
        caption = f"Means over seeds. {caption}"
    return figure(study, "training", "Training", caption, panels, everything)


def logged(study: Study, row: Row, stage: str, name: str) -> Values:
    """What training logged under a name, by step, averaged over seeds; nothing where there is a single value."""
    runs = [
        run.get("training") or {}
        for (method, run_stage, _), run in study.runs.items()
        if (method, run_stage) == (row.method, stage)
    ]
    logs = [run for run in runs if run.get(name)]
    values = []
    for place in range(min((len(run[name]) for run in logs), default=0)):
        point = [run[name][place] for run in logs if run[name][place] is not None]
        if point:
            y, steps = math.fsum(point) / len(point), logs[0].get("step")
            x = steps[place] if steps else place + 1
            values.append({**described(study, row, stage), "x": x, "y": y, "text": f"{y:.4g}"})
    return values if len(values) > 1 else []


def described(study: Study, row: Row, stage: str) -> dict[str, Any]:
    return {"series": study.name(row), "when": STAGE_WORDS[stage], "order": study.stages.index(stage)}


def dots(study: Study, columns: Iterable[tuple[str, str, str, str]], rows: Sequence[Row]) -> Values:
    """Values with limits of (stage, task, metric, what it is called) for rows."""
    values = []
    for stage, task, metric, name in columns:
        unit = study.unit(metric)
        for row in rows:
            estimate = study.estimate(row, stage, task, metric)
            if estimate:
                low, high = (estimate.value if limit is None else limit for limit in (estimate.low, estimate.high))
                text = said(estimate, unit, " %" if unit == "share" else "")
                values.append({**described(study, row, stage), "group": name, "x": estimate.value, "low": low, "high": high,
                               "share": unit == "share", "text": text})  # fmt: skip
    return values


def dot_chart(study: Study, values: Values, title: str, groups: list[str]) -> list[alt.Chart]:
    """Points with intervals, groups one below the other and series beside each other within a group."""
    names = [name for name in series_of(study) if any(value["series"] == name for value in values)]
    axis = percent() if values[0]["share"] else alt.Axis()
    chart = canvas(study, values).encode(
        x=alt.X("x:Q", title=title, axis=axis, scale=alt.Scale(zero=False)),
        y=alt.Y("group:N", title=None, sort=groups, axis=alt.Axis(domain=False, ticks=False, labelPadding=8)),
        yOffset=alt.YOffset("series:N", sort=names, scale=alt.Scale(paddingOuter=0.25)),
    ).properties(height=len(groups) * (14 * len(names) + 16))  # fmt: skip
    tips = ["series:N", tip("of", "group"), tip("value")]
    return [
        chart.mark_rule(strokeWidth=1.5).encode(x="low:Q", x2="high:Q"),
        points(study, chart, values, tips).encode(size=alt.value(45)),
    ]


def canvas(study: Study, values: Values) -> alt.Chart:
    """A chart of the values whose colour is the series, and whose switched-off series fade."""
    hidden = alt.param(name="hidden", value=[])
    return (
        alt.Chart(alt.Data(values=values))
        .encode(
            color=alt.Color("series:N", scale=alt.Scale(domain=series_of(study)), legend=legend(values)),
            opacity=alt.condition("indexof(hidden, datum.series) < 0", alt.value(1), alt.value(0)),
        )
        .add_params(hidden)
    )


def points(study: Study, chart: alt.Chart, values: Values, tips: Sequence[Any], hollow: str = "false") -> alt.Chart:
    """The marks of a chart, with values on hover; those are hollow where the expression holds."""
    names = series_of(study)
    scale = alt.Scale(domain=names, range=[list(SHAPES)[place % len(SHAPES)] for place in range(len(names))])
    return chart.mark_point(size=70, strokeWidth=1.8).encode(
        shape=alt.Shape("series:N", scale=scale, legend=legend(values)),
        fill=alt.Fill("series:N", scale=alt.Scale(domain=names), legend=None),
        fillOpacity=alt.condition(hollow, alt.value(0), alt.value(1)),
        tooltip=tips,
    )


def legend(values: Values) -> alt.Legend:
    present = list(dict.fromkeys(value["series"] for value in values))
    return alt.Legend(title=None, orient="bottom", columns=4, values=present, symbolSize=70)


def dash(study: Study) -> alt.StrokeDash:
    names = series_of(study)
    dashes = [DASHES[place % len(DASHES)] for place in range(len(names))]
    return alt.StrokeDash("series:N", scale=alt.Scale(domain=names, range=dashes), legend=None)


def percent() -> alt.Axis:
    return alt.Axis(format=".0%")


def tip(title: str, field: str = "text") -> alt.Tooltip:
    return alt.Tooltip(f"{field}:N", title=title)


def said(estimate: Estimate, unit: str, after: str = "") -> str:
    """A value with its interval, for a tooltip."""
    text = number(estimate.value, unit)
    if estimate.low is not None and estimate.high is not None:
        text += f" [{number(estimate.low, unit)}, {number(estimate.high, unit)}]"
    return text + after


def mean_over(study: Study, row: Row, stage: str, tasks: Sequence[str], metric: str) -> float:
    parts = [study.estimate(row, stage, task, metric).value for task in tasks]
    return math.fsum(parts) / len(parts)


def figure(study: Study, name: str, title: str, caption: str, panels: Iterable[tuple[str, list[alt.Chart], int | None]],
           values: Values) -> Figure:  # fmt: skip
    charts = []
    for heading, layers, height in panels:
        chart = alt.layer(*layers)
        chart = chart.properties(height=height) if height else chart
        spec = chart.to_dict()
        spec.pop("config", None)
        charts.append(
            Panel(heading, {**spec, "width": "container", "autosize": {"type": "fit-x", "contains": "padding"}})
        )
    present = {value["series"] for value in values}
    return Figure(name, title, caption, charts, [series for series in series_of(study) if series in present])


def without_legends(value: Any) -> Any:
    """The same specification for a page that has a legend of its own."""
    if isinstance(value, dict):
        return {key: None if key == "legend" else without_legends(inner) for key, inner in value.items()}
    return [without_legends(inner) for inner in value] if isinstance(value, list) else value


def svg(study: Study, figure: Figure, convert: Callable[..., str]) -> str:
    """The figure as one SVG in light colours: panels beside each other, two a line, with a legend."""
    many = len(figure.panels) > 1
    panels = []
    for panel in figure.panels:
        spec = {key: value for key, value in panel.chart.items() if key not in ("params", "$schema", "autosize")}
        panels.append({**spec, "width": 400 if many else 640, "title": panel.title})
    spec = {
        "$schema": figure.panels[0].chart["$schema"],
        "params": [{"name": "hidden", "value": []}],
        "concat": panels,
        "columns": 2,
        "config": theme(study, "light") | {"background": "white", "padding": 12},
    }
    return convert(spec)
