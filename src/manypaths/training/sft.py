"""TRL's SFTTrainer with any objective. All mathematics is elsewhere; this file only joins.

TRL's own `compute_loss` runs unchanged on a stand-in for the model that answers its fused-head call with our
per-token losses, so reduction, accumulation, DDP scaling, auxiliary losses, metrics and evaluation stay TRL's. This
leans on `FusedCausalLMOutput`, on the `fused_lm_head=True` argument, on `_metrics` and on how TRL finds an adapter on the
head, which are private to trl >= 1.16, < 2; tests/training/test_equivalence.py compares with stock TRL and fails when
they move.
"""

import contextlib
import functools
import inspect
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import trl
from accelerate.utils import DistributedType, fsdp2_prepare_model, gather_object
from torch import Tensor, nn
from trl.models import prepare_deepspeed
from trl.trainer.utils import FusedCausalLMOutput

from ..data.formats import check_tokenizer_fits, check_trained_tokens, rows_of
from ..engine import Projection, unpack
from ..models.lm_head import HeadHook, is_peft, router_loss_weight
from ..models.loading import evaluating
from ..models.reference_model import reference_of
from ..models.refusals import refusal
from ..objectives import Objective, resolve
from ..objectives.registry import describe
from ..run_folder import CACHE, nothing_left_on_failure, write_whole
from .attachment import check_head
from .cached_reference import CachedReference
from .calibration import Calibration, calibration_of, statistic_values
from .checkpoints import resumed_from
from .config import config_of
from .metrics import label_probability_quantiles, means, sums
from .reduction import TokenLosses, statistics_of, token_losses
from .step_scope import over_the_step

SCOPES = {"micro_batch": "one micro-batch of one rank", "step": "all micro-batches and ranks of a step"}


