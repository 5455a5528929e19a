"""Tiny models of every architecture and adapter, and what an objective on them differs by from the naive path.

A family is a `model_type` of transformers: its default configuration with sizes shrunk by the names of its settings and,
where that is not enough, a line of overrides here. All models are random and made on the spot.
"""

import contextlib
import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import peft
import torch
import torch.nn.functional as F
from datasets import Dataset
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    TorchAoConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from batches import padded, sequences
from conftest import tiny_llama
from manypaths import Objective, attach, detach, resolve
from naive import statistics
from runs import trainer

VOCAB, UNPADDED, TOP_K, TEMPERATURE = 64, 60, 2, 0.7
OBJECTIVES = ("nll", "sed", "gem", "eksft")
EXACT, EXACT_IN_FLOAT32 = 1e-9, 1e-5  # largest difference of a loss or a gradient
SIZES = {
    VOCAB: "vocab_size decoder_vocab_size vocab_size_per_layer_input",
    128: "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions",
    32: "hidden_size n_embd d_model embedding_size word_embed_proj_dim emb_dim embedding_dim attention_hidden_size "
    "lru_width backbone_hidden_size input_embedding_size output_embedding_size embed_dim dim out_hidden_size "
    "text_hidden_size index_topk",
    48: "intermediate_size ffn_dim n_inner moe_intermediate_size dff d_ff dim_ff d_inner decoder_ffn_dim ffn_hidden_size "
    "encoder_ffn_dim shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size "
    "shared_experts_intermediate_size moe_shared_expert_intermediate_size dense_intermediate_size intermediate_size_mlp "
    "feed_forward_size",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_encoder_layers num_blocks depth "
    "num_decoder_layers num_key_value_heads num_kv_heads num_experts_per_tok num_experts_per_token moe_k moe_topk "
    "swa_num_key_value_heads index_n_heads linear_num_key_heads max_window_layers num_query_groups num_kv_shared_layers "
    "num_layers_per_stack hc_mult hc_count n_mamba_heads mamba_n_groups n_groups top_k_experts zero_expert_num",
    4: "num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads attention_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts linear_num_value_heads linear_num_heads mamba_num_heads "
    "mamba_n_heads mamba_d_state state_size ssm_state_size num_heads swa_num_attention_heads mamba_d_ssm "
    "num_encoder_attention_heads num_decoder_attention_heads mamba_dt_rank time_step_rank hidden_size_per_layer_input",
    8: "head_dim kv_channels attention_head_dim v_head_dim qk_nope_head_dim kv_lora_rank q_lora_rank "
    "linear_key_head_dim linear_value_head_dim linear_head_dim rotary_dim mamba_head_dim mamba_headdim mamba_d_head "
    "swa_head_dim d_head dim_head d_rel o_lora_rank chunk_size mamba_chunk_size qk_rope_head_dim sliding_window global_head_dim "
    "attention_head_size laurel_rank router_hidden_size adapter_rank",
    16: "index_head_dim",
    1: "n_group num_expert_group topk_group o_groups",
}  # fmt: skip
SHRUNK = {name: size for size, names in SIZES.items() for name in names.split()}

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MROPE = {"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1]}}
HYBRID = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
CONVOLUTION = {"layer_types": ["conv", "full_attention"]}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8}
ZAMBA = {
    "num_hidden_layers": 4,
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
    "attention_head_dim": 16,
    "attention_hidden_size": 64,
}


