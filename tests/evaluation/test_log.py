import errno
import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from evaluations import read_rows
from manypaths.evaluation.benchmarks import Problem
from manypaths.evaluation.log import (
    SampleLog,
    check_same_problems,
    read_problems,
    read_samples,
    write_grades,
    write_problems,
)
from manypaths.evaluation.tasks import Task
from manypaths.generation.precomputed import read_completions
from manypaths.generation.samples import Sample, SampleKey, Sampling

SOURCE = Path(__file__).parents[2] / "src"


def key(index, task="set", temperature=0.6):
    return SampleKey(task, "a", temperature, index)


def sample(text="x", stop="eos"):
    return Sample(text, [4, 1], stop, 2, -1.25)


def fill(folder, texts=("x", "y")):
    folder.mkdir(parents=True, exist_ok=True)
    with SampleLog(folder) as log:
        for index, text in enumerate(texts):
            log.add(key(index), sample(text))
    return folder / "samples.jsonl"


def test_samples_come_back_as_they_were_in_their_order(tmp_path):
    texts = ["two\nlines", "\u2028 \x85 \r\n", "\ud800 half a pair", 'quote " and \\boxed{1}', ""]
    path = fill(tmp_path / "new" / "folder", texts)
    assert read_samples(path) == {key(index): sample(text) for index, text in enumerate(texts)}
    assert read_completions(path) == read_samples(path)
    with SampleLog(path.parent) as log:
        log.add(key(0, temperature=None), Sample("", None, None))
        assert read_samples(path) == log.samples
    first = json.loads(path.read_bytes().split(b"\n")[0])
    assert list(first) == ["task", "id", "temperature", "index", "text", "token_ids", "stop", "num_tokens", "logprob"]


def test_nothing_is_written_before_the_first_sample(tmp_path):
    with SampleLog(tmp_path) as log:
        assert log.samples == {} and not log.path.exists()
        log.add(key(0), sample())
        assert read_samples(log.path) == {key(0): sample()}  # at once


def test_a_torn_last_line_is_cut_and_nothing_else(tmp_path):
    path = fill(tmp_path, ["x" * 70_000, "y"])
    content = path.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    for torn in (last[:1], last[:-1], b'{"text": "' + b"z" * 200_000):
        path.write_bytes(content + torn)
        with SampleLog(tmp_path) as log:
            assert list(log.samples) == [key(0), key(1)]
            log.add(key(2), sample())
        assert path.read_bytes().startswith(content) and list(read_samples(path)) == [key(0), key(1), key(2)]


@pytest.mark.parametrize(
    "line, message",
    [
        (b"{broken", "broken JSON"),
        (b'"\xff"', "not UTF-8 text"),
        (b"[1]", "a row must be a JSON object, found a list"),
        (b'{"task": "set", "index": 1, "text": ""}', "no id"),
        (b'{"task": "set", "id": "a", "temperature": 0.6, "index": 0, "text": ""}', "sample 0 of set a at .* is there twice"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    path = fill(tmp_path)
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first + b"\n" + line + b"\n" + second + b"\n")
    with pytest.raises(ValueError, match=rf"samples.jsonl, line 2: {message}.* Delete the line"):
        SampleLog(tmp_path)


def test_a_full_disk_leaves_complete_lines_and_the_run_goes_on_later(tmp_path, monkeypatch):
    write = os.write
    room = [300]

    def full(file, data):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    with SampleLog(tmp_path) as log:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="the 2 samples written so far stay") as caught:
            for index in range(9):
                log.add(key(index), sample())
        assert caught.value.errno == errno.ENOSPC
        monkeypatch.undo()
        assert log.path.read_bytes().endswith(b"}\n") and list(read_samples(log.path)) == [key(0), key(1)]
        log.add(key(2), sample())  # the log is as good as before
    assert list(read_samples(log.path)) == [key(0), key(1), key(2)]


def test_a_file_size_limit_of_the_system_leaves_complete_lines(tmp_path):
    program = """
        import resource, sys
        from manypaths.generation.samples import Sample, SampleKey
        from manypaths.evaluation.log import SampleLog

        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with SampleLog(sys.argv[1]) as log:
            for index in range(100):
                log.add(SampleKey("set", "a", 0.6, index), Sample("text " * index, [1], "eos", index, -0.5))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True,
    )  # fmt: skip
    assert "Free some space and give the same command again" in run.stderr
    content = (tmp_path / "samples.jsonl").read_bytes()
    assert content.endswith(b"}\n") and 1000 < len(content) <= 2000
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000


def test_other_errors_of_the_system_stay_what_they_are(tmp_path, monkeypatch):
    with SampleLog(tmp_path) as log:
        monkeypatch.setattr(os, "write", lambda file, data: (_ for _ in ()).throw(OSError(errno.EIO, "bad disk")))
        with pytest.raises(OSError, match="bad disk"):
            log.add(key(0), sample())
        monkeypatch.undo()
        assert log.samples == {} and log.path.read_bytes() == b""


def problems_task(name="sums", number=2, prompt="{}", grader="countdown", temperature=0.5):
    problems = [Problem(f"p{place}", f"{place}?", None, {"target": place}) for place in range(number)]
    prompts = [prompt.format(problem.text) for problem in problems]
    return Task(name, None, problems, prompts, Sampling(temperature=temperature, num_samples=2), grader)


def test_problems_are_kept_with_what_graders_read(tmp_path):
    write_problems([problems_task(), problems_task("more", grader="math")], tmp_path)
    given = problems_task()
    assert read_problems(tmp_path, "sums", 2) == (given.problems, given.prompts)
    assert read_problems(tmp_path, "more", 1)[0][0].row == {}
    with pytest.raises(ValueError, match="has 2 problems of sums, its results are of 3"):
        read_problems(tmp_path, "sums", 3)


def test_more_problems_of_a_set_join_and_other_ones_are_refused(tmp_path):
    write_problems([problems_task(number=1), problems_task("more")], tmp_path)
    for number in (3, 2):  # fewer change nothing
        check_same_problems([problems_task(number=number)], tmp_path)
        write_problems([problems_task(number=number)], tmp_path)
        rows = [(row["task"], row["id"]) for row in read_rows(tmp_path / "problems.jsonl")]
        assert rows == [("sums", "p0"), ("sums", "p1"), ("sums", "p2"), ("more", "p0"), ("more", "p1")]
    with pytest.raises(ValueError, match=r"another set called sums, or other prompts for it \(p0 differs\)"):
        check_same_problems([problems_task(prompt="Please: {}")], tmp_path)


def test_grades_of_other_tasks_stay(tmp_path):
    notes = [[{"correct": True}, {"correct": False}]] * 2
    write_grades(problems_task(), notes, tmp_path)
    write_grades(problems_task(temperature=1.0), notes, tmp_path)
    write_grades(problems_task(), [[{"correct": True}, {}]] * 2, tmp_path)
    rows = [(row["id"], row["temperature"], row["index"], row["correct"]) for row in read_rows(tmp_path / "grades.jsonl")]
    assert rows[:4] == [("p0", 1.0, 0, True), ("p0", 1.0, 1, False), ("p1", 1.0, 0, True), ("p1", 1.0, 1, False)]
    assert rows[4:] == [("p0", 0.5, 0, True), ("p1", 0.5, 0, True)]  # a sample without notes has no line
