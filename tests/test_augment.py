"""More right answers a prompt: what is kept, what is written, and that it is the same however often it was killed."""

import ast
import json
import os
import random
import shlex
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import manypaths
from conftest import CHAT_TEMPLATE
from evaluations import read_rows, save_model, write_rows
from manypaths.augmentation import pipeline
from manypaths.augmentation.config import AUGMENT_OPTIONS
from manypaths.augmentation.distinct import equations, fewest_first, final_expression, keys_by, words
from manypaths.cli.main import main
from manypaths.config import parse
from manypaths.data.formats import load_training_data
from manypaths.generation.samples import Backend, Sample
from manypaths.grading.graders import completion_text
from manypaths.worlds import write_world

# what makes answers the same


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("She has 3 * 4 = 12 apples.\nThen 12 + 5 = 17. The answer is 17.", "3*4=12; 12+5=17"),
        ("3 \u00d7 4 = 12, so $12 + 5 = \\boxed{17}$.", "3*4=12; 12+5=17"),
        ("She pays 3*4=<<3*4=12>>12 dollars, and 12+5=<<12+5=17>>17 in all.\n#### 17", "3*4=12; 12+5=17"),
        ("It is 1,200 + 34 = 1234 and 2x + 1 = 5, a x = 2", "1200+34=1234; 2x+1=5; x=2"),
        (r"\[ \frac{1}{2} + \frac12 = 1 \] Thus \(x = y = 1\).", r"\frac{1}{2}+\frac{1}{2}=1; x=y=1"),
        ("17", ""),
        ("= 17 and 3 =", ""),
        ("1" * 3000 + " = " + "2 " * 3000, None),  # linear in the text
    ],
)
def test_the_chain_of_equations(text, chain):
    found = equations(text).replace(r"\cdot", "*")
    assert chain is None or found == chain


def test_the_final_expression_is_told_by_how_it_is_written():
    assert final_expression(r"So \boxed{3 \times 4}.") == final_expression("The answer is $3*4$.")
    assert final_expression(r"\boxed{3 \cdot 4}") != final_expression(r"\boxed{4 \cdot 3}")
    assert final_expression("( 3 + 4 ) * 5") == final_expression("(3+4)*5") != final_expression("5 * (3+4)")
    assert words(" a  b\n") == "a b"


def test_a_function_of_ones_own_tells_answers_apart(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_keys.py").write_text(
        "def size(texts, unit, **columns):\n    return [[len(text), unit] for text in texts]\n"
        "def few(texts, **columns):\n    return texts[1:]\n"
        "def fails(texts, **columns):\n    return columns['gone']\n"
    )
    assert keys_by("own_keys:size")(["ab", "cd", "e"], {"unit": 1}) == ["[2, 1]", "[2, 1]", "[1, 1]"]
    with pytest.raises(ValueError, match="own_keys:few gave 1 keys for 2 texts"):
        keys_by("own_keys:few")(["a", "b"], {})
    with pytest.raises(ValueError, match=r"own_keys:fails fails: KeyError: 'gone' \(own_keys.py, line 6"):
        keys_by("own_keys:fails")(["a"], {})
    with pytest.raises(ValueError, match="no function 'gone'"):
        keys_by("own_keys:gone")


def test_what_is_seldom_said_comes_first_whatever_the_order():
    texts = ["often"] * 5 + ["seldom"] * 2 + ["once", "known", "known"]
    chosen = Counter()
    for seed in range(20):
        random.Random(seed).shuffle(texts)
        places = fewest_first(texts, texts, {"known"}, 2)
        chosen[tuple(texts[place] for place in places)] += 1
        assert all(place == texts.index(texts[place]) for place in places)
    assert chosen == {("once", "seldom"): 20}
    assert fewest_first(texts, texts, set(), 0) == fewest_first(texts, texts, set(), -1) == []
    ways = ["a b", "a  b", "b a"]  # one text stands for a key, the same one in any order
    assert {ways[fewest_first(list(map(words, ways)), ways, {"b a"}, 5)[0]] for _ in range(6) if not ways.reverse()} in (
        {"a b"}, {"a  b"},
    )  # fmt: skip


# a model whose answers are written down


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", tokenizer)
    return tmp_path


