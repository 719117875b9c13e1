"""One Gaussian for each of many places, fitted in one pass: the state does not grow with the number of images.

Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, Stanford, 1979.
With n vectors seen, mean μ and scatter M = Σ_i (e_i - μ)(e_i - μ)ᵀ, and a batch of b vectors of mean m and scatter S,

    δ = m - μ,    M += S + δ δᵀ n b / (n + b),    μ += δ b / (n + b),    n += b

Sums of squares would lose the digits in which features far from zero differ. The same formula joins two fits. In the end

    Σ = M / (n - 1) + ε I = L Lᵀ,    distance(e) = ‖ L⁻¹ (e - μ) ‖ = √( (e - μ)ᵀ Σ⁻¹ (e - μ) )

M is symmetric and L triangular, and L takes M's place. Both are kept as panels: columns 0 to 63 from row 0 down, columns 64 to
127 from row 64 down, and so on, for every place. That is little more than half a square, and matrix products work on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..errors import TrainingError

WIDTH = 64  # columns of a panel: narrower ones need a little less memory, and products of them are slower
NUMBERS = 2**20  # worked on at once, 8 MB in float64


class Gaussians(nn.Module):
    """Means and covariances of d-vectors at ``places`` places, built from vectors that arrive in batches.

    Args:
        dtype: of the whole state. float64 takes 8 bytes for each of the places · d (d + 64) / 2 numbers, about.

    Before :meth:`solve` the distance is Euclidean, as with Σ = I.
    """

    count: Tensor  # () int64
    solved: Tensor  # () bool: the panels hold L; else M
    mean: Tensor  # (places, d)
    ridge: Tensor  # (places,) ε

    def __init__(self, places: int, d: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.places, self.d = places, d
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("solved", torch.zeros((), dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(places, d, dtype=dtype))
        self.register_buffer("ridge", torch.zeros(places, dtype=dtype))
        self.firsts = range(0, d, WIDTH)  # the first column, and row, of each panel
        for first in self.firsts:
            self.register_buffer(f"panel{first}", torch.zeros(places, d - first, min(WIDTH, d - first), dtype=dtype))

    @property
    def panels(self) -> list[Tensor]:
        """(places, d - first, width) each."""
        return [self.get_buffer(f"panel{first}") for first in self.firsts]

    @torch.no_grad()
    def update(self, e: Tensor) -> None:
        """Takes a batch of vectors in. e: (b, d, places), of any precision. A solved state is opened again."""
        b, dtype = len(e), self.mean.dtype
        if not b:
            return
        self.reopen()
        with torch.autocast(e.device.type, enabled=False):
            n = self.count.to(dtype)
            root, share = (n * b / (n + b)).sqrt(), b / (n + b)
            for part in self._parts(b):
                x = e[:, :, part].permute(2, 0, 1).to(dtype)  # (p, b, d)
                m = x.mean(dim=1, keepdim=True)
                delta = m - self.mean[part].unsqueeze(1)
                x = torch.cat([x - m, root * delta], dim=1)  # (p, b + 1, d): xᵀ x = S + δ δᵀ n b / (n + b)
                self._add_products(part, x)
                self.mean[part] += share * delta.squeeze(1)
        self.count += b

    @torch.no_grad()
    def merge(self, other: Gaussians) -> None:
        """Takes in what ``other`` has seen. Both may be solved; afterwards this one is not, and ``other`` is as it was."""
        self.reopen()
        n, b = self.count.to(self.mean.dtype), other.count.to(self.mean)
        total = (n + b).clamp_min(1)
        for part in self._parts(1):
            delta = other.mean[part].to(self.mean) - self.mean[part]
            for panel, scatter in zip(self.panels, other._scatter(part), strict=True):
                panel[part] += scatter.to(panel)
            self._add_products(part, (n * b / total).sqrt() * delta.unsqueeze(1))
            self.mean[part] += delta * (b / total)
        self.count += other.count.to(self.count.device)

    @torch.no_grad()
    def solve(self, ridge: Callable[[Tensor], Tensor]) -> None:
        """Σ = M / (n - 1) + ε I = L Lᵀ, in M's place.

        ridge: from the mean variance of every place, (places,), to its ε, (places,).

        Raises:
            TrainingError: fewer than two vectors, or an Σ that is not positive definite. The state is a fit as before, up to
                rounding: it can be solved with a larger ε, or take more vectors in.
        """
        self.reopen()
        n = int(self.count)
        if n < 2:
            raise TrainingError(f"a covariance needs at least 2 images, not {n}", hint="train on more healthy images")
        trace = torch.stack([p.diagonal(dim1=1, dim2=2).sum(1) for p in self.panels]).sum(0)
        self.ridge.copy_(ridge(trace / (n - 1) / self.d))
        definite = torch.cat([self._factorise(part) for part in self._parts(self.d)])
        if not bool(definite.all()):
            self._multiply_out(definite)
            raise TrainingError(
                f"the covariance of {int((~definite).sum())} of {self.places} places is not positive definite",
                hint="raise method.epsilon, or train on more healthy images that differ",
            )
        self.solved.fill_(True)

    def _factorise(self, part: slice) -> Tensor:
        """L in M's place at those of some places where Σ is positive definite; the others stay. Which they are: (p,) bool."""
        panels = [p[part] / (self.count - 1) for p in self.panels]
        definite = torch.ones(len(panels[0]), dtype=torch.bool, device=self.mean.device)
        for j, (first, panel) in enumerate(zip(self.firsts, panels, strict=True)):
            w = panel.shape[2]
            panel.diagonal(dim1=1, dim2=2).add_(self.ridge[part, None])
            lower, info = torch.linalg.cholesky_ex(panel[:, :w])
            definite &= info == 0
            below = torch.linalg.solve_triangular(lower.mT, panel[:, w:], upper=True, left=False)
            panel[:, :w], panel[:, w:] = lower, below
            for later, rest in zip(self.firsts[j + 1 :], panels[j + 1 :], strict=True):
                low = panel[:, later - first :]  # rows from `later` down
                rest.baddbmm_(low, low[:, : rest.shape[2]].mT, alpha=-1)
        self._put(part, panels, definite)
        return definite

    @torch.no_grad()
    def reopen(self) -> None:
        """M = (L Lᵀ - ε I) (n - 1), in L's place: more vectors can be taken in. Nothing to do where there is no L."""
        if bool(self.solved):
            self._multiply_out(torch.ones_like(self.ridge, dtype=torch.bool))
            self.solved.fill_(False)

    def _multiply_out(self, which: Tensor) -> None:
        """M in L's place at ``which`` places, (places,) bool."""
        for part in self._parts(self.d):
            self._put(part, self._product(part), which[part])

    def _put(self, part: slice, values: list[Tensor], which: Tensor) -> None:
        """New panels of some places, at those of them that ``which`` names, (p,) bool."""
        for panel, value in zip(self.panels, values, strict=True):
            panel[part] = torch.where(which[:, None, None], value, panel[part])

    @torch.no_grad()
    def distance(self, e: Tensor) -> Tensor:
        """‖ L⁻¹ (e - μ) ‖ of vectors at their places, (N, d, places) -> (N, places) of this state's precision."""
        solved, out = bool(self.solved), []
        with torch.autocast(e.device.type, enabled=False):
            for part in self._parts(len(e)):
                r = e[:, :, part].permute(2, 1, 0).to(self.mean.dtype) - self.mean[part].unsqueeze(2)  # (p, d, N)
                out.append((self._squared(part, r) if solved else r.square().sum(dim=1)).sqrt())
        return torch.cat(out).mT

    def _squared(self, part: slice, r: Tensor) -> Tensor:
        """‖ L⁻¹ r ‖², by forward substitution, panel by panel. r: (p, d, N) -> (p, N)."""
        total = torch.zeros_like(r[:, 0])
        for whole in self.panels:
            panel = whole[part]
            w = panel.shape[2]
            y = torch.linalg.solve_triangular(panel[:, :w], r[:, :w], upper=False)
            total += y.square().sum(dim=1)
            r = torch.baddbmm(r[:, w:], panel[:, w:], y, alpha=-1)
        return total

    def _add_products(self, part: slice, x: Tensor) -> None:
        """M += xᵀ x at some places. x: (p, k, d)."""
        for first, panel in zip(self.firsts, self.panels, strict=True):
            panel[part].baddbmm_(x[:, :, first:].mT, x[:, :, first : first + panel.shape[2]])

    def _scatter(self, part: slice) -> list[Tensor]:
        """The panels of M at some places; do not change them."""
        return self._product(part) if bool(self.solved) else [p[part] for p in self.panels]

    def _product(self, part: slice) -> list[Tensor]:
        """(L Lᵀ - ε I) (n - 1) at some places."""
        held, scatter = [p[part] for p in self.panels], []
        for k, (first, panel) in enumerate(zip(self.firsts, held, strict=True)):
            product, w = torch.zeros_like(panel), panel.shape[2]
            for earlier, column in zip(self.firsts[: k + 1], held[: k + 1], strict=True):
                low = column[:, first - earlier :]  # rows from `first` down
                product.baddbmm_(low, low[:, :w].mT)
            product.diagonal(dim1=1, dim2=2).sub_(self.ridge[part, None])
            scatter.append(product * (self.count - 1))
        return scatter

    def _parts(self, vectors: int) -> Iterator[slice]:
        """Places, so many at a time that about NUMBERS numbers are in work with so many vectors each."""
        step = max(1, NUMBERS // (self.d * (vectors + WIDTH)))
        return (slice(start, start + step) for start in range(0, self.places, step))
