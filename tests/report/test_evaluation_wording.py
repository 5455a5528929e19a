from manypaths.report.evaluation_wording import benchmark_label, evaluation_score, family_ks


def test_scores_explain_themselves():
    assert evaluation_score("pass@4").meaning == "% chance that at least one of 4 samples is right"
    assert (evaluation_score("best_of@4").label, evaluation_score("best_of@4").factor) == ("best-of@4", 100)
    assert evaluation_score("expected_max@4").factor == 1
    weighted = evaluation_score("weighted_maj@8")
    assert (weighted.label, weighted.factor, weighted.decimals) == ("weighted-maj@8", 100, 1)
    assert "distinct n-grams over all, mean over n = 1, 2, 3" in evaluation_score("distinct_n").meaning
    assert evaluation_score("my_own").label == "my own" and evaluation_score("my@x").label == "my@x"


def test_all_scores_that_evaluations_hold_have_words():
    raw = evaluation_score("my_own").meaning
    names = ["ce", "perplexity", "kl_to_reference", "p_label_p10", "words", "greedy", "distinct_correct", "side_tasks"]
    assert [name for name in names if evaluation_score(name).meaning == raw] == []


def test_known_benchmarks_have_their_names():
    assert benchmark_label("gaokao2023en") == "Gaokao 2023 EN" and benchmark_label("my_set") == "my set"


def test_ks_rise_as_numbers():
    assert family_ks(["pass@16", "pass@2", "maj@4", "pass", "old_pass@1"], "pass") == [2, 16]
