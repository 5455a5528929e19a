"""The contracts catch every planted fault, and let everything right pass: our objectives, our trainer, stock TRL's."""

import inspect
import subprocess
import sys
from functools import partial

import pytest

from manypaths.objectives import resolve
from manypaths.objectives.registry import OBJECTIVES
from manypaths.testing import contracts, trainers
from runs import HYPERPARAMETERS
from testing import faults

BY_NAME = {name.removeprefix("test_"): test for name, test in vars(contracts).items() if name.startswith("test_")}
ON_OBJECTIVES = [name for name, test in BY_NAME.items() if "objective" in inspect.signature(test).parameters]
ON_TRAINERS = [name for name in BY_NAME if name not in ON_OBJECTIVES]
SLOW = {faults.RANKS}


def check(contract: str, subject) -> None:
    test = BY_NAME[contract]
    parameters = inspect.signature(test).parameters
    test(*((subject, True) if "row_local" in parameters else (subject,)))


def marked(pairs):
    """(name, contract, ...) cases, those in processes of their own marked as slow."""
    return [pytest.param(*p, marks=pytest.mark.slow if p[1] in SLOW else (), id=f"{p[0]}-{p[1]}") for p in pairs]


def test_every_contract_has_a_planted_fault():
    assert {contract for contract, _ in (*faults.TRAINERS.values(), *faults.OBJECTIVES.values())} == set(BY_NAME)


TRAINER_FAULTS = [(name, contract, step) for name, (contract, step) in faults.TRAINERS.items()]


@pytest.mark.parametrize(("name", "contract", "step"), marked(TRAINER_FAULTS))
def test_a_wrong_trainer_is_caught(name, contract, step):
    with pytest.raises(pytest.fail.Exception, match="Usual cause: "):
        check(contract, step)


@pytest.mark.parametrize("name", faults.OBJECTIVES)
def test_a_wrong_objective_is_caught(name):
    contract, function = faults.OBJECTIVES[name]
    with pytest.raises(pytest.fail.Exception, match="Usual cause: "):
        check(contract, resolve(function))


@pytest.mark.parametrize(("name", "contract"), marked([("right", contract) for contract in ON_TRAINERS]))
def test_a_right_trainer_passes(name, contract):
    check(contract, faults.right)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_our_objectives_pass(name):
    for contract in ON_OBJECTIVES:
        try:
            check(contract, resolve(name, **HYPERPARAMETERS.get(name, {})))
        except pytest.skip.Exception as skipped:
            assert "declared as not row-local" in str(skipped) or "on purpose" in str(skipped)


@pytest.mark.slow
@pytest.mark.parametrize("contract", ON_TRAINERS)
@pytest.mark.parametrize("name", ("sft", "trl", "attached"))
def test_our_trainers_and_trls(name, contract):
    check(contract, getattr(trainers, name))


@pytest.mark.slow
@pytest.mark.heavy
def test_an_objective_keeps_the_trainers_contracts():
    for contract in set(ON_TRAINERS) - SLOW:
        check(contract, partial(trainers.sft, objective="gem"))


def run_kit(folder, *arguments: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "pytest", "-p", "manypaths.testing.plugin", "-p", "no:cacheprovider",
        "--pyargs", "manypaths.testing.contracts", "-q", "-m", "not slow", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_command_line(tmp_path):
    (tmp_path / "mine.py").write_text("def half(logprob):\n    return -0.5 * logprob\n")
    passed = run_kit(tmp_path, "--objective", "mine:half", "-k", "one_loss_per_token or micro_batches")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    (tmp_path / "mine.py").write_text("def half(logprob):\n    return -0.5 * logprob.mean()\n")
    failed = run_kit(tmp_path, "--objective", "mine:half", "-k", "one_loss_per_token")
    assert "Usual cause: a reduction inside the objective" in failed.stdout
