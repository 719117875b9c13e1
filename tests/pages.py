"""Pages as a browser reads them, and data whose names try to break them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from fakes import plane
from PIL import Image as Pil

HOSTILE = "<script>alert(1)</script>"
HOSTILE_FILE = "14<b onload=x>.png"


class Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def hostile_data(data: Path) -> None:
    """Six patients in each split, three of them diseased and annotated; the name of a patient and of a file are markup."""
    (data / "masks").mkdir(parents=True)
    rows, number = ["path,label,patient_id,split,mask"], 0
    for split in ("train", "val", "test"):
        for p in range(6):
            number += 1
            sick, mask = p % 2 == 1, ""
            image = plane(number, lesion=(10, 6 + 2 * p, 10) if sick else None)
            if sick:
                mask = f"masks/{number}.png"
                Pil.fromarray(((image == 228) * 255).astype(np.uint8)).save(data / mask)
            name = HOSTILE_FILE if number == 14 else f"{number}.png"
            Pil.fromarray(image).save(data / name)
            patient = HOSTILE if split == "test" and p == 1 else f"{split}{p}"
            rows.append(f'"{name}",{"diseased" if sick else "healthy"},{patient},{split},{mask}')
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