def rows(names: str, overrides: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(names.split(), overrides)


# The first word of a key is the model_type, what follows tells two rows of one type apart.
OVERRIDES: dict[str, dict[str, Any]] = {
    **rows("bamba granitemoehybrid", MAMBA),
    **rows("gemma3n_text gemma4_text gemma4_unified_text", {"num_kv_shared_layers": 0}),
    **rows("gemma4 gemma4_unified", {"text_config": {"num_kv_shared_layers": 0}}),
    **rows("qwen3_next qwen3_5_text qwen3_5_moe_text bailing_hybrid kimi_linear", HYBRID),
    **rows("qwen3_5 qwen3_5_moe minicpm_ocr minicpmv4_6 minicpmv4_7", {"text_config": HYBRID}),
    **rows("hunyuan_v1_dense hunyuan_v1_moe ministral", {"head_dim": 8}),
    **rows("qwen2_vl qwen2_5_vl paddleocr_vl glm4v glm46v glm_ocr glmga", {"text_config": MROPE}),
    "bamba z-loss": {**MAMBA, "z_loss_coefficient": 0.1},
    "big_bird": {"attention_type": "original_full"},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "deepseek_v4": {"num_hidden_layers": 4},
    "doge": {"is_moe": True},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64, "lm_head_multiplier": 0.5},
    "granite": {"logits_scaling": 4.0},
    "flint": {"mlp_only_layers": [0]},
    "glm4v_moe": {"text_config": {"head_dim": 16, **MROPE}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "inkling2": {"text_config": {"unpadded_vocab_size": VOCAB}},
    "inkling2 padded head": {"text_config": {"unpadded_vocab_size": UNPADDED}},
    "inkling2_text": {"unpadded_vocab_size": VOCAB},
    "inkling2_text padded head": {"unpadded_vocab_size": UNPADDED},
    "inkling_text padded head": {"unpadded_vocab_size": UNPADDED},
    "lfm2_moe": CONVOLUTION,
    "lfm3_vl": {"text_config": CONVOLUTION},
    "llama4_text": {"router_aux_loss_coef": 0.0},  # TRL would ask for a router loss, which the class does not give
    "llama tied": {"tie_word_embeddings": True},
    "mamba2": {"num_heads": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen3 tied": {"tie_word_embeddings": True},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "roc_bert": {"shape_vocab_size": VOCAB},
    "xmod": {"default_language": "en_XX"},
    "zamba": {**ZAMBA, "mamba_dt_rank": 4},
    "zamba2": {**ZAMBA, "num_key_value_heads": 4, "n_mamba_heads": 8},
    "zaya": {"num_experts_per_tok": 1},
}
FAMILIES = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, *OVERRIDES})
TOO_LARGE = {  # of sizes in their vision parts that no rule here knows
    *(
        "blt",
        "chameleon",
        "cohere2_vision",
        "deepseek_vl_hybrid",
        "emu3",
        "florence2",
        "janus",
        "llama4",
        "muse_glimmer",
    ),
    *("pp_formulanet", "t5gemma2", "unlimited_ocr", "vision-encoder-decoder"),
}
FLOAT32 = ("inkling2", "inkling2_text", "xglm")  # model types whose own code fails in float64


def tiny(defaults: dict[str, Any]) -> dict[str, Any]:
    """The settings among `defaults` that are sizes or special tokens, shrunk, sub-configurations included."""
    shrunk: dict[str, Any] = {}
    for name, value in defaults.items():
        if name.endswith("_config") and isinstance(value, dict):
            shrunk[name] = tiny(value)
        elif name in SHRUNK and type(value) is int:
            shrunk[name] = SHRUNK[name]
        elif name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            shrunk[name] = 1
        elif name == "rope_parameters" and "mrope_section" in (value or {}):
            shrunk[name] = {**value, "mrope_section": MROPE["rope_parameters"]["mrope_section"]}
    if "kv_lora_rank" in shrunk:  # latent attention has as many keys as queries
        shrunk["num_key_value_heads"] = SHRUNK["num_attention_heads"]
    return shrunk


def tiny_config(family: str) -> PretrainedConfig:
    config = CONFIG_MAPPING[family.split()[0]]
    settings = {"output_router_logits": True, "use_cache": False, **tiny(config().to_dict())}
    for name, value in copy.deepcopy(OVERRIDES.get(family, {})).items():  # configurations change what they are given
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    return config(**settings)


