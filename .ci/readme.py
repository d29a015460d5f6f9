"""Print what a reader pastes of README.md into a shell, in order, but for make: its console and sh blocks."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def commands(text: str) -> list[str]:
    """Lines after a $ of console blocks, with those that they go on in, and sh blocks as they are."""
    found = []
    for kind, block in re.findall(r"^```(console|sh)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        found += [block.rstrip()] if kind == "sh" else re.findall(r"^\$ ((?:.*\\\n)*.*)", block, flags=re.MULTILINE)
    return found


if __name__ == "__main__":
    print("\n".join(one for one in commands(README.read_text("utf-8")) if not one.startswith("make ")))  # noqa: T201
