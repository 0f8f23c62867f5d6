"""A vascular tree of the head: a jittered circle of Willis, its distal branches, and the veins.

Coordinates are mm around the basilar tip: x to the right, y to the front, z up. The nodes are approximations, not fitted to anybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavespark.randomness import stream

Points = NDArray[np.float64]

TIP = np.array([0.0, -14.0, -17.0])
"""The basilar tip in the frame of the brain's anatomy, which is MNI152-like."""

BASILAR = {"basilar start": (0, -2, -22), "basilar tip": (0, 0, 0)}
PAIRED = {
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
SEGMENTS = (
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
CORTEX_CENTRE, CORTEX_RADII = np.array([0.0, -3.0, 31.0]), np.array([66.0, 85.0, 63.0])


@dataclass(frozen=True, slots=True)
class Vessel:
    """One centre line with its radius."""

    name: str
    """The segment, with its side first if it is paired: `Left M1`."""
    points_N3: Points
    """Centre line, mm around the basilar tip."""
    radii_N: Points
    """Radius along it, mm."""
    kind: Literal["artery", "vein"] = "artery"

    def at(self, share: float) -> tuple[Points, Points, float]:
        """Point, unit tangent and radius at a share of the way along."""
        i = min(int(share * (len(self.points_N3) - 1) + 0.5), len(self.points_N3) - 2)
        tangent = self.points_N3[i + 1] - self.points_N3[i]
        return self.points_N3[i], tangent / np.linalg.norm(tangent), float(self.radii_N[i])


@dataclass(frozen=True, slots=True)
class VascularTree:
    """All vessels of one head; `tree["Left M1"]` is one of them."""

    vessels: tuple[Vessel, ...]

    def __getitem__(self, name: str) -> Vessel:
        return next(v for v in self.vessels if v.name == name)


def vascular_tree(seed: int) -> VascularTree:
    """The tree of a head, determined by its seed.

    >>> vascular_tree(3)["Right M1"].points_N3[-1][0] > 0
    True
    """
    grower = _Grower(stream(seed, purpose="samples.tree"))
    grower.circle()
    for sign, side in ((-1, "Left"), (1, "Right")):
        grower.distal(sign, side)
        grower.veins(sign, side)
    grower.midline_veins()
    return VascularTree(tuple(grower.vessels))


@dataclass
class _Grower:
    rng: np.random.Generator
    vessels: list[Vessel] = field(default_factory=list)

    def circle(self) -> None:
        rng = self.rng
        nodes = {name: np.array(p) + rng.normal(0, 1.2, 3) for name, p in BASILAR.items()}
        for sign, side in ((-1, "Left"), (1, "Right")):
            for name, p in PAIRED.items():
                nodes[f"{side} {name}"] = np.array(p) * (sign, 1, 1) + rng.normal(0, 1.2, 3) * (1, 1, 1)
                if name in {"A1 end", "A2 end"}:
                    nodes[f"{side} {name}"][0] = sign * max(1.2, abs(p[0] + rng.normal(0, 0.4)))
        self.line("basilar", (nodes["basilar start"], nodes["basilar tip"]), self.radius(1.6), bow=(0, 1, 0))
        for sign, side in ((-1, "Left"), (1, "Right")):
            foetal, thin = rng.random() < 0.12, rng.random() < 0.4
            thin_a1 = rng.random() < 0.1
            infundibulum, cone = rng.random() < 0.2, rng.uniform(1.1, 1.5)
            for name, start, end, mean, bow in SEGMENTS:
                radius = self.radius(mean)
                if name == "posterior communicating":
                    radius *= 1.7 if foetal else 0.55 if thin else 1.0
                radius *= 0.6 if (name == "A1" and thin_a1) or (name == "P1" and foetal) else 1.0
                ends = [nodes[n if n in nodes else f"{side} {n}"] for n in (start, end)]
                self.line(f"{side} {name}", ends, radius, bow=np.array(bow) * (sign, 1, 1))
                if name == "posterior communicating" and infundibulum:
                    self.widen_start(cone)
        across = (self["Left A1"].points_N3[-1], self["Right A1"].points_N3[-1])
        self.line("anterior communicating", across, self.radius(0.75), bow=(0, 0.8, 0.5))

    def distal(self, sign: int, side: str) -> None:
        """Branches that leave the circle: along the midline, over the convexity, round the brain stem, in the scalp."""
        mirror, rng = np.array([sign, 1, 1]), self.rng
        fork = self[f"{side} M2"].points_N3[-1]
        for name, exit_at in (("superior", (54, 10, 24)), ("inferior", (55, -6, 17))):
            over = np.array(exit_at) * mirror + rng.normal(0, 3, 3)
            self.line(f"{side} M3 {name}", (fork, (40 * sign, 10, 22), over), self.radius(0.85), wander=1.5)
            up = 1 if name == "superior" else -0.6
            for spread in np.linspace(45, -70, 4):
                goal = over + np.array([-14 * sign, spread * 0.8, up * rng.uniform(22, 55)]) + rng.normal(0, 6, 3)
                self.over_cortex(f"{side} M4 {name}", over, goal, self.radius(0.6), forks=2)
        front = self[f"{side} A2"].points_N3[-1]
        arch = [front, *(np.array(p) * mirror for p in ((2, 46, 38), (2.5, 24, 54), (3, -12, 59), (3, -36, 50)))]
        self.line(f"{side} A3", arch, self.radius(0.85), wander=1.0, taper=0.6)
        for share in (0.1, 0.35, 0.55, 0.8):
            start, _, _ = self[f"{side} A3"].at(share)
            outward = (start - (0, 0, 25)) * (0, 1, 1)
            goal = start + outward / np.linalg.norm(outward) * rng.uniform(25, 34) + (rng.uniform(1, 5) * sign, 0, 0)
            self.line(f"{side} ACA branch", (start, goal), self.radius(0.5), wander=2.0, taper=0.5)
        back = self[f"{side} P2"].points_N3[-1]
        self.line(f"{side} P3", (back, np.array([21, -34, 12]) * mirror, np.array([13, -62, 18]) * mirror, np.array([9, -80, 22]) * mirror),
                  self.radius(0.8), wander=1.5, taper=0.5)  # fmt: skip
        self.line(f"{side} temporal PCA", (back, np.array([34, -30, 2]) * mirror, np.array([44, -52, 6]) * mirror), self.radius(0.6), wander=1.5, taper=0.5)
        tip, _, _ = self["basilar"].at(0.88)
        self.line(f"{side} superior cerebellar", (tip, np.array([9, -4, -4]) * mirror, np.array([20, -20, -3]) * mirror, np.array([14, -42, 6]) * mirror),
                  self.radius(0.7), wander=1.0, taper=0.5)  # fmt: skip
        middle, _, _ = self["basilar"].at(0.35)
        self.line(f"{side} AICA", (middle, np.array([15, -8, -24]) * mirror, np.array([36, -32, -27]) * mirror), self.radius(0.5), wander=1.0, taper=0.6)
        low, _, _ = self[f"{side} vertebral"].at(0.25)
        self.line(f"{side} PICA", (low, np.array([15, -36, -46]) * mirror, np.array([9, -44, -40]) * mirror, np.array([12, -58, -42]) * mirror),
                  self.radius(0.65), wander=1.0, taper=0.6)  # fmt: skip
        clinoid = self[f"{side} infraclinoid carotid"].points_N3[-1]
        self.line(f"{side} ophthalmic", (clinoid, np.array([15, 28, -9]) * mirror, np.array([30, 52, -12]) * mirror), self.radius(0.55), wander=1.0)
        self.line(f"{side} superficial temporal", _at_level([np.array(p) * mirror for p in ((70, 2, -22), (72, 8, 12), (60, 34, 50), (35, 40, 80))], 1.17),
                  self.radius(0.7), wander=1.0, taper=0.5)  # fmt: skip

    def veins(self, sign: int, side: str) -> None:
        mirror, rng = np.array([sign, 1, 1]), self.rng
        size = 1.25 if sign > 0 else 0.9  # the right transverse sinus is usually the larger one
        torcula = np.array([0, -87, 8])
        path = [torcula, *(np.array(p) * mirror for p in ((28, -78, 3), (49, -48, -4), (49, -34, -18), (38, -26, -34), (26, -22, -44), (28, -18, -80)))]
        self.line(f"{side} transverse sinus", path, self.radius(3.4 * size), kind="vein", wander=0.7)
        self.line(f"{side} internal cerebral vein", ((3 * sign, 14, 28), (2 * sign, -6, 29), (0, -26, 26)), self.radius(0.9), kind="vein", wander=0.6)
        self.line(f"{side} basal vein", (np.array([12, 4, 2]) * mirror, np.array([20, -12, 10]) * mirror, (0, -28, 24)), self.radius(0.8), kind="vein")
        for y in (50, 25, 0, -25, -52):
            drain = _at_level([np.array([sign * 2.0, y, 90.0])], 0.99)[0]
            start = _at_level([np.array([sign * rng.uniform(30, 58), y + rng.uniform(-8, 25), rng.uniform(45, 80)])], 0.985)[0]
            self.over_cortex(f"{side} bridging vein", start, drain, self.radius(0.9), forks=0, kind="vein", taper=1.6)

    def midline_veins(self) -> None:
        arch = _at_level([np.array(p, float) for p in ((0, 80, 20), (0, 70, 55), (0, 30, 88), (0, -20, 94), (0, -65, 70), (0, -88, 35), (0, -90, 8))], 1.0)
        self.line("superior sagittal sinus", arch, self.radius(3.4), kind="vein", wander=0.6, start=0.35)
        self.line("straight sinus", ((0, -26, 26), (0, -36, 28), (0, -60, 20), (0, -87, 8)), self.radius(2.0), kind="vein", wander=0.5)

    def over_cortex(self, name: str, start: Points, goal: Points, radius: float, *, forks: int,
                    kind: Literal["artery", "vein"] = "artery", taper: float = 0.5) -> None:  # fmt: skip
        """A vessel that follows the brain's surface, with `forks` side branches."""
        goal = _at_level([goal], self.rng.uniform(0.94, 0.99))[0]
        line = self.line(name, (start, (start + goal) / 2, goal), radius, wander=4.0, taper=taper, kind=kind, level=True)
        for share in self.rng.uniform(0.3, 0.8, forks):
            middle, tangent, own = line.at(share)
            sideways = np.cross(tangent, middle - CORTEX_CENTRE)
            aside = sideways / np.linalg.norm(sideways) * self.rng.choice((-1, 1)) * self.rng.uniform(15, 30)
            self.over_cortex(name, middle, middle + aside + tangent * self.rng.uniform(8, 22), 0.75 * own, forks=0, kind=kind)

    def line(self, name: str, through: Sequence[ArrayLike], radius: float, *, bow: ArrayLike = (0, 0, 0), wander: float = 0.0,
             taper: float = 0.9, start: float = 1.0, kind: Literal["artery", "vein"] = "artery", level: bool = False) -> Vessel:  # fmt: skip
        """A curve through the given points, bent by `bow` mm half-way and meandering by `wander` mm."""
        via = np.array(through, dtype=float)
        count = max(4, int(np.linalg.norm(np.diff(via, axis=0), axis=1).sum() / 0.8))
        t = np.linspace(0, 1, count)
        points = _catmull_rom(via, t)
        length = np.linalg.norm(via[-1] - via[0])
        points += np.sin(np.pi * t)[:, None] * (np.array(bow) + self.rng.normal(0, 0.04 * min(length, 20), 3))
        for harmonic in (2, 3, 4, 5):
            points += np.sin(harmonic * np.pi * t)[:, None] * self.rng.normal(0, wander / harmonic, 3)
        if level:
            depth = _level(points)
            points = _at_level(points, depth[0] + (depth[-1] - depth[0]) * t)
        radii = radius * np.interp(t, (0, 0.3, 1), (start, max(1.0, min(start, 1.0)), taper))
        vessel = Vessel(name, points, radii, kind)
        self.vessels.append(vessel)
        return vessel

    def widen_start(self, cone: float) -> None:
        """Turns the last vessel's origin into an infundibulum: a funnel 3 mm long, no aneurysm."""
        last = self.vessels.pop()
        along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(last.points_N3, axis=0), axis=1))]
        radii = np.maximum(last.radii_N, cone - (cone - last.radii_N) * along / 4.5)
        self.vessels.append(Vessel(last.name, last.points_N3, radii, last.kind))

    def radius(self, mean: float) -> float:
        return mean * float(np.exp(self.rng.normal(0, 0.12)))

    def __getitem__(self, name: str) -> Vessel:
        return next(v for v in self.vessels if v.name == name)


