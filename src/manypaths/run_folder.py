"""One output folder, one run: locked while it works, and one small file remembers what the folder belongs to.

Every subcommand that writes a folder goes through `RunFolder`. Two runs never write to one folder, a folder never mixes
results of different settings, and files appear whole or not at all.
"""

import dataclasses
import enum
import errno
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

RUN_FILE = "manypaths_run.json"
LOCK = ".lock"
TRIES = 1000  # of making a folder that others may take away
SHOWN = 5  # differing settings in one message

# What says where results go, how they are shown and who is told: a run stays the same run when these change.
UNIMPORTANT = frozenset(
    [
        "output_dir",
        "overwrite_output_dir",
        "resume_from_checkpoint",
        "report_to",
        "run_name",
        "disable_tqdm",
        "project",
        "label",
        "stage",
        "train_seed",
        "push_to_hub",
        "save_total_limit",
        "save_strategy",
        "save_steps",
        "save_only_model",
        "save_safetensors",
        "save_on_each_node",
        "restore_callback_states_from_checkpoint",
        "reference_cache",
        "accelerate_config",
        "main_process_ip",
        "main_process_port",
        "machine_rank",
    ]
)
# Settings that may name local files or folders: what these hold counts, not where they lie.
PATHS = frozenset(
    [
        "model_name_or_path",
        "dataset_name",
        "eval_dataset_name",
        "datasets",
        "path",
        "data_files",
        "reference",
        "chat_template_path",
        "benchmarks",
        "prompts",
        "data_dir",
        "task_dir",
        "completions",
        "reward_model",
        "embedding_model",
    ]
)
CACHE = "cache"  # in the place of a model: the starting one, cached on disk
UNIMPORTANT_PREFIXES = ("logging_", "log_", "hub_", "push_to_hub_", "trackio_", "vllm_server_", "include_")


class RunFolder:
    """The output folder of one run, locked while it is open; use it as a context manager.

    Args:
        path: made when missing; one that got nothing goes again.
        subcommand: what writes here.
        settings: JSON values that decide the result; a folder that holds other ones is refused.
        parts: {name: settings} that may join later. One that is there already must be the same.
        leaves: patterns of files that such a run leaves; a folder that has some but no record is refused.

    Attributes:
        notes: JSON values remembered beside the settings, such as the backends that were used.

    Raises:
        ValueError: the path is a file, another run holds the folder or wrote it, or its record is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        subcommand: str,
        settings: Mapping[str, Any],
        parts: Mapping[str, Mapping[str, Any]] | None = None,
        leaves: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        self.leaves = leaves
        self.run = as_json({"subcommand": subcommand, "settings": settings, "parts": parts or {}})
        self.notes: dict[str, Any] = {}
        self.recorded = False

    def __enter__(self) -> "RunFolder":
        self._lock = locked(self.path)
        self._lock.__enter__()
        try:
            self.check()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def check(self) -> None:
        """Compare with what the folder remembers, and take over its parts and notes; writes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"The output folder {self.path} is a file; choose another --output_dir.")
        known = read_run(self.path)
        if known is None:
            files = sorted(file.name for pattern in self.leaves for file in self.path.glob(pattern))
            if files:
                raise ValueError(
                    f"The output folder {self.path} already holds {files[0]} of a run that left no {RUN_FILE}. "
                    "Choose another --output_dir."
                )
            return
        wanted = {name: self.run[name] for name in ("subcommand", "settings")}
        changes = differences({name: known[name] for name in wanted}, wanted)
        changes += differences({name: known["parts"][name] for name in self.run["parts"] if name in known["parts"]},
                               {name: part for name, part in self.run["parts"].items() if name in known["parts"]})  # fmt: skip
        if changes:
            more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
            raise ValueError(
                f"The output folder {self.path} holds another run ({'; '.join(changes[:SHOWN])}{more}). "
                "Choose another --output_dir, or remove the folder if that run is no longer needed."
            )
        self.run["parts"] = {**known["parts"], **self.run["parts"]}
        self.notes = {**known["notes"], **self.notes}

    def record(self) -> None:
        """Claim the folder: from now on it belongs to this run."""
        text = json.dumps({**self.run, "notes": as_json(self.notes)}, indent=1, sort_keys=True)
        write_whole(self.path / RUN_FILE, text + "\n")
        self.recorded = True


