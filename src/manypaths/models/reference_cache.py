"""The reference of KL statistics from disk, so that training needs no second model.

A KL needs all V log-probabilities of the reference at every trained token. They follow from D numbers: its last hidden
state there, and its head, which is the same for all tokens. So a cache holds the hidden states of the tokens that predict a
trained label, as the head saw them, and the head once; the engine computes the KL from these as from a live reference.

Of a causal model a document's hidden states depend on its own tokens alone. They are found by a hash of these, so that
order, packing, batches, processes and epochs may change, and another document, truncation or mask is never mistaken for it.

A folder is made for one model and one set of documents: files of rows that appear whole, the head, and a record that says
last that all are there.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..engine import Projection
from ..run_folder import SHOWN, as_json, differences, fingerprint, write_whole
from .lm_head import base_of, is_peft, is_plain, name_of, output_head
from .refusals import refusal

RECORD, HEAD, ROWS = "reference.json", "head.safetensors", "rows-*.safetensors"
FILE_BYTES = 1 << 28  # of rows in memory before they are a file: what a kill may cost
# In a config but not in the hidden states
UNIMPORTANT = ("_name_or_path", "architectures", "transformers_version", "use_cache")
ANOTHER = "Give another --reference_cache, or remove the folder if nothing needs it any more."


class Document(NamedTuple):
    """Tokens that see each other: a sequence without its padding, or one of several that are packed."""

    key: bytes  # 16: of its token ids, their positions, and which of them predict a trained label
    rows: int  # how many do


def documents(inputs: Mapping[str, Any], labels: Tensor) -> tuple[list[Document], Tensor]:
    """The documents with a trained label of `input_ids` and `labels` [B, S], in order, and their rows: [B, S] bool.

    Raises:
        ValueError: a trained label behind padding.
    """
    ids = inputs["input_ids"].cpu()
    mask = inputs.get("attention_mask")
    attended = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.cpu().bool()
    positions = inputs.get("position_ids")
    positions = torch.arange(ids.shape[1]).expand_as(ids) if positions is None else positions.cpu().expand_as(ids)
    trained = F.pad(labels[:, 1:] != -100, (0, 1))
    table = torch.stack((ids, positions, trained.cpu()), 1)
    if (trained.cpu() & ~attended).any():
        raise ValueError("A label stands right behind padding, where no token predicts it; its label must be -100.")
    found = []
    for row, inside in zip(table, attended, strict=True):
        row = row[:, inside]
        for document in row.tensor_split((row[1] == 0).nonzero()[:, 0], dim=1):
            if rows := int(document[2].sum()):
                digest = hashlib.blake2b(document.contiguous().numpy().tobytes(), digest_size=16)
                found.append(Document(digest.digest(), rows))
    return found, trained


def identity_of(model: nn.Module) -> dict[str, Any]:
    """What the hidden states of a starting model follow from, as JSON: its config, and a checksum of its weights.

    Of a PEFT model the base under its adapter counts, by the names that it has without one. Weights on the meta device,
    as FSDP loads them on all ranks but the first, are left out; those that ZeRO-3 has partitioned are gathered.

    Raises:
        ValueError: weights that FSDP2 or tensor parallelism has sharded already.
    """
    base = base_of(model)
    config = {name: value for name, value in base.config.to_dict().items() if name not in UNIMPORTANT}
    adapters = set(model.peft_config) if is_peft(model) else set()
    sums = {
        re.sub(r"\.(base_layer|original_module)\b", "", name): checksum(name, weight)
        for name, weight in base.named_parameters()
        if not weight.is_meta and adapters.isdisjoint(name.split("."))
    }
    return as_json({"config": config, "weights": fingerprint(sums)[:16]})


def checksum(name: str, weight: nn.Parameter) -> int:
    if isinstance(weight, DTensor):
        raise refusal("cached reference of sharded weights", name=name)
    with gathered(weight):
        return zlib.crc32(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def gathered(weight: nn.Parameter) -> AbstractContextManager[Any]:
    """A context in which a weight is whole on every rank, also where ZeRO-3 has partitioned it."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(weight)


