"""Names, hyper-parameters and users' own objectives: what resolves, and what each mistake is told."""

import textwrap

import pytest
import torch

from manypaths.engine import STATISTICS
from manypaths.objectives import OBJECTIVES, Objective, describe, nll, resolve
from manypaths.objectives.registry import docstring_fields


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_name_resolves(name):
    required = {"power": {"exponent": 0.5}}.get(name, {})
    objective = resolve(name, **required)
    assert objective.name == name and objective.function is OBJECTIVES[name]
    assert set(objective.statistics) <= set(STATISTICS)
    assert objective.needs_reference == (name in ("asft", "eksft"))
    assert objective.missing == (("threshold",) if name == "sed" else ())


def test_the_registry_is_the_packages_names():
    assert list(OBJECTIVES) == [
        "nll", "label_smoothing", "entropy_bonus", "focal", "power", "dft", "eaft", "sed", "gem", "gem_logsigmoid",
        "eksft", "asft",
    ]  # fmt: skip


def test_defaults_are_bound_and_overridden():
    assert resolve("gem").hyperparameters == {"temperature": 0.7}
    assert resolve("gem", temperature=2).engine_parameters == {"temperature": 2}
    assert resolve("eaft").engine_parameters == {"top_k": 20}
    assert resolve("nll").engine_parameters == {}
    assert resolve("sed", threshold=0.9, weight=2).hyperparameters == {"top_k": 2, "threshold": 0.9, "weight": 2}


def test_functions_and_objectives_resolve_too():
    assert resolve(nll).name == "nll"
    objective = resolve("sed")
    assert resolve(objective) is objective
    bound = resolve(objective, threshold=0.5)
    assert bound.missing == () and bound.hyperparameters["threshold"] == 0.5
    assert objective.missing == ("threshold",)  # the one that was bound stays as it was
    assert resolve(lambda logprob: -logprob)({"logprob": torch.tensor([-1.0])}).tolist() == [1.0]


def test_calling_an_uncalibrated_objective():
    statistics = {"logprob": torch.zeros(1), "topk_mass": torch.ones(1)}
    with pytest.raises(ValueError, match="'sed' has no threshold yet: calibrate first, or pass it"):
        resolve("sed")(statistics)
    assert resolve("sed", threshold=0.5)(statistics).tolist() == [0.0]


@pytest.mark.parametrize(("wrong", "near"), [("semd", "sed"), ("gemm", "gem"), ("label-smoothing", "label_")])
def test_unknown_names_are_told_the_near_ones(wrong, near):
    with pytest.raises(ValueError, match=f"'{wrong}'. Did you mean .*{near}.*Known: .*module:function"):
        resolve(wrong)


