import json

import pytest

from manypaths.data.config import DataConfig
from manypaths.evaluation import benchmarks
from manypaths.evaluation.benchmarks import (
    BENCHMARKS,
    ERRATA,
    Benchmark,
    Problem,
    conflicting,
    load_problems,
    open_ended,
    prompt_text,
    resolve_benchmarks,
)
from manypaths.evaluation.config import EvalConfig
from manypaths.evaluation.tasks import read_tasks
from manypaths.grading.graders import math

ROWS = [
    {"id": "a", "problem": "What is 1 + 1?", "answer": "2"},
    {"id": "b", "problem": "Half of 5?", "answer": 2.5},
]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_eight_have_the_settings_of_the_paper():
    assert list(BENCHMARKS) == [
        "aime24", "aime25", "amc23", "gsm8k", "math500", "gaokao2023en", "olympiadbench", "college_math",
    ]  # fmt: skip
    settings = {name: (one.num_samples, one.temperature) for name, one in BENCHMARKS.items()}
    assert {name for name, how in settings.items() if how == (8, 0.7)} == {"aime24", "aime25", "amc23"}
    assert {how for name, how in settings.items()} == {(8, 0.7), (1, 1.0)}
    asked = BENCHMARKS["gsm8k"].prompt.format(problem="{why}?")
    assert asked.startswith("{why}?\n") and asked.endswith("\\boxed{}.")


def test_local_files_take_the_place_of_the_hub(tmp_path):
    write_rows(tmp_path / "math500.jsonl", ROWS)
    problems = load_problems(BENCHMARKS["math500"], str(tmp_path))
    assert problems == [Problem("a", "What is 1 + 1?", "2", ROWS[0]), Problem("b", "Half of 5?", "2.5", ROWS[1])]


def test_rows_without_an_id_are_numbered(tmp_path):
    write_rows(
        tmp_path / "gsm8k.jsonl",
        [{"problem": "x?", "answer": "work it out\n#### 1,234"}, {"problem": "y?", "answer": 7}],
    )
    problems = load_problems(BENCHMARKS["gsm8k"], str(tmp_path))
    assert [(problem.id, problem.answer) for problem in problems] == [("gsm8k-0000", "1,234"), ("gsm8k-0001", "7")]


@pytest.mark.parametrize(
    ("gold", "value", "expected"),
    [
        ("plain", " 27.0 ", "27.0"),
        ("plain", 27.0, "27"),
        ("plain", 336, "336"),
        ("plain", ["$2$"], "$2$"),
        ("plain", ["1", "2"], "1, 2"),
        ("hashes", "a\n#### -3", "-3"),
        ("hashes", "-3", "-3"),
        ("boxed", r"so \boxed{1} is halved to \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", "204", "204"),
    ],
)
def test_golds_are_read_as_the_benchmark_stores_them(tmp_path, gold, value, expected):
    source = write_rows(tmp_path / "rows.jsonl", [{"q": "?", "a": value}])
    benchmark = Benchmark("mine", str(source), problem="q", answer="a", gold=gold)
    assert load_problems(benchmark)[0].answer == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2: broken JSON"),
        ("[1]", "line 2: a row must be a JSON object, found a list"),
        ('{"id": "c", "answer": "1"}', "line 2: 'problem' is missing or not text; columns are id, answer"),
        ('{"id": "c", "problem": "  ", "answer": "1"}', "line 2: 'problem' is missing or not text"),
        ('{"id": "c", "problem": "?"}', "line 2: 'answer' is missing or neither text nor number"),
        ('{"id": "c", "problem": "?", "answer": true}', "line 2: 'answer' is missing or neither"),
        ('{"id": "c", "problem": "?", "answer": NaN}', "line 2: 'answer' is missing or neither"),
        ('{"id": "c", "problem": "?", "answer": []}', "line 2: 'answer' is missing or neither"),
        ('{"id": "a", "problem": "?", "answer": "1"}', "line 2: the id 'a' stands for an earlier row already"),
    ],
)
def test_malformed_rows_are_named_with_file_and_line(tmp_path, row, message):
    (tmp_path / "amc23.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + row + "\n")
    with pytest.raises(ValueError, match=r"amc23.jsonl, ") as caught:
        load_problems(BENCHMARKS["amc23"], str(tmp_path))
    assert message in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"has no aime24.jsonl; it needs one object with id, problem and answer"
    ):
        load_problems(BENCHMARKS["aime24"], str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"--data_dir .*nowhere is not a folder"):
        load_problems(BENCHMARKS["aime24"], str(tmp_path / "nowhere"))
    (tmp_path / "aime24.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"aime24.jsonl is empty"):
        load_problems(BENCHMARKS["aime24"], str(tmp_path))


def test_a_benchmark_that_cannot_be_downloaded_says_how_to_give_it(monkeypatch):
    def offline(*_):
        raise ValueError("Cannot load dataset 'openai/gsm8k'.")

    monkeypatch.setattr(benchmarks, "read_source", offline)
    with pytest.raises(ValueError, match=r"Give gsm8k locally instead: --data_dir FOLDER with gsm8k.jsonl"):
        load_problems(BENCHMARKS["gsm8k"])


def test_errata_apply_only_to_the_row_they_know(tmp_path):
    leaked = {"id": "x", "problem": "Of 435 voting members, pick one.(A) 1 (B) 2Answer: A", "answer": ""}
    right = {"id": "y", "problem": "A sequence of 28 letters?", "answer": "146"}
    other = {"id": "z", "problem": "Of 434 voting members?Answer: A", "answer": ""}
    write_rows(tmp_path / "gaokao2023en.jsonl", [leaked, right, other])
    first, second, third = load_problems(BENCHMARKS["gaokao2023en"], str(tmp_path))
    assert (first.text, first.answer) == ("Of 435 voting members, pick one.(A) 1 (B) 2", "A")
    assert second.answer == "146" and third.answer == "" and third.text.endswith("Answer: A")
    assert {one.benchmark for one in ERRATA} <= set(BENCHMARKS)


def test_rows_of_the_hub_are_numbered_as_local_files_are(monkeypatch):
    rows = [{"id": 77, "question": "x?", "answer": "1"}, {"id": 77, "question": "y?", "answer": "2"}]
    monkeypatch.setattr(benchmarks, "read_source", lambda *_: rows)
    assert [one.id for one in load_problems(BENCHMARKS["amc23"])] == ["amc23-0000", "amc23-0001"]


def test_a_file_named_outright_is_not_replaced_by_one_of_the_same_name(tmp_path):
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "poems.jsonl", [{"problem": "the other"}])
    path = write_rows(tmp_path / "poems.jsonl", [{"prompt": "this one"}])
    assert load_problems(open_ended(str(path)), str(tmp_path / "data"))[0].text == "this one"


