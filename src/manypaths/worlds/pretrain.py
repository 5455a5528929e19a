"""Rebuild a world's base model from nothing: `python -m manypaths.worlds.pretrain --world recall`.

About two and a half minutes on one CPU core. Half of the text is Countdown, of whose answers NOISE are random
expressions: the base becomes diverse but inaccurate, which is what leaves something for fine-tuning and
reinforcement learning to do.
"""

import argparse
from random import Random

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import LlamaForCausalLM

from . import countdown
from .model import build_model, save_base
from .side_tasks import SIDE_TASKS
from .tokenizer import PAD_ID, as_completion, as_prompt, encode
from .world import PRETRAINED, WORLDS, World

NOISE = 0.4
BATCH_SIZE = 128
LEARNING_RATE = 4e-3
BETAS = (0.9, 0.98)
WARMUP_STEPS = 50
IGNORED = -100  # the label of tokens without loss: questions are random, so only answers are worth learning


def draw_countdown(rng: Random) -> tuple[str, str]:
    """(question, answer) of a pre-training problem: any solution, or (NOISE of them) a random expression."""
    problem = countdown.shuffled(rng, rng.choice(countdown.splits()["pretrain"]))
    if rng.random() < NOISE:
        return PRETRAINED.question(problem), countdown.random_expression(rng, problem[0])
    return PRETRAINED.question(problem), rng.choice(countdown.solutions(problem))


def draw_batch(rng: Random, world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels [BATCH_SIZE, longest] of the mixture: padded on the right, answers labelled."""
    kinds = rng.choices(list(world.mixture), weights=list(world.mixture.values()), k=BATCH_SIZE)
    rows, labels = [], []
    for kind in kinds:
        question, answer = draw_countdown(rng) if kind == "countdown" else SIDE_TASKS[kind].draw(rng)
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
