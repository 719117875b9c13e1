"""What Python raises where a file of ours, or one said to be such, is damaged."""

from __future__ import annotations

import zipfile
import zlib

# NotImplementedError is zipfile's word for a kind of compression it does not know, which a flipped byte can claim.
ARCHIVE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)
# The same for JSON, CSV and npz, with values of another type or place than they should be.
DAMAGED = (*ARCHIVE, KeyError, TypeError, AttributeError)
