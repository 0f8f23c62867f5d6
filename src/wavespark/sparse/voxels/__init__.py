"""Sparse voxels at general sites: the oracle that `cells` is tested against, and the form that
other libraries speak."""
