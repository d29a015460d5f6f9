"""Make docs/howto-velocities.ipynb of the page of that name, and execute it: ``python docs/make_notebook.py``.

Nothing is written twice: the page's text, Python and commands become cells, its pictures cells that show them. What
the page says that is printed must be what is printed, and the page's pictures are those of this run. The bucket is one
on an S3 server of this machine's own. Needs the dependency group ``docs``.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE, NOTEBOOK = HERE / "howto-velocities.md", HERE / "howto-velocities.ipynb"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", flags=re.M | re.S)
PICTURE = re.compile(r"^!\[([^\]]*)\]\(figures/([\w-]+\.png)\)\n", flags=re.M)


def cells(page: str) -> list[tuple[str, str]]:
    """The cells of a page: ("markdown" or "code", source)."""
    made: list[tuple[str, str]] = []

    def write(text: str) -> None:
        at = 0
        for picture in PICTURE.finditer(text):
            made.append(("markdown", text[at : picture.start()].strip()))
            made.append(("code", f'from IPython.display import Image\n\nImage("{picture[2]}", alt="{picture[1]}")'))
            at = picture.end()
        made.append(("markdown", text[at:].strip()))

    at = 0
    for block in BLOCK.finditer(page):
        write(page[at : block.start()])
        at = block.end()
        if block[1] == "python":
            made.append(("code", block[2].rstrip()))
        elif block[1] == "console":
            made.append(("code", re.sub(r"^\$ ", "!", block[2], flags=re.M).rstrip()))
    write(page[at:])
    return [cell for cell in made if cell[1]]


def printed(page: str) -> list[str]:
    """What the page says that its Python prints."""
    return [block[2] for block in BLOCK.finditer(page) if block[1] == "text"]


def notebook(page: str) -> dict[str, Any]:
    """A page as a notebook that is not executed."""
    made = []
    for i, (kind, source) in enumerate(cells(page)):
        cell = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": source}
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    about = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return {"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def outputs(made: Mapping[str, Any]) -> list[str]:
    """What the cells of a notebook printed."""
    streams = (
        "".join(text for out in cell.get("outputs", []) for text in out.get("text", [])) for cell in made["cells"]
    )
    return [text for text in streams if text]


def execute(page: str, folder: str) -> Any:
    """Execute a page in a folder; of commands nothing is kept, of other cells what they print and show."""
    import nbclient
    import nbformat

    made = nbformat.from_dict(notebook(page))
    where = {"metadata": {"path": folder}}
    nbclient.NotebookClient(made, timeout=1800, resources=where, record_timing=False).execute()
    for cell in made.cells:
        if cell.cell_type == "code":
            text = "".join(out.text for out in cell.outputs if out.output_type == "stream")
            shown = [out for out in cell.outputs if "image/png" in out.get("data", {})]
            told = [nbformat.v4.new_output("stream", text=text)] if text else []
            cell.outputs = [] if cell.source.startswith("!") else told + shown
    made.metadata = nbformat.from_dict(notebook(page)["metadata"])
    nbformat.validate(made)
    return made


def main() -> None:
    """Make the notebook, and refuse one that prints something else than the page, or where it was made."""
    import boto3
    import nbformat
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    page = PAGE.read_text(encoding="utf-8")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "AKTESTONLY", "DEFAULT_REGION": "us-east-1"}
    settings |= {"SECRET_ACCESS_KEY": "only-a-test-s3cret", "CONFIG_FILE": os.devnull}
    os.environ.update({f"AWS_{name}": value for name, value in settings.items()})
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        for name in sorted(set(re.findall(r"s3://([\w-]+)", page))):
            boto3.client("s3").create_bucket(Bucket=name)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tests").symlink_to(HERE.parent / "tests")
            made = execute(page, folder)
            for picture in PICTURE.finditer(page):
                shutil.copy(Path(folder) / picture[2], HERE / "figures" / picture[2])
            text = "".join(outputs(made))
            for place in (folder, f":{port}", str(HERE.parent)):
                assert place not in text, f"the notebook says where it was made: {place}"
    finally:
        server.stop()
    found = [text.split() for text in outputs(made)]
    assert found == [text.split() for text in printed(page)], f"it prints something else than the page: {found}"
    nbformat.write(made, NOTEBOOK)


if __name__ == "__main__":
    main()
