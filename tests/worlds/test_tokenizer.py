import pytest

from manypaths.worlds.tokenizer import (
    EOS_ID,
    PAD_ID,
    TOKEN_IDS,
    VOCABULARY,
    as_completion,
    as_prompt,
    build_tokenizer,
    encode,
)

TEXT = as_prompt("C 3 4 5 = 35 =") + as_completion("( 3 + 4 ) * 5")


def test_round_trip_without_added_tokens():
    tokenizer = build_tokenizer()
    ids = tokenizer(TEXT)["input_ids"]
    assert ids == encode(TEXT)
    assert len(ids) == 16 and ids.count(EOS_ID) == 1
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer(" ".join(VOCABULARY))["input_ids"] == list(range(len(VOCABULARY)))


def test_words_are_unique_and_batches_pad_left():
    assert len(TOKEN_IDS) == len(VOCABULARY)
    assert build_tokenizer()(["C", "C 1"], padding=True)["input_ids"][0] == [PAD_ID, TOKEN_IDS["C"]]


def test_unknown_words_raise():
    with pytest.raises(Exception, match="UNK"):
        build_tokenizer()("C 41")
    with pytest.raises(KeyError):
        encode("C 41")
