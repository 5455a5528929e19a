import re
import xml.etree.ElementTree as ElementTree

import pytest

from invented_results import make_forgetting, make_result, reward_graded
from manypaths.evaluation.intervals import share_interval
from manypaths.evaluation.results import as_score
from manypaths.report.evaluation_plots import evaluation_plots
from manypaths.report.evaluation_summary import averages, gather
from manypaths.report.plots import inline_svg


def plots_of(*results):
    found = gather(results)
    return evaluation_plots(found, averages(found))


@pytest.fixture(scope="module")
def plots():
    return plots_of(
        make_result("ce", temperatures=(0.6, 1.0), size=10, best_of=True, forgetting=make_forgetting("ce")),
        make_result("gem & co", temperatures=(0.6, 1.0), size=10, best_of=True),
    )


def test_every_picture_names_its_models(plots):
    assert list(plots) == ["accuracy", "pass_at_k", "many_samples", "diversity", "heat", "forgetting"]
    for name, plot in plots.items():
        text = inline_svg(plot)
        ElementTree.fromstring(text)
        assert "95 %" in plot.caption
        assert ("gem &amp; co" in text) == (name != "forgetting")


def test_pictures_say_at_which_temperature_they_are_drawn(plots):
    assert "Drawn at T=0.6" in plots["accuracy"].caption and "Drawn at" not in plots["heat"].caption


def lines(axes, least=2):
    return [line for line in axes.get_lines() if len(line.get_xdata()) >= least]


def test_curves_hold_the_stored_scores(plots):
    mean, first, second = plots["pass_at_k"].figure.axes
    assert [axes.get_title("left") for axes in (mean, first, second)] == ["mean of 2", "AIME 2024", "AMC 2023"]
    result = make_result("ce", temperatures=(0.6, 1.0), size=10)
    stored = [[one["scores"][f"pass@{k}"]["value"] for k in (1, 2, 4, 8)] for one in result["evaluations"][:2]]
    assert list(lines(first)[0].get_ydata()) == pytest.approx(stored[0])
    assert list(lines(mean)[0].get_ydata()) == pytest.approx([(a + b) / 2 for a, b in zip(*stored, strict=True)])


def test_rewards_of_one_s_own_are_no_part_of_a_mean():
    result = reward_graded(make_result("ce", benchmarks=("aime24", "amc23", "mine"), size=10), "mine")
    plots = plots_of(result)
    titles = [axes.get_title("left") for axes in plots["pass_at_k"].figure.axes]
    assert titles[:4] == ["mean of 2", "AIME 2024", "AMC 2023", "mine"]
    stored = [one["scores"]["pass@8"]["value"] for one in result["evaluations"]]
    assert lines(plots["pass_at_k"].figure.axes[0])[0].get_ydata()[-1] == pytest.approx(sum(stored[:2]) / 2)
    assert "Mean of 2 benchmarks." in plots["many_samples"].caption


def test_votes_and_best_of_n_stand_beside_pass_at_k(plots):
    (legend,) = plots["many_samples"].figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["pass@k", "maj@k", "weighted-maj@k", "best-of@k"]
    for axes in plots["many_samples"].figure.axes:
        assert len(lines(axes)) == 4 and all(list(line.get_xdata()) == [1, 2, 4, 8] for line in lines(axes))


def test_heat_has_a_line_per_model_and_a_label_per_temperature(plots):
    for axes in plots["heat"].figure.axes:
        assert len([line for line in lines(axes) if line.get_linewidth() > 1]) == 2
        assert sorted(text.get_text() for text in axes.texts) == ["0.6", "0.6", "1", "1"]
    assert re.search("100 - Self-BLEU", inline_svg(plots["heat"]))


def test_heat_shows_accuracy_against_what_is_more_when_more_diverse(plots):
    result = make_result("ce", temperatures=(0.6, 1.0), size=10)
    own = [[one["scores"] for one in result["evaluations"] if one["setting"] == setting] for setting in (0.6, 1.0)]
    line = next(line for line in lines(plots["heat"].figure.axes[0]) if line.get_linewidth() > 1)
    assert list(line.get_xdata()) == pytest.approx([sum(one["avg@8"]["value"] for one in row) / 2 for row in own])
    bleu = [sum(one["self_bleu"]["value"] for one in row) / 2 for row in own]
    assert list(line.get_ydata()) == pytest.approx([100 - one for one in bleu])


def test_forgetting_shows_the_tax_as_a_loss(plots):
    (axes,) = plots["forgetting"].figure.axes
    marks = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 1}
    tax = make_forgetting("ce")["alignment_tax"]["value"]
    assert marks[max(marks)] == pytest.approx(-100 * tax)


def test_models_without_graded_benchmarks_take_no_panel():
    poet = make_result("poet", benchmarks=(), open_ended=("poem",), size=5)
    plots = plots_of(make_result("ce", size=5), poet)
    assert [axes.get_title("left") for axes in plots["many_samples"].figure.axes] == ["ce"]


def test_one_temperature_has_no_heat():
    assert "heat" not in plots_of(make_result("ce", size=5))


def test_single_samples_leave_accuracy_only():
    result = make_result("ce", benchmarks=("gsm8k",), size=5)
    (evaluation,) = result["evaluations"]
    evaluation |= {"num_samples": 1, "metric": "avg@1", "scores": {"avg@1": evaluation["scores"]["pass@1"]}}
    assert list(plots_of(result)) == ["accuracy"]


def test_open_ended_prompts_show_diversity_against_entropy():
    results = [make_result(one, benchmarks=(), open_ended=("poem",), temperatures=(0.6, 1), size=5) for one in "ab"]
    plots = plots_of(*results)
    assert list(plots) == ["diversity", "heat"] and "same entropy" in plots["heat"].caption
    assert plots["heat"].figure.axes[0].get_xlabel() == "entropy, nats per token"


def test_scores_without_intervals_are_drawn():
    result = make_result("ce", benchmarks=("gsm8k",), size=5, temperatures=(0.6, 1.0))
    for evaluation in result["evaluations"]:
        for score in evaluation["scores"].values():
            score.update(low=None, high=None)
    plots = plots_of(result)
    assert list(plots) == ["accuracy", "pass_at_k", "many_samples", "diversity", "heat"]
    for name, plot in plots.items():
        ElementTree.fromstring(inline_svg(plot))
        for axes in plot.figure.axes:
            assert not axes.collections, name  # no band
            assert all(line.get_marker() != "None" for line in axes.get_lines() if line.get_linewidth() < 1.5), name
    (axes,) = plots["accuracy"].figure.axes
    drawn = [line.get_xdata()[0] for line in lines(axes, least=1)]
    assert drawn == pytest.approx([one["scores"]["avg@8"]["value"] for one in result["evaluations"]])


def test_the_average_has_its_bar_even_over_what_nobody_solves():
    result = make_result("ce", size=10)
    for one in result["evaluations"]:
        one["scores"]["avg@8"] = as_score(share_interval([0.0] * 10))
    (axes,) = plots_of(result)["accuracy"].figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["AIME 2024", "AMC 2023", "Avg."]
    bars = {line.get_ydata()[0]: list(line.get_xdata()) for line in lines(axes) if line.get_ydata()[0] in (0, 1, 2)}
    limit = share_interval([0.0] * 10).high
    assert bars[0] == pytest.approx([0, limit]) and bars[2] == pytest.approx([0, limit / 2**0.5])
