"""Visible-only masked pre-training of encoders on unlabelled 3-D head CT and MR.

Importing the package loads neither torch nor a reader: each public name is imported when it is
first used.

Example:
    import wavespark as ws

    ws.prepare("MY_FOLDER", "store")
    ws.pretrain("tiny-cpu", "store", "run")
    encoder = ws.load_encoder("run")
"""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.config import load_pretraining as load_config
    from wavespark.engine import load_encoder, pretrain
    from wavespark.errors import WavesparkError
    from wavespark.models import create_model, list_models
    from wavespark.prepare import open_store, prepare
    from wavespark.sparse import VisibleCells
    from wavespark.volumes import read_volumes

__version__ = "0.1.0"

__all__ = [
    "VisibleCells",
    "WavesparkError",
    "__version__",
    "create_model",
    "list_models",
    "load_config",
    "load_encoder",
    "open_store",
    "prepare",
    "pretrain",
    "read_volumes",
]

__getattr__, __dir__ = lazy_exports(__name__)
