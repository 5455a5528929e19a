import json
import xml.etree.ElementTree as ElementTree

import pytest

from invented_results import make_result
from manypaths.report import load_results, report, write_evaluation_report, write_report


def store(folder, result):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def test_report_from_folders_and_files(tmp_path, capsys):
    folders = [store(tmp_path / label, make_result(label, temperatures=(0.6, 1.0), size=6)) for label in ("ce", "gem")]
    page = report([folders[0], folders[1] / "results.json"], tmp_path / "deep" / "report")
    assert page == tmp_path / "deep" / "report" / "report.html"
    text, markdown = page.read_text("utf-8"), page.with_name("report.md").read_text("utf-8")
    assert text.count("<svg ") == 5 and "Evaluation of ce and gem" in text
    for name in ("accuracy", "pass_at_k", "many_samples", "diversity", "heat"):
        assert f"](plots/{name}.png)" in markdown
        assert (page.parent / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        ElementTree.parse(page.parent / "plots" / f"{name}.svg")
    printed = capsys.readouterr().out
    assert "Accuracy by benchmark" in printed and f"report: {page}" in printed.replace("\n", "")


def test_the_same_results_give_the_same_report(tmp_path):
    results = [make_result(label, benchmarks=("amc23",), size=6) for label in ("ce", "gem")]
    one, two = (write_evaluation_report(results, tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.with_name("report.md").read_bytes() == two.with_name("report.md").read_bytes()


def test_bad_results_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="no results"):
        write_evaluation_report([], tmp_path / "report")
    with pytest.raises(ValueError, match="label 'ce'"):
        write_evaluation_report([make_result("ce", size=4)] * 2, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_paths_that_cannot_be_loaded(tmp_path):
    with pytest.raises(ValueError, match="nothing to report"):
        load_results([])
    with pytest.raises(ValueError, match="gone does not exist"):
        load_results([tmp_path / "gone"])
    with pytest.raises(ValueError, match=r"has no results\.json: give a folder that `manypaths eval` has finished"):
        load_results([tmp_path])
    (tmp_path / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json is not JSON"):
        load_results([tmp_path])
    old = store(tmp_path / "old", make_result("ce", size=4) | {"schema": 1})
    with pytest.raises(ValueError, match=r"results\.json has schema 1, this version reads 2"):
        load_results([old])
    runs = store(tmp_path / "runs", {"schema": 1, "runs": [1]})
    with pytest.raises(ValueError, match="holds training runs"):
        load_results([runs])
    assert load_results(str(store(tmp_path / "good", make_result("ce", size=4))))[0]["label"] == "ce"


def test_a_file_in_the_way_is_an_error_before_anything_is_written(tmp_path, capsys, make_results):
    source = store(tmp_path / "ce", make_result("ce", size=4))
    file = tmp_path / "report"
    file.write_text("mine")
    for folder in (file, file / "deep"):
        for write in (lambda at: report([source], at), lambda at: write_report(make_results(seeds=1), at)):
            with pytest.raises(
                ValueError, match="report is a file, and a report is a folder: give another --output_dir"
            ):
                write(folder)
    assert file.read_text() == "mine" and capsys.readouterr().out == ""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plots").write_text("mine")
    with pytest.raises(ValueError, match="plots is a file"):
        write_evaluation_report([make_result("ce", size=4)], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]
