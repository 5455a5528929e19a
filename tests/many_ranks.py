"""Short training runs over however many ranks, on every engine; test_sft_distributed.py and a benchmark start them.

Usage: many_ranks.py FOLDER ENGINE CASE..., one process per rank with torchrun's variables in its environment. Rank 0
leaves FOLDER/ENGINE-RANKS-CASE.pt. One rank takes batches of ROWS, several share them: all see the same data.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ROWS = 8  # of all ranks in one step
STEPS = 3
HERE = Path(__file__)


class Case(NamedTuple):
    """What is trained; `options` are SFTConfig's, `adapter` LoraConfig's, `model` a folder that `write_models` makes."""

    objective: str = "nll"
    options: dict[str, Any] = {}  # noqa: RUF012
    adapter: dict[str, Any] | None = None
    model: str = "model"
    empty: bool = False  # the second half of every batch has no trained token


KL = dict(objective_kwargs={"kl_weight": 1.0}, learning_rate=5.0)  # so that the KL is a large part of the gradient
ANOTHER = {"reference": "other", "objective_kwargs": {"kl_weight": 1.0}}
EKSFT = {"reference": "other", "selection_scope": "step", "objective_kwargs": dict(entropy_fraction=0.3, kl_fraction=0.3)}
PACKED = dict(packing=True, max_length=24, dataset_kwargs=None)
LORA = dict(r=4, target_modules=["q_proj", "v_proj", "up_proj"], lora_dropout=0.0)
HEAD_SAVED = {**LORA, "modules_to_save": ["lm_head"]}
ON_HEAD = {**LORA, "target_modules": ["q_proj", "v_proj", "up_proj", "lm_head"]}
CASES = {
    "nll": Case(),
    "sed, calibrated": Case("sed"),
    "tied head": Case(model="tied"),
    "accumulation": Case(options={"gradient_accumulation_steps": 2}),
    "empty rank": Case("asft", KL, empty=True),
    "packing": Case(options=PACKED),
    "LoRA": Case(adapter=LORA),
    "reference": Case("asft", KL),
    "reference of its own": Case("asft", ANOTHER),
    "reference, tied head": Case("asft", KL, model="tied"),
    "reference, packing": Case("asft", {**KL, **PACKED}),
    "reference, LoRA": Case("asft", {**KL, "learning_rate": 20.0}, LORA),
    "reference, LoRA, head saved": Case("asft", {**KL, "learning_rate": 20.0}, HEAD_SAVED),
    "reference, LoRA, biases": Case("asft", {**KL, "learning_rate": 20.0}, {**LORA, "bias": "all"}, "biased"),
    "reference, LoRA, packing": Case("asft", {**KL, **PACKED, "learning_rate": 20.0}, LORA),
    "cached reference": Case("asft", {**KL, "reference": "cache"}),
    "cached reference, LoRA, head saved": Case("asft", {**KL, "reference": "cache", "learning_rate": 20.0}, HEAD_SAVED),
    "LoRA on the head": Case("asft", {**KL, "learning_rate": 20.0}, ON_HEAD),
    "eksft over the step": Case("eksft", EKSFT),
    "eksft over the step, accumulation": Case("eksft", {**EKSFT, "gradient_accumulation_steps": 2}),
    "activation checkpointing": Case(options={"gradient_checkpointing": True}),
    "activation offloading": Case(options={"activation_offloading": True, "gradient_checkpointing": False}),
    "torch.compile": Case(options={"torch_compile": True, "torch_compile_backend": "aot_eager"}),
    "bf16": Case(options={"bf16": True}),
    "bf16, reference of its own": Case("asft", {**ANOTHER, "bf16": True}),
}

FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}  # fmt: skip
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}
# What accelerate's launcher sets for multi_gpu, fsdp2, zero2 and zero3 of TRL, and variants
ENGINES: dict[str, dict[str, str]] = {
    "one": {},  # a process of its own
    "ddp": {},
    "fully_shard": {},  # an attached model in a loop of its own
    "fsdp2": FSDP,
    "fsdp2, one group": FSDP | {"FSDP_AUTO_WRAP_POLICY": "NO_WRAP"},
    "fsdp2, kept whole": FSDP | {"FSDP_RESHARD_AFTER_FORWARD": "false"},
    "zero2": DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "zero3": DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true"},
    "zero3, loaded whole": DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
}
GROUPINGS = ("root", "layers", "layers, head", "head and norm", "every linear layer")
ATTACHED = {  # of engine fully_shard: (grouping, with a reference, freed after the forward)
    f"{grouping}{', freed' if freed else ''}{', reference' if reference else ''}": (grouping, reference, freed)
    for grouping in GROUPINGS
    for reference in (False, True)
    for freed in (False, True)
}


def environment(engine: str, folder: Path, ranks: int) -> dict[str, str]:
    """For the processes of `engine`, without their ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", **ENGINES.get(engine, {})}
    path = [str(HERE.parent.parent / "src"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    given |= {"PYTHONPATH": os.pathsep.join(path), "WORLD_SIZE": str(ranks), "HF_DATASETS_CACHE": str(folder / "cache")}
    if stage := given.get("ACCELERATE_DEEPSPEED_ZERO_STAGE"):
        zero = {"stage": int(stage), "stage3_gather_16bit_weights_on_model_save": True}
        zero |= {"stage3_param_persistence_threshold": 0}  # by default weights as small as these stay whole
        sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
        settings = {"zero_optimization": zero, "zero_allow_untested_optimizer": True, "bf16": {"enabled": "auto"}}
        settings |= dict.fromkeys((*sizes, "gradient_clipping"), "auto")
        (folder / f"{engine}.json").write_text(json.dumps(settings))
        given |= {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(folder / f"{engine}.json")}
        given |= {"DS_ACCELERATOR": device()}
        given |= {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}  # ninja's
    if device() == "cpu":
        given |= {"ACCELERATE_TORCH_DEVICE": "cpu"} if ENGINES.get(engine) else {"ACCELERATE_USE_CPU": "true"}
    return os.environ | given


def device() -> str:
    """cuda, xpu, ... where there is an accelerator, else cpu."""
    return torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"


def start(folder: Path, engine: str, ranks: int, cases: Iterable[str]) -> list[subprocess.Popen]:
    """One process per rank."""
    given, processes = environment(engine, folder, ranks), []
    for rank in range(ranks):
        own = given | ({} if engine == "one" else {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        command = [sys.executable, str(HERE), str(folder), engine, *cases]
        with open(folder / f"{engine}-{ranks}-{rank}.log", "w") as log:
            processes.append(subprocess.Popen(command, env=own, stdout=log, stderr=subprocess.STDOUT))
    return processes


def finished(folder: Path, engine: str, processes: list[subprocess.Popen], timeout: float) -> str:
    """Waits for them; what the first that failed said last, or nothing."""
    end = time.monotonic() + timeout
    try:
        for process in processes:
            process.wait(max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"not finished after {timeout:.0f} s"
    finally:
        for process in processes:
            process.kill()
    logs = [folder / f"{engine}-{len(processes)}-{rank}.log" for rank in range(len(processes))]
    failed = [log for log, process in zip(logs, processes, strict=True) if process.returncode]
    return failed[0].read_text()[-3000:] if failed else ""


def write_models(folder: Path) -> None:
    """The starting models and a reference, with a tokenizer."""
    from manypaths.testing.samples import llama
    from manypaths.testing.trainers import tokenizer

    tied = llama()
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    for name, model in {"model": llama(), "tied": tied, "biased": llama(attention_bias=True), "other": llama(seed=1)}.items():
        model.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)


def rows(empty: bool) -> list[dict[str, list[int]]]:
    """Sequences of unequal lengths, and so unequal numbers of trained tokens per rank."""
    from manypaths.testing.samples import sequences

    made = [(ids.tolist(), labels.tolist()) for ids, labels in sequences((9, 5, 12, 7, 14, 6, 10, 8) * 9)]
    return [
        {"input_ids": ids, "labels": [-100] * len(ids) if empty and index % ROWS >= ROWS // 2 else labels}
        for index, (ids, labels) in enumerate(made)
    ]


def train(folder: Path, engine: str, name: str) -> dict[str, Any]:
    """One run: {"steps": what each logged, "before": {name: trained weight}, "after": the same}."""
    from datasets import Dataset
    from peft import LoraConfig

    import manypaths
    from manypaths.testing.trainers import tokenizer

    case, ranks = CASES[name], int(os.environ["WORLD_SIZE"])
    options = dict(case.options)
    if options.get("reference") == "cache":
        options["reference_cache"] = str(folder / f"cache of {engine}, {ranks}, {name}")
    elif "reference" in options:
        options["reference"] = str(folder / options["reference"])
    accumulated = options.get("gradient_accumulation_steps", 1)
    settings = dict(
        max_steps=STEPS, per_device_train_batch_size=ROWS // ranks // accumulated, optim="sgd", learning_rate=0.5,
        lr_scheduler_type="constant", max_grad_norm=1e9, logging_steps=1, report_to="none", bf16=False,
        use_cpu=device() == "cpu" and not ENGINES.get(engine), gradient_checkpointing=False, save_strategy="no",
        disable_tqdm=True, dataset_kwargs={"skip_prepare_dataset": True}, train_sampling_strategy="sequential",
        model_init_kwargs={"dtype": "float32"}, calibration_sequences=8, ddp_timeout=300, seed=0,
    )  # fmt: skip
    trainer = manypaths.SFTTrainer(
        str(folder / case.model),
        manypaths.SFTConfig(str(folder / "run"), objective=case.objective, **{**settings, **options}),
        train_dataset=Dataset.from_list(rows(case.empty)),
        processing_class=tokenizer(),
        peft_config=case.adapter and LoraConfig(**case.adapter),
    )
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    before: list[dict[str, Tensor]] = []
    call = trainer.compute_loss

    def first(*args: Any, **kwargs: Any) -> Any:
        if not before:
            before.append(weights(trainer, trained))
        return call(*args, **kwargs)

    trainer.compute_loss = first
    trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    return {"steps": steps, "before": before[0], "after": weights(trainer, trained)}


def weights(trainer: Any, trained: set[str]) -> dict[str, Tensor]:
    """The whole weights that train, on rank 0 at least."""
    parts = {"_orig_mod.": "", "module.": "", "_checkpoint_wrapped_module.": ""}
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}
    for part, nothing in parts.items():
        state = {name.replace(part, nothing): value for name, value in state.items()}
    return {name: value.detach().float().cpu().clone() for name, value in state.items() if name in trained}


def grouped(model: nn.Module, grouping: str, **options: Any) -> nn.Module:
    """`fully_shard` of these parts, then of the rest."""
    from torch.distributed.fsdp import fully_shard

    body = model.model
    parts: dict[str, list[Any]] = {
        "root": [],
        "layers": list(body.layers),
        "layers, head": [*body.layers, model.lm_head],
        "head and norm": [[body.norm, model.lm_head]],
        "every linear layer": [module for module in model.modules() if isinstance(module, nn.Linear)],
    }
    for part in parts[grouping]:
        fully_shard(part, **options)
    return fully_shard(model, **options)


def attached(grouping: str, reference: bool, reshard: bool) -> dict[str, Any]:
    """STEPS steps of plain SGD on an attached model, in a process group sharded by `fully_shard`."""
    import torch.distributed as dist

    from manypaths.testing.samples import llama, padded
    from manypaths.training.attachment import attach

    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ.get("RANK", 0))
    model, other = llama().to(device()), llama(seed=1).to(device())
    before = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}
    if dist.is_initialized():
        for each in (model, other):
            grouped(each, grouping, reshard_after_forward=reshard)
    attach(model, *(("asft", {"kl_weight": 1.0}, other) if reference else ("nll",)))
    steps, share = [], ROWS // ranks
    for step in range(STEPS):
        own = rows(empty=False)[step * ROWS :][rank * share :][:share]
        batch = padded([(torch.tensor(row["input_ids"]), torch.tensor(row["labels"])) for row in own])
        batch = {name: value.to(device()) for name, value in batch.items()}
        items = (batch["labels"][:, 1:] != -100).sum()
        if dist.is_initialized():
            dist.all_reduce(items)
        loss = model(**batch, num_items_in_batch=items).loss
        (loss * ranks).backward()  # FSDP takes the mean over ranks
        if dist.is_initialized():
            dist.all_reduce(loss.detach())
        steps.append({"loss": float(loss.detach())})
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.5 * weight.grad
                weight.grad = None
    after = {name: getattr(weight, "full_tensor", lambda w=weight: w)() for name, weight in model.named_parameters()}
    return {"steps": steps, "before": before, "after": {name: w.detach().cpu() for name, w in after.items()}}


def accelerate_with_cpus() -> None:
    """FSDP and DeepSpeed, which accelerate offers for accelerators, on CPU ranks: the CPU is passed off as one."""
    import transformers.training_args
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    transformers.training_args.is_torch_bf16_gpu_available = lambda: True
    PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_XPU)


def difference(one: dict[str, Any], many: dict[str, Any]) -> tuple[float, float]:
    """Of the losses, the largest relative one; and of the update of all weights, as one vector, the relative one."""
    pairs = zip(one["steps"], many["steps"], strict=True)
    loss = max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in pairs)
    return loss, distance(one["after"], many["after"]) / distance(one["after"], one["before"])


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Of two sets of weights with the same names."""
    assert a and a.keys() == b.keys()
    return sum(float((a[name].double() - b[name].double()).square().sum()) for name in a) ** 0.5


def main(folder: Path, engine: str, cases: list[str]) -> None:
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ["WORLD_SIZE"])
    if ENGINES[engine] and device() == "cpu":
        accelerate_with_cpus()
    if device() != "cpu" and "LOCAL_RANK" in os.environ:
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    if engine == "fully_shard":
        torch.distributed.init_process_group()
    for name in cases:
        begin = time.monotonic()
        try:
            result = attached(*ATTACHED[name]) if name in ATTACHED else train(folder, engine, name)
        except ValueError as error:  # a refusal, on all ranks alike
            result = {"refused": str(error)}
        if rank == 0:
            torch.save(result, folder / f"{engine}-{ranks}-{name}.pt")
        print(f"{name}: {time.monotonic() - begin:.1f} s", flush=True)
    os._exit(0)  # without the destructors of process groups, which can wait for each other


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
