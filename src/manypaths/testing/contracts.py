"""The contracts, one test each; `manypaths.testing` says what they take.

Every failure is one sentence: the property that is broken, the figure, and its usual cause.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ..engine.statistics import STATISTICS
from ..functions import import_function
from ..objectives import Objective, resolve
from . import trainers
from .ranks import on_two_ranks
from .samples import Batch, Step, Taken, distance, llama, mixtral, packed, padded, sequences, take

EXACT = 1e-4  # relative; fp32 sums in another order
LENGTHS = (9, 4, 12, 6)


def broken(promise: str, cause: str) -> None:
    pytest.fail(f"{promise}. Usual cause: {cause}.", pytrace=False)


def agree(got: Taken, expected: Taken, promise: str, cause: str, tolerance: float = EXACT) -> None:
    gap = distance(got, expected)
    if not gap <= tolerance:  # NaN, too
        broken(f"{promise}: off by {gap:.2g}, losses {got.loss:.5g} and {expected.loss:.5g}", cause)


@pytest.fixture(scope="module")
def objective(request: pytest.FixtureRequest) -> Objective:
    name = request.config.getoption("--objective", None)
    if name is None:
        pytest.skip("no --objective given")
    return resolve(name, **json.loads(request.config.getoption("--objective_kwargs")))


@pytest.fixture(scope="module")
def step(request: pytest.FixtureRequest) -> Step:
    name = request.config.getoption("--trainer", None)
    if name is not None:
        return import_function(name, "trainer")
    chosen = request.getfixturevalue("objective")
    return partial(trainers.sft, objective=chosen.name, objective_kwargs=chosen.hyperparameters)


@pytest.fixture(scope="module")
def row_local(request: pytest.FixtureRequest) -> bool:
    """Whether one token's loss depends on that token alone; declared by an objective as `row_local = False`."""
    named = request.config.getoption("--objective", None)
    return named is None or request.getfixturevalue("objective").row_local


# A trainer


def test_the_label_is_predicted_from_the_token_before_it(step: Step) -> None:
    ids, _ = sequences((6,))[0]
    labels = torch.full_like(ids, -100)
    labels[-1] = ids[-1]

    def loss(position: int | None) -> float:
        changed = ids.clone()
        if position is not None:
            changed[position] = 3 + (ids[position] - 2) % 61
        return take(step, llama(), [padded([(changed, labels)])]).loss

    if loss(-1) != loss(None):
        broken("The loss of a label depends on the input token at its own place", "labels that are not shifted")
    if loss(-2) == loss(None):
        broken("The loss of a label does not depend on the token before it", "labels that are shifted twice")


def test_every_parameter_learns(step: Step) -> None:
    taken = take(step, llama(), [padded(sequences(LENGTHS))])
    still = [name for name, gradient in taken.gradients.items() if not gradient.any()]
    if still:
        broken(f"{len(still)} parameters got no gradient, {still[0]} among them", "a detached loss or a no_grad block")


def test_weights_and_batches_are_left_alone(step: Step) -> None:
    model, batch = llama(), padded(sequences(LENGTHS))
    given = {name: values.clone() for name, values in batch.items()}
    weights = {name: values.clone() for name, values in model.state_dict().items()}
    model.train()
    step(model, [batch])
    for name, values in given.items():
        if name not in batch or not torch.equal(batch[name], values):
            broken(f"The step changed {name} of the batch it was given", "an operation in place on inputs or labels")
    for name, values in weights.items():
        if not torch.equal(model.state_dict()[name], values):
            broken(f"The step changed the weight {name}", "an optimizer step, or a loss that writes into its inputs")


def test_micro_batches_train_as_one_batch(step: Step, row_local: bool) -> None:
    if not row_local:
        pytest.skip("declared as not row-local: its losses depend on the other tokens of a micro-batch")
    pairs = sequences(LENGTHS)
    whole = take(step, llama(), [padded(pairs)])
    parts = take(step, llama(), [padded([pair]) for pair in pairs])
    agree(
        parts, whole, "Four micro-batches do not train as one batch of the same rows",
        "a mean per micro-batch in the place of a sum over the tokens of the whole step",
    )  # fmt: skip


