"""Batches for training: boxes of field stores, normalised, turned by the cube's symmetries, on the device.

Which box a step sees, in which of its orientations, is a pure function of the seed and the step's number. So a run
that is interrupted goes on with the same batches, and the two ways of loading give the same bits: *resident* (every
wanted box in memory, on the device) and *stream* (worker processes read the Zarr arrays; no xarray, no Dask). Workers
start by forkserver: a forked copy of a process that has used Zarr on object storage hangs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from velfield.errors import StoreError, VelfieldError
from velfield.files import shards, storage
from velfield.files.progress import Progress
from velfield.geometry import symmetry
from velfield.learning.samples import AS_IT_IS, Sample
from velfield.network.normalisation import Normalisation
from velfield.stores.sources import FieldSource
from velfield.stores.store import INPUTS
from velfield.theory.guide import COMPONENTS, Kept

LOADERS = ("auto", "resident", "stream")
RESIDENT_SHARE = 0.5  # of the free memory that the resident mode may take: the rest is for the network and others
READERS = 8  # boxes read at once into the resident mode: hides the latency of object storage

Tensors = tuple[Tensor, Tensor, Tensor, Tensor]  # what `Batch` has, of one box


class Batch(NamedTuple):
    """A step's boxes."""

    inputs: Tensor  # (box, channel, x, y, z), normalised, the guide last [σ_v]; context included
    velocity: Tensor  # (box, 3, x, y, z) [σ_v], cores
    flag: Tensor  # (box, x, y, z) uint8: velocity_flag, cores
    condition: Tensor  # (box, n): what a conditioned network is told of each box's store; n is 0 for any other


class RawBox(NamedTuple):
    """One box as it is stored."""

    inputs: NDArray[np.float32]  # (channel, x, y, z), in the units of the inputs' kinds, context included
    velocity: NDArray[np.float32]  # (3, x, y, z) [km/s], core
    flag: NDArray[np.uint8]  # (x, y, z), core


class Boxes(Dataset[Tensors]):
    """Boxes of some field stores by number, read from their Zarr arrays.

    Parameters
    ----------
    sources : sequence of FieldSource
        The stores; plain values, so that this goes to worker processes.
    inputs : sequence of str
        Kinds of input, one a channel.
    which : sequence of (int, int)
        Number of the store and of the box in it, for each box.
    symmetries : sequence of Symmetry
        What a sample's second number counts.
    normalisation : Normalisation, optional
        Not needed for `raw`.
    context : int, optional
        Cells around the core that the inputs have; by default all of the stores' margin.
    guide : Kept, optional
        The boxes' guides, which become the last inputs, three a tracer.
    """

    def __init__(
        self,
        sources: Sequence[FieldSource],
        inputs: Sequence[str],
        which: Sequence[tuple[int, int]],
        symmetries: Sequence[Any] = (),
        normalisation: Normalisation | None = None,
        *,
        context: int | None = None,
        guide: Kept | None = None,
    ) -> None:
        self.sources, self.inputs, self.which = list(sources), tuple(inputs), list(which)
        self.symmetries, self.normalisation = list(symmetries), normalisation
        self.context = int(sources[0].described["margin"]) if context is None else context
        self.guide = guide
        self._arrays: dict[tuple[int, str], Any] = {}

    def __len__(self) -> int:
        return len(self.which)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}  # each process opens the arrays itself

    def __getitem__(self, sample: Sample) -> Tensors:
        box, turn = sample
        return self.turned(self.read(box), turn)

    @property
    def nbytes(self) -> int:
        """Bytes of all boxes as tensors."""
        core = int(self.sources[0].described["cells"])
        channels = len(self.inputs) + (self.guide.channels if self.guide else 0)
        return len(self) * (4 * channels * (core + 2 * self.context) ** 3 + (3 * 4 + 1) * core**3)

    def raw(self, box: int) -> RawBox:
        """One box as it is stored; refuses a box that was lost from the store."""
        number, inside = self.which[box]
        source = self.sources[number]
        margin, cells = int(source.described["margin"]), int(source.described["cells"])
        core = (slice(margin, margin + cells),) * 3
        seen = (slice(margin - self.context, margin + cells + self.context),) * 3
        inputs = np.stack([self._input(number, inside, kind)[seen] for kind in self.inputs])
        velocity = np.asarray(self._array(number, "velocity")[inside])[:, *core]
        flag = np.asarray(self._array(number, "velocity_flag")[inside])[core]
        lost = flag.max(initial=0) > 2  # a chunk that is not there reads as 255, or as NaN
        if lost or not np.isfinite(inputs).all() or not (np.isfinite(velocity) | (flag == 2)).all():
            raise StoreError(
                f"a box of the store has lost its data: store={source.url}, box={inside}; "
                "check it with velfield verify, and paint it again"
            )
        return RawBox(inputs, velocity, flag)

    def read(self, box: int) -> Tensors:
        """One box, normalised: inputs, velocity, flag, condition."""
        if self.normalisation is None:
            raise VelfieldError("boxes without a normalisation: normalisation=None; give one, or use raw()")
        inputs, velocity, flag = self.raw(box)
        of = self.sources[self.which[box][0]].condition
        channels, unit = self.normalisation.inputs(inputs, of), np.float32(self.normalisation.velocity_unit(of))
        if self.guide:
            channels = np.concatenate([channels, self.guide.read(*self.which[box]) / unit])
        return (
            torch.from_numpy(channels),
            torch.from_numpy(velocity / unit),
            torch.from_numpy(flag),
            torch.from_numpy(self.normalisation.vector(of)),
        )

    def turned(self, tensors: Tensors, turn: int) -> Tensors:
        """The same box in another orientation."""
        if turn == AS_IT_IS:
            return tensors
        s = self.symmetries[turn]
        inputs, velocity, flag, condition = tensors
        return (
            symmetry.apply_channels(inputs, s, self._vectors).contiguous(),
            symmetry.apply_vector(velocity, s, 0).contiguous(),
            symmetry.apply_scalar(flag, s).contiguous(),
            condition,
        )

    @property
    def _vectors(self) -> int:
        """Vectors among the inputs."""
        return self.guide.channels // COMPONENTS if self.guide else 0

    def _input(self, number: int, box: int, kind: str) -> NDArray[np.float32]:
        source = self.sources[number]
        variable, form = INPUTS[kind]
        values = np.asarray(self._array(number, variable)[box])
        if form == "overdensity":
            return np.asarray(values / source.means[variable] - 1, dtype=np.float32)
        return np.asarray(values / source.described["cellsize"] ** 3, dtype=np.float32)

    def _array(self, number: int, name: str) -> Any:
        if (number, name) not in self._arrays:
            url = storage.join(self.sources[number].url, name)
            self._arrays[number, name] = zarr.open_array(shards.zarr_store(url), mode="r", zarr_format=3)
        return self._arrays[number, name]


