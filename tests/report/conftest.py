"""The recorded results as fixtures."""

import pytest

import recorded_results


@pytest.fixture
def recall():
    return recorded_results.study("recall")


@pytest.fixture
def coldstart():
    return recorded_results.study("coldstart")


@pytest.fixture
def experiment():
    return recorded_results.experiment()


@pytest.fixture
def evaluations():
    return recorded_results.evaluations()
