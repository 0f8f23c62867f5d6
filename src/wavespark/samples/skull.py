"""Everything around the brain: scalp, skull vault and base, face, eyes, air spaces. Coordinates are MNI152-like, mm."""

import numpy as np

from wavespark.samples.canvas import Canvas, common, union
from wavespark.samples.fields import Array, SmoothField


def cavity(canvas: Canvas) -> Array:
    """Distance to the inside of the skull: three fossae, the vault and the spinal canal, less the ridges that stand in it."""
    x, y, z = np.abs(canvas.x), canvas.y, canvas.z
    floor = -24 + 9 * np.exp(-(((x - 30) / 13) ** 2)) - np.float32(0.15) * np.maximum(-y, 0)  # lower over the nose than over the eyes
    vault = common(canvas.ellipsoid((0, -17, 14), (69, 88, 65)), floor - z, 8)
    temporal = canvas.ellipsoid((38, -8, -25), (27, 41, 24), both=True)
    posterior = canvas.ellipsoid((0, -63, -33), (54, 40, 33))
    canal = canvas.capsule((0, -36, -55), (0, -46, -170), 14, 9)
    inside = union(union(union(vault, temporal, 6), posterior, 6), canal, 7)
    for a, b, ra, rb in (
        ((15, -14, -38), (54, -34, -42), 4.5, 11),  # petrous ridges
        ((9, 2, -26), (46, 20, -24), 2.2, 2.5),  # lesser sphenoid wings
        ((9, 3, -25), (10, -3, -23), 2.2, 1.2),  # anterior clinoids
        ((0, -13, -36), (8, -13, -26), 3.0, 1.6),  # dorsum sellae
        ((0, -12, -36), (0, -27, -64), 6.5, 5),  # clivus
        ((0, 62, -20), (0, 50, -13), 2.0, 1.0),  # crista galli
    ):
        for sign in (1, -1):
            p, q = np.array(a) * (sign, 1, 1), np.array(b) * (sign, 1, 1)
            box = canvas.box((p + q) / 2, float(np.linalg.norm(q - p) / 2 + ra + rb))
            if box is not None:
                inside[box] = common(inside[box], -canvas.capsule(p, q, ra, rb, box), 2)
    return inside


def paint_skull(canvas: Canvas, p: dict[str, float], inside: Array, *, thickness: float, rough: SmoothField, cells: SmoothField) -> None:
    """Paints scalp, face and skull around the cavity `inside`."""
    lumps = rough.on_grid(canvas.axes)
    head = union(canvas.ellipsoid((0, -17, 12), (81, 101, 82)), canvas.ellipsoid((0, 22, -52), (65, 68, 78)), 18)
    head = union(head, canvas.capsule((0, -42, -50), (0, -52, -190), 60, 56), 25)
    for centre, radii, both in (((0, 92, -44), (11, 14, 17), False), ((79, -24, -34), (6, 14, 25), True)):  # nose, ears
        for sign in (1, -1) if both else (1,):
            box = canvas.box(np.array(centre) * (sign, 1, 1), 45)
            if box is not None:
                head[box] = union(head[box], canvas.ellipsoid(np.array(centre) * (sign, 1, 1), radii, box), 8)
    within = canvas.inside(head + 2)
    canvas.values[:] = p["air"]
    canvas.paint(p["skin"], canvas.inside(head))
    canvas.paint(p["fat"], canvas.inside(head + 2.2))
    _muscles(canvas, p, within)
    _vault(canvas, p, inside, thickness, lumps)
    _face(canvas, p, within)
    _air(canvas, p, within, canvas.inside(2 - inside), cells)
    _eyes(canvas, p, within)


