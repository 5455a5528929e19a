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
    "head of unknown size": Refusal(
        "The output head is a {head}, which does not say how many tokens it has logits of.",
        "Set its attribute out_features to the size of the vocabulary.",
    ),
    "head that mixes tokens": Refusal(
        "The output head is a {head}, where a token's logits depend on other tokens, too; the loss sees some tokens at a time.",
        "Use a head that treats each token alone; for bitsandbytes' 8-bit layers that is llm_int8_threshold=0.0.",
    ),
    "weights that the head hides": Refusal(
        "The output head is a {head}, which uses weights that train but are not among its parameters: they would get no "
        "gradient.",
        "Register them in the head, freeze them, or leave the head out of target_modules.",
    ),
    "partitioned head": Refusal(
        "The output head is a {head} whose weights DeepSpeed ZeRO-3 has partitioned: they are whole one layer at a time.",
        "Leave the head out of target_modules and of the quantisation, or use ZeRO-2.",
    ),
    "sharded reference head": Refusal(
        "The reference's output head is a {head} whose weights FSDP2 or ZeRO-3 frees before they are compared with.",
        "Merge its adapter, leave the head out of the quantisation, or give every rank a whole reference.",
    ),
    "weights packed for inference": Refusal(
        "{name} is in bitsandbytes' layout for inference on a CPU, through which no gradient passes: a forward without "
        "gradients in evaluation mode changes 4-bit weights to it for good.",
        "Load the model again, keep it in train() mode, and leave out what evaluates it (evaluation, calibration, a reference "
        "that is the adapter switched off); or train on another device, or in 8 bit.",
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
    "cached reference of a head module": Refusal(
        "A cache keeps the weight of the reference's head, which is a {head}.",
        "Leave the head out of the quantisation, or use a live reference.",
    ),
    "cached reference of sharded weights": Refusal(
        "A cached reference is known by the weights of its starting model, and {name} is sharded already.",
        "Give the trainer a whole model, which it shards itself, or use a live reference.",
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
