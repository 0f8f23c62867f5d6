"""On a CUDA device: the same numbers as on the processor, nothing leaks, half precision, the compiler, no wait for the device in a step, exact resume.

Skipped by name where there is no such device: `pytest tests/cuda` on a machine that has one.
"""

import pytest
import torch

from engine.small import make_store, small_settings
from laws.kinds import NAMES, encoder_of, sizes_of
from laws.operations import CONVOLUTIONS, OTHERS, C, features
from laws.tiny import crop_of, grid_of, ragged, voxels_of
from oracles.dense_reference import submanifold
from wavespark.checkpoints import checkpoint_folders, read_checkpoint
from wavespark.engine import pretrain
from wavespark.engine.machine.distributed import Ranks
from wavespark.engine.run.building import training_crops
from wavespark.engine.run.components import build_components
from wavespark.errors import TrainingStopped
from wavespark.sampling.dataset import batches
from wavespark.sparse import SubmanifoldConv3d, VisibleCells

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
EXACT = 1e-10


@pytest.fixture(scope="module", autouse=True)
def _repeatable():
    """Sums in a fixed order, which the bit-for-bit laws ask for."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    yield
    torch.use_deterministic_algorithms(False)


def near(found, expected, tolerance=EXACT):
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("cut", [0, 1], ids=["whole cells", "a crop that ends within a cell"])
@pytest.mark.parametrize("block", [2, 8])
@pytest.mark.parametrize("kind", ["cells", "voxels"])
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *OTHERS])
def test_every_operation_gives_the_numbers_of_the_processor_with_all_gradients(name, kind, block, cut):
    torch.manual_seed(0)
    module = (CONVOLUTIONS | OTHERS)[name]()
    crop = crop_of(3 * block, 2 * block, 2 * block - cut, channels=C)
    results = []
    for device in ("cpu", "cuda"):
        cells = VisibleCells.from_dense(crop.to(device), ragged(3, 2, 2), cell=block)
        x = cells if kind == "cells" else cells.to_sparse()
        x = x.with_features(x.features.detach().requires_grad_())
        there = module.to(device).double() if isinstance(module, torch.nn.Module) else module
        y = features(there(x))
        weights = list(there.parameters()) if isinstance(there, torch.nn.Module) else []
        upstream = torch.linspace(-1, 1, y.numel(), dtype=torch.float64, device=device).view(y.shape)
        results.append([y, *torch.autograd.grad(y, [x.features, *weights], upstream)])
    for found, expected in zip(results[1], results[0], strict=True):
        near(found, expected)


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
def test_a_convolution_is_the_dense_one_of_the_device(block):
    crop = crop_of(4 * block, 3 * block, 3 * block - (block > 1), channels=C).cuda()
    visible = ragged(4, 3, 3)
    shown = voxels_of(visible, crop.shape[2:], block)[:, 0].cuda()
    conv = SubmanifoldConv3d(C, 5, bias=False).double().cuda()
    crop = crop.where(shown[:, None], torch.nan).requires_grad_()
    y = conv(VisibleCells.from_dense(crop, visible, cell=block)).to_dense()
    dense = submanifold(crop, shown, conv.weight, None)
    near(y, dense)
    upstream = torch.randn_like(dense)
    for a, b in zip(
        *(torch.autograd.grad(v, [crop, conv.weight], upstream, retain_graph=True) for v in (y, dense)), strict=True
    ):
        near(a, b)


def features_and_gradients(encoder, crop, visible):
    levels = encoder(crop, visible)
    loss = sum(level.features.float().square().mean() for level in levels)
    return [*(level.features for level in levels), *torch.autograd.grad(loss, list(encoder.parameters()))]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_gives_the_numbers_of_the_processor(name):
    crop_size = sizes_of(encoder_of(name))[1]
    visible = ragged(*grid_of(crop_size, encoder_of(name).cell[0]))
    crop = crop_of(*crop_size)
    here = features_and_gradients(encoder_of(name), crop, visible)
    there = features_and_gradients(encoder_of(name).cuda(), crop.cuda(), visible)
    for found, expected in zip(there, here, strict=True):
        near(found, expected, 1e-6)  # the loss is summed in single precision


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_hidden_voxels_change_no_bit_on_the_device(name, half):
    encoder = encoder_of(name, torch.float32).cuda().train()
    size = sizes_of(encoder)[1]
    visible = ragged(*grid_of(size, encoder.cell[0]))
    crop = crop_of(*size, dtype=torch.float32).cuda()
    shown = voxels_of(visible, size, encoder.cell[0]).cuda()
    results = []
    for content in (0.0, torch.nan):
        torch.manual_seed(0)
        fresh = encoder_of(name, torch.float32).cuda().train()
        with torch.autocast("cuda", half or torch.float32, enabled=half is not None):
            results.append(features_and_gradients(fresh, crop.where(shown, content), visible))
    assert all(torch.isfinite(a).all() and torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("cuda"))


def settings_of(*words):
    return small_settings("run.device=cuda", *words)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_never_waits_for_the_device(store, tmp_path, precision):
    settings = settings_of(f"run.precision={precision}")
    (tmp_path / "run").mkdir()
    training = build_components(settings, store, tmp_path / "run", print, Ranks())
    update = training.updater()
    made = [batch_of(training, number) for number in range(3)]
    assert all(batch.voxels.is_pinned() and batch.foreground.is_pinned() for batch in made)
    training.objective.train()
    for number, batch in enumerate(made, 1):
        torch.cuda.set_sync_debug_mode("error" if number > 1 else "default")
        try:
            measured = update(batch, number, 1e-4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert measured.line()["loss"] is not None


def batch_of(training, number):
    dataset = training_crops(training.settings, training.store, training.split)
    return next(batches(dataset, start=number, stop=number + 1, workers=0, pin=True))


@pytest.mark.parametrize("words", [("run.precision=bf16",), ("run.precision=fp16",), ("run.compile=on",)], ids=str)
def test_a_run_goes_on_where_it_was_bit_for_bit(store, tmp_path, words):
    said = []
    settings = settings_of(*words, "run.deterministic=true")
    pretrain(settings, store, tmp_path / "whole", log=said.append)
    assert not any("goes on without" in text for text in said), said
    stops = iter([None, None, None, "a test"])
    with pytest.raises(TrainingStopped):
        pretrain(settings, store, tmp_path / "cut", should_stop=lambda: next(stops, None))
    pretrain(settings, store, tmp_path / "cut")
    first, second = (
        read_checkpoint(checkpoint_folders(tmp_path / f)[0]) for f in ("whole/checkpoints", "cut/checkpoints")
    )
    assert first.step == second.step == settings.run.steps
    for name, tensor in first.model.items():
        assert torch.equal(tensor, second.model[name]), name
