"""README and docs do what they say: their blocks run, on a tiny model in place of the named one."""

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

import manypaths
from conftest import tiny_llama
from evaluations import write_benchmarks
from manypaths.cli.main import main
from manypaths.config import RecipeLoader
from manypaths.evaluation import load_items, load_results, load_scores
from manypaths.report import study_markdown

ROOT = Path(__file__).parent.parent
MODEL = "Qwen/Qwen3-0.6B"
BRIEFLY = {
    "sft": "--max_steps 2 --per_device_train_batch_size 4 --report_to none --max_length 64 --save_strategy no",
    "eval --data": "--max_length 64 --num_prompts 2",
    "eval --benchmarks": "--data_dir data --max_new_tokens 4 --num_prompts 2",
    "grpo": "--max_steps 1 --per_device_train_batch_size 4 --num_generations 4 --gradient_accumulation_steps 1 "
    "--steps_per_generation 1 --max_completion_length 4 --preflight_prompts 0 --bf16 false --use_vllm false "
    "--report_to none --save_strategy no",
}


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / name).read_text(), re.M | re.S)


def commands(name: str) -> list[list[str]]:
    """Every `manypaths VERB ...` line of the bash blocks."""
    lines = "\n".join(blocks(name, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("manypaths ")]


def briefly(words: list[str]) -> list[str]:
    """What makes a command of the documents short; `words` begin with manypaths and the verb."""
    keys = [words[1], *(f"{words[1]} {word}" for word in words[2:])]
    return " ".join(BRIEFLY.get(key, "") for key in keys).split()


@pytest.fixture
def workplace(tmp_path, monkeypatch, tokenizer):
    """A folder with a tiny model under the README's name and the files that its commands read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "tiny"
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    words = ["one", "two", "three", "four", "five", "six"]
    chats = [
        {"messages": [{"role": "user", "content": f"{a} plus {b}"}, {"role": "assistant", "content": f"answer {a}"}]}
        for a in words
        for b in words
    ]
    prompts = [{"prompt": row["messages"][:1], "answer": "1"} for row in chats]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    (tmp_path / "math_prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    write_benchmarks(tmp_path / "data")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (source,) = blocks("docs/adding_an_objective.md", "python")
    (tmp_path / "half_known.py").write_text(source)
    return tmp_path


@pytest.mark.slow
def test_commands_on_your_data_run_as_written(workplace, capsys):
    ran = []
    for words in commands("README.md"):
        verb = words[1]
        if verb in ("sft", "eval", "grpo", "objectives", "report"):
            words = [str(workplace / "tiny") if word == MODEL else word for word in words]
            assert main([*words[1:], *briefly(words)]) == 0, capsys.readouterr().err
            ran.append(verb)
    assert ran == ["sft", "eval", "grpo", "objectives", "eval", "eval", "report"]
    assert "ce" in set(load_scores(workplace / "out-eval")["metric"])
    assert (workplace / "math-report" / "report.html").is_file()


@pytest.mark.slow
def test_commands_of_evaluation_run_as_written(workplace, capsys):
    (workplace / "tiny").rename(workplace / "out")
    (workplace / "chats.jsonl").rename(workplace / "my_texts.jsonl")
    everything = commands("docs/evaluation.md")
    left_out = [words for words in everything if "--forgetting" in words]  # its tasks are on the hub
    assert len(everything) == 4 and len(left_out) == 1
    for words in everything:
        if words[1] == "report":
            for name in ("ce-math", "sed-math", "gem-math"):
                (workplace / name).mkdir()
                results = json.loads((workplace / "out-math" / "results.json").read_text())
                runs = [{**run, "method": name} for run in results["runs"]]
                tasks = [{**task, "method": name} for task in results["tasks"]]
                scores = [{**row, "method": name} for row in results["scores"]]
                text = json.dumps({**results, "runs": runs, "tasks": tasks, "scores": scores})
                (workplace / name / "results.json").write_text(text)
                items = load_items(workplace / "out-math").assign(method=name)
                items.to_parquet(workplace / name / "items.parquet")
        if words not in left_out:
            words = [str(workplace / "out") if word == MODEL else word for word in words]
            assert main([*words[1:], *briefly(words)]) == 0, capsys.readouterr().err
    assert {"ce", "ce_increase", "text_kl_to_reference"} <= set(load_scores(workplace / "out-ledger")["metric"])
    grading, *tables = blocks("docs/evaluation.md", "python")
    capsys.readouterr()
    exec(grading, {})
    assert "[True, True, False, False]\n0.83" in capsys.readouterr().out
    base = ["eval", "--model", "out", "--label", "Qwen3-0.6B", *BRIEFLY["eval --benchmarks"].split()]
    assert main([*base, "--benchmarks", "all", "--output_dir", "base-math"]) == 0
    for source, shown in zip(tables, ("math500", "pass@1", "Qwen3-0.6B"), strict=True):
        capsys.readouterr()
        exec(source, {})
        assert shown in capsys.readouterr().out
    (exam,) = blocks("docs/evaluation.md", "yaml")
    (workplace / "exam.yaml").write_text(exam)
    (workplace / "exam.jsonl").write_text('{"question": "one plus one is?", "result": 2}\n')
    argv = ["eval", "--model", "out", "--benchmarks", "exam.yaml", "--max_new_tokens", "4", "--output_dir", "exam"]
    assert main(argv) == 0
    scores = load_scores(workplace / "exam")
    assert set(scores["task"]) == {"exam"} and "pass@4" in set(scores["metric"])


@pytest.mark.parametrize("name", ["README.md", "docs/experiment.md"])
def test_experiments_of_the_documents_can_be_planned(workplace, capsys, name):
    """The YAML as written, but for the model: every option of every stage is checked, and every command is told."""
    (experiment,) = blocks(name, "yaml")
    (workplace / "compare.yaml").write_text(experiment.replace(MODEL, str(workplace / "tiny")))
    (workplace / "more_chats.jsonl").write_text((workplace / "chats.jsonl").read_text())
    (workplace / "my_exam.yaml").write_text("name: my_exam\nsource: math_prompts.jsonl\nproblem: prompt\n")
    planned, run = [words for words in commands(name) if words[1] == "experiment"]
    assert planned == [*run, "--dry_run"]
    assert main(planned[1:]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    methods = RecipeLoader(experiment).get_single_data()["methods"]
    assert len(methods) == 4 and printed.count("manypaths grpo") > len(methods)
    assert not (workplace / "compare").exists()


def test_the_table_of_an_experiment(workplace, capsys):
    (source,) = blocks("docs/experiment.md", "python")
    (workplace / "compared").symlink_to(max((ROOT / "benchmarks/results").glob("playground_recall_*")))
    exec(source, {})
    assert "no SFT" in capsys.readouterr().out


def test_one_changed_line(workplace):
    before, after = blocks("README.md", "python")
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(changed) == 2  # the import and the objective
    from datasets import load_dataset

    dataset = load_dataset("json", data_files=str(workplace / "chats.jsonl"), split="train")
    for source in (before, after):
        scope = {"dataset": dataset}
        source = source.replace(MODEL, str(workplace / "tiny")).replace('"out"', '"out", bf16=False')  # for a CPU
        exec(source, scope)
        assert scope["trainer"].train_dataset


def integrations(workplace) -> list[str]:
    """The Python blocks of docs/integrations.md: TRL, Trainer, accelerate, Axolotl, a callback, NeMo-RL."""
    briefly = {'"out-trainer", ': '"out-trainer", use_cpu=True, disable_tqdm=True, ', '"out", ': '"out", bf16=False, '}
    page = [source.replace(MODEL, str(workplace / "tiny")) for source in blocks("docs/integrations.md", "python")]
    for long, short in briefly.items():
        page = [source.replace(long, short) for source in page]
    return page


@pytest.mark.slow
def test_the_blocks_of_trl_trainer_and_accelerate_train(workplace):
    trl, trainer, loop, *_ = integrations(workplace)
    scope = {}
    exec(trl, scope)
    assert scope["trainer"].state.global_step == 5 and scope["trainer"].objective.name == "eksft"
    scope = {}
    exec(trainer, scope)
    assert scope["trainer"].state.global_step == 3 and scope["model"]._manypaths.objective.name == "gem"
    manypaths.detach(scope["model"])
    before = scope["model"].lm_head.weight.detach().clone()
    scope["loader"] = DataLoader(list(scope["rows"]), batch_size=4, collate_fn=scope["trainer"].data_collator)
    exec(loop, scope)
    assert not torch.equal(scope["model"].lm_head.weight, before)


@pytest.mark.slow
def test_a_callback_attaches_as_early_as_attach_itself(workplace, monkeypatch):
    """As LLaMA-Factory and ms-swift, whose trainers are Seq2SeqTrainers, would call it; and Axolotl's plugin."""
    monkeypatch.setitem(sys.modules, "axolotl.integrations.base", SimpleNamespace(BasePlugin=object))
    _, block, _, axolotl, callback, _ = integrations(workplace)
    weights = []
    for way in ("attach", "callback", "plugin"):
        torch.manual_seed(0)
        source = block if way == "attach" else block.replace("manypaths.attach(model", "(lambda *_: None)(model")
        for trainer in ("TrainingArguments", "Trainer") if way == "callback" else ():
            source = re.sub(rf"\b{trainer}\b", f"Seq2Seq{trainer}", source)
        scope = {}
        exec(source.replace("trainer.train()", ""), scope)
        if way == "callback":
            exec(callback, scope)
            scope["trainer"].add_callback(scope["ManyPaths"](scope["args"], scope["trainer"]))
        if way == "plugin":
            exec(axolotl, scope)
            scope["ManyPaths"]().post_model_load({}, scope["model"])
        scope["trainer"].train()
        weights.append(scope["model"].lm_head.weight.detach())
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


def test_the_loss_for_nemo_rl_is_the_objective(workplace, monkeypatch):
    kinds = SimpleNamespace(LossType=SimpleNamespace(TOKEN_LEVEL=0), LossInputType=SimpleNamespace(LOGPROB=1))
    monkeypatch.setitem(sys.modules, "nemo_rl.algorithms.loss.interfaces", kinds)
    scope = {}
    exec(integrations(workplace)[-1], scope)
    logprobs = torch.tensor([[-0.5, -1.0, -2.0], [-0.1, -0.2, -0.3]], requires_grad=True)
    data = {"token_mask": torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]), "sample_mask": torch.tensor([1, 0])}
    loss, metrics = scope["OfLogprob"]("dft")(logprobs, data, torch.tensor(1), torch.tensor(2))
    loss.backward()
    wanted = -torch.tensor([[0.0, math.exp(-1.0), math.exp(-2.0)], [0.0, 0.0, 0.0]]) / 2
    torch.testing.assert_close(logprobs.grad, wanted)
    assert metrics["loss"] == loss.item() and metrics["num_valid_samples"] == 1


