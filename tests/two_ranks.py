"""Three short runs over however many processes the environment says; training/test_sft_distributed.py starts it.

Usage: two_ranks.py FOLDER ROWS_PER_RANK. Rank 0 writes what every step logged to FOLDER/WORLD_SIZE.json.
"""

import json
import os
import sys
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from manypaths.training.run import end
from runs import lively_llama, steps, trainer


def main(folder: Path, rows_per_rank: int) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = json.loads((folder / "rows.json").read_text())
    ids = [5, 6, 7, 8]
    # In batches of two, every second one holds no trained token: all that rank 1 ever sees
    half_empty = [{"input_ids": ids, "labels": labels} for labels in ([-100, *ids[1:]], [-100] * 4) for _ in range(2)]
    cases = {
        "sed": ("sed", rows, {}),
        "eksft": ("eksft", rows, dict(objective_kwargs=dict(entropy_fraction=0.0, kl_fraction=0.0))),
        "asft with an empty rank": ("asft", half_empty * 2, {}),
    }
    results = {}
    for case, (objective, data, options) in cases.items():
        run = trainer(
            lively_llama(len(tokenizer)), Dataset.from_list(data), tokenizer, folder / "run", objective=objective,
            per_device_train_batch_size=rows_per_rank, dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential", ddp_timeout=60, calibration_sequences=8, max_steps=2, **options,
        )  # fmt: skip
        run.train()
        weights = sum(float(parameter.detach().double().square().sum()) for parameter in run.model.parameters())
        threshold = None if run.calibration is None else run.calibration.threshold
        results[case] = {"steps": steps(run), "weights": weights, "threshold": threshold}
    if int(os.environ.get("RANK", 0)) == 0:
        (folder / f"{os.environ.get('WORLD_SIZE', 1)}.json").write_text(json.dumps(results))
    end(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
