"""The whole pre-training step: encoder, decoder, loss on every hidden cell.

With E and D the times to encode and to decode when every cell is visible, and v the visible share,
the step may cost (target x v x E + D) / (E + D) of the step with everything visible: the encoder
shrinks with v, the decoder need not.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from wavespark.bench.cost import Cost, median_ratio
from wavespark.models import DecoderSettings, Encoder, SparK

DECODERS = ("light", "unet")
DECODE_SHARE = 0.35
"""Largest share of a step at 60 % hidden that the light decoder may take."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WholeStep:
    """A decoder around the encoder."""

    model: SparK
    decoder: str
    masked: tuple[str, ...]
    """Forms with hidden cells."""

    @classmethod
    def of(cls, encoder: Encoder, decoder: str, masked: tuple[str, ...]) -> "WholeStep":
        scales = min(2, len(encoder.channels))
        default = DecoderSettings()
        light = DecoderSettings(
            widths=default.widths[:scales], depths=default.depths[:scales], heads=default.heads[:scales]
        )
        chosen: DecoderSettings | Literal["unet"] = "unet" if decoder == "unet" else light
        return cls(model=SparK(encoder, chosen).train(), decoder=decoder, masked=masked)

    def name(self, form: str, everything: bool) -> str:
        """Name of a form, or of its twin with everything visible that predicts the same cells."""
        predicts = form.removesuffix(" hidden")
        return f"{self.decoder}, everything visible, predicts {predicts}" if everything else f"{self.decoder}, {form}"

    def forms(self, crop_BCDHW: Tensor, visible: Callable[[str, int], Tensor]) -> dict[str, Callable[[int], None]]:
        """For each masked form the step, and the step with everything visible that predicts the
        same cells."""

        def step(form: str, everything: bool, number: int) -> None:
            shown = visible(form, number)
            seen = visible("everything visible", number) if everything else shown
            self.model(crop_BCDHW, seen, ~shown, "any").square().mean().backward()

        return {
            self.name(form, everything): (
                lambda number, form=form, everything=everything: step(form, everything, number)  # type: ignore[misc]
            )
            for form in self.masked
            for everything in (True, False)
        }

    def compare(self, costs: dict[str, list[Cost]], shares: dict[str, float], target: float) -> list[dict[str, Any]]:
        """Each masked form against its bound, by user time."""
        lines = []
        for form in self.masked:
            dense, step = costs[self.name(form, True)], costs[self.name(form, False)]
            encode = costs["everything visible"]
            pairs = list(zip(encode, dense, strict=True))
            part = min(1.0, statistics.median(e.user / d.user for e, d in pairs))  # E / (E + D)
            bound = target * shares[form] * part + 1 - part
            decode = 1 - median_ratio(costs[form], step, "user")
            ratio = median_ratio(step, dense, "user")
            fine = ratio <= bound and (self.decoder != "light" or form != "60 % hidden" or decode <= DECODE_SHARE)
            lines.append(
                {
                    "decoder": self.decoder,
                    "form": form,
                    "visible_share": shares[form],
                    "dense_encode_share": part,
                    "user_ratio": ratio,
                    "bound": bound,
                    "decode_share": decode,
                    "seconds_over_encoder": median_ratio(step, costs[form], "user"),
                    "met": fine,
                }
            )
        return lines
