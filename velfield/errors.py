"""Errors that a user can mend: one line each, with the values and the way out."""


class VelfieldError(Exception):
    """A mistake in what was asked.

    The message is ``what is wrong: name=value; what to do``; the command line prints it as one line and exits with
    ``status``.
    """

    status = 2


class CatalogueError(VelfieldError):
    """A catalogue that cannot be read as it is: names the file and, where they matter, the rank and the column."""


class DamagedError(CatalogueError):
    """Data whose checksum does not match; read again from a distant place, they may be sound."""


class StoreError(VelfieldError):
    """A field store, velocity store or model bundle that is absent, unfinished, or does not fit the request."""


class ImplausibleError(VelfieldError):
    """An input or a result that cannot be right; written all the same where it is accepted as implausible."""


class StorageError(VelfieldError):
    """A place that cannot be read or written: names its URL, and for object storage the endpoint."""


class StorageFailedError(StorageError):
    """Object storage that keeps failing though it has answered before. Run again, a job goes on."""

    status = 1


class ClusterError(VelfieldError):
    """Machines that gave out while they worked. Nothing was wrong with the request: run again, it goes on."""

    status = 1


# what is raised where a document that others wrote holds other values, or other shapes of them, than it should
SENSELESS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, VelfieldError)
