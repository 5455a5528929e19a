"""Sets of problems: the eight mathematical benchmarks by name, files of prompts, and a user's own as a few lines of YAML.

No problem ships with the package. A benchmark is read from the hub or, with `data_dir`, from local files
`<name>.jsonl` with one {"id", "problem", "answer"} a line. Sampling defaults are those of SED-SFT's evaluation
(arXiv:2602.07464): eight samples at temperature 0.7 for the three small sets, one at 1.0 for the others.
"""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ..data.sources import json_kind, json_lines, looks_like_file, read_source, read_text
from ..functions import did_you_mean
from ..generation.samples import Sampling
from ..grading.graders import lettered, resolve_grader

INSTRUCTION = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
CHOICE_INSTRUCTION = "{problem}\n{choices}\nPlease reason step by step, and put the right letter within \\boxed{{}}."
PROMPT_COLUMNS = ("problem", "prompt", "question", "instruction", "text")
CHOICES = {"gold": ("plain", "boxed", "hashes"), "answers": ("final", "text"), "prompt_format": ("chat", "text")}
MAIN = "main"  # the group of benchmarks that models are compared by


@dataclass(frozen=True)
class Problem:
    """One problem: `text` is what is asked, `answer` the gold or None, `row` every column of its row in the data."""

    id: str
    text: str
    answer: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    r"""Where problems come from, how they are asked and graded, and how often they are sampled unless told otherwise.

    source: a hub id or a file. problem, answer, choices: names of columns; with choices, an answer may be the letter of
      the right one or its value, and {choices} in the prompt lists them.
    gold: how the answer column holds the answer: "plain", in the last box ("boxed"), or after the last "####" ("hashes").
    prompt: a template with any column in braces; {problem} is the problem's column.
    grader: a name of `grading.graders`, or "module:function"; "math" where there is an answer. Without answer and grader
      nothing is graded, and the samples are judged for diversity only.
    answers: what makes two answers the same, "final" (equal final answers, for "math") or "text".
    group: benchmarks of other groups than "main" are averaged apart and are not what models are compared by.
    prompt_format: "chat" or "text"; wins over the command's.
    """

    name: str
    source: str
    config: str | None = None
    split: str = "test"
    problem: str = "problem"
    answer: str | None = "answer"
    choices: str | None = None
    gold: str = "plain"
    prompt: str = INSTRUCTION
    grader: str | None = "math"
    answers: str = "final"
    group: str = MAIN
    prompt_format: str | None = None
    num_samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 3072


SMALL: dict[str, Any] = {"num_samples": 8, "temperature": 0.7}  # 30 to 40 problems: avg@8
OPEN_ENDED: dict[str, Any] = {  # GEM's poems and stories (arXiv:2408.16673)
    "answer": None, "prompt": "{problem}", "grader": None, "answers": "text",
    "num_samples": 16, "top_k": 50, "top_p": 0.9, "max_new_tokens": 512,
}  # fmt: skip
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("aime24", "math-ai/aime24", answer="solution", gold="boxed", **SMALL),
        Benchmark("aime25", "math-ai/aime25", **SMALL),
        Benchmark("amc23", "math-ai/amc23", problem="question", **SMALL),
        Benchmark("gsm8k", "openai/gsm8k", config="main", problem="question", gold="hashes"),
        Benchmark("math500", "HuggingFaceH4/MATH-500"),
        Benchmark("gaokao2023en", "MARIO-Math-Reasoning/Gaokao2023-Math-En", split="train", problem="question"),
        Benchmark(
            "olympiadbench",
            "Hothan/OlympiadBench",
            config="OE_TO_maths_en_COMP",
            split="train",
            problem="question",
            answer="final_answer",
        ),
        Benchmark("college_math", "di-zhang-fdu/College_Math_Test", problem="question"),
    )
}


@dataclass(frozen=True)
class Erratum:
    """A known mistake: the row whose problem has `fragment` in it and whose gold is `gold` gets `answer`.

    `cut` starts what does not belong to the problem, a leaked answer.
    """

    benchmark: str
    fragment: str
    gold: str
    answer: str
    cut: str | None = None


ERRATA = (
    Erratum("gaokao2023en", "saddle point", "", r"\frac{3}{10}", cut="answers:"),
    Erratum("gaokao2023en", "435 voting members", "", "A", cut="Answer:"),
    Erratum("gaokao2023en", "28 letters", "$145$solution:", "145"),
    Erratum("aime25", "84^\\circ", r"336^\circ", "336"),
)


