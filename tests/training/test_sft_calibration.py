"""SED's threshold in training: read from trained tokens of the starting model, stored, and reused on resume."""

import json
import re
import shutil

import pytest
import torch
from transformers import LlamaForCausalLM

from manypaths.training.attachment import attach
from manypaths.training.calibration import FILE, Calibration, calibrate
from naive import statistics as naive_statistics
from runs import label_rows, lively_llama, steps, tokenised, trainer

pytestmark = pytest.mark.slow


def sed(chats, tokenizer, folder, **options):
    return trainer(lively_llama(len(tokenizer)), chats, tokenizer, folder, **{"objective": "sed", **options})


@pytest.mark.parametrize(("fraction", "top_k"), [(0.0, 2), (0.3, 2), (0.7, 5), (1.0, 2)])
def test_the_threshold_is_the_quantile_of_trained_tokens(fraction, top_k, chats, tokenizer, tmp_path):
    run = sed(
        chats, tokenizer, tmp_path, calibration_fraction=fraction, objective_kwargs={"top_k": top_k},
        per_device_train_batch_size=24, max_steps=1, evaluation=chats,
    )  # fmt: skip
    z, labels = label_rows(lively_llama(len(tokenizer)), tokenised(run))
    mass = naive_statistics(z, labels, top_k=top_k)["topk_mass"]
    run.train()
    calibration, (row,) = run.calibration, steps(run)
    assert calibration.num_tokens == len(mass) and calibration.top_k == top_k  # completions only: no prompt token
    assert float((mass < calibration.threshold).float().mean()) == pytest.approx(fraction, abs=1.5 / len(mass))
    assert calibration.requested_fraction == row["mask_rate_requested"] == fraction
    assert row["mask_rate"] == pytest.approx(calibration.realised_fraction, abs=1e-6)
    assert run.objective.missing == () and run.objective.hyperparameters["threshold"] == calibration.threshold


def test_prompt_tokens_would_give_another_threshold(chats, tokenizer, tmp_path):
    on_completions, on_everything = (
        sed(chats, tokenizer, tmp_path, completion_only_loss=only, max_steps=1) for only in (True, False)
    )
    for run in (on_completions, on_everything):
        run.train()
    assert on_everything.calibration.num_tokens > 1.5 * on_completions.calibration.num_tokens
    assert on_everything.calibration.threshold != pytest.approx(on_completions.calibration.threshold, rel=1e-4)


def test_a_sample_is_enough_and_the_seed_chooses_it(chats, tokenizer, tmp_path):
    def threshold(**options):
        run = sed(chats, tokenizer, tmp_path, max_steps=1, learning_rate=0.0, **options)
        run.train()
        return run.calibration.num_tokens, run.calibration.threshold

    whole, sample = threshold(calibration_sequences=24), threshold(calibration_sequences=6)
    assert sample[0] < whole[0] and sample == threshold(calibration_sequences=6)
    assert threshold(calibration_sequences=10_000) == whole
    assert threshold(calibration_sequences=24, per_device_train_batch_size=2)[1] == pytest.approx(whole[1], rel=1e-5)


def test_packing_calibrates_on_the_same_tokens(chats, tokenizer, tmp_path):
    separate, packed = (
        sed(chats, tokenizer, tmp_path, max_steps=1, **options) for options in ({}, dict(packing=True, max_length=128))
    )
    for run in (separate, packed):
        run.train()
    assert packed.calibration.num_tokens == separate.calibration.num_tokens
    assert packed.calibration.threshold == pytest.approx(separate.calibration.threshold, rel=1e-4)


def test_a_given_threshold_is_not_calibrated(chats, tokenizer, tmp_path):
    run = sed(chats, tokenizer, tmp_path, objective_kwargs={"threshold": 0.5}, save_strategy="steps", save_steps=1)
    run.train()
    assert run.calibration is None and not (tmp_path / FILE).exists()
    assert not (tmp_path / "checkpoint-1" / FILE).exists()
    assert "mask_rate_requested" not in steps(run)[0]


