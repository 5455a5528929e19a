"""Rebuild a world's base model from nothing: `python -m manypaths.playground.pretrain --world recall`.

About four minutes on one CPU core. Half of the text is Countdown, of whose answers NOISE are random expressions: the
base becomes diverse but inaccurate, which is what leaves something for fine-tuning and reinforcement learning to do.
"""

from __future__ import annotations

import argparse
from random import Random

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM

from manypaths.playground import countdown
from manypaths.playground.model import build_model, save_base
from manypaths.playground.side_tasks import SIDE_TASKS
from manypaths.playground.tokenizer import PAD_ID, as_completion, as_prompt, encode
from manypaths.playground.world import PRETRAINED, WORLDS, World

NOISE = 0.4
BATCH_SIZE = 128
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.01
WARMUP_STEPS = 50


def draw_countdown(rng: Random) -> tuple[str, str]:
    """(question, answer) of a pre-training problem: a uniformly random solution, or with NOISE a random expression."""
    problem = countdown.shuffled(rng, rng.choice(countdown.splits()["pretrain"]))
    if rng.random() < NOISE:
        return PRETRAINED.question(problem), countdown.random_expression(rng, problem[0])
    return PRETRAINED.question(problem), rng.choice(countdown.solutions(problem))


def draw_batch(rng: Random, world: World) -> torch.Tensor:
    """Token ids [BATCH_SIZE, longest] of the world's mixture, padded on the right."""
    kinds = rng.choices(list(world.mixture), weights=list(world.mixture.values()), k=BATCH_SIZE)
    rows = []
    for kind in kinds:
        question, answer = draw_countdown(rng) if kind == "countdown" else SIDE_TASKS[kind].draw(rng)
        rows.append(encode(as_prompt(question) + as_completion(answer)))
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD_ID] * (longest - len(row)) for row in rows])


def pretrain(world: World, seed: int = 0, steps: int | None = None) -> LlamaForCausalLM:
    """Train a base for `world` with AdamW and a linearly decaying learning rate; next-token loss on all tokens."""
    steps = steps or world.steps
    torch.manual_seed(seed)
    rng, model = Random(seed), build_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, (steps - step) / steps)
    )
    for _ in (progress := tqdm(range(steps), desc=f"pre-training {world.name}", unit="step")):
        ids = draw_batch(rng, world)
        loss = model(input_ids=ids, labels=ids.masked_fill(ids == PAD_ID, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def main() -> None:
    """Command line: train one world's base and write it into the package."""
    parser = argparse.ArgumentParser(description="Train the base model of a built-in world.")
    parser.add_argument("--world", choices=list(WORLDS), required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = save_base(pretrain(WORLDS[arguments.world], arguments.seed), arguments.world)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
