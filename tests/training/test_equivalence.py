"""Cross-entropy through our trainer is stock TRL's, step by step: the tripwire for its private names."""

import pytest
import torch
import trl
from peft import LoraConfig
from transformers import Gemma2Config, Gemma2ForCausalLM, MixtralConfig, MixtralForCausalLM

import manypaths
from conftest import tiny_llama

pytestmark = pytest.mark.slow


def settings(tmp_path, **overrides):
    return (
        dict(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            max_steps=4,
            learning_rate=1e-2,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=4,
            report_to="none",
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            max_length=64,
        )
        | overrides
    )


def train(trainer_class, config_class, model, chats, tokenizer, tmp_path, peft_config=None, **overrides):
    trainer = trainer_class(
        model,
        config_class(**settings(tmp_path, **overrides)),
        train_dataset=chats,
        eval_dataset=chats.select(range(6)),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    trainer.train()
    return trainer.state.log_history


def gemma2(vocab_size):
    torch.manual_seed(0)
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, final_logit_softcapping=3.0, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip


def mixtral(vocab_size):
    torch.manual_seed(0)
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, num_local_experts=4, router_aux_loss_coef=0.05, output_router_logits=True,
            pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip


CASES = {
    "completion_only": (tiny_llama, {}, None),
    "whole_text": (tiny_llama, {"completion_only_loss": False}, None),
    "packing": (tiny_llama, {"packing": True, "max_length": 32, "completion_only_loss": True}, None),
    "lora": (tiny_llama, {}, dict(r=4, target_modules=["q_proj", "v_proj"])),
    "trained_head": (tiny_llama, {}, dict(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "softcap_tied": (gemma2, {}, None),
    "mixture_of_experts": (mixtral, {}, None),
    "checkpointing": (tiny_llama, {"gradient_checkpointing": True}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_nll_retraces_stock_trl(case, chats, tokenizer, tmp_path):
    build, overrides, lora = CASES[case]

    def run(trainer_class, config_class):
        peft_config = None if lora is None else LoraConfig(task_type="CAUSAL_LM", **lora)
        model = build(len(tokenizer))
        return train(trainer_class, config_class, model, chats, tokenizer, tmp_path, peft_config, **overrides)

    stock, ours = run(trl.SFTTrainer, trl.SFTConfig), run(manypaths.SFTTrainer, manypaths.SFTConfig)
    assert len(stock) == len(ours)
    for expected, got in zip(stock, ours, strict=True):
        shared = set(expected) - {k for k in expected if "runtime" in k or "per_second" in k}
        assert shared <= set(got)
        for name in shared:
            assert got[name] == pytest.approx(expected[name], rel=2e-5, abs=2e-6), name


def test_dft_is_trls_dft(chats, tokenizer, tmp_path):
    stock = train(
        trl.SFTTrainer, trl.SFTConfig, tiny_llama(len(tokenizer)), chats, tokenizer, tmp_path, loss_type="dft"
    )
    ours = train(
        manypaths.SFTTrainer,
        manypaths.SFTConfig,
        tiny_llama(len(tokenizer)),
        chats,
        tokenizer,
        tmp_path,
        objective="dft",
    )
    assert [row["loss"] for row in ours if "loss" in row] == pytest.approx(
        [row["loss"] for row in stock if "loss" in row], rel=1e-5
    )
