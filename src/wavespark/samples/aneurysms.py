"""An aneurysm at one of the 13 locations of the RSNA 2025 labels: its site and its sac."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wavespark.errors import SettingsError
from wavespark.randomness import stream
from wavespark.rsna_labels import LOCATIONS
from wavespark.samples.angiography import Points, VascularTree

Side = Literal["Left", "Right"]

_ORIGIN = {
    "Infraclinoid Internal Carotid Artery": ("{side} infraclinoid carotid", (0.3, 0.85)),
    "Supraclinoid Internal Carotid Artery": ("{side} supraclinoid carotid", (0.2, 1.0)),
    "Middle Cerebral Artery": ("{side} M1", (0.85, 1.0)),
    "Anterior Communicating Artery": ("anterior communicating", (0.2, 0.8)),
    "Anterior Cerebral Artery": ("{side} A2", (0.3, 1.0)),
    "Posterior Communicating Artery": ("{side} posterior communicating", (0.0, 0.1)),
    "Basilar Tip": ("basilar", (1.0, 1.0)),
    "Other Posterior Circulation": ("{side} {posterior}", (0.1, 0.9)),
}
SITES = tuple(_ORIGIN)
"""The locations without their sides."""

_MIDLINE = ("Anterior Communicating Artery", "Basilar Tip", "Other Posterior Circulation")
_AT_A_FORK = ("Middle Cerebral Artery", "Basilar Tip")


@dataclass(frozen=True, slots=True)
class Aneurysm:
    """An aneurysm to put into a head.

    >>> Aneurysm("Middle Cerebral Artery", "Left", 5.0).location
    'Left Middle Cerebral Artery'

    Raises:
        SettingsError: if the site is unknown, its side is missing or out of place, or the diameter
            is not 2 to 8 mm.
    """

    site: str
    """One of `SITES`."""
    side: Side | None
    """`None` for `Anterior Communicating Artery`, `Basilar Tip` and `Other Posterior
    Circulation`."""
    diameter_mm: float
    """2 to 8 mm."""

    def __post_init__(self) -> None:
        if self.site not in _ORIGIN:
            raise SettingsError(f"no aneurysm site is called {self.site!r}. Use one of: {', '.join(SITES)}")
        if (self.side is None) != (self.site in _MIDLINE) or self.side not in (None, "Left", "Right"):
            need = "None" if self.site in _MIDLINE else "'Left' or 'Right'"
            raise SettingsError(f"the side of an aneurysm at {self.site} must be {need}, got {self.side!r}")
        if not 2.0 <= self.diameter_mm <= 8.0:
            raise SettingsError(f"an aneurysm's diameter must be 2 to 8 mm, got {self.diameter_mm}")

    @property
    def location(self) -> str:
        """The label it turns on, one of `LOCATIONS`."""
        return self.site if self.side is None else f"{self.side} {self.site}"


@dataclass(frozen=True, slots=True)
class Sac:
    """The bulge itself: two overlapping ellipsoids, the second a daughter lobe; mm around the
    basilar tip."""

    centre: Points
    """Centre `[3]`."""
    radii: Points
    """Half axes `[3]`; their mean is half of the diameter."""
    lobe_centre: Points
    """Centre of the daughter lobe `[3]`."""
    lobe_radius: float
    """0 if there is none."""
    brightness: float
    """Share of the artery's contrast: flow in a sac is slower."""


def random_aneurysm(seed: int) -> Aneurysm:
    """The aneurysm that `synthetic_head(seed, aneurysm="random")` shows."""
    rng = stream(seed, purpose="samples.aneurysm")
    location = LOCATIONS[int(rng.integers(len(LOCATIONS)))]
    diameter = float(np.clip(rng.lognormal(np.log(4.2), 0.35), 2.0, 8.0))
    head, _, rest = location.partition(" ")
    if rest in _ORIGIN:
        return Aneurysm(rest, "Left" if head == "Left" else "Right", diameter)
    return Aneurysm(location, None, diameter)


def grow_sac(seed: int, aneurysm: Aneurysm, tree: VascularTree) -> Sac:
    """An aneurysm's sac on a tree.

    It leaves its artery by a neck: along the flow at a fork, sideways elsewhere.
    """
    rng = stream(seed, purpose="samples.sac")
    side = aneurysm.side or rng.choice(("Left", "Right"))
    posterior = rng.choice(("P1", "P2", "PICA", "superior cerebellar", "AICA", "vertebral"))
    name, (low, high) = _ORIGIN[aneurysm.site]
    origin, tangent, own = tree[name.format(side=side, posterior=posterior)].at(rng.uniform(low, high))
    wild = rng.normal(0, 1, 3)
    outwards = 1.0 if side == "Right" else -1.0
    if aneurysm.site == "Anterior Cerebral Artery":
        wild[0] = outwards * (1 + abs(wild[0]))  # keeps it on its side of the midline
    if aneurysm.site == "Posterior Communicating Artery":
        wild = wild * 0.5 + (0.4 * outwards, -1, -0.4)  # they point backwards, outwards and down
    direction = (
        tangent * 1.2 + wild * 0.4 if aneurysm.site in _AT_A_FORK else np.cross(tangent, np.cross(wild, tangent))
    )
    direction /= np.linalg.norm(direction)
    radius = aneurysm.diameter_mm / 2
    radii = radius * np.exp(rng.normal(0, 0.12, 3))
    radii *= radius / radii.mean()
    centre = origin + direction * (0.4 * own + 0.85 * radius)
    aside = direction + rng.normal(0, 0.6, 3)
    lobed, share = rng.random() < 0.35, rng.uniform(0.4, 0.6)
    lobe = centre + aside / np.linalg.norm(aside) * radius * 0.8
    return Sac(centre, radii, lobe, radius * share if lobed else 0.0, rng.uniform(0.92, 1.0))
