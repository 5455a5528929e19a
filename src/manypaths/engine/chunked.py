"""Statistics and their gradients in plain PyTorch, on any device, in bounded memory.

Forward: token chunks, full vocabulary rows, one sweep for all statistics. Backward: vocabulary tiles
recomputed from a few saved scalars per row, so that d_weight is written once per tile and nothing of
size [T, V] or fp32 [V, D] ever exists. Both work in place on reused scratch: fresh pages cost more
than arithmetic here.

Shapes: T tokens, D hidden size, V vocabulary, K top-k; R rows of a block, C rows of a chunk, N columns
of a vocabulary tile.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .statistics import GEM_SIGMOID_SLOPE, Projection, token_shares

# Elements, not bytes: the product matrix of a forward chunk, the fp32 scratch of a row block, the
# scratch of a backward tile. On a CPU the sizes at which bf16 and fp32 ran fastest (benchmarks/); those of other
# devices keep the same kinds of buffers to half a gigabyte and have not been tuned.
CHUNK_ELEMENTS = {"cpu": 40_000_000, "cuda": 128_000_000}
BLOCK_ELEMENTS = {"cpu": 5_000_000, "cuda": 32_000_000}
TILE_ELEMENTS = {"cpu": 4_200_000, "cuda": 32_000_000}
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
    T, V = len(hidden), len(policy.weight)
    dtype, device = statistics_dtype(hidden), hidden.device
    chunk = min(max(T, 1), budget(CHUNK_ELEMENTS, device, V))
    block = min(chunk, budget(BLOCK_ELEMENTS, device, V))
    in_place = hidden.dtype == dtype
    ref_in_place = reference is not None and reference.hidden_states.dtype == dtype

    def scratch() -> Tensor:
        return torch.empty(block, V, dtype=dtype, device=device)

    work, other = scratch(), scratch()
    policy_scratch = None if in_place else scratch()
    ref_scratch = None if reference is None or ref_in_place else scratch()
    product = torch.empty(chunk, V, dtype=hidden.dtype, device=device)  # the only matrix that wide, and its twin
    ref_product = None if reference is None else torch.empty_like(product, dtype=reference.hidden_states.dtype)
    shares = token_shares(policy)
    weight_T, ref_weight_T = multiplied_T(policy), None if reference is None else multiplied_T(reference)
    out: dict[str, Tensor] = {}
    for start in range(0, max(T, 1), chunk):  # T = 0 runs one empty chunk and gives empty statistics
        tokens = hidden[start : start + chunk]
        torch.mm(tokens, weight_T, out=product[: len(tokens)])
        if reference is not None:
            torch.mm(reference.hidden_states[start : start + chunk], ref_weight_T, out=ref_product[: len(tokens)])
        for row in range(0, max(len(tokens), 1), block):
            rows = slice(row, min(row + block, len(tokens)))
            z = block_logits(product[rows], policy, policy_scratch)
            z_ref = None if reference is None else block_logits(ref_product[rows], reference, ref_scratch)
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
    wants_ref = reference is not None and ("kl_policy_ref" in grads or "kl_ref_policy" in grads)
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
        jacobian = None if policy.softcap is None else 1 - (z / policy.softcap).square_()
        z_ref = None
        if wants_ref:
            ref_product = reference.hidden_states @ multiplied_T(reference, columns)
            z_ref = transform_(ref_product.to(dtype), reference, columns)
        d = d_logits_tile(z, z_ref, work, labels, rows, grads, offset, shares[columns], temperature)
        if jacobian is not None:
            d.mul_(jacobian)
        if policy.logit_scale != 1.0:
            d.mul_(policy.logit_scale)
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