class ReferenceCache:
    """A folder with a reference's hidden states, read as it is now.

    Args:
        folder: made when the first rows are written.
        identity: JSON values that decide the hidden states. A folder that was made with other ones is refused.

    Attributes:
        complete: whether all documents of the data that it was made of are there.

    Raises:
        ValueError: a cache of another model, or one with damaged files.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.identity = as_json(identity)
        self.pending: dict[bytes, Tensor] = {}
        self.read()

    def read(self) -> None:
        """Takes over what is in the folder now."""
        self.files: list[Any] = []
        self.places: dict[bytes, tuple[int, int, int]] = {}  # file, and rows of it from and to
        self.head: Projection | None = None
        path = self.folder / RECORD
        self.record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if self.record is None:
            if any(self.folder.glob(ROWS)):
                raise ValueError(f"{self.folder} holds hidden states but no {RECORD} that says of what. {ANOTHER}")
            return
        if changes := differences(self.record["model"], self.identity):
            raise ValueError(
                f"{self.folder} holds the hidden states of another reference ({'; '.join(changes[:SHOWN])}). {ANOTHER}"
            )
        for number, file in enumerate(sorted(self.folder.glob(ROWS))):
            self.files.append(opened(file))
            keys, rows = (self.files[-1].get_tensor(name) for name in ("keys", "rows"))
            ends = rows.cumsum(0).tolist()
            for key, start, end in zip(keys.numpy(), [0, *ends], ends, strict=False):
                self.places[key.tobytes()] = (number, start, end)

    @property
    def complete(self) -> bool:
        return self.record is not None and self.record["complete"]

    def check_data(self, data: Mapping[str, Any], absent: int) -> None:
        """ValueError where the cache is of other data than `data`, a record of it, `absent` of whose documents it lacks."""
        if self.complete and absent:
            raise ValueError(
                f"{self.folder} holds the reference of other data: {absent:,} of the {data['documents']:,} documents are not "
                f"in it. Data, chat template, --max_length and what carries loss have to be the same. {ANOTHER}"
            )
        if self.record and not self.complete and (changes := differences(self.record["data"], as_json(data))):
            raise ValueError(
                f"{self.folder} holds the beginning of a reference of other data ({'; '.join(changes)}). {ANOTHER}"
            )

    def write_record(self, data: Mapping[str, Any], complete: bool) -> None:
        self.record = {"model": self.identity, "data": as_json(data), "complete": complete}
        write_whole(self.folder / RECORD, json.dumps(self.record, indent=1) + "\n")

    def write_head(self, projection: Projection) -> None:
        """Keeps the head, and what the model does to its logits; ValueError for one that is more than a weight."""
        if not isinstance(projection.weight, Tensor):
            raise refusal("cached reference of a head module", head=name_of(projection.weight.head))
        tensors = {"weight": projection.weight, "bias": projection.bias}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items() if value is not None}
        facts = {"softcap": projection.softcap, "logit_scale": projection.logit_scale}
        facts["dtype"] = str(projection.hidden_states.dtype).removeprefix("torch.")
        write_whole(self.folder / HEAD, save(tensors, {"head": json.dumps(facts)}))

    def add(self, found: Sequence[Document], rows: Tensor) -> None:
        """Keeps the rows [T, D] of documents, in their order; those that are there already are passed over.

        Raises:
            ValueError: NaN or inf among them.
        """
        if not torch.isfinite(rows).all():
            raise ValueError("The reference's hidden states hold NaN or inf: its weights or its input are broken.")
        for document, part in zip(found, rows.cpu().split([document.rows for document in found]), strict=True):
            if document.key not in self.places:
                self.pending[document.key] = part
        if sum(part.nbytes for part in self.pending.values()) >= FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what was added into a file of its own, named after what is in it."""
        if not self.pending:
            return
        keys, parts = b"".join(self.pending), list(self.pending.values())
        tensors = {
            "keys": torch.frombuffer(bytearray(keys), dtype=torch.uint8).view(-1, 16),
            "rows": torch.tensor([len(part) for part in parts]),
            "hidden": torch.cat(parts),
        }
        write_whole(self.folder / ROWS.replace("*", hashlib.blake2b(keys, digest_size=8).hexdigest()), save(tensors))
        self.pending.clear()

    def projection(self, inputs: Mapping[str, Any], labels: Tensor) -> Projection:
        """The reference at a batch, as a live one gives it: rows that predict no trained label are 0.

        Raises:
            ValueError: a document that is not in the cache.
        """
        found, trained = documents(inputs, labels)
        if missing := sum(document.key not in self.places for document in found):
            raise ValueError(
                f"{missing} of the {len(found)} documents of this batch are not in {self.folder}, which holds the training and "
                "evaluation data that the trainer was built with."
            )
        head = self.head
        parts = [head.hidden_states, *(self.rows_of(document) for document in found)]
        hidden = head.weight.new_zeros(*labels.shape, head.weight.shape[1], dtype=head.hidden_states.dtype)
        hidden[trained.to(hidden.device)] = torch.cat(parts).to(hidden.device)
        return head._replace(hidden_states=hidden)

    def rows_of(self, document: Document) -> Tensor:
        """[rows, D] of a document."""
        number, start, end = self.places[document.key]
        return self.files[number].get_slice("hidden")[start:end]

    def load_head(self, model: nn.Module, device: torch.device) -> None:
        """The stored head, or that of `model` where it is the same one and never trains, which takes no memory."""
        with opened(self.folder / HEAD) as file:
            facts = json.loads(file.metadata()["head"])
            weight, bias = (file.get_tensor(name) if name in file.keys() else None for name in ("weight", "bias"))  # noqa: SIM118
        head = output_head(model)
        live = head.weight if is_plain(head) and not isinstance(head.weight, DTensor) else None
        if live is not None and not live.requires_grad and live.shape == weight.shape:
            weight = live.detach() if torch.equal(live.detach().cpu().to(weight.dtype), weight) else weight
        empty = torch.empty(0, weight.shape[1], dtype=getattr(torch, facts["dtype"]))
        bias = None if bias is None else bias.to(device)
        self.head = Projection(empty, weight.to(device), bias, facts["softcap"], facts["logit_scale"])


def opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged or missing ({error}). Remove the folder {file.parent}.") from error
