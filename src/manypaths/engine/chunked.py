"""Statistics and their gradients in plain PyTorch, on any device, in bounded memory.

Forward: token chunks, full vocabulary rows, one sweep for all statistics. Backward: vocabulary tiles
recomputed from a few saved scalars per row, so that d_weight is written once per tile and nothing of
size [T, V] or fp32 [V, D] ever exists. Both work in place on reused scratch: fresh pages cost more
than arithmetic here. A head that is a module gives full rows only: its backward goes by token chunks, too.

Shapes: T tokens, D hidden size, V vocabulary, K top-k; R rows of a block, C rows of a chunk, N columns
of a vocabulary tile.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .head_modules import HeadModule, gradients
from .statistics import GEM_SIGMOID_SLOPE, Projection, token_shares, vocab_size

# Elements, not bytes: the product matrix of a forward chunk, the fp32 scratch of a row block, the
# scratch of a backward tile. On a CPU the sizes at which bf16 and fp32 ran fastest (benchmarks/); those of other
# devices keep the same kinds of buffers to half a gigabyte and have not been tuned.
CHUNK_ELEMENTS = {"cpu": 40_000_000, "cuda": 128_000_000}
BLOCK_ELEMENTS = {"cpu": 5_000_000, "cuda": 32_000_000}
TILE_ELEMENTS = {"cpu": 4_200_000, "cuda": 32_000_000}
MODULE_ELEMENTS = {"cpu": 10_000_000, "cuda": 32_000_000}  # logits of a chunk; a module makes several copies
MIN_TILE, MAX_TILE = 1024, 32768


class Rows(NamedTuple):
    """What the backward needs of each row, all [T] in the statistics' dtype."""

    largest: Tensor  # max_i z_i; sums are of exp(z - largest), kept apart since large logits would swallow their digits
    log_total: Tensor  # log sum_i exp(z_i - largest)
    tempered_log_total: Tensor | None  # log sum_i exp((z_i - largest) / temperature)
    label_logit: Tensor | None  # z_y
    entropy: Tensor | None
    sigmoid_mass: Tensor | None  # q.w
    ref_largest: Tensor | None
    ref_log_total: Tensor | None
    kl_policy_ref: Tensor | None


