"""`manypaths grpo --export verl DIR`: the same RL run as a folder that verl starts on Ray.

The folder holds `train.parquet` (and `test.parquet` where the run evaluates), `reward.py` and `run.sh`.
"""

import io
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from trl import ModelConfig

from ..data.config import TrainingDataConfig
from ..data.formats import PROMPT_FORMATS
from ..generation.prompts import encode_prompts, is_conversation
from ..generation.transformers_backend import end_token_ids
from ..grading.graders import GOLD_COLUMNS
from ..models.loading import check_model
from ..run_folder import RunFolder, json_text, settings_of, write_whole
from .config import GRPOConfig, RewardConfig
from .run import load_data
from .verl_options import batches_of, refuse_without_counterpart, run_script

NO_PLACE = ("tools", "image", "images", "chat_template_kwargs")  # columns of prompts that the rows have no place for


def export_to_verl(
    data: TrainingDataConfig, config: GRPOConfig, model: ModelConfig, reward: RewardConfig, processes: Any, folder: str
) -> Path:
    """Write the run of these options into `folder`; returns the script that starts it.

    processes: the `LaunchConfig`; `num_processes` counts the GPUs of all machines.

    Raises ValueError or FileNotFoundError, before anything is written, for an option that verl has no counterpart of, or
    what `manypaths grpo` refuses before training, but for vLLM and trackers, which are needed there and not here.
    """
    refuse_without_counterpart(config, model, processes)
    check_model(model.model_name_or_path, model.model_revision)
    if (Path(model.model_name_or_path) / "adapter_config.json").is_file():
        raise ValueError(f"{model.model_name_or_path} is an adapter; verl needs the whole model. Merge it first.")
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path, trust_remote_code=config.trust_remote_code)
    train, evaluation = load_data(data, config, formats=PROMPT_FORMATS, keep_all_columns=True)
    batches = batches_of(config, processes.num_processes, len(train))
    sets = {"train": train} if evaluation is None else {"train": train, "test": evaluation}
    source = Path(data.dataset_name).name if data.dataset_name else "mixture"
    files: dict[str, str | bytes] = {
        f"{split}.parquet": table(rows, split, source, reward.reward_funcs) for split, rows in sets.items()
    }
    template, longest = prompt_template(sets, tokenizer, config)
    needed = longest + config.max_completion_length
    if needed > (config.vllm_max_model_length or needed):
        raise ValueError(
            f"vllm_max_model_length is {config.vllm_max_model_length}, and the longest prompt ({longest} tokens) with "
            f"max_completion_length needs {needed}."
        )
    ends = end_tokens(model.model_name_or_path, tokenizer)
    files |= {module.name: module.read_bytes() for module in own_modules(reward.reward_funcs)}
    files["reward.py"] = reward_module(reward.reward_funcs, config.reward_weights, ends)
    script = run_script(config, model, processes, batches, longest, template, Path(folder), evaluation is not None)
    settings = settings_of(config, data, reward, model, processes)
    with RunFolder(folder, "grpo --export verl", settings, leaves=("run.sh",)) as run:
        for name, content in files.items():
            write_whole(run.path / name, content)
        run.record()
        write_whole(run.path / "run.sh", script)
        (run.path / "run.sh").chmod(0o755)
    return run.path / "run.sh"


def table(rows: Dataset, split: str, source: str, rewards: Sequence[str]) -> bytes:
    """A parquet file as verl reads it; `extra_info.row` is the whole row as JSON, which the rewards are given."""
    for name in set(rows.column_names) & set(NO_PLACE):
        raise ValueError(f"The column {name!r} has no counterpart in verl's rows; leave it out of the export.")
    written = []
    for index, row in enumerate(rows):
        gold = next((str(row[name]) for name in GOLD_COLUMNS if row.get(name) is not None), "")
        try:
            as_text = json_text(row)
        except TypeError as error:
            raise ValueError(f"Row {index + 1} of {source} cannot be written as JSON: {error}.") from error
        written.append(
            {
                "data_source": source,
                "prompt": messages(row["prompt"], index),
                "ability": "+".join(rewards),
                "reward_model": {"style": "rule", "ground_truth": gold},
                "extra_info": {"index": index, "split": split, "row": as_text},
            }
        )
    file = io.BytesIO()
    Dataset.from_list(written).to_parquet(file)
    return file.getvalue()


