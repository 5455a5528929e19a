"""Change the import of a TRL script and nothing else: every shape of its call trains what TRL would."""

import inspect

import pytest
import torch
import trl
from peft import CPTConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from transformers import Seq2SeqTrainingArguments, TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

import manypaths
from conftest import tiny_llama
from manypaths.training.config import config_of
from manypaths.training.sft import virtual_tokens
from naive import statistics
from runs import lively_llama, steps, tokenised

CPU = dict(
    use_cpu=True, bf16=False, report_to="none", save_strategy="no", logging_steps=1, max_steps=2, disable_tqdm=True,
    learning_rate=1e-2, per_device_train_batch_size=4,
)  # fmt: skip
PROMPTS = {
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix tuning": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "p-tuning": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=16),
}


def losses(trainer) -> list[tuple[float, float]]:
    trainer.train()
    return [(row["loss"], row["grad_norm"]) for row in steps(trainer)]


def test_the_signature_is_trls():
    assert inspect.signature(manypaths.SFTTrainer) == inspect.signature(trl.SFTTrainer)


def test_arguments_by_position(chats, tokenizer, tmp_path, model):
    config = manypaths.SFTConfig(str(tmp_path), **CPU)
    trainer = manypaths.SFTTrainer(model, config, None, chats, chats.select(range(4)), tokenizer)
    assert len(trainer.train_dataset) == len(chats) and len(trainer.eval_dataset) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda folder: TrainingArguments(folder, **CPU, max_grad_norm=0.5, hub_token="secret", weight_decay=0.1),
        lambda folder: trl.SFTConfig(folder, **CPU, max_length=6, model_init_kwargs={"dtype": torch.float32}),
        lambda folder: trl.SFTConfig(folder, **CPU, loss_type="dft"),
        lambda folder: trl.SFTConfig(folder, **CPU, label_smoothing_factor=0.2),
        lambda folder: trl.SFTConfig(folder, **CPU, loss_type="dft", accelerator_config={"split_batches": True}),
    ],
)
def test_what_trl_takes_trains_as_in_trl(make, chats, tokenizer, tmp_path):
    def run(trainer_class):
        args = make(str(tmp_path))
        model = lively_llama(len(tokenizer))
        return trainer_class(model, args, train_dataset=chats, processing_class=tokenizer)

    stock, ours = run(trl.SFTTrainer), run(manypaths.SFTTrainer)
    assert ours.args.hub_token == stock.args.hub_token
    for expected, got in zip(losses(stock), losses(ours), strict=True):
        assert got == pytest.approx(expected, rel=2e-5)


def test_trls_losses_are_objectives(tmp_path):
    def objective(**options):
        config = manypaths.SFTConfig(str(tmp_path), **CPU, **options)
        return config.objective, config.objective_kwargs, config.loss_type, config.label_smoothing_factor

    assert objective() == ("nll", None, "nll", 0.0)
    assert objective(loss_type="dft") == ("dft", None, "nll", 0.0)
    assert objective(label_smoothing_factor=0.2) == ("label_smoothing", {"smoothing": 0.2}, "nll", 0.0)


def test_the_default_folder_carries_the_models_name(model):
    model.config._name_or_path = "someone/tiny"
    assert config_of(None, "someone/tiny").output_dir == config_of(None, model).output_dir == "tiny-SFT"


class Extended(trl.SFTConfig):
    """A user's own config; `note` is set after construction."""


