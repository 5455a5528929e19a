from manypaths.report.markdown import report_markdown, study_markdown


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
