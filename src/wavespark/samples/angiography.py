"""A vascular tree of the head: a jittered circle of Willis, its distal branches, and the veins.

Coordinates are mm around the basilar tip: x to the right, y to the front, z up. The nodes are
approximations, fitted to nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavespark.randomness import stream

Points = NDArray[np.float64]
Kind = Literal["artery", "vein"]
SIDES = ((-1, "Left"), (1, "Right"))

TIP = np.array([0.0, -14.0, -17.0])
"""The basilar tip in the frame of the rest of the anatomy, which is MNI152-like."""

BASILAR = {"basilar start": (0, -2, -22), "basilar tip": (0, 0, 0)}
PAIRED = {  # on the right; x is mirrored on the left
    "cervical": (26, -8, -78),
    "petrous": (23, -4, -40),
    "cavernous": (12, 4, -24),
    "clinoid": (10, 14, -8),
    "carotid top": (9, 13, 2),
    "A1 end": (1.5, 21, 6),
    "A2 end": (2, 44, 20),
    "M1 end": (22, 12, 4),
    "M2 end": (34, 16, 14),
    "P1 end": (7, 0, 2),
    "P2 end": (20, -12, 6),
    "vertebral": (13, -26, -62),
    "vertebral low": (20, -24, -90),
}
SEGMENTS = (  # name, from, to, radius, bow half-way
    ("cervical carotid", "cervical", "petrous", 2.3, (0, 0, 0)),
    ("petrous carotid", "petrous", "cavernous", 2.2, (0, 0, -2)),
    ("infraclinoid carotid", "cavernous", "clinoid", 2.1, (0, 3, 1)),
    ("supraclinoid carotid", "clinoid", "carotid top", 1.9, (0, -2, 0)),
    ("A1", "carotid top", "A1 end", 1.1, (0, 0, 1)),
    ("A2", "A1 end", "A2 end", 1.0, (0, 3, -4)),
    ("M1", "carotid top", "M1 end", 1.35, (0, 1, 1.5)),
    ("M2", "M1 end", "M2 end", 1.0, (1, -2, 0)),
    ("P1", "basilar tip", "P1 end", 1.1, (0, 2, 0)),
    ("P2", "P1 end", "P2 end", 1.0, (4, 2, -1)),
    ("posterior communicating", "clinoid", "P1 end", 0.6, (1, 0, 1)),
    ("vertebral", "vertebral", "basilar start", 1.4, (2, 2, 0)),
    ("cervical vertebral", "vertebral low", "vertebral", 1.5, (3, 0, 0)),
)
BRANCHES = (  # name, leaves which vessel, at which share, then through, radius, wander
    ("A3", "A2", 1.0, ((2, 46, 38), (2.5, 24, 54), (3, -12, 59), (3, -36, 50)), 0.85, 1.0),
    ("P3", "P2", 1.0, ((21, -34, 12), (13, -62, 18), (9, -80, 22)), 0.8, 1.5),
    ("temporal PCA", "P2", 1.0, ((34, -30, 2), (44, -52, 6)), 0.6, 1.5),
    ("superior cerebellar", "basilar", 0.88, ((9, -4, -4), (20, -20, -3), (14, -42, 6)), 0.7, 1.0),
    ("AICA", "basilar", 0.35, ((15, -8, -24), (36, -32, -27)), 0.5, 1.0),
    ("PICA", "vertebral", 0.25, ((15, -36, -46), (9, -44, -40), (12, -58, -42)), 0.65, 1.0),
    ("ophthalmic", "infraclinoid carotid", 1.0, ((15, 28, -9), (30, 52, -12)), 0.55, 1.0),
)
SCALP = ((70, 2, -22), (72, 8, 12), (60, 34, 50), (35, 40, 80))
SIGMOID = ((0, -87, 8), (28, -78, 3), (49, -48, -4), (49, -34, -18), (38, -26, -34), (26, -22, -44), (28, -18, -80))
SAGITTAL = ((0, 80, 20), (0, 70, 55), (0, 30, 88), (0, -20, 94), (0, -65, 70), (0, -88, 35), (0, -90, 8))
CORTEX_CENTRE, CORTEX_RADII = np.array([0.0, -3.0, 31.0]), np.array([66.0, 85.0, 63.0])


@dataclass(frozen=True, slots=True)
class Vessel:
    """One centre line with its radius."""

    name: str
    """The segment, with its side first if it is paired: `Left M1`."""
    points: Points
    """Centre line `[N, 3]`, mm around the basilar tip."""
    radii: Points
    """Radius along it `[N]`, mm."""
    kind: Kind = "artery"

    def at(self, share: float) -> tuple[Points, Points, float]:
        """Point, unit tangent and radius at a share of the way along."""
        i = min(int(share * (len(self.points) - 1) + 0.5), len(self.points) - 2)
        tangent = self.points[i + 1] - self.points[i]
        return self.points[i], tangent / np.linalg.norm(tangent), float(self.radii[i])


@dataclass(frozen=True, slots=True)
class VascularTree:
    """All vessels of one head; `tree["Left M1"]` is one of them."""

    vessels: Sequence[Vessel]

    def __getitem__(self, name: str) -> Vessel:
        return next(v for v in self.vessels if v.name == name)


def vascular_tree(seed: int) -> VascularTree:
    """The tree of a head, determined by its seed.

    >>> bool(vascular_tree(3)["Right M1"].points[-1][0] > 0)
    True
    """
    grower = _Grower(stream(seed, purpose="samples.tree"))
    grower.circle()
    for sign, side in SIDES:
        grower.branches(sign, side)
        grower.convexity(sign, side)
        grower.veins(sign, side)
    grower.midline_veins()
    return VascularTree(tuple(grower.vessels))


@dataclass
class _Grower:
    rng: np.random.Generator
    vessels: list[Vessel] = field(default_factory=list)

    def __getitem__(self, name: str) -> Vessel:
        return VascularTree(self.vessels)[name]

    def circle(self) -> None:
        """The circle of Willis with its usual variants: thin or foetal posterior communicating,
        thin A1, funnels."""
        rng = self.rng
        nodes = {name: np.array(p) + rng.normal(0, 1.2, 3) for name, p in BASILAR.items()}
        for sign, side in SIDES:
            for name, p in PAIRED.items():
                node = np.array(p) * (sign, 1, 1) + rng.normal(0, 1.2, 3)
                if name in {"A1 end", "A2 end"}:  # close to the midline, but on their own side of it
                    node[0] = sign * max(1.2, p[0] + rng.normal(0, 0.4))
                nodes[f"{side} {name}"] = node
        self.line("basilar", (nodes["basilar start"], nodes["basilar tip"]), self.radius(1.6), bow=(0, 1, 0))
        for sign, side in SIDES:
            foetal, thin_p, thin_a, funnel = rng.random(4) < (0.12, 0.4, 0.1, 0.2)
            width = {
                "posterior communicating": 1.7 if foetal else 0.55 if thin_p else 1.0,
                "P1": 0.6 if foetal else 1.0,
                "A1": 0.6 if thin_a else 1.0,
            }
            cone = rng.uniform(1.1, 1.5) if funnel else 0.0
            for name, start, end, mean, bow in SEGMENTS:
                ends = [nodes[n if n in nodes else f"{side} {n}"] for n in (start, end)]
                self.line(
                    f"{side} {name}",
                    ends,
                    self.radius(mean * width.get(name, 1.0)),
                    bow=np.array(bow) * (sign, 1, 1),
                    funnel=cone if name == "posterior communicating" else 0.0,
                )
        across = self["Left A1"].points[-1], self["Right A1"].points[-1]
        self.line("anterior communicating", across, self.radius(0.75), bow=(0, 0.8, 0.5))

    def branches(self, sign: int, side: str) -> None:
        """Vessels with a fixed course: along the midline, round the brain stem, to the eye, in the
        scalp."""
        mirror = (sign, 1, 1)
        for name, parent, share, through, radius, wander in BRANCHES:
            start = self[parent if parent == "basilar" else f"{side} {parent}"].at(share)[0]
            self.line(
                f"{side} {name}", [start, *(np.array(through) * mirror)], self.radius(radius), wander=wander, taper=0.55
            )
        for share in (0.1, 0.35, 0.55, 0.8):
            start, _, _ = self[f"{side} A3"].at(share)
            outward = (start - (0, 0, 25)) * (0, 1, 1)
            goal = (
                start
                + outward / np.linalg.norm(outward) * self.rng.uniform(25, 34)
                + (self.rng.uniform(1, 5) * sign, 0, 0)
            )
            self.line(f"{side} ACA branch", (start, goal), self.radius(0.5), wander=2.0, taper=0.5)
        self.line(
            f"{side} superficial temporal", _at_level(np.array(SCALP) * mirror, 1.17), self.radius(0.7), wander=1.0
        )

    def convexity(self, sign: int, side: str) -> None:
        """The middle cerebral artery's branches, over the insula, out of the Sylvian fissure and
        over the cortex."""
        fork = self[f"{side} M2"].points[-1]
        for name, exit_at, up in (("superior", (54, 10, 24), 1.0), ("inferior", (55, -6, 17), -0.6)):
            over: Points = np.array(exit_at) * (sign, 1, 1) + self.rng.normal(0, 3, 3)
            self.line(f"{side} M3 {name}", [fork, np.array((40.0 * sign, 10, 22)), over], self.radius(0.85), wander=1.5)
            for spread in (36, 5, -25, -56):
                along = np.array((-14 * sign, spread, up * self.rng.uniform(22, 55))) + self.rng.normal(0, 6, 3)
                self.over_cortex(f"{side} M4 {name}", over, over + along, self.radius(0.6), forks=2)

    def veins(self, sign: int, side: str) -> None:
        mirror, rng = (sign, 1, 1), self.rng
        size = 1.25 if sign > 0 else 0.9  # the right transverse sinus is usually the larger one
        self.line(
            f"{side} transverse sinus", np.array(SIGMOID) * mirror, self.radius(3.4 * size), kind="vein", wander=0.7
        )
        internal = np.array(((3, 14, 28), (2, -6, 29), (0, -26, 26))) * mirror
        self.line(f"{side} internal cerebral vein", internal, self.radius(0.9), kind="vein", wander=0.6)
        basal = np.array(((12, 4, 2), (20, -12, 10), (0, -28, 24))) * mirror
        self.line(f"{side} basal vein", basal, self.radius(0.8), kind="vein")
        for y in (50, 25, 0, -25, -52):
            far = (sign * rng.uniform(30, 58), y + rng.uniform(-8, 25), rng.uniform(45, 80))
            start, drain = _at_level([far, (sign * 2, y, 90)], 0.985)
            self.over_cortex(f"{side} bridging vein", start, drain, self.radius(0.9), forks=0, kind="vein", taper=1.6)

    def midline_veins(self) -> None:
        self.line(
            "superior sagittal sinus", _at_level(SAGITTAL, 1.0), self.radius(3.4), kind="vein", wander=0.6, start=0.35
        )
        straight = ((0, -26, 26), (0, -36, 28), (0, -60, 20), (0, -87, 8))
        self.line("straight sinus", straight, self.radius(2.0), kind="vein", wander=0.5)

    def over_cortex(
        self,
        name: str,
        start: Points,
        goal: Points,
        radius: float,
        *,
        forks: int,
        kind: Kind = "artery",
        taper: float = 0.5,
    ) -> None:
        """A vessel that follows the brain's surface, with `forks` side branches."""
        goal = _at_level(goal, self.rng.uniform(0.94, 0.99))
        via = (start, (start + goal) / 2, goal)
        line = self.line(name, via, radius, wander=4.0, taper=taper, kind=kind, on_surface=True)
        for share in self.rng.uniform(0.3, 0.8, forks):
            middle, tangent, own = line.at(share)
            sideways = np.cross(tangent, middle - CORTEX_CENTRE)
            aside = sideways / np.linalg.norm(sideways) * self.rng.choice((-1, 1)) * self.rng.uniform(15, 30)
            goal = middle + aside + tangent * self.rng.uniform(8, 22)
            self.over_cortex(name, middle, goal, 0.75 * own, forks=0, kind=kind)

    def line(
        self,
        name: str,
        through: ArrayLike,
        radius: float,
        *,
        bow: ArrayLike = (0, 0, 0),
        wander: float = 0.0,
        taper: float = 0.9,
        start: float = 1.0,
        funnel: float = 0.0,
        kind: Kind = "artery",
        on_surface: bool = False,
    ) -> Vessel:
        """Adds a curve through the given points, bent by `bow` mm half-way and meandering by
        `wander` mm.

        `start` and `taper` scale the radius at its two ends; `funnel` is the radius of an
        infundibulum at its origin, 4.5 mm long.
        """
        via = np.array(through, dtype=float)
        reach = np.linalg.norm(np.diff(via, axis=0), axis=1).sum()
        t = np.linspace(0, 1, max(4, int(reach / 0.8)))
        bends = [(1, np.array(bow) + self.rng.normal(0, 0.04 * min(reach, 20), 3))]
        bends += [(k, self.rng.normal(0, wander / k, 3)) for k in (2, 3, 4, 5)]
        points = _through(via, t) + sum(np.sin(k * np.pi * t)[:, None] * bend for k, bend in bends)
        if on_surface:
            first, last = _level(points[[0, -1]])
            points = _at_level(points, first + (last - first) * t)
        radii = radius * np.interp(t, (0, 0.3, 1), (start, 1.0, taper))
        radii = np.maximum(radii, funnel - (funnel - radius) * t * reach / 4.5) if funnel else radii
        vessel = Vessel(name, points, radii, kind)
        self.vessels.append(vessel)
        return vessel

    def radius(self, mean: float) -> float:
        return mean * float(np.exp(self.rng.normal(0, 0.12)))


