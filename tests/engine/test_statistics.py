"""The table of statistics: complete, in words, and tied to the engine's parameters."""

import inspect

from manypaths.engine import STATISTICS, Projection, token_statistics


def test_every_row_is_complete():
    for name, statistic in STATISTICS.items():
        assert statistic.name == name
        assert statistic.formula and statistic.units and statistic.range
        assert statistic.differentiable == (statistic.gradient is not None)
        assert statistic.needs_reference == name.startswith("kl_")


def test_parameters_are_arguments_of_the_engine():
    arguments = inspect.signature(token_statistics).parameters
    used = {parameter for statistic in STATISTICS.values() for parameter in statistic.parameters}
    assert used == {"top_k", "temperature"} and used <= set(arguments)


def test_a_projection_defaults_to_plain_logits():
    assert Projection("hidden", "weight")[2:] == (None, None, 1.0)
