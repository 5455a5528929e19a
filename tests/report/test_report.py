import subprocess
import sys

import pytest

from manypaths.report import write_report


def test_write_report_makes_a_folder_that_stands_alone(make_results, tmp_path):
    page = write_report(make_results(seeds=1), tmp_path / "deep" / "report")
    assert page == tmp_path / "deep" / "report" / "report.html"
    html, markdown = page.read_text("utf-8"), page.with_name("report.md").read_text("utf-8")
    assert html.count("<svg ") == 3
    for name in ("frontier", "pass_at_k", "forgetting"):
        assert f"](plots/{name}.png)" in markdown
        assert (page.parent / "plots" / f"{name}.png").exists() and (page.parent / "plots" / f"{name}.svg").exists()


def test_partial_results_still_make_a_report(make_results, cold_results, tmp_path):
    write_report(make_results(seeds=1, methods=("sed",), stages=("sft",)), tmp_path / "one_row")
    write_report(make_results(seeds=2, methods=("ce", "gem"), stages=("rl",)), tmp_path / "rl_only")
    write_report(cold_results, str(tmp_path / "cold"))


def test_no_runs_no_report(tmp_path):
    with pytest.raises(ValueError, match="no runs"):
        write_report({"world": "recall", "runs": []}, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_reading_results_needs_no_model_library():
    heavy = "torch", "transformers", "trl", "datasets", "pandas", "sympy", "lm_eval"
    code = f"import sys, manypaths.report; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
