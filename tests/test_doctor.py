"""`manypaths doctor` passes what would train and names what would not, before anything is loaded."""

import json
import weakref
from pathlib import Path

import peft
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoTokenizer, LlamaConfig

from conftest import CHAT_TEMPLATE, tiny_llama
from manypaths import attach, doctor, resolve
from manypaths.cli.launch import LaunchConfig
from manypaths.cli.main import main
from manypaths.config import parse
from manypaths.doctor import cost, plan
from manypaths.training.config import SFT_OPTIONS

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
WORDS = ["one", "two", "three", "four", "five"]
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"{a} plus {b} is"},
            {"role": "assistant", "content": f" answer {a} and {b} of {a}"},
        ]
    }
    for a in WORDS
    for b in WORDS
]


@pytest.fixture
def place(tmp_path, monkeypatch, tokenizer):
    """A folder with a tiny model, and the data that the recipes read, by their columns."""
    monkeypatch.chdir(tmp_path)
    tiny_llama(len(tokenizer), max_position_embeddings=64).save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    write("chats.jsonl", ROWS)
    texts = [[message["content"] for message in row["messages"]] for row in ROWS]
    write("plain.jsonl", [{"prompt": a, "completion": b} for a, b in texts])
    write("questions.jsonl", [{"question": a, "response": b, "problem": a, "solution": b} for a, b in texts])
    write("problems.jsonl", [{"prompt": row["messages"][:1], "answer": "1"} for row in ROWS])
    return tmp_path


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def diagnosis(*argv, **options):
    """Of an SFT run on the tiny model for an H100."""
    given = {"model": "tiny", "data": "chats.jsonl", "output_dir": "out", "learning_rate": 1e-5, "gradient_checkpointing": False}
    given = {**given, "dataset_format": "last_answer", "num_train_epochs": 20, **options}
    argv = [*(f"--{name}={value}" for name, value in given.items() if value is not None), *argv]
    *parsed, processes = parse([*SFT_OPTIONS, LaunchConfig], argv, "doctor", use_cpu=True)
    return doctor.sft_report(*parsed, processes, "H100")


def verdicts(found, *kinds):
    return {check.name: f"{check.seen} {check.advice}" for check in found.checks if check.verdict in kinds}


def test_a_run_that_would_train(place):
    before = sorted(place.iterdir())
    found = diagnosis(objective="sed", calibration_fraction=0.1, per_device_train_batch_size=2, warmup_steps=3)
    assert not verdicts(found, "warn", "fail", "not run")
    assert sorted(place.iterdir()) == before
    shortest, *_ = found.examples
    (_, prompt_trained), (answer, answer_trained) = shortest.runs
    assert not prompt_trained and answer_trained and answer.endswith("<eos>")
    seen = verdicts(found, "ok")
    assert "25 of 25 rows end" in seen["end of the answer"] and "260 steps of 2 rows" in seen["steps"]
    weights = tiny_llama(88).num_parameters()
    assert found.parts["weights"] == 4 * weights and found.parts["optimizer states"] == 8 * weights


# Mistakes: name -> (what makes it, with the options of the run; the check that finds it; its verdict; what it says)


def chat(template):
    """The model's chat template becomes this one."""

    def plant():
        Path("tiny/chat_template.jinja").unlink()
        if template is not None:
            Path("tiny/chat_template.jinja").write_text(template)

    return plant


def labelled(change):
    """Rows of token ids, whose labels are changed."""

    def plant():
        rows = [{"input_ids": [5, 6, 7 + number, 9, 1], "labels": [-100, -100, 7 + number, 9, 1]} for number in range(40)]
        write("ids.jsonl", [{**row, "labels": change(number, row["labels"])} for number, row in enumerate(rows)])

    return plant


def more_tokens():
    tokenizer = AutoTokenizer.from_pretrained("tiny")
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained("tiny")


def starts_twice():
    tokenizer = AutoTokenizer.from_pretrained("tiny")
    tokenizer.bos_token, tokenizer.chat_template = "<|user|>", "<|user|>" + CHAT_TEMPLATE
    tokenizer.save_pretrained("tiny")


