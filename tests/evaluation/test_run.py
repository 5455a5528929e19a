import pytest

from evaluations import read_rows, write_rows
from manypaths.evaluation.benchmarks import Problem
from manypaths.evaluation.run import draw_missing, evaluate_tasks, samples_of, stored_problems, task_settings
from manypaths.evaluation.scoring import by_gold
from manypaths.evaluation.store import SampleKey, SampleStore, read_samples
from manypaths.evaluation.tasks import Task
from manypaths.generation.samples import Backend, Sample, Sampling

PROBLEMS = [Problem("a", "1 + 1?", "2"), Problem("b", "2 + 2?", "4")]
IDS = [[5, 6], [7, 8, 9]]


def task(num_samples=2, **settings):
    sampling = Sampling(num_samples=num_samples, temperature=0.5, **settings)
    return Task("sums", 0.5, PROBLEMS, [one.text for one in PROBLEMS], sampling)


def backend(drawn, fails_at=None):
    """Answers every request with its index in a box; notes what it was asked for."""

    def draw(requests, done):
        for position, request in enumerate(requests):
            if position in done:
                continue
            if fails_at is not None and len(drawn) == fails_at:
                raise RuntimeError("the machine went away")
            drawn.append(position)
            yield position, Sample(rf"\boxed{{{2 * request.index}}}", [1], "eos", 1, -0.5)

    return Backend("fake 1.0", draw)


def settings(given):
    return {"sums at 0.5": task_settings(given, IDS)}


def test_only_what_is_missing_is_drawn(tmp_path):
    drawn = []
    with SampleStore(tmp_path, {}, settings(task())) as store, pytest.raises(RuntimeError):
        draw_missing([task()], [IDS], store, lambda: backend(drawn, fails_at=3))
    with SampleStore(tmp_path, {}, settings(task())) as store:
        draw_missing([task()], [IDS], store, lambda: backend(drawn))
        assert store.drawn_with == ["fake 1.0"]
    assert drawn == [0, 1, 2, 3]
    more = task(num_samples=3)
    with SampleStore(tmp_path, {}, settings(more)) as store:
        draw_missing([more], [IDS], store, lambda: backend(drawn))
    assert drawn[4:] == [2, 5]  # the third sample of each problem


def test_no_backend_is_opened_when_nothing_is_missing(tmp_path):
    with SampleStore(tmp_path, {}, settings(task())) as store:
        draw_missing([task()], [IDS], store, lambda: backend([]))
    with SampleStore(tmp_path, {}, settings(task())) as store:
        draw_missing([task()], [IDS], store, lambda: pytest.fail("a model was loaded"))


def test_everything_that_shapes_a_sample_is_in_the_settings():
    base = task_settings(task(), IDS)
    assert task_settings(task(num_samples=9), IDS) == base  # more may be drawn later
    for other in ({"seed": 1}, {"top_p": 0.5}, {"top_k": 3}, {"max_new_tokens": 7}):
        assert task_settings(task(**other), IDS) != base
    assert task_settings(task(), [[5, 6], [7, 8, 1]]) != base


def test_evaluation_writes_problems_and_verdicts(tmp_path):
    with SampleStore(tmp_path, {}, settings(task())) as store:
        draw_missing([task()], [IDS], store, lambda: backend([]))
    (entry,) = evaluate_tasks(
        [task()],
        read_samples(tmp_path / "samples.jsonl"),
        tmp_path,
        grade=by_gold("strict"),
        sampling=lambda one, number: {"backend": "fake", "temperature": 0.5},
        scorer=lambda prompts, texts: [float(len(prompt)) for prompt in prompts],
    )
    assert entry["scores"]["avg@2"]["value"] == 0.25 and entry["per_problem"]["num_correct"] == [1, 0]
    verdicts = read_rows(tmp_path / "grades.jsonl")
    assert [(row["id"], row["index"], row["correct"]) for row in verdicts] == [
        ("a", 0, False), ("a", 1, True), ("b", 0, False), ("b", 1, False),
    ]  # fmt: skip
    assert verdicts[1]["extracted"] == "2" and verdicts[0]["reason"] and verdicts[0]["score"] == 6.0
    rows = read_rows(tmp_path / "problems.jsonl")
    assert stored_problems(rows, "sums", ["a", "b"]) == (PROBLEMS, ["1 + 1?", "2 + 2?"])
    with pytest.raises(ValueError, match="lacks problem c of sums"):
        stored_problems(rows, "sums", ["c"])


def test_rows_of_other_tasks_stay(tmp_path):
    write_rows(tmp_path / "problems.jsonl", [{"benchmark": name, "id": "a", "old": True} for name in ("sums", "other")])
    earlier = [{"benchmark": "sums", "temperature": heat, "old": True} for heat in (0.5, 1.0)]
    write_rows(tmp_path / "grades.jsonl", earlier)
    with SampleStore(tmp_path, {}, settings(task())) as store:
        draw_missing([task()], [IDS], store, lambda: backend([]))
        evaluate_tasks([task()], store.samples, tmp_path, grade=by_gold("strict"), sampling=lambda one, number: {})
    problems = [(row["benchmark"], row["id"], "old" in row) for row in read_rows(tmp_path / "problems.jsonl")]
    assert problems == [("other", "a", True), ("sums", "a", False), ("sums", "b", False)]
    grades = [(row["temperature"], "old" in row) for row in read_rows(tmp_path / "grades.jsonl")]
    assert grades == [(1.0, True), *[(0.5, False)] * 4]


def test_a_missing_sample_is_named():
    key = SampleKey("sums", "a", 0.5, 0)
    with pytest.raises(ValueError, match=r"sums: problem a has no sample 1 \(of 2\)"):
        samples_of(task(), {key: Sample("x", None, None)})
