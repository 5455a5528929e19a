"""The page in a real browser: nothing is cut, nothing fails, tables sort, legends switch, completions filter."""

import pytest

import chromium
from manypaths.report import write_report
from recorded_results import experiment, study

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not chromium.is_there(), reason="needs chromium and chromedriver")]

CUT = """return [...document.querySelectorAll('main *')].filter((node) => {
  if (!node.textContent.trim() || node.children.length || !node.getClientRects().length) return false;
  if (node.closest('.scroll')) return false;
  const box = node.getBoundingClientRect();
  const room = node.ownerSVGElement?.getBoundingClientRect() ?? {left: 0, right: innerWidth};
  const cut = node instanceof HTMLElement && node.clientWidth && node.scrollWidth > node.clientWidth + 1;
  return box.right > room.right + 1 || box.left < room.left - 1 || cut;
}).map((node) => node.tagName + ': ' + node.textContent.slice(0, 50))"""
SCROLLED = """return [...document.querySelectorAll('.scroll')].filter((box) => box.clientWidth
  && (box.scrollWidth > box.clientWidth + 4) !== box.parentElement.classList.contains('scrolls')).length"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {
        "study": write_report(study("coldstart"), folder / "study"),
        "texts": write_report(experiment(), folder / "texts"),
    }


@pytest.mark.parametrize("name", ["study", "texts"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_and_nothing_fails(browser, pages, name, width, scheme):
    browser.open(pages[name], width, scheme)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.run("return new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(true), 100)))")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "the page itself scrolls sideways"
    assert browser.run(CUT) == []
    assert browser.run(SCROLLED) == 0, "a table that scrolls must say so"
    assert browser.log() == []


def test_tables_sort(browser, pages):
    browser.open(pages["study"], 1280, "light")
    column = """return [...document.querySelectorAll('#all-scores-in-one-place tbody')[0].rows]
      .map((row) => Number(row.cells[1].dataset.sort))"""
    click = "document.querySelectorAll('#all-scores-in-one-place thead')[0].rows[0].cells[1].firstElementChild.click()"
    before = browser.run(column)
    browser.run(click)
    assert browser.run(column) == sorted(before, reverse=True) != before
    browser.run(click)
    assert browser.run(column) == sorted(before)


def test_legends_switch_series(browser, pages):
    browser.open(pages["study"], 1280, "light")
    shown = """return [...document.querySelectorAll('#figure-samples .mark-symbol path')]
      .filter((one) => one.getAttribute('opacity') !== '0').length"""
    before = browser.run(shown)
    browser.run("document.querySelector('#figure-samples .legend button').click()")
    assert browser.run("return new Promise((done) => setTimeout(() => done(true), 300))")
    assert 0 < browser.run(shown) < before


def test_completions_filter(browser, pages):
    browser.open(pages["texts"], 1280, "light")
    count = "return document.getElementById('count').textContent"
    assert browser.run(count) == "16 of 16 problems"
    choose = "const at = document.getElementById('{}'); at.value = '{}'; at.dispatchEvent(new Event('input'))"
    browser.run(choose.format("task", "sort"))
    assert browser.run(count) == "8 of 16 problems"
    browser.run(choose.format("verdict", "right by none"))
    none = browser.run(count)
    browser.run(choose.format("verdict", "right by every model"))
    assert none != browser.run(count)
    browser.run(choose.format("verdict", "all problems"))
    browser.run(choose.format("find", "nothing says this"))
    assert browser.run(count) == "0 of 16 problems"
