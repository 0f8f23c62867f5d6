"""All chance comes from here: a generator is made from what it is for, never from a global seed.

Philox is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a
stream depends on its key alone, so a draw is the same whatever was drawn before it, in whichever
worker, and after a restart.
"""

import hashlib

import numpy as np

_U64 = 2**64


def sample_stream(seed: int, draw: int) -> np.random.Generator:
    """The generator of one training sample: `Philox(key=[seed, draw])`.

    Args:
        seed: the run's seed, any whole number (taken modulo 2^64).
        draw: position in the run's endless sequence of samples, from 0.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed % _U64, draw % _U64], dtype=np.uint64)))


def stream(seed: int, *, purpose: str, step: int = 0, rank: int = 0, volume: str = "") -> np.random.Generator:
    """The generator for `purpose` at a step, on a rank, for a volume.

    >>> float(stream(1, purpose="mask", step=3, volume="a").random()) == float(stream(1, purpose="mask", step=3, volume="a").random())
    True
    """
    parts = (str(seed), str(step), str(rank), volume, purpose)
    text = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    key = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