def test_the_export_of_the_page_on_rl(workplace):
    (words,) = commands("docs/rl.md")
    (workplace / "math_prompts.jsonl").write_text((workplace / "math_prompts.jsonl").read_text() * 8)  # a rollout: 256
    assert main([*words[1:], "--model", "tiny"]) == 0
    assert {"train.parquet", "reward.py", "run.sh"} <= {file.name for file in Path("out-verl").iterdir()}


@pytest.mark.slow
def test_your_own_objective_trains_fused(workplace, capsys):
    sft, quickstart = commands("docs/adding_an_objective.md")
    sft[sft.index("...") :] = ["--model_name_or_path", str(workplace / "tiny"), "--data", "chats.jsonl"]
    assert main([*sft[1:], *BRIEFLY["sft"].split(), "--logging_steps", "1", "--output_dir", "own"]) == 0
    printed = capsys.readouterr().out
    assert "objective: half_known:half_known {'entropy_weight': 0.02}" in printed and "time left" in printed
    assert quickstart[1:4] == ["quickstart", "--objectives", "nll,half_known:half_known"]


@pytest.mark.slow
def test_generated_tables_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs/build_tables.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_study_is_what_the_recorded_results_say():
    page = (ROOT / "docs/playground.md").read_text()
    for world in ("recall", "coldstart"):
        recorded = load_results(max((ROOT / "benchmarks/results").glob(f"playground_{world}_*")))
        assert study_markdown(recorded, f"images/{world}_{{name}}.svg").removeprefix("## ").strip() in page


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/objectives.md",
        "docs/adding_an_objective.md",
        "docs/augment.md",
        "docs/evaluation.md",
        "docs/doctor.md",
        "docs/experiment.md",
        "docs/integrations.md",
        "docs/rl.md",
    ],
)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
        known = target.startswith(("https://arxiv.org/", "https://github.com/"))
        assert known or (ROOT / name).parent.joinpath(target).exists(), target


def test_the_two_commands_are_those_of_the_ci_script():
    install, tests = (block.strip() for block in blocks("README.md", "bash")[:2])
    assert install.endswith("pip install -c constraints.txt . && manypaths quickstart")
    script = (ROOT / ".ci/run").read_text()
    for part in tests.split(" && "):
        assert part.replace("pip install", "pip install -q") in script or part in script
