"""A fine-tuned model as a folder: weights, what they are for, the preparation that the input needs,
a card; checked when it is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from wavespark.checkpoints.export import check_format
from wavespark.checkpoints.format import MANIFEST, manifest, read_checked
from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.classify import Classify
from wavespark.downstream.detect import Detect
from wavespark.downstream.fitting import Task
from wavespark.downstream.heads import encoder_of
from wavespark.downstream.regress import Regress
from wavespark.downstream.segment import Segment
from wavespark.engine.machine.device import choose_device
from wavespark.errors import CheckpointError
from wavespark.files import write_folder, writing
from wavespark.models import describe, from_description
from wavespark.prepare import Recipe

FORMAT = "wavespark task 1"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TaskModel:
    """A fine-tuned network with its task."""

    task: Task
    model: nn.Module
    config: Mapping[str, Any]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the labelled volumes that it was trained on; none where that was not
        recorded."""
        return tuple(map(str, self.config.get("provenance", {}).get("modalities", ())))

    @property
    def recipe(self) -> Recipe:
        """Preparation that its input needs."""
        return Recipe.from_settings(self.config["preparation"]["settings"], "the model's preparation")


def save_model(folder: Path, task: Task, model: nn.Module, provenance: Mapping[str, Any]) -> None:
    """Write the folder in one piece; an earlier model there is replaced.

    Raises:
        StoreError: if the disk is full or cannot be written.
    """
    encoder = encoder_of(model)
    config = {
        "format": FORMAT,
        "task": task.describe(),
        "settings": task.settings.model_dump(mode="json"),
        "encoder": describe(encoder),
        "preparation": dict(encoder.preparation),
        "provenance": dict(provenance),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    files = {
        WEIGHTS: save(tensors, metadata={"format": "pt"}),
        CONFIG: json.dumps(config, indent=2).encode(),
        CARD: _card(config).encode(),
    }
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, files | {MANIFEST: manifest(files)})


def load_model(path: str | Path, device: str = "auto") -> TaskModel:
    """Load the model of a fine-tuning run (or of its folder `model`), in evaluation mode.

    Args:
        path: RUN or RUN/model.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        CheckpointError: if there is none, it is damaged, or a weight does not fit.
        SettingsError: if the device is not there.
    """
    folder, chosen = Path(path), choose_device(device)
    if (folder / "model" / CONFIG).is_file():
        folder = folder / "model"
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} holds no fine-tuned model: give the folder that `wavespark finetune` wrote")
    check_format(folder, FORMAT)
    files = read_checked(folder, (WEIGHTS, CONFIG))
    try:
        config = json.loads(files[CONFIG])
        if config["format"] != FORMAT:
            raise ValueError
        task = make_task(config["task"], FinetuneSettings.model_validate(config["settings"]))
        encoder = from_description(config["encoder"], device="cpu")
        encoder.preparation = dict(config["preparation"])
        weights = load(files[WEIGHTS])
        model = task.build(encoder)
        model.load_state_dict(weights, strict=True)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError):
        raise CheckpointError(
            f"{folder} was not written by this version of wavespark, or its weights do not fit"
        ) from None
    return TaskModel(task=task, model=model.to(chosen).eval(), config=config)


def make_task(description: Mapping[str, Any], settings: FinetuneSettings) -> Task:
    """Build the task that `task.describe()` describes.

    Raises:
        KeyError, TypeError, ValueError: if it is none.
    """
    kind = description["kind"]
    if kind == "segment":
        names = tuple(map(str, description.get("names", ())))
        return Segment(classes=int(description["classes"]), settings=settings, names=names)
    if kind == "detect":
        return Detect(
            settings=settings, sigma_mm=float(description["sigma_mm"]), apart_mm=float(description["apart_mm"])
        )
    if kind == "regress":
        mean, deviation = float(description["mean"]), float(description["deviation"])
        return Regress(name=str(description["name"]), mean=mean, deviation=deviation, settings=settings)
    if kind == "classify":
        names, prior = tuple(map(str, description["names"])), tuple(map(float, description["prior"]))
        if len(names) != len(prior) or not names:
            raise ValueError("one prior a name")
        return Classify(names=names, exclusive=bool(description["exclusive"]), prior=prior, settings=settings)
    raise ValueError(f"no task {kind}")


def _card(config: Mapping[str, Any]) -> str:
    run = config["provenance"]
    return f"""# A wavespark model for: {config["task"]["kind"]}

```python
from wavespark.downstream import load_model
found = load_model("PATH of this folder")
found.task.predict(found.model, volume)          # volume: of a store that was prepared with `found.recipe`
```

or, on files: `wavespark predict PATH SOURCE --output FOLDER`.

- task: {json.dumps(config["task"])}
- trained for {run.get("steps")} steps on {run.get("volumes")} labelled volume(s) of {run.get("patients")} patient(s), {run.get("start")}
- figures on {run.get("test_volumes")} test volume(s), with those of the scratch control: `results.json` of the run

Not for diagnosis. The licences of the data that the encoder and the head were trained on may restrict its use.
"""
