"""One experiment on a real chat file with a small model made from nothing: undisturbed, killed, and on Ray.

    python benchmarks/experiment_from_scratch.py --data chats.jsonl --output_dir runs/experiment --kills 10 --ray

Makes a tokenizer and a random Llama, splits the file (`messages` whose answers end in a box) into demonstrations, RL
prompts and two benchmarks, and writes `compare.yaml`: three methods, two seeds, SFT -> GRPO (reward `math`) -> evaluation, with
all controls. Then `manypaths experiment compare.yaml` runs to its end, again in another folder while it is killed at
random moments and given again, and once more on a local Ray. The scores of all of them must be equal to the last digit.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from chat_from_scratch import make_start

from manypaths.evaluation import load_scores
from manypaths.grading import extract

EXPERIMENT = """\
title: Which objective should start the RL of this small model?
model_name_or_path: {root}/start
baseline: CE
seeds: [0, 1]
sft:
  dataset_name: {root}/sft.jsonl
  dataset_format: last_answer
  max_steps: {sft_steps}
  per_device_train_batch_size: 4
  learning_rate: 2e-3
  lr_scheduler_type: cosine
  max_length: 192
  logging_steps: 5
  report_to: none
  save_strategy: no
  gradient_checkpointing: false
  bf16: false
  use_cpu: true
grpo:
  dataset_name: {root}/rl.jsonl
  reward: math
  max_steps: {rl_steps}
  per_device_train_batch_size: 32
  num_generations: 8
  max_completion_length: 32
  learning_rate: 1e-3
  lr_scheduler_type: constant
  beta: 0.0
  preflight_prompts: 0
  logging_steps: 1
  report_to: none
  save_strategy: no
  gradient_checkpointing: false
  bf16: false
  use_cpu: true
eval:
  benchmarks: [{root}/short.yaml, {root}/long.yaml]
  reference: {root}/start
  num_samples: 4
  max_new_tokens: 32
  batch_size: 400
methods:
  CE: {{objective: nll}}
  SED: {{objective: sed, calibration_fraction: 0.5}}
  GEM: {{objective: gem}}
controls:
  no_sft_sharpened: {{temperatures: [0.3, 0.6, 1.0], num_samples: 2}}
  matched_temperature: {{temperatures: [0.6, 1.0, 1.4], num_samples: 2}}
compute: {{executor: {executor}, workers: 2}}
output_dir: {output_dir}
"""


def prepare(data: Path, root: Path) -> None:
    """The model, the four parts of the file, and two benchmarks."""
    rows = [json.loads(line) for line in data.read_text().splitlines() if line.strip()]
    root.mkdir(parents=True, exist_ok=True)
    held_out, rest = rows[:48], rows[48:]
    rl, sft = rest[:300], rest[300:]

    def answer(row: dict) -> str:
        return extract(row["messages"][-1]["content"], "strict") or ""

    write(root / "sft.jsonl", sft)
    write(root / "rl.jsonl", [{"prompt": row["messages"][:-1], "answer": answer(row)} for row in rl])
    held_out.sort(key=lambda row: len(row["messages"][0]["content"]))
    for name, part in (("short", held_out[:24]), ("long", held_out[24:])):
        problems = [
            {"id": f"{name}-{place}", "problem": row["messages"][0]["content"], "answer": answer(row)}
            for place, row in enumerate(part)
        ]
        write(root / f"{name}.jsonl", problems)
        (root / f"{name}.yaml").write_text(
            f'name: {name}\nsource: {name}.jsonl\nanswer: answer\nprompt: "{{problem}}"\n'
        )
    make_start(
        sft, root / "start", 1024, hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4
    )


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def start(config: Path, log: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "manypaths", "experiment", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, stdout=log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True, env=environment
    )


def run(config: Path, log: Path) -> float:
    began = time.monotonic()
    code = start(config, log).wait()
    if code:
        raise SystemExit(f"{config} ended with {code}: {log}")
    return time.monotonic() - began


def run_killed(config: Path, log: Path, kills: int, longest: float) -> list[float]:
    """The moments of the kills; the last start runs to its end."""
    moments = []
    for _ in range(kills):
        moment = random.uniform(8.0, longest)
        process = start(config, log)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moments.append(round(moment, 1))
        time.sleep(2.0)  # until the workers have seen that their parent is gone
    run(config, log)
    return moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--sft_steps", type=int, default=20)
    parser.add_argument("--rl_steps", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--ray", action="store_true")
    args = parser.parse_args()
    root = args.output_dir.absolute()
    prepare(args.data, root)
    plans = {"undisturbed": "local"}
    plans |= {"killed": "local"} if args.kills else {}
    plans |= {"ray": "ray"} if args.ray else {}
    tables, seconds = {}, 0.0
    for name, executor in plans.items():
        config = root / f"{name}.yaml"
        settings = {"sft_steps": args.sft_steps, "rl_steps": args.rl_steps, "executor": executor}
        config.write_text(EXPERIMENT.format(root=root, output_dir=root / name, **settings))
        log = root / f"{name}.log"
        if name == "killed":
            moments = run_killed(config, log, args.kills, 10.0 + 1.5 * seconds / args.kills)
            print(f"killed {len(moments)} times, after {moments} seconds", flush=True)
        else:
            seconds = run(config, log)
            print(f"{name}: {seconds:.0f} s", flush=True)
        table = load_scores(root / name)
        tables[name] = table.sort_values(list(table.columns)).reset_index(drop=True)
    for name, table in tables.items():
        same = table.equals(tables["undisturbed"])
        print(f"{name}: {len(table)} scores, {'equal to' if same else 'DIFFERENT from'} the undisturbed run")


if __name__ == "__main__":
    main()
