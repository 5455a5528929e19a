"""Functions that users name as `module:function`, the near names offered for a miss, and times in words."""

import difflib
import importlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def import_function(path: str, role: str) -> Callable[..., Any]:
    """The function behind "module:function"; the current folder counts as a place for modules.

    `role` says in errors what the function is for. Raises ValueError when there is no such module or function, or
    the module does not run.
    """
    module_name, _, attribute = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ValueError(
            f"Cannot import {module_name!r} of {role} {path!r}: {error}. "
            "Run from the folder that holds the file, or put that folder on PYTHONPATH."
        ) from error
    except AttributeError as error:
        raise ValueError(f"Module {module_name!r} has no function {attribute!r} ({role} {path!r}).") from error
    except Exception as error:  # whatever a user's module does when it is imported
        raise ValueError(f"Module {module_name!r} of {role} {path!r} fails: {told(error)}.") from error
    if not callable(function):
        raise ValueError(f"{path!r} is a {type(function).__name__}, not a function ({role}).")
    return function


def told(error: Exception) -> str:
    """What a user's function raised, and its own last line of the traceback: not ours, and not a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = (str(Path(__file__).parent), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<frozen"))]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line})" if own else ""
    return f"{type(error).__name__}: {error}{place}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "Did you mean a or b? " for names near to `name`, else nothing."""
    near = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.4)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def duration(seconds: float) -> str:
    """12 s, 4 min or 1.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
