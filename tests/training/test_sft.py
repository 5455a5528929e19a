"""The trainer: every objective trains, evaluates and reloads; its metrics are right; batches split as they should."""

import json

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM

import manypaths
from conftest import tiny_llama
from manypaths.objectives import OBJECTIVES, resolve
from manypaths.training.metrics import gates
from naive import statistics as naive_statistics
from runs import HYPERPARAMETERS, label_rows, lively_llama, steps, tokenised, trainer

pytestmark = pytest.mark.slow

ALWAYS = (
    "ce", "objective", "gate_mean", "effective_token_share", "kept_share", "entropy", "mean_token_accuracy",
    "p_label_p10", "p_label_p50", "p_label_p90",
)  # fmt: skip
KL = {"eksft": "kl_policy_ref", "asft": "kl_ref_policy"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_train_evaluate_save_and_reload(name, chats, tokenizer, tmp_path):
    start = lively_llama(len(tokenizer))
    start.save_pretrained(tmp_path / "start")
    reference = {"reference": str(tmp_path / "start")} if name in KL else {}
    options = dict(objective=name, objective_kwargs=HYPERPARAMETERS.get(name), max_steps=4, **reference)
    run = trainer(start, chats, tokenizer, tmp_path, evaluation=chats.select(range(8)), **options)
    before = run.evaluate()
    run.train()
    after = run.evaluate()
    assert after["eval_ce"] < before["eval_ce"]
    assert len(steps(run)) == 4
    for row in steps(run):
        assert all(torch.tensor(row[metric]).isfinite() for metric in ("loss", "grad_norm", *ALWAYS))
        assert row["loss"] == pytest.approx(row["objective"], rel=1e-4, abs=1e-6)
        assert 0 <= row["p_label_p10"] <= row["p_label_p50"] <= row["p_label_p90"] <= 1
        assert 0 <= row["kept_share"] <= 1 and 0 < row["effective_token_share"] <= 1 + 1e-6
        assert ("mask_rate" in row) == (name == "sed") and "mask_rate_requested" not in row
        assert {metric for metric in KL.values() if metric in row} == ({KL[name]} if name in KL else set())
    assert {f"eval_{metric}" for metric in ALWAYS} <= set(after)

    run.save_model(tmp_path / "trained")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "trained")
    again = trainer(reloaded, chats, tokenizer, tmp_path, evaluation=chats.select(range(8)), **options).evaluate()
    for metric in ("eval_loss", "eval_ce", "eval_objective"):
        assert again[metric] == pytest.approx(after[metric], rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_metrics_are_those_of_the_batch(name, chats, tokenizer, tmp_path):
    """One step over all data at once, then the same numbers from plain logits."""
    reference = lively_llama(len(tokenizer), seed=1)
    reference.save_pretrained(tmp_path / "reference")
    model = lively_llama(len(tokenizer))
    options = {"reference": str(tmp_path / "reference")} if name in KL else {}
    data = chats.select(range(8))
    run = trainer(
        model, data, tokenizer, tmp_path, per_device_train_batch_size=8, max_steps=1, learning_rate=0.0,
        objective=name, objective_kwargs=HYPERPARAMETERS.get(name), **options,
    )  # fmt: skip
    batch = tokenised(run)
    z, labels = label_rows(model, batch)
    z_ref, _ = label_rows(reference, batch)
    objective = resolve(name, **HYPERPARAMETERS.get(name, {}))
    statistics = naive_statistics(z, labels, z_ref, objective.hyperparameters.get("top_k", 3))
    run.train()
    (row,) = steps(run)

    gate = gates(objective, {key: statistics[key] for key in ("logprob", *objective.statistics)})
    p = statistics["logprob"].exp().sort().values
    expected = {
        "ce": -statistics["logprob"].mean(),
        "objective": objective(statistics).mean(),
        "loss": objective(statistics).mean(),
        "gate_mean": gate.mean(),
        "effective_token_share": gate.sum() ** 2 / (len(gate) * gate.square().sum()),
        "kept_share": (gate != 0).float().mean(),
        "entropy": statistics["entropy"].mean(),
        "mean_token_accuracy": statistics["is_top1"].mean(),
        "p_label_p10": p[int(0.1 * len(p))],
        "p_label_p50": p[int(0.5 * len(p))],
        "p_label_p90": p[int(0.9 * len(p))],
    }
    if name == "sed":
        expected["mask_rate"] = (statistics["topk_mass"] < 0.03).float().mean()
    if name in KL:
        expected[KL[name]] = statistics[KL[name]].mean()
    for metric, value in expected.items():
        assert row[metric] == pytest.approx(float(value), rel=2e-4, abs=1e-6), metric


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "eksft"])  # its selection is per micro-batch
def test_accumulated_micro_batches_train_as_one_batch(name, chats, tokenizer, tmp_path):
    def run(batch_size, accumulation):
        model = lively_llama(len(tokenizer))
        result = trainer(
            model, chats, tokenizer, tmp_path, per_device_train_batch_size=batch_size, max_steps=2,
            gradient_accumulation_steps=accumulation, objective=name, objective_kwargs=HYPERPARAMETERS.get(name),
        )  # fmt: skip
        result.train()
        return [(row["loss"], row["grad_norm"]) for row in steps(result)], model.state_dict()

    (whole, whole_weights), (parts, part_weights) = run(8, 1), run(1, 8)
    for (a_loss, a_norm), (b_loss, b_norm) in zip(whole, parts, strict=True):
        assert (b_loss, b_norm) == pytest.approx((a_loss, a_norm), rel=1e-4)
    for key, value in whole_weights.items():
        torch.testing.assert_close(part_weights[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "attention"), [("nll", "eager"), ("nll", "sdpa"), ("asft", "sdpa")])
