"""Rebuild a world's base model from nothing: `python -m manypaths.worlds.pretrain --world recall`.

A tiny Llama (about 164 thousand weights), about two and a half minutes on one CPU core. Half of the text is Countdown,
of whose answers NOISE are random expressions: the base becomes diverse but inaccurate, which is what leaves something
for fine-tuning and reinforcement learning to do.
"""

import argparse
from random import Random

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from .tokenizer import BOS_ID, EOS_ID, PAD_ID, VOCABULARY, as_completion, as_prompt, build_tokenizer, encode
from .world import WORLDS, World, draw_text

BATCH_SIZE = 128
LEARNING_RATE = 4e-3
BETAS = (0.9, 0.98)
WARMUP_STEPS = 50
IGNORED = -100  # the label of tokens without loss: questions are random, so only answers are worth learning


def build_model() -> LlamaForCausalLM:
    """A randomly initialised model (float32, tied embeddings); seed torch before calling it."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return LlamaForCausalLM(config)


def draw_batch(rng: Random, world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels [BATCH_SIZE, longest] of the mixture: padded on the right, answers labelled."""
    rows, labels = [], []
    for kind in rng.choices(list(world.mixture), weights=list(world.mixture.values()), k=BATCH_SIZE):
        question, answer = draw_text(kind, rng)
        prompt, completion = encode(as_prompt(question)), encode(as_completion(answer))
        rows.append(torch.tensor(prompt + completion))
        labels.append(torch.tensor([IGNORED] * len(prompt) + completion))
    return (
        pad_sequence(rows, batch_first=True, padding_value=PAD_ID),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )


def pretrain(world: World, seed: int = 0, steps: int | None = None) -> LlamaForCausalLM:
    """Train a base for `world` with AdamW and a linearly decaying learning rate."""
    steps = steps or world.steps
    torch.manual_seed(seed)
    rng, model = Random(seed), build_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, (steps - step) / steps)
    )
    for _ in (progress := tqdm(range(steps), desc=f"pre-training {world.name}", unit="step")):
        ids, labels = draw_batch(rng, world)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def main() -> None:
    """Command line: train one world's base and write it, with its tokenizer, into the package."""
    parser = argparse.ArgumentParser(description="Train the base model of a built-in world.")
    parser.add_argument("--world", choices=list(WORLDS), required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = WORLDS[arguments.world]
    pretrain(world, arguments.seed).save_pretrained(world.base)
    build_tokenizer().save_pretrained(world.base)
    print(f"wrote {world.base}")


if __name__ == "__main__":
    main()
