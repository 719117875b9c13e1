"""A method in a training loop of your own: no run folder, no checkpoints, nothing hidden.

    python examples/own_loop.py labels.csv --method restoration --steps 500

Methods come from one table by name; each says which images it needs (``needs``) and how it learns (``phases``).
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from healmap import methods
from healmap.data.dataset import open_dataset
from healmap.data.loader import Loader
from healmap.experiment import DataConfig
from healmap.methods.base import Method, Optimisers
from healmap.types import Batch, Prediction

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", help="a labels.csv or a folder per class")
parser.add_argument("--method", default="restoration", choices=methods.names())
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--width", type=int, default=16)
parser.add_argument("--out", default="own.pt")


def train(method: Method, loader: Loader, device: str) -> None:
    """Every phase of the method, step by step. One step is one iteration of its paper, whatever that costs."""
    method.to(device).train()

    def batches() -> object:
        for batch in loader.forever():
            yield Batch(*(None if t is None else t.to(device) for t in (batch.image, batch.label, batch.healthy)))

    for phase in method.phases():
        stream, steps = batches(), len(loader) if phase.steps is None else phase.steps
        optimisers = Optimisers(phase.optimisers, clip=1.0)
        for k in range(steps):
            optimisers.scale_lr(phase.lr_scale(k, steps))
            losses = phase.step(stream, k, optimisers)
            if k % 50 == 0:
                print(k, {f"{net}.{term}": round(float(v), 4) for net, terms in losses.items() for term, v in terms.items()})
        phase.finish()


def main() -> Prediction:
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config = DataConfig(size=arguments.size, batch_size=8)
    train_set = open_dataset(arguments.data, "train", config)
    cls = methods.get(arguments.method)
    method = cls(replace(cls.Config(), steps=arguments.steps, width=arguments.width), train_set.spec)
    loader = Loader(train_set, method.needs, batch_size=config.batch_size, seed=0, flip=True)
    train(method, loader, "cuda" if torch.cuda.is_available() else "cpu")
    torch.save(method.state_dict(), arguments.out)

    test_set = open_dataset(arguments.data, "test", config, preprocessing=train_set.preprocessing)
    method.cpu().eval()
    with torch.no_grad():
        found = method.predict(torch.from_numpy(test_set.images(range(4))))
    for item, score in zip(test_set.items, found.score.tolist(), strict=False):
        print(f"{score:.4f}  {item.label}  {item.key}")
    return found


if __name__ == "__main__":
    main()