def _vault(canvas: Canvas, p: dict[str, float], inside: Array, thickness: float, lumps: Array) -> None:
    upper = np.clip((canvas.z + 25) / 20, 0, 1)
    behind = np.clip((-60 - canvas.y) / 40, 0, 1)
    wall = thickness * (0.75 + 0.25 * upper + 0.35 * behind) + lumps * np.float32(0.9)
    wall *= 1 - np.float32(0.45) * np.exp(-(((np.abs(canvas.x) - 66) / 9) ** 2 + ((canvas.y - 5) / 25) ** 2 + ((canvas.z + 12) / 22) ** 2))
    neck = np.clip((canvas.z + 74) / 6, 0, 1)  # no wall around the spinal canal below the foramen magnum
    canvas.paint(p["bone"], canvas.inside(inside - wall) * neck)
    spongy = np.abs(inside - wall * np.float32(0.52)) - (wall * np.float32(0.5) - np.float32(1.7))
    canvas.paint(p["diploe"], canvas.inside(spongy) * upper * np.float32(0.9))


def _muscles(canvas: Canvas, p: dict[str, float], within: Array) -> None:
    m = p["muscle"]
    for centre, radii in (
        ((67, 8, -18), (8, 30, 32)),  # temporalis
        ((57, 14, -78), (9, 19, 26)),  # masseter
        ((36, 2, -66), (12, 14, 16)),  # pterygoids
        ((24, -86, -80), (24, 20, 34)),  # neck
        ((52, -48, -95), (13, 20, 34)),  # sternocleidomastoid
        ((14, -18, -82), (13, 8, 30)),  # longus
        ((24, -66, -100), (24, 18, 40)),
    ):
        canvas.blob(m, centre, radii, both=True, clip=within)
    canvas.blob(m, (0, 36, -104), (26, 32, 18), clip=within)  # tongue
    canvas.blob(p["mucosa"], (0, 6, -76), (17, 14, 22), clip=within)  # pharynx


def _face(canvas: Canvas, p: dict[str, float], within: Array) -> None:
    bone, spongy = p["bone"], p["diploe"]
    canvas.blob(bone, (0, 8, -40), (21, 20, 14))  # sphenoid body
    canvas.rod(bone, ((0, -12, -36), (0, -27, -64)), (8, 6))  # clivus
    canvas.rod(spongy, ((0, -13, -39), (0, -26, -61)), (4.5, 3))
    canvas.rod(bone, ((15, -14, -40), (54, -36, -44)), (6, 13), both=True)  # petrous pyramids
    canvas.rod(bone, ((57, -44, -48), (56, -40, -66)), (12, 8), both=True)  # mastoids
    canvas.rod(bone, ((9, 3, -25), (46, 21, -25), (60, 26, -22)), (3, 3.2, 3), both=True)  # sphenoid wings
    canvas.rod(bone, ((24, 16, -42), (22, 14, -66)), (4, 2), both=True)  # pterygoid plates
    canvas.rod(bone, ((50, 52, -34), (52, 48, -50), (66, 24, -50), (71, -6, -46)), (4, 6, 2.8, 3), both=True)  # zygoma and arch
    canvas.rod(bone, ((14, 78, -16), (30, 80, -12), (48, 66, -16), (51, 53, -34)), (4, 4, 4, 4), both=True)  # upper rim of the orbit
    canvas.blob(bone, (30, 50, -63), (19, 21, 20), both=True, clip=within)  # maxilla
    canvas.rod(bone, ((6, 78, -20), (7, 82, -34)), (3.5, 2.5), both=True)  # nasal bones
    canvas.blob(bone, (0, 50, -86), (28, 27, 5), clip=within)  # palate
    canvas.rod(bone, ((62, -8, -52), (56, -2, -82), (50, 14, -112), (20, 66, -118), (0, 74, -119)), (4.5, 4.5, 5, 6, 6), both=True)  # mandible
    for z, radius in ((-78, 14), (-96, 12)):  # atlas and axis
        angles = np.linspace(-0.75 * np.pi, 0.75 * np.pi, 12)
        ring = np.stack([np.cos(angles) * (radius + 2), -43 + np.sin(angles) * radius, np.full(12, z)], axis=-1)
        canvas.rod(bone, ring[[3, 4, 5, 6, 7, 8]], 3.5)
        canvas.rod(bone, ((0, -29, z), (13, -33, z), (15, -43, z), (9, -55, z), (0, -60, z)), (4, 6, 4, 3, 3.5), both=True)
    canvas.rod(bone, ((0, -29, -100), (0, -30, -76)), (7, 4.5))  # dens
    for centre, radius in (((22, -6, -46), 3), ((27, -12, -48), 1.5), ((26, -34, -56), 4.5)):  # foramen ovale, spinosum, jugular
        canvas.rod(p["mucosa"], (centre, np.array(centre) - (0, 0, 14)), radius, both=True)


