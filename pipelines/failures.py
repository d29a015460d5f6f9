"""What goes wrong in a task through no fault of the request: which errors may pass, and how to say them."""

from __future__ import annotations

import errno

from distributed.scheduler import KilledWorker

from velfield.errors import ClusterError

GO_ON = "run the same command again to go on"

# errors that come out of the libraries that talk to storage, which are not all OSErrors
NETWORK = {"aiohttp", "aiobotocore", "botocore", "fsspec", "gcsfs", "adlfs", "s3fs", "urllib3", "http", "ssl"}
# a second try meets the same disk, the same rights and the same name
LASTING = {
    errno.ENOSPC: "free some space, then ",
    errno.EDQUOT: "raise the quota or free some space, then ",
    errno.EFBIG: "raise the limit on the size of files, then ",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "see to the access rights, then ",
    errno.EPERM: "see to the access rights, then ",
    errno.ENOENT: "see that the file is there, then ",
    errno.ENOTDIR: "see that the folder is there, then ",
    errno.EISDIR: "see that the file is there, then ",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def environmental(error: BaseException) -> bool:
    """Whether an error came from the machine, the network or the storage, and not from what was asked or our code."""
    return isinstance(error, OSError | MemoryError | EOFError) or type(error).__module__.partition(".")[0] in NETWORK


def worth_another_try(error: BaseException) -> bool:
    """Whether an error may pass: a cut connection does, a full disk does not."""
    return environmental(error) and getattr(error, "errno", None) not in LASTING


def in_one_line(error: BaseException, piece: str, tries: int) -> ClusterError:
    """Say an environmental error, or that workers kept dying, in one line with the way out.

    Parameters
    ----------
    error : BaseException
        What the task raised, or `KilledWorker`.
    piece : str
        The stage and the piece of work, as ``assemble-write 12``.
    tries : int
        How often the piece was tried.
    """
    if isinstance(error, KilledWorker):
        return ClusterError(
            f"workers keep dying at one piece of work: {piece}, tried={error.allowed_failures + 1}, "
            f"last worker={getattr(error.last_worker, 'address', error.last_worker)}; mostly memory is short: "
            f"take fewer --workers or larger ones, then {GO_ON}"
        )
    number = getattr(error, "errno", None)
    way_out = LASTING.get(number or 0, "")
    if not way_out or way_out.endswith(", then "):
        way_out += GO_ON
    if isinstance(error, MemoryError):
        way_out = f"take fewer --workers or larger ones, then {GO_ON}"
    file = getattr(error, "filename", None)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ClusterError(
        f"{' '.join(str(text).split())[:300]}: {piece}, "
        + (f"file={file}, " if file else "")
        + (f"tried={tries}; " if tries > 1 else f"error={type(error).__name__}; ")
        + way_out
    )
