import json

import pytest

from manypaths.evaluation.results import (
    earlier_results,
    fingerprint,
    joined_results,
    json_text,
    macro,
    record,
    weights_fingerprint,
    write_lines,
    write_results,
)


def evaluation(benchmark, accuracy, setting=None, metric="avg@1"):
    entry = {"benchmark": benchmark, "setting": setting, "metric": metric, "grader": None if metric is None else {}}
    return {**entry, "per_problem": {"accuracy": accuracy}}


def test_the_average_weighs_benchmarks_alike_whatever_their_size():
    (average,) = macro([evaluation("a", [1, 1]), evaluation("b", [0] * 50), evaluation("poems", [], metric=None)])
    assert (average["value"], average["n"], average["benchmarks"]) == (0.5, 2, ["a", "b"])
    assert average["temperature"] is None


def test_every_temperature_has_an_average_of_its_own_and_one_benchmark_has_none():
    rows = [evaluation(name, [value, 1], heat) for heat, value in ((0.5, 1), (1.0, 0)) for name in "ab"]
    assert [(one["temperature"], one["value"]) for one in macro(rows)] == [(0.5, 1.0), (1.0, 0.5)]
    assert macro(rows[:1]) == []


def test_data_graded_by_a_reward_is_no_benchmark():
    own = {**evaluation("own", [1.0]), "grader": {"reward": "mine:reward"}}
    assert macro([evaluation("a", [0.0]), own]) == []


def test_results_of_one_model_join_and_those_of_another_are_refused(tmp_path):
    first = record({}, "m", "m", "w", evaluations=[evaluation("a", [1.0]), evaluation("b", [1.0])], tokens={"x": 1})
    write_results(joined_results({}, first), tmp_path)
    earlier = earlier_results(tmp_path, "w")
    again = record({}, "m", "n", "w", evaluations=[evaluation("b", [0.0]), evaluation("c", [0.0])], ledger={"y": 2})
    both = joined_results(earlier, again)
    assert [(one["benchmark"], one["per_problem"]["accuracy"]) for one in both["evaluations"]] == [
        ("a", [1.0]), ("b", [0.0]), ("c", [0.0]),
    ]  # fmt: skip
    assert (both["label"], both["tokens"], both["ledger"]) == ("n", {"x": 1}, {"y": 2})
    assert both["macro"][0]["n"] == 3 and earlier_results(tmp_path / "none", "w") == {}
    with pytest.raises(ValueError, match=r"holds results of another model, or of other weights \(m\)"):
        earlier_results(tmp_path, "other")
    for text, message in (
        ("{", "no result of this"),
        ('{"runs": []}', "no result of this"),
        ('{"schema": 1, "model": 1, "weights": 1}', "has schema 1"),
    ):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            earlier_results(tmp_path, "w")


def test_half_a_surrogate_pair_is_escaped():
    assert json_text({"text": "\ud83d"}) == '{"text": "\\ud83d"}' and json_text("\u00fc") == '"\u00fc"'
    assert fingerprint("\ud83d") != fingerprint("?")


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    results = record({"seed": 1}, "models/m", "m", "w", evaluations=[], macro=None, tokens={"scores": {}})
    path = write_results(results, tmp_path / "new")
    assert json.loads(path.read_text()) == results
    assert (results["schema"], results["label"]) == (2, "m") and "evaluations" not in results
    assert set(results["versions"]) >= {"torch", "math-verify", "sacrebleu"}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No room to write to; free some space"):
        write_lines(path, [{"x": 1}])
    assert json.loads(path.read_text()) == results and [one.name for one in path.parent.iterdir()] == ["results.json"]


def test_other_weights_have_another_name(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(40_000_000))
    before = weights_fingerprint(str(tmp_path))
    assert weights_fingerprint(str(tmp_path)) == before
    with weights.open("r+b") as file:  # a layer in the middle
        file.seek(17_000_000)
        file.write(b"\1" * 2_000_000)
    assert weights_fingerprint(str(tmp_path)) != before
    assert weights_fingerprint("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


def test_the_model_under_an_adapter_counts_and_an_evaluation_in_the_folder_does_not(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "model.safetensors").write_bytes(b"1")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = weights_fingerprint(str(adapter))
    (adapter / "results.json").write_text("{}")
    assert weights_fingerprint(str(adapter)) == before
    (base / "model.safetensors").write_bytes(b"2")
    assert weights_fingerprint(str(adapter)) != before