def test_packed_sequences_train_as_separate_ones(name, attention, chats, tokenizer, tmp_path):
    """Packing keeps documents apart by their position ids, on the CPU too."""

    def run(**options):
        model = lively_llama(len(tokenizer))
        model.set_attn_implementation(attention)
        result = trainer(
            model, chats.select(range(8)), tokenizer, tmp_path, max_steps=1, objective=name,
            objective_kwargs=HYPERPARAMETERS.get(name), **options,
        )  # fmt: skip
        result.train()
        return result

    separate = run(per_device_train_batch_size=8)
    packed = run(per_device_train_batch_size=1, packing=True, max_length=256)
    wrapped = run(per_device_train_batch_size=1, packing=True, packing_strategy="wrapped", max_length=81)
    assert len(packed.train_dataset) == 1 and len(separate.train_dataset) == 8
    expected, got, mixed = (steps(result)[0] for result in (separate, packed, wrapped))
    for metric in ("loss", "grad_norm", "ce", "entropy", "num_tokens"):
        assert got[metric] == pytest.approx(expected[metric], rel=1e-4)
    assert mixed["ce"] != pytest.approx(expected["ce"], rel=1e-3)  # attention across documents would be seen


def test_eksft_compares_with_where_it_started(chats, tokenizer, tmp_path):
    model = lively_llama(len(tokenizer))
    started = {name: value.clone() for name, value in model.state_dict().items()}
    run = trainer(model, chats, tokenizer, tmp_path, objective="eksft", max_steps=4)
    run.train()
    kl = [row["kl_policy_ref"] for row in steps(run)]
    assert kl[0] == pytest.approx(0, abs=1e-6) and kl[-1] > 1e-3
    batch = {key: value for key, value in tokenised(run).items() if key != "labels"}
    projection = run._reference(model, batch)
    assert torch.equal(projection.weight, started["lm_head.weight"])
    assert not torch.equal(model.lm_head.weight, started["lm_head.weight"])


