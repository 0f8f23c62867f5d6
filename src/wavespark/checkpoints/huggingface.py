"""Exports for Hugging Face's `AutoModel.from_pretrained(FOLDER, trust_remote_code=True)`;
`ws.load_encoder` also reads them."""

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


class WavesparkOutput(tuple):
    """[B, C, d, h, w] of every level, finest first; a tuple with the names that `transformers` gives to outputs."""

    @property
    def hidden_states(self):
        return tuple(self)

    @property
    def last_hidden_state(self):
        """[B, C, d, h, w] of the coarsest level."""
        return self[-1]

    @property
    def pooler_output(self):
        """[B, C]: mean of the coarsest level."""
        return self[-1].mean(dim=(2, 3, 4))

    def __getitem__(self, key):
        return getattr(self, key) if isinstance(key, str) else super().__getitem__(key)

    def keys(self):
        return ("last_hidden_state", "pooler_output", "hidden_states")

    def to_tuple(self):
        return tuple(self)


class WavesparkConfig(PretrainedConfig):
    model_type = "wavespark"

    def __init__(self, model=None, stems=None, preparation=None, modality=None, **others):
        self.model = model or {}
        self.stems = stems or {}
        self.preparation = preparation or {}
        self.modality = modality
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

    def forward(self, pixel_values, modality=None, output_hidden_states=None, return_dict=None):
        """Compute [B, C, d, h, w] of every level, finest first.

        pixel_values: float32 [B, C, D, H, W], prepared by the recipe in `config.preparation`.
        modality: the stem; if None that of the configuration, else the only one with as many channels.
        return_dict: False gives a plain tuple.
        """
        modality = modality or self.config.modality or self._stem_of(pixel_values)
        levels = self.encoder(pixel_values, modality=modality)
        return tuple(levels) if return_dict is False else WavesparkOutput(levels)

    def _stem_of(self, pixel_values):
        stems = self.encoder.stem_channels
        fitting = [name for name, channels in stems.items() if channels == pixel_values.shape[1]]
        if len(stems) > 1 and len(fitting) != 1:
            raise ValueError(f"the stems are {stems} and the input has {pixel_values.shape[1]} channel(s): give modality=")
        return fitting[0] if len(stems) > 1 else None
'''


def write_huggingface(folder: Path, export: Export, modality: str | None = None) -> None:
    """Publish the folder; an earlier one is replaced.

    Args:
        folder: a new folder, or an earlier such export.
        export: the encoder.
        modality: stem of inputs for which none is named.

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
        **({} if modality is None else {"modality": modality}),
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