def resolve_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """Benchmarks by name, `all` for the eight, or a path to a YAML file; each once, in the order given.

    Raises ValueError for an unknown name (near ones are offered).
    """
    benchmarks: list[Benchmark] = []
    for name in names:
        if name == "all":
            benchmarks += BENCHMARKS.values()
        elif name in BENCHMARKS:
            benchmarks.append(BENCHMARKS[name])
        elif name.endswith((".yaml", ".yml")):
            benchmarks.append(read_benchmark(Path(name)))
        else:
            hint = did_you_mean(name, [*BENCHMARKS, "all"])
            raise ValueError(
                f"Unknown benchmark {name!r}. {hint}Known: {', '.join(BENCHMARKS)}, or all; your own is a .yaml file."
            )
    return list(dict.fromkeys(benchmarks))


def read_benchmark(path: Path) -> Benchmark:
    """A benchmark from flat YAML whose keys are Benchmark's fields; `name` and `source` are needed.

    A `source` that is a file is looked for beside the YAML. A file's split is `train`.

    Raises FileNotFoundError, or ValueError for what is not such a mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no benchmark file at {path}.")
    try:
        given = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} must be a mapping with name, source and columns, found {json_kind(given)}.")
    kinds = {field.name: field.type for field in fields(Benchmark)}
    for key, value in given.items():
        if key not in kinds:
            raise ValueError(f"{path}: unknown key {key!r}. {did_you_mean(str(key), kinds)}Keys: {', '.join(kinds)}.")
        if not fits(value, kinds[key]):
            wanted = {int: "a whole number", float: "a number"}.get(kinds[key], "text")
            raise ValueError(f"{path}: {key} must be {wanted}, found {value!r}.")
        if key in CHOICES and value is not None and value not in CHOICES[key]:
            raise ValueError(f"{path}: {key} is {value!r}; choose one of {', '.join(CHOICES[key])}.")
    for key in ("name", "source"):
        if not given.get(key):
            raise ValueError(f"{path} lacks {key!r}.")
    if not str(given["name"]).replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"{path}: name {given['name']!r} may have letters, digits, '-', '_' and '.' only.")
    beside = path.parent / given["source"]
    if beside.is_file():
        given = {"split": "train", **given, "source": str(beside)}
    elif looks_like_file(given["source"]):
        raise FileNotFoundError(f"{path}: there is no {given['source']} in {path.parent.absolute()}.")
    try:
        benchmark = Benchmark(**{**defaults_of(given), **given})
        check_template(benchmark.prompt)
        if benchmark.grader is not None:
            resolve_grader(benchmark.grader)
        Sampling(**{field.name: getattr(benchmark, field.name) for field in fields(Sampling) if field.name != "seed"})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return benchmark


def defaults_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a benchmark's YAML means where it says nothing: open-ended without answer and grader."""
    grader, answer = given.get("grader"), given.get("answer")
    if given.get("choices"):
        grader = grader or "math"
    if not answer and not grader:
        return OPEN_ENDED
    if grader in ("math", "exact") and not given.get("answer", "answer"):
        raise ValueError(f"the grader {grader} needs answer, the name of the column with the right answers.")
    if grader in (None, "math"):
        return {"prompt": CHOICE_INSTRUCTION} if given.get("choices") else {}
    return {"prompt": "{problem}", "answers": "text"} | ({} if grader == "exact" else {"answer": None})


def check_template(prompt: str) -> None:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None]
    except ValueError as error:
        raise ValueError(f"prompt is not a template ({error}); double braces that are not around a column.") from error
    if not names or not all(names):
        wrong = "an empty pair of braces; double them" if names else "no column, such as {problem}"
        raise ValueError(f"prompt has {wrong}.")


def fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and not isinstance(value, bool)


def prompt_text(benchmark: Benchmark, problem: Problem) -> str:
    """What is asked: the template filled with the problem and the columns of its row."""
    try:
        given = {**problem.row, "problem": problem.text}
        if benchmark.choices is not None:
            given["choices"] = "\n".join(f"({letter}) {value}" for letter, value in problem.row["choices"].items())
        return benchmark.prompt.format(**given)
    except (KeyError, IndexError, AttributeError, ValueError, TypeError) as error:
        columns = ", ".join(problem.row) or "none"
        raise ValueError(
            f"The prompt of benchmark {benchmark.name} cannot be filled for {problem.id} ({error}); columns are {columns}. "
            "Double braces that are not around a column."
        ) from error


def open_ended(path: str) -> Benchmark:
    """A file of prompts to answer in many ways: its column problem, prompt, question, instruction or text."""
    names = read_source(path).column_names
    column = next((name for name in PROMPT_COLUMNS if name in names), None)
    if column is None:
        raise ValueError(f"{path} has the columns {', '.join(names)}; a prompt is in {', '.join(PROMPT_COLUMNS)}.")
    return Benchmark(Path(path).stem, path, split="train", problem=column, **OPEN_ENDED)


