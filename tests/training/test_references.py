"""What the trainer compares with, keeps and refuses at construction."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import JetMoeConfig, JetMoeForCausalLM, T5Config, T5ForConditionalGeneration

from manypaths.training.sft import refuse_unsupported
from runs import lively_llama, steps, tokenised, trainer


def tiny_t5(vocab_size: int) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=vocab_size, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )


def tiny_jetmoe(vocab_size: int, **router) -> JetMoeForCausalLM:
    torch.manual_seed(0)
    return JetMoeForCausalLM(
        JetMoeConfig(
            vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=1, kv_channels=8,
            num_key_value_heads=2, num_local_experts=4, pad_token_id=0, bos_token_id=None, eos_token_id=1, **router,
        )
    )  # fmt: skip


def test_an_encoder_decoder_is_refused(chats, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"T5ForConditionalGeneration is an encoder-decoder.*Use a decoder-only model"):
        trainer(tiny_t5(len(tokenizer)), chats, tokenizer, tmp_path)


def test_fsdp1_trains_without_a_reference_only():
    accelerator = SimpleNamespace(parallelism_config=None, distributed_type=DistributedType.FSDP, is_fsdp2=False)
    refuse_unsupported(accelerator, needs_reference=False)
    with pytest.raises(ValueError, match=r"Use FSDP2 \(fsdp_version: 2\)"):
        refuse_unsupported(accelerator, needs_reference=True)


def test_a_router_loss_is_kept_wherever_the_model_keeps_its_weight(chats, tokenizer, tmp_path):
    model = tiny_jetmoe(len(tokenizer), aux_loss_coef=0.3, output_router_logits=True)
    rows = Dataset.from_list(
        [{"input_ids": [5, 6, 7, 8 + i], "labels": [-100, 6, 7, 8 + i]} for i in range(4)]
    )
    own = model(**tokenised(None, rows)).loss
    own.backward()
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    run = trainer(model, rows, tokenizer, tmp_path, max_steps=1, dataset_kwargs={"skip_prepare_dataset": True})
    run.train()
    (step,) = steps(run)
    assert step["loss"] == pytest.approx(own.item(), rel=1e-5) and step["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert step["loss"] - step["ce"] == pytest.approx(0.3 * step["aux_loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Careful, disabling adapter", "ignore:.*takes the memory")
def test_biases_that_train_do_not_move_the_reference(chats, tokenizer, tmp_path):
    """The trainer's KL is that to a frozen base, though the base's biases train beside the adapter."""
    lively_llama(len(tokenizer), attention_bias=True).save_pretrained(tmp_path / "base")
    logged = []
    for folder, reference in (("own", None), ("base", str(tmp_path / "base"))):
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], bias="all")
        model = get_peft_model(lively_llama(len(tokenizer), attention_bias=True), config)
        run = trainer(
            model, chats, tokenizer, tmp_path / folder, objective="asft", objective_kwargs={"kl_weight": 5.0},
            reference=reference, max_steps=3, learning_rate=0.5,
        )  # fmt: skip
        run.train()
        logged.append([step[name] for step in steps(run) for name in ("loss", "grad_norm")])
    assert logged[0] == pytest.approx(logged[1], rel=1e-6)