class Batches:
    """Batches of ``data``, one for each entry of ``samples``; can be gone through again.

    Parameters
    ----------
    data : Boxes
        Where they come from.
    samples : sequence of list of (int, int)
        For each batch its samples.
    device : torch.device
        Where the tensors shall be.
    resident : bool
        Keep every box in memory on the device, or read each when it is its turn.
    workers : int
        Processes that read ahead when streaming; 0 reads in this one.
    """

    def __init__(
        self, data: Boxes, samples: Iterable[list[Sample]], *, device: torch.device, resident: bool, workers: int
    ) -> None:
        self.data, self.samples, self.device, self.resident = data, samples, device, resident
        self._kept: list[Tensors] | None = None
        self._loader = None if resident else _loader(data, samples, workers, pin=device.type == "cuda")

    def load(self, progress: Progress, label: str) -> None:
        """Read what the resident mode keeps; nothing to do when streaming."""
        if not self.resident or self._kept is not None:
            return
        progress.start(label, len(self.data), "boxes")
        self._kept = []
        with ThreadPoolExecutor(READERS) as pool:
            for tensors in pool.map(self.data.read, range(len(self.data))):
                self._kept.append(self._moved(tensors))
                progress.advance(1)
        progress.done(f"{self.data.nbytes / 2**20:.0f} MiB")

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is not None:
            for tensors in self._loader:
                yield Batch(*self._moved(tensors))
            return
        if self._kept is None:
            raise VelfieldError("resident boxes were not read yet: loaded=False; call load() first")
        for samples in self.samples:
            turned = [self.data.turned(self._kept[box], turn) for box, turn in samples]
            yield Batch(*(torch.stack(part) for part in zip(*turned, strict=True)))

    def _moved(self, tensors: Sequence[Tensor]) -> Tensors:
        inputs, velocity, flag, condition = (t.to(self.device, non_blocking=True) for t in tensors)
        return inputs, velocity, flag, condition


def fits_in_memory(nbytes: int, device: torch.device) -> bool:
    """The rule of ``--loader auto``: resident where all boxes take at most half of the memory that is free now."""
    return nbytes <= RESIDENT_SHARE * free_memory(device)


def free_memory(device: torch.device) -> int:
    """Memory that could be taken now [bytes]: the GPU's, or the machine's within the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux: half of what the machine has
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            free = min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):  # no such limit
        pass
    return max(free, 0)


def _loader(data: Boxes, samples: Iterable[list[Sample]], workers: int, *, pin: bool) -> DataLoader[Any]:
    options: dict[str, Any] = {}
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["velfield.learning.batches"])  # torch is imported once, not by every worker
        options = {
            "num_workers": workers,
            "multiprocessing_context": context,
            "persistent_workers": True,
            "worker_init_fn": _begin_worker,
        }
    # a generator of its own: otherwise each iterator draws from torch's global one, which dropout draws from too
    return DataLoader(data, batch_sampler=samples, generator=torch.Generator(), pin_memory=pin, **options)


def _begin_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, which then ends its workers
    zarr.config.set({"threading.max_workers": 1, "async.concurrency": 4})
