import math

import pytest

from manypaths.evaluation.table import Results, item_frame, new_header, score_frame, write_results
from manypaths.experiment import controls
from manypaths.experiment.run import at_default
from manypaths.experiment.stages import NotPossible


def evaluation(folder, pass_at_1, distinct=1.0, tasks=("sums",), sampled=0.5):
    """The folder of an evaluation; pass_at_1 is a number, or {temperature: number} of a sweep."""
    curve = pass_at_1 if isinstance(pass_at_1, dict) else {math.nan: pass_at_1}
    rows = []
    for temperature, value in curve.items():
        key = {"method": "m", "stage": "sft", "temperature": temperature}
        for task in tasks:
            rows.append({**key, "task": task, "metric": "pass@1", "value": value})
            rows.append({**key, "task": task, "metric": "distinct_correct", "value": distinct})
        if len(tasks) > 1:
            rows.append({**key, "task": "average", "metric": "pass@1", "value": value + 0.01})
        rows.append({**key, "task": "aside", "metric": "pass@1", "value": 0.99, "flags": "side"})
        rows.append({**key, "task": "side tasks", "metric": "pass@1", "value": 0.98, "flags": "timed_out;side"})
    facts = [{"task": task, "group": "main", "sampling": {"temperature": sampled}} for task in tasks]
    write_results(Results(score_frame(rows), item_frame([]), tasks=facts, header=new_header({})), folder)
    return folder


def test_the_base_is_sampled_where_its_accuracy_is_the_baselines(tmp_path):
    swept = evaluation(tmp_path / "swept", {0.2: 0.6, 0.6: 0.4, 1.0: 0.1})
    outputs = [swept, evaluation(tmp_path / "baseline", 0.5)]
    assert controls.temperature_of_target(outputs) == pytest.approx(0.4)
    assert controls.rl_temperature_of_target(outputs, start=0.8) == pytest.approx(0.8 * 0.4 / 0.5)


def test_an_accuracy_that_sampling_does_not_reach_leaves_the_control_out(tmp_path):
    outputs = [evaluation(tmp_path / "swept", {0.2: 0.3, 1.0: 0.1}), evaluation(tmp_path / "baseline", 0.5)]
    with pytest.raises(NotPossible, match=r"No temperature from 0\.2 to 1 gives 0\.5"):
        controls.temperature_of_target(outputs)
    greedy = [evaluation(tmp_path / "fine", {0.2: 0.6, 1.0: 0.1}), evaluation(tmp_path / "greedy", 0.5, sampled=0.0)]
    with pytest.raises(NotPossible, match="one temperature above 0"):
        controls.rl_temperature_of_target(greedy, start=1.0)


def test_the_baseline_is_matched_to_the_most_diverse_method(tmp_path):
    swept = evaluation(tmp_path / "swept", {0.5: 0.6, 1.0: 0.5, 2.0: 0.1})
    baseline = evaluation(tmp_path / "baseline", 0.5, distinct=2.0)
    calm, lively = evaluation(tmp_path / "calm", 0.55, distinct=1.5), evaluation(tmp_path / "lively", 0.3, distinct=3.0)
    names = ["calm", "lively"]
    assert controls.temperature_of_most_diverse([swept, baseline, calm, lively], names) == pytest.approx(1.5)
    better = evaluation(tmp_path / "better", 0.7, distinct=5.0)
    outputs = [swept, baseline, better, lively]
    assert controls.temperature_of_most_diverse(outputs, ["better", "lively"]) == pytest.approx(1.5)
    with pytest.raises(NotPossible, match=r"better has more .* No temperature"):
        controls.temperature_of_most_diverse(outputs[:3], ["better"])
    with pytest.raises(NotPossible, match="no method has more"):
        controls.temperature_of_most_diverse([swept, baseline, calm], names[:1])


def test_the_average_over_main_benchmarks_is_the_headline(tmp_path):
    swept = evaluation(tmp_path / "swept", {0.5: 0.6, 1.0: 0.4}, tasks=("sums", "proofs"))
    target = evaluation(tmp_path / "target", 0.5, tasks=("sums", "proofs"))
    assert controls.temperature_of_target([swept, target]) == pytest.approx(0.75)


def test_a_chosen_temperature_stands_in_one_line_with_the_others():
    scores = score_frame([{"method": "m", "task": "sums", "metric": "pass@1", "value": 0.5, "temperature": 0.43}])
    results = Results(scores, item_frame([]), tasks=[{"temperature": 0.43, "sampling": {"temperature": 0.43}}])
    assert at_default(results, None).scores["temperature"].isna().all()
    assert at_default(results, 0.7).scores["temperature"].tolist() == [0.7]
    assert at_default(results, None).tasks == [{"temperature": None, "sampling": {"temperature": 0.43}}]