def tiny_model(family: str) -> nn.Module:
    """The family's language model, random, in training mode; float64 where its code allows.

    Raises:
        ValueError: too large even when shrunk, or whatever transformers raises for such a configuration.
    """
    if family in TOO_LARGE:
        raise ValueError("more than 5 million parameters when shrunk by these rules")
    config = tiny_config(family)
    multimodal = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    auto = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
    options = {"attn_implementation": "eager", "experts_implementation": "eager"}
    torch.manual_seed(0)
    model = auto.from_config(config, **options)
    return lively(model.to(torch.float32 if config.model_type in FLOAT32 else torch.float64))


def lively(model: nn.Module) -> nn.Module:
    """With logits that are far from uniform, in training mode."""
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(10)
    return model.train()


def batch_of(vocab_size: int) -> dict[str, Tensor]:
    """Two sequences, the shorter padded on the right; the first tokens of each are not trained."""
    batch = padded(sequences(vocab_size, lengths=(9, 6)))
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}


BATCH = batch_of(UNPADDED)


def moved(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model with every trainable parameter changed a little."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=make, dtype=torch.float64)
                parameter.add_(noise.to(parameter.dtype), alpha=0.02)
    return model


def next_token_ce(logits: Tensor, labels: Tensor, *_: Any, **__: Any) -> Tensor:
    """The cross-entropy of causal language models, in the precision of the logits."""
    return F.cross_entropy(logits[:, -labels.shape[1] : -1].flatten(0, 1), labels[:, 1:].flatten())


def trained_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [T, V] and labels [T] of all trained tokens; virtual tokens at the front have none."""
    valid = labels[:, 1:] != -100
    return logits[:, -labels.shape[1] : -1][valid], labels[:, 1:][valid]


def forward(model: nn.Module, **inputs: Tensor) -> Any:
    torch.manual_seed(0)  # for dropout
    return model(**inputs)


def between(values: Tensor) -> float:
    """A threshold in the largest gap between values: rounding moves none of them across."""
    ordered = values.detach().sort().values
    gap = int(ordered.diff().argmax())
    return float(ordered[gap : gap + 2].mean())


class Naive(NamedTuple):
    objective: Objective
    loss: Tensor


def naive_losses(model: nn.Module, reference_logits: Tensor) -> dict[str, Naive]:
    """Each objective on the model's own logits, in the place of the cross-entropy in the model's own loss.

    What the class adds to its cross-entropy, such as a router's loss, stays. SED masks some of the tokens.
    """
    bare = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    bare.loss_function = next_token_ce  # classes that ask for it then do not round to float32
    output = forward(model, **BATCH)
    others = output.loss - next_token_ce(output.logits, BATCH["labels"])
    logits, labels = trained_rows(output.logits, BATCH["labels"])
    reference_logits, _ = trained_rows(reference_logits, BATCH["labels"])
    values = statistics(logits, labels, reference_logits, TOP_K, TEMPERATURE)
    objectives = (
        resolve("nll"),
        resolve("sed", top_k=TOP_K, threshold=between(values["topk_mass"])),
        resolve("gem", temperature=TEMPERATURE),
        resolve("eksft"),
    )
    return {one.name: Naive(one, one(values).mean() + others) for one in objectives}


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    values = torch.autograd.grad(loss, list(named.values()), retain_graph=True, materialize_grads=True)
    return dict(zip(named, values, strict=True))


class Difference(NamedTuple):
    """Of two losses, in nats; of their gradients, the largest of any entry, over the largest entry of all."""

    loss: float
    gradient: float


def difference(model: nn.Module, ours: Tensor, naive: Tensor) -> Difference:
    got, expected = gradients(model, ours), gradients(model, naive)
    size = max(float(value.abs().max()) for value in expected.values() if value.numel())
    off = max(float((got[name] - expected[name]).abs().max()) for name in got if got[name].numel())
    return Difference(abs(float(ours - naive)), off / size)


def attached_differences(model: nn.Module) -> dict[str, Difference]:
    """Every objective attached to the model, against the naive path, by objective."""
    reference = moved(copy.deepcopy(model).eval())
    with torch.no_grad():
        reference_logits = forward(reference, **BATCH).logits
    differences = {}
    for name, (objective, naive) in naive_losses(model, reference_logits).items():
        attach(model, objective, reference=reference if objective.needs_reference else None)
        try:
            differences[name] = difference(model, forward(model, **BATCH).loss, naive)
        finally:
            detach(model)
    return differences


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<eos>", "<pad>", *(f"word{i}" for i in range(3, UNPADDED))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>")


def trained_differences(model: nn.Module, folder: Path) -> dict[str, Difference]:
    """The same through the trainer: its reference is the model as the trainer got it, adapters off; then it moves."""
    data = Dataset.from_list([{"input_ids": ids.tolist()} for ids in BATCH["input_ids"]])
    off = model.disable_adapter() if isinstance(model, peft.PeftModel) else contextlib.nullcontext()
    with torch.no_grad(), off:
        reference_logits = forward(model.eval(), **BATCH).logits
    run = trainer(model, data, tiny_tokenizer(), folder, objective="eksft")
    moved(model.train())
    differences = {}
    for name, (run.objective, naive) in naive_losses(model, reference_logits).items():
        torch.manual_seed(0)
        differences[name] = difference(model, run.compute_loss(model, dict(BATCH)), naive)
    return differences


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QUERY_VALUE = {"target_modules": ["q_proj", "v_proj"]}
TIED = {"tie_word_embeddings": True}


def lora(**options: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_dropout": 0.1, **QUERY_VALUE, **options})


def other(config: type[peft.PeftConfig], **options: Any) -> peft.PeftConfig:
    return config(task_type="CAUSAL_LM", **options)


def on_head(make: Callable[..., peft.PeftConfig], **options: Any) -> peft.PeftConfig:
    """An adapter of the head and of one layer below. Without dropout, which differs with the tokens that the head sees."""
    return make(target_modules=["k_proj", "lm_head"], **options, **({"lora_dropout": 0} if make is lora else {}))


def quantised_copy(model: nn.Module, config: Any) -> nn.Module:
    """The model as `from_pretrained` loads it with that quantisation; every linear layer but the queries' has it."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
    for module in loaded.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # else a forward in evaluation mode ends all gradients
            module.support_avx512bf16_for_cpu = False
    return loaded.train()


def torchao_int8() -> TorchAoConfig:
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=["q_proj"])  # any name, so that the head is not


