import json

import pytest

from manypaths.evaluation.results import macro, record, weights_fingerprint, write_lines, write_results


def evaluation(benchmark, accuracy, setting=None, metric="avg@1"):
    return {"benchmark": benchmark, "setting": setting, "metric": metric, "per_problem": {"accuracy": accuracy}}


def test_the_average_weighs_benchmarks_alike_whatever_their_size():
    (average,) = macro([evaluation("a", [1, 1]), evaluation("b", [0] * 50), evaluation("poems", [], metric=None)])
    assert (average["value"], average["n"], average["benchmarks"]) == (0.5, 2, ["a", "b"])
    assert average["temperature"] is None


def test_every_temperature_has_an_average_of_its_own_and_one_benchmark_has_none():
    rows = [evaluation(name, [value, 1], heat) for heat, value in ((0.5, 1), (1.0, 0)) for name in "ab"]
    assert [(one["temperature"], one["value"]) for one in macro(rows)] == [(0.5, 1.0), (1.0, 0.5)]
    assert macro(rows[:1]) == []


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    results = record({"seed": 1}, "models/m", "m", evaluations=[], macro=None, tokens={"scores": {}})
    path = write_results(results, tmp_path / "new")
    assert json.loads(path.read_text()) == results
    assert (results["schema"], results["label"]) == (2, "m") and "evaluations" not in results
    assert set(results["versions"]) >= {"torch", "math-verify", "sacrebleu"}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
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
