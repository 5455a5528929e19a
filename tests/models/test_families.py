"""Families of models and adapters train as the naive path does, and docs/models.md is what was measured."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
import transformers

from conftest import tiny_llama
from model_families import (
    ADAPTERS,
    FAMILIES,
    adapted_model,
    attached_differences,
    measured,
    tiny_model,
    trained_differences,
)

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks/model_families.py")
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)
RECORD = benchmark.newest_record()

# One of each kind: plain and tied, softcap, scale, biased head, router loss, state space, hybrids, multimodal
REPRESENTATIVE = [
    "llama", "qwen3 tied", "gemma2", "cohere", "phi", "mixtral", "qwen3_moe", "mamba2", "jamba", "zamba2", "gemma3", "qwen3_5",
]  # fmt: skip
ADAPTED = [
    "LoRA, all linear layers", "LoRA, lm_head and embed_tokens", "LoRA on embed_tokens, tied", "DoRA on lm_head",
    "LoRA and some tokens, tied", "prefix tuning",
]  # fmt: skip


@pytest.mark.parametrize("family", REPRESENTATIVE)
def test_a_family_of_each_kind_trains_as_the_naive_path_does(family):
    assert measured(attached_differences, tiny_model(family))["status"].startswith("exact")


@pytest.mark.parametrize("adapter", ADAPTED)
def test_an_adapter_of_each_kind_trains_as_the_naive_path_does(adapter):
    assert measured(attached_differences, adapted_model(adapter))["status"] == "exact"


@pytest.mark.parametrize("family", ["llama", "mixtral", "cohere"])
def test_the_trainer_does_the_same(family, tmp_path):
    assert measured(trained_differences, tiny_model(family), tmp_path)["status"] == "exact"


def test_the_trainer_trains_an_adapter_on_the_head(tmp_path):
    """As TRL's own does not; its reference is the head without the adapter."""
    assert measured(trained_differences, adapted_model("LoRA on lm_head"), tmp_path)["status"] == "exact"


QUANTISED_HEADS = [name for name, adapter in ADAPTERS.items() if adapter.quantised]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in QUANTISED_HEADS])
def test_a_quantised_head_is_one(name):
    """Or else what is measured below it says nothing."""
    quantised = adapted(name).get_output_embeddings()
    layer = quantised.get_base_layer() if hasattr(quantised, "get_base_layer") else quantised
    assert type(layer.weight) is not torch.nn.Parameter


def adapted(name):
    """The model of that row, where what it needs is installed."""
    if ADAPTERS[name].quantised:
        pytest.importorskip(ADAPTERS[name].quantised.split()[0])
    return adapted_model(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row in RECORD["families"] if not row["status"].startswith("not")], ids=lambda row: row["family"]
)
def test_every_family_is_as_recorded(row):
    got = measured(attached_differences, tiny_model(row["family"]))
    assert got["status"] == row["status"], got


@pytest.mark.slow
@pytest.mark.parametrize("row", RECORD["adapters"], ids=lambda row: row["adapter"])
def test_every_adapter_is_as_recorded(row, tmp_path):
    for recorded, differences, place in (
        (row, attached_differences, ()),
        (row["trainer"], trained_differences, (tmp_path,)),
    ):
        got = measured(differences, adapted(row["adapter"]), *place)
        assert got["status"] == recorded["status"], got


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in REPRESENTATIVE if family not in ("gemma3", "qwen3_5")])
def test_the_trainer_on_every_kind(family, tmp_path):
    assert measured(trained_differences, tiny_model(family), tmp_path)["status"].startswith("exact")


def test_ones_own_model_is_checked_in_five_lines(tmp_path, tokenizer, capsys):
    tiny_llama(len(tokenizer), initializer_range=0.3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (source,) = re.findall(r"^```python\n(.*?)^```$", benchmark.PAGE.read_text(), re.M | re.S)
    capsys.readouterr()
    exec(source.replace("Qwen/Qwen3-0.6B", str(tmp_path)), {})
    own, ours = map(float, capsys.readouterr().out.split())
    assert own > 1 and ours == pytest.approx(own, rel=1e-6)


def test_the_page_is_what_was_measured():
    assert benchmark.PAGE.read_text() == benchmark.page(benchmark.PAGE.read_text(), RECORD)
    assert {row["adapter"] for row in RECORD["adapters"]} == set(ADAPTERS)
    if RECORD["versions"]["transformers"] == transformers.__version__:
        assert {row["family"] for row in RECORD["families"]} <= set(FAMILIES)
