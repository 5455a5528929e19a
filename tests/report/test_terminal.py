import io

from rich.console import Console

from manypaths.report.terminal import print_table


def printed(results, width=80):
    stream = io.StringIO()
    print_table(results, Console(file=stream, width=width))
    return stream.getvalue()


def test_nothing_is_cut_off_at_80_columns(make_results):
    text = printed(make_results())
    assert "\u2026" not in text
    for label in ("no SFT, sharpened", "CE, stopped early", "EKSFT"):
        assert label in text
    assert max(map(len, text.splitlines())) <= 80


def test_before_and_after_and_the_sentences_are_there(make_results):
    text = printed(make_results(), width=400)
    assert "before RL \u2192 after RL" in text
    assert "GEM forgets less. Visible here: " in text
    assert "[+" not in text and "The figures are in the report." in text


def test_a_single_stage_has_no_arrow(make_results):
    text = printed(make_results(seeds=1, methods=("ce", "sed"), stages=("sft",)))
    assert "after SFT" in text and "\u2192" not in text and "over the test prompts" in " ".join(text.split())