def load_problems(benchmark: Benchmark, data_dir: str | None = None) -> list[Problem]:
    """The problems of a benchmark in their order, known errata applied. An empty gold stays empty: it cannot be graded.

    Rows without an id, and those of the eight from the hub, get `<name>-<0-based row>`. A gold may be text, a number,
    or a list with one or more answers.

    Raises FileNotFoundError or ValueError, with file and line or row, for a missing file, a dataset that cannot
    be loaded, a row without problem or answer, or a duplicate id.
    """
    if data_dir is not None and not Path(data_dir).is_dir():
        raise FileNotFoundError(f"--data_dir {data_dir} is not a folder.")
    if data_dir is not None and not Path(benchmark.source).is_file():
        answer = None if benchmark.answer is None else "answer"
        source = str(local_file(benchmark.name, Path(data_dir)))
        benchmark = replace(benchmark, source=source, split="train", problem="problem", answer=answer)
    problems: dict[str, Problem] = {}
    for index, (place, row) in enumerate(placed_rows(benchmark)):
        problem = read_problem(benchmark, row, place, index)
        if problem.id in problems:
            raise ValueError(f"{place}: the id {problem.id!r} stands for an earlier row already.")
        problems[problem.id] = problem
    return list(problems.values())


def local_file(name: str, folder: Path) -> Path:
    for ending in (".jsonl", ".json", ".parquet"):
        path = folder / f"{name}{ending}"
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has no {name}.jsonl; it needs one object with id, problem and answer a line.")


def placed_rows(benchmark: Benchmark) -> list[tuple[str, Mapping[str, Any]]]:
    """Every row with the place it stands at: file and line, or source and row."""
    path = Path(benchmark.source)
    if path.suffix == ".jsonl" and path.is_file():
        rows = json_lines(read_text(path), path)
        if not rows:
            raise ValueError(f"{path} is empty; it needs at least one row.")
        return [(f"{path}, line {number}", row) for number, row in rows.items()]
    try:
        dataset = read_source(benchmark.source, benchmark.split, benchmark.config)
    except ValueError as error:
        if benchmark.name not in BENCHMARKS:
            raise
        raise ValueError(
            f"{error} Give {benchmark.name} locally instead: --data_dir FOLDER with {benchmark.name}.jsonl, one "
            'object {"id", "problem", "answer"} a line.'
        ) from error
    return [(f"{benchmark.source}, row {number}", row) for number, row in enumerate(dataset, start=1)]


def read_problem(benchmark: Benchmark, row: Mapping[str, Any], place: str, index: int) -> Problem:
    given = None if benchmark == BENCHMARKS.get(benchmark.name) else row.get("id")  # hubs number in other ways
    name = f"{benchmark.name}-{index:04d}" if given in (None, "") else str(given)
    text = question_text(row.get(benchmark.problem))
    if not text:
        raise ValueError(f"{place}: {benchmark.problem!r} is missing or not text; columns are {', '.join(row)}.")
    if benchmark.choices is not None:
        try:
            row = {**row, "choices": lettered(row.get(benchmark.choices))}
        except ValueError as error:
            raise ValueError(f"{place}: {benchmark.choices!r} cannot be read. {error}") from error
    if benchmark.answer is None:
        return Problem(name, text, None, row)
    gold = gold_text(row.get(benchmark.answer))
    if gold is None:
        raise ValueError(
            f"{place}: {benchmark.answer!r} is missing or neither text nor number; columns are {', '.join(row)}."
        )
    return corrected(benchmark.name, Problem(name, text, GOLD_READERS[benchmark.gold](gold), row))


def question_text(value: Any) -> str:
    """A prompt as text: itself, or the one user message of a conversation."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("content")
    return value.strip() if isinstance(value, str) else ""


def gold_text(value: Any) -> str | None:
    """Text as it is, a number without a needless `.0`, several answers joined by commas; None for the rest."""
    if isinstance(value, list):
        parts = [gold_text(part) for part in value]
        return ", ".join(part for part in parts if part) if parts and None not in parts else None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value).strip()


def boxed(text: str) -> str:
    from ..grading import extract

    answer = extract(text, "strict")
    return text if answer is None else answer


GOLD_READERS: dict[str, Callable[[str], str]] = {
    "plain": str.strip,
    "boxed": boxed,
    "hashes": lambda text: text.rpartition("####")[2].strip(),  # all of it when there is none
}


def corrected(benchmark: str, problem: Problem) -> Problem:
    for known in ERRATA:
        if known.benchmark == benchmark and known.gold == problem.answer and known.fragment in problem.text:
            text = problem.text if known.cut is None else problem.text.rpartition(known.cut)[0].strip() or problem.text
            return replace(problem, text=text, answer=known.answer)
    return problem


def conflicting(problems: Sequence[Problem]) -> list[str]:
    """Ids of problems whose text occurs again with another gold: no answer can be right for all of them."""
    golds: dict[str, set[str | None]] = {}
    for problem in problems:
        golds.setdefault(" ".join(problem.text.split()), set()).add(problem.answer)
    return [problem.id for problem in problems if len(golds[" ".join(problem.text.split())]) > 1]