def _air(canvas: Canvas, p: dict[str, float], within: Array, beyond: Array, cells: SmoothField) -> None:
    """Sinuses with walls of thin bone: air where the field `cells` is away from 0, so that its level set makes the septa."""
    air, bone = p["air"], p["bone"]
    septa = np.clip(np.abs(cells.on_grid(canvas.axes)) * 4, 0, 1) * within * beyond
    canvas.rod(bone, ((0, 62, -36), (0, 28, -38)), (14, 14), clip=within * beyond)
    for centre, radii in (((9, 12, -41), (9, 12, 9)), ((7, 66, -34), (5, 7, 11)), ((7, 50, -34), (6.5, 8, 10)), ((7, 34, -35), (6.5, 8, 9)),
                          ((55, -44, -50), (9, 9, 13)), ((42, -32, -44), (8, 5, 4)), ((12, 79, -10), (10, 3.5, 9))):  # fmt: skip
        canvas.blob(air, centre, radii, both=True, clip=septa)
    whole = within * beyond
    canvas.blob(air, (30, 48, -63), (14, 16, 15), both=True, clip=whole)
    canvas.rod(air, ((62, -18, -42), (84, -20, -38)), (2.6, 3.5), both=True)  # ear canals
    canvas.blob(air, (0, 52, -64), (13, 30, 17), clip=within)  # nasal cavity
    canvas.blob(bone, (0.6, 52, -64), (0.9, 27, 17), clip=within)  # septum
    for z, r in ((-73, 4.5), (-62, 4.0), (-53, 2.6)):  # turbinates
        canvas.rod(p["mucosa"], ((6.5, 70, z), (6.5, 32, z)), (r, r), both=True, clip=within)
    canvas.rod(air, ((0, 20, -66), (0, 8, -72), (0, 2, -100), (0, 0, -150)), (8, 8, 7, 7), clip=within)


def _eyes(canvas: Canvas, p: dict[str, float], within: Array) -> None:
    canvas.rod(p["bone"], ((16, 22, -25), (31, 62, -31)), (7, 21), both=True, clip=within)
    canvas.rod(p["fat"], ((15, 18, -25), (31, 66, -31)), (4, 20), both=True, clip=within)
    for dx, dz in ((14, 0), (-12, 0), (0, 13), (0, -13)):  # rectus muscles
        canvas.rod(p["muscle"], ((16, 20, -25), (32 + dx * 0.8, 50, -31 + dz * 0.8), (32 + dx * 0.85, 66, -31 + dz * 0.85)), (1.5, 2.6, 1.5), both=True)
    canvas.rod(p["stem"], ((8, 6, -22), (14, 18, -25), (27, 44, -29), (31, 56, -31)), (2, 2, 2.3, 2.3), both=True)  # optic nerves
    canvas.blob(p["skin"], (32, 67, -31), (13.2, 13.2, 13.2), both=True)
    canvas.blob(p["eye"], (32, 67, -31), (11.8, 11.8, 11.8), both=True)
    canvas.blob(p["lens"], (32.5, 75.5, -31), (4.6, 2.2, 4.6), both=True)
