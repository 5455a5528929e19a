from manypaths.report.markdown import markdown_text, report_markdown, study_markdown


def table_lines(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_study_has_every_table_with_as_many_cells_as_headings(make_results):
    text = study_markdown(make_results())
    for title in (
        "Scores before RL",
        "Scores after RL",
        "Differences to CE before RL",
        "Differences to CE after RL",
    ):
        assert f"### {title}" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for block in blocks:
        assert {line.count("|") for line in block} == {block[0].count("|")}
    assert "| **CE** |" in text and "| *no SFT* |" in text and "| SED |" in text


def test_study_takes_several_worlds(make_results, cold_results):
    text = study_markdown([make_results(), cold_results])
    assert text.count("\n## coldstart: ") == 1 and text.startswith("## recall: ")
    assert "**RL alone gets nothing.** Visible here" in text


def test_report_links_its_plots_and_says_how_it_was_run(make_results):
    text = report_markdown(make_results(seeds=1, methods=("ce", "sed")), {"A picture": "plots/a.png"})
    assert "![A picture](plots/a.png)" in text
    assert "- settings.rl_steps: 100" in text
    assert "arXiv:2602.07464" in text and "arXiv:2508.05629" not in text


def test_characters_are_shown_as_they_are():
    assert markdown_text("a|b `c` <b> ~d~ [e](f) &amp; g\\") == (r"a\|b \`c\` \<b> \~d\~ [e\](f) \&amp; g\\")
    assert markdown_text("*a*") == r"\*a\*" and markdown_text("* a") == r"\* a"
    assert markdown_text("_a_ b_c") == r"\_a\_ b_c" and markdown_text("a\r\n  b\nc") == "a b c"
    assert markdown_text("k*/64", "**") == r"**k\*/64**"
    plain = "no SFT, sharpened to CE's pass@1 (T=1.43) [+1.0, -2.0] < 3 & k*/64"
    assert markdown_text(plain) == plain


def test_the_labels_of_quickstart_stay_as_they_are(make_results):
    text = study_markdown(make_results())
    for label in ("| *no SFT, sharpened to CE's pass@1* |", "| *CE, stopped early (10 epochs)* |", "| EKSFT |"):
        assert label in text
    assert "k*/64 |" in text and "\\" not in text
