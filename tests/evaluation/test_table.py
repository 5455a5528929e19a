import json
import math

import pandas as pd
import pytest

from manypaths.evaluation.table import (
    Results,
    given,
    item_frame,
    join,
    load_items,
    load_results,
    load_scores,
    new_header,
    score_frame,
    write_results,
)

KEY = {"method": "CE", "stage": "sft", "seed": 0, "temperature": None, "task": "sums"}


def results(folder="/somewhere/ce", **key) -> Results:
    key = {**KEY, **key}
    return Results(
        score_frame(
            [{**key, "metric": "pass@1", "value": 0.5, "low": 0.4, "n": 3, "over": "problems", "unit": "share"}]
        ),
        item_frame([{**key, "item": f"p{place}", "metric": "num_correct", "value": place} for place in range(3)]),
        [{name: key[name] for name in ("method", "stage", "seed")} | {"folder": str(folder)}],
        [{**key, "num_samples": 4, "grader": {"name": "math"}}],
        header=new_header({"seed": 0}),
    )


def test_what_is_written_is_read_again(tmp_path):
    first = results(tmp_path / "out")
    path = write_results(first, tmp_path / "out")
    again = load_results(tmp_path / "out")
    pd.testing.assert_frame_equal(again.scores, first.scores)
    pd.testing.assert_frame_equal(again.items, first.items)
    assert (again.runs, again.tasks, again.header) == (first.runs, first.tasks, first.header)
    content = json.loads(path.read_text())
    assert (content["schema"], content["runs"][0]["folder"], content["experiment"]) == (3, ".", None)
    assert content["scores"][0]["high"] is None and content["scores"][0]["temperature"] is None


def test_a_moved_folder_still_knows_where_its_evaluations_are(tmp_path):
    write_results(results(tmp_path / "study" / "stages" / "ce"), tmp_path / "study")
    (tmp_path / "study").rename(tmp_path / "moved")
    (run,) = load_results(tmp_path / "moved").runs
    assert run["folder"] == str(tmp_path / "moved" / "stages" / "ce")


def test_any_mix_of_folders_and_files_is_one_table(tmp_path):
    write_results(results(method="base", stage="", seed=math.nan), tmp_path / "a")
    study = join([results(), given(results(), "SED", "rl", 1, role="method")])
    write_results(Results(study.scores, study.items, study.runs, study.tasks, experiment={"baseline": "CE"},
                          header=study.header), tmp_path / "b")  # fmt: skip
    both = load_results([tmp_path / "a", tmp_path / "b" / "results.json"])
    assert list(both.scores["method"]) == ["base", "CE", "SED"] and both.experiment == {"baseline": "CE"}
    assert both.runs[2]["role"] == "method" and both.tasks[2]["stage"] == "rl"
    assert len(load_items([tmp_path / "a", tmp_path / "b"])) == 9 and len(load_scores(tmp_path / "b")) == 2


def test_the_same_run_twice_is_an_error_that_says_how_to_rename(tmp_path):
    for name in ("a", "b"):
        write_results(results(), tmp_path / name)
    with pytest.raises(ValueError, match=r"a and .*b both hold sums of 'CE' \(stage sft, seed 0\).* --label NAME"):
        load_results([tmp_path / "a", tmp_path / "b"])
    for other in ({"seed": 1}, {"stage": "rl"}, {"temperature": 0.5}, {"task": "more"}):
        assert len(join([results(), results(**other)]).scores) == 2


def test_files_of_other_kinds_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no finished evaluation"):
        load_results(tmp_path / "nowhere")
    for text, message in (
        ("{", "is not a file of results"),
        ("[]", "is not a file"),
        ('{"schema": 2}', "has schema 2"),
    ):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_results(tmp_path)
    write_results(results(), tmp_path)
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks items\.parquet"):
        load_results(tmp_path)


def test_a_full_disk_leaves_the_earlier_results(tmp_path, monkeypatch):
    write_results(results(), tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="No room to write to; free some space"):
            write_results(results(method="other"), tmp_path)
    assert list(load_scores(tmp_path)["method"]) == ["CE"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "results.json"]