def test_calibration_neither_trains_nor_moves_the_random_numbers(chats, tokenizer, tmp_path):
    """A calibrated run and one that is given the same threshold are the same run, dropout and all."""

    def run(**options):
        model = lively_llama(len(tokenizer), attention_dropout=0.3)
        result = trainer(model, chats, tokenizer, tmp_path, objective="sed", **options)
        torch.manual_seed(0)
        result.train()
        return result

    calibrated = run()
    given = run(objective_kwargs={"threshold": calibrated.calibration.threshold})
    assert [row["loss"] for row in steps(given)] == [row["loss"] for row in steps(calibrated)]


def test_an_evaluation_before_training_calibrates_and_stays_an_evaluation(chats, tokenizer, tmp_path):
    model = lively_llama(len(tokenizer), attention_dropout=0.5)
    run = trainer(model, chats, tokenizer, tmp_path, objective="sed", evaluation=chats.select(range(8)))
    first = run.evaluate()
    assert run.calibration is not None and run.evaluate()["eval_loss"] == first["eval_loss"]


OPTIONS = dict(max_steps=4, save_strategy="steps", save_steps=2, optim="adamw_torch", learning_rate=1e-2)


def test_a_resumed_run_retraces_the_uninterrupted_one(chats, tokenizer, tmp_path):
    whole = sed(chats, tokenizer, tmp_path, **OPTIONS)
    whole.train()
    stored, last = (Calibration.load(tmp_path / f"checkpoint-{step}") for step in (2, 4))
    assert stored.threshold == whole.calibration.threshold == Calibration.load(tmp_path).threshold
    assert last == whole.calibration and last.trained_tokens > stored.trained_tokens
    assert json.loads((tmp_path / FILE).read_text())["top_k"] == 2

    resumed = sed(chats, tokenizer, tmp_path, **OPTIONS)
    resumed._calibrate = lambda model: pytest.fail("a trained model was calibrated")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.calibration == whole.calibration, "the tokens before and after the checkpoint are counted once"
    for metric in ("loss", "grad_norm", "ce", "mask_rate", "mask_rate_requested"):
        expected = [row[metric] for row in steps(whole)]
        assert [row[metric] for row in steps(resumed)] == pytest.approx(expected, rel=1e-6), metric
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_resuming_from_the_last_checkpoint_finds_the_threshold(chats, tokenizer, tmp_path):
    first = sed(chats, tokenizer, tmp_path, **{**OPTIONS, "max_steps": 2})
    first.train()
    resumed = sed(chats, tokenizer, tmp_path, **OPTIONS)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.calibration.threshold == first.calibration.threshold and resumed.state.global_step == 4


def test_a_checkpoint_without_its_calibration_is_an_error(chats, tokenizer, tmp_path):
    sed(chats, tokenizer, tmp_path, **{**OPTIONS, "max_steps": 2}).train()
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / FILE).unlink()
    with pytest.raises(ValueError, match=r"checkpoint-2 holds no calibration\.json.*Pass the threshold"):
        sed(chats, tokenizer, tmp_path, **OPTIONS).train(resume_from_checkpoint=str(checkpoint))
    resumed = sed(chats, tokenizer, tmp_path, **OPTIONS, objective_kwargs={"threshold": 0.4})
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 4