def test_an_unknown_name_near_nothing_lists_all():
    with pytest.raises(ValueError, match=r"Unknown objective 'xyzzy'\. Known: nll, .*asft"):
        resolve("xyzzy")


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("nll", {"weight": 1.0}, "'nll' has no hyper-parameter 'weight'; it takes none"),
        ("sed", {"tau": 0.9}, "'sed' has no hyper-parameter 'tau'; it takes top_k, threshold, weight"),
        ("power", {}, "'power' needs exponent, which has no default"),
        ("gem", {"temperature": 0}, "temperature of objective 'gem' must be a number above 0, got 0"),
        ("gem", {"temperature": "0.7"}, "temperature .* got '0.7'"),
        ("gem", {"temperature": float("inf")}, "temperature .* got inf"),
        ("sed", {"top_k": 0}, "top_k of objective 'sed' must be a whole number of at least 1, got 0"),
        ("sed", {"top_k": 2.0}, "top_k .* got 2.0"),
        ("sed", {"top_k": True}, "top_k .* got True"),
        ("sed", {"threshold": float("nan")}, "threshold .* must be a probability above 0 and at most 1 .*, got nan"),
        ("sed", {"threshold": 1.001}, "threshold .* must be a probability above 0 and at most 1 .*, got 1.001"),
        ("sed", {"threshold": 0}, "threshold .* must be a probability above 0 and at most 1 .*, got 0"),
        ("sed", {"weight": None}, "weight .* must be a finite number, got None"),
        ("eksft", {"kl_fraction": 1.5}, "kl_fraction .* must be between 0 and 1, got 1.5"),
        ("eksft", {"entropy_fraction": -0.1}, "entropy_fraction .* must be between 0 and 1, got -0.1"),
        ("eksft", {"entropy_weight": float("inf")}, "entropy_weight .* finite"),
        ("label_smoothing", {"smoothing": 2}, "smoothing .* must be between 0 and 1, got 2"),
        ("focal", {"exponent": "2"}, "exponent .* must be a finite number, got '2'"),
    ],
)
def test_impossible_hyperparameters(name, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        resolve(name, **hyperparameters)


def test_bind_checks_as_well():
    with pytest.raises(ValueError, match="probability above 0"):
        resolve("sed").bind(threshold=float("nan"))


OWN = '''
"""Focal on the entropy: eight lines are a method."""


def sharp(logprob, entropy, topk_mass, *, temperature=1.0, top_k=4, floor=0.1):
    weight = (entropy.detach() / (entropy.detach().max() + 1e-9)).clamp(min=floor)
    return -weight * logprob


def by_position(logits):
    return logits


def from_nothing(*, weight=1.0):
    return weight


def no_top_k(logprob, topk_mass):
    return -logprob * topk_mass


def needs(logprob, *, strength):
    return -strength * logprob


def wild(logprob, *, temperature=-1.0):
    return -logprob


def per_batch(logprob):
    return -(logprob - logprob.mean())


per_batch.row_local = False
constant = 3
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of a module of the user's, importable for this test."""
    (tmp_path / "my_objectives.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_objectives"
    import sys

    sys.modules.pop("my_objectives", None)


def test_a_users_own_objective(own):
    objective = resolve(f"{own}:sharp", floor=0.5)
    assert objective.name == f"{own}:sharp" and objective.row_local and not objective.needs_reference
    assert objective.statistics == ("logprob", "entropy", "topk_mass")
    assert objective.engine_parameters == {"top_k": 4}  # temperature is its own: no statistic of it is tempered
    losses = objective({name: torch.tensor([-1.0, -2.0]) * sign for name, sign in
                        (("logprob", 1), ("entropy", -1), ("topk_mass", -0.1))})  # fmt: skip
    assert losses.tolist() == pytest.approx([0.5, 2.0])
    assert not resolve(f"{own}:per_batch").row_local


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("missing", "Module 'my_objectives' has no function 'missing'"),
        ("by_position", "asks for 'logits', which is not a statistic .*logprob.*keyword-only, after a `\\*`"),
        ("from_nothing", "takes no statistic"),
        ("no_top_k", "uses topk_mass, so it needs a keyword-only parameter 'top_k'"),
        ("needs", "needs strength, which has no default"),
        ("wild", "temperature .* must be a number above 0, got -1.0"),
    ],
)
def test_a_wrong_signature_is_told_what_is_wrong(own, function, message):
    with pytest.raises(ValueError, match=message):
        resolve(f"{own}:{function}")


def test_a_module_that_is_not_there():
    with pytest.raises(ValueError, match=r"Cannot import 'no_such_module_at_all'.*PYTHONPATH"):
        resolve("no_such_module_at_all:loss")


def test_something_that_is_no_function(own):
    with pytest.raises(ValueError, match="constant"):
        resolve(f"{own}:constant")


def test_describe_has_a_row_for_every_objective():
    rows = describe()
    assert [row["name"] for row in rows] == list(OBJECTIVES)
    for row in rows:
        assert set(row) == {
            "name", "paper", "formula", "gradient", "statistics", "hyperparameters", "needs_reference", "row_local"
        }  # fmt: skip
        assert row["paper"] and row["formula"] and row["gradient"] and row["statistics"]
    rows = {row["name"]: row for row in rows}
    assert rows["sed"]["hyperparameters"] == {"top_k": 2, "threshold": None, "weight": 1.0}
    assert rows["sed"]["paper"].startswith("arXiv:2602.07464") and "no default" in rows["sed"]["paper"]
    assert [name for name, row in rows.items() if row["needs_reference"]] == ["eksft", "asft"]
    assert [name for name, row in rows.items() if not row["row_local"]] == ["eksft"]


def test_docstring_fields_join_continuation_lines():
    def function():
        """Summary.

        Not a field: text.
        Paper: first
            second
        Formula: a: b
        """

    assert docstring_fields(function) == {"Paper": "first second", "Formula": "a: b"}
    assert docstring_fields(lambda: None) == {}


def test_an_objective_is_frozen():
    with pytest.raises(AttributeError):
        resolve("nll").name = "other"
    assert isinstance(resolve("nll"), Objective)


def test_the_entropy_of_one_token_is_refused():
    with pytest.raises(ValueError, match="top_k of objective 'eaft' must be at least 2"):
        resolve("eaft", top_k=1)


def test_case_is_a_near_miss_and_numbers_are_no_objectives():
    with pytest.raises(ValueError, match="Did you mean dft"):
        resolve("DFT")
    with pytest.raises(ValueError, match="got 3"):
        resolve(3)
