"""Where models run when nobody says: the accelerator if there is one, else the CPU."""

from typing import Any


def default_device() -> Any:
    import torch

    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def free_memory() -> None:
    """Give back what deleted models held, to whoever needs it next."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
