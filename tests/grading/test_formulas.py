import pytest
from hypothesis import given
from hypothesis import strategies as st

from manypaths.grading.formulas import Formula, Unreadable, same_formula, tokens


def value(text, **values):
    return Formula(tokens(text), values).value()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1+2*3", 7),
        ("-2^2", -4),
        ("2(3+4)", 14),
        ("2x^2y", 2 * 9 * 5),
        (r"\frac{x+1}{2}-y", -3),
        (r"\frac{1}{2}\cdot\frac{4}{5}", 0.4),
        (r"\sqrt{16}+\sqrt[3]{27}", 7),
        ("6/2/3", 1),
        ("2-3-4", -5),
        ("x^{y-3}", 9),
        ("(x)(y)", 15),
        (r"3\times 4", 12),
        ("-x+-y", None),
        ("1/2x", None),
        ("5 7", None),
        (r"1\frac{4}{5}", None),
        ("x!", None),
        (r"\sin x", None),
        ("x,y", None),
        ("(x", None),
        ("x)", None),
        ("", None),
        (r"\frac12", None),
        ("z", None),
    ],
)
def test_formulas_are_read_as_mathematics_reads_them_or_not_at_all(text, expected):
    if expected is None:
        with pytest.raises(Unreadable):
            value(text, x=3, y=5)
    else:
        assert value(text, x=3, y=5) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x+1", "1+x", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        ("6-5i", "-5i+6", True),
        (r"\frac{x^{2}-1}{x-1}", "x+1", True),
        ("x+1", "x-1", False),
        (r"3\sqrt{13}", r"2\sqrt{13}", False),
        ("3r^2", "3R^2", False),
        ("x", "y", False),
        ("6-5i", "6+5i", False),
        ("x", r"\sin x", None),  # not of this grammar
        (r"\sqrt{x^{2}}", "x", None),  # equal where x is positive
        ("2^{1009}", "2^{1009}+1", None),  # too large to see the difference
        ("1+10^{-20}", "1", None),  # too small
        ("x+0.00000000000001", "x", None),
        (r"x+\frac{1}{10000000000000}", "x", None),
        ("x+1.00001", "x+1", None),  # neither clearly different nor equal
        ("9^{9^{9^{9}}}", "1", None),
        ("1/(x-x)", "1", None),
        ("(" * 5000, "1", None),
        ("a+b+c+d+f+g+h", "a", None),
    ],
)
def test_formulas_are_the_same_or_not_or_open(one, other, same):
    assert same_formula(one, other) is same
    assert same_formula(other, one) is same


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=6))
def test_a_polynomial_and_its_terms_in_another_order(numbers):
    terms = [f"({number}x^{{{power}}})" for power, number in enumerate(numbers)]
    forwards, backwards = "+".join(terms), "+".join(reversed(terms))
    assert same_formula(forwards, backwards) is not False
    assert same_formula(forwards, f"{backwards}+1") is False
