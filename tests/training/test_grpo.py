import pytest
import torch
from datasets import Dataset

from manypaths.generation.samples import Sample
from manypaths.training import grpo
from manypaths.training.config import GRPOConfig
from manypaths.training.grpo import Preflight, grade, low_coverage, preflight, train_grpo

PROMPTS = ["one two", "three four five", "six", "seven eight"]


def config(tmp_path, **settings):
    defaults = dict(
        output_dir=str(tmp_path / "run"),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=6,
        max_steps=2,
        learning_rate=1e-2,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
        preflight_prompts=2,
    )
    return GRPOConfig(**{**defaults, **settings})


def prompts(**columns):
    return Dataset.from_dict({"prompt": PROMPTS, **columns})


def length_reward(completion_ids, **columns):
    return [float(sum(ids) % 7) for ids in completion_ids]


def nothing(completions, **columns):
    return [0.0] * len(completions)


def ends(model, tokenizer):
    """Makes the end token likely enough for some completions to end and others not."""
    with torch.no_grad():
        model.lm_head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
        model.lm_head.weight.normal_(0, 0.02)
        model.lm_head.bias.zero_()
        model.lm_head.bias[tokenizer.eos_token_id] = 4.5
    return model


def test_training_moves_the_model_and_returns_the_trainer(tmp_path, model, tokenizer, capsys):
    model = ends(model, tokenizer)
    before = model.lm_head.weight.detach().clone()
    trainer = train_grpo(model, prompts(), length_reward, config(tmp_path), processing_class=tokenizer)
    assert trainer.state.global_step == 2
    assert not torch.equal(before, trainer.model.lm_head.weight)
    assert "preflight: 2 prompts x 4 completions" in capsys.readouterr().out


def test_a_model_folder_works_too(tmp_path, model, tokenizer):
    ends(model, tokenizer)
    plain = model
    plain.lm_head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    plain.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    settings = config(tmp_path, preflight_prompts=0, max_steps=1)
    trainer = train_grpo(str(tmp_path / "start"), prompts(), [length_reward, nothing], settings)
    assert trainer.state.global_step == 1


def test_groups_without_variance_are_refused_and_the_refusal_can_be_switched_off(tmp_path, model, tokenizer):
    model = ends(model, tokenizer)
    with pytest.raises(ValueError, match=r"all rewards are equal \(mean 0\.000\).*SFT first.*preflight_prompts"):
        train_grpo(model, prompts(), nothing, config(tmp_path), processing_class=tokenizer)
    settings = config(tmp_path, preflight_prompts=0, max_steps=1)
    assert train_grpo(model, prompts(), nothing, settings, processing_class=tokenizer).state.global_step == 1


def test_completions_that_never_end_are_refused(tmp_path, model, tokenizer):
    model = ends(model, tokenizer)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.eos_token_id] = -1e4
    with pytest.raises(ValueError, match="none ended within 6 tokens"):
        train_grpo(model, prompts(), length_reward, config(tmp_path), processing_class=tokenizer)


def test_conversations_need_a_template(tmp_path, model, tokenizer):
    chats = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in PROMPTS]})
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(ValueError, match="no chat template"):
            train_grpo(model, chats, length_reward, config(tmp_path), processing_class=tokenizer)
    finally:
        tokenizer.chat_template = template


def test_wrong_rewards_and_columns_fail_before_a_trainer_exists(tmp_path, model, tokenizer):
    with pytest.raises(ValueError, match="Unknown reward 'cuontdown'"):
        train_grpo(model, prompts(), "cuontdown", config(tmp_path), processing_class=tokenizer)
    with pytest.raises(ValueError, match="needs a column prompt; the data has text"):
        train_grpo(model, Dataset.from_dict({"text": ["a"]}), nothing, config(tmp_path), processing_class=tokenizer)
    with pytest.raises(ValueError, match="preflight_prompts must be 0"):
        config(tmp_path, preflight_prompts=-1)
    assert not (tmp_path / "run").exists()


def test_rewards_are_called_as_trl_calls_them_and_added_with_weights():
    rows = [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}]
    groups = [[Sample("x", [5], "eos"), Sample("y", [6], "eos")], [Sample("z", [7], "eos")]]
    seen = {}

    def remembers(prompts, completions, completion_ids, answer, log_metric, **columns):
        log_metric("name", 1.0)
        seen.update(prompts=prompts, completions=completions, completion_ids=completion_ids, answer=answer)
        return [1.0, None, 3.0]

    async def later(completions, **columns):
        return [10.0] * len(completions)

    assert grade(rows, groups, [remembers, later], [2.0, 0.5]) == [[7.0, 5.0], [11.0]]
    assert seen == {
        "prompts": ["a", "a", "b"],
        "completions": ["x", "y", "z"],
        "completion_ids": [[5], [6], [7]],
        "answer": [1, 1, 2],
    }


def test_conversational_prompts_get_conversational_completions():
    seen = []

    def remembers(completions, **columns):
        seen.extend(completions)
        return [0.0]

    grade([{"prompt": [{"role": "user", "content": "a"}]}], [[Sample("x", [5], "eos")]], [remembers])
    assert seen == [[{"role": "assistant", "content": "x"}]]


