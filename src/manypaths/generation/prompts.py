"""Prompts as token ids: text, or conversations through the chat template."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jinja2 import TemplateError

Prompt = str | list[dict[str, Any]]


def encode_prompts(
    tokenizer: Any, prompts: Sequence[Prompt], chat_template_kwargs: dict[str, Any] | None = None
) -> list[list[int]]:
    """Token ids of every prompt; conversations get the tokenizer's chat template with the answer opened.

    Raises ValueError for an empty prompt, and for a conversation that the template refuses.
    """
    with template_errors_told():
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


@contextmanager
def template_errors_told() -> Iterator[None]:
    """A template's own errors, among them what it raises for roles that it does not take, as ValueError."""
    try:
        yield
    except TemplateError as error:
        raise ValueError(
            f"The chat template cannot render a conversation: {str(error).rstrip('.')}. Change the messages to what it takes, "
            "or give another template with --chat_template_path."
        ) from error


def is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)
