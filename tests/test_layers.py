"""Imports go one way: the table of docs/design.md, and an installation whose numbers need neither torch nor Dask."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# package: packages of ours that its modules may import beside their own and `errors`, and libraries
USES = {
    "errors": ("", ""),
    "version": ("", ""),
    "kernel": ("", "numba llvmlite"),
    "arguments": ("", "numpy"),
    "geometry": ("", "numpy"),
    "physics": ("arguments geometry kernel", "numpy scipy colossus"),
    "painting": ("arguments geometry kernel physics", "numpy"),
    "accuracy": ("arguments physics", "numpy scipy"),
    "files": ("", "numpy zarr fsspec s3fs botocore rich"),
    "catalogues": ("arguments files geometry kernel painting physics", "numpy numcodecs fastcrc"),
    "stores": ("files geometry physics version", "numpy scipy xarray"),
    "theory": ("files geometry physics stores version", "numpy xarray"),
    "answers": ("arguments catalogues files geometry kernel physics stores theory", "numpy scipy xarray"),
    "verification": ("catalogues files geometry painting physics stores", "numpy zarr"),
    "analysis": ("accuracy files stores theory version", "numpy scipy xarray matplotlib"),
    "simulation": ("catalogues files kernel physics version", "numpy scipy torch"),
    "network": ("arguments accuracy files geometry physics stores theory version", "numpy xarray torch safetensors"),
    "models": ("network theory", ""),
    "learning": ("accuracy files geometry network physics stores theory version", "numpy zarr torch safetensors"),
    "pipelines": (
        "accuracy analysis catalogues files geometry learning network painting physics simulation stores theory"
        " verification version",
        "numpy xarray zarr numba torch safetensors psutil dask distributed",
    ),
    "client": ("arguments", "numpy xarray httpx"),
    "service": (
        "accuracy answers catalogues files geometry network physics stores theory version",
        "numpy xarray fastapi starlette pydantic uvicorn prometheus_client",
    ),
    "commands": (
        "accuracy analysis answers catalogues files learning network pipelines service simulation stores theory"
        " verification version",
        "click",
    ),
    "__init__": ("version", ""),
    "__main__": ("commands", ""),
}
# exceptions: two modules that join the service to the jobs
ALSO = {"service.runner": ("pipelines", "distributed"), "service.painted": ("pipelines", "distributed")}
# exceptions, inside a function only: who evaluates or verifies a network loads its bundle, and torch with it
DEFERRED = {"analysis.judged": "network", "verification.verify": "network"}
FORMATS = {"pyarrow", "h5py", "h5netcdf", "astropy"}  # slow to import: only inside functions, of these
READ_FORMATS = ("catalogues", "answers")


def source_files():
    yield from sorted((ROOT / "velfield").glob("**/*.py"))
    yield from sorted((ROOT / "pipelines").glob("**/*.py"))


def name_of(path):
    folder = "velfield" if (ROOT / "velfield") in path.parents else "."
    return ".".join(path.relative_to(ROOT / folder).with_suffix("").parts)


def imports_of(source):
    """Absolute name of everything that a module imports, and whether it does so inside a function."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    deferred = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from ((f"{node.module}.{alias.name}", id(node) in deferred) for alias in node.names)


def package_of(name):
    """Package of a module of ours by its name within velfield; what lies in none of them is its own."""
    return name.partition(".")[0]


def trespasses(name, source):
    """What a module imports and may not."""
    package = package_of(name)
    (packages, libraries), (more, others) = USES[package], ALSO.get(name, ("", ""))
    ours, theirs = {package, "errors", *packages.split(), *more.split()}, {*libraries.split(), *others.split()}
    for imported, deferred in imports_of(source):
        library, _, inside = imported.partition(".")
        if library == "velfield":
            found = package_of(inside)
            found = found if found in USES else "__init__"  # velfield.OUTER_RIM
            if found not in ours and not (deferred and found == DEFERRED.get(name)):
                yield imported
        elif library in FORMATS and package in READ_FORMATS and deferred:
            continue
        elif library not in sys.stdlib_module_names | theirs:
            yield imported


