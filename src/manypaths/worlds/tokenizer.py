"""The words of the built-in worlds, the word-level tokenizer, and the exact text of prompts and completions.

Prompts carry their own `<bos>` and completions their own `<eos>`, separated by single spaces: nothing is
added behind the user's back, and `prompt + completion` tokenizes to the two parts joined.
"""

from typing import TYPE_CHECKING

from .countdown import INFIX, LETTERS, TARGETS
from .side_tasks import ALPHABET

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
MARKERS = "CERSMTI"
VOCABULARY = (PAD, BOS, EOS, *MARKERS, *INFIX, *LETTERS, "(", ")", "=", *ALPHABET, *map(str, TARGETS))
TOKEN_IDS = {word: index for index, word in enumerate(VOCABULARY)}
PAD_ID, BOS_ID, EOS_ID = (TOKEN_IDS[word] for word in (PAD, BOS, EOS))


def as_prompt(question: str) -> str:
    """The text a model is asked with: `<bos> C 3 4 5 = 35 =`."""
    return f"{BOS} {question}"


def as_completion(answer: str) -> str:
    """The text a model should answer with: ` ( 3 + 4 ) * 5 <eos>`."""
    return f" {answer} {EOS}"


def encode(text: str) -> list[int]:
    """Token ids of words separated by spaces."""
    return [TOKEN_IDS[word] for word in text.split()]


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """The tokenizer, built from the vocabulary above; unknown words raise."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel(TOKEN_IDS))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )
