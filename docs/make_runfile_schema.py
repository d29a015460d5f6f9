"""Write docs/runfile.schema.json from the command line's options: ``python docs/make_runfile_schema.py``."""

import json
from pathlib import Path

from velfield.commands.cli import cli
from velfield.commands.runfile import schema

PAGE = Path(__file__).parent / "runfile.schema.json"


def text() -> str:
    """The JSON schema of run files: every verb's options, with their types, choices and help."""
    return json.dumps(schema(cli.commands), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text())
