"""TRL's own SFT tests, on stock TRL and on manypaths in its place, without the Hub.

    git clone --depth 1 https://github.com/huggingface/trl
    python benchmarks/trl_tests.py --trl trl

The checkout gives the tests and the scripts that made the Hub's `trl-internal-testing` models and data sets. They are
run here with a small tokenizer in the place of the published ones, and write a folder that looks like the Hub, where
the tests then run: once with stock TRL, once with `trl.SFTTrainer` and `trl.SFTConfig` replaced by ours. The tests run
against the installed TRL; what they import from it and it no longer has is skipped.
Writes benchmarks/results/trl_tests_<date>.md: passed by stock, passed by ours, and every difference with its reason.
"""

import argparse
import ast
import datetime
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
import trl

RESULTS = Path(__file__).parent / "results"
ORGANISATION = "trl-internal-testing"
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
# Start of the published model's name: (chat template of TRL, end of sequence, padding)
TOKENIZERS = {
    "Qwen/Qwen2.5": ("qwen2_5", "<|im_end|>", "<|endoftext|>"),
    "Qwen/Qwen3-4B": ("qwen3", "<|im_end|>", "<|endoftext|>"),
    "Qwen/Qwen3": ("qwen3_training", "<|im_end|>", "<|endoftext|>"),
    "CohereLabs": ("cohere2", "<|END_OF_TURN_TOKEN|>", "<PAD>"),
    "google/gemma-3": ("gemma3", "<eos>", "<pad>"),
    "zai-org": ("glm4moe", "<|endoftext|>", "<|endoftext|>"),
    "openai": ("gptoss", "<|return|>", "<|endoftext|>"),
    "LiquidAI/LFM2.5": ("lfm2_2_5", "<|im_end|>", "<|pad|>"),
    "LiquidAI": ("lfm2", "<|im_end|>", "<|pad|>"),
    "meta-llama": ("llama3_2", "<|eot_id|>", "<pad>"),
    "nvidia": ("nemotron_3_nano", "<|im_end|>", "<unk>"),
    "EleutherAI": (None, "<|endoftext|>", "<pad>"),
    "": (None, "</s>", "<pad>"),
}
CAUSAL = (
    "cohere2_for_causal_lm", "glm4_moe_for_causal_lm", "gpt_neox_for_causal_lm", "gpt_oss_for_causal_lm",
    "lfm2_for_causal_lm", "lfm2_for_causal_lm_2_5", "nemotron_3_nano_for_causal_lm", "olmo3_for_causal_lm",
    "qwen2_for_causal_lm_2_5", "qwen3_for_causal_lm", "qwen3_moe_for_causal_lm", "remote_for_causal_lm",
)  # fmt: skip
MODELS = (
    *(f"for_causal_lm.{name}" for name in CAUSAL), "for_conditional_generation.gemma3_for_conditional_generation",
)  # fmt: skip
IMAGE_TOKENS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
DATA = ("zen", "zen_image", "zen_multi_image", "harmony", "toolcall")


