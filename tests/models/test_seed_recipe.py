"""The data flow of the seed's report (SPEC A23), leak-free: shapes from the crop to the loss at its own size."""

import torch

from wavespark.config import load_pretraining
from wavespark.masking.masks import Masks
from wavespark.models import SparK, SparKEncoder
from wavespark.sparse import SparseVoxels


def test_the_recipe_of_the_seed_has_the_shapes_of_its_report():
    settings = load_pretraining("seed-2025-10")
    encoder = settings.encoder({"MR": 1}).eval()
    assert isinstance(encoder.sparse, SparKEncoder)
    masking = settings.masking(encoder.cell)
    masks: Masks = masking.sample(draws=[(0, 1, "a"), (0, 1, "b")])
    crop = torch.randn(settings.data.batch, 1, *settings.data.crop, generator=torch.Generator().manual_seed(0))
    assert tuple(crop.shape) == (2, 1, 128, 128, 128)
    with torch.no_grad():
        assert tuple(encoder(crop, modality="MR")[0].shape) == (2, 256, 8, 8, 8)
        fine, coarse = encoder(crop, masks.visible, modality="MR")
        sites: SparseVoxels = fine.to_sparse()
        assert (tuple(sites.sites.shape), tuple(sites.features.shape), sites.stride) == ((512, 4), (512, 256), 16)
        assert (tuple(coarse.to_sparse().features.shape), coarse.channels) == ((64, 64), 64)
        # Blocks of 4 tokens along each edge: 2 cells of 2 tokens.
        blocks = masks.visible.view(2, 2, 2, 2, 2, 2, 2).float().mean((2, 4, 6))
        assert sorted(blocks.unique().tolist()) == [0, 1]
        shown = masks.visible.repeat_interleave(32, 1).repeat_interleave(32, 2).repeat_interleave(32, 3)[:, None]
        poisoned = encoder(crop.where(shown, torch.nan), masks.visible, modality="MR")
        assert torch.equal(poisoned[0].features, fine.features) and torch.equal(poisoned[1].features, coarse.features)
        model = SparK(encoder, settings.decoder.for_model()).eval()
        prediction = model(crop, masks.visible, masks.hidden, "MR")
    assert tuple(prediction.shape) == (64, 32, 32, 32, 1)
    assert torch.isfinite(prediction).all()


def test_encoder_and_decoder_of_the_recipe_learn_every_weight():
    settings = load_pretraining("seed-2025-10", ["data.crop=[64,64,64]"])
    model = SparK(settings.encoder({"CT": 3, "MR": 1}), settings.decoder.for_model()).train()
    visible = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    visible[:, :, 0] = True
    model(torch.randn(2, 1, 64, 64, 64), visible, ~visible, "MR").square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
