"""What lies in a bundle, read past `load_model`."""

import safetensors.torch
import torch

from velfield.files import storage


def weights(url: str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(storage.read_bytes(storage.join(url, "model.safetensors")))
