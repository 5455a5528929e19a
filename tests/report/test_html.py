import re
from html.parser import HTMLParser

from manypaths.report.html import html_table, report_html
from manypaths.report.layout import Cell, Row, Table

VOID = {"meta", "link", "br", "img", "hr", "path", "use"}


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tables, self.cells = [], 0, []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += 1
        self.tables += tag == "table"

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_page_is_balanced_and_holds_all_tables(make_results):
    page = Balance()
    page.feed(report_html(make_results(), []))
    assert page.open == [] and page.tables == 4
    assert len(set(page.cells)) == 2  # the score tables, and the difference tables with one column more


def test_page_asks_the_network_for_nothing(make_results):
    text = report_html(make_results(seeds=1), [])
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\(|(src|href)=", text)


def test_readings_are_shown_with_their_verdicts(make_results):
    text = report_html(make_results(), [])
    assert 'class="claim visible"' in text and "Visible here" in text
    assert "One seed" not in text and "One seed" in report_html(make_results(seeds=1), [])


def test_labels_are_escaped(make_results):
    results = make_results(seeds=1, methods=("ce", "sed"))
    for run in results["runs"]:
        run["label"] = f"{run['label']} <b>&"
    text = report_html(results, [])
    assert "SED &lt;b&gt;&amp;" in text and "SED <b>" not in text


def test_a_mark_needs_no_spread():
    row = Row("ce", "CE", "method", [Cell("1.0", "", "*"), Cell("2.0")], "a hint")
    text = html_table(Table("title", [("a", "what a is"), ("b", "")], [row], "note"))
    assert "<td>1.0 <small>*</small></td><td>2.0</td>" in text and 'title="a hint"' in text
