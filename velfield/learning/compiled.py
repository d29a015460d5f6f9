"""A network through torch.compile, with the network itself as the way out where it cannot be compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Compiled:
    """Calls a compiled form of ``net``, which keeps its weights and their names as they are.

    Parameters
    ----------
    net : nn.Module
        The network.
    note : callable, optional
        Is told, once, if the network cannot be compiled here; it then runs as it is.
    """

    def __init__(self, net: nn.Module, note: Callable[[str], None] | None = None) -> None:
        self.net, self.note, self.worked = net, note, False
        self._run: Callable[..., Any] = torch.compile(net)

    def __call__(self, *inputs: Any) -> Tensor:
        """Run the network."""
        try:
            made: Tensor = self._run(*inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # every error of a compiler is one; the first call compiles
            if self.worked:
                raise
            self._run = self.net
            made = self.net(*inputs)
            if self.note is not None:
                said = (str(error).strip().splitlines() or ["it does not say why"])[0]
                self.note(f"the network is not compiled: because={said}; it trains as it is, only slower")
        self.worked = True
        return made
