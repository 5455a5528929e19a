"""Tiny models and data, made on the spot: no test needs a download."""

import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads cost tiny models more than they give
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp()  # before datasets: the user's cache is not for test files

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = "one two three four five six seven eight nine ten plus minus times is equals answer the of and so"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {% generation %}{{ m['content'] }}<eos>{% endgeneration %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<pad>", "<eos>", "<unk>", "<|user|>", "<|assistant|>"]
    core.train_from_iterator([WORDS] * 4, trainers.BpeTrainer(vocab_size=320, special_tokens=special))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_llama(vocab_size: int, seed: int = 0, **overrides) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = dict(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(LlamaConfig(**{**settings, **overrides}))


@pytest.fixture
def model(tokenizer) -> LlamaForCausalLM:
    return tiny_llama(len(tokenizer))


@pytest.fixture(scope="session")
def chats() -> Dataset:
    """24 short prompt-completion pairs of uneven length."""
    words = WORDS.split()
    rows = []
    for i in range(24):
        prompt = " ".join(words[(i + j) % len(words)] for j in range(3 + i % 4))
        completion = " ".join(words[(2 * i + j) % len(words)] for j in range(2 + i % 5))
        rows.append({"prompt": prompt + " is", "completion": " " + completion})
    return Dataset.from_list(rows)