def says(monkeypatch, tokenizer, answers, stops=None):
    """The backend draws answers[prompt][index], told by the words in the prompt."""

    def draw(requests, done):
        for position, request in enumerate(requests):
            if position not in done:
                asked = tokenizer.decode(request.prompt_ids)
                text = next(texts for prompt, texts in answers.items() if prompt in asked)[request.index]
                ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
                yield position, Sample(text, ids, (stops or {}).get(text, "eos"), len(ids), -1.0)

    monkeypatch.setattr(pipeline, "open_backend", lambda *_: Backend("written down", draw))


def augment(line):
    return pipeline.augment(*parse(AUGMENT_OPTIONS, shlex.split(line), "manypaths augment"))


MATH = "--model model --data data.jsonl --reward math --max_new_tokens 40 --num_samples 5"
ANSWERS = {
    "one": [r"3 + 4 = \boxed{7}", r"4 + 3 = \boxed{7}", r"4 + 3 = \boxed{7}", r"\boxed{8}", r"14 / 2 = \boxed{7}"],
    "two": [r"\boxed{1}"] * 4 + [r"1 + 1 = \boxed{2}"],
    "five": [r"\boxed{1}"] * 5,
}


def test_messages_get_new_answers_and_prompts_with_several_rows_count_once(place, tokenizer, monkeypatch):
    says(monkeypatch, tokenizer, ANSWERS)

    def row(prompt, answer, gold, **more):
        talk = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        return {"messages": talk, "answer": gold, "prompt": prompt, **more}

    data = [row("one", r"So 4 + 3 = \boxed{7}.", "7"), row("two", r"\boxed{2}", "2"), row("one", r"Or \boxed{7.0}", "7.0"),
            row("five", r"\boxed{5}", "5")]  # fmt: skip
    write_rows(place / "data.jsonl", data)
    outcome = augment(f"{MATH} --distinct chain --output_dir out")
    old, new = (rows := read_rows(place / "out" / "sft.jsonl"))[:4], rows[4:]
    assert old == [{**row, "source": "demonstration", "provenance": None} for row in data]
    assert [row["messages"][-1]["content"] for row in new if row["prompt"] == "two"] == [r"1 + 1 = \boxed{2}"]
    assert sorted(row["messages"][-1]["content"] for row in new if row["prompt"] == "one") == [
        r"14 / 2 = \boxed{7}", r"3 + 4 = \boxed{7}",  # 4 + 3 is in the data
    ]  # fmt: skip
    assert new[0]["messages"][0] == data[0]["messages"][0] and new[0]["answer"] == "7"
    assert {row["source"] for row in new} == {"augmented"}
    assert new[-1]["provenance"] == {
        "model": "model", "round": 1, "seed": 0, "temperature": 1.0, "verifier": "math", "id": "data-0001", "sample": 4,
    }  # fmt: skip
    made = outcome.summary
    assert (made["prompts"], made["verifier_calls"], made["right"], made["distinct"], made["new"], made["kept"]) == (
        3, 15, 5, 4, 3, 3,
    )  # fmt: skip
    assert (made["prompts_without_right"], made["prompts_without_answer"]) == (1, 0)
    assert made["answers_before"] == {"1": 2, "2": 1} and made["answers_after"] == {"1": 1, "2": 1, "4": 1}
    assert json.loads((place / "out" / "yield.json").read_text()) == made
    assert load_training_data("out/sft.jsonl").column_names == ["messages"]


