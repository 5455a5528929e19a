"""SFT -> RL -> evaluation for several objectives and seeds in a built-in world, with the controls a comparison needs."""

import datetime
import hashlib
import inspect
import json
import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..objectives import resolve
from ..run_folder import check_output_dir, record_run
from .progress import progress
from .stages import Stage, run_stages

SFT_EPOCHS, EARLY_EPOCHS = 30, 10
HOT = round(1 / 0.7, 4)  # the temperature at which a model trained by CE does what GEM at 0.7 was trained to do
NUM_PROMPTS, NUM_SAMPLES = 200, 64
LIBRARIES = ("torch", "transformers", "trl", "manypaths")


@dataclass(frozen=True)
class Method:
    """One row of the comparison before its seeds: how SFT is done."""

    key: str
    label: str
    objective: str
    objective_kwargs: dict[str, Any] = field(default_factory=dict)
    epochs: int = SFT_EPOCHS


# The papers' settings where they work in a world of 61 tokens. SED's k and share regularised are those at which its
# mask does not switch itself off here (docs/playground.md); EKSFT is its masking, without its two small terms.
METHODS = {
    "nll": Method("ce", "CE", "nll"),
    "sed": Method("sed", "SED", "sed", {"top_k": 10}),
    "gem": Method("gem", "GEM", "gem"),
    "dft": Method("dft", "DFT", "dft"),
    "eksft": Method("eksft", "EKSFT", "eksft", {"entropy_weight": 0.0, "kl_weight": 0.0}),
}
CALIBRATION_FRACTION = 0.5
EARLY = Method("ce_early", f"CE, stopped early ({EARLY_EPOCHS} epochs)", "nll", epochs=EARLY_EPOCHS)