def test_a_packed_row_trains_as_its_documents(step: Step) -> None:
    pairs = sequences(LENGTHS)
    agree(
        take(step, llama(), [packed(pairs)]), take(step, llama(), [padded(pairs)]),
        "Documents packed into one row do not train as documents in rows of their own",
        "position_ids that never reach the model, so that documents attend to each other",
    )  # fmt: skip


def test_padding_is_inert(step: Step) -> None:
    pairs = sequences(LENGTHS)
    expected = take(step, llama(), [padded(pairs)])
    cause = "an attention mask that is not passed on, or padding that counts in the divisor"
    agree(
        take(step, llama(), [padded(pairs, filler=5)]), expected, "Other ids under the padding train otherwise", cause
    )
    agree(take(step, llama(), [padded(pairs, extra=7)]), expected, "More padding trains otherwise", cause)


def test_masked_tokens_are_inert(step: Step) -> None:
    def tail(seed: int, length: int) -> Batch:
        pairs = []
        for (ids, labels), (more, _) in zip(sequences(LENGTHS), sequences((length,) * 4, seed=seed), strict=True):
            pairs.append((torch.cat((ids, more)), torch.cat((labels, torch.full_like(more, -100)))))
        return padded(pairs)

    expected = take(step, llama(), [padded(sequences(LENGTHS))])
    cause = "a loss or a divisor over tokens whose label is -100"
    for seed, length in ((1, 3), (2, 3), (3, 8)):
        got = take(step, llama(), [tail(seed, length)])
        agree(got, expected, f"{length} more tokens with label -100 at the end train otherwise", cause)


def test_a_micro_batch_without_a_trained_token_is_nothing(step: Step) -> None:
    full = padded(sequences(LENGTHS))
    empty = {name: values.clone() for name, values in full.items()} | {"labels": torch.full_like(full["labels"], -100)}
    agree(
        take(step, llama(), [full, empty]), take(step, llama(), [full]),
        "A micro-batch without a trained token changes the step", "its mean over no token, or a count of micro-batches",
    )  # fmt: skip
    model = llama()
    alone = take(step, model, [empty])
    if alone.loss != 0 or any(gradient.any() or not gradient.isfinite().all() for gradient in alone.gradients.values()):
        broken(f"A step without a trained token has the loss {alone.loss}, or gradients", "0 / 0 tokens")
    if all(parameter.grad is None for parameter in model.parameters()):
        broken(
            "A step without a trained token has no gradients at all, and data-parallel ranks would wait for them",
            "a constant zero in the place of one that is connected to the model",
        )


def test_evaluation_is_the_training_loss(step: Step) -> None:
    model, batch = llama(), padded(sequences(LENGTHS))
    trained = take(step, model, [batch]).loss
    model.zero_grad()
    model.eval()
    with torch.no_grad():
        evaluated = float(step(model, [batch]))
    if not abs(evaluated - trained) <= EXACT * abs(trained):
        broken(
            f"Without dropout the evaluation loss is {evaluated:.5g}, the training loss {trained:.5g}",
            "another loss or another divisor in evaluation",
        )
    if any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters()):
        broken("Evaluation left gradients behind", "a backward that does not ask whether gradients are wanted")


def test_the_step_depends_on_weights_and_batches_alone(step: Step) -> None:
    """What a resumed run needs."""
    first, second = padded(sequences(LENGTHS)), padded(sequences(LENGTHS, seed=1))
    expected = take(step, llama(), [second])
    take(step, llama(seed=1), [first])
    agree(
        take(step, llama(), [second]), expected, "The same step gives something else after another one",
        "a running mean, a counter or a random state that a checkpoint does not hold",
    )  # fmt: skip


def test_bf16_weights_train_nearly_as_fp32_weights(step: Step) -> None:
    batches = [padded(sequences((250,) * 4))]
    half = llama().to(torch.bfloat16)
    got, expected = take(step, half, batches), take(step, llama_like(half), batches)
    agree(
        got, expected, "With bf16 weights the step is not that of the same weights in fp32",
        "losses that are summed, or a log-softmax that is taken, in bf16", tolerance=0.1,
    )  # fmt: skip
    if not abs(got.loss - expected.loss) <= 0.01 * abs(expected.loss):
        broken(
            f"With bf16 weights the loss is {got.loss:.5g}, with the same in fp32 {expected.loss:.5g}",
            "losses that are summed, or a log-softmax that is taken, in bf16",
        )


