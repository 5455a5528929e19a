import hashlib
import json
import shlex
import subprocess
import sys

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import manypaths
from manypaths.config import parse, read_recipe
from manypaths.data.formats import load_training_data
from manypaths.generation.samples import Sampling
from manypaths.generation.transformers_backend import sample
from manypaths.grading.graders import grade_samples, resolve_grader
from manypaths.worlds import WORLDS, WorldConfig, countdown, make_world, write_world
from manypaths.worlds.files import next_commands, world_files
from manypaths.worlds.tokenizer import BOS_ID, EOS_ID, VOCABULARY

# The first 16 digits of SHA-256: published results were measured on exactly these rows.
RECORDED = {
    ("recall", 0): {"sft": "a8e29eb5cfaf1349", "rl": "5339fd85b02578ba"},
    ("recall", 3): {"sft": "8368d46cc0127904", "rl": "a100b6aed4aace32"},
    ("coldstart", 0): {"sft": "7026503665a4edc6", "rl": "898109fed4924e43"},
    ("coldstart", 3): {"sft": "960451b9846d2e22", "rl": "084146b96a831c89"},
}
RECORDED_FOR_EVERY_SEED = {
    "recall": {"test": "518e20017cf22e59"},
    "coldstart": {
        "test": "8828fdda879c9930",
        "old_notation": "c40a0b0d1fd23a45",
        "evaluate_new": "ee39ba4c47cc60b3",
        "translate": "246c28eb41956430",
    },
}
RECORDED_EVERYWHERE = {
    "evaluate": "0f63712c5a5301d4",
    "reverse": "77b24a02d83511fd",
    "sort": "fa21aa55369af19e",
    "markov": "3d00b243aa0eefb5",
    "pretraining": "ad8cec544969faed",
}
COLUMNS = {"sft": 2, "rl": 4, "pretraining": 2, "test": 3, "old_notation": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: write_world(name, tmp_path_factory.mktemp("worlds") / name) for name in WORLDS}


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def read(folder, name):
    return rows((folder / name).read_text())


def digest(text, columns):
    values = [list(row.values())[:columns] for row in rows(text)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name, seed", RECORDED)
def test_rows_are_those_of_the_recorded_studies(name, seed):
    files = world_files(WORLDS[name], seed)
    recorded = RECORDED[name, seed] | RECORDED_FOR_EVERY_SEED[name] | RECORDED_EVERYWHERE
    assert {file: digest(files[f"{file}.jsonl"], COLUMNS.get(file, 2)) for file in recorded} == recorded
    assert {file.removesuffix(".jsonl") for file in files if file.endswith(".jsonl")} == set(recorded)


@pytest.mark.parametrize("name", WORLDS)
def test_the_model_loads_as_any_other(folders, name):
    model = AutoModelForCausalLM.from_pretrained(folders[name] / "model")
    tokenizer = AutoTokenizer.from_pretrained(folders[name] / "model")
    assert len(tokenizer) == model.config.vocab_size == len(VOCABULARY)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (model.generation_config.eos_token_id, tokenizer.eos_token_id) == (EOS_ID, EOS_ID)
    assert tokenizer(" ".join(VOCABULARY))["input_ids"] == list(range(len(VOCABULARY)))
    for row in read(folders[name], "sft.jsonl"):
        prompt, both = (tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + row["completion"]))
        assert len(prompt) == 8 and len(both) == 16 and both[:8] == prompt
        assert both.count(BOS_ID) == both.count(EOS_ID) == 1 and both[0] == BOS_ID and both[-1] == EOS_ID
    answer = tokenizer(row["completion"])["input_ids"]
    assert tokenizer.decode(answer, skip_special_tokens=True) == row["completion"].removesuffix("<eos>").strip()


def test_sft_on_the_files_adds_no_token(folders, tmp_path):
    config = manypaths.SFTConfig(
        str(tmp_path), max_steps=2, per_device_train_batch_size=32, learning_rate=5e-4, completion_only_loss=True,
        logging_steps=1, save_strategy="no", report_to="none", bf16=False, use_cpu=True,
    )  # fmt: skip
    data = load_training_data(str(folders["recall"] / "sft.jsonl"))
    trainer = manypaths.SFTTrainer(str(folders["recall"] / "model"), config, train_dataset=data)
    trainer.train()
    assert {len(row["input_ids"]) for row in trainer.train_dataset} == {16}
    assert {row["input_ids"][-1] for row in trainer.train_dataset} == {EOS_ID}
    assert len(trainer.model.get_input_embeddings().weight) == len(VOCABULARY)
    assert trainer.state.log_history[0]["ce"] < 1.5


@pytest.mark.parametrize("name", WORLDS)
def test_demonstrations_and_all_solutions_are_graded_right(folders, name):
    grade = resolve_grader("countdown")
    for file in ("rl.jsonl", "test.jsonl"):
        for row in read(folders[name], file):
            texts = countdown.solutions((tuple(row["numbers"]), row["target"]), row["notation"])
            columns = {key: [row[key]] * len(texts) for key in ("numbers", "target", "notation")}
            assert len(texts) >= countdown.MIN_SOLUTIONS and set(grade(texts, **columns)) == {1.0}
            assert not any(grade([text + " + 0" for text in texts], **columns))
            assert row["prompt"].split()[2:5] + row["prompt"].split()[6:7] == [
                *map(str, row["numbers"]),
                str(row["target"]),
            ]
    for row in read(folders[name], "sft.jsonl"):
        words = row["prompt"].split()
        problem = {"numbers": [list(map(int, words[2:5]))], "target": [int(words[6])]}
        answer = row["completion"].removesuffix("<eos>").strip()
        assert grade([answer], **problem, notation=[WORLDS[name].request.notation]) == [1.0]


