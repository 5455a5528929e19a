import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manypaths.grading import extract
from manypaths.grading.extraction import LONGEST_ANSWER, closed_boxes


def test_braces_are_matched_and_escaped_ones_are_not_braces():
    assert extract(r"\boxed{\frac{1}{\sqrt{2}}} and {more}", "strict") == r"\frac{1}{\sqrt{2}}"
    assert extract(r"\boxed{\{1, 2\}}", "strict") == r"\{1, 2\}"
    assert extract(r"\boxed{1 \\} {", "strict") == r"1 \\"


@pytest.mark.parametrize("between", [", ", " and ", "$, $", r"\text{ or }", ",\\ and ", r"$ \text{and} $", r"\), \("])
def test_boxes_with_only_a_joint_between_them_are_a_list(between):
    assert extract(rf"\boxed{{8}} so \boxed{{1}}{between}\boxed{{2}}{between}\boxed{{3}}.", "strict") == "1, 2, 3"


@pytest.mark.parametrize("between", [" ", "", ". ", " so ", ", then ", " = "])
def test_anything_else_between_boxes_leaves_the_last_one(between):
    assert extract(rf"\boxed{{1}}{between}\boxed{{2}}", "strict") == "2"


def test_a_repeated_value_is_one_answer_only_if_there_is_no_other():
    assert extract(r"\boxed{0.5} or \boxed{\frac{1}{2}}", "strict") == r"\frac{1}{2}"
    assert extract(r"\boxed{1}, \boxed{1}, \boxed{2}", "strict") == "1, 1, 2"
    assert extract(r"\boxed{5}, \boxed{}", "strict") == ""
    assert extract(r"\boxed{5}, \boxed{\,}", "strict") == r"\,"


def test_no_box():
    assert extract("the answer is 7", "strict") is None
    assert extract(r"\boxed{7", "strict") is None
    assert extract(r"\boxed{}", "strict") == ""
    assert extract("", "lenient") is None


def test_phrases_in_their_order_and_the_last_of_each():
    text = "the answer is 1.\n#### 2\nThe final answer is $3$. I hope it is correct."
    assert extract(text) == "$3$"
    assert extract("the answer is 1.\n#### 2\nthe answer is 3") == "2"
    assert extract("answer: 1\nthe answer is 2.5. Well") == "2.5"
    assert extract("**Answer**: x + 1") == "x + 1"
    assert extract("Answering: 5") is None
    assert (
        extract("Final answer is 1. I hope so. FINAL ANSWER IS: 2 . I hope it is correct. I hope")
        == "2 . I hope it is correct"
    )


def test_an_answer_is_cut():
    assert extract(rf"\boxed{{{'9' * 200_000}}}", "strict") == "9" * LONGEST_ANSWER


def test_unknown_mode():
    with pytest.raises(ValueError, match="Unknown grading mode 'loose'; choose one of lenient, strict"):
        extract("7", "loose")


def cpu_seconds(text):
    start = time.process_time()
    extract(text)
    extract(r"\boxed{0}" + text + r"\boxed{1}" + text)
    return time.process_time() - start


@pytest.mark.parametrize(
    "piece",
    [
        r"\boxed{",
        "{",
        "}",
        r"\boxed{1}, ",
        "answer is ",
        "final answer is ",
        "final answer is" + " " * 400 + ".",
        "I hope ",
        r"\boxed{\text{a} x}, ",
        "####",
        "\\",
        "9",
        " ",
    ],
)  # fmt: skip
def test_time_is_linear_in_the_text(piece):
    assert cpu_seconds(piece * (400_000 // len(piece))) < 5  # a quadratic scan would take hours


@given(st.text(alphabet=r"\{}boxedf 1,and$", max_size=60))
def test_any_text_is_survived_and_boxes_lie_in_order(text):
    boxes = closed_boxes(text)
    assert all(box.start < box.inside < box.end for box in boxes)
    assert all(one.end <= other.start for one, other in pairwise(boxes))
    extract(text)


@given(st.text(alphabet="ab12+ ", min_size=1, max_size=20), st.text(alphabet="ab12 {}.", max_size=40))
def test_what_stands_before_a_box_does_not_matter(content, before):
    assert extract(before + rf"\boxed{{{content}}}", "strict") == content.strip()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 12 apples and eats 5, so 7 are left.", "7"),
        ("That is -1,250.50 in all", "-1,250.50"),
        ("The answer is 3. There were 8 of them.", "3"),
        ("It is 3/4 of x2", "3/4"),
        ("none", None),
    ],
)
def test_the_last_number_where_nothing_is_announced(text, answer):
    assert extract(text, "last_number") == answer