def other_vocabulary():
    tiny_llama(120).save_pretrained("other")


def stops_elsewhere():
    path = Path("tiny/generation_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": 4}))


def no_weights():
    Path("tiny/model.safetensors").unlink()


def long_rows():
    write("long.jsonl", [{"prompt": f"{a} is", "completion": f" {b} {a}" * (40 if a == b else 2)} for a in WORDS for b in WORDS])


def the_same_rows():
    write("chats.jsonl", ROWS[:5] * 5)


def nothing():
    """The options alone are the mistake."""


WITHOUT_EOS = CHAT_TEMPLATE.replace("<eos>", " ")
UNMARKED = WITHOUT_EOS.replace("{% generation %}", "").replace("{% endgeneration %}", "<eos>")
IDS = {"data": "ids.jsonl", "dataset_format": None}
MISTAKES = {
    "no end token in the template": (chat(WITHOUT_EOS), {}, "end of the answer", "fail", "not learn to stop"),
    "masked end token": (labelled(lambda _, labels: [*labels[:-1], -100]), IDS, "end of the answer", "fail", "0 of 40"),
    "rows that teach nothing": (
        labelled(lambda number, labels: labels if number % 4 else [-100] * 5), IDS, "rows without trained tokens", "warn",
        "10 of 40",
    ),
    "no chat template": (chat(None), {}, "tokenizer, template", "fail", "no chat template"),
    "no markers": (
        chat(UNMARKED), {"dataset_format": None, "assistant_only_loss": True}, "tokenizer, template", "fail", "does not mark",
    ),
    "every message is learned": (nothing, {"dataset_format": None}, "data", "warn", "every message carries loss"),
    "tokens without embedding": (more_tokens, {}, "tokenizer, template", "fail", "89 tokens"),
    "two start tokens": (starts_twice, {}, "beginning of a row", "warn", "twice in 25 rows"),
    "max_length before the answers": (nothing, {"max_length": 6}, "trainer", "fail", "fill --max_length"),
    "cut answers": (long_rows, {"data": "long.jsonl", "dataset_format": None, "max_length": 12}, "length", "fail", "20%"),
    "rows beyond the positions": (long_rows, {"data": "long.jsonl", "dataset_format": None}, "positions", "warn", "made for 64"),
    "reference of another vocabulary": (
        other_vocabulary, {"objective": "eksft", "reference": "other"}, "reference", "fail", "has 120 entries",
    ),
    "a threshold out of reach": (
        nothing, {"objective": "sed", "objective_kwargs": '{"threshold": 0.1, "top_k": 10}'}, "threshold", "fail", "no token",
    ),
    "a tracker that is not here": (nothing, {"report_to": "wandb"}, "options", "fail", "not installed"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_planted_mistakes(place, name, monkeypatch):
    monkeypatch.setattr(doctor, "installation", lambda: iter(()))
    monkeypatch.setattr(plan, "count", lambda *_: cost.Counted(0, 0, 0, cost.Operations(1, 0), cost.Operations(1, 0)))
    plant, options, check, verdict, said = MISTAKES[name]
    plant()
    found = diagnosis(**options)
    seen = [f"{one.verdict} {one.seen} {one.advice}" for one in found.checks if one.name == check]
    assert any(text.startswith(verdict) and said in text for text in seen), found.checks
    assert found.failed == (verdict == "fail")


def test_one_mistake_does_not_hide_the_next(place, monkeypatch):
    monkeypatch.setattr(doctor, "installation", lambda: iter(()))
    monkeypatch.setattr(plan, "count", lambda *_: cost.Counted(0, 0, 0, cost.Operations(1, 0), cost.Operations(1, 0)))
    no_weights(), the_same_rows(), stops_elsewhere()
    wrong = {"warmup_steps": 500, "learning_rate": 2e-4, "gradient_accumulation_steps": 9, "calibration_sequences": 4}
    found = diagnosis(objective="sed", **wrong)
    failed, warned = verdicts(found, "fail"), verdicts(found, "warn")
    assert failed.keys() == {"model", "warm-up"} and found.failed
    assert "no weights" in failed["model"] and "never be reached" in failed["warm-up"]
    said = {
        "duplicates": "20 of 25", "end token of generation": "does not stop", "steps": "more than all 25",
        "learning rate": "above", "calibration": "Too few tokens",
    }  # fmt: skip
    assert warned.keys() == said.keys() and all(text in warned[name] for name, text in said.items())


def test_a_disk_and_a_gpu_that_are_too_small(place, monkeypatch):
    monkeypatch.setattr(doctor, "installation", lambda: iter(()))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
    sizes = dict(hidden_size=16384, intermediate_size=65536, num_hidden_layers=2, num_attention_heads=128)
    LlamaConfig(vocab_size=88, max_position_embeddings=64, **sizes).save_pretrained("tiny")
    found = verdicts(diagnosis(), "fail")
    assert found.keys() == {"memory", "disk"}
    assert "of 80 GiB" in found["memory"] and "--save_total_limit" in found["disk"]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem == "grpo_math" else pytest.mark.slow, id=path.stem) for path in RECIPES],
)
def test_every_recipe_with_stand_ins(place, path, monkeypatch, capsys):
    monkeypatch.setattr("manypaths.training.config.check_version", lambda: None)  # stands for vLLM
    text = path.read_text()
    tiny_llama(88, max_position_embeddings=4096).save_pretrained("tiny")
    data = next(
        (name for mark, name in (("reward_funcs", "problems"), ("question", "questions"), ("problem", "questions"),
                                 ("\ndataset_format: last_answer", "chats")) if mark in text),
        "plain",
    )  # fmt: skip
    argv = ["--model", "tiny", "--data", f"{data}.jsonl", "--dataset_train_split", "train", "--dataset_test_split", "train"]
    argv += ["--report_to", "none", "--gpu", "H100", "--num_train_epochs", "40"]
    argv += ["--chat_template_path", "tiny", "--eos_token", "<eos>"] if "chat_template_path" in text else []
    argv += ["--dataset_format", "chat"] if data == "plain" else []
    assert main(["doctor", "--config", str(path), *argv]) == 0
    printed = capsys.readouterr().out
    assert "Ready" in printed and "Memory of a device at its peak" in printed, printed
    assert not Path("out").exists()


