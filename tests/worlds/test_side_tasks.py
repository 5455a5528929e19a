from random import Random

import pytest

from manypaths.grading.graders import resolve_grader
from manypaths.worlds.countdown import INFIX, LETTERS, parse
from manypaths.worlds.side_tasks import SIDE_TASKS, SUCCESSORS, is_chain
from manypaths.worlds.tokenizer import as_completion, as_prompt, encode


@pytest.mark.parametrize("name", SIDE_TASKS)
def test_expected_answers_are_accepted_and_fit_the_token_limits(name):
    rng, task = Random(0), SIDE_TASKS[name]
    for _ in range(200):
        question, answer = task.draw(rng)
        texts = [answer, answer + " a", ""]
        assert resolve_grader(task.grader)(texts, prompts=[as_prompt(question)] * 3, answer=[answer] * 3) == [1, 0, 0]
        assert len(encode(as_completion(answer))) <= 8
        assert len(encode(as_prompt(question) + as_completion(answer))) <= 18


@pytest.mark.parametrize("name, notation", [("evaluate", INFIX), ("evaluate_new", LETTERS)])
def test_evaluation_is_right(name, notation):
    question, answer = SIDE_TASKS[name].draw(Random(3))
    assert parse(question[2:-2], notation)[0] == int(answer)


def test_reverse_and_sort_are_right():
    question, answer = SIDE_TASKS["reverse"].draw(Random(0))
    assert answer.split() == question.split()[-2:0:-1]
    question, answer = SIDE_TASKS["sort"].draw(Random(0))
    assert list(map(int, answer.split())) == sorted(map(int, question.split()[1:-1]))


def test_translation_goes_both_ways():
    rng = Random(0)
    questions = [SIDE_TASKS["translate"].draw(rng)[0] for _ in range(20)]
    assert len({parse(question[2:-2], INFIX) is None for question in questions}) == 2


def test_any_lawful_chain_is_accepted_and_an_unlawful_one_is_not():
    letter, chain = "a", []
    for step in range(6):
        letter = SUCCESSORS[letter][step % 2]
        chain.append(letter)
    assert is_chain("<bos> M b c d a", " ".join(chain))
    assert not is_chain("<bos> M b c d a", " ".join(["a", *chain[1:]]))
    assert not is_chain("<bos> M b c d a", " ".join(["<pad>", *chain[1:]]))
    assert not is_chain("<bos> M b c d a", " ".join([*chain[:5], "9"]))
