"""Heads that are modules: the statistics and gradients of the naive path, in chunks, with the same random numbers."""

import pytest
import torch
from torch import nn

from heads import TEMPERATURE, TOP_K, LargestTensor, gradients, random_head, weighted_sum
from manypaths.engine import token_statistics
from naive import DIFFERENTIABLE, NAMES, logits_of, statistics

T, V, D = 23, 50, 6


class Gated(nn.Module):
    """A head that is no product: two layers, a bias, a frozen part, a weight that it does not use."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.out_features = V
        self.gate, self.out = nn.Linear(D, D, dtype=torch.float64), nn.Linear(D, V, dtype=torch.float64)
        self.dropout, self.unused = nn.Dropout(dropout), nn.Parameter(torch.ones(2))
        self.gate.bias.requires_grad_(False)

    def forward(self, hidden_states):
        return 3 * self.out(self.dropout(hidden_states) * self.gate(hidden_states).sigmoid())

    def trained(self):
        return [self.gate.weight, self.out.weight, self.out.bias]


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Gated()


def engine(head, module, want=NAMES, **overrides):
    options = dict(want=want, softcap=head.softcap, logit_scale=head.logit_scale, top_k=TOP_K, temperature=TEMPERATURE)
    options |= dict(bias=head.bias, reference=head.reference)
    return token_statistics(head.hidden, module, head.labels, **{**options, **overrides})


def naive(head, module, reference_logits, want=NAMES):
    """The oracle on the module's own logits of all tokens."""
    valid = head.labels != -100
    eye = torch.eye(V, dtype=torch.float64)
    z = logits_of(module(head.hidden), eye, head.bias, head.softcap, head.logit_scale)[valid]
    packed = statistics(z, head.labels[valid], reference_logits[valid], TOP_K, TEMPERATURE)
    return {name: packed[name].new_zeros(valid.shape).masked_scatter(valid, packed[name]) for name in want}


OPTIONS = [{}, {"softcap": 4.0, "logit_scale": 0.7, "bias": True, "ignored": 4}]


@pytest.mark.parametrize("options", OPTIONS, ids=("plain", "softcap, scale, bias, ignored tokens"))
@pytest.mark.parametrize("other", ("weight", "module", "module beside a weight"))
def test_all_statistics_and_gradients_are_the_naive_ones(options, other, module, small_blocks):
    """With a reference whose head is a weight, a module, or a module while the policy's is a weight."""
    head = random_head(T, V, D=D, **options)
    small_blocks(T, V)
    policy, reference = module, head.reference
    reference_logits = logits_of(*reference)
    if other != "weight":
        torch.manual_seed(1)
        reference = reference._replace(hidden_states=head.hidden.detach(), weight=Gated(), bias=None)
        own = reference.weight(reference.hidden_states).detach()
        reference_logits = logits_of(own, torch.eye(V, dtype=torch.float64), None, *reference[3:])
    leaves = [leaf for leaf in (head.hidden, head.bias) if leaf is not None] + module.trained()
    if other == "module beside a weight":
        policy, leaves = head.weight, head.leaves()
        oracle = naive(head, lambda hidden: hidden @ head.weight.T, reference_logits)
    else:
        oracle = naive(head, module, reference_logits)
    got = engine(head, policy, reference=reference)
    for name in NAMES:
        torch.testing.assert_close(got[name], oracle[name], rtol=1e-10, atol=1e-10)
        assert got[name].requires_grad == (name in DIFFERENTIABLE)
    assert_same_gradients(got, oracle, leaves)


def assert_same_gradients(got, oracle, leaves, names=DIFFERENTIABLE, rtol=1e-9, atol=1e-10):
    pairs = (gradients({name: values[name] for name in names}, leaves) for values in (got, oracle))
    for mine, expected in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_each_statistic_alone(name, module, small_blocks):
    head = random_head(T, V, D=D, ignored=2)
    small_blocks(T, V)
    reference = head.reference if name.startswith("kl") else None
    oracle = naive(head, module, logits_of(*head.reference), (name,))
    assert_same_gradients(
        engine(head, module, (name,), reference=reference), oracle, [head.hidden, *module.trained()], (name,)
    )


def test_dropout_is_the_same_in_the_backward_pass_and_moves_on_afterwards(small_blocks):
    torch.manual_seed(0)
    head, module = random_head(T, V, D=D), Gated(dropout=0.5)
    small_blocks(T, V)
    torch.manual_seed(1)
    got = engine(head, module)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    oracle = naive(head, lambda hidden: torch.cat([module(rows) for rows in hidden.split(5)]), logits_of(*head.reference))
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert_same_gradients(got, oracle, [head.hidden, *module.trained()])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    engine(head, module)
    assert not torch.equal(engine(head, module)["logprob"], got["logprob"])  # dropout was on


def test_a_parameter_gets_one_gradient_or_none_where_it_has_none(module, small_blocks):
    head, seen = random_head(T, V, D=D), []
    small_blocks(T, V)
    module.out.weight.register_hook(seen.append)  # DDP's kind of hook
    weighted_sum(engine(head, module, DIFFERENTIABLE)).backward()
    assert len(seen) == 1 and torch.equal(module.out.weight.grad, seen[0])
    assert module.unused.grad is None and module.gate.bias.grad is None
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    (frozen,) = gradients(engine(head, module, DIFFERENTIABLE), [head.hidden])
    torch.testing.assert_close(frozen, head.hidden.grad, rtol=1e-12, atol=1e-12)
    head.hidden.requires_grad_(False)
    assert not engine(head, module, ("logprob",))["logprob"].requires_grad


def test_without_gradients_no_graph_is_built(module):
    head = random_head(T, V, D=D)
    with torch.no_grad():
        assert not any(values.requires_grad for values in engine(head, module).values())


def test_a_batch_without_a_trained_token_gives_gradients_of_zero(module):
    head = random_head(T, V, D=D, ignored=T)
    weighted_sum(engine(head, module, DIFFERENTIABLE)).backward()
    assert not head.hidden.grad.any() and not any(parameter.grad.any() for parameter in module.trained())


def test_many_chunks_add_up_in_fp32(small_blocks):
    """A bf16 weight gets the rounding of one gradient, not of the sum of a hundred."""
    rows, width = 500, 16
    head = random_head(rows, V, D=width, dtype=torch.bfloat16)
    small_blocks(rows, V)
    module = nn.Linear(width, V, bias=False, dtype=torch.bfloat16)
    exact = nn.Linear(width, V, bias=False, dtype=torch.float64)
    exact.weight.data.copy_(module.weight.data)
    for own, hidden in ((module, head.hidden), (exact, head.hidden.detach().double())):
        token_statistics(hidden, own, head.labels, want="logprob")["logprob"].mean().backward()
    error = (module.weight.grad.double() - exact.weight.grad).abs().max() / exact.weight.grad.abs().max()
    assert error < 2**-8


@pytest.mark.parametrize("amp", (torch.bfloat16, None))
def test_the_autocast_of_the_forward_holds_in_the_backward(amp, small_blocks):
    head = random_head(T, V, D=D, dtype=torch.float32)
    small_blocks(T, V)
    module, seen = nn.Linear(D, V), []
    module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", amp, enabled=amp is not None):
        logprob = token_statistics(head.hidden, module, head.labels, want="logprob")["logprob"]
    with torch.autocast("cpu", torch.bfloat16, enabled=amp is None):
        logprob.sum().backward()
    assert set(seen) == {amp or torch.float32} and len(seen) == 10
    assert logprob.dtype == module.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("options", [{}, {"module": True}], ids=("reference: weight", "reference: module"))
def test_logits_of_all_tokens_never_exist(options, small_blocks):
    rows, words = 64, 701
    head = random_head(rows, words, D=D)
    small_blocks(rows, words)
    module, reference = nn.Linear(D, words, dtype=torch.float64), head.reference
    if options:
        reference = reference._replace(weight=nn.Linear(D + 1, words, dtype=torch.float64), bias=None)
    with LargestTensor() as seen:
        got = engine(head, module, reference=reference)
        gradients({name: got[name] for name in DIFFERENTIABLE}, [head.hidden, *module.parameters()])
    assert seen.elements <= words * (D + 1) < rows * words / 8


def test_a_head_that_changes_before_the_backward_pass_raises(module):
    head = random_head(T, V, D=D)
    logprob = engine(head, module, ("logprob",))["logprob"]
    module.register_forward_hook(lambda module, inputs, output: 1.5 * output)
    with pytest.raises(RuntimeError, match="other logits in the backward pass than in the forward pass"):
        logprob.sum().backward()
    logprob = engine(head, module, ("logprob",))["logprob"]
    with torch.no_grad():
        module.out.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logprob.sum().backward()


class Cut(nn.Linear):
    def forward(self, hidden_states):
        return super().forward(hidden_states)[..., 1:]


class Constant(nn.Linear):
    def forward(self, hidden_states):
        return super().forward(hidden_states).detach()


@pytest.mark.parametrize(
    ("make", "message"),
    [(Cut, r"out_features = 50; set that to the size of its vocabulary"), (Constant, "gives no gradient"),
     (lambda *_, **__: nn.Identity(), "must have out_features")],
    ids=("cut", "constant", "without a size"),
)  # fmt: skip
def test_modules_that_cannot_be_heads_are_told(make, message):
    head = random_head(T, V, D=D)
    with pytest.raises(ValueError, match=message):
        engine(head, make(D, V, dtype=torch.float64), ("logprob",))


def test_the_naive_backend_takes_modules_too(module):
    head = random_head(T, V, D=D, softcap=4.0, bias=True, ignored=3)
    got = engine(head, module, backend="reference")
    oracle = naive(head, module, logits_of(*head.reference))
    assert_same_gradients(got, oracle, [head.hidden, head.bias, *module.trained()])
