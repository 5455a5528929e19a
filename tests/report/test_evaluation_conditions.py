import pytest

from invented_results import make_grader, make_result, reward_graded
from manypaths.report.evaluation_conditions import alerts, benchmark_facts, facts, trust_table
from manypaths.report.evaluation_summary import gather


@pytest.fixture
def results():
    return [make_result("ce", size=10), make_result("gem", size=10)]


def test_no_warning_without_a_reason(results):
    assert alerts(gather(results)) == []


def test_warnings_say_what_where_and_what_to_do(results):
    results[1]["evaluations"][0] |= {"truncated": 0.123, "grader": make_grader(5, 80, unparsed=0.2, timeout=0.1)}
    cut, late, unread = alerts(gather(results))
    assert cut.title == "Not to be trusted: more than 5% of the answers were cut off at the token limit"
    assert cut.where == ["gem: AIME 2024 12%"] and "--max_new_tokens" in cut.advice
    assert late.where == ["gem: AIME 2024 10%"] and "--regrade" in late.advice
    assert unread.where == ["gem: AIME 2024 20%"] and "chat template" in unread.advice


def test_models_that_were_sampled_differently(results):
    results[1]["evaluations"][1]["sampling"]["top_p"] = 0.9
    (alert,) = alerts(gather(results))
    assert alert.where == ["AMC 2023, top_p: 1.0 (ce); 0.9 (gem)"]


def test_every_way_of_sampling_counts_but_backend_and_seed(results):
    ways = [one["evaluations"][0]["sampling"] for one in results]
    ways[0].update(prompt_format="plain", chat_template="1a2b3c4d", seed=0, backend="transformers 5.23.0")
    ways[1].update(
        prompt_format="plain", chat_template="99999999", seed=1, backend="vllm 0.11.0", repetition_penalty=1.1
    )
    (alert,) = alerts(gather(results))
    assert alert.title == "Models were sampled differently"
    assert alert.where == ["AIME 2024, chat_template: 1a2b3c4d (ce); 99999999 (gem)"]


def test_prompts_are_named_as_what_they_are(results):
    meanings = dict(benchmark_facts(gather(results)).columns)
    assert "before any chat template" in meanings["prompts"]


def test_temperatures_are_no_such_difference():
    assert alerts(gather([make_result("ce", temperatures=(0.6, 1.0), size=5)])) == []


def test_rates_with_their_worst_benchmark(results):
    results[0]["evaluations"][1]["truncated"] = 0.2
    row = trust_table(gather(results)).rows[0]
    assert [cell.value for cell in row.cells][:2] == ["10.5%", "0.0%"]
    assert (row.cells[0].spread, row.cells[0].mark) == ("(AMC 2023 20.0%)", "\u2020")


def test_benchmark_facts_show_where_rows_differ(results):
    results[1]["evaluations"][0] |= {"prompt_hash": "abcdef0123", "num_problems": 9}
    table = benchmark_facts(gather(results))
    assert [cell.value for cell in table.rows[0].cells] == ["10, 9", "8", "2", "0", "5d1f0006, abcdef01"]
    assert [cell.value for cell in table.rows[1].cells] == ["10", "8", "2", "0", "5d1f0005"]
    assert "Several values" in table.note
    results[1]["evaluations"][1]["weakly_gradable"] = ["a", "b", "c"]
    assert benchmark_facts(gather(results)).rows[1].cells[2].value == "2, 3"


def test_facts_that_models_share_stand_once(results):
    results[1]["versions"]["torch"] = "2.12.0"
    lines = dict(facts(gather(results)))
    torch, own = (f"versions at the last command.{name}" for name in ("torch", "manypaths"))
    assert lines[torch] == "ce: 2.13.0; gem: 2.12.0" and lines[own] == "0.1.0"
    assert lines["sampling.max_new_tokens"] == "3072" and lines["grader.mode"] == "lenient"
    assert lines["model"] == "ce: runs/ce; gem: runs/gem" and "grader.counts.correct" not in lines


def test_options_are_those_of_the_last_command_and_sampling_is_each_evaluation_s():
    result = reward_graded(make_result("ce", benchmarks=("aime24", "mine"), open_ended=("poem",), size=5), "mine")
    result["settings"] = {"num_samples": 3, "forgetting": "gem"}
    result["evaluations"][2]["sampling"]["max_new_tokens"] = 512
    lines = dict(facts(gather([result])))
    assert lines["options of the last command.num_samples"] == "3"
    assert not [name for name in lines if name.startswith(("settings", "versions.", "created"))]
    assert lines["sampling.max_new_tokens"] == "3072 (AIME 2024, mine), 512 (poem)"
    assert lines["sampling.num_samples"] == "8"
    assert lines["grader.mode"] == "lenient (AIME 2024)" and lines["grader.reward"] == "mine:score (mine)"


def test_a_temperature_that_nobody_told_is_not_known(results):
    for one in results[1]["evaluations"]:
        one |= {"setting": None, "temperature": None, "sampling": {"backend": "recorded", "temperature": None}}
    assert dict(facts(gather(results)))["sampling.temperature"] == "ce: 0.7; gem: not known"


def test_values_of_all_temperatures_name_no_benchmarks():
    lines = dict(facts(gather([make_result("ce", temperatures=(0.6, 1.0), size=5)])))
    assert lines["sampling.temperature"] == "0.6, 1.0"


def test_a_cut_answer_is_wrong_only_where_it_is_graded():
    options = {"size": 5, "truncated": 0.5}
    poet = make_result("ce", benchmarks=(), open_ended=("poem",), **options)
    (alert,) = alerts(gather([poet]))
    assert "wrong" not in alert.advice and "diversity is that of beginnings" in alert.advice
    assert alert.advice.endswith("Raise --max_new_tokens and sample again.")
    (alert,) = alerts(gather([make_result("ce", **options)]))
    assert "counts as wrong" in alert.advice and "nobody" not in alert.advice
    (alert,) = alerts(gather([make_result("ce", open_ended=("poem",), **options)]))
    assert "counts as wrong" in alert.advice and "nobody grades" in alert.advice
    (alert,) = alerts(gather([reward_graded(make_result("ce", benchmarks=("mine",), **options), "mine")]))
    assert "counts as wrong" not in alert.advice and "reward function sees" in alert.advice


def test_rows_graded_by_different_rules_are_warned_about(results):
    results[1]["evaluations"][0]["grader"]["mode"] = "strict"
    (alert,) = alerts(gather(results))
    assert alert.title == "Benchmarks of one row were graded by different rules" and "--regrade" in alert.advice
    assert alert.where == ["gem: mode strict, version 1 (AIME 2024); mode lenient, version 1 (AMC 2023)"]


def test_rates_that_nobody_measured_are_a_dash():
    result = reward_graded(make_result("ce", benchmarks=("mine",), size=5), "mine")
    result["evaluations"][0]["truncated"] = None
    table = trust_table(gather([result]))
    assert [cell.value for cell in table.rows[0].cells] == ["-", "-", "-"] and "- where it is for none" in table.note
