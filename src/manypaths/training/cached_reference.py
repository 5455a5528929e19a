"""The trainer's reference from disk: checked against its data at once, made by the model itself before its first step."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object, send_to_device
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from tqdm import tqdm

from ..engine import Projection
from ..models.lm_head import HeadHook, is_peft
from ..models.loading import evaluating
from ..models.reference_cache import HEAD, RECORD, Document, ReferenceCache, documents, identity_of
from ..run_folder import locked

FOLDER = "_reference_cache"  # in output_dir; uploads to the hub leave out what begins with an underscore


class CachedReference:
    """The starting model's hidden states on disk, for one set of data.

    Every rank compares and stores its share of the batches; all have to see the folder.

    Args:
        model: the starting model, before it is wrapped, sharded or trained.
        args: an SFTConfig.
        datasets: prepared rows, of all that will be trained on and evaluated.
        collated: rows of them as the trainer's batch.

    Raises:
        ValueError: a cache of another model or of other data.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Any,
        accelerator: Any,
        datasets: Sequence[Dataset],
        collated: Callable[[list[dict[str, Any]]], dict[str, Any]],
    ) -> None:
        identity = {**identity_of(model), "precision": str(accelerator.mixed_precision)}
        (identity,) = broadcast_object_list([identity])  # other ranks may be without weights yet
        self.cache = ReferenceCache(args.reference_cache or Path(args.output_dir, FOLDER), identity)
        self.accelerator, self.collated = accelerator, collated
        self.quiet = args.disable_tqdm or not accelerator.is_main_process
        size = args.per_device_train_batch_size
        self.batches = [
            (dataset, range(start, min(start + size, len(dataset))))
            for dataset in datasets
            for start in range(0, len(dataset), size)
        ]
        self.compare()

    def batch(self, dataset: Dataset, rows: range) -> tuple[dict[str, Any], Tensor]:
        inputs = {**self.collated([dataset[row] for row in rows]), "use_cache": False}
        return inputs, inputs.pop("labels")

    def compare(self) -> None:
        """Finds the batches of this rank that are not in the cache; ValueError for a cache of other data."""
        mine = self.batches[self.accelerator.process_index :: self.accelerator.num_processes]
        found = [documents(*self.batch(*batch))[0] for batch in mine]
        absent = [[document for document in each if document.key not in self.cache.places] for each in found]
        self.todo = [batch for batch, missing in zip(mine, absent, strict=True) if missing]
        keys = sum(int.from_bytes(document.key, "big") for document in chain(*found))  # in whatever order they come
        gathered = gather_object([(*extent(found), *extent(absent), keys)])
        number, rows, missing, self.absent_rows, keys = (sum(column) for column in zip(*gathered, strict=True))
        self.data = {"documents": number, "trained_tokens": rows, "fingerprint": f"{keys % (1 << 128):032x}"}
        self.cache.check_data(self.data, missing)

    def check_resumable(self, checkpoint: str) -> None:
        """ValueError where the starting model would be needed, and a checkpoint is what is there."""
        if not self.cache.complete:
            raise ValueError(
                f"{self.cache.folder} does not hold the whole reference, and the model of {checkpoint} is no longer the "
                "starting one. Give the --reference_cache that the run began with, or start over."
            )

    def fill(self, hook: HeadHook, policy: Callable[..., Any]) -> None:
        """Stores what is missing, from the policy before its first step; goes on where an earlier pass was killed.

        Raises:
            ValueError: another run is at it, a process does not see the folder, or the disk has too little room.
        """
        first, wait = self.accelerator.is_main_process, self.accelerator.wait_for_everyone
        cache, todo = self.cache, self.todo or self.batches[:1]  # as many forwards on every rank: each may hold weights
        with locked(cache.folder) if first else nullcontext():
            if first:
                cache.write_record(self.data, complete=False)
            wait()
            if not (cache.folder / RECORD).is_file():
                raise ValueError(
                    f"Not every process sees {cache.folder}; give a --reference_cache that all of them share."
                )
            steps = max(gather_object([len(self.todo)]))
            for step in tqdm(range(steps), desc="storing the reference", unit="batch", disable=self.quiet):
                inputs, labels = send_to_device(self.batch(*todo[min(step, len(todo) - 1)]), self.accelerator.device)
                found, trained = documents(inputs, labels)
                rows = starting_rows(hook, policy, inputs, trained, cache if first else None)
                if first and step == 0:
                    self.check_room(rows)
                cache.add(found, rows)
            cache.flush()
            wait()
            if first:
                cache.write_record(self.data, complete=True)
            wait()
        cache.read()

    def check_room(self, rows: Tensor) -> None:
        needed = self.absent_rows * rows.shape[1] * rows.element_size()
        self.accelerator.print(
            f"reference: storing {self.absent_rows:,} of {self.data['trained_tokens']:,} trained tokens in {self.cache.folder} "
            f"({needed / 1e9:.3g} GB)"
        )
        free = shutil.disk_usage(self.cache.folder).free
        if needed > free:
            raise ValueError(
                f"{self.cache.folder} has room for {free / 1e9:.3g} GB and the reference needs {needed / 1e9:.3g} GB. Give "
                "another --reference_cache."
            )

    def projection(self, policy: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> Projection:
        """What the live reference would give for this batch."""
        if self.cache.head is None:
            self.cache.load_head(policy, labels.device)
        return self.cache.projection(inputs, labels)


def extent(found: Sequence[Sequence[Document]]) -> tuple[int, int]:
    """How many documents, and how many trained tokens."""
    return sum(map(len, found)), sum(document.rows for document in chain(*found))


def starting_rows(
    hook: HeadHook, policy: Callable[..., Any], inputs: dict[str, Any], trained: Tensor, cache: ReferenceCache | None
) -> Tensor:
    """The hidden states [T, D] at the rows `trained` [B, S] of a batch, without adapter; `cache` takes the head, too."""

    def keep(projection: Projection) -> Tensor:  # inside the forward, where a sharded head is whole
        if cache is not None and not (cache.folder / HEAD).is_file():
            cache.write_head(projection)
        return projection.hidden_states[trained.to(projection.hidden_states.device)]

    without_adapter = hook.model.disable_adapter() if is_peft(hook.model) else nullcontext()
    with torch.no_grad(), evaluating(hook.model), without_adapter:
        rows = hook(lambda: policy(**inputs), keep).result
        for module in hook.model.modules():
            if isinstance(module, FSDPModule):  # or the adapter would be switched on again in gathered weights alone
                module.reshard()
    torch.clear_autocast_cache()  # as in hidden_states_of
    return rows
