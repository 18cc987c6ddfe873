"""The state of torch that a computation depends on: its device, and the global settings, put back to their defaults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


def device_of(device: Any) -> torch.device:
    """Return the torch device of this name, after checking that this machine has it.

    Raises
    ------
    ValueError
        For a name that torch does not know, such as "gpu", and for a device that this machine does not have.

    Examples
    --------
    >>> device_of("cpu")
    device(type='cpu')
    >>> device_of("gpu")
    Traceback (most recent call last):
    ValueError: device='gpu' cannot be used here: Expected one of cpu, cuda, ... Use 'cpu', or 'cuda' with an NVIDIA GPU
    """
    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"device={device!r} cannot be used here: {reason}. Use 'cpu', or 'cuda' with an NVIDIA GPU"
        ) from error
    return checked


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Reset torch's global device, precision, autocast and gradient mode to their defaults inside the block.

    Examples
    --------
    >>> with torch.device("meta"), torch_defaults():
    ...     torch.zeros(1).device
    device(type='cpu')
    """
    with ExitStack() as stack:
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            # Only if it differs: inside, every call of torch is intercepted, which takes time.
            stack.enter_context(torch.device("cpu"))
        for kind in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield
