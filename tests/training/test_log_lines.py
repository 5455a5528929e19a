"""What a run prints: lines in columns."""

from types import SimpleNamespace

import pytest
from transformers import PrinterCallback, ProgressCallback, TrainerControl, TrainerState

from manypaths.training.log_lines import COLUMNS, LogLines, in_lines, number, shown

LOGS = {  # as a run of sed printed them
    "loss": 1.2345678, "grad_norm": 12345.678, "learning_rate": 1.9999e-05, "ce": 1.1, "entropy": 0.98765,
    "mean_token_accuracy": 0.654321, "mask_rate": 0.271, "mask_rate_requested": 0.3, "objective": 1.2, "gate_mean": 0.9,
    "num_tokens": 1e6, "epoch": 0.1, "kl_policy_ref": 1e-7,
}  # fmt: skip


@pytest.fixture
def lines(capsys):
    """Prints logs as steps of a run of 1000, and gives what was written."""
    writer, state = LogLines(), TrainerState(max_steps=1000, global_step=0, is_world_process_zero=True)
    writer.on_train_begin(None, state, TrainerControl())

    def write(*several):
        for logs in several:
            state.global_step += 1
            writer.on_log(None, state, TrainerControl(), logs=logs)
        return capsys.readouterr().out.splitlines()

    return write


def test_a_line_a_log_step_under_headings(lines):
    headings, first, second = lines(LOGS, {**LOGS, "loss": 0.5})
    assert headings.split()[0] == "step" and headings.endswith("time left")
    assert "1.235" in first and "0.27/0.30" in first and "2.00e-05" in first and "1.00e-07" in first
    assert second.split()[0] == "2/1000" and second.split()[1] == "0.5"
    assert headings.index("loss") + len("loss") == first.index("1.235") + len("1.235"), "columns are aligned"


def test_lines_of_a_long_run_fit_120_columns(lines):
    everything = LOGS | {"reward": -1.5, "frac_reward_zero_std": 0.123456, "completions/mean_length": 1234.5678}
    assert len(shown(everything)) == len(COLUMNS)
    sft = {name: value for name, value in LOGS.items()}
    assert max(map(len, lines(*[sft] * 70))) <= 120


def test_headings_come_again_and_evaluations_are_sentences(lines):
    assert sum(line.lstrip().startswith("step") for line in lines(*[LOGS] * 70)) == 3
    (evaluation,) = lines({"eval_loss": 0.25, "eval_ce": 0.2, "eval_runtime": 3.0})
    assert evaluation == "evaluation at step 71: loss 0.25, ce 0.2"
    assert lines({"train_runtime": 200.0, "train_loss": 1.0}) == ["trained 72 steps in 3 min"]


def test_numbers():
    assert [number(value) for value in (0, 1.23456, 1e-9, 123456.0, -0.5)] == ["0", "1.235", "1.00e-09", "1.23e+05", "-0.5"]


@pytest.mark.parametrize(("quiet", "terminal"), [(True, True), (False, True), (False, False)])
def test_the_trainers_own_printing_is_replaced(quiet, terminal, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    callbacks = [ProgressCallback, PrinterCallback]
    trainer = SimpleNamespace(
        args=SimpleNamespace(disable_tqdm=quiet), remove_callback=callbacks.remove, add_callback=callbacks.append
    )
    in_lines(trainer)
    expected = ["Bar", "LogLines"] if terminal and not quiet else ["LogLines"]
    assert [type(callback).__name__ for callback in callbacks] == expected