def test_every_objective_resumes_with_the_reference_it_started_from(chats, tokenizer, tmp_path):
    """The reference is the model given to the trainer, not the checkpoint that is loaded into it."""

    def run(folder):
        return trainer(lively_llama(len(tokenizer)), chats, tokenizer, folder, objective="eksft", **OPTIONS)

    whole = run(tmp_path)
    whole.train()
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = run(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    expected = [row["kl_policy_ref"] for row in steps(whole)]
    assert [row["kl_policy_ref"] for row in steps(resumed)] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert expected[2] > 1e-3


def test_the_threshold_goes_where_the_weights_go_and_a_reloaded_model_is_not_calibrated_again(
    chats, tokenizer, tmp_path
):
    run = sed(chats, tokenizer, tmp_path / "run", evaluation=chats, max_steps=4)
    run.train()
    run.save_model(str(tmp_path / "elsewhere"))
    loss = run.evaluate()["eval_loss"]
    reloaded = LlamaForCausalLM.from_pretrained(tmp_path / "elsewhere")
    again = trainer(reloaded, chats, tokenizer, tmp_path / "again", objective="sed", evaluation=chats)
    assert again.evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert again.calibration == run.calibration


def test_a_stored_threshold_of_other_settings_is_refused(chats, tokenizer, tmp_path):
    sed(chats, tokenizer, tmp_path / "run", max_steps=2, save_strategy="steps", save_steps=2).train()
    other = sed(chats, tokenizer, tmp_path / "other", objective_kwargs={"top_k": 5})
    with pytest.raises(ValueError, match=r"is not one for objective 'sed' with top_k 5.*pass threshold"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_a_calibration_that_lies_in_the_working_folder_is_nobodys(chats, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Calibration("threshold", "topk_mass", 0.123, 0.3, 0.3, 10, 2).save(tmp_path)
    run = sed(chats, tokenizer, tmp_path / "run", evaluation=chats)
    run.evaluate()
    assert run.calibration.threshold != 0.123


def test_calibrating_by_hand_is_what_the_trainer_does(chats, tokenizer, tmp_path):
    run = sed(chats, tokenizer, tmp_path, max_steps=1, per_device_train_batch_size=4)
    batches = [{**batch} for batch in run.get_train_dataloader()]
    calibration = calibrate(lively_llama(len(tokenizer)), batches, "sed", fraction=0.3)
    run.train()
    assert calibration.num_tokens == run.calibration.num_tokens
    assert calibration.threshold == pytest.approx(run.calibration.threshold, rel=1e-5)
    attached = attach(lively_llama(len(tokenizer)), "sed", {"threshold": calibration.threshold})
    batch = {name: batches[0][name] for name in ("input_ids", "attention_mask", "labels")}
    assert torch.isfinite(attached(**batch).loss)
    with pytest.raises(ValueError, match="'gem' lacks no hyper-parameter"):
        calibrate(attached, batches, "gem")
    with pytest.raises(ValueError, match="no trained token"):
        calibrate(lively_llama(len(tokenizer)), [{**batch, "labels": torch.full_like(batch["labels"], -100)}], "sed")


def test_a_mask_that_drifts_is_said_once_and_counted(chats, tokenizer, tmp_path, capsys):
    run = sed(chats, tokenizer, tmp_path, max_steps=60, learning_rate=0.01, save_strategy="steps", save_steps=6)
    run.train()
    rates = [row["mask_rate"] for row in steps(run)]
    assert min(rates) < 0.15, "the model was meant to become sure"
    out = capsys.readouterr().out
    assert len(re.findall("the model is (surer|less sure) than it was at calibration", out)) == 1
    run.save_model(str(tmp_path / "end"))
    stored = Calibration.load(tmp_path / "end")
    tokens = [row["num_tokens"] for row in steps(run)]
    assert stored.trained_tokens > Calibration.load(tmp_path / "checkpoint-6").trained_tokens > 0 and tokens
    assert min(rates) <= stored.trained_fraction <= max(rates)
    assert f"in training {stored.trained_fraction:.1%}" in str(stored)


def test_the_model_card_says_what_was_minimised(chats, tokenizer, tmp_path):
    run = sed(chats, tokenizer, tmp_path, max_steps=1)
    run.train()
    run.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "- objective: `sed`" in card and "arXiv:2602.07464" in card and str(run.calibration) in card