def test_no_test_problem_is_trained_on(folders):
    seen = {
        (tuple(sorted(words[2:5], key=int)), words[6])
        for file in ("sft.jsonl", "rl.jsonl", "pretraining.jsonl")
        for words in (row["prompt"].split() for row in read(folders["recall"], file))
    }
    tests = {
        (tuple(map(str, sorted(row["numbers"]))), str(row["target"])) for row in read(folders["recall"], "test.jsonl")
    }
    assert len(tests) == 200 and not tests & seen


@pytest.mark.parametrize("name", WORLDS)
def test_benchmarks_say_how_they_are_asked_and_graded(folders, name):
    benchmarks = {path.stem: yaml.safe_load(path.read_text()) for path in folders[name].glob("*.yaml")}
    old = ["old_notation"] if name == "coldstart" else []
    assert set(benchmarks) == {"test", *WORLDS[name].side_tasks, *old}
    for file, settings in benchmarks.items():
        data = read(folders[name], settings["source"])
        resolve_grader(settings["grader"])
        assert settings["prompt_format"] == "text" and settings["problem"] in data[0]
        side = file in WORLDS[name].side_tasks
        assert (settings["num_samples"], settings["temperature"]) == ((1, 0.0) if side else (64, 1.0))
        assert settings.get("group", "main") == ("side tasks" if side else "old notation" if file in old else "main")
        assert settings["answer"] == ("answer" if side else None) and len(data) == (200 if file == "test" else 100)


def share_right(folder, benchmark, number=60, num_samples=16):
    """Share of right answers, and of problems with one, that the base gives to the first problems of a benchmark."""
    settings = yaml.safe_load((folder / f"{benchmark}.yaml").read_text())
    data = read(folder, settings["source"])[:number]
    prompts = [row["prompt"] for row in data]
    model, tokenizer = (kind.from_pretrained(folder / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    sampling = Sampling(num_samples=num_samples, temperature=settings["temperature"], max_new_tokens=8)
    samples = sample(model.eval(), tokenizer, prompts, sampling, batch_size=480)
    right = grade_samples(resolve_grader(settings["grader"]), data, prompts, samples)
    return sum(map(sum, right)) / (number * num_samples), sum(any(group) for group in right) / number


def test_what_the_bases_can_do(folders):
    accuracy, coverage = share_right(folders["recall"], "test")
    assert 0.18 < accuracy < 0.36 and coverage > 0.8
    assert share_right(folders["coldstart"], "test") == (0.0, 0.0)
    accuracy, coverage = share_right(folders["coldstart"], "old_notation")
    assert 0.15 < accuracy < 0.36 and coverage > 0.8
    assert share_right(folders["coldstart"], "translate", 40, 1)[0] > 0.95
    assert share_right(folders["recall"], "markov", 40, 1)[0] > 0.8


def test_seeds_choose_the_training_data_only():
    first, other = (world_files(WORLDS["recall"], seed) for seed in (0, 1))
    assert first == world_files(WORLDS["recall"], 0)
    assert {file for file in first if first[file] != other[file]} == {"sft.jsonl", "rl.jsonl"}


def test_a_folder_holds_one_world(tmp_path):
    folder = write_world("recall", tmp_path / "world", seed=1)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "sft.jsonl").unlink()
    assert write_world("recall", folder, seed=1) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    for name, seed in (("coldstart", 1), ("recall", 2)):
        with pytest.raises(ValueError, match="holds another run"):
            write_world(name, folder, seed)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rl.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"already holds rl\.jsonl"):
        write_world("recall", tmp_path / "mine")
    with pytest.raises(ValueError, match="Unknown world 'moon'"):
        write_world("moon", tmp_path / "moon")
    assert not (tmp_path / "moon").exists()


def test_making_a_world_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = make_world(WorldConfig("recall"))
    assert folder.resolve() == tmp_path / "recall"
    printed, readme = capsys.readouterr().out, (folder / "README.md").read_text()
    assert "cd recall\n" in printed
    assert next_commands(WORLDS["recall"]) in printed and next_commands(WORLDS["recall"]) in readme
    assert all(f"`{path.name}`" in readme for path in folder.glob("*.yaml"))


@pytest.mark.parametrize("name", WORLDS)
def test_packaged_experiments_fit_the_world_and_the_options(folders, name, monkeypatch):
    from manypaths.data.config import DataConfig
    from manypaths.evaluation.config import EvalConfig
    from manypaths.training.config import GRPO_OPTIONS, SFT_OPTIONS

    monkeypatch.chdir(folders[name])
    options = {"sft": SFT_OPTIONS, "grpo": GRPO_OPTIONS, "eval": (DataConfig, EvalConfig)}
    for command in next_commands(WORLDS[name]).replace("\\\n", "").splitlines():
        subcommand, *words = shlex.split(command)[1:]
        parsed = {
            key: value
            for config in parse(options[subcommand], words, subcommand)
            for key, value in vars(config).items()
        }
        assert (folders[name] / parsed["dataset_name"]).is_file()
    experiment = read_recipe(str(WORLDS[name].experiment))
    assert {f"world/{{seed}}/{path.name}" for path in folders[name].glob("*.yaml")} == set(
        experiment["eval"]["benchmarks"]
    )
    for method in experiment["methods"].values():
        manypaths.resolve(method["objective"], **method.get("objective_kwargs", {}))


def test_writing_needs_no_heavy_library():
    heavy = ("torch", "transformers", "datasets", "trl", "tokenizers")
    write = "import sys, manypaths.worlds; manypaths.worlds.files.world_files(manypaths.worlds.WORLDS['recall'], 0)"
    check = f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", f"{write}; {check}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
