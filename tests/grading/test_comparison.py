from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manypaths.grading.comparison import answer_key, compare
from manypaths.grading.quantities import quantity, units_differ
from manypaths.grading.structure import parse

INTEGERS = st.integers(-(10**12), 10**12)
VALUES = st.sampled_from(["3", "-7", "2.5", r"\frac{1}{3}", r"\sqrt{2}", r"2\pi", "x+1", r"\ln 2", "0"])


def same(gold, answer):
    return compare(gold, answer).same


@given(INTEGERS, INTEGERS)
def test_integers_are_exact(one, other):
    assert same(str(one), str(other)) is (one == other)
    assert same(f"{one:,}", str(other)) is (one == other)
    assert same(f"x={one}", f"{other}.") is (one == other)


@given(INTEGERS, st.integers(1, 9999), st.integers(1, 20))
def test_a_fraction_equals_its_multiples_and_its_slash(over, under, factor):
    gold = rf"\frac{{{over}}}{{{under}}}"
    assert same(gold, rf"\dfrac{{{over * factor}}}{{{under * factor}}}")
    assert same(gold, f"{over}/{under}")
    assert same(gold, rf"\frac{{{over + 1}}}{{{under}}}") is False


@given(st.integers(1, 99), st.integers(1, 98), st.integers(2, 99))
def test_mixed_numbers(whole, over, under):
    value = whole + Fraction(over, under)
    assert same(rf"{whole}\frac{{{over}}}{{{under}}}", f"{value.numerator}/{value.denominator}")


@given(st.lists(VALUES, min_size=2, max_size=6), st.randoms())
def test_the_order_of_a_list_is_irrelevant_and_that_of_a_tuple_is_not(values, random):
    shuffled = random.sample(values, len(values))
    assert same(", ".join(values), ", ".join(shuffled))
    assert same(", ".join(values), r"\{" + ", ".join(shuffled) + r"\}")
    assert answer_key(", ".join(values)) == answer_key(", ".join(shuffled))
    pair = f"({', '.join(values)})", f"({', '.join(shuffled)})"
    assert same(*pair) is not False if values == shuffled else same(*pair) is not True


@given(st.lists(VALUES, min_size=2, max_size=6))
def test_a_missing_or_extra_element_is_never_right(values):
    assert same(", ".join(values), ", ".join(values[1:])) is False
    assert same(", ".join(values), ", ".join([*values, "11"])) is False


@given(VALUES, VALUES, st.sampled_from("(["), st.sampled_from(")]"), st.sampled_from("(["), st.sampled_from(")]"))
def test_interval_ends_matter(low, high, left, right, other_left, other_right):
    found = same(f"{left}{low}, {high}{right}", f"{other_left}{low}, {other_right and high}{other_right}")
    assert found is ((left, right) == (other_left, other_right))


GOLDS = [
    "7", "-3", "1,000", r"\frac12", "50\\%", r"\$36", "(C)", r"\text{Evelyn}", r"1 \pm \sqrt{19}", "3, 5, 7", "(1,2]",
    r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"(-\infty, 2) \cup (3, \infty)", "x^2+y^2=1", "f(x)=2x", "90^\\circ",
    r"\{x|-2\leq x<1\}", "x=39, y=-13", r"\log_6(216)=3", "12 \\mathrm{~min}", "z=t, y=4t for any $t$", "52_8",
]  # fmt: skip


@pytest.mark.parametrize("gold", GOLDS)
def test_everything_equals_itself_without_computer_algebra(gold):
    assert same(gold, gold) is True
    assert same(gold, f" ${gold}$. ") is True
    assert answer_key(gold) == answer_key(f"${gold}$")


@given(st.text(max_size=30))
def test_any_text_is_survived_and_grading_is_reflexive(text):
    found = compare(text, text)
    assert found.same is True or found.reason in ("empty gold", "empty answer")
    compare("3", text)
    compare(text, "(1, 2)")
    answer_key(text)


@given(st.text(alphabet=r"\{}()[],=+-12x|frac pm&:;and", max_size=40), st.text(alphabet=r"\{}()[],=<12x ", max_size=30))
def test_broken_latex_is_survived(one, other):
    there, back = compare(one, other), compare(other, one)
    assert {there.same, back.same} <= {True, False, None} and there.reason and back.reason
    assert {there.same, back.same} != {True, False}  # one way equal, the other way not


