"""Engines that compute convolutions of sparse voxels: ours in torch, and two libraries behind the
same contract."""
