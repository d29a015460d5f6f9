"""``python -m velfield`` is the command line."""

import sys

from velfield.commands.cli import main

sys.exit(main())
