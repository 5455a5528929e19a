"""Prompts as token ids: text, conversations through the chat template, or ids as they are."""

from collections.abc import Sequence
from typing import Any

Prompt = str | list[dict[str, Any]] | list[int]


def encode_prompts(
    tokenizer: Any, prompts: Sequence[Prompt], chat_template_kwargs: dict[str, Any] | None = None
) -> list[list[int]]:
    """Token ids of every prompt; conversations get the tokenizer's chat template with the answer opened.

    Raises ValueError for no prompts, an empty prompt, or conversations without a chat template.
    """
    if not prompts:
        raise ValueError("There is no prompt to sample from.")
    ids = [encode_prompt(tokenizer, prompt, chat_template_kwargs or {}) for prompt in prompts]
    for number, row in enumerate(ids, start=1):
        if not row:
            raise ValueError(f"Prompt {number} is empty after tokenisation; give it at least one token.")
    return ids


def encode_prompt(tokenizer: Any, prompt: Prompt, chat_template_kwargs: dict[str, Any]) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    if not is_conversation(prompt):
        return list(prompt)
    if tokenizer.chat_template is None:
        raise ValueError(
            "The prompts are conversations but the tokenizer has no chat template; train with "
            "--chat_template_path, or use plain text prompts."
        )
    encoded = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **chat_template_kwargs
    )
    return encoded["input_ids"]


def is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)
