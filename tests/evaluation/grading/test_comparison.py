from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manypaths.evaluation.grading.comparison import answer_key, compare
from manypaths.evaluation.grading.structure import parse

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
    assert [part.kind for part in node.parts] == ["()", "leaf", "leaf"]  # a set in a list adds its elements
    assert [part.kind for part in node.parts[0].parts] == ["leaf", "[]"]
    assert parse("a \\pm b").kind == "list"
    assert parse(r"\frac{1,2}{3}").kind == "leaf"
