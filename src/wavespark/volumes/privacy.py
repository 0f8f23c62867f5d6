"""Names that may be shown, and other libraries kept from talking.

Reading never prints or returns tag values, file names, UIDs or another library's exception text:
those can identify a patient (pydicom, for one, quotes the value that it could not parse).
"""

import hashlib
import hmac
import logging
import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from wavespark.errors import InputError, VolumeError

_LIBRARIES = (
    "pydicom",
    "nibabel",
    "nibabel.global",
    "pylibjpeg",
    "openjpeg",
    "rle",
    "nrrd",
    "gdcm",
    "h5py",
    "h5py._conv",
)
_LOGGERS = tuple(logging.getLogger(name) for name in _LIBRARIES)
_SUBJECT = re.compile(rb"(?:^|[/_])(sub-[A-Za-z0-9]+)")
_SESSION = re.compile(rb"(?:^|[/_])(ses-[A-Za-z0-9]+)")


def new_secret() -> bytes:
    """32 random bytes: the key of the ids of one store, or of one process where nothing is kept."""
    return secrets.token_bytes(32)


def source_id(secret: bytes, identity: bytes | str) -> str:
    """The id of a source: HMAC-SHA256, keyed by the secret, of its relative path or
    SeriesInstanceUID; 24 hex digits.

    >>> source_id(b"key", "sub-01/anat/sub-01_T1w.nii.gz") == source_id(b"key", b"sub-01/anat/sub-01_T1w.nii.gz")
    True
    """
    return hmac.new(secret, _as_bytes(identity), hashlib.sha256).hexdigest()[:24]


def patient_id(secret: bytes, identity: bytes | str) -> str:
    """The pseudonym of a patient; never equal to a source's id, whatever they are called."""
    return source_id(secret, b"patient\x00" + _as_bytes(identity))


def session_id(secret: bytes, patient: str, identity: bytes | str) -> str:
    """The pseudonym of a session of a patient (given by the patient's pseudonym)."""
    return source_id(secret, b"session\x00" + _as_bytes(patient) + b"\x00" + _as_bytes(identity))


def bids_session(relative: bytes) -> bytes | None:
    """`ses-XX` where the path has it (Brain Imaging Data Structure)."""
    found = _SESSION.search(relative)
    return found[1] if found else None


def bids_subject(relative: bytes) -> bytes | None:
    """`sub-XX` where the path has it (Brain Imaging Data Structure)."""
    found = _SUBJECT.search(relative)
    return found[1] if found else None


@contextmanager
def unquoted(reason: str, sentence: str) -> Iterator[None]:
    """Silences other libraries inside, and turns whatever they raise into `VolumeError(reason,
    sentence)`.

    The original exception is dropped, not chained: its text may quote the file. Our own errors
    pass.
    """
    before = [logger.disabled for logger in _LOGGERS]
    for logger in _LOGGERS:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException:  # a decoder in Rust panics with one that is no Exception
        raise VolumeError(reason, sentence) from None
    finally:
        for logger, disabled in zip(_LOGGERS, before, strict=True):
            logger.disabled = disabled


def _as_bytes(identity: bytes | str) -> bytes:
    return identity if isinstance(identity, bytes) else identity.encode("utf-8", "surrogateescape")
