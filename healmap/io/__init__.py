"""Files in and out: images with their geometry, atomic writes, fingerprints. See ``docs/files.md``."""

from __future__ import annotations

from .atomic import remove_stale, replacing, safe_cell, write_bytes, write_json, write_text
from .find import find_images
from .hashing import pixel_hash, sha256_file
from .image import Geometry, Image, get_plane, n_slices, plane_spacing, put_plane
from .limits import Limits
from .read import kind_of, read_image, read_series
from .write import write_map, write_png

__all__ = [
    "Geometry",
    "Image",
    "Limits",
    "find_images",
    "get_plane",
    "kind_of",
    "n_slices",
    "pixel_hash",
    "plane_spacing",
    "put_plane",
    "read_image",
    "read_series",
    "remove_stale",
    "replacing",
    "safe_cell",
    "sha256_file",
    "write_bytes",
    "write_json",
    "write_map",
    "write_png",
    "write_text",
]