BODY = {"llm_int8_skip_modules": ["q_proj"]}
QUANTISED: dict[str, Callable[[], Any]] = {
    "bitsandbytes 4-bit": lambda: BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32, **BODY
    ),
    "bitsandbytes 8-bit": lambda: BitsAndBytesConfig(load_in_8bit=True, **BODY),
    "torchao int8": torchao_int8,
}


class Adapter(NamedTuple):
    make: Callable[[], peft.PeftConfig]
    model: Mapping[str, Any] = MappingProxyType({})  # settings of the tiny Llama under it
    quantised: str | None = None  # how that is, from the head to the embeddings: a name of QUANTISED


ADAPTERS: dict[str, Adapter] = {
    "LoRA, queries and values": Adapter(lora),
    "LoRA, all linear layers": Adapter(lambda: lora(target_modules="all-linear")),
    "LoRA, named layers": Adapter(lambda: lora(target_modules=LINEAR)),
    "rsLoRA": Adapter(lambda: lora(use_rslora=True)),
    "DoRA": Adapter(lambda: lora(use_dora=True)),
    "LoRA, biases of all layers": Adapter(lambda: lora(bias="all"), {"attention_bias": True}),
    "LoRA, biases of its layers": Adapter(lambda: lora(bias="lora_only"), {"attention_bias": True}),
    "LoRA and lm_head": Adapter(lambda: lora(modules_to_save=["lm_head"])),
    "LoRA and embed_tokens": Adapter(lambda: lora(modules_to_save=["embed_tokens"])),
    "LoRA, lm_head and embed_tokens": Adapter(lambda: lora(modules_to_save=["lm_head", "embed_tokens"])),
    "LoRA and embed_tokens, tied": Adapter(lambda: lora(modules_to_save=["embed_tokens"]), TIED),
    "LoRA and embed_tokens, tied, both": Adapter(
        lambda: lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True), TIED
    ),
    "LoRA and lm_head, tied": Adapter(lambda: lora(modules_to_save=["lm_head"]), TIED),
    "LoRA and norms": Adapter(lambda: lora(modules_to_save=["norm", "input_layernorm"])),
    "LoRA on embed_tokens": Adapter(lambda: lora(target_modules=["q_proj", "embed_tokens"])),
    "LoRA on embed_tokens, tied": Adapter(lambda: lora(target_modules=["q_proj", "embed_tokens"]), TIED),
    "LoRA on lm_head": Adapter(lambda: on_head(lora)),
    "LoRA on lm_head, tied": Adapter(lambda: on_head(lora), TIED),
    "LoRA on lm_head, with biases": Adapter(lambda: on_head(lora, lora_bias=True)),
    "rsLoRA on lm_head": Adapter(lambda: on_head(lora, use_rslora=True)),
    "DoRA on lm_head": Adapter(lambda: on_head(lora, use_dora=True)),
    "LoRA and some tokens": Adapter(lambda: lora(trainable_token_indices=[5, 6])),
    "LoRA and some tokens, tied": Adapter(lambda: lora(trainable_token_indices=[5, 6]), TIED),
    "some tokens": Adapter(lambda: other(peft.TrainableTokensConfig, token_indices=[5, 6])),
    "some tokens, tied": Adapter(lambda: other(peft.TrainableTokensConfig, token_indices=[5, 6]), TIED),
    "AdaLoRA": Adapter(lambda: other(peft.AdaLoraConfig, total_step=100, **QUERY_VALUE)),
    "BOFT": Adapter(lambda: other(peft.BOFTConfig, boft_block_size=4, **QUERY_VALUE)),
    "BOFT on lm_head": Adapter(lambda: on_head(other, config=peft.BOFTConfig, boft_block_size=4)),
    "HRA": Adapter(lambda: other(peft.HRAConfig, r=4, **QUERY_VALUE)),
    "HRA on lm_head": Adapter(lambda: on_head(other, config=peft.HRAConfig, r=4)),
    "IA3": Adapter(
        lambda: other(
            peft.IA3Config, target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
        )
    ),
    "IA3 on lm_head": Adapter(lambda: on_head(other, config=peft.IA3Config, feedforward_modules=[])),
    "LayerNorm tuning": Adapter(lambda: other(peft.LNTuningConfig, target_modules=["norm", "input_layernorm"])),
    "LoHa": Adapter(lambda: other(peft.LoHaConfig, r=4, **QUERY_VALUE)),
    "LoHa on lm_head": Adapter(lambda: on_head(other, config=peft.LoHaConfig, r=4)),
    "LoKr": Adapter(lambda: other(peft.LoKrConfig, r=4, **QUERY_VALUE)),
    "LoKr on lm_head": Adapter(lambda: on_head(other, config=peft.LoKrConfig, r=4)),
    "OFT": Adapter(lambda: other(peft.OFTConfig, oft_block_size=8, r=0, **QUERY_VALUE)),
    "OFT on lm_head": Adapter(lambda: on_head(other, config=peft.OFTConfig, oft_block_size=8, r=0)),
    "RandLoRA": Adapter(lambda: other(peft.RandLoraConfig, r=4, **QUERY_VALUE)),
    "RandLoRA on lm_head": Adapter(lambda: on_head(other, config=peft.RandLoraConfig, r=4)),
    "VeRA": Adapter(lambda: other(peft.VeraConfig, r=4, target_modules=["q_proj", "o_proj"])),
    "VeRA on lm_head": Adapter(lambda: on_head(other, config=peft.VeraConfig, r=4)),
    "VB-LoRA": Adapter(lambda: other(peft.VBLoRAConfig, r=4, num_vectors=16, vector_length=8, topk=2, **QUERY_VALUE)),
    "VB-LoRA on lm_head": Adapter(
        lambda: on_head(other, config=peft.VBLoRAConfig, r=4, num_vectors=16, vector_length=8, topk=2)
    ),
    "prefix tuning": Adapter(lambda: other(peft.PrefixTuningConfig, num_virtual_tokens=3)),
    "prompt tuning": Adapter(lambda: other(peft.PromptTuningConfig, num_virtual_tokens=3)),
    "p-tuning": Adapter(lambda: other(peft.PromptEncoderConfig, num_virtual_tokens=3, encoder_hidden_size=16)),
    **{
        f"{name}, {quantised} head": Adapter(make, quantised=quantised)
        for quantised in QUANTISED
        for name, make in (("LoRA", lambda: lora(lora_dropout=0)), ("LoRA on lm_head", lambda: on_head(lora)))
    },
    "DoRA on lm_head, bitsandbytes 4-bit head": Adapter(
        lambda: on_head(lora, use_dora=True), quantised="bitsandbytes 4-bit"
    ),
    "DoRA on lm_head, torchao int8 head": Adapter(lambda: on_head(lora, use_dora=True), quantised="torchao int8"),
}