def llama_like(model: torch.nn.Module) -> torch.nn.Module:
    """The same weights in fp32."""
    copy = llama()
    copy.load_state_dict({name: values.float() for name, values in model.state_dict().items()})
    return copy


def test_an_adapter_on_the_head_trains_or_is_refused(step: Step) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["lm_head"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    batches = [padded(sequences(LENGTHS))]
    try:
        got = take(step, model, batches)
    except (ValueError, NotImplementedError, TypeError):
        return  # refused, in words
    merged = take(step, model.merge_and_unload().requires_grad_(True), batches)
    if not abs(got.loss - merged.loss) <= EXACT * abs(merged.loss) or not all(g.any() for g in got.gradients.values()):
        broken(
            f"With a LoRA on the head the loss is {got.loss:.5g}, with it merged {merged.loss:.5g}, or it has no gradient",
            "a fused loss that reads lm_head.weight and passes the adapter by",
        )


def test_the_router_loss_counts_once(step: Step) -> None:
    batch, coefficient = padded(sequences(LENGTHS)), 0.5

    def difference(batches: list[Batch]) -> float:
        with_router, without = (take(step, mixtral(value), batches).loss for value in (coefficient, 0.0))
        return with_router - without

    with torch.no_grad():
        expected = coefficient * float(mixtral(coefficient)(**batch).aux_loss)
    for count in (1, 2):
        got = difference([batch] * count)
        if not abs(got - expected) <= 1e-3 * expected:
            broken(
                f"The load-balancing loss adds {got:.5g} to a step of {count} equal micro-batches, not {expected:.5g}",
                "an aux_loss that is dropped, divided by tokens, or added anew for every micro-batch",
            )


@pytest.mark.slow
def test_two_ranks_train_as_one(step: Step, row_local: bool) -> None:
    pairs = sequences(LENGTHS)
    one, rest = padded(pairs[:1]), padded(pairs[1:])
    empty = one | {"labels": torch.full_like(one["labels"], -100)}
    cases = {"with unequal numbers of tokens": (one, rest), "of which one has no trained token": (rest, empty)}
    for case, (left, right) in cases.items():
        if not row_local and case.startswith("with"):
            continue
        expected = take(step, llama(), [left, right])
        try:
            ranks = on_two_ranks(step, [[left], [right]])
        except RuntimeError as error:
            broken(f"Two ranks {case} do not train: {error}", "a collective that one rank never reaches")
        for rank in ranks:
            agree(
                rank._replace(loss=expected.loss), expected, f"Two ranks {case} do not train as one",
                "a mean of means, or a division by the world size that the data-parallel wrapper does already",
            )  # fmt: skip


# An objective


def statistics(
    tokens: int = 12, dtype: torch.dtype = torch.float32, seed: int = 0, top_k: int = 5
) -> dict[str, Tensor]:
    """All statistics of random logits [tokens, 64], as leaves: the engine's reference in fp64, then `dtype`."""
    from ..engine import Projection, token_statistics

    make = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    hidden, weight = normal(tokens, 8), normal(64, 8)
    reference = Projection(normal(tokens, 8), weight)
    labels = torch.randint(64, (tokens,), generator=make)
    values = token_statistics(
        hidden, weight, labels, want=tuple(STATISTICS), top_k=top_k, temperature=0.7, reference=reference,
        backend="reference",
    )  # fmt: skip
    return {name: value.detach().to(dtype).requires_grad_() for name, value in values.items()}


def losses_of(objective: Objective, values: dict[str, Tensor]) -> Tensor:
    try:
        return objective({name: values[name] for name in objective.statistics})
    except Exception as error:
        tokens = len(values["logprob"])
        broken(f"On {tokens} tokens the objective raised {type(error).__name__}: {error}", "a reduction over no token")


def test_an_objective_gives_one_loss_per_token(objective: Objective) -> None:
    for tokens in (12, 1, 0):
        values = statistics(tokens)
        losses = losses_of(objective, values)
        if not isinstance(losses, Tensor) or losses.shape != (tokens,) or not losses.is_floating_point():
            found = f"{losses.dtype} {list(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            broken(
                f"For {tokens} tokens the objective returned {found}",
                "a reduction inside the objective, or a loss of whole numbers",
            )