def test_training_tells_rewards_which_completions_ended(tmp_path, model, tokenizer):
    told = []

    def remembers(completion_ids, finished, **columns):
        told.extend((ids[-1] == tokenizer.eos_token_id, end) for ids, end in zip(completion_ids, finished, strict=True))
        return length_reward(completion_ids)

    async def too(finished, **columns):
        return [float(end) for end in finished]

    settings = config(tmp_path, preflight_prompts=0, max_completion_length=1)
    train_grpo(ends(model, tokenizer), prompts(), [remembers, too], settings, processing_class=tokenizer)
    assert set(told) == {(True, True), (False, False)}


def bad(value):
    """A reward that gives this for the third completion, and lengths else."""

    def reward(completion_ids, **columns):
        values = length_reward(completion_ids)
        return [*values[:2], value, *values[3:]]

    return reward


@pytest.mark.parametrize(
    ("value", "prompts_before"),
    [(float("nan"), 2), (float("inf"), 2), ("1.0", 2), ([1.0], 2), (10**400, 2), (float("nan"), 0), (float("inf"), 0)],
)
def test_what_is_no_finite_number_is_refused_before_and_in_training(tmp_path, model, tokenizer, value, prompts_before):
    settings = config(tmp_path, preflight_prompts=prompts_before)
    message = r"Reward 'reward' gave .* for the completion .*; it must give a finite number, or None"
    with pytest.raises(ValueError, match=message) as caught:
        train_grpo(ends(model, tokenizer), prompts(), bad(value), settings, processing_class=tokenizer)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert not list(tmp_path.rglob("*.safetensors"))


def test_none_means_does_not_apply_but_some_reward_must(tmp_path, model, tokenizer):
    async def nowhere(completions, **columns):
        return [None] * len(completions)

    model = ends(model, tokenizer)
    settings = config(tmp_path, max_steps=1)
    trained = train_grpo(model, prompts(), [length_reward, nowhere], settings, processing_class=tokenizer)
    assert trained.state.global_step == 1
    for before in (2, 0):
        settings = config(tmp_path, preflight_prompts=before)
        with pytest.raises(ValueError, match=r"No reward applies to the completion '.*': all gave None"):
            train_grpo(model, prompts(), [bad(None), nowhere], settings, processing_class=tokenizer)


def test_numbers_of_other_libraries_are_numbers(tmp_path, model, tokenizer):
    def whole(completion_ids, **columns):
        return torch.tensor([sum(ids) % 7 for ids in completion_ids])

    def yes(completion_ids, **columns):
        return [sum(ids) % 2 == 0 for ids in completion_ids]

    settings = config(tmp_path, max_steps=1)
    trained = train_grpo(ends(model, tokenizer), prompts(), [whole, yes], settings, processing_class=tokenizer)
    assert trained.state.global_step == 1


def test_a_reward_that_raises_is_told_by_its_own_line(tmp_path, model, tokenizer):
    def reward(completions, **columns):
        return [columns["answr"] for _ in completions]

    for before in (2, 0):
        settings = config(tmp_path, preflight_prompts=before)
        with pytest.raises(ValueError) as caught:
            train_grpo(ends(model, tokenizer), prompts(), reward, settings, processing_class=tokenizer)
        message = str(caught.value)
        assert message.startswith("Reward 'reward' fails: KeyError: 'answr' (test_grpo.py, line ")
        assert message.endswith('return [columns["answr"] for _ in completions]).') and "\n" not in message
        assert isinstance(caught.value.__cause__, KeyError)


def test_coverage_is_that_of_prompts_with_several_right_completions(tmp_path, monkeypatch):
    texts = [["a", "a ", "b", "x"], ["a", "a", "a", "a"], ["c", "x", "x", "x"], ["x", "x", "x", "x"]]
    groups = [[Sample(text, [5], "eos") for text in group] for group in texts]
    monkeypatch.setattr(grpo, "sample", lambda *_, **__: groups)

    def known(completions, **columns):
        return [float(text != "x") for text in completions]

    def well_formed(completions, **columns):
        return [1.0] * len(completions)

    def measured(*rewards, **settings):
        return preflight(None, None, prompts(), rewards, config(tmp_path, preflight_prompts=4, **settings))

    report = measured(known)
    assert (report.several_right, report.distinct_right) == (2, 1.5) and "different right completions 1.5" in str(report)
    report = measured(well_formed, known, reward_weights=[0.5, 1.0])
    assert (report.several_right, report.distinct_right) == (2, 1.5)
    groups[:] = [[Sample("x", [5], "eos")] * 4] * 4
    report = measured(known)
    assert (report.several_right, report.distinct_right) == (0, None) and "different" not in str(report)


def test_low_coverage_is_a_warning_with_its_evidence_and_never_a_refusal(tmp_path, model, tokenizer, capsys):
    model = ends(model, tokenizer)

    def report(distinct, several=6):
        return Preflight(8, 16, 0.4, 0.1, 1.0, 7.0, several, distinct)

    assert not any(map(low_coverage, (report(2.0), report(None, 0), report(1.0, 1))))
    warning = low_coverage(report(1.25))
    assert "on the 6 prompts with several right completions, 1.2 of these are different" in warning
    assert "R2 .73" in warning and "nothing forecast pass@1" in warning and "manypaths augment" in warning

    def empty(completion_ids, **columns):
        return [float(len(ids) == 1) for ids in completion_ids]

    settings = config(tmp_path, max_steps=1, preflight_prompts=4, num_generations=8, per_device_train_batch_size=8)
    train_grpo(model, prompts(), empty, settings, processing_class=tokenizer)
    assert "warning: low coverage: on the " in capsys.readouterr().out
