"""An objective that compares tokens, over a whole step: accumulation changes nothing."""

import pytest

from manypaths import SFTConfig
from runs import lively_llama, steps, trainer


def logged(tokenizer, chats, folder, **options) -> list[dict[str, float]]:
    kwargs = {"entropy_fraction": 0.3, "kl_fraction": 0.3, "kl_weight": 1.0}
    run = trainer(
        lively_llama(len(tokenizer)), chats.select(range(8)), tokenizer, folder, objective="eksft", objective_kwargs=kwargs,
        train_sampling_strategy="sequential", max_steps=2, **options,
    )  # fmt: skip
    run.train()
    return steps(run)


def test_micro_batches_of_a_step_select_as_one_batch(tokenizer, chats, tmp_path, capsys):
    whole = logged(tokenizer, chats, tmp_path, per_device_train_batch_size=4)
    assert "eksft compares the tokens of one micro-batch of one rank" in capsys.readouterr().out
    split = dict(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    parts = logged(tokenizer, chats, tmp_path, selection_scope="step", **split)
    assert "eksft compares the tokens of all micro-batches and ranks of a step" in capsys.readouterr().out
    each = logged(tokenizer, chats, tmp_path, **split)
    for name in ("loss", "grad_norm", "objective", "kept_share", "kl_policy_ref"):
        expected = [step[name] for step in whole]
        assert [step[name] for step in parts] == pytest.approx(expected, rel=1e-4), name
        assert name == "kl_policy_ref" or [step[name] for step in each] != pytest.approx(expected, rel=1e-3), name


def test_scopes_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="selection_scope must be micro_batch or step, got 'batch'"):
        SFTConfig(str(tmp_path), objective="eksft", selection_scope="batch", bf16=False, use_cpu=True)
    with pytest.raises(ValueError, match="Objective 'sed' judges every token alone"):
        SFTConfig(str(tmp_path), objective="sed", selection_scope="step", bf16=False, use_cpu=True)
