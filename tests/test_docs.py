"""The documentation is run: the command-line page is the program's own, and the how-to's code prints what it says."""

import json
import logging
import os
import re
import runpy
import shlex
from pathlib import Path

import boto3
import matplotlib
import pytest
from moto.server import ThreadedMotoServer

from velfield.commands.cli import cli, main
from velfield.files.object_store import ObjectStore

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_command_line_page_is_the_programs_own():
    page = runpy.run_path(str(DOCS / "make_cli.py"))
    assert (DOCS / "cli.md").read_text() == page["text"](), "run python docs/make_cli.py"


def test_every_verb_of_the_readme_exists():
    verbs = set(re.findall(r"^\$? ?velfield (\w+)", (ROOT / "README.md").read_text(), flags=re.M))
    assert verbs
    assert verbs <= set(cli.commands)


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_ci_runs_what_the_readme_says():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    commands = runpy.run_path(str(ROOT / ".ci" / "readme.py"))["commands"](readme)
    made = [command.partition("#")[0].strip() for command in commands if command.startswith("make ")]
    assert made
    for command in made:
        assert f'as_new "$clone" {command}\n' in ci or f'as_new "$clone" {command} ||' in ci, command
    others = "\n".join(command for command in commands if not command.startswith("make "))
    lines = re.findall(r"^(?:\$ | *)(velfield .*)$", readme, flags=re.M)
    assert lines
    for line in lines:
        assert line in others, f"README.md has it in a block that is neither console nor sh: {line}"


@pytest.fixture
def bucket(monkeypatch):
    """A function that makes a bucket on an S3 server of this machine's own."""
    started = []

    def make(name):
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        started.append(server)
        host, port = server.get_host_and_port()
        settings = {
            "ENDPOINT_URL": f"http://{host}:{port}",
            "ACCESS_KEY_ID": "AKTESTONLY",
            "DEFAULT_REGION": "us-east-1",
        }
        for key, value in {**settings, "SECRET_ACCESS_KEY": "only-a-test-s3cret", "CONFIG_FILE": os.devnull}.items():
            monkeypatch.setenv(f"AWS_{key}", value)
        ObjectStore.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket=name)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    yield make
    ObjectStore.clear_instance_cache()
    for server in started:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("howto-*.md")))
def test_howto_prints_what_it_says(page, tmp_path, monkeypatch, capsys, bucket):
    matplotlib.use("Agg")
    text = (DOCS / page).read_text()
    for name in sorted(set(re.findall(r"s3://([\w-]+)", text))):
        bucket(name)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "PYTHONHASHSEED", "0")
    names: dict = {}
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.M | re.S)
    assert {"console", "python", "text"} <= {kind for kind, _ in blocks}
    capsys.readouterr()
    for kind, block in blocks:
        if kind == "console":
            for command in block.replace("\\\n", " ").splitlines():
                assert main(shlex.split(command.removeprefix("$ "))[1:]) == 0, command
            capsys.readouterr()
        elif kind == "python":
            exec(compile(block, page, "exec"), names)  # the page's own code
        elif kind == "text":
            assert capsys.readouterr().out.split() == block.split()


def test_the_notebook_is_the_page_executed():
    maker = runpy.run_path(str(DOCS / "make_notebook.py"))
    page = maker["PAGE"].read_text(encoding="utf-8")
    text = maker["NOTEBOOK"].read_text(encoding="utf-8")
    made = json.loads(text)
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in made["cells"]]
    assert found == maker["cells"](page), "run python docs/make_notebook.py"
    assert [said.split() for said in maker["outputs"](made)] == [said.split() for said in maker["printed"](page)]
    shown = ["".join(c["source"]) for c in made["cells"] if any("data" in o for o in c.get("outputs", []))]
    assert [re.search(r'Image\("(.*?)"', source)[1] for source in shown] == re.findall(r"\]\(figures/(.*?)\)", page)
    assert len(text) < 500_000
    for place in ("127.0.0.1", "localhost", str(Path.home()), "/tmp"):
        assert place not in text


def test_pages_become_cells():
    cells = runpy.run_path(str(DOCS / "make_notebook.py"))["cells"]
    page = "# T\n\nA.\n\n```console\n$ velfield a \\\n    b\n$ velfield c\n```\n\n```python\nx = 1\n```\n\n"
    assert cells(page + "```text\n1\n```\n\n![a picture](figures/a.png)\n\nB.\n") == [
        ("markdown", "# T\n\nA."),
        ("code", "!velfield a \\\n    b\n!velfield c"),
        ("code", "x = 1"),
        ("code", 'from IPython.display import Image\n\nImage("a.png", alt="a picture")'),
        ("markdown", "B."),
    ]