class SFTTrainer(trl.SFTTrainer):
    """`trl.SFTTrainer`, with its arguments, that minimises `args.objective`.

    `args` is an `SFTConfig` of this module, or what TRL takes: `trl.SFTConfig`, `transformers.TrainingArguments` or
    None. Those train the loss that TRL would train with them.

    Raises:
        ValueError: at construction, for every combination that would not train what was asked.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "sft", "manypaths"]

    @functools.wraps(trl.SFTTrainer.__init__)
    def __init__(self, *given: Any, **named: Any) -> None:
        call = inspect.signature(trl.SFTTrainer).bind(*given, **named)
        if call.arguments.get("compute_loss_func") is not None:
            raise ValueError("compute_loss_func would replace the objective; write it as objective='module:function'.")
        args = call.arguments["args"] = config_of(call.arguments.get("args"), call.arguments["model"])
        objective = resolve(args.objective, **(args.objective_kwargs or {}))
        cached = args.reference == CACHE
        live = objective.needs_reference and not cached
        with nothing_left_on_failure(args.output_dir):
            with adapters_on_the_head():
                super().__init__(*call.args, **call.kwargs)
            self.objective = objective
            self.calibration: Calibration | None = None
            self._hook = HeadHook(self.model)
            check_head(self.model, objective)
            check_tokenizer_fits(self.model, self._tokenizer)
            self._check_trained_tokens()
            refuse_unsupported(self.accelerator, live)
            self._virtual_tokens = virtual_tokens(self.model)
            if self._virtual_tokens and self.padding_free:
                raise ValueError("Prompt tuning ignores position_ids, so packed documents would attend to each other.")
            self._totals = {"train": Counter(), "eval": Counter()}
            self._drifted = False
            self._base = self.model.config.name_or_path
            shard = partial(sharded_reference, self.accelerator)
            self._reference = reference_of(self.model, args.reference, shard) if live else None
            self._cached = self._cached_reference() if cached else None
            routed = getattr(self.model.config.get_text_config(), "output_router_logits", False)
            if routed and not self.aux_loss_enabled:  # TRL knows one place of the weight only
                self.router_aux_loss_coef = router_loss_weight(self.model)
                self.aux_loss_enabled = self.router_aux_loss_coef != 0

    def _check_trained_tokens(self) -> None:
        if "labels" not in next(iter(self.train_dataset), {"labels": []}):
            return  # labelled by the collator
        seen = check_trained_tokens(self.train_dataset, rows_of(self.model.get_input_embeddings().weight))
        if seen["untrained_rows"]:
            self.accelerator.print(
                f"warning: {seen['untrained_rows']} of the first {seen['rows']} rows have no trained token."
            )

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        folder, processes = self.args.output_dir, self.args.world_size
        checkpoint = resumed_from(resume_from_checkpoint, folder, processes, self.accelerator.print)
        if checkpoint and self.objective.missing:
            self._adopt(stored_calibration(checkpoint))
        if checkpoint and self._cached is not None:
            self._cached.check_resumable(checkpoint)
        settings = f" {self.objective.hyperparameters}" if self.objective.hyperparameters else ""
        self.accelerator.print(
            f"objective: {self.objective.name}{settings}. Its values are not comparable between objectives; compare `ce`."
        )
        if not self.objective.row_local:
            scope = SCOPES[self.args.selection_scope]
            self.accelerator.print(f"{self.objective.name} compares the tokens of {scope} (selection_scope).")
        return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The calibrated threshold goes where the weights go, for evaluation and resuming."""
        super().save_model(output_dir, _internal_call)
        if self.calibration is not None and self.args.should_save:
            self.calibration.save(output_dir or self.args.output_dir)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.objective.missing:
            folder = self.model.name_or_path
            stored = Calibration.load(folder) if folder and not self.is_in_train else None
            if stored is None:
                self._calibrate(model)
            else:
                self._adopt(stored)
                self.accelerator.print(f"{stored} (stored with the model)")
        return super().compute_loss(partial(self._call, model), inputs, return_outputs, num_items_in_batch)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """The micro-batches of a step; what an objective of the whole step has to know of them is read here."""
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        if self.args.selection_scope == "step" and batches:
            read = [self._statistics(batch) for batch in batches]
            self._of_this_step = over_the_step(self.objective, read, self.accelerator.process_index)
        return batches, num_items

    def _statistics(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The objective's own statistics of a batch, without gradients and dropout."""
        inputs = self._prepare_inputs({**batch, "use_cache": False})
        labels = inputs.pop("labels")
        want, parameters = self.objective.statistics, self.objective.engine_parameters
        with evaluating(self.model), torch.no_grad():
            reference = self._reference_at(self.model_wrapped, inputs, labels)

            def read(policy: Projection) -> dict[str, Tensor]:
                return statistics_of(*self._aligned(policy, labels, reference), want, reference, **parameters)[0]

            return self._hook(lambda: self.model_wrapped(**inputs), read).result

    def _call(self, model: nn.Module, *, fused_lm_head: bool = False, **inputs: Any) -> Any:
        """The stand-in for the model: our losses where TRL asks for its fused head."""
        if not fused_lm_head:
            return model(**inputs)
        labels = inputs.pop("labels")
        reference = self._reference_at(model, inputs, labels)

        of_the_step = self.args.selection_scope == "step" and self.model.training
        objective = next(self._of_this_step) if of_the_step else self.objective

        def score(policy: Projection) -> TokenLosses:
            return token_losses(objective, *self._aligned(policy, labels, reference), reference)

        output, scored = self._hook(lambda: model(**inputs), score)
        self._record(objective, scored.statistics)
        return FusedCausalLMOutput(
            log_probs=-(scored.losses + 0.0 * output.logits.sum()),
            entropy=unpack(scored.statistics["entropy"], scored.valid),
            is_top1=unpack(scored.statistics["is_top1"], scored.valid),
            label_mask=scored.valid,
            aux_loss=getattr(output, "aux_loss", None),
        )

    def _reference_at(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Projection | None:
        """The reference of a batch, live or cached; the first batch before training makes the cache."""
        if self._cached is not None:
            if not self._cached.cache.complete:
                self._cached.fill(self._hook, model)
            return self._cached.projection(self.model, inputs, labels)
        with self.accelerator.autocast():  # a model of its own is not wrapped in it, as the policy is
            return None if self._reference is None else self._reference(model, inputs)

    def _aligned(
        self, policy: Projection, labels: Tensor, reference: Projection | None = None
    ) -> tuple[Projection, Tensor]:
        """The policy's rows [B, n + S, D] behind n virtual tokens, and labels [B, S] that fit them.

        As in PEFT, the last virtual token predicts the first label. No reference has virtual tokens, so beside one
        their rows are dropped.
        """
        if reference is not None:
            return policy._replace(hidden_states=policy.hidden_states[:, self._virtual_tokens :]), labels
        return policy, nn.functional.pad(labels, (self._virtual_tokens, 0), value=-100)

    def _record(self, objective: Objective, statistics: dict[str, Tensor]) -> None:
        """Adds this micro-batch, over all ranks, to what the next log shows."""
        totals = sums(objective, statistics)
        gathered = self.accelerator.gather_for_metrics(torch.stack(list(totals.values()))[None]).sum(0).tolist()
        gathered = dict(zip(totals, gathered, strict=True))
        mode = "train" if self.model.training else "eval"
        self._totals[mode].update(gathered)
        if mode == "train" and self.calibration is not None:
            self.calibration = self.calibration.trained_on(int(gathered["tokens"]), int(gathered["masked"]))
        for name, value in label_probability_quantiles(statistics["logprob"]).items():
            self._metrics[mode][name].append(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Means over all tokens since the last log, however they were split into batches."""
        mode = "train" if self.model.training else "eval"
        metrics = means(self._totals[mode])
        if "mask_rate" in metrics and self.calibration is not None:
            metrics["mask_rate_requested"] = self.calibration.requested_fraction
            self._warn_of_drift(metrics["mask_rate"], self.calibration.requested_fraction)
        for name, value in metrics.items():
            self._metrics[mode][name] = [value]
        self._totals[mode].clear()
        super().log(logs, start_time)

    def _warn_of_drift(self, rate: float, requested: float) -> None:
        """Once: a model that has become surer, or less sure, than it was at calibration."""
        if self._drifted or abs(rate - requested) <= requested / 2:
            return
        self._drifted = True
        surer = "surer" if rate < requested else "less sure"
        self.accelerator.print(
            f"warning: at step {self.state.global_step} {rate:.0%} of the tokens are below the threshold, and "
            f"{requested:.0%} were asked for: the model is {surer} than it was at calibration. Where none is below "
            f"it, {self.objective.name} is cross-entropy. A larger calibration_fraction or threshold selects more; the rate "
            "of the whole run is kept in calibration.json."
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card, with what was minimised."""
        super().create_model_card(*args, **kwargs)
        card = Path(self.args.output_dir, "README.md")
        if self.is_world_process_zero() and card.is_file():
            write_whole(card, f"{card.read_text(encoding='utf-8').rstrip()}\n\n{self._objective_section()}\n")

    def _objective_section(self) -> str:
        about = next((row for row in describe() if row["name"] == self.objective.name), None)
        facts = {"objective": f"`{self.objective.name}`"}
        facts |= {"loss per token": f"`{about['formula']}`", "paper": about["paper"]} if about else {}
        facts |= {name: str(value) for name, value in self.objective.hyperparameters.items()}
        facts |= {"threshold": str(self.calibration)} if self.calibration else {}
        facts |= {"starting model": self._base} if self._base and not Path(self._base).is_dir() else {}
        reference = "the starting model" if self.args.reference in (None, CACHE) else self.args.reference
        facts |= {"reference": reference} if self.objective.needs_reference else {}
        return "### Objective\n\n" + "\n".join(f"- {name}: {value}" for name, value in facts.items())

    def _calibrate(self, model: nn.Module) -> None:
        """Sets the missing hyper-parameter from trained tokens of the model as it is now, on all ranks alike."""
        values = statistic_values(self._hook, model, self._calibration_batches(), self.objective, self._aligned)
        gathered = torch.cat(gather_object([values]))
        self._adopt(calibration_of(gathered, self.args.calibration_fraction, self.objective))
        self.accelerator.print(str(self.calibration))
        if self.args.should_save:
            self.calibration.save(self.args.output_dir)
        gap = abs(self.calibration.realised_fraction - self.calibration.requested_fraction)
        if gap > 0.05:
            self.accelerator.print(
                f"warning: ties at the threshold put the realised share {gap:.0%} away from the requested one."
            )

    def _calibration_batches(self) -> Iterator[dict[str, Any]]:
        """Batches of `calibration_sequences` training examples, the same number on every rank."""
        wanted, size = self.args.calibration_sequences, self.args.per_device_train_batch_size
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        if isinstance(self.train_dataset, torch.utils.data.IterableDataset):
            examples = [example for _, example in zip(range(wanted), self.train_dataset, strict=False)]
        else:
            generator = torch.Generator().manual_seed(self.args.seed)
            order = torch.randperm(len(self.train_dataset), generator=generator)[:wanted]
            examples = [self.train_dataset[int(index)] for index in order]
        usable = len(examples) if len(examples) < ranks else len(examples) // ranks * ranks
        mine = examples[:usable][rank::ranks] or examples[:1]
        for start in range(0, len(mine), size):
            yield self._prepare_inputs({**self._collated(mine[start : start + size]), "use_cache": False})

    def _collated(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of prepared examples, of the columns that text is trained with."""
        columns = {"input_ids", "labels", "seq_lengths", "position_ids"}
        return self.data_collator([{k: v for k, v in row.items() if k in columns} for row in rows])

    def _cached_reference(self) -> CachedReference:
        held_out = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        datasets = [self.train_dataset, *(rows for rows in held_out if rows is not None)]
        for rows in datasets:
            if isinstance(rows, torch.utils.data.IterableDataset) or "input_ids" not in rows.column_names:
                raise ValueError(
                    "A cached reference needs text that is tokenised before training: no stream, and no images."
                )
        return CachedReference(self.model, self.args, self.accelerator, datasets, self._collated)

    def _adopt(self, calibration: Calibration) -> None:
        top_k = self.objective.hyperparameters.get("top_k")
        if calibration.hyperparameter not in self.objective.missing or calibration.top_k != top_k:
            raise ValueError(
                f"The stored calibration ({calibration}) is not one for objective {self.objective.name!r} with top_k {top_k}. "
                f"Use the settings it was made with, or pass {self.objective.missing[0]} in objective_kwargs."
            )
        self.calibration = calibration
        self.objective = self.objective.bind(**{calibration.hyperparameter: calibration.threshold})


@contextlib.contextmanager
def adapters_on_the_head() -> Iterator[None]:
    """TRL refuses them, since its fused head would pass them by; ours is never that one."""
    before = trl.trainer.sft_trainer.BaseTunerLayer
    trl.trainer.sft_trainer.BaseTunerLayer = ()
    try:
        yield
    finally:
        trl.trainer.sft_trainer.BaseTunerLayer = before


def virtual_tokens(model: nn.Module) -> int:
    """How many tokens a prompt-learning adapter puts before every sequence: 0 for none.

    Raises:
        ValueError: context-aware prompt tuning, whose weights on labels and loss are its own.
    """
    adapter = model.active_peft_config if is_peft(model) else None
    if adapter is None or not adapter.is_prompt_learning or adapter.peft_type in ("PREFIX_TUNING", "CARTRIDGE"):
        return 0  # those two come as cached keys and values
    if adapter.peft_type == "CPT":
        raise ValueError("PEFT's CPT weighs the loss of every token itself; use prompt tuning or p-tuning.")
    return adapter.num_virtual_tokens


def stored_calibration(checkpoint: str) -> Calibration:
    calibration = Calibration.load(checkpoint)
    if calibration is None:
        raise ValueError(
            f"{checkpoint} holds no calibration.json, and calibrating on a trained model would give another threshold. "
            "Pass the threshold in objective_kwargs, or resume from a checkpoint of this objective."
        )
    return calibration


def refuse_unsupported(accelerator: Any, needs_reference: bool) -> None:
    """What was not tested is refused, not tried."""
    parallelism = accelerator.parallelism_config
    if parallelism is not None and (parallelism.tp_enabled or parallelism.cp_enabled or parallelism.sp_enabled):
        raise refusal("tensor, context or sequence parallelism")
    if needs_reference and accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise refusal("reference with FSDP1")


def sharded_reference(accelerator: Any, model: nn.Module) -> nn.Module:
    """What to call in the place of a frozen model: spread over the ranks where the policy is, by FSDP2 or ZeRO-3."""
    plugin = accelerator.state.deepspeed_plugin
    if accelerator.is_fsdp2:
        return fsdp2_prepare_model(accelerator, model)
    return prepare_deepspeed(model, accelerator) if plugin is not None and plugin.zero_stage == 3 else model
