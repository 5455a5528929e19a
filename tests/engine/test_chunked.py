"""The chunked backend: gradients with respect to the logits, bounded memory, block sizes that do not matter."""

import pytest
import torch

from heads import LargestTensor, gradients, random_head
from manypaths.engine import Projection, chunked, token_statistics
from naive import DIFFERENTIABLE, NAMES, gradient


def d_logits(names, backend, T=40, V=19, dtype=torch.float64, seed=0):
    """Gradients with respect to the logits themselves: hidden states = logits, head = identity."""
    make = torch.Generator().manual_seed(seed)
    z = (3 * torch.randn(T, V, generator=make, dtype=torch.float64)).to(dtype).requires_grad_()
    z_ref = (3 * torch.randn(T, V, generator=make, dtype=torch.float64)).to(dtype)
    labels = torch.randint(V, (T,), generator=make)
    upstream = {name: torch.randn(T, generator=make, dtype=torch.float64).to(dtype) for name in names}
    eye = torch.eye(V, dtype=dtype)
    statistics = token_statistics(
        z, eye, labels, want=names, temperature=0.7, reference=Projection(z_ref, eye), backend=backend
    )
    (d_z,) = torch.autograd.grad(sum((upstream[name] * statistics[name]).sum() for name in names), z)
    expected = sum(upstream[name][:, None] * gradient(name, z.detach(), labels, z_ref) for name in names)
    return d_z, expected


@pytest.mark.parametrize("backend", ("chunked", "reference"))
@pytest.mark.parametrize("names", [*((name,) for name in DIFFERENTIABLE), DIFFERENTIABLE], ids="+".join)
def test_d_logits_are_the_documented_gradients_and_sum_to_zero(names, backend, small_blocks):
    small_blocks(40, 19)
    d_z, expected = d_logits(names, backend)
    torch.testing.assert_close(d_z, expected, rtol=1e-11, atol=1e-12)
    assert d_z.sum(-1).abs().max() < 1e-12
    d_z, _ = d_logits(names, backend, dtype=torch.float32)
    assert d_z.sum(-1).abs().max() < 1e-5


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0, "bias": True, "logit_scale": 0.25, "ignored": 5}])
def test_block_sizes_do_not_matter(options, small_blocks):
    head = random_head(23, 50, **options)
    whole = head.engine(NAMES)
    whole_gradients = gradients({name: whole[name] for name in DIFFERENTIABLE}, head.leaves())
    small_blocks(23, 50)
    parts = head.engine(NAMES)
    for name in NAMES:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-13, atol=1e-13)
    for a, b in zip(
        gradients({name: parts[name] for name in DIFFERENTIABLE}, head.leaves()), whole_gradients, strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_logits_of_all_tokens_never_exist(dtype, small_blocks):
    T, V, D = 64, 701, 6
    head = random_head(T, V, dtype=dtype, softcap=5.0, logit_scale=0.5, bias=True, D=D)
    small_blocks(T, V)

    def largest(backend):
        with LargestTensor() as seen:
            statistics = head.engine(NAMES, backend)
            forward = seen.elements
            gradients({name: statistics[name] for name in DIFFERENTIABLE}, head.leaves())
        return forward, seen.elements

    bound = V * (D + 1)  # the reference's weight; a chunk of 5 rows and a tile of 64 x 8 are smaller
    assert all(elements <= bound < T * V / 8 for elements in largest("chunked"))
    assert all(elements >= T * V for elements in largest("reference"))  # the recorder does see them


def test_budget_is_at_least_one_row():
    assert chunked.budget({"cpu": 10, "cuda": 10}, torch.device("cpu"), 1000) == 1
    assert chunked.budget({"cpu": 10, "cuda": 40}, torch.device("cuda"), 4) == 10
    assert chunked.budget({"cpu": 10, "cuda": 40}, torch.device("cpu"), 0) == 10