def test_an_objective_leaves_its_statistics_alone(objective: Objective) -> None:
    values = {name: value.detach() for name, value in statistics().items()}
    given = {name: value.clone() for name, value in values.items()}
    losses_of(objective, values)
    changed = [name for name in given if not torch.equal(given[name], values[name])]
    if changed:
        broken(
            f"The objective changed {changed[0]} in place", "an operation that ends in an underscore, or an assignment"
        )


def test_an_objective_has_a_gradient(objective: Objective) -> None:
    gradients = gradients_of(objective, statistics()).values()
    if not any(gradient is not None and gradient.any() for gradient in gradients):
        broken("No statistic gets a gradient from the objective", "a detach, .item() or torch.no_grad() too many")


def gradients_of(objective: Objective, values: dict[str, Tensor]) -> dict[str, Tensor | None]:
    losses = losses_of(objective, values)
    if not losses.requires_grad:
        return {}
    wanted = [values[name] for name in objective.statistics]
    return dict(zip(objective.statistics, torch.autograd.grad(losses.sum(), wanted, allow_unused=True), strict=True))


def test_a_token_does_not_look_at_its_neighbours(objective: Objective) -> None:
    if not objective.row_local:
        pytest.skip("declared as not row-local")
    values = {name: value.detach() for name, value in statistics().items()}
    whole = losses_of(objective, values)
    alone = torch.cat([losses_of(objective, {n: v[i : i + 1] for n, v in values.items()}) for i in range(len(whole))])
    if not torch.allclose(whole, alone, rtol=1e-5, atol=1e-6):
        broken(
            f"The loss of a token alone differs by {float((whole - alone).abs().max()):.2g} from that among others",
            "a mean, a quantile or a softmax over tokens; if that is meant, set row_local = False on the function",
        )


def test_an_objective_is_a_function(objective: Objective) -> None:
    values = statistics()
    if not torch.equal(losses_of(objective, values), losses_of(objective, values)):
        broken("Two calls on the same statistics differ", "random numbers, or a state that the function keeps")


def test_an_objective_is_finite_at_the_edges(objective: Objective) -> None:
    """Tokens known for certain (log p = 0, entropy 0) and tokens thought impossible (log p = -80)."""
    for logprob, spread in ((0.0, 0.0), (-80.0, 0.0), (-1e-7, 1e-7), (-80.0, 4.0)):
        values = {}
        for name, value in statistics().items():
            edge = {"logprob": logprob, "topk_mass": 1.0, "is_top1": float(logprob > -1)}.get(name, spread)
            values[name] = torch.full_like(value, edge).requires_grad_()
        losses = losses_of(objective, values)
        bad = [n for n, g in gradients_of(objective, values).items() if g is not None and not g.isfinite().all()]
        if bad or not losses.isfinite().all():
            what = f"the gradient of {bad[0]}" if bad else f"the loss ({float(losses.flatten()[0].detach())})"
            broken(
                f"At log p = {logprob:g}, entropy {spread:g}, {what} is not finite",
                "a log of 1 - p, a division by p or entropy, or a power below 1, without a clamp",
            )


def test_an_objective_is_as_good_in_fp32_as_in_fp64(objective: Objective) -> None:
    exact, single = (losses_of(objective, statistics(64, dtype)).detach() for dtype in (torch.float64, torch.float32))
    gap = float(((single - exact).abs() / (exact.abs() + 1e-3)).max())
    if not gap <= 1e-3:
        broken(f"In fp32 the loss is off by {gap:.2g}", "a cast to bf16, or a difference of nearly equal numbers")


class SeesDetach(torch.overrides.TorchFunctionMode):
    """Notes whether gradients are stopped on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.seen |= getattr(function, "__name__", "") == "detach"
        return function(*args, **(kwargs or {}))


def test_an_objectives_gradient_is_its_derivative(objective: Objective) -> None:
    values = statistics(6, torch.float64)
    with SeesDetach() as mode:
        losses_of(objective, values)
    if mode.seen:
        pytest.skip("stops gradients on purpose (detach)")
    inputs = [values[name] for name in objective.statistics]

    def call(*given: Tensor) -> Tensor:
        return losses_of(objective, dict(zip(objective.statistics, given, strict=True)))

    try:
        torch.autograd.gradcheck(call, inputs)
    except RuntimeError as error:
        broken(
            f"The gradient is not the derivative of the loss ({str(error).splitlines()[0]})", "a backward of one's own"
        )