def tokenizer_for(model_id: str, **_):
    """A byte-level tokenizer of a few hundred entries with the chat template and special tokens of `model_id`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    template, eos, pad = next(value for start, value in TOKENIZERS.items() if model_id.startswith(start))
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=list(dict.fromkeys((pad, eos))), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    core.train_from_iterator([__doc__], trainer)
    images = IMAGE_TOKENS if model_id.startswith("google/gemma-3") else {}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, pad_token=pad, extra_special_tokens=images
    )
    if template is not None:
        tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    return tokenizer


def gemma3_processor(model_id: str):
    tokenizer = tokenizer_for(model_id)
    images = transformers.models.gemma3.Gemma3ImageProcessorPil()
    return transformers.Gemma3Processor(images, tokenizer, chat_template=tokenizer.chat_template)


def gemma3_config(model_id: str, text_config: dict, vision_config: dict):
    tokenizer = tokenizer_for(model_id)
    ids = {f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in IMAGE_TOKENS.items()}
    text_config["vocab_size"] = len(tokenizer)
    vision_config |= {"patch_size": 14, "vision_use_head": False}  # as published
    return transformers.Gemma3Config(text_config=text_config, vision_config=vision_config, **ids)


def build_hub(checkout: Path, hub: Path) -> list[str]:
    """Runs the checkout's scripts with the Hub replaced by the folder `hub`; what could not be made, with the reason."""
    import datasets

    datasets.disable_progress_bars()
    sys.path.insert(0, str(checkout / "scripts"))
    common = importlib.import_module("generate_tiny_models._common")
    common.check_transformers_version = common.check_dtype_pattern = common.print_config_diff = lambda *_, **__: None

    def save_model(model, tokenizer, generation_config, *labels):
        name = "-".join((labels[0], type(model).__name__, *labels[1:]))
        for part in (model, tokenizer, generation_config):
            part.save_pretrained(hub / ORGANISATION / name)

    def save_data(splits, repo_id, config_name):
        for split, rows in splits.items():
            rows.to_parquet(hub / repo_id / config_name / f"{split}.parquet")

    common.push_to_hub = save_model
    transformers.AutoTokenizer.from_pretrained = tokenizer_for
    transformers.GenerationConfig.from_pretrained = lambda *_, **__: transformers.GenerationConfig()
    transformers.AutoProcessor.from_pretrained = gemma3_processor
    transformers.AutoConfig.from_pretrained = gemma3_config
    datasets.DatasetDict.push_to_hub = save_data
    missing = []
    for name in MODELS:
        torch.manual_seed(0)
        try:
            importlib.import_module(f"generate_tiny_models.{name}")
        except Exception as error:
            missing.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    for name in DATA:
        repo_id = f"{ORGANISATION}/{name.replace('_', '-')}"
        importlib.import_module(f"generate_{name}_dataset").main(0.1, True, repo_id)
        configs = []
        for folder in (hub / repo_id).iterdir():
            files = [{"split": file.stem, "path": f"{folder.name}/{file.name}"} for file in folder.iterdir()]
            configs.append({"config_name": folder.name, "data_files": files})
        (hub / repo_id / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    tokenizer_for("Qwen/Qwen3-4B").save_pretrained(hub / "Qwen/Qwen3-4B")
    return missing


# What follows runs inside pytest, as a plugin


def pytest_configure(config) -> None:
    if os.environ["TRL_TESTS_TRAINER"] == "manypaths":
        import manypaths

        trl.SFTTrainer, trl.SFTConfig = manypaths.SFTTrainer, manypaths.SFTConfig
        if not torch.accelerator.is_available():  # as a fixture of TRL's conftest does, inside of TRL's config only
            trl.SFTConfig.__post_init__ = with_use_cpu(trl.SFTConfig.__post_init__)
    tests = Path(os.environ["TRL_TESTS_CHECKOUT"], "tests")
    sources = [(tests / name).read_text(encoding="utf-8") for name in ("testing_utils.py", "test_sft_trainer.py")]
    imports = [node for text in sources for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        if (node.module or "").startswith("trl"):
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names if not hasattr(module, alias.name)):
                setattr(module, name, removed(name))


def with_use_cpu(post_init):
    def patched(self):
        self.use_cpu = True
        post_init(self)

    return patched


def removed(name: str):
    """In the place of something that the installed TRL no longer has."""
    if name.startswith("is_"):  # whether a package is there
        return lambda: False
    return lambda *_, **__: pytest.skip(f"trl no longer has {name}")


@pytest.fixture
def lazy_shared_datadir() -> Path:
    return Path(os.environ["TRL_TESTS_CHECKOUT"], "tests/data")


def pytest_runtest_logreport(report) -> None:
    if report.when == "call" or report.outcome != "passed":
        reason = ""
        if report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr[-1] if report.skipped else report.longrepr)
            reason = message.split("\n")[0].removeprefix("Skipped: ")
        row = {"test": report.nodeid.split("::", 1)[1], "outcome": report.outcome, "reason": reason}
        with open(os.environ["TRL_TESTS_LOG"], "a") as log:
            log.write(json.dumps(row) + "\n")


