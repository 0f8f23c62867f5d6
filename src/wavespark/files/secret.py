"""The secret of a store: the key with which ids are made from paths and UIDs (HMAC).

It never leaves `private`.
"""

from pathlib import Path

from wavespark.errors import StoreError

SECRET = Path("private") / "secret"


def read_secret(store: Path, way_out: str = "restore it, or prepare into a new folder") -> bytes:
    """Reads the key of a store's ids.

    Args:
        store: the store's folder.
        way_out: what to do without the key; the end of the error's sentence.

    Raises:
        StoreError: if it cannot be read.
    """
    key = store / SECRET
    try:
        return bytes.fromhex(key.read_text())
    except (OSError, ValueError):
        raise StoreError(f"{key} cannot be read, and ids cannot be made from paths without it: {way_out}") from None
