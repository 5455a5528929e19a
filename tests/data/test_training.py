"""What reaches the trainer: the tokens that TRL makes of the same file, images, streams and held-out rows."""

import dataclasses
import json
from pathlib import Path

import pytest
import trl
from datasets import load_dataset
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from trl import DatasetMixtureConfig, ModelConfig
from trl.scripts.utils import DatasetConfig, ScriptArguments

import manypaths
from conftest import CHAT_TEMPLATE, tiny_llama
from manypaths.config import build_parser
from manypaths.data.config import TrainingDataConfig
from manypaths.training.config import SFT_OPTIONS, check_options
from manypaths.training.run import data_warnings, prepare_sft, sft

QUIET = dict(
    report_to="none", bf16=False, gradient_checkpointing=False, use_cpu=True, save_strategy="no", disable_tqdm=True,
    per_device_train_batch_size=2, max_steps=2, optim="sgd", logging_steps=1,
)  # fmt: skip
TOOL_TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m['role'] }}|> {% generation %}"
    "{% if m.content is defined %}{{ m['content'] }}{% endif %}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "<eos>{% endgeneration %}{% endfor %}"
)
TALK = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]


def call(**arguments):
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": arguments}}]}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def tokenizer():
    """One token for every byte, so that equal tokens are equal texts."""
    special = ["<pad>", "<eos>", "<|user|>", "<|assistant|>"]
    names = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture
def start(tmp_path, tokenizer):
    """The folder of a tiny model with its tokenizer."""
    folder = str(tmp_path / "start")
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(function, start, data, **config):
    settings = manypaths.SFTConfig(**{**QUIET, "output_dir": str(Path(start).parent / "out"), **config})
    options = TrainingDataConfig(**data), settings, ModelConfig(model_name_or_path=start)
    check_options(*options)
    return function(*options)


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "integer"}}}}]


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([{"messages": [*TALK, call(x=1)], "tools": TOOLS}, {"messages": [TALK[0], call(y="a")], "tools": TOOLS}], {}),
        ([{"messages": [*TALK, call(x=1)], "tools": json.dumps(TOOLS)}, {"messages": [*TALK, *TALK]}],
         {"assistant_only_loss": True}),
        ([{"prompt": TALK[:1], "completion": [call(x=1)]}, {"prompt": TALK[:1], "completion": [call(z=[2])]}], {}),
        ([{"messages": TALK, "chat_template_kwargs": {"a": 1}}, {"messages": TALK, "chat_template_kwargs": {}}], {}),
        ([{"conversations": [{"from": "user", "value": "one"}, {"from": "assistant", "value": "two"}]}] * 3, {}),
        ([{"text": "one two three"}, {"text": "four"}] * 3, {"packing": True, "max_length": 8}),
        ([{"text": "one two three"}, {"text": "four"}] * 3,
         {"packing": True, "packing_strategy": "wrapped", "max_length": 8}),
        ([{"prompt": "one", "completion": " two"}] * 3, {"padding_free": True, "max_length": None}),
        ([{"input_ids": [3, 4, 5], "labels": [-100, 4, 5]}, {"input_ids": [6, 7], "labels": [6, 7]}], {}),
    ],
)  # fmt: skip
def test_files_become_the_tokens_that_trl_makes_of_them(tmp_path, tokenizer, start, rows, options):
    path = write_rows(tmp_path / "rows.jsonl", rows)
    template = tmp_path / "template.jinja"
    template.write_text(TOOL_TEMPLATE)
    options = {**QUIET, **options, "chat_template_path": str(template)}
    stock = trl.SFTTrainer(
        start, trl.SFTConfig(str(tmp_path / "stock"), **options), train_dataset=load_dataset("json", data_files=path)["train"]
    )
    prepared = run(prepare_sft, start, {"dataset_name": path}, **options)
    ours = manypaths.SFTTrainer(
        start, manypaths.SFTConfig(str(tmp_path / "out"), **options), train_dataset=prepared.train
    )
    for name in ("input_ids", "labels"):
        assert ours.train_dataset[name][:] == stock.train_dataset[name][:]
    if "tools" in rows[0]:
        text = tokenizer.decode(ours.train_dataset[0]["input_ids"], skip_special_tokens=False)
        assert '"x": 1' in text and "null" not in text and "integer" in text
        assert not any("leaves" in warning for warning in data_warnings(prepared.train, ours.args, ours.processing_class))