def _through(via: Points, t: Points) -> Points:
    """The cubic Hermite curve through `via` with central-difference slopes, at shares `t` of its
    chord length."""
    chord = np.r_[0, np.cumsum(np.linalg.norm(np.diff(via, axis=0), axis=1))]
    slope = np.gradient(via, chord, axis=0)
    i = np.clip(np.searchsorted(chord, t * chord[-1], side="right") - 1, 0, len(via) - 2)
    span = (chord[i + 1] - chord[i])[:, None]
    s = (t * chord[-1] - chord[i])[:, None] / span
    ends = (1 - s) ** 2 * ((1 + 2 * s) * via[i] + s * span * slope[i])
    return np.asarray(ends + s**2 * ((3 - 2 * s) * via[i + 1] - (1 - s) * span * slope[i + 1]))


def _level(points: ArrayLike) -> Points:
    """1 on the cortical ellipsoid, 0 at its centre."""
    return np.asarray(np.linalg.norm((np.asarray(points) - CORTEX_CENTRE) / CORTEX_RADII, axis=-1))


def _at_level(points: ArrayLike, level: float | Points) -> Points:
    """The same directions from the brain's centre, at the given level."""
    scale = np.asarray(level / _level(points))[..., None]
    return np.asarray(CORTEX_CENTRE + (np.asarray(points) - CORTEX_CENTRE) * scale)
