"""From `--config recipe.yaml --key value` to dataclasses, as TRL does it, with typing errors caught at once.

A recipe is flat YAML whose keys are dataclass fields; the command line overrides it. An `env` mapping sets
environment variables. Keys may be written with dashes. Both sources go through the same checks.
"""

import argparse
import difflib
import json
import os
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import yaml

from .option_help import short_help


class RecipeLoader(yaml.SafeLoader):
    """YAML as people write it: 1e-5 is a number (YAML 1.1 wants 1.0e-5), `no` is a word, not false, and a key comes once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value[::-1]:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
FLOAT = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$")
REPLACED = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
RecipeLoader.add_implicit_resolver(REPLACED[0], BOOLEAN, list("tTfF"))
RecipeLoader.add_implicit_resolver(REPLACED[1], FLOAT, list("-+.0123456789"))  # after int: 3 stays whole


ALIASES = {"data": "dataset_name", "model": "model_name_or_path", "reward": "reward_funcs", "num_gpus": "num_processes"}


def helped(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with its help text."""
    return field(default=default, metadata={"help": text, **metadata})


def parse(dataclass_types: Sequence[type], argv: Iterable[str], prog: str, **defaults: Any) -> tuple[Any, ...]:
    """One instance of each dataclass, from the recipe named by `--config` and the options after it.

    Args:
        defaults: replace a field's default, for settings that depend on the machine.

    Raises ValueError for an unknown key (near names are offered), a value of the wrong type, a missing
    required option, a recipe that is no YAML mapping; FileNotFoundError for a recipe that is not there.
    """
    parser = build_parser(dataclass_types, prog)
    parser.set_defaults(**defaults)
    known = option_names(parser)
    argv = ["--" + full_name(token[2:], known) if token.startswith("--") else token for token in argv]
    if {"-h", "--help"} & set(argv):
        print(short_help(dataclass_types, prog))
        raise SystemExit(0)
    argv, recipe_path = take_option(argv, "config")
    recipe_argv: list[str] = []
    if recipe_path is not None:
        recipe = read_recipe(recipe_path)
        os.environ.update({key: str(value) for key, value in recipe.pop("env", {}).items()})
        recipe_argv = as_options(parser, recipe, recipe_path)
    *parsed, leftover = parser.parse_args_into_dataclasses(
        [*recipe_argv, *argv], return_remaining_strings=True, look_for_args_file=False
    )
    if leftover:
        raise ValueError(unknown_message(leftover[0], option_names(parser)))
    return tuple(parsed[: len(dataclass_types)])  # what follows is the namespace that holds --config


def parse_mapping(
    dataclass_types: Sequence[type], options: dict[str, Any], where: str, **defaults: Any
) -> tuple[Any, ...]:
    """One instance of each dataclass from options that are a mapping already; errors begin with `where`."""
    parser = build_parser(dataclass_types, where)
    parser.set_defaults(**defaults)
    try:
        argv = as_options(parser, options, "options")
        return parser.parse_args_into_dataclasses(argv, look_for_args_file=False)[: len(dataclass_types)]
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix('options: ')}") from error


def build_parser(dataclass_types: Sequence[type], prog: str) -> argparse.ArgumentParser:
    from trl.scripts.utils import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> None:
            raise ValueError(message)

    parser = Parser(list(dataclass_types), prog=prog, allow_abbrev=False, add_help=False)
    parser.add_argument(
        "--help_all", "--help-all", action="help", help="Every option, those of TRL with all they have."
    )
    parser.add_argument("--config", metavar="RECIPE", help="Flat YAML file of options; the command line overrides it.")
    return parser


def full_name(option: str, known: Container[str]) -> str:
    """An option, also with its value as in `model=x`, under the name of its field, where it was called by its alias."""
    name, equals, value = option.partition("=")
    field_name = ALIASES.get(name)
    return option if name in known or field_name not in known else field_name + equals + value


def take_option(argv: list[str], name: str) -> tuple[list[str], str | None]:
    """The command line without `--name value` or `--name=value`, and that value."""
    rest, values, waiting = [], [], False
    for token in argv:
        if waiting:
            values, waiting = [*values, token], False
        elif token.replace("-", "_") == f"__{name}":
            waiting = True
        elif token.partition("=")[0].replace("-", "_") == f"__{name}":
            values.append(token.partition("=")[2])
        else:
            rest.append(token)
    if waiting:
        raise ValueError(f"--{name} needs a value after it.")
    if len(values) > 1:
        raise ValueError(f"--{name} is given twice ({', '.join(values)}); give one.")
    return rest, next(iter(values), None)


def names_option(argv: list[str], name: str) -> bool:
    """Whether an option is given, on the command line or in the recipe, by its name or alias."""
    rest, recipe = take_option(argv, "config")
    given = {token[2:].partition("=")[0].replace("-", "_") for token in rest if token.startswith("--")}
    given |= set() if recipe is None else read_recipe(recipe).keys()
    return name in {ALIASES.get(key, key) for key in given}


def read_recipe(path: str) -> dict[str, Any]:
    """The mapping in a YAML file, keys with underscores."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"No recipe at {path}.")
    try:
        recipe = yaml.load(Path(path).read_text(encoding="utf-8"), RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} must be a mapping of options to values.")
    recipe = {str(key).replace("-", "_"): value for key, value in recipe.items()}
    if not isinstance(recipe.get("env", {}), dict):
        raise ValueError(f"env in {path} must be a mapping of names to values.")
    return recipe


def as_options(parser: argparse.ArgumentParser, recipe: dict[str, Any], path: str) -> list[str]:
    """The recipe as options, checked like a command line; nulls and lists for one value become defaults."""
    actions = {
        name.lstrip("-").replace("-", "_"): action
        for action in reversed(parser._actions)
        for name in action.option_strings
    }
    options: list[str] = []
    for name, value in recipe.items():
        key = full_name(name, actions)
        if key != name and key in recipe:
            raise ValueError(f"{path}: {name} and {key} are one option; give one of them.")
        if key not in actions:
            raise ValueError(f"{path}: {unknown_message(key, option_names(parser))}")
        action = actions[key]
        if value is None or (isinstance(value, list) and action.nargs is None):
            parser.set_defaults(**{action.dest: value})
        elif isinstance(value, list):
            options += [f"--{key}", *(as_text(item, action) for item in value)]
        else:
            options.append(f"--{key}={as_text(value, action)}")
        action.required = False
    return options


def as_text(value: Any, action: argparse.Action) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and action.type is int:
        return str(int(value))
    return str(value)


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions]


def unknown_message(token: str, known: Sequence[str]) -> str:
    name = token.partition("=")[0]
    if token.startswith("-") or token.isidentifier():
        given = name.lstrip("-").replace("-", "_")
        near = [each for each in known if given == "".join(word[0] for word in each.split("_"))]  # lr
        near += [each for each in known if f"_{given}_" in f"_{each}_"]
        near += difflib.get_close_matches(given, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join([*dict.fromkeys(near)][:3])}?" if near else "see --help for the options."
        if not near and "objective_kwargs" in known:
            hint += " Hyper-parameters of an objective go into objective_kwargs."
        return f"unknown option {name.lstrip('-')!r}; {hint}"
    return f"unexpected {token!r}; options are --key value."


def json_mapping(value: dict[str, Any] | str | None, option: str, example: str) -> dict[str, Any] | None:
    """An option that is a mapping, or one written as JSON; ValueError for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{option} is not JSON: {error}. Example: '{example}'.") from error
    if not isinstance(value or {}, dict):
        raise ValueError(f"{option} must be a mapping such as '{example}', got {value!r}.")
    return value
