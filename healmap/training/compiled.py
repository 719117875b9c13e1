"""``torch.compile`` of the networks that can bear it, with a way back."""

from __future__ import annotations

from torch import nn

from ..methods.base import Method


def compile_networks(method: Method) -> list[str]:
    """Compiles the averaged modules (generators) in place; returns their names.

    Critics stay as they are: a gradient penalty differentiates twice, which compiled networks do not offer. State-dict names do
    not change.
    """
    for name in method.averaged:
        method.get_submodule(name).compile()
    return list(method.averaged)


def take_back(method: nn.Module) -> None:
    """Every module runs as written again."""
    for module in method.modules():
        module._compiled_call_impl = None
