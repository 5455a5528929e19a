"""`token_statistics`: values and gradients of both backends against naive autograd in float64, and every refusal."""

import math

import pytest
import torch

from heads import TOP_K, gradients, random_head
from manypaths.engine import STATISTICS, Projection, token_statistics
from naive import CONSTANT, DIFFERENTIABLE, NAMES

BACKENDS = ("chunked", "reference")
HEADS = {
    "plain": {},
    "softcap": {"softcap": 5.0},
    "scale": {"logit_scale": 0.25},
    "bias": {"bias": True},
    "everything": {"softcap": 5.0, "logit_scale": 0.25, "bias": True, "ignored": 4},
}


def assert_matches(head, want, backend, rtol=1e-10, atol=1e-11):
    ours, oracle = head.engine(want, backend), head.naive()
    assert list(ours) == list(want)
    for name in want:
        torch.testing.assert_close(ours[name], oracle[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
    trained = [name for name in want if name in DIFFERENTIABLE]
    if not trained:
        assert not any(values.requires_grad for values in ours.values())
        return
    expected = gradients({name: oracle[name] for name in trained}, head.leaves())
    got = gradients({name: ours[name] for name in trained}, head.leaves())
    for leaf, ours_, oracle_ in zip(("hidden", "weight", "bias"), got, expected, strict=False):
        torch.testing.assert_close(ours_, oracle_, rtol=rtol, atol=atol, msg=lambda m, n=leaf: f"d_{n}: {m}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("name", NAMES)
def test_each_statistic_alone(name, options, backend, small_blocks):
    head = random_head(**options)
    small_blocks(13, 37)
    assert_matches(head, (name,), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("blocks", ("one block", "small blocks"))
def test_all_statistics_together(options, backend, blocks, small_blocks, poisoned_memory):
    if blocks == "small blocks":
        small_blocks(13, 37)
    assert_matches(random_head(**options), NAMES, backend)
    assert_matches(random_head(**options), NAMES[::-1], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("T", "V"), [(1, 5), (1, 701), (2, 37), (5, 8), (6, 16), (10, 40), (11, 41), (13, 701)])
def test_odd_sizes_and_block_boundaries(T, V, backend, small_blocks, poisoned_memory):
    small_blocks(T, V)
    assert_matches(random_head(T, V, softcap=5.0, bias=True), NAMES, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_block_sizes(backend, poisoned_memory):
    assert_matches(random_head(13, 1500), NAMES, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_ignored_gives_connected_zeros(backend, poisoned_memory):
    head = random_head(ignored=13, bias=True, softcap=5.0)
    statistics = head.engine(NAMES, backend)
    assert all(torch.equal(values, torch.zeros(13, dtype=torch.float64)) for values in statistics.values())
    trained = {name: statistics[name] for name in DIFFERENTIABLE}
    assert all(values.requires_grad for values in trained.values())
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients(trained, head.leaves()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ignored_rows_do_not_touch_the_others(backend):
    head = random_head(ignored=5)
    kept = head.labels != -100
    short = head._replace(
        hidden=head.hidden[kept].detach().requires_grad_(),
        labels=head.labels[kept],
        reference=head.reference._replace(hidden_states=head.reference.hidden_states[kept]),
    )
    with_ignored, without = head.engine(NAMES, backend), short.engine(NAMES, backend)
    for name in NAMES:
        assert torch.equal(with_ignored[name][kept], without[name])
        assert not with_ignored[name][~kept].any()
    (d_hidden,) = torch.autograd.grad(with_ignored["logprob"].sum(), head.hidden)
    assert not d_hidden[~kept].any() and d_hidden[kept].any(-1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_ignore_index(backend):
    head = random_head(ignored=5)
    other = head._replace(labels=head.labels.masked_fill(head.labels == -100, -1))
    assert torch.equal(
        other.engine(("logprob",), backend, ignore_index=-1)["logprob"], head.engine(("logprob",), backend)["logprob"]
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_leading_dimensions(backend):
    head = random_head(12, ignored=3)
    folded = head._replace(
        hidden=head.hidden.detach().reshape(3, 4, -1).requires_grad_(),
        labels=head.labels.reshape(3, 4),
        reference=head.reference._replace(hidden_states=head.reference.hidden_states.reshape(3, 4, -1)),
    )
    flat, batched = head.engine(NAMES, backend), folded.engine(NAMES, backend)
    for name in NAMES:
        assert torch.equal(batched[name], flat[name].reshape(3, 4))
    trained = DIFFERENTIABLE
    flat_gradients = gradients({n: flat[n] for n in trained}, head.leaves())
    batched_gradients = gradients({n: batched[n].reshape(12) for n in trained}, folded.leaves())
    torch.testing.assert_close(batched_gradients[0].reshape(12, -1), flat_gradients[0])
    torch.testing.assert_close(batched_gradients[1], flat_gradients[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_differentiable_exactly_where_declared(backend):
    statistics = random_head().engine(NAMES, backend)
    assert {name for name in NAMES if statistics[name].requires_grad} == set(DIFFERENTIABLE)
    assert {name for name in NAMES if STATISTICS[name].differentiable} == set(DIFFERENTIABLE)
    assert set(STATISTICS) == set(DIFFERENTIABLE + CONSTANT)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.float32))
@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_are_float32(backend, dtype):
    head = random_head(dtype=dtype, spread=0.7)
    statistics = head.engine(NAMES, backend)
    assert {values.dtype for values in statistics.values()} == {torch.float32}
    (d_hidden,) = torch.autograd.grad(statistics["logprob"].sum(), head.hidden)
    assert d_hidden.dtype == dtype


def test_a_reference_in_another_dtype():
    head = random_head()
    lower = Projection(*(t.float() for t in head.reference[:3]), *head.reference[3:])
    assert_matches(head._replace(reference=lower), ("kl_policy_ref", "kl_ref_policy"), "chunked", 1e-5, 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reference_receives_no_gradient(backend):
    head = random_head()
    reference = Projection(*(t.clone().requires_grad_() for t in head.reference[:3]), *head.reference[3:])
    want = ("kl_policy_ref", "kl_ref_policy")
    total = sum(v.sum() for v in head.engine(want, backend, reference=reference).values())
    assert torch.autograd.grad(total, reference[:3], allow_unused=True) == (None, None, None)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_kl_to_oneself_is_nothing(options, backend):
    head = random_head(**options)
    reference = Projection(head.hidden, head.weight, head.bias, head.softcap, head.logit_scale)
    statistics = head.engine(("kl_policy_ref", "kl_ref_policy"), backend, reference=reference)
    for values in statistics.values():
        assert values.abs().max() < 1e-14
    assert all(gradient.abs().max() < 1e-13 for gradient in gradients(statistics, head.leaves()))


@pytest.mark.parametrize("top_k", (1, 36))
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_top_k(top_k, backend):
    head = random_head()
    statistics = head.engine(("topk_mass", "topk_entropy"), backend, top_k=top_k)
    p = (head.hidden @ head.weight.T).softmax(-1)
    expected = p.max(-1).values if top_k == 1 else 1 - p.min(-1).values
    torch.testing.assert_close(statistics["topk_mass"], expected.detach())
    if top_k == 1:
        assert statistics["topk_entropy"].abs().max() == 0
    else:
        share = p.detach().sort(-1).values[:, 1:]
        share = share / share.sum(-1, keepdim=True)
        torch.testing.assert_close(statistics["topk_entropy"], -(share * share.log()).sum(-1))


@pytest.mark.parametrize("temperature", (1e-3, 1e3))
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_temperatures(temperature, backend, small_blocks):
    small_blocks(13, 37)
    head = random_head()
    want = ("tempered_logprob", "sigmoid_tempered_logprob", "sigmoid_tempered_mass")
    statistics = head.engine(want, backend, temperature=temperature)
    logp = (head.hidden @ head.weight.T).log_softmax(-1)
    limit = logp.max(-1).values if temperature < 1 else logp.mean(-1)
    torch.testing.assert_close(statistics["tempered_logprob"], limit, rtol=0.02, atol=0.02)
    assert all(values.isfinite().all() for values in statistics.values())
    assert all(gradient.isfinite().all() for gradient in gradients(dict(list(statistics.items())[:2]), head.leaves()))


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("size", (1e2, 1e4))
@pytest.mark.parametrize("backend", BACKENDS)
def test_huge_logits_stay_finite(backend, size, dtype):
    hidden = torch.tensor([[1.0], [-1.0], [1.0], [0.0]], dtype=dtype)
    weight = torch.tensor([[size], [-size], [size * 0.9], [0.0], [1.0]], dtype=dtype)
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    labels = torch.tensor([0, 0, 1, 3])  # certain, impossible, impossible, uniform
    statistics = token_statistics(
        hidden, weight, labels, want=NAMES, top_k=2, temperature=0.7, backend=backend,
        reference=Projection(-hidden, weight),
    )  # fmt: skip
    assert all(values.isfinite().all() for values in statistics.values())
    assert statistics["logprob"].tolist() == pytest.approx([0, -2 * size, -2 * size, -math.log(5)], rel=0.01, abs=1e-4)
    trained = {name: statistics[name] for name in DIFFERENTIABLE}
    assert all(gradient.isfinite().all() for gradient in gradients(trained, [hidden, weight]))


def test_values_lie_in_the_declared_range():
    V = 37
    bounds = {
        "-inf": -math.inf, "inf": math.inf, "0": 0.0, "1": 1.0, "log V": math.log(V), "-log V": -math.log(V),
        "top_k / V": TOP_K / V, "log top_k": math.log(TOP_K),
    }  # fmt: skip
    for spread in (0.1, 1.0, 6.0):
        for name, values in random_head(200, V, spread=spread).engine(NAMES).items():
            low, high = STATISTICS[name].range.strip("[](){}").split(", ")
            assert values.min() >= bounds[low] - 1e-12 and values.max() <= bounds[high] + 1e-12, name


def test_ties_count_as_top1():
    hidden, weight = torch.ones(2, 1), torch.tensor([[1.0], [1.0], [0.0]])
    for backend in BACKENDS:
        top1 = token_statistics(hidden, weight, torch.tensor([1, 2]), want=("is_top1",), backend=backend)["is_top1"]
        assert top1.tolist() == [1.0, 0.0]


def refusals():
    nan_row = torch.ones(4, 6)
    nan_row[2, 3] = math.nan
    nan_batch = torch.ones(2, 3, 6)
    nan_batch[1, 2, 0] = math.inf
    ones = torch.ones
    yield "statistic", dict(want=("logprobs",)), "Unknown statistic 'logprobs'.*logprob, "
    yield "backend", dict(backend="cuda"), "Unknown backend 'cuda'.*auto, chunked, reference"
    yield "missing top_k", dict(want=("topk_mass",)), "topk_mass needs top_k"
    yield "missing temperature", dict(want=("tempered_logprob",)), "tempered_logprob needs temperature"
    yield "missing reference", dict(want=("kl_policy_ref",)), "kl_policy_ref needs the reference"
    yield "top_k = V", dict(want=("topk_mass",), top_k=9), "top_k must be .* below the vocabulary size 9, got 9"
    yield "top_k = 0", dict(want=("topk_mass",), top_k=0), "top_k must be at least 1 .* got 0"
    yield "temperature 0", dict(temperature=0.0), "temperature must be above 0, got 0.0"
    yield "temperature NaN", dict(temperature=math.nan), "temperature must be above 0, got nan"
    yield "label too large", dict(labels=torch.tensor([0, 1, 9, 2])), "Label 9 at row 2 is outside the vocabulary of 9"
    yield "negative label", dict(labels=torch.tensor([0, -1, 8, 2])), "Label -1 at row 1 .*ignored tokens must be -100"
    yield "labels' shape", dict(labels=torch.zeros(3, dtype=torch.long)), r"labels must be \[T\] = \[4\], got \[3\]"
    yield "hidden size", dict(weight=ones(9, 5)), r"same D, got \[4, 6\] and \[9, 5\]"
    yield "one dimension", dict(hidden_states=ones(6), labels=torch.tensor(0)), r"hidden_states must be \[T, D\]"
    yield "dtypes", dict(weight=ones(9, 6).double()), "float32.*float64.*same dtype"
    yield "bias' shape", dict(bias=ones(8)), r"bias must be \[V\] = \[9\], got \[8\]"
    yield "softcap 0", dict(softcap=0.0), "softcap must be above 0 or None, got 0.0"
    yield "scale 0", dict(logit_scale=0.0), "logit_scale must be finite and not 0, got 0.0"
    yield "scale inf", dict(logit_scale=math.inf), "logit_scale must be finite"
    yield "NaN", dict(hidden_states=nan_row), r"NaN or inf, first at row 2 \(1 of 4 trained tokens\)"
    yield (
        "inf in a batch",
        dict(hidden_states=nan_batch, labels=torch.zeros(2, 3, dtype=torch.long)),
        r"first at sequence 1, position 2 \(1 of 6",
    )
    yield "reference's vocabulary", dict(reference=(ones(4, 6), ones(8, 6))), "reference's vocabulary has 8 .* 9"
    yield "reference's tokens", dict(reference=(ones(3, 6), ones(9, 6))), r"\[3, 6\].*\[4, 6\].*same tokens"
    yield "reference's hidden size", dict(reference=(ones(4, 6), ones(9, 5))), "reference hidden_states"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("case", "overrides", "message"), list(refusals()), ids=[r[0] for r in refusals()])
def test_refuses(case, overrides, message, backend):
    request = dict(
        hidden_states=torch.ones(4, 6), weight=torch.ones(9, 6), labels=torch.zeros(4, dtype=torch.long),
        want=("logprob",), backend=backend,
    )  # fmt: skip
    token_statistics(**request)
    with pytest.raises(ValueError, match=message):
        token_statistics(**{**request, **overrides})


def test_nan_in_an_ignored_row_is_nobodys_business():
    head = random_head(ignored=4)
    hidden = head.hidden.detach().masked_fill((head.labels == -100)[:, None], math.nan).requires_grad_()
    values = head._replace(hidden=hidden).engine(("logprob",))["logprob"]
    assert torch.equal(values, head.engine(("logprob",))["logprob"])
    (d_hidden,) = torch.autograd.grad(values.sum(), hidden)
    assert d_hidden.isfinite().all()


def test_auto_is_chunked():
    head = random_head()
    for name, values in head.engine(NAMES, "auto").items():
        assert torch.equal(values, head.engine((name,), "chunked")[name])
