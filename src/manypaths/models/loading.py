"""Models, tokenizers and configurations by folder or hub id, and where they run."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data.sources import one_line, read_text
from ..run_folder import base_of_adapter


def default_device() -> Any:
    """Where models run when nobody says: the accelerator if there is one, else the CPU."""
    import torch

    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def machine_defaults() -> dict[str, Any]:
    """TRL's default is bf16 on a GPU, which fails on a machine that has none; such a machine gets float32."""
    import torch
    from transformers.utils import is_torch_bf16_gpu_available

    if is_torch_bf16_gpu_available():
        return {}
    return {"bf16": False, "use_cpu": not torch.accelerator.is_available()}


def free_memory() -> None:
    """Give back what deleted models held, to whoever needs it next."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode, and afterwards every module in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def check_model(name: str, revision: str = "main") -> None:
    """FileNotFoundError for a folder without a model, ValueError for a hub id that gives none, and for damaged weights."""
    from transformers.utils import cached_file

    folder = Path(name)
    if folder.is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            raise FileNotFoundError(f"There is no model in {name}: no config.json in {folder.absolute()}.")
        check_weights(folder)
        check_base(folder)
        return
    try:
        cached_file(name, "config.json", revision=revision)
    except OSError as error:
        raise ValueError(f"{name!r} is not a folder here and not a model of the hub: {one_line(error)}") from error


def check_weights(folder: Path) -> None:
    """That every safetensors file of a model is whole; reads their headers."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{file} is cut off or damaged ({one_line(error)}): copy or download it again.") from error


def check_base(folder: Path) -> None:
    """That the model under an adapter is where the adapter says; a relative path counts from the current folder."""
    base = base_of_adapter(folder)
    if base is None or (folder / "config.json").is_file():
        return
    try:
        check_model(base)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f"{folder} is an adapter of {base}, which cannot be found from here: {error} Run where that path holds, or correct "
            f"base_model_name_or_path in {folder / 'adapter_config.json'}."
        ) from error


def load_model(path: str, dtype: str = "auto") -> Any:
    """A causal language model on the accelerator, or the CPU, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(default_device()).eval()


def load_config(path: str) -> Any:
    """The model's configuration; for a folder with an adapter, that of the model under it."""
    from transformers import AutoConfig

    alone = not (Path(path) / "config.json").is_file()
    return AutoConfig.from_pretrained((base_of_adapter(Path(path)) if alone else None) or path)


def load_tokenizer(path: str, chat_template_path: str | None = None) -> Any:
    """The model's tokenizer, with another chat template where one is given."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"Cannot load a tokenizer from {path}: {one_line(error)} Save the model's tokenizer beside it."
        ) from error
    if chat_template_path is not None:
        template = Path(chat_template_path)
        if not template.is_file():
            raise FileNotFoundError(f"There is no chat template at {template}.")
        tokenizer.chat_template = read_text(template)
    return tokenizer