def _catmull_rom(via: Points, t: Points) -> Points:
    """Points of the centripetal-free Catmull-Rom curve through `via`, at shares `t` of its chord length."""
    chord = np.r_[0, np.cumsum(np.linalg.norm(np.diff(via, axis=0), axis=1))]
    u = t * chord[-1]
    i = np.clip(np.searchsorted(chord, u, side="right") - 1, 0, len(via) - 2)
    span = (chord[i + 1] - chord[i])[:, None]
    s = (u - chord[i])[:, None] / span
    slope = np.gradient(via, chord, axis=0) if len(via) > 2 else np.repeat(np.diff(via, axis=0) / chord[-1], 2, axis=0)
    h00, h10, h01, h11 = 2 * s**3 - 3 * s**2 + 1, s**3 - 2 * s**2 + s, 3 * s**2 - 2 * s**3, s**3 - s**2
    return np.asarray(h00 * via[i] + h10 * span * slope[i] + h01 * via[i + 1] + h11 * span * slope[i + 1])


def _level(points: Points) -> Points:
    """1 on the cortical ellipsoid, 0 at its centre."""
    return np.asarray(np.linalg.norm((points - CORTEX_CENTRE) / CORTEX_RADII, axis=-1))


def _at_level(points: ArrayLike, level: float | Points) -> Points:
    """The same directions from the brain's centre, at the given level."""
    points = np.array(points)
    return CORTEX_CENTRE + (points - CORTEX_CENTRE) * (np.asarray(level) / _level(points))[:, None]
