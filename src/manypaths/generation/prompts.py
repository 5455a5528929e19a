"""Prompts as token ids: text, or conversations through the chat template."""

from collections.abc import Sequence
from typing import Any

Prompt = str | list[dict[str, Any]]


def encode_prompts(
    tokenizer: Any, prompts: Sequence[Prompt], chat_template_kwargs: dict[str, Any] | None = None
) -> list[list[int]]:
    """Token ids of every prompt; conversations get the tokenizer's chat template with the answer opened.

    Raises ValueError for an empty prompt.
    """
    ids = [
        tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **(chat_template_kwargs or {})
        )["input_ids"]
        if is_conversation(prompt)
        else tokenizer(prompt)["input_ids"]
        for prompt in prompts
    ]
    for number, row in enumerate(ids, start=1):
        if not row:
            raise ValueError(f"Prompt {number} is empty after tokenisation; give it at least one token.")
    return ids


def is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)