@pytest.mark.parametrize("path", list(source_files()), ids=name_of)
def test_each_module_imports_only_what_its_package_may(path):
    name = name_of(path)
    assert package_of(name) in USES, f"{name} has no place: give its package one in this table and in docs/design.md"
    assert not set(trespasses(name, path.read_text(encoding="utf-8")))


def test_packages_depend_on_each_other_one_way():
    after = {package: set(packages.split()) for package, (packages, _) in USES.items()}
    for name, (packages, _) in ALSO.items():
        after[package_of(name)] |= set(packages.split())
    assert list(graphlib.TopologicalSorter(after).static_order())  # raises CycleError


def test_the_design_shows_every_package():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = page[page.index("## Packages") : page.index("## Arrays")]
    rows = dict(re.findall(r"^\| `([a-z]+)(?:\.py|/)?`[^|]*\|[^|]*\| ([^|]*) \|$", table, re.MULTILINE))
    shown = {name: set(re.findall(r"`([a-z]+)`", uses)) for name, uses in rows.items()}
    assert shown == {name: set(packages.split()) for name, (packages, _) in USES.items() if "_" not in name}


def test_trespassers_are_caught():
    # the check must be able to fail
    paint, store, judged = "painting.paint", "stores.store", "analysis.judged"
    assert set(trespasses(paint, "import velfield.files.storage")) == {"velfield.files.storage"}
    assert set(trespasses(paint, "def f():\n    import torch")) == {"torch"}
    loads = "from velfield.network.model import load_model"
    assert set(trespasses(store, loads)) == {"velfield.network.model.load_model"}
    late = f"def f():\n    {loads}"
    assert set(trespasses(store, late)) == {"velfield.network.model.load_model"}
    assert not set(trespasses(judged, late))
    assert set(trespasses(judged, loads)) == {"velfield.network.model.load_model"}
    assert set(trespasses(store, "from velfield import files, network")) == {"velfield.network"}
    assert set(trespasses("simulation.simulate", "from velfield.pipelines import cluster")) == {
        "velfield.pipelines.cluster"
    }
    assert set(trespasses("analysis.evaluate", "import torch.nn")) == {"torch.nn"}
    assert set(trespasses("catalogues.table_hdf5", "import h5py")) == {"h5py"}
    assert not set(trespasses("catalogues.table_hdf5", "def f():\n    import h5py"))
    assert set(trespasses("service.app", "import distributed")) == {"distributed"}
    jobs = "from velfield.pipelines import predict"
    assert set(trespasses("service.app", jobs)) == {"velfield.pipelines.predict"}
    assert not set(trespasses("service.runner", jobs))
    upwards = "from velfield.service import jobs"
    assert set(trespasses("pipelines.predict", upwards)) == {"velfield.service.jobs"}
    assert not set(trespasses("commands.cli", "import click\nfrom velfield.pipelines.paint import paint"))


SMALL = """
import importlib, sys
import velfield as vf

loaded = {"torch", "dask", "distributed", "matplotlib"} & set(sys.modules)
assert not loaded, loaded
sys.modules.update(dict.fromkeys(["torch", "dask", "distributed", "matplotlib", "safetensors", "click"]))  # not there
for module in sys.argv[1:]:
    importlib.import_module("velfield." + module)
import numpy as np

x = 2 * np.pi * np.arange(8) / 8
wave = np.broadcast_to(np.cos(x)[:, None, None], (8, 8, 8))
v = vf.linear_velocity(wave, 100.0)
print(abs(v[0] + 100 * vf.OUTER_RIM.growth_rate(0) * 100 / (2 * np.pi) * np.sin(x)[:, None, None]).max() < 1e-9)
"""


LIGHT = ("geometry", "physics", "painting", "accuracy", "files", "catalogues", "stores", "theory", "answers")


def test_numbers_files_and_answers_need_no_torch_dask_or_matplotlib():
    modules = [name for name in map(name_of, source_files()) if package_of(name) in LIGHT]
    assert len(modules) > 50
    done = subprocess.run([sys.executable, "-c", SMALL, *modules], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