def test_an_own_benchmark_is_five_lines_of_yaml(tmp_path):
    write_rows(tmp_path / "exam.jsonl", [{"question": "1 + 1?", "result": "2"}])
    path = tmp_path / "exam.yaml"
    path.write_text("name: exam\nsource: exam.jsonl\nproblem: question\nanswer: result\nnum_samples: 4\n")
    (benchmark,) = resolve_benchmarks([str(path)])
    assert (benchmark.num_samples, benchmark.temperature, benchmark.split) == (4, 1.0, "train")
    assert (benchmark.grader, benchmark.answers, benchmark.group) == ("math", "final", "main")
    row = {"question": "1 + 1?", "result": "2"}
    assert load_problems(benchmark) == [Problem("exam-0000", "1 + 1?", "2", row)]
    (tmp_path / "other").mkdir()
    assert load_problems(benchmark, str(tmp_path / "other"))  # a file of its own needs no local copy


def test_choices_are_asked_and_graded_by_letter_or_value(tmp_path):
    (tmp_path / "quiz.jsonl").write_text('{"problem": "2+3?", "options": ["4", "5"], "answer": 1}\n')
    path = tmp_path / "quiz.yaml"
    path.write_text("name: quiz\nsource: quiz.jsonl\nchoices: options\n")
    (benchmark,) = resolve_benchmarks([str(path)])
    (problem,) = load_problems(benchmark)
    assert prompt_text(benchmark, problem).startswith("2+3?\n(A) 4\n(B) 5\n")
    columns = {"answer": [problem.answer] * 3, "choices": [problem.row["choices"]] * 3}
    assert math(["\\boxed{B}", "\\boxed{5}", "\\boxed{A}"], **columns) == [1, 1, 0]
    (tmp_path / "quiz.jsonl").write_text('{"problem": "2+3?", "options": "4 or 5", "answer": 1}\n')
    with pytest.raises(ValueError, match=r"quiz.jsonl, line 1: 'options' cannot be read. Choices must be a list"):
        load_problems(benchmark)