def test_options_that_would_be_lost_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"generation_config, .*predict_with_generate, .* would be lost"):
        config_of(Seq2SeqTrainingArguments(str(tmp_path), **CPU), "tiny")
    extended = Extended(str(tmp_path), **CPU)
    extended.note = 1
    with pytest.raises(ValueError, match=r"note of .*Extended would be lost"):
        config_of(extended, "tiny")
    with pytest.raises(ValueError, match=r"args must be .* got a builtins.dict"):
        config_of({"output_dir": "x"}, "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_train_as_in_trl(name, chats, tokenizer, tmp_path):
    def run(trainer_class, config_class):
        torch.manual_seed(0)
        model = get_peft_model(lively_llama(len(tokenizer)), PROMPTS[name])
        config = config_class(str(tmp_path), **CPU, completion_only_loss=False, gradient_checkpointing=False)
        trainer = trainer_class(model, config, train_dataset=chats, eval_dataset=chats, processing_class=tokenizer)
        return losses(trainer), trainer.evaluate()

    (stock, stock_eval), (ours, ours_eval) = (
        run(trl.SFTTrainer, trl.SFTConfig),
        run(manypaths.SFTTrainer, manypaths.SFTConfig),
    )
    for expected, got in zip(stock, ours, strict=True):
        assert got == pytest.approx(expected, rel=2e-5)
    for metric in ("eval_loss", "eval_entropy", "eval_mean_token_accuracy"):
        assert ours_eval[metric] == pytest.approx(stock_eval[metric], rel=2e-5)


@pytest.mark.slow
def test_the_reference_of_a_prompt_is_the_model_without_it(chats, tokenizer, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(lively_llama(len(tokenizer)), PROMPTS["prompt tuning"])
    options = CPU | dict(per_device_train_batch_size=24, max_steps=1, learning_rate=0.0, objective="asft")
    config = manypaths.SFTConfig(str(tmp_path), **options, gradient_checkpointing=False)
    trainer = manypaths.SFTTrainer(model, config, None, chats, None, tokenizer)
    (got,) = losses(trainer)
    batch = tokenised(trainer)
    labels, inputs = batch["labels"][:, 1:], {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        policy = model.eval()(**inputs).logits[:, 3:-1]
        with model.disable_adapter():
            reference = model(**inputs).logits[:, :-1]
    valid = labels != -100
    objective = manypaths.resolve("asft")
    expected = objective(statistics(policy[valid], labels[valid], reference[valid], 3)).mean()
    assert got[0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_a_threshold_is_calibrated_behind_prompts(chats, tokenizer, tmp_path):
    options = CPU | dict(per_device_train_batch_size=24, max_steps=1, learning_rate=0.0, objective="sed")
    config = manypaths.SFTConfig(str(tmp_path), **options, gradient_checkpointing=False)
    model = lively_llama(len(tokenizer))
    trainer = manypaths.SFTTrainer(model, config, None, chats, None, tokenizer, peft_config=PROMPTS["p-tuning"])
    trainer.train()
    assert steps(trainer)[0]["mask_rate"] == pytest.approx(trainer.calibration.realised_fraction, abs=1e-6)


def test_prompts_are_not_packed(chats, tokenizer, tmp_path):
    config = manypaths.SFTConfig(str(tmp_path), **CPU, packing=True, max_length=32)
    with pytest.raises(ValueError, match="packed documents would attend to each other"):
        manypaths.SFTTrainer(
            tiny_llama(len(tokenizer)), config, None, chats, None, tokenizer, peft_config=PROMPTS["prompt tuning"]
        )


def test_prompts_with_a_loss_of_their_own_are_refused(model):
    prompts = CPTConfig(task_type="CAUSAL_LM", cpt_token_ids=[3, 4], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 1])
    with pytest.raises(ValueError, match="CPT weighs the loss of every token itself"):
        virtual_tokens(get_peft_model(model, prompts))


def test_bf16_is_trls_where_trl_trains_at_all(tmp_path):
    assert manypaths.SFTConfig(str(tmp_path), use_cpu=True).bf16 is trl.SFTConfig(str(tmp_path), use_cpu=True).bf16
    assert manypaths.SFTConfig(str(tmp_path)).bf16 is is_torch_bf16_gpu_available()  # where it is not, TRL stops


@pytest.mark.slow
def test_fp16_weights_under_bf16_autocast_train_as_in_trl(chats, tokenizer, tmp_path):
    def run(trainer_class, config_class):
        config = config_class(str(tmp_path), **CPU | dict(bf16=True, learning_rate=1e-4))
        model = lively_llama(len(tokenizer)).half()
        return losses(trainer_class(model, config, train_dataset=chats, processing_class=tokenizer))

    stock, ours = run(trl.SFTTrainer, trl.SFTConfig), run(manypaths.SFTTrainer, manypaths.SFTConfig)
    for expected, got in zip(stock, ours, strict=True):
        assert got == pytest.approx(expected, rel=2e-2)