def messages(prompt: Any, index: int) -> list[dict[str, str]]:
    """Plain text is a user's message here; `prompt_template` renders it as it is."""
    if not is_conversation(prompt):
        return [{"role": "user", "content": prompt}]
    for message in prompt:
        if set(message) != {"role", "content"} or not isinstance(message["content"], str):
            raise ValueError(f"Row {index + 1}: verl's messages have a role and a text, found {message!r}.")
    if prompt[-1]["role"] == "assistant":
        raise ValueError(f"Row {index + 1} ends in a message of the assistant, which verl would not continue.")
    return prompt


def prompt_template(sets: dict[str, Dataset], tokenizer: Any, config: GRPOConfig) -> tuple[str | None, int]:
    """The chat template for plain prompts, None for conversations; and the tokens of the longest prompt.

    Raises ValueError where a template cannot give the tokens that TRL trains on.
    """
    prompts = [prompt for rows in sets.values() for prompt in rows["prompt"]]
    chats = sum(map(is_conversation, prompts))
    if chats not in (0, len(prompts)):
        raise ValueError("Some prompts are text and some are conversations; verl has one chat template for all.")
    if chats and tokenizer.chat_template is None:
        raise ValueError("The prompts are conversations but the tokenizer has no chat template.")
    wanted = encode_prompts(tokenizer, prompts, config.chat_template_kwargs)
    if chats:
        return None, max(map(len, wanted))
    text = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    starts = tokenizer.bos_token_id is not None and all(ids[0] == tokenizer.bos_token_id for ids in wanted)
    tokenizer.chat_template = "{{ bos_token }}" * starts + text
    found = encode_prompts(tokenizer, [messages(prompt, 0) for prompt in prompts])
    if found != wanted:
        raise ValueError(
            "The tokenizer adds special tokens to plain prompts that a chat template cannot; use messages."
        )
    return tokenizer.chat_template, max(map(len, wanted))


def end_tokens(model: str, tokenizer: Any) -> list[int]:
    """Ids that end a completion, as training finds them on the loaded model."""
    try:
        declared = GenerationConfig.from_pretrained(model)
    except OSError:
        declared = GenerationConfig.from_model_config(AutoConfig.from_pretrained(model))
    return end_token_ids(SimpleNamespace(generation_config=declared), tokenizer)


def own_modules(rewards: Sequence[str]) -> list[Path]:
    """Modules of rewards of your own that are not installed: they go with the export, as verl's workers run elsewhere."""
    names = {name.partition(":")[0] for name in rewards if ":" in name}
    files = {Path(sys.modules[name].__file__) for name in names if "." not in name}
    libraries = tuple(map(sysconfig.get_path, ("purelib", "platlib", "stdlib")))
    return sorted(file for file in files if not str(file).startswith(libraries) and file.name != "__init__.py")


def reward_module(rewards: Sequence[str], weights: Sequence[float] | None, ends: list[int]) -> str:
    """`verl_reward.py` with these rewards and end tokens."""
    if weights is not None and len(weights) != len(rewards):
        raise ValueError(f"reward_weights has {len(weights)} weights for {len(rewards)} rewards.")
    given = list(zip(rewards, weights or [1.0] * len(rewards), strict=True))
    source = Path(__file__).with_name("verl_reward.py").read_text(encoding="utf-8")
    return source.replace("REWARDS = []", f"REWARDS = {given}").replace("END_TOKENS = []", f"END_TOKENS = {ends}")
