"""The two worlds: one task, split, model and tokenizer; they differ in how the answer must be written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .countdown import INFIX, LETTERS, Problem

SETTINGS = MappingProxyType(
    {
        "sft_learning_rate": 5e-4,
        "sft_batch_size": 32,
        "sft_warmup_steps": 10,
        "rl_learning_rate": 3e-4,
        "rl_prompts_per_step": 24,
        "rl_samples_per_prompt": 16,
        "max_completion_length": 8,
        "temperature": 1.0,
    }
)


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
    """A base model's past (`mixture`: shares of its pre-training texts) and its `request` of today."""

    name: str
    description: str
    request: Request
    mixture: Mapping[str, float]
    steps: int
    settings: Mapping[str, float] = field(default_factory=lambda: SETTINGS)


WORLDS: Mapping[str, World] = MappingProxyType(
    {
        "recall": World(
            name="recall",
            description="the base already answers, diverse but inaccurate; training selects among what it knows",
            request=PRETRAINED,
            mixture=MappingProxyType(
                {
                    "countdown": 0.5,
                    "evaluate": 0.2,
                    "reverse": 0.1,
                    "sort": 0.1,
                    "markov": 0.1,
                }
            ),
            steps=3500,
        ),
        "coldstart": World(
            name="coldstart",
            description="answers use operators A B Y Z, which the base was never asked for: it must be taught",
            request=NEW,
            mixture=MappingProxyType(
                {
                    "countdown": 0.5,
                    "evaluate": 0.06,
                    "evaluate_new": 0.09,
                    "translate": 0.15,
                    "reverse": 0.07,
                    "sort": 0.07,
                    "markov": 0.06,
                }
            ),
            steps=2950,
        ),
    }
)


def resolve_world(world: str | World) -> World:
    """The world of that name (or the world itself); ValueError for an unknown name."""
    if isinstance(world, World):
        return world
    if world not in WORLDS:
        raise ValueError(f"Unknown world {world!r}; choose one of {', '.join(WORLDS)}.")
    return WORLDS[world]