# And this outside again


def run_tests(checkout: Path, hub: Path, trainer: str, select: str) -> dict[str, dict[str, str]]:
    """{test: its outcome and reason} with `trainer`, "trl" or "manypaths"."""
    log = hub / f"{trainer}.jsonl"
    log.unlink(missing_ok=True)
    environment = os.environ | {
        "TRL_TESTS_TRAINER": trainer, "TRL_TESTS_CHECKOUT": str(checkout), "TRL_TESTS_LOG": str(log),
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(hub / "cache"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    (hub / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "trl_tests", "-p", "no:cacheprovider", "-p", "no:xdist",
        "-c", str(hub / "pytest.ini"), "--rootdir", str(checkout), "-W", "ignore", "--tb", "line", "--show-capture", "no",
        str(checkout / "tests/test_sft_trainer.py"), *(["-k", select] if select else []),
    ]  # fmt: skip
    subprocess.run(command, cwd=hub, env=environment, stdout=sys.stderr)
    if not log.exists():
        raise SystemExit("No test ran; pytest's own message is above.")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return {row["test"]: row for row in rows}


def table(stock: dict, ours: dict, missing: list[str], checkout: Path) -> str:
    """The Markdown of the result."""
    counts = {
        name: Counter(row["outcome"] for row in rows.values()) for name, rows in (("trl", stock), ("manypaths", ours))
    }
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"# TRL's SFT tests on manypaths, {datetime.date.today()}",
        "",
        f"`tests/test_sft_trainer.py` of TRL {commit or (checkout / 'VERSION').read_text().strip()} on the installed "
        f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, with models and data "
        "made by the checkout's own scripts (`benchmarks/trl_tests.py`).",
        "",
        "| trainer | passed | failed | skipped |",
        "|---|--:|--:|--:|",
        *(f"| {name} | {c['passed']} | {c['failed']} | {c['skipped']} |" for name, c in counts.items()),
        "",
    ]
    differing = [test for test in stock if stock[test]["outcome"] != ours[test]["outcome"]]
    lines += ["## Where they differ", ""] + (
        [f"- `{t}`: {stock[t]['outcome']} / {ours[t]['outcome']}: {ours[t]['reason'] or stock[t]['reason']}" for t in differing]
        or ["Nowhere: manypaths passes what stock passes."]
    )  # fmt: skip
    reasons = Counter(row["reason"] for row in stock.values() if row["outcome"] != "passed")
    lines += ["", "## What stock does not pass here", ""] + [
        f"- {count} x {reason}" for reason, count in reasons.most_common()
    ]
    lines += ["", "## Stand-ins that could not be made", ""] + [f"- {row}" for row in missing] if missing else []
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]).splitlines()[0])
    parser.add_argument("--trl", type=Path, required=True, help="a checkout of huggingface/trl")
    parser.add_argument("--select", default="", help="pytest's -k; the whole file if not given")
    parser.add_argument("--output", type=Path, default=RESULTS / f"trl_tests_{datetime.date.today()}.md")
    parser.add_argument("--hub", type=Path, help="keep the stand-ins in this folder, and use those that are there")
    arguments = parser.parse_args()
    checkout = arguments.trl.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        hub = (arguments.hub or Path(temporary)).resolve()
        missing = [] if (hub / ORGANISATION).exists() else build_hub(checkout, hub)
        stock, ours = (run_tests(checkout, hub, trainer, arguments.select) for trainer in ("trl", "manypaths"))
    text = table(stock, ours, missing, checkout)
    arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
