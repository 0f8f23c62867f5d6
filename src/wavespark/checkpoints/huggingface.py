"""An export that Hugging Face's `AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` reads from a local folder; `ws.load_encoder` reads it, too."""

import json
from pathlib import Path

from safetensors.torch import save

from wavespark.checkpoints.export import CARD, CONFIG, WEIGHTS, Export, card
from wavespark.checkpoints.format import MANIFEST, manifest
from wavespark.errors import CheckpointError
from wavespark.files import write_folder, writing

CODE = "modeling_wavespark.py"
_NAMES = {WEIGHTS, CONFIG, CARD, CODE, MANIFEST}

MODELING = '''"""A wavespark encoder as a model of `transformers`."""

from transformers import PretrainedConfig, PreTrainedModel
from wavespark.models import from_description


class WavesparkConfig(PretrainedConfig):
    model_type = "wavespark"

    def __init__(self, model=None, stems=None, preparation=None, **others):
        self.model = model or {}
        self.stems = stems or {}
        self.preparation = preparation or {}
        super().__init__(**others)


class WavesparkModel(PreTrainedModel):
    config_class = WavesparkConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.encoder = from_description({**config.model, "stems": config.stems})
        self.encoder.preparation = dict(config.preparation)
        self.post_init()

    def forward(self, pixel_values, modality=None):
        """pixel_values: float32 [B, C, D, H, W], prepared by the recipe in `config.preparation`. Returns [B, C, d, h, w] of every level, finest first."""
        return tuple(self.encoder(pixel_values, modality=modality))
'''


def write_huggingface(folder: Path, export: Export) -> None:
    """Publishes the folder; an earlier one is replaced.

    Raises:
        CheckpointError: if the folder holds anything else: it is never deleted.
        StoreError: if the disk is full or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= _NAMES):
        raise CheckpointError(
            f"{folder} is there and is no such export, so it is not replaced: give a folder that is not there yet"
        )
    module = CODE.removesuffix(".py")
    config = {
        **export.config,
        "model_type": "wavespark",
        "architectures": ["WavesparkModel"],
        "auto_map": {"AutoConfig": f"{module}.WavesparkConfig", "AutoModel": f"{module}.WavesparkModel"},
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in export.weights.items()}
    files = {
        WEIGHTS: save(tensors, metadata={"format": "pt"}),
        CONFIG: json.dumps(config, indent=2).encode(),
        CARD: card(export.config).encode(),
        CODE: MODELING.encode(),
    }
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, files | {MANIFEST: manifest(files)})
