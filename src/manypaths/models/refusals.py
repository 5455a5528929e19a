"""Every model, adapter and kind of parallelism that is refused: the reason, and the nearest thing that works."""

from typing import Any, NamedTuple


class Refusal(NamedTuple):
    """Texts for `str.format`; their placeholders are facts of the case."""

    reason: str
    instead: str


REFUSALS: dict[str, Refusal] = {
    # Models
    "encoder-decoder": Refusal(
        "{model} is an encoder-decoder: its decoder has inputs of its own, which its labels are not a shift of.",
        "Use a decoder-only model.",
    ),
    "no output head": Refusal(
        "{model} has no output head (get_output_embeddings() is None).", "Load it with AutoModelForCausalLM."
    ),
    "wrapped model": Refusal(
        "{model} wraps the model, whose forward and head it hides.", "Give the model itself, then wrap it."
    ),
    "weights on the meta device": Refusal(
        "{name} is on the meta device: it was never loaded, or is offloaded.",
        "Load all weights onto a device: no disk or CPU offload in device_map, to_empty() only before loading.",
    ),
    "tuple outputs": Refusal(
        "With return_dict=False the outputs are tuples, which name neither loss nor logits.",
        "Leave return_dict at True, in the call and in the model's config.",
    ),
    "shift_labels": Refusal(
        "shift_labels are the labels of context and sequence parallelism, already shifted.",
        "Pass labels aligned with input_ids and leave shift_labels out.",
    ),
    # Heads
    "adapter on the head": Refusal(
        "The output head is a {head}: the weights of an adapter there would silently not be trained.",
        "Leave the head (lm_head) out of target_modules, and ensure_weight_tying at False; modules_to_save=['lm_head'] "
        "is fine.",
    ),
    "trainable tokens of tied embeddings": Refusal(
        "Trainable tokens (trainable_token_indices) of tied embeddings put an adapter on the output head, too, whose rows "
        "would silently not be trained.",
        "Untie the embeddings (tie_word_embeddings=False), or train all rows: modules_to_save=['embed_tokens'] with "
        "ensure_weight_tying=True.",
    ),
    "quantised head": Refusal(
        "The output head is a {head}, a quantised layer: its weight cannot be trained, nor used at all where it is tied.",
        "Leave llm_int8_skip_modules at its default, which spares the head, or add 'lm_head' to it.",
    ),
    "another kind of head": Refusal(
        "The output head is a {head}, not a plain linear layer: what it does beyond that would be lost.",
        "Use a model with a torch.nn.Linear head.",
    ),
    "patched head": Refusal(
        "The output head's forward was replaced on the instance: what it does instead would be lost.",
        "Undo the patch (del head.forward).",
    ),
    "hooks on the head": Refusal(
        "{hook} is a forward hook on the output head, which never sees logits here, nor changes them.",
        "Remove it (the handle that register_forward_hook returned has remove()); hooks elsewhere are fine.",
    ),
    "head never called": Refusal(
        "{model} never called its output head, so there is nothing to train.", "Use a model whose logits come from it."
    ),
    "head called twice": Refusal(
        "{model} called its output head twice in one forward: only one set of logits can be trained.",
        "Switch off what else uses the head, such as multi-token prediction.",
    ),
    # Logits and losses
    "logits without the head": Refusal(
        "This model's logits do not depend on its output head, so there is nothing to train.",
        "Use a model whose logits come from it.",
    ),
    "changed logits": Refusal(
        "This model changes its logits by more than a scale and a tanh softcap (a cut of the last columns aside): "
        "{given} from the head became {seen}, expected {expected}; its loss cannot be computed from the head.",
        "Leave the change out in training, or use the model's own loss.",
    ),
    "logits of the batch's shape": Refusal(
        "This model fails where the head gives it the logits of {tokens} tokens of the first sequence, so what it does "
        "to its logits or in its loss depends on the batch and cannot be read off: {error}",
        "Leave that out in training, or use the model's own loss.",
    ),
    "learned logit transform": Refusal(
        "This model changes its logits with a weight that trains; the fused loss would give it no gradient.",
        "Freeze that weight (requires_grad_(False)).",
    ),
    "changing logit transform": Refusal(
        "The model's logit transform changed from {before} to {now} between calls.", "Keep it as it is in training."
    ),
    "another loss": Refusal(
        "{model}'s own loss is not the cross-entropy of each next token, with the router loss where there is one: what "
        "it adds (a z-loss, say), or another shift of the labels, would be lost.",
        "Switch the addition off in its config, use a decoder that shifts its labels itself, or use the model's own loss.",
    ),
    # References
    "sharded starting model": Refusal(
        "The default reference is a frozen copy of the model, and weights that FSDP or ZeRO-3 has sharded cannot be copied here.",
        "Attach before fully_shard, pass reference=: another copy of the starting model, or use SFTTrainer.",
    ),
    "reference of another vocabulary": Refusal(
        "The reference's vocabulary has {reference} entries, the model's {model}: the KL is undefined.",
        "Use a reference with the same tokenizer and head size.",
    ),
    "reference with FSDP1": Refusal(
        "A reference model is not supported with FSDP1.", "Use FSDP2 (fsdp_version: 2), DeepSpeed, one device or DDP."
    ),
    # Parallelism
    "vocabulary-sharded head": Refusal(
        "Tensor parallelism has sharded the output head's weight over devices (DTensor).",
        "Keep lm_head out of the tensor-parallel plan; a plan of the other layers is fine with attach.",
    ),
    "tensor, context or sequence parallelism": Refusal(
        "Tensor, context and sequence parallelism are not supported.", "Use DDP, FSDP2 or DeepSpeed."
    ),
}


def refusal(name: str, /, **facts: Any) -> ValueError:
    """The error to raise for the case `name` of REFUSALS."""
    return ValueError(" ".join(REFUSALS[name]).format(**facts))
