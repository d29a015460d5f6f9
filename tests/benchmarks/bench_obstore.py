"""Whether obstore, a client of object storage in Rust, would be faster than ours: raw reads, then painting.

python tests/benchmarks/bench_obstore.py [--rows 2600000] [--side 2] [--cells 32] [--processes 1 2] [--repeat 3]
    [--coroutines]

VELFIELD_BENCH_S3 names a folder (s3://bucket/folder), AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say
how to get there; `pip install obstore`. Both read the same ranges of 8 MiB, 16 at once, of the same catalogue, in turn,
in processes of their own, which count their CPU seconds; so the server's are not among them. For the painting, obstore
takes the place of `storage.read_ranges` in the workers, and nothing else changes.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psutil
from bench_storage import AT_ONCE, BOXSIZE, block_ranges, painting, particles
from distributed import Client

from velfield.catalogues import genericio
from velfield.files import storage
from velfield.pipelines.cluster import connect

Ranges = list[tuple[str, int, int]]
Result = tuple[float, float, int]  # wall seconds, CPU seconds, bytes


@functools.cache
def obstore_of(bucket: str) -> Any:
    """Return obstore's view of a bucket, with what AWS's variables say."""
    from obstore.store import S3Store

    return S3Store(
        bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


@functools.cache
def threads() -> ThreadPoolExecutor:
    """For obstore's requests side by side."""
    return ThreadPoolExecutor(AT_ONCE)


def obstore_ranges(
    url: str,  # noqa: ARG001
    paths: Sequence[str],
    starts: Sequence[int],
    stops: Sequence[int],
    *,
    whole: bool = True,  # noqa: ARG001
) -> list[Any]:
    """`storage.read_ranges` with obstore: a request for each range, as ours; of itself it merges neighbours."""
    import obstore

    def fetch(path: str, start: int, stop: int) -> Any:
        bucket, _, key = path.partition("/")
        return obstore.get_range(obstore_of(bucket), key, start=start, end=stop)

    return list(threads().map(fetch, paths, starts, stops))


def obstore_ranges_async(url: str, paths: Sequence[str], starts: Sequence[int], stops: Sequence[int]) -> list[Any]:  # noqa: ARG001
    """The same with its coroutines."""
    import obstore

    async def fetch() -> list[Any]:
        places = [path.partition("/") for path in paths]
        return await asyncio.gather(
            *(
                obstore.get_range_async(obstore_of(bucket), key, start=start, end=stop)
                for (bucket, _, key), start, stop in zip(places, starts, stops, strict=True)
            )
        )

    return asyncio.run(fetch())


WAYS = {"ours": storage.read_ranges, "obstore": obstore_ranges, "obstore's coroutines": obstore_ranges_async}


def read_blocks(way: str, url: str, blocks: list[Ranges]) -> tuple[int, float]:
    """Bytes of the blocks and CPU seconds of this process; reads as `bench_storage.read_block`."""
    began, total = time.process_time(), 0
    for ranges in blocks:
        for first in range(0, len(ranges), AT_ONCE):
            total += sum(len(data) for data in WAYS[way](url, *zip(*ranges[first : first + AT_ONCE], strict=True)))
    return total, time.process_time() - began


def spread(pools: list[ProcessPoolExecutor], way: str, url: str, blocks: list[Ranges]) -> Result:
    """Wall seconds, CPU seconds and bytes of reading all blocks, dealt to the pools of one process each."""
    began = time.perf_counter()
    done = [pool.submit(read_blocks, way, url, blocks[i :: len(pools)]) for i, pool in enumerate(pools)]
    results = [future.result() for future in done]
    return time.perf_counter() - began, sum(r[1] for r in results), sum(r[0] for r in results)


def take(way: str, dask_worker: Any = None) -> float:  # noqa: ARG001
    """Let a worker read in that way; return its CPU seconds so far."""
    ours = vars(storage).setdefault("ours", storage.read_ranges)
    storage.read_ranges = {"ours": ours, "obstore": obstore_ranges}[way]
    return sum(psutil.Process().cpu_times()[:2])


def paint_once(cluster: Client, name: str, url: str, out: str, cells: int) -> Result:
    """Wall seconds, the workers' CPU seconds and bytes of a painting."""
    before = sum(cluster.run(take, name).values())
    size, seconds = painting(cluster, url, out, 2, cells)
    return seconds, sum(cluster.run(take, name).values()) - before, size


def in_turn(ways: dict[str, Callable[[], Result]], repeat: int) -> dict[str, Result]:
    """The best of some runs of each, taken in turn after one that does not count."""
    found: dict[str, list[Result]] = {name: [] for name in ways}
    for number in range(repeat + 1):
        for name, run in ways.items():
            result = run()
            if number:
                found[name].append(result)
    return {name: min(results) for name, results in found.items()}


def table(what: str, processes: int, best: dict[str, Result]) -> None:
    """Print a row for each client."""
    ours, size = best["ours"][:2], best["ours"][2]
    for name, (wall, cpu, read) in best.items():
        assert read == size
        rates = f"{cpu / wall / processes:>10.2f} {size / 1e6 / wall:>6.0f}"
        ratios = f"{ours[0] / wall:>7.2f} {cpu / ours[1]:>5.2f}"
        print(f"{what:<6} {processes:>9} {name:<20} {size / 1e6:>6.0f} {wall:>7.2f} {cpu:>6.2f} {rates} {ratios}")  # noqa: T201


def main() -> None:
    """Write a catalogue, read and paint it both ways, print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=2_600_000, help="rows of a block, 24 bytes each")
    options.add_argument("--side", type=int, default=2, help="blocks along a side")
    options.add_argument("--cells", type=int, default=32)
    options.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--coroutines", action="store_true", help="of obstore, too, which are slow; no painting")
    args = options.parse_args()
    place = os.environ.get("VELFIELD_BENCH_S3")
    if place is None or importlib.util.find_spec("obstore") is None:
        print("nothing measured: VELFIELD_BENCH_S3 is not set, or obstore is not installed")  # noqa: T201
        return
    url, out = storage.join(place, "cat"), storage.join(place, "out.zarr")
    try:
        genericio.write(url, particles(args.side, args.rows), dims=(args.side,) * 3, boxsize=BOXSIZE)
        blocks = block_ranges(url)
        print("what   processes client                   MB  wall s  CPU s CPU / wall   MB/s × speed × CPU")  # noqa: T201
        spawn = multiprocessing.get_context("spawn")
        for processes in args.processes:
            with ExitStack() as stack:
                pools = [stack.enter_context(ProcessPoolExecutor(1, spawn)) for _ in range(processes)]
                ways = WAYS if args.coroutines else ("ours", "obstore")
                reads = {way: functools.partial(spread, pools, way, url, blocks) for way in ways}
                table("read", processes, in_turn(reads, args.repeat))
        for processes in () if args.coroutines else args.processes:
            with connect(workers=processes, quiet=True) as cluster:
                paintings = {
                    name: functools.partial(paint_once, cluster, name, url, out, args.cells)
                    for name in ("ours", "obstore")
                }
                table("paint", processes, in_turn(paintings, args.repeat))
    finally:
        for made in (url, out):
            storage.remove(made)


if __name__ == "__main__":
    main()