def budget(elements: dict[str, int], device: torch.device, width: int) -> int:
    """How many rows (or columns) of `width` fit into the budget of this kind of device."""
    return max(1, elements["cpu" if device.type == "cpu" else "cuda"] // max(1, width))


def statistics_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def transform_(z: Tensor, projection: Projection, columns: slice = slice(None)) -> Tensor:
    """Bias, scale and softcap, in place on the raw product z [., columns]."""
    if projection.bias is not None:
        z.add_(projection.bias[columns])
    if projection.logit_scale != 1.0:
        z.mul_(projection.logit_scale)
    if projection.softcap is not None:
        z.div_(projection.softcap).tanh_().mul_(projection.softcap)
    return z


def multiplied_T(projection: Projection, columns: slice = slice(None)) -> Tensor:
    """[D, N] of the weight, in the dtype it is multiplied in."""
    return projection.weight[columns].to(projection.hidden_states.dtype).T


def product_dtype(projection: Projection) -> torch.dtype:
    hidden = projection.hidden_states
    return statistics_dtype(hidden) if isinstance(projection.weight, HeadModule) else hidden.dtype


def products(projection: Projection, chunk: int) -> Callable[[slice], Tensor]:
    """What multiplies a slice of at most `chunk` tokens with the head, [R, V]: with a weight always into one matrix."""
    hidden, weight = projection.hidden_states, projection.weight
    if isinstance(weight, HeadModule):
        needs = [tensor.requires_grad for tensor in (hidden, *weight.parameters)]  # its kernels may depend on it
        return lambda rows: weight(hidden[rows], needs)[0].detach().to(product_dtype(projection))
    weight_T = multiplied_T(projection)
    matrix = torch.empty(chunk, len(weight), dtype=hidden.dtype, device=hidden.device)
    return lambda rows: torch.mm(hidden[rows], weight_T, out=matrix[: rows.stop - rows.start])


def block_logits(product: Tensor, projection: Projection, scratch: Tensor | None) -> Tensor:
    """Final logits of a row block, in the statistics' dtype; in place when `product` has that dtype."""
    z = product if scratch is None else scratch[: len(product)].copy_(product)
    return transform_(z, projection)


def row_block(z, z_ref, work, other, labels, want, top_k, temperature, shares) -> dict[str, Tensor]:
    """All statistics of the rows z [R, V] (destroyed), with two scratch blocks of the same shape."""
    out: dict[str, Tensor] = {}
    largest = z.amax(-1)
    z_y = z.gather(-1, labels[:, None])[:, 0]
    out["label_logit"] = z_y
    out["is_top1"] = (z_y >= largest).to(z.dtype)
    if top_k is not None:
        topk = z.topk(top_k).values
    z.sub_(largest[:, None])
    centred_y = z_y - largest
    exps = torch.exp(z, out=work)
    total = exps.sum(-1)
    log_total = total.log()
    out["largest"], out["log_total"] = largest, log_total
    out["logprob"] = centred_y - log_total
    if top_k is not None:
        topk_logp = topk - largest[:, None] - log_total[:, None]
        out["topk_mass"] = topk_logp.exp().sum(-1)
        topk_logp = topk_logp.log_softmax(-1)
        out["topk_entropy"] = -(topk_logp.exp() * topk_logp).sum(-1)
    if "mean_logprob" in want:
        out["mean_logprob"] = z @ shares - log_total
    if "entropy" in want:
        out["entropy"] = log_total - torch.mul(exps, z, out=other).sum(-1) / total
    if z_ref is not None:
        ref_largest = z_ref.amax(-1)
        z_ref.sub_(ref_largest[:, None])
        ref_exps = torch.exp(z_ref, out=other)
        ref_total = ref_exps.sum(-1)
        out["ref_largest"], out["ref_log_total"] = ref_largest, ref_total.log()
        shift = log_total - out["ref_log_total"]
        gap = torch.sub(z, z_ref, out=z_ref)  # log p - log r + shift: accurate where p is close to r
        ref_gap = ref_exps.mul_(gap).sum(-1) / ref_total
        out["kl_policy_ref"] = (torch.mul(exps, gap, out=other).sum(-1) / total - shift).clamp_(min=0)
        out["kl_ref_policy"] = (shift - ref_gap).clamp_(min=0)
    if temperature is not None:
        q = torch.mul(z, 1 / temperature, out=work).exp_()
        q_total = q.sum(-1)
        out["tempered_log_total"] = q_total.log()
        if "tempered_logprob" in want:
            out["tempered_logprob"] = torch.mul(q, z, out=other).sum(-1) / q_total - log_total
        if "sigmoid_tempered_logprob" in want or "sigmoid_tempered_mass" in want:
            torch.sub(z, centred_y[:, None], out=other).mul_(GEM_SIGMOID_SLOPE).sigmoid_()
            mass = q.mul_(other).sum(-1) / q_total
            out["sigmoid_tempered_mass"] = mass
            out["sigmoid_tempered_logprob"] = q.mul_(z).sum(-1) / q_total - mass * log_total
    return out


def forward(
    policy: Projection,
    labels: Tensor,
    want: tuple[str, ...],
    top_k: int | None,
    temperature: float | None,
    reference: Projection | None,
) -> tuple[dict[str, Tensor], Rows]:
    """The statistics named in `want`, each [T], and the row scalars the backward needs."""
    hidden = policy.hidden_states
    T, V = len(hidden), vocab_size(policy)
    dtype, device = statistics_dtype(hidden), hidden.device
    heads = [policy] if reference is None else [policy, reference]
    modules = any(isinstance(head.weight, HeadModule) for head in heads)
    chunk = min(max(T, 1), budget(MODULE_ELEMENTS if modules else CHUNK_ELEMENTS, device, V))
    block = min(chunk, budget(BLOCK_ELEMENTS, device, V))

    def scratch() -> Tensor:
        return torch.empty(block, V, dtype=dtype, device=device)

    work, other = scratch(), scratch()
    scratches = [None if product_dtype(head) == dtype else scratch() for head in heads]
    multiplies = [products(head, chunk) for head in heads]
    shares = token_shares(policy)
    out: dict[str, Tensor] = {}
    for start in range(0, max(T, 1), chunk):  # T = 0 runs one empty chunk and gives empty statistics
        tokens = slice(start, min(start + chunk, T))
        multiplied = [multiply(tokens) for multiply in multiplies]
        for row in range(0, max(tokens.stop - start, 1), block):
            rows = slice(row, min(row + block, tokens.stop - start))
            z, z_ref, *_ = *map(block_logits, (product[rows] for product in multiplied), heads, scratches), None
            size = rows.stop - rows.start
            where = slice(start + rows.start, start + rows.stop)
            for name, value in row_block(
                z, z_ref, work[:size], other[:size], labels[where], want, top_k, temperature, shares
            ).items():
                out.setdefault(name, torch.empty(T, dtype=dtype, device=device))[where] = value
    rows = Rows(
        out["largest"],
        out["log_total"],
        out.get("tempered_log_total"),
        out["label_logit"],
        out.get("entropy"),
        out.get("sigmoid_tempered_mass"),
        out.get("ref_largest"),
        out.get("ref_log_total"),
        out.get("kl_policy_ref"),
    )
    return {name: out[name] for name in want}, rows


def column(value: Tensor | float) -> Tensor | float:
    """A [T] vector as a [T, 1] column; numbers pass through."""
    return value[:, None] if isinstance(value, Tensor) else value


def d_logits_tile(z, z_ref, work, labels, rows: Rows, grads: dict[str, Tensor], offset, shares, temperature) -> Tensor:
    """d(sum of upstream * statistic) / dz for one tile of final logits z [T, N]; overwrites z.

    p (a + b log p - g log r) + t q + s q w + m / V - k r + e_y l, with row scalars from the upstream
    gradients: l logprob, m mean_logprob, h entropy, t tempered, s sigmoid-tempered, g KL(p||r), k KL(r||p);
    b = g - h.
    """
    get = grads.get
    entropy, kl = get("entropy"), get("kl_policy_ref")
    sigmoid, tempered = get("sigmoid_tempered_logprob"), get("tempered_logprob")
    z.sub_(column(rows.largest))
    extra = None
    if tempered is not None or sigmoid is not None:
        q = torch.mul(z, 1 / temperature).sub_(column(rows.tempered_log_total)).exp_()
        if sigmoid is None:
            extra = q.mul_(column(tempered))
        else:
            centred_y = rows.label_logit - rows.largest
            weights = torch.sub(z, column(centred_y)).mul_(GEM_SIGMOID_SLOPE).sigmoid_().mul_(column(sigmoid))
            extra = q.mul_(weights if tempered is None else weights.add_(column(tempered)))
    a = row_factor(rows, grads)
    if entropy is None and kl is None:
        d = torch.exp(z, out=work).mul_(column(a * (-rows.log_total).exp()))
    else:
        logp = z.sub_(column(rows.log_total))
        p = torch.exp(logp, out=work)
        slope = (0 if kl is None else kl) - (0 if entropy is None else entropy)
        inner = logp.mul_(column(slope)).add_(column(a))
        if kl is not None:
            logr = z_ref.sub_(column(rows.ref_largest)).sub_(column(rows.ref_log_total))
            inner.addcmul_(logr, column(kl), value=-1)
        d = p.mul_(inner)
    if "kl_ref_policy" in grads:
        if kl is None:
            z_ref.sub_(column(rows.ref_largest)).sub_(column(rows.ref_log_total))
        d.addcmul_(z_ref.exp_(), column(grads["kl_ref_policy"]), value=-1)
    if extra is not None:
        d.add_(extra)
    if "mean_logprob" in grads:
        d.addr_(grads["mean_logprob"], shares)
    if "logprob" in grads:
        index = labelled(labels, offset, z.shape[1])
        d[index] += grads["logprob"][index[0]]
    return d


def d_product_tile(policy: Projection, z, z_ref, work, labels, rows, grads, offset, shares, temperature) -> Tensor:
    """`d_logits_tile` times the derivative of z with respect to hidden states times weight, [T, N]."""
    jacobian = None if policy.softcap is None else 1 - (z / policy.softcap).square_()
    d = d_logits_tile(z, z_ref, work, labels, rows, grads, offset, shares, temperature)
    if jacobian is not None:
        d.mul_(jacobian)
    return d.mul_(policy.logit_scale) if policy.logit_scale != 1.0 else d


def labelled(labels: Tensor, offset: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows, and columns of a tile, of the labels that are in it."""
    rows = ((labels >= offset) & (labels < offset + width)).nonzero()[:, 0]
    return rows, labels[rows] - offset


def row_factor(rows: Rows, grads: dict[str, Tensor]) -> Tensor:
    """The part of d / dz that multiplies p alone: `a` of `d_logits_tile`, [T]."""
    a = torch.zeros_like(rows.largest)
    for name in ("logprob", "mean_logprob", "tempered_logprob"):
        if name in grads:
            a = a - grads[name]
    if "sigmoid_tempered_logprob" in grads:
        a = a - grads["sigmoid_tempered_logprob"] * rows.sigmoid_mass
    if "kl_ref_policy" in grads:
        a = a + grads["kl_ref_policy"]
    if "entropy" in grads:
        a = a - grads["entropy"] * rows.entropy
    if "kl_policy_ref" in grads:
        a = a - grads["kl_policy_ref"] * rows.kl_policy_ref
    return a


def needs_reference(grads: dict[str, Tensor]) -> bool:
    return "kl_policy_ref" in grads or "kl_ref_policy" in grads


def low_precision_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of bf16 or fp16 matrices, kept in fp32 where the device can: a CPU rounds the product of each tile."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a @ b


def backward(
    policy: Projection,
    labels: Tensor,
    rows: Rows,
    grads: dict[str, Tensor],
    temperature: float | None,
    reference: Projection | None,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden_states, weight and bias (None where `needs` says so) from upstream `grads`."""
    hidden, weight = policy.hidden_states, policy.weight
    T, V = len(hidden), len(weight)
    dtype, device = statistics_dtype(hidden), hidden.device
    tile = min(V, MAX_TILE, max(MIN_TILE, budget(TILE_ELEMENTS, device, T)))
    d_hidden = torch.zeros(hidden.shape, dtype=dtype, device=device) if needs[0] else None
    d_weight = torch.empty_like(weight) if needs[1] else None
    d_bias = torch.empty_like(policy.bias) if needs[2] else None
    shares = token_shares(policy)
    wants_ref = needs_reference(grads)
    scratch = [torch.empty(T * tile, dtype=dtype, device=device) for _ in range(2)]
    product_scratch = scratch[0] if hidden.dtype == dtype else torch.empty(T * tile, dtype=hidden.dtype, device=device)
    for offset in range(0, V, tile):
        columns = slice(offset, min(offset + tile, V))
        shape = (T, columns.stop - columns.start)
        product, z, work = (buffer[: shape[0] * shape[1]].view(shape) for buffer in (product_scratch, *scratch))
        weight_T = multiplied_T(policy, columns)
        torch.mm(hidden, weight_T, out=product)
        if hidden.dtype != dtype:
            z.copy_(product)
        z = transform_(z, policy, columns)
        z_ref = None
        if wants_ref:
            ref_product = reference.hidden_states @ multiplied_T(reference, columns)
            z_ref = transform_(ref_product.to(dtype), reference, columns)
        d = d_product_tile(policy, z, z_ref, work, labels, rows, grads, offset, shares[columns], temperature)
        if d_bias is not None:
            d_bias[columns] = d.sum(0)
        rounded = d if hidden.dtype == dtype else product.copy_(d)
        if d_weight is not None and weight.dtype == hidden.dtype:
            torch.mm(rounded.T, hidden, out=d_weight[columns])
        elif d_weight is not None and hidden.is_cuda:
            d_weight[columns] = low_precision_product(rounded.T, hidden)
        elif d_weight is not None:
            torch.mm(d.T, hidden.to(dtype), out=d_weight[columns])
        if d_hidden is not None and hidden.dtype == dtype:
            d_hidden.addmm_(d, weight_T.T)
        elif d_hidden is not None:
            if "logprob" in grads:  # the label's part is the largest then: in fp32, on its own, it is not rounded
                index = labelled(labels, offset, shape[1])
                d_hidden[index[0]] += d[index][:, None] * weight_T[:, index[1]].T
                rounded[index] = 0
            d_hidden.add_(low_precision_product(rounded, weight_T.T))
    return None if d_hidden is None else d_hidden.to(hidden.dtype), d_weight, d_bias


def backward_of_module(
    policy: Projection,
    labels: Tensor,
    rows: Rows,
    grads: dict[str, Tensor],
    temperature: float | None,
    reference: Projection | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of hidden_states, no weight, bias and the module's parameters; None where `needs` says so or unused.

    Of low-precision parameters the gradients of all chunks are added up in fp32.

    Raises:
        RuntimeError: the module gives other logits than in the forward.
    """
    hidden, head = policy.hidden_states, policy.weight
    T, V = len(hidden), vocab_size(policy)
    dtype, device = statistics_dtype(hidden), hidden.device
    chunk = min(max(T, 1), budget(MODULE_ELEMENTS, device, V))
    shares = token_shares(policy)
    ref_product = products(reference, chunk) if needs_reference(grads) else None
    work = torch.empty(chunk, V, dtype=dtype, device=device)
    d_hidden = torch.zeros_like(hidden) if needs[0] else None
    d_bias = torch.zeros_like(policy.bias) if needs[2] else None
    d_parameters = [None if T else torch.zeros_like(parameter) for parameter in head.parameters]
    changed = torch.zeros((), dtype=torch.bool, device=device)
    with head.random_numbers():
        for start in range(0, T, chunk):
            where = slice(start, min(start + chunk, T))
            logits, inputs = head(hidden[where], (needs[0], *needs[3:]))
            z = transform_(logits.detach().to(dtype, copy=True), policy)
            z_ref = None if ref_product is None else transform_(ref_product(where).to(dtype), reference)
            saved = Rows(*(None if values is None else values[where] for values in rows))
            tolerance = torch.finfo(logits.dtype).eps ** 0.5
            label_logit = z.gather(-1, labels[where, None])[:, 0]
            same = torch.isclose(label_logit, saved.label_logit, rtol=tolerance, atol=tolerance, equal_nan=True)
            changed |= ~same.all()
            given = {name: grad[where] for name, grad in grads.items()}
            d = d_product_tile(policy, z, z_ref, work[: len(z)], labels[where], saved, given, 0, shares, temperature)
            if d_bias is not None:
                d_bias.add_(d.sum(0))
            d_rows, *d_chunk = gradients(logits, inputs, d.to(logits.dtype))
            if d_rows is not None:
                d_hidden[where] = d_rows
            for index, part in enumerate(d_chunk):
                total = d_parameters[index]
                if total is not None and part is not None:
                    total.add_(part)
                elif part is not None:
                    d_parameters[index] = part.to(statistics_dtype(part), copy=True)
    if changed:
        raise RuntimeError(
            "The head gave other logits in the backward pass than in the forward pass. Leave its weights, its adapters and "
            "its mode (train or eval) alone in between."
        )
    d_parameters = [
        total if total is None else total.to(parameter.dtype)
        for total, parameter in zip(d_parameters, head.parameters, strict=True)
    ]
    return d_hidden, None, d_bias, *d_parameters