def test_streamed_mixtures_train(tmp_path, start):
    paths = [write_rows(tmp_path / f"{name}.jsonl", [{"text": f"{name} one two"}] * 4) for name in ("three", "four")]
    trained = run(sft, start, {"datasets": paths, "dataset_streaming": True})
    assert trained.state.global_step == 2 and trained.state.log_history[-1]["train_loss"] > 1
    masked = write_rows(tmp_path / "masked.jsonl", [{"input_ids": [3, 4], "labels": [-100, -100]}] * 2)
    with pytest.raises(ValueError, match="no trained token"):
        run(sft, start, {"dataset_name": masked, "dataset_streaming": True}, output_dir=str(tmp_path / "x"))
    with pytest.raises(ValueError, match="say how long to train with --max_steps"):
        run(sft, start, {"dataset_name": paths[0], "dataset_streaming": True}, max_steps=-1, output_dir=str(tmp_path / "x"))


def test_held_out_rows_are_the_same_in_every_run(tmp_path, start):
    path = write_rows(tmp_path / "rows.jsonl", [{"text": f"one {number}"} for number in range(20)])
    data = {"dataset_name": path, "test_split_size": 0.25}
    first, second = (run(prepare_sft, start, data, eval_strategy="steps", seed=seed) for seed in (1, 2))
    assert first.evaluation["text"][:] == second.evaluation["text"][:] and len(first.evaluation) == 5
    assert sorted([*first.train["text"], *first.evaluation["text"]]) == sorted(f"one {number}" for number in range(20))
    counted = run(prepare_sft, start, {**data, "test_split_size": 3}, eval_strategy="no")
    assert counted.evaluation is None and len(counted.train) == 17
    with pytest.raises(ValueError, match="A mixture has no test split"):
        run(prepare_sft, start, {"datasets": [path]}, eval_strategy="steps")
    with pytest.raises(ValueError, match="A stream cannot be split"):
        run(prepare_sft, start, {**data, "dataset_streaming": True})


def test_what_is_trained_on_unasked_is_said(tmp_path, start, tokenizer, capsys):
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": TALK, "tools": TOOLS}] * 2)
    run(sft, start, {"dataset_name": path}, max_steps=1)
    printed = capsys.readouterr().out
    assert "every message carries loss, and 58% of their text is not the assistant's" in printed
    assert "the chat template leaves the column tools out of the text" in printed
    prepared = run(prepare_sft, start, {"dataset_name": path, "dataset_format": "last_answer"}, max_steps=1, seed=3,
                   output_dir=str(tmp_path / "other"))  # fmt: skip
    assert not any("loss" in line for line in data_warnings(prepared.train, manypaths.SFTConfig(**QUIET), tokenizer))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for colour in ("red", "green"):
        Image.new("RGB", (8, 8), colour).save(folder / f"{colour}.png")
        rows.append({"file_name": f"{colour}.png", "messages": TALK})
    write_rows(folder / "metadata.jsonl", rows)
    return str(folder)


def test_images_are_refused_by_a_model_that_reads_text(start, pictures):
    with pytest.raises(ValueError, match=r"The data has images and .* reads text only"):
        run(prepare_sft, start, {"dataset_name": pictures})


@pytest.mark.slow
def test_images_reach_a_model_that_sees(tmp_path, tokenizer, pictures):
    """A LLaVA of a few thousand weights, made on the spot."""
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="<eos>", extra_special_tokens=["<image>"]
    )
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|> {% for part in m['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}<eos>{% endfor %}"
    )
    side = {"height": 8, "width": 8}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size=side, crop_size=side), words, patch_size=4, vision_feature_select_strategy="default",
        chat_template=template, image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip
    small = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=8, patch_size=4, projection_dim=16),
        text_config=LlamaConfig(vocab_size=len(words), **small),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    folder = str(tmp_path / "llava")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    trained = run(sft, folder, {"dataset_name": pictures}, max_length=None)
    batch = next(iter(trained.get_train_dataloader()))
    red, green = sorted(batch["pixel_values"][:, 0].mean((1, 2)).tolist(), reverse=True)
    assert red > 1 > green and len(trained.state.log_history) == 3


def test_every_option_of_trls_script_has_a_row_in_the_docs():
    """A new field in TRL's dataclasses fails here until the table and the parser know it."""
    table = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    options = set(build_parser(SFT_OPTIONS, "sft")._option_string_actions)
    for kind in (ScriptArguments, DatasetMixtureConfig, trl.SFTConfig, ModelConfig):
        for field in dataclasses.fields(kind):
            assert f"--{field.name}" in options, f"{kind.__name__}.{field.name} is no option of sft"
    for kind in (ScriptArguments, DatasetMixtureConfig, DatasetConfig):
        for field in dataclasses.fields(kind):
            assert f"\n| `{field.name}` |" in table, f"docs/data.md has no row for {kind.__name__}.{field.name}"
