"""A dense network as ONNX, for a crop of fixed size."""

import io
import logging
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from wavespark.errors import CheckpointError, DependencyError
from wavespark.files import write_file, writing


def write_onnx(path: Path, network: nn.Module, example_BCDHW: Tensor, outputs: list[str]) -> None:
    """Write the network as one `.onnx` file with the input `crop`.

    Args:
        path: file to write.
        network: in evaluation mode; crop -> tensor or tuple of tensors.
        example_BCDHW: a crop of the size that the file is for.
        outputs: names of the outputs.

    Raises:
        DependencyError: if torch's exporter lacks a package.
        CheckpointError: if the network cannot be exported.
        StoreError: if the disk is full or cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise DependencyError(package, "onnx", "the export to ONNX")
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    content = io.BytesIO()
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            torch.no_grad(),
        ):  # the exporter prints its progress
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (example_BCDHW,), input_names=["crop"], output_names=outputs, dynamo=True, verbose=False
            )
            if program is None:
                raise CheckpointError("torch made no ONNX program of this network")
            import onnx

            onnx.save_model(program.model_proto, content)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"torch {torch.__version__} cannot export this network to ONNX ({type(error).__name__})"
        ) from None
    finally:
        loud.setLevel(level)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content.getvalue())