def test_the_reference_of_an_adapter_is_the_base(chats, tokenizer, tmp_path):
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    run = trainer(
        lively_llama(len(tokenizer)), chats, tokenizer, tmp_path, peft_config=lora, objective="asft", max_steps=4,
        learning_rate=2.0,
    )  # fmt: skip
    run.train()
    kl = [row["kl_ref_policy"] for row in steps(run)]
    assert kl[0] == pytest.approx(0, abs=1e-6) and kl[-1] > 1e-3
    base = lively_llama(len(tokenizer))
    batch = {key: value for key, value in tokenised(run).items() if key != "labels"}
    with torch.no_grad():
        expected = base(**batch, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(run._reference(run.model, batch).hidden_states, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_without_a_trained_token_is_survived(tokenizer, tmp_path):
    ids = [5, 6, 7, 8]
    rows = [{"input_ids": ids, "labels": labels} for labels in ([-100] * 4, [-100, *ids[1:]]) for _ in range(4)]
    model = lively_llama(len(tokenizer))
    run = trainer(
        model, Dataset.from_list(rows), tokenizer, tmp_path, per_device_train_batch_size=4, objective="eksft",
        dataset_kwargs={"skip_prepare_dataset": True}, train_sampling_strategy="sequential",
    )  # fmt: skip
    run.train()
    empty, full = steps(run)
    assert empty["loss"] == 0 and empty["grad_norm"] == 0 and "ce" not in empty
    assert full["loss"] > 0 and full["ce"] > 0


def test_chat_data_with_assistant_only_loss(tokenizer, tmp_path):
    chat = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three four"}]
    data = Dataset.from_list([{"messages": chat}] * 4)
    run = trainer(lively_llama(len(tokenizer)), data, tokenizer, tmp_path, assistant_only_loss=True, objective="gem")
    run.train()
    labels = torch.tensor(run.train_dataset[0]["labels"])
    assert 0 < int((labels != -100).sum()) < len(labels)
    assert steps(run)[1]["ce"] < steps(run)[0]["ce"]


def test_a_users_own_objective(chats, tokenizer, tmp_path, monkeypatch):
    (tmp_path / "my_loss.py").write_text("def half(logprob, *, share=0.5):\n    return -share * logprob\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = trainer(lively_llama(len(tokenizer)), chats, tokenizer, tmp_path, objective="my_loss:half")
    run.train()
    for row in steps(run):
        assert row["loss"] == pytest.approx(row["ce"] / 2, rel=1e-5) and row["gate_mean"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(objective="sedd"), r"Unknown objective 'sedd'\. Did you mean sed"),
        (dict(objective="power"), "'power' needs exponent"),
        (dict(objective="nll", objective_kwargs={"weight": 1}), "no hyper-parameter 'weight'"),
        (dict(objective="sed", objective_kwargs="{top_k: 2}"), "objective_kwargs is not JSON.*Example"),
        (dict(objective="sed", objective_kwargs="[2]"), r"objective_kwargs must be a mapping, got \[2\]"),
        (dict(objective="sed", calibration_fraction=1.5), "calibration_fraction must be between 0 and 1, got 1.5"),
        (dict(objective="sed", calibration_fraction=-0.1), "calibration_fraction must be between 0 and 1"),
        (dict(objective="sed", calibration_sequences=0), "calibration_sequences must be at least 1, got 0"),
        (dict(loss_type="dft", objective="gem"), "loss_type='dft' and objective='gem' are two losses"),
        (dict(label_smoothing_factor=0.1, loss_type="dft"), "label_smoothing_factor=0.1 and objective='dft' are two"),
        (dict(loss_type="dpo"), "loss_type must be 'nll' or 'dft', got 'dpo'"),
    ],
)  # fmt: skip
def test_configs_that_would_not_train_what_was_asked(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        manypaths.SFTConfig(str(tmp_path), use_cpu=True, bf16=False, **options)


def test_hyperparameters_as_json(tmp_path):
    given = json.dumps({"top_k": 4, "threshold": 0.5})
    config = manypaths.SFTConfig(str(tmp_path), use_cpu=True, bf16=False, objective="sed", objective_kwargs=given)
    assert config.objective_kwargs == {"top_k": 4, "threshold": 0.5}


def test_what_construction_refuses(chats, tokenizer, tmp_path):
    vocab_size = len(tokenizer)
    model = tiny_llama(vocab_size)
    with pytest.raises(ValueError, match=f"top_k = {vocab_size} .* must be below the vocabulary size"):
        trainer(model, chats, tokenizer, tmp_path, objective="sed", objective_kwargs={"top_k": vocab_size})
    tiny_llama(vocab_size + 2).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=f"reference's vocabulary has {vocab_size + 2} entries"):
        trainer(model, chats, tokenizer, tmp_path, objective="eksft", reference=str(tmp_path / "other"))
    config = manypaths.SFTConfig(str(tmp_path), use_cpu=True, bf16=False)
    with pytest.raises(ValueError, match="compute_loss_func would replace the objective"):
        manypaths.SFTTrainer(model, config, train_dataset=chats, compute_loss_func=print)


def test_logged_means_are_over_tokens_however_they_are_batched(chats, tokenizer, tmp_path):
    def log(**options):
        run = trainer(
            lively_llama(len(tokenizer)), chats.select(range(8)), tokenizer, tmp_path, objective="nll", max_steps=1,
            evaluation=chats, **options,
        )  # fmt: skip
        run.train()
        return steps(run)[0] | run.evaluate()

    whole = log(per_device_train_batch_size=8, per_device_eval_batch_size=24)
    split = log(per_device_train_batch_size=1, gradient_accumulation_steps=8, per_device_eval_batch_size=5)
    assert whole["ce"] == pytest.approx(whole["loss"], rel=1e-5)
    for name in ("ce", "objective", "gate_mean", "eval_ce"):
        assert split[name] == pytest.approx(whole[name], rel=1e-5), name
