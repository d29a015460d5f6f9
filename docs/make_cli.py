"""Write docs/cli.md from the command line's own help: ``python docs/make_cli.py``."""

from pathlib import Path

from velfield.commands.cli import cli

PAGE = Path(__file__).parent / "cli.md"


def text() -> str:
    """The page: every verb's help, as a terminal of 100 columns shows it."""
    parts = ["# Command line", "", "Made by `python docs/make_cli.py`; a test holds it to the program.", ""]
    with cli.make_context("velfield", [], resilient_parsing=True, terminal_width=100) as top:
        parts += ["```text", cli.get_help(top), "```", ""]
        for name, command in sorted(cli.commands.items()):
            with command.make_context(name, [], parent=top, resilient_parsing=True, terminal_width=100) as context:
                parts += [f"## velfield {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(text())
