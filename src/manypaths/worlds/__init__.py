"""The built-in worlds: a task and a tiny base model, written as the files that every subcommand reads."""

from .files import WorldConfig, make_world, write_world
from .world import WORLDS, World, resolve_world

__all__ = ["WORLDS", "World", "WorldConfig", "make_world", "resolve_world", "write_world"]
