"""A diagnosis as data: checks with a verdict, found by stages that name the facts they need.

A stage is a generator function. Its parameters are facts by name; it yields checks and returns new facts. What it raises
is a check that failed, and the stages that need its facts are not run.
"""

import inspect
import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from ..data.sources import one_line

Verdict = Literal["ok", "warn", "fail", "not run"]


class Check(NamedTuple):
    """What was looked at, what was seen, and what to do about it ("" for a verdict of ok)."""

    name: str
    verdict: Verdict
    seen: str
    advice: str = ""


Stage = Callable[..., Generator[Check, None, Mapping[str, Any] | None]]


def judged(name: str, seen: str, wrong: bool, advice: str, verdict: Verdict = "warn") -> Check:
    """The check with `verdict` and advice where something is wrong, else ok."""
    return Check(name, verdict, seen, advice) if wrong else Check(name, "ok", seen)


def diagnose(stages: Mapping[str, Stage], facts: dict[str, Any]) -> list[Check]:
    """Runs the stages in order; `facts` grows by what they find out."""
    checks: list[Check] = []
    for name, stage in stages.items():
        lacking = inspect.signature(stage).parameters.keys() - facts.keys()
        if lacking:
            checks.append(Check(name, "not run", "needs what failed above"))
            continue
        try:
            with overheard() as said:
                facts |= yield_into(checks, stage(**{key: facts[key] for key in inspect.signature(stage).parameters}))
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            checks.append(Check(name, "fail", one_line(error, 600)))
        known = {check.seen for check in checks}
        checks += [Check(name, "warn", text) for text in dict.fromkeys(said) if text not in known]
    return checks


def yield_into(checks: list[Check], stage: Generator[Check, None, Mapping[str, Any] | None]) -> Mapping[str, Any]:
    """The facts that a stage returns, its checks added to `checks` as they come."""
    while True:
        try:
            checks.append(next(stage))
        except StopIteration as end:
            return end.value or {}


@contextmanager
def overheard() -> Iterator[list[str]]:
    """What TRL warns of while its trainers are built, one line each; on the terminal nothing of it, nor of fake tensors."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.startswith("trl"):
                said.append(one_line(record.getMessage(), 400))

    listener = Listener(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("trl", "torch._subclasses.fake_tensor")]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [listener], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
