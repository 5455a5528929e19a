"""`python -m manypaths`."""

import sys

from .cli.main import main

sys.exit(main())
