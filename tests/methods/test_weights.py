"""Weights files: exact there and back, and nothing hostile gets past the reader."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from healmap import methods
from healmap.errors import CapabilityError, CheckpointError, WriteError
from healmap.io.atomic import write_json
from healmap.methods import weights
from healmap.methods.base import Method
from healmap.types import Needs


def tiny(name: str = "stargan") -> Method:
    cls = methods.get(name)
    torch.manual_seed(0)
    return cls(*cls.tiny())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return weights.save(tiny(), tmp_path / "best.safetensors", {"step": 7, "format": "not ours to say"})


def change_card(path: Path, **changes: Any) -> None:
    card = json.loads(weights.card_path(path).read_text())
    weights.card_path(path).write_text(json.dumps({**card, **changes}))


def write_weights(path: Path, raw: bytes) -> None:
    """Bytes with a card that vouches for them: the hash is no help against who writes both."""
    path.write_bytes(raw)
    change_card(path, sha256=hashlib.sha256(raw).hexdigest())


def with_header(path: Path, header: dict[str, Any] | bytes, body: bytes = b"") -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    write_weights(path, struct.pack("<Q", len(raw)) + raw + body)


def changed_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import load_file, save

    tensors = load_file(path)
    change(tensors)
    write_weights(path, save(tensors))


def test_there_and_back(path: Path) -> None:
    before = torch.get_rng_state()
    method, card = weights.load(path)
    assert torch.equal(torch.get_rng_state(), before), "reading draws no random number of the caller's"
    assert (card["format"], card["step"], card["method"]) == ("healmap-weights", 7, "stargan")
    assert path.stat().st_mode == weights.card_path(path).stat().st_mode, "whoever may read the card may read the weights"
    assert not method.training
    for a, b in zip(method.state_dict().values(), tiny().state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_kill_between_card_and_weights_leaves_a_pair(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*arguments: Any) -> Path:
        write_json(*arguments)
        raise KeyboardInterrupt

    method = tiny()
    with torch.no_grad():
        next(method.parameters()).add_(1)
    with monkeypatch.context() as patch:
        patch.setattr(weights, "write_json", dies)
        with pytest.raises(KeyboardInterrupt):
            weights.save(method, path, {"step": 8})
    loaded, _ = weights.load(path)
    assert torch.equal(next(loaded.parameters()), next(tiny().parameters()))


def test_averages_take_the_place_of_the_method_s_own(tmp_path: Path) -> None:
    method = tiny()
    name = next(iter(method.state_dict()))
    mean = torch.full_like(method.state_dict()[name], 0.5)
    loaded, _ = weights.load(weights.save(method, tmp_path / "w.safetensors", {}, tensors={name: mean}))
    assert torch.equal(loaded.state_dict()[name], mean)
    assert not torch.equal(method.state_dict()[name], mean)


def test_written_without_a_second_copy(tmp_path: Path) -> None:
    """Statistics may take half of the machine's memory: 200 MB are written without another 200 MB."""
    code = (
        "import resource, sys, torch; from healmap.methods import get, weights; from healmap.types import Spec\n"
        "cls = get('padim'); config, spec = cls.tiny()\n"
        "m = cls(type(config)(backbone=config.backbone, d=54), Spec(height=512, width=512))\n"
        "big = sum(v.nbytes for v in m.state_dict().values()) / 1024\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "weights.save(m, sys.argv[1], {})\n"
        "print(big, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "w.safetensors")]
    held, more = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert held > 200_000
    assert more < held / 4


def test_files_are_those_of_the_package(tmp_path: Path) -> None:
    from safetensors.torch import save

    base = torch.randn(2, 3, 5, 7)
    state = {
        "z.half": base[0].half(), "turned": base.contiguous(memory_format=torch.channels_last), "shared": base[0],
        "Höhe": base, "wide": base.double(), "brain": base.bfloat16(), "one": torch.tensor(7), "a flag": torch.tensor(True),
        "none": torch.zeros(0, 3), "a": base.half(),
        "bytes": torch.arange(5, dtype=torch.uint8), "spread": base.new_ones(1).expand(4, 2),
    }  # fmt: skip
    digest = weights._write(tmp_path / "w", state)
    assert (tmp_path / "w").read_bytes() == save({k: v.clone(memory_format=torch.contiguous_format) for k, v in state.items()})
    assert digest == hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()


def test_a_full_disk_leaves_what_was_there(path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(WriteError) as caught:
            weights.save(tiny(), path, {"step": 8})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(path) in str(caught.value)
    assert sorted(p.name for p in path.parent.iterdir()) == ["best.json", "best.safetensors"]
    assert weights.load(path)[1]["step"] == 7


def test_a_class_outside_the_table_is_told(tmp_path: Path) -> None:
    class Own(Method):
        needs = Needs.HEALTHY

        def phases(self) -> list: ...
        def predict(self, image: torch.Tensor) -> Any: ...
        @classmethod
        def tiny(cls) -> Any: ...

    with pytest.raises(CapabilityError, match="Own is not in the table"):
        weights.save(Own(None, None), tmp_path / "w.safetensors", {})  # type: ignore[arg-type]


def deep(path: Path) -> None:
    weights.card_path(path).write_text('{"a":' * 5000 + "1" + "}" * 5000)


def overlapping(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    with_header(path, {"a": entry, "b": entry}, bytes(16))


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "weights missing": lambda p: p.unlink(),
    "card missing": lambda p: weights.card_path(p).unlink(),
    "card is a folder": lambda p: (weights.card_path(p).unlink(), weights.card_path(p).mkdir()),
    "weights are a link elsewhere": link,
    "weights are a pipe": pipe,
    "one bit flipped": lambda p: p.write_bytes(p.read_bytes()[:-1] + bytes([p.read_bytes()[-1] ^ 1])),
    "cut": lambda p: write_weights(p, p.read_bytes()[:-100]),
    "longer than said": lambda p: write_weights(p, p.read_bytes() + bytes(100)),
    "empty": lambda p: write_weights(p, b""),
    "seven bytes": lambda p: write_weights(p, b"\x08" + bytes(6)),
    "pickle": lambda p: write_weights(p, b"\x80\x04cos\nsystem\n(S'touch canary'\ntR."),
    "header larger than the file": lambda p: write_weights(p, struct.pack("<Q", 2**40) + b"{}"),
    "header of 2^63": lambda p: write_weights(p, struct.pack("<Q", 2**63) + b"{}"),
    "header is no JSON": lambda p: with_header(p, b"nothing"),
    "header 5,000 deep": lambda p: with_header(p, b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "overlapping tensors": overlapping,
    "tensor beyond the end": lambda p: with_header(p, {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    "shape of 2^60": lambda p: with_header(p, {"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}),
    "negative shape": lambda p: with_header(p, {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, bytes(16)),
    "unknown type": lambda p: with_header(p, {"a": {"dtype": "X1", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    "tensor missing": lambda p: changed_tensors(p, lambda t: t.pop(next(iter(t)))),
    "tensor too many": lambda p: changed_tensors(p, lambda t: t.update(extra=torch.ones(1))),
    "wrong shape": lambda p: changed_tensors(p, lambda t: t.update({k: v[None] for k, v in list(t.items())[:1]})),
    "wrong type": lambda p: changed_tensors(p, lambda t: t.update({k: v.double() for k, v in list(t.items())[:1]})),
    "NaN": lambda p: changed_tensors(p, lambda t: next(iter(t.values())).fill_(float("nan"))),
    "infinity": lambda p: changed_tensors(p, lambda t: next(iter(t.values())).fill_(float("inf"))),
    "card 5,000 deep": deep,
    "card is no JSON": lambda p: weights.card_path(p).write_text("step: 7"),
    "card is not UTF-8": lambda p: weights.card_path(p).write_bytes(b"\xff\xfe{}"),
    "card is a list": lambda p: weights.card_path(p).write_text("[]"),
    "card holds NaN": lambda p: weights.card_path(p).write_text('{"format": NaN}'),
    "card of 17 MB": lambda p: weights.card_path(p).write_text(json.dumps({"format": "x" * 17 * 2**20})),
    "another format": lambda p: change_card(p, format="foreign"),
    "a later version": lambda p: change_card(p, version=2),
    "no hash": lambda p: change_card(p, sha256=None),
    "dotted method": lambda p: change_card(p, method="os.system"),
    "method by path": lambda p: change_card(p, method="../../evil"),
    "method is a list": lambda p: change_card(p, method=["stargan"]),
    "unknown setting": lambda p: change_card(p, config={"class_path": "os.system"}),
    "setting of wrong type": lambda p: change_card(p, config={"width": "wide"}),
    "wider than the weights": lambda p: change_card(p, config={"width": 10**7}),
    "deeper than the weights": lambda p: change_card(p, config={"width": 4, "blocks": 10**6}),
    "image of 2^40": lambda p: change_card(p, spec={"height": 2**40, "width": 2**40}),
    "no image": lambda p: change_card(p, spec={"height": 0, "width": 0}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused(path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.chdir(path.parent)
    HOSTILE[what](path)
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)
    assert str(path.parent) in str(caught.value) or "hostname" in str(caught.value), "says where"
    assert not (path.parent / "canary").exists()
    assert time.monotonic() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
