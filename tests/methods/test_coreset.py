"""Greedy k-centre: the farthest row each time, in rounds within the stated bound; random samples; exact neighbours."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import johnson_lindenstrauss_min_dim
from torch import Tensor

from healmap.methods import coreset
from healmap.methods.coreset import Coreset, Reservoir, k_centre, projection
from healmap.methods.neighbours import nearest


def clustered(n: int, d: int, seed: int = 0) -> Tensor:
    """Ten clusters and a few rows far from all."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(10, d, generator=generator)
    rows = centres[torch.randint(0, 10, (n,), generator=generator)] + torch.randn(n, d, generator=generator)
    rows[:: max(n // 5, 1)] *= 4
    return rows


def one_by_one(rows: Tensor, k: int) -> list[int]:
    """The textbook: a pass over all distances for each centre."""
    apart = torch.cdist(rows.double(), rows.double())
    chosen = [0]
    while len(chosen) < k:
        near = apart[chosen].amin(0)
        near[chosen] = -1
        chosen.append(int(near.argmax()))
    return chosen


def radius(rows: Tensor, bank: Tensor) -> float:
    return float(torch.cdist(rows.double(), bank.double()).amin(1).max())


def best_radius(rows: Tensor, k: int) -> float:
    """r*, by looking at every choice of k rows."""
    apart = torch.cdist(rows.double(), rows.double())
    return min(float(apart[list(centres)].amin(0).max()) for centres in combinations(range(len(rows)), k))


def streamed(rows: Tensor, k: int, *, chunk: int, slots: int, batch: int = 7) -> tuple[Tensor, int]:
    found = Coreset(k, rows.shape[1], chunk=chunk, slots=slots, space=projection("none", rows.shape[1], 1, 1))
    for part in rows.split(batch):
        found.add(part)
    rounds = found.rounds
    return found.finish(), rounds


@pytest.mark.parametrize(("n", "k", "ahead"), [(40, 12, 256), (600, 300, 256), (300, 100, 1), (300, 250, 16), (5, 9, 256)])
def test_k_centre_is_the_textbooks(n, k, ahead, monkeypatch):
    monkeypatch.setattr(coreset, "AHEAD", ahead)
    monkeypatch.setattr(coreset, "SLAB", 64)
    rows = clustered(n, 8)
    index, left = k_centre(rows, k)
    assert index.tolist() == one_by_one(rows, min(k, n))
    assert float(left) == pytest.approx(radius(rows, rows[index]), rel=1e-4, abs=1e-3)


def test_k_centre_takes_no_row_twice_however_many_are_equal():
    rows = torch.ones(500, 3)
    rows[7], rows[9] = 2.0, 3.0
    index, left = k_centre(rows, 300)
    assert len(set(index.tolist())) == 300
    assert {7, 9} <= set(index[:3].tolist())
    assert float(left) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_equal_rows_cost_no_pass_each(scale, monkeypatch):
    """And none that was chosen is taken again, however far rounding falls below 0 where rows are long."""
    rows = scale * torch.cat([clustered(100, 64), clustered(1, 64, seed=3).expand(5000, -1)])
    rows = rows[torch.randperm(5100, generator=torch.Generator().manual_seed(0))]
    passes, approach = [], coreset._approach
    monkeypatch.setattr(coreset, "_approach", lambda *arguments: (passes.append(1), approach(*arguments)))
    index, left = k_centre(rows, 1000)
    assert len(index.unique()) == 1000
    assert len(rows[index].unique(dim=0)) == 101
    assert float(left) == 0
    assert len(passes) < 30


@pytest.mark.parametrize("seed", range(4))
def test_the_radius_keeps_the_bound(seed):
    rows, k = clustered(24, 2, seed), 3
    best = best_radius(rows, k)
    assert radius(rows, rows[k_centre(rows, k)[0]]) <= 2 * best
    for chunk, slots in ((8, 3), (6, 4), (4, 3), (4, 2)):
        bank, rounds = streamed(rows, k, chunk=chunk, slots=slots)
        assert len(bank) == k
        assert radius(rows, bank) <= 2 * rounds * best


def test_two_rounds_are_at_most_twice_as_coarse_as_one():
    rows = clustered(3000, 16)
    one = radius(rows, rows[k_centre(rows, 100)[0]])
    two, rounds = streamed(rows, 100, chunk=300, slots=12)
    assert rounds == 2
    assert radius(rows, two) <= 2 * one
    at_random = radius(rows, rows[torch.randperm(3000, generator=torch.Generator().manual_seed(0))[:100]])
    assert radius(rows, two) < at_random


@pytest.mark.parametrize("slots", [2, 3, 5])
def test_rounds_grow_with_the_square_of_the_slots(slots):
    def rounds(chunks: int) -> int:
        return streamed(torch.randn(4 * chunks, 2), 2, chunk=4, slots=slots)[1]

    assert rounds(1) == 1
    assert rounds(2) == rounds(slots) == 2
    assert rounds(slots + 1) == 3
    assert rounds(slots * (slots + 1) // 2) == 3
    assert rounds(slots * (slots + 1) // 2 + 1) == 4


def test_a_coreset_holds_rows_of_the_stream_and_no_more_than_asked_for():
    rows = clustered(500, 5)
    bank, _ = streamed(rows, 20, chunk=64, slots=3)
    assert bank.shape == (20, 5)
    assert bool((torch.cdist(bank, rows, compute_mode="donot_use_mm_for_euclid_dist").amin(1) == 0).all())
    few, _ = streamed(rows[:11], 20, chunk=64, slots=3)
    assert torch.equal(few, rows[:11])


def test_the_cut_into_batches_does_not_matter():
    rows = clustered(500, 5)
    found = [streamed(rows, 20, chunk=64, slots=3, batch=batch)[0] for batch in (1, 7, 64, 500)]
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("stop", [10, 64, 333])
def test_a_stopped_stream_goes_on_bit_by_bit(stop):
    rows = clustered(500, 5)
    whole, begun, resumed = (Coreset(20, 5, chunk=64, slots=3, space=projection("linear", 5, 3, 1)) for _ in range(3))
    whole.add(rows)
    begun.add(rows[:stop])
    shapes = {name: value.shape for name, value in resumed.state_dict().items()}
    assert shapes == {name: value.shape for name, value in begun.state_dict().items()}
    resumed.load_state_dict(begun.state_dict())
    resumed.add(rows[stop:])
    assert torch.equal(resumed.finish(), whole.finish())


def test_distances_are_taken_in_the_projection():
    """Of two directions one is projected away: only the other one's extremes are found."""
    rows = torch.cat([torch.eye(2) * 100, -torch.eye(2) * 100, torch.zeros(20, 2)])[torch.tensor([5, *range(24)])]
    found = Coreset(3, 2, chunk=64, slots=2, space=torch.tensor([[1.0], [0.0]]))
    found.add(rows)
    assert sorted(found.finish()[:, 0].tolist()) == [-100, 0, 100]


def test_projections():
    assert projection("none", 64, 8, 1000).shape == projection("linear", 64, 64, 1000).shape == (64, 0)
    for rows in (100_000, 21_152_768):
        wanted = int(johnson_lindenstrauss_min_dim(rows, eps=0.9))
        assert projection("sparse", 1536, 0, rows).shape == (1536, wanted)
    sparse = projection("sparse", 1536, 0, 1000)
    assert float((sparse != 0).float().mean()) == pytest.approx(1536**-0.5, rel=0.05)
    x = torch.randn(30, 1536, generator=torch.Generator().manual_seed(1))
    for kind in ("linear", "sparse"):
        space = projection(kind, 1536, 512, 1000)
        ratio = torch.pdist(x @ space) / torch.pdist(x)
        assert 0.7 < float(ratio.min()) < float(ratio.mean()) < float(ratio.max()) < 1.3
        assert float(ratio.mean()) == pytest.approx(1, abs=0.05)
        assert torch.equal(space, projection(kind, 1536, 512, 1000))


def reservoir(rows: Tensor, k: int, batch: int = 7) -> Reservoir:
    found = Reservoir(k, rows.shape[1])
    for part in rows.split(batch):
        found.add(found.with_keys(part))
    return found


def test_every_row_is_as_likely_to_be_kept():
    torch.manual_seed(0)
    rows, count = torch.arange(40.0)[:, None], torch.zeros(40)
    for _ in range(400):
        kept = reservoir(rows, 10).finish()[:, 0].long()
        assert len(kept.unique()) == 10
        count[kept] += 1
    # 400 draws with probability 1/4: 100 ± 8.7; the largest of 40 deviations is below 4 of these.
    assert float((count - 100).abs().max()) < 4 * math.sqrt(400 * 0.25 * 0.75)
    assert float(count[:20].sum()) == pytest.approx(2000, abs=4 * math.sqrt(40 * 400 * 0.25 * 0.75) / 2)


def test_a_reservoir_keeps_all_of_a_few_and_ignores_their_order():
    torch.manual_seed(0)
    assert sorted(reservoir(torch.arange(6.0)[:, None], 10).finish()[:, 0].tolist()) == list(range(6))
    keyed = torch.cat([torch.randn(50, 3), torch.rand(50, 1)], 1)
    one, other = Reservoir(8, 3), Reservoir(8, 3)
    one.add(keyed)
    for part in keyed.flip(0).split(3):
        other.add(part)
    assert sorted(one.finish().tolist()) == sorted(other.finish().tolist())


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_scikit_learns_whatever_the_block(k):
    queries, bank = clustered(300, 24, 1), clustered(500, 24, 2)
    distance, index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.double().numpy()).kneighbors(queries.double())
    for block in ((1024, 2048), (7, 11), (1, 500), (300, 1)):
        found = nearest(queries, bank, k, block=block)
        np.testing.assert_array_equal(found.entry.numpy(), index)
        np.testing.assert_allclose(found.distance.numpy(), distance, rtol=1e-6)


def test_neighbours_in_half_precision_are_those_of_single_precision():
    queries, bank = clustered(50, 24, 1), clustered(80, 24, 2)
    exact = nearest(queries, bank, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = nearest(queries, bank, 3)
        _, left = k_centre(bank, 10)
    assert torch.equal(found.distance, exact.distance)
    assert torch.equal(found.entry, exact.entry)
    assert torch.equal(left, k_centre(bank, 10)[1])
    assert nearest(queries.bfloat16(), bank.bfloat16()).distance.dtype == torch.float32
    assert nearest(queries.double(), bank.double()).distance.dtype == torch.float64


def test_a_row_of_the_bank_is_at_no_distance():
    """Far from the origin the three squares cancel to noise; the difference does not."""
    bank = clustered(200, 64) + 1000
    found = nearest(bank, bank)
    assert not found.distance.any()
    assert found.entry[:, 0].tolist() == list(range(200))


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_far_from_zero_are_the_nearest(k):
    queries, bank = clustered(200, 24, 1) + 1000, clustered(500, 24, 2) + 1000
    exact = torch.cdist(queries.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist")
    wanted = exact.topk(k, largest=False)
    found = nearest(queries, bank, k)
    assert torch.equal(found.entry, wanted.indices)
    torch.testing.assert_close(found.distance.double(), wanted.values, rtol=1e-5, atol=0)


TOGETHER = """
import sys, torch
from healmap.methods.processes import from_all_processes
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
own = torch.full((3 - 2 * rank, 2), float(rank))
assert from_all_processes(own).tolist() == [[0.0, 0.0]] * 3 + [[1.0, 1.0]], rank
assert from_all_processes(own[: 1 - rank]).tolist() == [[0.0, 0.0]], rank
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_see_the_rows_of_all(tmp_path):
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TOGETHER]
    both = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], env=environment) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=120) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
