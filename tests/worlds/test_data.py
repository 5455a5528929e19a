import pytest

from manypaths.worlds import countdown
from manypaths.worlds.data import canonical_solution, evaluation_problems, rl_dataset, sft_dataset
from manypaths.worlds.tokenizer import BOS_ID, EOS_ID, build_tokenizer
from manypaths.worlds.world import WORLDS


def read(prompt):
    words = prompt.split()
    return tuple(map(int, words[2:5])), int(words[6])


@pytest.mark.parametrize("world", WORLDS)
def test_demonstrations_are_right_and_exactly_sixteen_tokens(world):
    tokenizer, pool = build_tokenizer(), set(countdown.splits()["sft"])
    rows = sft_dataset(world, seed=3)
    assert len(rows) == 200 and rows.column_names == ["prompt", "completion"]
    for row in rows:
        problem = read(row["prompt"])
        assert (tuple(sorted(problem[0])), problem[1]) in pool
        assert countdown.is_solution(row["completion"][1:-6], problem, WORLDS[world].request.notation)
        prompt_ids = tokenizer(row["prompt"])["input_ids"]
        ids = tokenizer(row["prompt"] + row["completion"])["input_ids"]
        assert len(prompt_ids) == 8 and len(ids) == 16 and ids[:8] == prompt_ids
        assert ids.count(BOS_ID) == ids.count(EOS_ID) == 1 and ids[0] == BOS_ID and ids[-1] == EOS_ID


def test_seeds_choose_the_demonstrations():
    assert sft_dataset("recall", 0)["prompt"] == sft_dataset("recall", 0)["prompt"]
    assert sft_dataset("recall", 0)["prompt"] != sft_dataset("recall", 1)["prompt"]
    assert len(set(sft_dataset("recall", 0, 20)["prompt"])) == 20


def test_worlds_ask_for_the_same_problems():
    recall, coldstart = sft_dataset("recall", 5), sft_dataset("coldstart", 5)
    for old, new in zip(recall["completion"], coldstart["completion"], strict=True):
        assert countdown.translate(old, countdown.INFIX, countdown.LETTERS) == new
    assert [read(prompt) for prompt in recall["prompt"]] == [read(prompt) for prompt in coldstart["prompt"]]


def test_canonical_solution_does_not_depend_on_number_order_or_notation():
    for problem in evaluation_problems(50):
        canonical = canonical_solution(problem, countdown.INFIX)
        assert canonical == canonical_solution((problem[0][::-1], problem[1]), countdown.INFIX)
        lettered = canonical_solution(problem, countdown.LETTERS)
        assert countdown.translate(lettered, countdown.LETTERS, countdown.INFIX) == canonical


@pytest.mark.parametrize("world", WORLDS)
def test_reinforcement_prompts_agree_with_their_columns(world):
    rows, pool = rl_dataset(world, seed=1), set(countdown.splits()["rl"])
    assert len(rows) == 448
    for row in rows:
        assert read(row["prompt"]) == (tuple(row["numbers"]), row["target"])
        assert (tuple(sorted(row["numbers"])), row["target"]) in pool
        assert row["notation"] == WORLDS[world].request.notation
    assert rl_dataset(world, seed=2)["prompt"] != rows["prompt"]


def test_evaluation_problems_are_fixed_and_unseen():
    assert evaluation_problems(200)[:50] == evaluation_problems(50)
    known = set(countdown.splits()["test"])
    assert all((tuple(sorted(numbers)), target) in known for numbers, target in evaluation_problems(293))


@pytest.mark.parametrize(
    "ask, largest", [(lambda size: sft_dataset("recall", 0, size), 233), (evaluation_problems, 293)]
)
def test_impossible_sizes_are_refused(ask, largest):
    for size in (0, largest + 1):
        with pytest.raises(ValueError, match=f"num_prompts is {size}.*{largest}"):
            ask(size)