def quickstart(
    *,
    world: str = "recall",
    objectives: list[str] | None = None,
    seeds: int = 1,
    seed: int = 0,
    rl_steps: int = 100,
    output_dir: str | Path = "quickstart",
    workers: int = 2,
) -> dict[str, Any]:
    """Compare objectives in a built-in world, before and after RL; writes results.json, report.md and report.html.

    Every seed runs CE, CE stopped early, CE sampled hotter, no SFT, no SFT sharpened to CE's pass@1, and the
    `objectives` (names or module:function; the papers' by default), each followed by `rl_steps` of GRPO (0 for none).
    Interrupted and called again with the same arguments, it continues and gives the same numbers.

    Returns: the content of results.json.
    Raises ValueError for an unknown world or objective, or an output folder that holds another run.
    """
    from ..report import print_table, write_report
    from ..worlds.world import resolve_world

    resolve_world(world)
    if seeds < 1 or rl_steps < 0 or workers < 1:
        raise ValueError(
            f"seeds ({seeds}) and workers ({workers}) must be at least 1 and rl_steps ({rl_steps}) at least 0."
        )
    methods = chosen_methods(objectives)
    settings = {
        "world": world,
        "objectives": [method.objective for method in methods if method is not EARLY],
        "seeds": [seed + i for i in range(seeds)],
        "rl_steps": rl_steps,
    }
    root = Path(output_dir)
    identity = {key: value for key, value in settings.items() if key != "seeds"}  # more seeds may join later
    check_output_dir(root, identity)
    record_run(root, identity)
    runs = plan(world, methods, settings["seeds"], rl_steps)
    stages = list({stage.key: stage for run in runs for stage in run.stages}.values())
    with progress(stages) as on_done:
        run_stages(stages, root / "stages", workers, on_done)
    results = collect(runs, settings, root)
    (root / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    write_report(results, root)
    print_table(results)
    print(f"\nReport: {root / 'report.html'}  (also report.md, results.json)")
    return results


def chosen_methods(objectives: list[str] | None) -> list[Method]:
    """CE, CE stopped early, and one method per objective asked for. Raises ValueError for an unknown objective."""
    names = list(METHODS) if objectives is None else list(dict.fromkeys(["nll", *objectives]))
    methods = [METHODS[name] if name in METHODS else Method(name, name, name) for name in names]
    for method in methods:
        resolve(method.objective, **method.objective_kwargs)
    return [methods[0], EARLY, *methods[1:]]


@dataclass(frozen=True)
class Run:
    """One row and seed: the stages that make its model, and those that evaluate it before and after RL."""

    method: str
    label: str
    seed: int
    temperature: float
    objective: str | None
    objective_kwargs: dict[str, Any]
    epochs: int
    model: Stage
    before: Stage
    rl: Stage | None
    after: Stage | None

    @property
    def stages(self) -> list[Stage]:
        return [stage for stage in (self.model, self.before, self.rl, self.after) if stage is not None]


def plan(world: str, methods: list[Method], seeds: list[int], rl_steps: int) -> list[Run]:
    """Every run of the comparison, CE first since the sharpened control needs its pass@1."""
    from ..worlds.model import checkpoint_path

    environment = {name: version(name) for name in LIBRARIES}
    weights = {"base": sha256(checkpoint_path(world).read_bytes())}
    runs = []

    def stage(name, function, cost, after=(), matters=None, **parameters) -> Stage:
        """`matters` goes into the key beside the library versions: what a result depends on that is no parameter."""
        function = f"manypaths.experiment.work:{function}"
        return Stage(name, function, {"world": world, **parameters}, after, cost, environment | (matters or {}))

    def add(key, label, seed, model, temperature=1.0, objective=None, objective_kwargs=None, epochs=0, with_rl=True):
        name = f"{key.replace(':', '.')}-{seed}"

        def evaluated(suffix: str, after: Stage) -> Stage:
            return stage(f"{name}-{suffix}", "evaluated", 5, (after,), seed=seed, temperature=temperature,
                         num_prompts=NUM_PROMPTS, num_samples=NUM_SAMPLES)  # fmt: skip

        before = evaluated("before", model)
        rl = after = None
        if rl_steps and with_rl:
            rl = stage(f"{name}-rl", "reinforced", 0.25 * rl_steps, (model,), seed=seed, steps=rl_steps)
            after = evaluated("after", rl)
        run = Run(key, label, seed, temperature, objective, objective_kwargs or {}, epochs, model, before, rl, after)
        runs.append(run)
        return run

    for seed in seeds:
        for method in methods:
            model = stage(
                f"{method.key.replace(':', '.')}-{seed}-sft", "fine_tuned", 0.3 * method.epochs, (), seed=seed,
                objective=method.objective, objective_kwargs=method.objective_kwargs, epochs=method.epochs,
                calibration_fraction=CALIBRATION_FRACTION, matters=weights | {"objective": source_of(method)},
            )  # fmt: skip
            run = add(
                method.key, method.label, seed, model, 1.0, method.objective, method.objective_kwargs, method.epochs
            )
            if method.key == "ce":
                ce = run
        hot = f"CE, sampled at T={HOT:.2f}"
        add("ce_hot", hot, seed, ce.model, HOT, "nll", {}, SFT_EPOCHS, with_rl=False)
        base = stage("base-model", "base", 1, matters=weights)
        add("base", "no SFT", seed, base)
        sharp = stage(f"base_sharp-{seed}-model", "sharpened", 2, (ce.before,))
        add("base_sharp", "no SFT, sharpened to CE's pass@1", seed, sharp)
    return runs


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def source_of(method: Method) -> str:
    """Hash of the objective's own file, so that an edited objective is not answered from an older run."""
    function = resolve(method.objective, **method.objective_kwargs).function
    return sha256(inspect.getsource(inspect.getmodule(function)).encode())


def collect(runs: list[Run], settings: dict[str, Any], root: Path) -> dict[str, Any]:
    """results.json from the finished stages; a run that was not possible in this world is left out with its reason."""
    rows, left_out = [], []
    for run in runs:
        results = {stage.key: stage.result(root / "stages") for stage in run.stages}
        skipped = results[run.model.key].get("skipped")
        if skipped:
            left_out.append({"method": run.method, "label": run.label, "seed": run.seed, "reason": skipped})
            continue
        trained = {name: results[run.model.key].get(name) for name in ("training", "calibration", "logit_scale")}
        for name, maker, judged in (("sft", run.model, run.before), ("rl", run.rl, run.after)):
            if judged is None:
                continue
            made = results[maker.key]
            rows.append(
                {
                    "method": run.method,
                    "label": run.label,
                    "stage": name,
                    "seed": run.seed,
                    "temperature": run.temperature,
                    "objective": run.objective,
                    "objective_kwargs": run.objective_kwargs,
                    "epochs": run.epochs,
                    "rl_steps": settings["rl_steps"] if name == "rl" else 0,
                    "seconds": made["seconds"],
                    "evaluation": {k: v for k, v in results[judged.key].items() if k != "seconds"},
                    "training": {k: v for k, v in trained.items() if v is not None}
                    if name == "sft"
                    else {"reward": made["reward"], "zero_variance": made["zero_variance"]},
                }
            )
    return {
        "schema": 1,
        "world": settings["world"],
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "hardware": {"cpu": processor(), "threads_per_worker": 1},
        "settings": {**settings, "calibration_fraction": CALIBRATION_FRACTION, "sft_epochs": SFT_EPOCHS},
        "left_out": left_out,
        "runs": rows,
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return match[1] if match else platform.processor() or platform.machine()