def adapted_model(adapter: str) -> peft.PeftModel:
    """A tiny Llama under that adapter, which has moved: as made, most adapters change nothing.

    In float64; quantised ones, which compute in it nowhere, in float32.
    """
    make, settings, quantised = ADAPTERS[adapter]
    base = tiny_llama(VOCAB, pad_token_id=1, **settings)
    if quantised:
        return moved(peft.get_peft_model(quantised_copy(lively(base), QUANTISED[quantised]()), make()), seed=2)
    return moved(lively(peft.get_peft_model(base.double(), make()).double()), seed=2)


def measured_family(family: str) -> dict[str, Any]:
    """One row of the table of families: what it is and the differences through `attach`, or why there are none."""
    row: dict[str, Any] = {"family": family}
    try:
        model = tiny_model(family)
        row |= {"class": type(model).__name__, **measured(attached_differences, model)}  # before it has any state
        own, again = forward(model, **BATCH), forward(model, **BATCH)
    except Exception as error:  # transformers' own, of any kind
        return {"family": family, "status": "not built", "reason": one_line(error)}
    if not torch.equal(own.logits, again.logits):
        return {"family": family, "status": "not comparable", "reason": "two of its own forwards with one seed differ"}
    return {**row, "features": features(model, own)}


def measured(differences: Callable[..., dict[str, Difference]], model: nn.Module, *args: Any) -> dict[str, Any]:
    """Status and differences, or the refusal."""
    try:
        values = differences(model, *args)
    except ValueError as error:
        return {"status": "refused", "reason": one_line(error)}
    except Exception as error:
        return {"status": "fails", "reason": one_line(error)}
    return {"status": status(values), "differences": {name: list(value) for name, value in values.items()}}


