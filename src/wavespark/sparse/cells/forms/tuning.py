"""Every threshold that decides how a convolution on visible cells is computed, in one place, with
the measurement that set it.

None of them changes a value: all forms are exact. They were measured on processors with AVX2 and on
an H200; the entries of docs/LEDGER.md say how. Tests replace `TUNING` to reach every branch with
small tensors.
"""

from dataclasses import dataclass

PROCESSOR = frozenset({"cpu"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Thresholds of the forms."""

    chunk_bytes: int = 4 * 2**20
    """Bytes of halo at a time on a processor: about its second-level cache.

    One gather of all halos takes 1.5 times as long (LEDGER, 2026-11).
    """
    chunk_bytes_accelerator: int = 2**29
    """Bytes of halo at a time on an accelerator: large enough to be one chunk in most steps."""
    dense_chunks: int = 4
    """Multiplier of `chunk_bytes` for ordinary (groups = 1) convolutions, which need more cells at
    a time than depthwise ones."""
    least_run: int = 8
    """Tokens along the last axis from which whole lines are gathered at once on an accelerator.

    There a gather costs as much for a row of 32 channels as for one of 1,000: lines took 0.33
    instead of 1.35 ms (H200, 32^3 tokens; LEDGER, 2026-11).
    """
    least_tokens: int = 2**18
    """Tokens of all halos from which whole lines are gathered at once: below, three launches cost
    more than one."""
    token_by_token: frozenset[str] = PROCESSOR
    """Devices where gathering token by token beats gathering whole lines."""
    by_parity: frozenset[str] = PROCESSOR
    """Devices where the feature gradient of kernel 3, stride 2 is computed as eight small
    convolutions; on others, where launches cost, as one."""
    halo_channels: int = 32
    """Largest number of channels for which a halo beats faces, where the swapped weight gradient
    below is fast."""
    halo_edge: int = 8
    """Smallest cell edge (tokens) for that: there the halo adds at most about one time the tokens
    of the cell."""
    swapped_instructions: str = "AVX2"
    """Instruction set for which the swapped weight gradient was measured faster; others were not
    tried."""
    swapped_edge: int = 16
    """Largest cell edge (tokens) for which it was: 2-3 times as fast at 4 tokens, 1.3 times at 8,
    1.1 times at 16."""
    swapped_channels: int = 16
    """Fewest channels for which it was."""
    padded_edge: int = 8
    """Largest kernel edge (tokens) for which the padding of a convolution is cheaper than zeros
    that are written first."""
    lanes: int = 8
    """Numbers in an AVX2 register: cells are padded up to a multiple of it."""
    largest_fill: float = 1.5
    """Largest factor by which that padding may enlarge the cells."""
    kernel_bytes: int = 2 * 2**20
    """Bytes of upstream gradient in one swapped convolution: a few times the second-level cache."""
    norm_bytes: int = 2**20
    """Bytes of features at a time in instance norm on a processor: 0.06 s in pieces of this size,
    0.21 s at once (26 cells of 16^3 x 32; LEDGER)."""
    norm_in_pieces: frozenset[str] = PROCESSOR
    """Devices where instance norm goes piece by piece; others use torch's fused kernel."""


TUNING = Tuning()
