"""Every threshold that decides how a convolution on visible cells is computed, in one place, with the measurement that set it.

None of them changes a value: all forms are exact. Measured on two cores of an AVX2 processor and on an H200 (docs/LEDGER.md, "visible cells").
Tests replace `TUNING` to reach every branch with small tensors.
"""

from dataclasses import dataclass

PROCESSOR = frozenset({"cpu"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Thresholds of the forms."""

    chunk_bytes: int = 4 * 2**20
    """Bytes of halo at a time on a processor: about its second-level cache. Twice as much was 5-10 % slower, a quarter 20 %."""
    chunk_bytes_accelerator: int = 2**29
    """Bytes of halo at a time on an accelerator: one chunk in most steps."""
    dense_chunks: int = 4
    """Multiplier of `chunk_bytes` for ordinary (groups = 1) convolutions, which need more cells at a time than depthwise ones."""
    least_run: int = 8
    """Tokens along the last axis from which whole lines are gathered at once on an accelerator (bench sparse, 32 channels)."""
    least_tokens: int = 2**18
    """Tokens of all halos from which whole lines are gathered at once: below, three launches cost more than one."""
    token_by_token: frozenset[str] = PROCESSOR
    """Devices where gathering token by token beats gathering whole lines."""
    by_parity: frozenset[str] = PROCESSOR
    """Devices where the feature gradient of kernel 3, stride 2 is cheaper as eight small convolutions than as one transposed one."""
    halo_channels: int = 32
    """Largest number of channels for which a halo beats faces, where the swapped weight gradient below is fast."""
    halo_edge: int = 8
    """Smallest cell edge (tokens) for that: there the halo adds at most about one time the tokens of the cell."""
    swapped_instructions: str = "AVX2"
    """Instruction set for which the swapped weight gradient was measured faster; others were not tried."""
    swapped_edge: int = 16
    """Largest cell edge (tokens) for which it was: 2-3 times as fast at 4 tokens, 1.3 times at 8, 1.1 times at 16."""
    swapped_channels: int = 16
    """Fewest channels for which it was."""
    padded_edge: int = 8
    """Largest kernel edge (tokens) for which the padding of a convolution is cheaper than zeros that are written first."""
    lanes: int = 8
    """Numbers in an AVX2 register: cells are padded up to a multiple of it."""
    largest_fill: float = 1.5
    """Largest factor by which that padding may enlarge the cells."""
    kernel_bytes: int = 2 * 2**20
    """Bytes of upstream gradient in one swapped convolution: a few times the second-level cache."""
    norm_bytes: int = 2**20
    """Bytes of features at a time in instance norm on a processor."""
    norm_in_pieces: frozenset[str] = PROCESSOR
    """Devices where instance norm goes piece by piece; others use torch's fused kernel."""


TUNING = Tuning()
