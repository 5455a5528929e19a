import pytest

from invented_results import make_forgetting, make_result
from manypaths.report.evaluation_forgetting import forgetting_table
from manypaths.report.evaluation_summary import gather


def table_of(**by_label):
    return forgetting_table(gather([make_result(one, size=4, forgetting=own) for one, own in by_label.items()]))


def row_of(table, label):
    (row,) = [row for row in table.rows if row.label == label]
    return {heading: cell for (heading, _), cell in zip(table.columns, row.cells, strict=True)}


@pytest.fixture
def part():
    return make_forgetting("ce")


def test_every_task_shows_both_models_and_how_it_was_measured(part):
    change = part["tasks"]["mmlu"]["difference"]
    part["tasks"]["mmlu"] |= {"metric": "exact_match", "filter": "flexible-extract", "shots": 25}
    part["tasks"]["mmlu"]["tuned"]["value"] = 0.4321
    table = table_of(ce=part)
    cells = row_of(table, "MMLU")
    assert (cells["base"].value, cells["tuned"].value) == ("50.0", "43.2")
    assert cells["difference"].value == f"{100 * change['value']:+.1f}"
    assert cells["difference"].spread == f"[{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]"
    assert [cells[name].value for name in ("metric", "shots", "items")] == [
        "exact_match, flexible-extract",
        "25",
        "1000",
    ]
    assert row_of(table, "ARC challenge")["metric"].value == "acc_norm"
    assert [row.label for row in table.rows][-1] == "alignment tax" and len(table.rows) == 7


def test_the_alignment_tax_is_a_loss(part):
    table = table_of(ce=part)
    cells = row_of(table, "alignment tax")
    assert cells["difference"].value == f"{100 * part['alignment_tax']['value']:+.1f}"
    assert cells["metric"].value == "base - tuned" and cells["items"].value == "6 tasks"
    assert "mean over tasks of base minus tuned" in table.note


def test_several_models_stand_beside_each_other_by_task(part):
    other = make_forgetting("gem")
    del other["tasks"]["mmlu"]
    names = [row.label for row in table_of(ce=part, gem=other).rows]
    assert names[:3] == ["ARC challenge: ce", "ARC challenge: gem", "HellaSwag: ce"] and "MMLU: gem" not in names
    assert names[-2:] == ["alignment tax: ce", "alignment tax: gem"] and len(names) == 13


def test_what_limits_a_number_is_noted(part):
    part["limit"] = 50
    part["tasks"]["mmlu"]["difference"].update(low=None, high=None, note="not paired")
    part["tasks"]["gsm8k"]["tuned"]["truncated"] = 3
    part["tasks"]["gsm8k"]["shots"] = [0, 5]
    table = table_of(ce=part)
    assert "MMLU: not paired." in table.note and row_of(table, "MMLU")["difference"].spread == ""
    assert "GSM8K: 3 (tuned) items did not fit the context." in table.note
    assert "ce: only the first 50 items of each task." in table.note
    assert row_of(table, "GSM8K")["shots"].value == "0, 5"


def test_models_without_it_have_no_table():
    assert forgetting_table(gather([make_result("ce", size=4)])) is None