def test_without_an_answer_column_problems_are_open_ended(tmp_path):
    write_rows(tmp_path / "poems.jsonl", [{"prompt": [{"role": "user", "content": "A poem on rain."}]}])
    path = tmp_path / "poems.yaml"
    path.write_text("name: poems\nsource: poems.jsonl\nproblem: prompt\nanswer:\ntemperature: 0.9\n")
    (benchmark,) = resolve_benchmarks([str(path)])
    assert (benchmark.num_samples, benchmark.temperature, benchmark.prompt) == (16, 0.9, "{problem}")
    assert benchmark.grader is None
    (problem,) = load_problems(benchmark)
    assert (problem.id, problem.text, problem.answer) == ("poems-0000", "A poem on rain.", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must be a mapping"),
        ("name: x", "lacks 'source'"),
        ("name: x/y\nsource: z", "may have letters, digits"),
        ("name: x\nsource: z\nnum_sample: 3", "unknown key 'num_sample'. Did you mean num_samples"),
        ("name: x\nsource: z\nnum_samples: many", "num_samples must be a whole number, found 'many'"),
        ("name: x\nsource: z\ntemperature: true", "temperature must be a number, found True"),
        ("name: x\nsource: z\nprompt: Solve it.", "mine.yaml: prompt has no column, such as {problem}"),
        (
            "name: x\nsource: z\nprompt: 'Box {problem} in {}.'",
            "mine.yaml: prompt has an empty pair of braces; double them",
        ),
        ("name: x\nsource: z\ngold: latex", "mine.yaml: gold is 'latex'; choose one of plain, boxed, hashes"),
        ("name: x\nsource: z\nnum_samples: 0", "mine.yaml: num_samples must be at least 1, got 0"),
        ("name: x\nsource: z\nprompt: 'Box {problem'", "mine.yaml: prompt is not a template"),
        ("name: x\nsource: z\ngrader: maths", "mine.yaml: Unknown reward 'maths'. Did you mean math"),
        ("name: x\nsource: z\ngrader: nowhere_here:f", "mine.yaml: Cannot import 'nowhere_here'"),
        ("name: x\nsource: z\ngrader: exact\nanswer: null", "mine.yaml: the grader exact needs answer"),
        ("name: x\nsource: z\nanswers: words", "mine.yaml: answers is 'words'; choose one of final, text"),
        ("name: x\nsource: z\nprompt_format: html", "mine.yaml: prompt_format is 'html'; choose one of chat, text"),
        ("name: [x", "is not readable YAML"),
    ],
)
def test_yaml_mistakes(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        resolve_benchmarks([str(path)])
    assert message in str(caught.value)


def test_a_missing_file_is_looked_for_beside_the_yaml(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: x\nsource: exam.jsonl\n")
    with pytest.raises(FileNotFoundError, match=rf"mine.yaml: there is no exam.jsonl in {tmp_path}"):
        resolve_benchmarks([str(tmp_path / "mine.yaml")])


def test_names():
    assert resolve_benchmarks(["all", "gsm8k"]) == list(BENCHMARKS.values())
    with pytest.raises(ValueError, match=r"Unknown benchmark 'gsm8'. Did you mean gsm8k"):
        resolve_benchmarks(["gsm8"])
    with pytest.raises(FileNotFoundError, match=r"There is no benchmark file at nowhere.yaml"):
        resolve_benchmarks(["nowhere.yaml"])


def test_two_sets_of_one_name_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: gsm8k\nsource: somewhere\n")
    with pytest.raises(ValueError, match="Two sets are called 'gsm8k'; give one of them another name"):
        read_tasks(DataConfig(), EvalConfig(benchmarks=["gsm8k", str(path)]), None)


def test_a_benchmark_with_a_named_grader(tmp_path):
    rows = [{"prompt": "<bos> C 3 4 5 = 35 =", "numbers": [3, 4, 5], "target": 35}]
    write_rows(tmp_path / "test.jsonl", rows)
    path = tmp_path / "test.yaml"
    path.write_text("name: puzzles\nsource: test.jsonl\nproblem: prompt\ngrader: countdown\ngroup: old notation\n"
                    "answer: null\nprompt_format: text\n")  # fmt: skip
    (benchmark,) = resolve_benchmarks([str(path)])
    assert (benchmark.prompt, benchmark.answers, benchmark.num_samples) == ("{problem}", "text", 1)
    assert (benchmark.group, benchmark.prompt_format, benchmark.answer) == ("old notation", "text", None)
    (problem,) = load_problems(benchmark)
    assert problem.row["target"] == 35 and problem.answer is None


def test_a_file_of_prompts(tmp_path):
    path = write_rows(tmp_path / "stories.jsonl", [{"instruction": "Tell a story."}, {"instruction": "And another."}])
    benchmark = open_ended(str(path))
    assert (benchmark.name, benchmark.num_samples) == ("stories", 16)
    assert [one.text for one in load_problems(benchmark)] == ["Tell a story.", "And another."]
    write_rows(path, [{"words": "x"}])
    with pytest.raises(ValueError, match="has the columns words; a prompt is in problem, prompt, question"):
        open_ended(str(path))


def test_one_question_with_two_golds_is_found():
    rows = [Problem("a", "x  is?", "1"), Problem("b", "x is?", "2"), Problem("c", "y?", "1"), Problem("d", "y?", "1")]
    assert conflicting(rows) == ["a", "b"]