def test_exit_codes(place, capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--model", "tiny", "--data", "nowhere.jsonl", "--output_dir", "out"])
    printed = capsys.readouterr().out
    assert end.value.code == 1 and "Do not start yet: data" in printed and "No data file at nowhere.jsonl" in printed
    assert main(["doctor", "--model", "tiny", "--data", "chats.jsonl", "--gpu", "H1000"]) == 2
    assert "Did you mean H100" in capsys.readouterr().err


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made in here hold at once, those of `known` left out."""

    def __init__(self, known):
        super().__init__()
        self.seen = {cost.key(tensor) for tensor in known}
        self.now = self.peak = 0
        self.watched = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and cost.key(tensor) not in self.seen:
                self.add(cost.key(tensor), tensor.untyped_storage())
        return out

    def add(self, key, storage):
        size = storage.nbytes()

        def gone(_):
            self.seen.discard(key)
            del self.watched[key]
            self.now -= size

        self.seen.add(key)
        self.watched[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def made(tie=False, lora=False, checkpointing=False):
    sizes = dict(hidden_size=96, intermediate_size=256, num_hidden_layers=3, max_position_embeddings=256)
    model = tiny_llama(2000, tie_word_embeddings=tie, **sizes)
    if lora:
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear"))
        model.enable_input_require_grads()
    return model.train()


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective, autocast, options",
    [
        ("nll", None, {}),
        ("nll", None, {"tie": True}),
        ("eksft", None, {}),
        ("eksft", None, {"lora": True}),
        ("nll", None, {"lora": True, "checkpointing": True}),
        ("gem", torch.bfloat16, {"checkpointing": True}),
        ("sed", torch.bfloat16, {}),
    ],
)
def test_counted_memory_is_what_a_step_takes(objective, autocast, options):
    """The second of two AdamW steps of a real model, every tensor counted, against the estimate: within a tenth."""
    kwargs = {"threshold": 0.5} if objective == "sed" else {}
    shape, resolved = cost.Shape(4, 192, 4 * 150, padded=False), resolve(objective, **kwargs)
    model, checkpointing = made(**options), options.get("checkpointing", False)
    if checkpointing:
        model.gradient_checkpointing_enable()
    ids = torch.randint(2000, (shape.sequences, shape.length))
    labels = ids.clone()
    labels[:, : shape.length - 150] = -100
    weights = cost.weights_of(model)
    with LiveBytes(model.parameters()) as live:
        attach(model, resolved)
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
        for _ in range(2):
            live.peak = live.now
            with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            optimizer.step(), optimizer.zero_grad()
    compares = resolved.needs_reference
    job = cost.Job(
        weights, cost.Sharding("one device"), resolved, "adamw_torch_fused", False, 4 if autocast is None else 2, "cpu",
        compares, weights.bytes if compares and not options.get("lora") else 0,
    )  # fmt: skip
    parts = cost.memory(job, cost.count(made(**options).to("meta"), shape, autocast, checkpointing), shape)
    assert sum(parts.values()) == pytest.approx(weights.bytes + live.peak, rel=0.1), parts


def test_what_shares_a_model_divides_its_states():
    model = tiny_llama(2000).to("meta")
    weights, counted = cost.weights_of(model), cost.Counted(0, 0, 0, cost.Operations(0, 0), cost.Operations(0, 0))
    shape, number = cost.Shape(1, 8, 8, padded=False), weights.total

    def parts(sharding, compute=2):
        return cost.memory(cost.Job(weights, sharding, None, "adamw_torch_fused", True, compute, "cuda"), counted, shape)

    assert plan.sharding(None, 1) == cost.Sharding("one device") and plan.sharding(None, 4).name == "DDP"
    ddp, fsdp, zero2, zero3 = (
        parts(plan.sharding(name, 4)) for name in ("multi_gpu", "fsdp2", "zero2", "zero3")
    )  # fmt: skip
    assert ddp["weights"] == ddp["gradients"] == ddp["buckets of DDP"] == 4 * number
    assert [fsdp[name] for name in ("weights", "gradients", "optimizer states")] == [number, number, 2 * number]
    assert [zero2[name] for name in ("weights", "gradients", "optimizer states")] == [2 * number, number / 2, 3 * number]
    assert [zero3[name] for name in ("weights", "gradients", "optimizer states")] == [number / 2, number / 2, 3 * number]
    assert plan.sharding("fsdp2", None).devices == 8
    with pytest.raises(ValueError, match="neither a file nor one of TRL's names"):
        plan.sharding("fsdp3", 4)


def test_quantised_weights_and_heads_that_train():
    config = peft.LoraConfig(r=4, target_modules="all-linear", modules_to_save=["lm_head"])
    model = tiny_llama(200).to("meta")
    body = sum(module.weight.numel() for module in model.model.modules() if isinstance(module, torch.nn.Linear))
    whole = cost.weights_of(model)
    assert cost.weights_of(model.requires_grad_(False), 4).bytes == whole.bytes - body * (4 - 0.5625)
    adapted = cost.weights_of(peft.get_peft_model(model, config))
    assert adapted.head == (200, 32) and adapted.head_trains and not adapted.tied


def test_operations_are_those_of_the_weights_and_of_attention():
    model = tiny_llama(50).to("meta")
    one, two = (cost.count(model, cost.Shape(2, length, 8, padded=False), None, True) for length in (32, 64))
    linear = sum(module.weight.numel() for module in model.model.modules() if isinstance(module, torch.nn.Linear))
    assert one.forward.products == 2 * linear * 64 and one.backward.products == 3 * one.forward.products
    assert one.forward.attention == 4 * 64 * 32 * 32 * 2  # two products, tokens, keys, width, layers
    assert one.backward.attention == 3.5 * one.forward.attention
    assert one.forward.at(cost.Shape(2, 32, 8, False), 2, 64) == sum(two.forward)
    assert next(model.parameters()).is_meta