def read_run(folder: str | Path) -> dict[str, Any] | None:
    """What a folder remembers of its run: "subcommand", "settings", "parts" and "notes"; None where nothing is.

    Raises ValueError for a record that cannot be read.
    """
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        return None
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return {name: run[name] for name in ("subcommand", "settings", "parts", "notes")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged, so its run is unknown. Choose another --output_dir.") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, made when missing, for this process alone. One that was made and got nothing goes again.

    The kernel frees the lock when the process ends, however it ends. Raises ValueError where another process holds it.
    """
    made = missing(folder)
    with lock(folder):
        try:
            yield
        finally:  # still the only one, so that nobody else's lock or folder goes
            if made and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
            remove_empty(made)


@contextmanager
def nothing_left_on_failure(path: str | Path) -> Iterator[None]:
    """Trainers create their output folder when they are built; a failure before training takes it back."""
    made = missing(Path(path))
    try:
        yield
    except BaseException:
        remove_empty(made)
        raise


def missing(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist yet, innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for place in folders:
            place.rmdir()


def lock(folder: Path) -> BinaryIO:
    """The open lock file of a folder, made when missing; ValueError where another process has it.

    Whoever had it before may take its empty folder away between any two lines; then all is done again.
    """
    for left in reversed(range(TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("ab")
        except FileNotFoundError:
            if not left:  # a place such as /proc, where no folder can be made
                raise
            continue
        except FileExistsError as error:
            if os.path.lexists(folder) and not folder.is_dir():
                raise ValueError(f"The output folder {folder} is a file; choose another --output_dir.") from error
            continue
        try:
            if is_mine(file, folder):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def is_mine(file: BinaryIO, folder: Path) -> bool:
    """Whether the lock was got, and is still the one that lies in the folder."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK))
    except FileNotFoundError:
        return False
    except BlockingIOError as error:
        raise ValueError(
            f"Another run is writing to {folder}. Wait until it ends, or use another --output_dir."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        warnings.warn(
            f"{folder} is on a file system without locks: see to it that no second run writes there.", stacklevel=2
        )
        return True


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside and move into place, so that a kill or a full disk leaves the old file."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno not in NO_ROOM:
            raise
        why = "No room to write to; free some space and give the same command again: what is finished stays"
        raise OSError(error.errno, why, str(path)) from error


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that is always UTF-8: half a surrogate pair, which no encoding takes, is escaped with all the rest."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def settings_of(*configs: Any) -> dict[str, Any]:
    """What decides the result of a run: every field of the dataclasses but those about output, logging and the hub.

    Local files and folders are replaced by a name for their content, so that a moved file is the same and a changed one
    is not. Fields that are None are left out, so that a library's new option does not make another run of an old one.
    """
    settings = {}
    for config in configs:
        for field in dataclasses.fields(config):
            if field.name in UNIMPORTANT or field.name.startswith(UNIMPORTANT_PREFIXES):
                continue
            value = plain(getattr(config, field.name))
            if value is not None:
                settings[field.name] = by_content(value, field.name in PATHS and value != CACHE)
    return settings


def plain(value: Any) -> Any:
    """The value as JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(inner) for inner in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value if isinstance(value, (bool, int, float, type(None))) else str(value)


def by_content(value: Any, is_path: bool) -> Any:
    """The value with every path replaced by a name for what it holds; in a mapping of a list its own names count."""
    if isinstance(value, dict):
        return {key: by_content(inner, is_path or key in PATHS) for key, inner in value.items()}
    if isinstance(value, list):
        return [by_content(inner, is_path and not isinstance(inner, dict)) for inner in value]
    return content_fingerprint(value) if is_path and isinstance(value, str) else value


BLOCKS, BLOCK_BYTES = 64, 1 << 16  # read of a file: a training run or a merged adapter changes some of them
ADAPTER = "adapter_config.json"
MODEL_FILES = (".safetensors", ".bin", ".json", ".model", ".jinja", ".txt")
NO_MODEL_FILES = ("results.json", "trainer_state.json", "calibration.json", RUN_FILE)


def content_fingerprint(path: str | Path) -> str:
    """A name for what a file or a folder holds; a hub id, which is neither, is its own name.

    Of a model's folder only the files that make the model count, and the model under an adapter counts, too. Big files
    are read in blocks spread over them.
    """
    place = Path(path)
    if place.is_file():
        return f"{place.name} {file_digest(place)[:16]}"
    if not place.is_dir():
        return str(path)
    base = base_of_adapter(place)
    is_model = (place / ADAPTER).is_file() or (place / "config.json").is_file()
    files = [
        file
        for file in sorted(place.iterdir() if is_model else place.rglob("*"))
        if file.is_file()
        and (not is_model or (file.suffix in MODEL_FILES and file.name not in NO_MODEL_FILES))
        and not file.name.startswith(".")
        and file.suffix != ".pyc"
    ]
    parts = [] if base is None else [content_fingerprint(base)]
    parts += [[str(file.relative_to(place)), file_digest(file)] for file in files]
    return fingerprint(parts)[:16]


def base_of_adapter(folder: Path) -> str | None:
    """The model that the adapter in a folder is made for; None where there is no adapter, or it does not say."""
    adapter = folder / ADAPTER
    return json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path") if adapter.is_file() else None


def file_digest(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= BLOCKS * BLOCK_BYTES:
            digest.update(file.read())
        else:
            for block in range(BLOCKS):
                file.seek((size - BLOCK_BYTES) * block // (BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """A name for exactly this value (anything JSON can hold)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True))


def differences(known: Any, wanted: Any, name: str = "") -> list[str]:
    """Each setting that differs, as "name: there value, now value"; names of nested ones are dotted."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        changes = []
        for key in [*known, *(key for key in wanted if key not in known)]:
            dotted = key if not name or name == "settings" else f"{name}.{key}"
            changes += differences(known.get(key), wanted.get(key), dotted)
        return changes
    return [] if known == wanted else [f"{name}: there {shortened(known)}, now {shortened(wanted)}"]


def shortened(value: Any, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
