"""``python -m velfield`` is the command line."""

import sys

from velfield.cli import main

sys.exit(main())
