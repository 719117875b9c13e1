"""The training loop: knows ``methods.base``, no method by name. Lightning Fabric is imported only while training."""

from .run import train_run

__all__ = ["train_run"]
