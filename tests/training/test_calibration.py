"""Thresholds by quantile: the share they select, with and without ties, and what is stored."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manypaths.objectives.selection import below
from manypaths.training.calibration import FILE, Calibration, calibrate, check_fraction, quantile_threshold


def share_below(values, fraction):
    return int(below(values, quantile_threshold(values, fraction)).sum())


@given(n=st.integers(1, 200), percent=st.integers(0, 100), seed=st.integers(0, 20))
def test_the_wanted_share_falls_below(n, percent, seed):
    values = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    if len(values.unique()) == n:
        assert share_below(values, percent / 100) == n * percent // 100


def test_nothing_and_everything():
    """The released code's index -0 turns "mask nothing" into "mask everything"."""
    values = torch.tensor([0.2, 1.0, 0.5, 1.0])
    assert share_below(values, 0.0) == 0
    assert share_below(values, 1.0) == 4
    assert share_below(values, 0.5) == 2, "where masses are tied at 1, a smaller share selects none of them"


def test_ties_select_fewer_never_more():
    values = torch.tensor([0.1, 0.5, 0.5, 0.5, 0.9])
    assert [share_below(values, fraction) for fraction in (0.2, 0.4, 0.6, 0.8)] == [1, 1, 1, 4]


def test_bf16_masses_would_tie():
    """Near 1 a bf16 mass takes a handful of values; the realised share of a calibration says so."""
    mass = 1 - 10.0 ** -(1 + 4 * torch.rand(5000, generator=torch.Generator().manual_seed(0)))
    fine = calibrate(mass, 0.7, "threshold", "topk_mass", 2)
    coarse = calibrate(mass.bfloat16(), 0.7, "threshold", "topk_mass", 2)
    assert fine.realised_fraction == pytest.approx(0.7, abs=1e-3)
    assert coarse.realised_fraction < 0.65


@pytest.mark.parametrize("fraction", (-0.01, 1.01, math.nan))
def test_fractions_outside_are_refused(fraction):
    for check in (check_fraction, lambda f: quantile_threshold(torch.ones(3), f)):
        with pytest.raises(ValueError, match=f"calibration_fraction must be between 0 and 1, got {fraction}"):
            check(fraction)


def test_empty_and_nan_samples_are_refused():
    with pytest.raises(ValueError, match=r"no trained token\. Check the labels"):
        quantile_threshold(torch.zeros(0), 0.3)
    with pytest.raises(ValueError, match="NaN on some tokens"):
        quantile_threshold(torch.tensor([0.1, math.nan]), 0.3)


def test_what_it_says_and_stores(tmp_path):
    calibration = calibrate(torch.arange(10) / 10, 0.35, "threshold", "topk_mass", 2)
    assert calibration == Calibration("threshold", "topk_mass", pytest.approx(0.3), 0.35, pytest.approx(0.3), 10, 2)
    assert str(calibration) == (
        "calibrated threshold = 0.3: topk_mass (top_k 2) is below it on 30.0% of 10 trained tokens (requested 35.0%)"
    )
    assert Calibration.load(tmp_path) is None
    calibration.save(tmp_path)
    assert Calibration.load(tmp_path) == calibration
    assert json.loads((tmp_path / FILE).read_text())["realised_fraction"] == pytest.approx(0.3)


def test_a_stored_threshold_selects_the_same_tokens(tmp_path):
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    calibration = calibrate(values, 0.3, "threshold", "topk_mass", 2)
    calibration.save(tmp_path)
    assert int((values < Calibration.load(tmp_path).threshold).sum()) == 300