TALK = [{"role": "user", "content": "one"}]
FORMATS = {
    "": ({"instruction": "one", "output": "x"}, "one\n\n", lambda text: text),
    "--dataset_format chat": ({"prompt": "one", "completion": "x"}, TALK, lambda text: [{"role": "assistant", "content": text}]),
    "--dataset_format last_answer": (
        {"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "x"}]}, TALK,
        lambda text: [{"role": "assistant", "content": text}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("options", FORMATS)
def test_other_formats_are_written_as_sft_reads_them(place, tokenizer, monkeypatch, options):
    says(monkeypatch, tokenizer, ANSWERS)
    row, prompt, as_answer = FORMATS[options]
    write_rows(place / "data.jsonl", [{**row, "answer": "7"}])
    augment(f"{MATH} {options} --num_answers 2 --output_dir out")
    rows = read_rows(place / "out" / "sft.jsonl")
    assert [row["prompt"] for row in rows] == [prompt] * 3 and {row["answer"] for row in rows} == {"7"}
    known, *added = (completion_text(row["completion"]).strip() for row in rows)
    assert known == "x" and set(added) == {ANSWERS["one"][0], ANSWERS["one"][4]}
    assert [row["completion"] for row in rows] == [as_answer(completion_text(row["completion"])) for row in rows]
    assert load_training_data("out/sft.jsonl").column_names == ["prompt", "completion"]


def test_a_round_goes_on_from_the_last_and_counts_what_it_added(place, tokenizer, monkeypatch):
    says(monkeypatch, tokenizer, ANSWERS)
    talks = [{"prompt": [{"role": "user", "content": name}], "answer": gold}
             for name, gold in (("one", "7"), ("two", "2"), ("five", "5"))]  # fmt: skip
    write_rows(place / "data.jsonl", talks)  # prompts as for grpo
    augment(f"{MATH} --distinct text --num_answers 2 --output_dir first")
    first = read_rows(place / "first" / "sft.jsonl")
    assert [row["completion"][0]["role"] for row in first] == ["assistant"] * 3
    assert [row["prompt"] for row in first] == [talks[0]["prompt"], talks[0]["prompt"], talks[1]["prompt"]]
    assert {row["completion"][0]["content"] for row in first[:2]} == {ANSWERS["one"][0], ANSWERS["one"][4]}  # the rarest
    assert read_rows(place / "first" / "unanswered.jsonl") == talks[2:]
    save_model(place / "second_model", tokenizer, seed=1)
    second = MATH.replace("--model model --data data.jsonl", "--model second_model --data first/sft.jsonl")
    says(monkeypatch, tokenizer, {"one": ANSWERS["one"], "two": [r"2 + 0 = \boxed{2}", *ANSWERS["two"][1:]]})
    augment(f"{second} --num_answers 2 --output_dir second")
    rows = read_rows(place / "second" / "sft.jsonl")
    assert rows[:3] == first and len(rows) == 4  # "one" has its two
    assert rows[3]["completion"][0]["content"] == r"2 + 0 = \boxed{2}"
    assert (rows[3]["provenance"]["round"], rows[3]["provenance"]["model"]) == (2, "second_model")
    augment(f"{second} --num_answers 3 --output_dir third")
    rows = read_rows(place / "third" / "sft.jsonl")
    assert sorted(row["provenance"]["round"] for row in rows) == [1, 1, 1, 2, 2]


def test_answers_that_were_cut_off_are_not_kept(place, tokenizer, monkeypatch):
    cut = r"3 + 4 = \boxed{7}"
    says(monkeypatch, tokenizer, {"one": ANSWERS["one"]}, stops={cut: "length"})
    write_rows(place / "data.jsonl", [{"prompt": "one", "completion": "x", "answer": "7"}])
    outcome = augment(f"{MATH} --output_dir out")
    kept = [row["completion"].strip() for row in read_rows(place / "out" / "sft.jsonl")]
    assert cut not in kept and ANSWERS["one"][4] in kept
    assert outcome.summary["right"] == 3 and outcome.summary["ended"] == 4


def test_stored_samples_are_chosen_from_again_without_a_model(place, tokenizer, monkeypatch):
    says(monkeypatch, tokenizer, ANSWERS)
    write_rows(place / "data.jsonl", [{"prompt": "one", "completion": "x", "answer": "7"}])
    augment(f"{MATH} --output_dir out")
    with pytest.raises(ValueError, match=r"out/sft\.jsonl is there already"):
        augment(f"{MATH} --output_dir out")
    (place / "out" / "sft.jsonl").unlink()
    monkeypatch.setattr(pipeline, "open_backend", None)
    augment(f"{MATH} --num_answers 1 --output_dir out")
    assert len(read_rows(place / "out" / "sft.jsonl")) == 2
    (place / "out" / "sft.jsonl").unlink()
    for option, change in (("--seed 1", "seed: there 0, now 1"), ("--reward exact", "reward: there 'math', now 'exact'")):
        with pytest.raises(ValueError, match=change):
            augment(f"{MATH} {option} --output_dir out")


PUZZLE = {"prompt": "one", "numbers": [1, 2, 3], "target": 6}
MISTAKES = [
    ("--reward math", [{"prompt": "one"}], "needs a column answer or solution in the data; there are prompt"),
    ("--reward math", [{"prompt": "one", "answer": "7"}, {"prompt": "two", "answer": None}], "row 2: the right answer is mi"),
    ("--reward math countdown", [PUZZLE], "--reward names 2 verifiers (math, countdown)"),
    ("--reward countdown", [PUZZLE, {"prompt": "two", "answer": "7"}], "The reward fails: TypeError"),
    ("--reward mth", [PUZZLE], "Unknown reward 'mth'. Did you mean math"),
    ("--reward math --num_answers 0", [PUZZLE], "--num_answers must be at least 1, got 0"),
    ("--reward math --num_samples 0", [PUZZLE], "--num_samples must be at least 1, got 0"),
    ("--reward math --temperature 0", [{"prompt": "one", "answer": "7"}], "temperature 0 gives 5 equal samples"),
    ("--reward math --distinct chian", [PUZZLE], "--distinct is text, expression, chain or module:function, got 'chian'"),
    ("--reward math --vllm_server_base_url x", [PUZZLE], "--vllm_server_base_url is for --backend vllm"),
    ("--reward countdown --grader lenient", [PUZZLE], "--grader lenient is for --reward math"),
    ("--reward math --dataset_test_split train", [PUZZLE], "leave the options of evaluation data out"),
    ("--reward math", [{"text": "one", "answer": "7"}], "needs a column prompt or messages"),
    ("--reward math", [{"prompt": "one", "tools": [], "answer": "7"}], "has a column tools"),
    ("--reward math", [{"prompt": "one", "source": "web", "answer": "7"}], """--dataset_columns '{"origin": "source"}'"""),
    ("--reward math", [{"prompt": "one", "answer": "7"}, {"prompt": "one", "answer": "8"}],
     "rows 1 and 2 ask the same and have different right answers, '7' and '8'"),
    ("--reward math", [{"prompt": "one", "answer": "9"}], "The verifier math accepts none of the first 5 samples"),
    ("--reward augment_own:all", [{"prompt": "one"}], "The verifier augment_own:all accepts all of the first 5 samples"),
    ("--reward math", [{"prompt": "six", "answer": "7"}], "None of the first 5 samples ended within 40 tokens"),
    ("--reward augment_own:some --distinct chain", [{"prompt": "nine"}], "--distinct chain is for worked mathematics"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "rows", "message"), MISTAKES, ids=[options for options, _, _ in MISTAKES])
def test_a_mistake_is_one_line(place, tokenizer, monkeypatch, capsys, options, rows, message):
    monkeypatch.syspath_prepend(str(place))
    (place / "augment_own.py").write_text(
        "def all(completions, **columns):\n    return [1.0] * len(completions)\n\n"
        "def some(completions, **columns):\n    return [float('e' in text) for text in completions]\n"
    )
    words = {"six": ["no", "end", "no", "end", "no"], "nine": ["one", "two", "one", "two", "five"]}
    says(monkeypatch, tokenizer, {**ANSWERS, **words}, stops={"no": "length", "end": "length"})
    write_rows(place / "data.jsonl", rows)
    base = "augment --model model --data data.jsonl --max_new_tokens 40 --num_samples 5 --output_dir out "
    assert main(shlex.split(base + options)) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("manypaths ")]
    assert message in line and "Traceback" not in error
    assert not (place / "out" / "sft.jsonl").exists()


def test_the_preflight_can_be_left_out(place, tokenizer, monkeypatch):
    says(monkeypatch, tokenizer, ANSWERS)
    write_rows(place / "data.jsonl", [{"prompt": "five", "completion": "x", "answer": "5"}])
    outcome = augment(f"{MATH} --preflight_samples 0 --output_dir out")
    assert outcome.summary["kept"] == 0 and len(read_rows(place / "out" / "sft.jsonl")) == 1


def test_a_column_called_source_is_kept_under_another_name(place, tokenizer, monkeypatch):
    says(monkeypatch, tokenizer, ANSWERS)
    write_rows(place / "data.jsonl", [{"prompt": "one", "completion": "x", "answer": "7", "source": "web"}])
    rename = """--dataset_columns '{"origin": "source"}'"""
    augment(f"{MATH} {rename} --output_dir out")
    rows = read_rows(place / "out" / "sft.jsonl")
    assert {row["origin"] for row in rows} == {"web"} and {row["source"] for row in rows} == {"demonstration", "augmented"}


# the built-in worlds


def solves(prompt, text):
    """Whether an expression uses the numbers in the prompt once each, stays with positive integers, and hits the target.

    Python's own parser reads it: nothing of the verifier is used.
    """
    marker, *numbers, equals, target, _ = prompt.removeprefix("<bos>").split()
    assert marker in "CI" and equals == "="
    used = []

    def value(node):
        if isinstance(node, ast.Constant):
            used.append(node.value)
            return node.value
        left, right = value(node.left), value(node.right)
        result = {"Add": left + right, "Sub": left - right, "Mult": left * right, "Div": left / right}[
            type(node.op).__name__
        ]
        assert result > 0 and result == int(result)
        return int(result)

    infix = text.removesuffix("<eos>").strip().translate(str.maketrans("ABYZ", "+-*/"))
    try:
        return value(ast.parse(infix, mode="eval").body) == int(target) and sorted(used) == sorted(map(int, numbers))
    except (AssertionError, SyntaxError, ZeroDivisionError):
        return False


WORLD = "--data {world}/sft.jsonl --reward countdown --max_new_tokens 8"


def test_the_base_of_recall_adds_to_its_demonstrations(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_world("recall", "recall")
    line = WORLD.format(world="recall") + " --model recall/model --dataset_train_split train[:30] --num_samples 8"
    assert main(["augment", *shlex.split(line), "--num_answers", "3", "--output_dir", "out"]) == 0
    told = capsys.readouterr().out
    assert "30 prompts, 240 samples, each a verifier call" in told and "hardest quarter" in told
    assert "in the data" in (tmp_path / "out" / "report.md").read_text()
    demonstrations = read_rows(tmp_path / "recall" / "sft.jsonl")[:30]
    rows = read_rows(tmp_path / "out" / "sft.jsonl")
    assert [{**row, "source": "demonstration", "provenance": None} for row in demonstrations] == rows[:30]
    added = rows[30:]
    assert len(added) > 15 and all(solves(row["prompt"], row["completion"]) for row in rows)
    assert len({(row["prompt"], words(row["completion"].replace("<eos>", ""))) for row in rows}) == len(rows)
    assert max(Counter(row["prompt"] for row in added).values()) <= 3
    logged = {(row["id"], row["index"]): row["text"] for row in read_rows(tmp_path / "out" / "samples.jsonl")}
    assert all(logged[row["provenance"]["id"], row["provenance"]["sample"]] == row["completion"].strip() for row in added)

    config = manypaths.SFTConfig("sft", max_steps=1, report_to="none", bf16=False, use_cpu=True, completion_only_loss=True,
                                 gradient_checkpointing=False)  # fmt: skip
    trainer = manypaths.SFTTrainer("recall/model", config, train_dataset=load_training_data("out/sft.jsonl"))
    ids = trainer.train_dataset["input_ids"]
    assert {len(row) for row in ids} == {16} and {row[-1] for row in ids} == {trainer.processing_class.eos_token_id}
    assert {row.count(row[-1]) for row in ids} == {1}


def run_killed(arguments, folder, lines, patch=None):
    """`augment` in a process of its own that is killed when so many samples are there; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            if patch is not None:
                setattr(pipeline, patch, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            augment(arguments)
        finally:
            os._exit(0)
    samples = Path(folder, "samples.jsonl")
    while patch is None and (not samples.exists() or samples.read_bytes().count(b"\n") < lines):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it could be killed"
        time.sleep(0.001)
    if patch is None:
        os.kill(child, signal.SIGKILL)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize("world", ["recall", "coldstart"])
def test_killed_five_times_it_ends_at_the_undisturbed_file(world, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_world(world, world)
    model = f"{world}/model"
    if world == "coldstart":  # whose base has never seen the notation
        line = f"sft --model {model} --data {world}/sft.jsonl --output_dir taught --completion_only_loss true --learning_rate "
        line += "5e-4 --num_train_epochs 10 --per_device_train_batch_size 32 --use_cpu true --bf16 false --report_to none"
        assert main(shlex.split(line + " --gradient_checkpointing false --disable_tqdm true --save_strategy no")) == 0
        model = "taught"
    line = f"{WORLD.format(world=world)} --model {model} --num_samples 24 --temperature 1.2 --batch_size 50 --output_dir "
    whole = augment(line + "whole")
    for lines in (20, 300, 1500, 3000):
        assert run_killed(line + "killed", "killed", lines)
        assert not Path("killed/sft.jsonl").exists()
    with open("killed/samples.jsonl", "ab") as file:
        file.write(b'{"task": "sft", "id": "sft-0')  # as if a kill had fallen into a line
    assert run_killed(line + "killed", "killed", None, patch="write_grades")
    seen = Path("killed/samples.jsonl").read_bytes().count(b"\n")
    again = augment(line + "killed")
    assert seen == 4800 and again.summary == whole.summary
    for name in ("sft.jsonl", "grades.jsonl", "yield.json", "report.md", "problems.jsonl"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes(), name
    rows = read_rows(tmp_path / "killed" / "sft.jsonl")
    assert len(rows) > 250 and all(solves(row["prompt"], row["completion"]) for row in rows)
    assert max(Counter(row["prompt"] for row in rows).values()) <= 5


# worked mathematics


def worked(a, b):
    """Two ways to work out a sum, both right."""
    return [f"{a} + {b} = {a + b}, so \\boxed{{{a + b}}}", f"{b} + {a} = {a + b}, so \\boxed{{{a + b}}}"]


@pytest.mark.slow
@pytest.mark.heavy
def test_augment_sft_grpo_and_eval_on_worked_mathematics(tmp_path, monkeypatch):
    """The whole chain on a Llama from scratch: that it works, not that it wins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator([], trainers.BpeTrainer(special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left")
    tokenizer.chat_template = CHAT_TEMPLATE
    save_model(tmp_path / "start", tokenizer, hidden_size=64, intermediate_size=128)
    sums = [(a, b) for a in range(1, 6) for b in range(a + 1, 7)]

    def row(a, b, answer):
        talk = [{"role": "user", "content": f"{a} + {b}?"}, {"role": "assistant", "content": answer}]
        return {"messages": talk, "answer": str(a + b)}

    some = [row(a, b, answer) for a, b in sums[::2] for answer in worked(a, b)]  # both ways for half of the prompts
    write_rows(tmp_path / "data.jsonl", some + [row(a, b, worked(a, b)[0]) for a, b in sums[1::2]])
    write_rows(tmp_path / "rl.jsonl", [{"prompt": row(a, b, "")["messages"][:1], "answer": str(a + b)} for a, b in sums])
    train = "--use_cpu true --bf16 false --gradient_checkpointing false --save_strategy no --report_to none --disable_tqdm true"

    def run(line):
        assert main(shlex.split(line)) == 0, line

    sft = f"sft --per_device_train_batch_size 24 --learning_rate 5e-3 --max_steps STEPS {train}"
    run(f"{sft.replace('STEPS', '300')} --model start --data data.jsonl --output_dir ce")
    run("augment --model ce --data data.jsonl --reward math --distinct chain --num_samples 24 --max_new_tokens 40 "
        "--output_dir more")  # fmt: skip
    made, rows = json.loads(Path("more/yield.json").read_text()), read_rows(tmp_path / "more" / "sft.jsonl")
    assert made["prompts"] == len(sums) and made["answers_before"] == {"1": 7, "2": 8} and made["kept"] > 0
    for row in rows:
        asked, answer = (message["content"] for message in row["messages"])
        a, b = map(int, asked.rstrip("?").split(" + "))
        assert answer.endswith(f"\\boxed{{{a + b}}}") and row["answer"] == str(a + b)
    run(f"{sft.replace('STEPS', '20')} --model ce --data more/sft.jsonl --output_dir rft")
    run(f"grpo --model rft --data rl.jsonl --reward math --max_steps 2 --num_generations 8 --per_device_train_batch_size 16 "
        f"--max_completion_length 40 --preflight_prompts 0 --learning_rate 1e-4 {train} --output_dir rl")  # fmt: skip
    run("eval --model rl --data rl.jsonl --reward math --num_samples 8 --max_new_tokens 40 --output_dir judged")
    assert "pass@8" in Path("judged/results.json").read_text()
