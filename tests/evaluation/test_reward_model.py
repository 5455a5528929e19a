import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from conftest import WORDS, tiny_llama
from manypaths.evaluation import reward_model as subject
from manypaths.evaluation.reward_model import encode, scorer

PROMPTS = ["one plus one is", "seven", "two times three equals", "nine minus"]
TEXTS = ["two", "the answer of one and so seven", "six", " ".join(WORDS.split()[:15])]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(subject, "default_device", lambda: torch.device("cpu"))


def save(folder, model, tokenizer, template=True):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not template:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    return str(folder)


def llama_scorer(tokenizer, **overrides) -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    settings = dict(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, num_labels=1, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return LlamaForSequenceClassification(LlamaConfig(**{**settings, **overrides})).float()


def alone(model, tokenizer, prompt, text) -> float:
    """The truth: one row, no padding."""
    row = encode(tokenizer, prompt, text)
    with torch.no_grad():
        return float(model.eval()(**{key: torch.tensor([value]) for key, value in row.items()}).logits)


def test_scores_in_a_batch_equal_scores_one_by_one(tokenizer, tmp_path, monkeypatch):
    model = llama_scorer(tokenizer)
    name = save(tmp_path, model, tokenizer)
    expected = [alone(model, tokenizer, *pair) for pair in zip(PROMPTS, TEXTS, strict=True)]
    assert len({round(score, 4) for score in expected}) == 4
    for batch_size in (1, 3, 16):
        monkeypatch.setattr(subject, "BATCH_SIZE", batch_size)
        assert scorer(name)(PROMPTS, TEXTS) == pytest.approx(expected, abs=1e-6)


def test_a_pad_token_that_ends_answers_changes_nothing(tokenizer, tmp_path):
    """Rows end with <eos> by the template; as pad token it must neither be scored nor be taken off twice."""
    model = llama_scorer(tokenizer, pad_token_id=1)
    expected = [alone(model, tokenizer, *pair) for pair in zip(PROMPTS, TEXTS, strict=True)]
    found = scorer(save(tmp_path, model, tokenizer))(PROMPTS, TEXTS)
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_model_without_pad_token_is_scored_row_by_row(tokenizer, tmp_path):
    model = llama_scorer(tokenizer, pad_token_id=None)
    expected = [alone(model, tokenizer, *pair) for pair in zip(PROMPTS, TEXTS, strict=True)]
    assert scorer(save(tmp_path, model, tokenizer))(PROMPTS, TEXTS) == pytest.approx(expected, abs=1e-6)


def test_the_chat_template_is_used_when_there_is_one(tokenizer):
    row = encode(tokenizer, "one plus one is", "two")
    assert (
        tokenizer.decode(row["input_ids"]).replace(" ", "").replace("Ġ", "")
        == "<|user|>oneplusoneis<eos><|assistant|>two<eos>"
    )
    conversation = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
                    {"role": "user", "content": "three"}]  # fmt: skip
    assert tokenizer.decode(encode(tokenizer, conversation, "four")["input_ids"]).count("<eos>") == 4


def test_without_template_prompt_and_answer_are_a_pair(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert tokenizer.decode(encode(tokenizer, "one plus", " two")["input_ids"]) == tokenizer.decode(
        tokenizer("one plus two")["input_ids"]
    )
    model = llama_scorer(tokenizer)
    name = save(tmp_path, model, tokenizer, template=False)
    expected = [alone(model, tokenizer, *pair) for pair in zip(PROMPTS, TEXTS, strict=True)]
    assert scorer(name)(PROMPTS, TEXTS) == pytest.approx(expected, abs=1e-6)
    asked = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    assert scorer(name)(asked, TEXTS) == pytest.approx(expected, abs=1e-6)
    told = [{"role": "system", "content": "one plus"}, {"role": "user", "content": "seven"}]
    assert encode(tokenizer, told, "two") == encode(tokenizer, "one plus\n\nseven", "two")
    for prompt in ([*told, {"role": "assistant", "content": "six"}, told[1]], [{"role": "user", "content": ["one"]}]):
        with pytest.raises(ValueError, match="no chat template"):
            scorer(name)([prompt], ["two"])


def test_an_encoder_scores_pairs(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=64,
            num_labels=1,
            pad_token_id=0,
        )
    ).float()
    expected = [alone(model, tokenizer, *pair) for pair in zip(PROMPTS, TEXTS, strict=True)]
    found = scorer(save(tmp_path, model, tokenizer, template=False))(PROMPTS, TEXTS)
    assert found == pytest.approx(expected, abs=1e-5)


def test_models_that_are_no_reward_models_are_refused(tokenizer, tmp_path):
    language_model = tiny_llama(len(tokenizer))
    with pytest.raises(ValueError, match=r"2 outputs.*num_labels 1"):
        scorer(save(tmp_path / "lm", language_model, tokenizer))
    language_model.config.num_labels = 1
    untrained = scorer(save(tmp_path / "headless", language_model, tokenizer))
    with pytest.raises(ValueError, match=r"not a trained reward model.*score\.weight"):
        untrained(PROMPTS, TEXTS)
    with pytest.raises(ValueError, match="Cannot load the reward model"):
        scorer(str(tmp_path / "nowhere"))


def test_weights_are_read_at_the_first_scores_only(tokenizer, tmp_path):
    name = save(tmp_path, llama_scorer(tokenizer), tokenizer)
    score = scorer(name)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="Cannot load the reward model"):
        score(PROMPTS, TEXTS)


def test_an_answer_longer_than_the_model_reads_is_an_error(tokenizer, tmp_path):
    name = save(tmp_path, llama_scorer(tokenizer, max_position_embeddings=16), tokenizer)
    with pytest.raises(ValueError, match=r"Answer 2 has .* reads 1 to 16"):
        scorer(name)(["one", "one"], ["two", WORDS])


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes a module `own_reward_N` whose function `score` is the given expression."""
    monkeypatch.chdir(tmp_path)

    def make(body: str) -> str:
        name = f"own_reward_{abs(hash(body))}"
        (tmp_path / f"{name}.py").write_text(f"def score(prompts, texts):\n    return {body}\n")
        return f"{name}:score"

    return make


def test_a_function_of_the_user(own):
    assert scorer(own("[len(p) + len(t) for p, t in zip(prompts, texts)]"))(["ab", "c"], ["d", "ef"]) == [3.0, 3.0]
    with pytest.raises(ValueError, match="Cannot import 'missing_module'"):
        scorer("missing_module:score")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[1.0]", "1 scores for 2 answers"),
        ("[1.0, float('nan')]", "answer 2 with nan"),
        ("[float('inf'), 1.0]", "answer 1 with inf"),
        ("None", "must return a list of numbers"),
        ("['a', 'b']", "must return a list of numbers"),
    ],
)
def test_results_that_are_no_scores_are_errors(own, body, message):
    with pytest.raises(ValueError, match=message):
        scorer(own(body))(["p", "q"], ["s", "t"])
