"""The two options of the contracts, only where the contracts are asked for: other test suites never see them."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    if any("manypaths.testing" in argument or "manypaths/testing" in argument for argument in args):
        early_config.addinivalue_line("markers", "slow: takes processes of its own")
        group = parser.getgroup("manypaths contracts")
        group.addoption("--objective", help="an objective to check: a name, or module:function")
        group.addoption("--objective_kwargs", default="{}", help="its hyper-parameters, as JSON")
        group.addoption("--trainer", help="a trainer to check: module:function, see `manypaths.testing`")
