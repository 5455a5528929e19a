"""A built-in world as ordinary files: a model, training data, benchmarks, and texts of the model's pre-training."""

import json
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from ..config import helped, read_recipe
from ..run_folder import RunFolder, write_whole
from . import countdown
from .countdown import Problem
from .side_tasks import SIDE_TASKS
from .tokenizer import as_completion, as_prompt
from .world import PRETRAINED, WORLDS, Request, World, draw_text, resolve_world

VERSION = 2  # of the files: raised when one of them changes for the same world and seed
DEMONSTRATIONS, TESTS, OLD_TESTS, SIDE_ITEMS, PRETRAINING_TEXTS = 200, 200, 100, 100, 200
SAMPLED = {"answer": None, "num_samples": 64, "temperature": 1.0}
GREEDY = {"answer": "answer", "num_samples": 1, "temperature": 0.0}

NO_BREAK = "\N{NO-BREAK SPACE}"  # keeps an option and its value on one line

Rows = list[dict[str, Any]]


@dataclass
class WorldConfig:
    """Which built-in world to write, and where."""

    world: str = helped("recall", f"The world: {' or '.join(WORLDS)}.")
    output_dir: str | None = helped(None, "Folder to write; by default one with the world's name.")
    seed: int = helped(0, "Chooses the demonstrations and the order of the RL prompts; tests and model stay.")


def make_world(config: WorldConfig) -> Path:
    """`manypaths world`: write the files, and print what to do with them."""
    folder = write_world(config.world, config.output_dir or config.world, config.seed)
    print(
        f"{folder} holds the world {config.world} (seed {config.seed}); README.md there says what each file is. Go on:"
    )
    print(f"\ncd {shlex.quote(str(folder))}\n{next_commands(resolve_world(config.world))}")
    return folder


def write_world(name: str, folder: str | Path, seed: int = 0) -> Path:
    """Write the world of that name into `folder`: a model folder, sft.jsonl, rl.jsonl and benchmark files.

    `seed` chooses the demonstrations, their order and the order of the RL prompts; the model, the tests and the side
    tasks are the same for every seed. Written again, the files are the same.

    Raises ValueError for an unknown world, or a folder that holds another world or run.
    """
    world = resolve_world(name)
    settings = {"world": name, "seed": seed, "version": VERSION}
    with RunFolder(folder, "world", settings, leaves=("model", "*.jsonl", "*.yaml", "README.md")) as run:
        run.record()
        (run.path / "model").mkdir(exist_ok=True)
        for path, content in world_files(world, seed).items():
            write_whole(run.path / path, content)
    return run.path


def world_files(world: World, seed: int) -> dict[str, str | bytes]:
    """{path in the world's folder: content}."""
    tests = shown(countdown.splits()["test"], Random(0))
    files: dict[str, str | bytes] = {f"model/{path.name}": path.read_bytes() for path in sorted(world.base.iterdir())}
    files["sft.jsonl"] = json_lines(demonstrations(drawn("sft", DEMONSTRATIONS, seed), world.request))
    files["rl.jsonl"] = json_lines(puzzles(drawn("rl", len(countdown.splits()["rl"]), seed), world.request))
    files |= benchmark("test", puzzles(tests[:TESTS], world.request), name="countdown", grader="countdown", **SAMPLED)
    for name in world.side_tasks:
        rows = [{"prompt": as_prompt(question), "answer": answer} for question, answer in texts(name, SIDE_ITEMS, name)]
        files |= benchmark(name, rows, name=name, grader=SIDE_TASKS[name].grader, group="side tasks", **GREEDY)
    if world.request != PRETRAINED:
        rows, name = puzzles(tests[:OLD_TESTS], PRETRAINED), "old_notation"
        files |= benchmark(name, rows, name=name, grader="countdown", group="old notation", **SAMPLED)
    files["pretraining.jsonl"] = json_lines(
        {"prompt": as_prompt(question), "completion": as_completion(answer)}
        for question, answer in texts("countdown", PRETRAINING_TEXTS, 0)
    )
    files["README.md"] = readme(world)
    return files


def drawn(split: str, number: int, seed: int) -> list[Problem]:
    """So many problems of a split in random order, their numbers in random order."""
    rng = Random(seed)
    return shown(rng.sample(countdown.splits()[split], number), rng)


