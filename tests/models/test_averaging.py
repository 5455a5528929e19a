import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from conftest import tiny_llama
from manypaths.models.averaging import AverageConfig, average, average_weights


def saved(folder, seed, dtype=torch.float32, **options):
    tied = options.pop("tie_word_embeddings", False)
    sharding = options.pop("sharding", {})
    tiny_llama(50, seed, tie_word_embeddings=tied, **options).to(dtype).save_pretrained(folder, **sharding)
    return folder


def weights(folder):
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_tensor_is_the_average_in_the_tuned_type(tmp_path, dtype):
    base, tuned = saved(tmp_path / "base", 0), saved(tmp_path / "tuned", 1, dtype)
    result = weights(average_weights(base, tuned, 0.3, tmp_path / "out"))
    before, after = weights(base), weights(tuned)
    assert result.keys() == after.keys()
    for name, value in result.items():
        assert value.dtype == dtype
        assert torch.equal(value, (0.7 * before[name].double() + 0.3 * after[name].double()).to(dtype)), name
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()


def test_the_ends_are_the_models_themselves(tmp_path):
    base, tuned = saved(tmp_path / "base", 0), saved(tmp_path / "tuned", 1)
    for weight, end in ((0.0, base), (1.0, tuned)):
        result = weights(average_weights(base, tuned, weight, tmp_path / f"out{weight}"))
        assert all(torch.equal(value, weights(end)[name]) for name, value in result.items())


def test_shards_need_not_be_cut_alike(tmp_path):
    base = saved(tmp_path / "base", 0)
    tuned = saved(tmp_path / "tuned", 1, sharding={"max_shard_size": "20KB"})
    assert len(list(tuned.glob("*.safetensors"))) > 2
    result = weights(average_weights(base, tuned, 0.5, tmp_path / "out"))
    assert all(torch.equal(value, (weights(base)[name] + weights(tuned)[name]) / 2) for name, value in result.items())
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_tied_weights_are_stored_once_or_twice(tmp_path):
    base = saved(tmp_path / "base", 0, tie_word_embeddings=True)
    tuned = saved(tmp_path / "tuned", 1, tie_word_embeddings=True)
    both = weights(tuned)
    both["lm_head.weight"] = both["model.embed_tokens.weight"].clone()
    save_file(both, tuned / "model.safetensors", metadata={"format": "pt"})
    for first, second in ((base, tuned), (tuned, base)):
        result = weights(average_weights(first, second, 0.5, tmp_path / f"from-{first.name}"))
        expected = (weights(base)["model.embed_tokens.weight"] + weights(tuned)["model.embed_tokens.weight"]) / 2
        assert torch.equal(result["model.embed_tokens.weight"], expected)
        assert torch.equal(result.get("lm_head.weight", expected), expected)


def test_an_adapter_is_scaled_to_the_same_function(tmp_path):
    base = saved(tmp_path / "base", 0)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    )
    torch.manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    average_weights(base, tmp_path / "adapter", 0.25, tmp_path / "out")
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter").merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    average_weights(base, tmp_path / "merged", 0.25, tmp_path / "full")
    ids = torch.tensor([[3, 4, 5, 6]])
    scaled = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")(ids).logits
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "full")(ids).logits
    torch.testing.assert_close(scaled, full, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="is an adapter on"):
        average_weights(tmp_path / "merged", tmp_path / "adapter", 0.5, tmp_path / "other")


def test_what_cannot_be_averaged_is_refused(tmp_path):
    base, tuned = saved(tmp_path / "base", 0), saved(tmp_path / "tuned", 1, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"different architectures: only one has model\.layers\.2"):
        average_weights(base, tuned, 0.5, tmp_path / "out")
    wide = saved(tmp_path / "wide", 1, intermediate_size=64)
    with pytest.raises(ValueError, match="different architectures, or a vocabulary"):
        average_weights(base, wide, 0.5, tmp_path / "out2")
    with pytest.raises(ValueError, match="from 0 to 1"):
        average_weights(base, base, 1.5, tmp_path / "out3")
    adapter = tmp_path / "adapter"
    get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    ).save_pretrained(adapter)
    with pytest.raises(ValueError, match="not a factor of a low-rank product"):
        average_weights(base, adapter, 0.5, tmp_path / "out4")


def test_as_a_subcommand_it_leaves_a_record(tmp_path):
    base, tuned = saved(tmp_path / "base", 0), saved(tmp_path / "tuned", 1)
    average(AverageConfig(str(base), str(tuned), 0.5, str(tmp_path / "out")))
    assert json.loads((tmp_path / "out" / "manypaths_run.json").read_text())["settings"]["weight"] == 0.5
    assert (tmp_path / "out" / "config.json").is_file()
