"""The two worlds: one task, split, model and tokenizer; they differ in how the answer must be written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType

from ..functions import did_you_mean
from . import countdown
from .countdown import INFIX, LETTERS, Problem
from .side_tasks import SIDE_TASKS

NOISE = 0.4  # share of the pre-training answers that are random expressions


@dataclass(frozen=True)
class Request:
    """How a Countdown answer is asked for (the prompt's first word) and the notation it must be in."""

    marker: str
    notation: str

    def question(self, problem: Problem) -> str:
        """`C 3 4 5 = 35 =`: marker, numbers, target; always seven words."""
        (a, b, c), target = problem
        return f"{self.marker} {a} {b} {c} = {target} ="


PRETRAINED = Request("C", INFIX)
NEW = Request("I", LETTERS)


@dataclass(frozen=True)
class World:
    """A base model's past (`mixture`: shares of its pre-training texts, `steps` of training) and its `request` of today."""

    name: str
    description: str
    request: Request
    mixture: Mapping[str, float]
    steps: int

    @property
    def side_tasks(self) -> list[str]:
        return [name for name in SIDE_TASKS if name in self.mixture]

    @property
    def base(self) -> Path:
        """The folder of the pre-trained model, packaged with the library."""
        return Path(__file__).parent / "base" / self.name

    @property
    def experiment(self) -> Path:
        """The experiment that `quickstart` runs in this world."""
        return Path(__file__).parent / f"{self.name}.yaml"


WORLDS: Mapping[str, World] = MappingProxyType(
    {
        "recall": World(
            name="recall",
            description="the base already answers, diverse but inaccurate; training selects among what it knows",
            request=PRETRAINED,
            mixture={"countdown": 0.5, "evaluate": 0.2, "reverse": 0.1, "sort": 0.1, "markov": 0.1},
            steps=3500,
        ),
        "coldstart": World(
            name="coldstart",
            description="answers use operators A B Y Z, which the base was never asked for: it must be taught",
            request=NEW,
            mixture={
                "countdown": 0.5,
                "evaluate": 0.06,
                "evaluate_new": 0.09,
                "translate": 0.15,
                "reverse": 0.07,
                "sort": 0.07,
                "markov": 0.06,
            },
            steps=2950,
        ),
    }
)


def resolve_world(name: str) -> World:
    """The world of that name; ValueError for an unknown one."""
    if name not in WORLDS:
        raise ValueError(f"Unknown world {name!r}. {did_you_mean(name, WORLDS)}Choose one of {', '.join(WORLDS)}.")
    return WORLDS[name]


def draw_text(kind: str, rng: Random) -> tuple[str, str]:
    """(question, answer) of a pre-training text: a side task's, or a Countdown problem with one of its solutions.

    NOISE of the Countdown answers are random expressions instead.
    """
    if kind != "countdown":
        return SIDE_TASKS[kind].draw(rng)
    problem = countdown.shuffled(rng, rng.choice(countdown.splits()["pretrain"]))
    if rng.random() < NOISE:
        return PRETRAINED.question(problem), countdown.random_expression(rng, problem[0])
    return PRETRAINED.question(problem), rng.choice(countdown.solutions(problem))
