"""The seed's sparse encoder: the same numbers on visible cells and on general sites; nothing appears where nothing is."""

import pytest
import torch

from laws.tiny import crop_of, ragged
from wavespark.errors import ModelError
from wavespark.models import SparKEncoder, create_model
from wavespark.sparse import SparseVoxels, VisibleCells


def drawn(*settings):
    encoder = SparKEncoder(*settings).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return encoder


@pytest.mark.parametrize("channels", [(6,), (6, 4), (6, 5, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_visible_cells_and_sparse_voxels_give_the_same(channels, training):
    encoder, visible = drawn(3, channels).train(training), ragged(2, 3, 2)
    cells = VisibleCells.from_dense(crop_of(8, 12, 8, channels=3), visible, cell=4)
    for a, b in zip(encoder(cells), encoder(cells.to_sparse()), strict=True):
        assert isinstance(b, SparseVoxels)
        assert (a.to_sparse().to_dense() - b.to_dense()).abs().max() < 1e-10


def test_general_sites_keep_their_sites_at_the_finest_scale_and_their_parents_below():
    sites = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 4, 4, 4], [1, 7, 0, 3]], dtype=torch.int32)
    x = SparseVoxels(torch.randn(4, 256), sites, batch_size=2)
    fine, coarse = SparKEncoder(256, (128, 64))(x)
    assert torch.equal(fine.sites, sites)
    assert (fine.channels, coarse.channels, coarse.stride) == (256, 64, 2)
    assert coarse.sites.tolist() == [[0, 0, 0, 0], [0, 4, 4, 4], [1, 6, 0, 2]]


def test_every_weight_learns():
    encoder = drawn(3, (6, 5, 4))
    levels = encoder(VisibleCells.from_dense(crop_of(8, 8, 8, channels=3), ragged(2, 2, 2), cell=4))
    sum(level.features.pow(3).sum() for level in levels).backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None or (p.grad == 0).all()] == []


def test_it_runs_on_the_features_of_a_waveformer():
    encoder = create_model("waveformer_tiny", in_channels=1).eval()
    with torch.no_grad():
        level = encoder(torch.randn(2, 1, 16, 16, 16), ragged(2, 2, 2))[1]
        fine, coarse = SparKEncoder(64, (32, 16)).eval()(level)
    assert (fine.channels, fine.block, coarse.channels, coarse.block) == (64, (2, 2, 2), 16, (1, 1, 1))


def test_no_channel_is_refused():
    for channels in ((), (0,)):
        with pytest.raises(ModelError, match="at least 1"):
            SparKEncoder(3, channels)
