"""The tiny Llama of the built-in worlds (about 164 thousand weights) and its packaged checkpoints."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .tokenizer import BOS_ID, EOS_ID, PAD_ID, VOCABULARY, build_tokenizer
from .world import World, resolve_world

_TIED = "lm_head.weight"  # shares its tensor with the embedding, so it is not stored


def build_model() -> LlamaForCausalLM:
    """A randomly initialised model (float32, tied embeddings); seed torch before calling it."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return LlamaForCausalLM(config)


def checkpoint_path(world: str | World) -> Path:
    """Where the package keeps the base weights of a world."""
    return Path(__file__).parent / "weights" / resolve_world(world).name / "model.safetensors"


def save_base(model: LlamaForCausalLM, world: str | World) -> Path:
    """Write a model as the base of a world."""
    path = checkpoint_path(world)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != _TIED}
    save_file(weights, path, metadata={"format": "pt"})
    return path


def load_base(world: str | World) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The pre-trained base of a world, in evaluation mode, and the tokenizer.

    Raises ValueError for an unknown world and FileNotFoundError when its checkpoint is missing: rebuild it
    with `python -m manypaths.worlds.pretrain --world NAME`.
    """
    weights = load_file(checkpoint_path(world))
    model = build_model()
    model.load_state_dict({**weights, _TIED: weights["model.embed_tokens.weight"]})
    return model.eval(), build_tokenizer()