def shown(problems: Iterable[Problem], rng: Random) -> list[Problem]:
    """The problems with their numbers in random order, as a prompt shows them."""
    return [countdown.shuffled(rng, problem) for problem in problems]


def demonstrations(problems: Sequence[Problem], request: Request) -> Rows:
    """One canonical solution per problem: eight prompt and eight completion tokens, the end token among them."""
    answers = [as_completion(countdown.canonical_solution(problem, request.notation)) for problem in problems]
    rows = zip(puzzles(problems, request), answers, strict=True)
    return [{"prompt": row.pop("prompt"), "completion": answer, **row} for row, answer in rows]


def puzzles(problems: Iterable[Problem], request: Request) -> Rows:
    """Problems to solve, with what the grader `countdown` reads."""
    return [
        {
            "prompt": as_prompt(request.question((numbers, target))),
            "numbers": numbers,
            "target": target,
            "notation": request.notation,
        }
        for numbers, target in problems
    ]


def texts(kind: str, number: int, seed: int | str) -> list[tuple[str, str]]:
    """(question, answer) of texts as the base was pre-trained on."""
    rng = Random(seed)
    return [draw_text(kind, rng) for _ in range(number)]


def benchmark(file: str, rows: Rows, **settings: Any) -> dict[str, str]:
    """The two files of a benchmark: `settings`, how to ask and how to sample as YAML, the rows beside it."""
    asked = {"source": f"{file}.jsonl", "problem": "prompt", "prompt": "{problem}", "prompt_format": "text"}
    limits = {"top_p": 1.0, "top_k": 0, "max_new_tokens": 8}
    text = yaml.safe_dump({**settings, **asked, **limits}, sort_keys=False)
    return {f"{file}.yaml": text, f"{file}.jsonl": json_lines(rows)}


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def readme(world: World) -> str:
    """What each file is, and how to go on by hand."""
    files = {
        "model/": "the base model: a Llama of 164,480 weights, with its tokenizer",
        "sft.jsonl": f"{DEMONSTRATIONS} demonstrations with one solution each, for `manypaths sft` and `manypaths augment`",
        "rl.jsonl": "prompts for `manypaths grpo`, with what the reward `countdown` reads",
        "test.yaml": f"benchmark: {TESTS} problems that occur nowhere else, 64 samples each (rows in `test.jsonl`)",
    }
    for name in world.side_tasks:
        files[f"{name}.yaml"] = f"side task: {SIDE_TASKS[name].description} ({SIDE_ITEMS} rows in `{name}.jsonl`)"
    if world.request != PRETRAINED:
        files["old_notation.yaml"] = (
            f"benchmark: the first {OLD_TESTS} test problems, asked for with + - * / as in pre-training"
        )
    files["pretraining.jsonl"] = f"{PRETRAINING_TEXTS} Countdown texts as in pre-training, for token scores"
    table = "\n".join(f"| `{name}` | {text} |" for name, text in files.items())
    return f"""# The built-in world `{world.name}`

Countdown: reach the target with three numbers, each used once. Here {world.description}.
The side tasks show what training makes the model forget.

| file | what it is |
|---|---|
{table}

All are ordinary files: read them, change them, use them elsewhere. The steps of `manypaths quickstart --world {world.name}`
by hand, in this folder (`manypaths objectives` lists other objectives):

```bash
{next_commands(world)}
```
"""


def next_commands(world: World) -> str:
    """SFT, RL and evaluation in the world's folder, with the settings of the packaged experiment."""
    experiment = read_recipe(str(world.experiment))
    stages = [
        ("sft", "model", "out-sft", {"objective": "nll"}),
        ("grpo", "out-sft", "out-rl", {}),
        ("eval", "out-rl", "out-eval", {}),
    ]
    commands = []
    for name, model, output, more in stages:
        options = {"model_name_or_path": model, **more, **experiment[name], "output_dir": output}
        words = " ".join(f"--{key}{NO_BREAK}{as_words(value)}" for key, value in options.items())
        commands.append(" \\\n  ".join(textwrap.wrap(f"manypaths {name} {words}", 110, break_on_hyphens=False)))
    return "\n".join(commands).replace(NO_BREAK, " ")


def as_words(value: Any) -> str:
    """An option's value on the command line, its paths those in the world's folder."""
    if isinstance(value, list):
        return " ".join(map(as_words, value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return shlex.quote(text.removeprefix("world/{seed}/"))
