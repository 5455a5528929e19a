"""Drawing answers from a model, together with the distributions they were drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from .tokenizer import EOS_ID, PAD_ID, decode_answer, encode

BATCH_ROWS = 1600


@dataclass(frozen=True)
class Samples:
    """P prompts, n samples each, up to M tokens, V words.

    tokens: [P, n, M] ids, padded after `<eos>`. logits: [P, n, M, V] raw, before any temperature.
    generated: [P, n, M] true up to and including `<eos>`.
    """

    tokens: torch.Tensor
    logits: torch.Tensor
    generated: torch.Tensor

    def answers(self) -> list[list[str | None]]:
        """The texts before `<eos>`, [P][n]; None where a sample never stopped."""
        return [[decode_answer(ids) for ids in rows] for rows in self.tokens.tolist()]


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[str],
    *,
    num_samples: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int = 8,
    seed: int = 0,
) -> Samples:
    """Draw `num_samples` continuations of each prompt, all equally long; temperature 0 is greedy.

    The caller's random state is left as it was. Raises ValueError for prompts of different lengths.
    """
    rows = torch.tensor(_equally_long(prompts), device=model.device).repeat_interleave(num_samples, dim=0)
    drawing = dict(do_sample=False)
    if temperature > 0:
        drawing = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0)
    tokens = rows.new_full((len(rows), max_new_tokens), PAD_ID)
    logits = torch.zeros(len(rows), max_new_tokens, model.config.vocab_size, device=model.device)
    was_training = model.training
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            output = model.generate(
                batch,
                attention_mask=torch.ones_like(batch),
                max_new_tokens=max_new_tokens,
                use_cache=True,
                pad_token_id=PAD_ID,
                eos_token_id=EOS_ID,
                output_logits=True,
                return_dict_in_generate=True,
                **drawing,
            )
            length, end = len(output.logits), start + len(batch)
            tokens[start:end, :length] = output.sequences[:, batch.shape[1] :]
            logits[start:end, :length] = torch.stack(output.logits, dim=1).float()
    model.train(was_training)
    stops = (tokens == EOS_ID).long()
    generated = stops.cumsum(dim=1) - stops == 0
    shape = len(prompts), num_samples, max_new_tokens
    return Samples(tokens.view(shape), logits.view(*shape, -1), generated.view(shape))


def _equally_long(prompts: Sequence[str]) -> list[list[int]]:
    rows = [encode(prompt) for prompt in prompts]
    if len({len(row) for row in rows}) != 1:
        raise ValueError("Prompts differ in their number of words; sample prompts of one length at a time.")
    return rows
