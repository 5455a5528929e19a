"""The command line: `main.py` names the subcommands, `parser.py` reads options and recipes, `launch.py` starts processes."""