def status(differences: dict[str, Difference]) -> str:
    largest = max(max(value) for value in differences.values())
    return "exact" if largest < EXACT else "exact in float32" if largest < EXACT_IN_FLOAT32 else "differs"


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:400]
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def features(model: nn.Module, output: Any) -> list[str]:
    """What sets this family's head and loss apart, read off the model rather than its configuration."""
    head, seen = model.get_output_embeddings(), []
    hook = head.register_forward_hook(lambda module, args, out: seen.append(out))
    logits = forward(model, **BATCH).logits.detach()
    hook.remove()
    raw = seen[-1].detach()[..., : logits.shape[-1]]
    ratio = (logits / raw).flatten()[raw.abs().flatten().argsort()]
    scale, largest = (round(float(ratio[i]), 6) for i in (len(ratio) // 2, -1))
    other = output.loss - F.cross_entropy(*trained_rows(output.logits.float(), BATCH["labels"]))
    found = {
        "multimodal": model.config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        "tied": head.weight is model.get_input_embeddings().weight,
        "bias": getattr(head, "bias", None) is not None,
        "padded head": logits.shape[-1] < len(head.weight),
        "softcap": largest != scale,
        f"scale {scale:.3g}": largest == scale != 1,
        "router loss": getattr(output, "aux_loss", None) is not None,
        "other loss": getattr(output, "aux_loss", None) is None and abs(float(other)) > 1e-4,
    }
    return [name for name, true in found.items() if true]
