import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Workers import the fake stages' functions by name."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
