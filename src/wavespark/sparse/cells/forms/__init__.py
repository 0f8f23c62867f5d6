"""Exact ways to compute one convolution of kernel 3 on visible cells.

All give the same values; they differ in cost.

Read `halo` first: it is the idea, and it runs everywhere. The others are for processors, where a
halo is not the cheapest:

| form | computed by | used when |
|---|---|---|
| `halo` | gather one token around each cell, convolve without padding | always on an accelerator, in half precision, depthwise, under `torch.compile` |
| `whole` | one dense convolution | every cell is visible |
| `columns` | 27 rows gathered for each token, one matrix product | a processor, cells of at most 2 tokens along an edge |
| `faces` | each cell alone, then what visible neighbours add | a processor, larger cells |

`convolution_plan` (in `cells.conv`) chooses. `borders` finds where cells touch, for `faces`.
`gradient` holds gradients of weights.
"""
