import pytest

from manypaths.grading import Verdict, grade, grade_many, unreliable_reference


@pytest.mark.parametrize(
    ("text", "gold", "status", "reason"),
    [
        (r"\boxed{7}", "7", "correct", "same text"),
        (r"\boxed{7.0}", "7", "correct", "equal numbers"),
        (r"\boxed{(B)}", "B", "correct", "same letter"),
        (r"\boxed{2, 1}", "1, 2", "correct", "equal parts"),
        (r"\boxed{b+a}", "a+b", "correct", "equal formulas"),
        (r"\boxed{2\sin a\cos a}", r"\sin(2a)", "correct", "symbolically equal"),
        (r"\boxed{8}", "7", "wrong", "different number"),
        (r"\boxed{C}", "B", "wrong", "different letter"),
        (r"\boxed{no}", "yes", "wrong", "different text"),
        (r"\boxed{(1,2]}", "(1,2)", "wrong", "different interval ends"),
        (r"\boxed{7 \text{ hours}}", "7 \\text{ min}", "wrong", "different unit"),
        (r"\boxed{b-a}", "a+b", "wrong", "not equal"),
        (r"\boxed{\cos a}", r"\sin a", "wrong", "not equal"),
        (r"\boxed{7}", "", "wrong", "empty gold"),
        (r"\boxed{" + "7" * 3000 + "}", "7", "wrong", "answer too long"),
        (r"\boxed{7}", "7+" + "7" * 3000, "wrong", "gold too long"),
        (r"\boxed{2:15}", "2:30", "wrong", "different time"),
        (r"\boxed{y=3}", "x=3", "wrong", "different name"),
        ("7", "7", "unparsed", "no box"),
        (r"\boxed{}", "7", "unparsed", "empty answer"),
        (r"\boxed{$\,$}", "7", "unparsed", "empty answer"),
        (r"\boxed{7 + * \frac{}{}}", "x", "unparsed", "not understood"),
    ],
)
def test_reasons_and_their_status(text, gold, status, reason):
    verdict = grade(text, gold, mode="strict")
    assert (verdict.status, verdict.reason) == (status, reason)
    assert verdict.correct is (status == "correct")


def test_stopped_workers_have_a_status_of_their_own():
    assert {Verdict(False, "1", reason).status for reason in ("time-out", "out of memory", "worker died")} == {
        "timeout"
    }


def test_no_answer_in_lenient_mode_and_what_was_extracted():
    assert grade("I do not know", "7") == Verdict(False, None, "no answer")
    assert grade(r"so $\boxed{ 2 }$, \boxed{1}", "1, 2").extracted == "2, 1"


def test_progress_and_repeated_answers(capsys):
    verdicts = grade_many([r"\boxed{1}"] * 5, ["1", "1", "2", "2", "1"], show_progress=True)
    assert [verdict.correct for verdict in verdicts] == [True, True, False, False, True]
    assert "2/2" in capsys.readouterr().err
    assert grade_many([], []) == []


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("7", None),
        (r"\frac{1}{2}", None),
        ("x=5", None),
        ("(C)", None),
        (r"12 \mathrm{~min}", None),
        (r"x=\frac{\pi}{6}+\pi k, \frac{\pi}{3}", None),
        ("236 adult, 342 child", None),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", None),
        (r"x \ln x-x+C", None),
        (r"\text{Area}=12", None),
        (r"\left[\begin{array}{rrrr}1 & 2 & 3 & 4\end{array}\right]", None),
        ("7+" * 1500, "too long"),
        ("", "empty"),
        ("$ $", "empty"),
        (r"\text{Evelyn}", "prose"),
        ("min at $x=1$", "prose"),
        ("$(t, 2t)$ for all real numbers $t$", "prose"),
        (r"$i^{6}=i^{4} \cdot i^{2}=-1$", "equation chain"),
        (r"$\cos 207^{\circ} \approx -0.891$", "approximation"),
    ],
)
def test_unreliable_reference_golds(gold, reason):
    assert unreliable_reference(gold) == reason