def test_values_that_exact_rules_leave_open_are_undecided_and_nothing_else():
    assert compare(r"\sin x+1", r"1+\sin x").same is None
    assert compare("x=2y", "2x=4y").same is None
    assert compare(r"(1, \sin x)", r"(2, \cos x)").reason == "different number"  # settled by the first element
    for gold, answer in [
        ("7", "8"),
        ("7", "1, 2"),
        ("(1,2)", "(1,3)"),
        ("A", "B"),
        ("7", "no idea"),
        ("(1,2)", "[1,2]"),
    ]:
        assert compare(gold, answer).same is False


@pytest.mark.parametrize(
    ("one", "other", "different"),
    [
        ("", "cm", False),
        ("cm", "cm", False),
        ("cm", "m", True),
        ("mi/h", "mi", True),
        ("apple", "red apple", False),
        ("apple", "pear", True),
        ("h", "apple", True),
        ("mi", "mi north", False),
        ("mi south", "mi north", True),
        ("ft^2", "ft", True),
        ("pound", "pound oz", True),
    ],
)
def test_units_of_both_sides_have_to_agree(one, other, different):
    assert units_differ(one, other) is units_differ(other, one) is different


@pytest.mark.parametrize(
    ("text", "core", "unit"),
    [
        (r"5\text{ miles per hour}", "5", "mi/h"),
        (r"5 \text{mi} / \text{hr}", "5", "mi/h"),
        (r"3\sqrt{2}\text{ square feet}", r"3\sqrt{2}", "ft^2"),
        (r"\$ 4", "4", "dollar"),
        (r"-\$4", "-4", "dollar"),
        (r"12\%", "12", "percent"),
        (r"40^\circ N", "40", "degree north"),
        (r"7\text{ p.m.}", "7", "pm"),
        (r"6\text{ square units}", "6", ""),
        (r"9\text{ wooden boxes}", "9", "wooden box"),
        (r"2\pi^\circ", r"2\pi^\circ", ""),
        (r"\sin 30^\circ", r"\sin 30^\circ", ""),
        (r"5\text{ squared}", r"5\text{ squared}", ""),
        (r"5\text{ is wrong}", r"5\text{ is wrong}", ""),
        ("x-", "x-", ""),
    ],
)
def test_units_are_told_from_values(text, core, unit):
    assert quantity(text)[:2] == (core, unit)


def test_many_open_pairs_are_left_to_a_worker():
    one = ", ".join(f"{factor}x+y" for factor in range(2, 22))
    other = ", ".join(f"y+{factor}x" for factor in range(2, 22))
    assert compare(one, other).same is None
    assert compare(one, other, lambda gold, answer: compare(gold, answer)).same is True  # a worker's way


def test_decide_is_asked_about_the_open_parts_only():
    asked = []

    def decide(gold, answer):
        asked.append((gold, answer))
        return compare("1", "1")

    assert compare(r"3, \sqrt{8}, \ln 8", r"2\sqrt{2}, 3\ln 2, 3", decide).same
    assert asked == [(r"\ln 8", r"3\ln 2")]


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("0.5", r"\frac{1}{2}", True),
        ("1,000", "1000", True),
        ("x=5", "5", True),
        ("1, 2", r"\{2, 1\}", True),
        (r"\frac{x}{2}", r"\dfrac x2", True),
        ("5", "6", False),
        ("(1,2)", "(2,1)", False),
        ("(1,2)", "(1,2]", False),
        ("3r", "3R", False),
        ("5 \\text{ cm}", "5 \\text{ m}", False),
    ],
)
def test_keys_of_equal_answers(one, other, shared):
    assert (answer_key(one) == answer_key(other)) is shared


def test_structure_of_nested_answers():
    node = parse(r"(1, [2, 3]), \{4, 5\}")
    assert [part.kind for part in node.parts] == ["()", "set"]
    assert [part.kind for part in node.parts[0].parts] == ["leaf", "[]"]
    assert parse(r"\{1, 2\}").kind == parse(r"x \in \{1, 2\}").kind == "list"  # the outer braces of a set are optional
    assert parse(r"\{3\}").kind == "leaf" and parse(r"\{\{3\}\}").kind == "set"
    assert parse(r"\{1 \pm \sqrt{2}, -2\}").kind == "list" and len(parse(r"\{1 \pm \sqrt{2}, -2\}").parts) == 3
    assert [part.text for part in parse("2\\hat{i}-\\hat{k}").parts] == ["2", "0", "-1"]
    assert parse("x>1 or x<0").joints == {"or"} and not parse("1, 2").joints
    assert parse("1:2:3").kind == "ratio" and parse("x \\equiv 1 \\pmod{5}").kind == "leaf"
    assert parse("a \\pm b").kind == "list"
    assert parse(r"\frac{1,2}{3}").kind == "leaf"
