"""Imports go one way: the table of docs/design.md, and a core that needs neither torch nor Dask nor matplotlib."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MODULES = {
    "core": "__init__ version errors kernel cosmology boxes redshift_space clouds paint fill scatter canvases"
    " patches linear wiener radial reconstruction spectra scales places calibration measures symmetry condition"
    " normalisation tracers units findings verify_boxes verify_whole tables tiles sky",
    "files": "storage_options storage object_store manifest shards progress blocks genericio genericio_layout"
    " genericio_read genericio_write hacc table_format table_genericio table_parquet table_hdf5 table_fits table_csv"
    " table_text table_rows table_write"
    " meaning table_catalogue catalogue store_layout store halo_bias sources universe shipped verify_shard"
    " verify_opened verify_store verify",
    "theory": "whole parent analytic guide",
    "answers": "cells interpolate real_space queries query_table derived cubes export",
    "analysis": "judged pieces evaluate figure_style figures curves compare report experiment_table experiment_figures",
    "torch": "gravity halos simulate_config drawn simulate unet loss samples batches validation orientations model_card"
    " bundle model train_config checkpoint compiled ema ranks step train_record training train",
    "jobs": "pipelines.__init__ pipelines.options pipelines.stages pipelines.failures pipelines.watch"
    " pipelines.tasks pipelines.cluster pipelines.receipts pipelines.lease pipelines.paint_job"
    " pipelines.patch_files pipelines.here pipelines.paint_plan pipelines.paint_tasks pipelines.paint"
    " pipelines.predict_job pipelines.predict_tasks pipelines.predict_plan pipelines.predict"
    " pipelines.predict_catalogue pipelines.evaluate pipelines.train pipelines.diary pipelines.steps"
    " pipelines.demo pipelines.verify"
    " pipelines.deadline pipelines.checked_toml pipelines.experiment_file pipelines.experiment_scale"
    " pipelines.experiment_plan pipelines.experiment_report pipelines.experiment",
    "client": "client client_http",
    "service": "service.__init__ service.problems service.limits service.auth service.receive service.allowed"
    " service.npz service.cubes service.apart service.queries service.models"
    " service.jobs service.uploads service.results service.metrics service.schemas"
    " service.routes_models service.routes_jobs service.slices service.routes_fields service.routes_queries service.app"
    " service.server",
    "service jobs": "service.runner",
    "edge": "__main__ info runfile cli_options cli_make cli_learn cli_use cli_ask cli_serve cli",
}
LAYER = {module: layer for layer, modules in MODULES.items() for module in modules.split()}

CORE = {"numpy", "scipy", "numba", "llvmlite", "colossus"}
FORMATS = {"pyarrow", "h5py", "h5netcdf", "astropy"}  # inside functions only: an extra brings them
FILES = CORE | FORMATS | {"fsspec", "s3fs", "botocore", "xarray", "zarr", "numcodecs", "fastcrc", "rich"}
WEB = {"fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client"}
# layer: layers of ours that it may import, and libraries
MAY_IMPORT = {
    "core": ({"core"}, CORE),
    "files": ({"core", "files"}, FILES),
    "theory": ({"core", "files", "theory"}, FILES),
    "answers": ({"core", "files", "theory", "answers"}, FILES),
    "analysis": ({"core", "files", "theory", "analysis"}, FILES | {"matplotlib"}),
    "torch": ({"core", "files", "theory", "torch"}, FILES | {"torch", "safetensors"}),
    "jobs": (
        set(MODULES) - {"edge", "client", "service", "service jobs"},
        FILES | {"torch", "safetensors", "dask", "distributed", "psutil"},
    ),
    "client": ({"core", "client"}, {"numpy", "xarray", "httpx"}),
    "service": ({"core", "files", "theory", "answers", "torch", "service"}, FILES | WEB),
    "service jobs": ({"core", "files", "jobs", "service"}, {"distributed"}),
    "edge": (set(MODULES), FILES | {"torch", "dask", "distributed", "click"}),
}
# exceptions, inside a function only: who evaluates or verifies a network loads its bundle, and torch with it
DEFERRED = {"judged": {"model"}, "verify": {"model"}}


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


def module_of(imported):
    """Module of ours that velfield.store or velfield.store.open_fields is of; velfield.OUTER_RIM is of none but it."""
    inside = imported.partition(".")[2]
    if inside == "pipelines":
        return "pipelines.__init__"
    return next((m for m in (inside, inside.rpartition(".")[0]) if m in LAYER), "__init__")


def trespasses(name, source):
    """What a module imports and may not."""
    layers, libraries = MAY_IMPORT[LAYER[name]]
    for imported, deferred in imports_of(source):
        library = imported.partition(".")[0]
        if library == "velfield":
            module = module_of(imported)
            if LAYER[module] not in layers and not (deferred and module in DEFERRED.get(name, ())):
                yield imported
        elif library not in sys.stdlib_module_names | libraries:
            yield imported


@pytest.mark.parametrize("path", list(source_files()), ids=name_of)
def test_each_module_imports_only_what_its_layer_may(path):
    name = name_of(path)
    assert name in LAYER, f"{name} has no layer: place it in this test's table and in docs/design.md"
    assert not set(trespasses(name, path.read_text(encoding="utf-8")))


def test_trespassers_are_caught():
    # the check must be able to fail
    assert set(trespasses("paint", "import velfield.storage")) == {"velfield.storage"}
    assert set(trespasses("paint", "def f():\n    import torch")) == {"torch"}
    assert set(trespasses("store", "from velfield.model import load_model")) == {"velfield.model.load_model"}
    late = "def f():\n    from velfield.model import load_model"
    assert set(trespasses("store", late)) == {"velfield.model.load_model"}
    assert not set(trespasses("judged", late))
    assert set(trespasses("judged", "from velfield.model import load_model")) == {"velfield.model.load_model"}
    assert set(trespasses("store", "from velfield import storage, model")) == {"velfield.model"}
    assert set(trespasses("simulate", "from velfield.pipelines import cluster")) == {"velfield.pipelines.cluster"}
    assert set(trespasses("evaluate", "import torch.nn")) == {"torch.nn"}
    assert set(trespasses("service.app", "import distributed")) == {"distributed"}
    assert set(trespasses("service.app", "from velfield.pipelines import predict")) == {"velfield.pipelines.predict"}
    upwards = "from velfield.service import jobs"
    assert set(trespasses("pipelines.predict", upwards)) == {"velfield.service.jobs"}
    assert not set(trespasses("cli", "import click, dask, torch\nfrom velfield.pipelines.paint import paint"))


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


def test_the_core_and_the_files_need_no_torch_dask_or_matplotlib():
    there = {name_of(path) for path in source_files()}
    modules = [
        m
        for layer in ("core", "files", "theory", "answers")
        for m in MODULES[layer].split()
        if m in there and m != "__init__"
    ]
    done = subprocess.run([sys.executable, "-c", SMALL, *modules], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
