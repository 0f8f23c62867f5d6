"""Everything around the brain: scalp, skull vault and base, face, eyes, air spaces.

Coordinates are MNI152-like, mm.
"""

from collections.abc import Mapping

import numpy as np

from wavespark.samples.canvas import Canvas
from wavespark.samples.fields import Array, SmoothField
from wavespark.samples.solids import common, ellipsoid, union

Colours = Mapping[str, float]

_RIDGES = (  # bone that stands into the cavity: from, to, radius there
    ((15, -14, -38), (54, -34, -42), 4.5, 11),  # petrous ridges
    ((9, 2, -26), (46, 20, -24), 2.2, 2.5),  # lesser sphenoid wings
    ((9, 3, -25), (10, -3, -23), 2.2, 1.2),  # anterior clinoids
    ((0, -13, -36), (8, -13, -26), 3.0, 1.6),  # dorsum sellae
    ((0, -12, -36), (0, -27, -64), 6.5, 5),  # clivus
    ((0, 62, -20), (0, 50, -13), 2.0, 1.0),  # crista galli
)
_MUSCLES = (
    ((67, 8, -18), (8, 30, 32)),  # temporalis
    ((57, 14, -78), (9, 19, 26)),  # masseter
    ((36, 2, -66), (12, 14, 16)),  # pterygoids
    ((24, -86, -80), (24, 20, 34)),  # neck
    ((52, -48, -95), (13, 20, 34)),  # sternocleidomastoid
    ((14, -18, -82), (13, 8, 30)),  # longus
    ((24, -66, -100), (24, 18, 40)),
)


def cavity(canvas: Canvas) -> Array:
    """Distance to the inside of the skull: vault, three fossae and the spinal canal, less the
    ridges."""
    x, y, z = np.abs(canvas.x), canvas.y, canvas.z
    floor = (
        -24 + 9 * np.exp(-(((x - 30) / 13) ** 2)) + 0.15 * np.minimum(y, 0)
    )  # higher over the eyes than over the nose
    vault = common(canvas.ellipsoid((0, -17, 14), (69, 88, 65)), floor - z, 8)
    inside = union(vault, ellipsoid(x, y, z, (38, -8, -25), (27, 41, 24)), 6)
    inside = union(inside, canvas.ellipsoid((0, -62, -31), (55, 41, 34)), 14)
    inside = union(inside, canvas.capsule((0, -36, -55), (0, -46, -170), 14, 9), 7)
    for a, b, ra, rb in _RIDGES:
        for mirror in (1, -1):
            p, q = np.array(a) * (mirror, 1, 1), np.array(b) * (mirror, 1, 1)
            box = canvas.around(p, q, max(ra, rb) + 2)
            if box is not None:
                inside[box] = common(inside[box], -canvas.capsule(p, q, ra, rb, box), 2)
    return inside


def paint_skull(
    canvas: Canvas, colours: Colours, inside: Array, *, thickness: float, lumps: SmoothField, cells: SmoothField
) -> None:
    """Paints scalp, face and skull around the cavity `inside`.

    Args:
        inside: distance to the cavity, mm.
        thickness: of the vault, mm.
        lumps: makes the vault uneven and parts the muscles by fat.
        cells: its zero level is the walls of the air cells.
    """
    rough = lumps.on_grid(canvas.axes)
    head = _outline(canvas)
    within, outside_brain = canvas.inside(head + 2), canvas.inside(1.5 - inside)
    canvas.values[:] = colours["air"]
    canvas.paint(colours["skin"], canvas.inside(head))
    canvas.paint(colours["fat"], canvas.inside(head + 2.2))
    canvas.paint(colours["muscle"], canvas.inside(head + 9 + 2 * rough) * np.clip(np.abs(rough) * 5 - 0.4, 0, 1))
    for centre, radii in _MUSCLES:
        canvas.blob(colours["muscle"], centre, radii, both=True, clip=within)
    canvas.blob(colours["muscle"], (0, 36, -104), (26, 32, 18), clip=within)  # tongue
    canvas.blob(colours["mucosa"], (0, 6, -76), (17, 14, 22), clip=within)  # pharynx
    _vault(canvas, colours, inside, thickness, rough)
    _base(canvas, colours)
    _face(canvas, colours, within)
    _neck(canvas, colours)
    _air(canvas, colours, within, outside_brain, cells)
    _eyes(canvas, colours, within * outside_brain)


def _outline(canvas: Canvas) -> Array:
    head = union(canvas.ellipsoid((0, -17, 12), (81, 101, 82)), canvas.ellipsoid((0, 22, -52), (65, 68, 78)), 18)
    head = union(head, canvas.capsule((0, -42, -50), (0, -52, -190), 60, 56), 25)
    for centre, radii in (((0, 92, -44), (11, 14, 17)), ((79, -24, -34), (6, 14, 25)), ((-79, -24, -34), (6, 14, 25))):
        box = canvas.box(centre, 45)  # nose and ears
        if box is not None:
            head[box] = union(head[box], canvas.ellipsoid(centre, radii, box), 8)
    return head


def _vault(canvas: Canvas, colours: Colours, inside: Array, thickness: float, rough: Array) -> None:
    """Two tables of dense bone with diploe between them; thin at the temples, thick behind."""
    upper = np.clip((canvas.z + 25) / 20, 0, 1)
    temple = ((np.abs(canvas.x) - 66) / 9) ** 2 + ((canvas.y - 5) / 25) ** 2 + ((canvas.z + 12) / 22) ** 2
    wall = thickness * (0.75 + 0.25 * upper + 0.35 * np.clip((-60 - canvas.y) / 40, 0, 1)) + 0.7 * rough
    wall *= 1 - 0.45 * np.exp(-temple)
    above = np.clip((canvas.z + 74) / 6, 0, 1)  # below the foramen magnum the canal has its vertebrae instead
    canvas.paint(colours["bone"], canvas.inside(inside - wall) * above)
    spongy = np.abs(inside - 0.52 * wall) - (0.5 * wall - 1.7)
    canvas.paint(colours["diploe"], canvas.inside(spongy) * upper * np.float32(0.9))


def _base(canvas: Canvas, colours: Colours) -> None:
    bone = colours["bone"]
    canvas.blob(bone, (0, 8, -40), (21, 20, 14))  # sphenoid body
    canvas.rod(bone, ((0, -12, -36), (0, -27, -64)), (8, 6))  # clivus and its marrow
    canvas.rod(colours["diploe"], ((0, -13, -39), (0, -26, -61)), (4.5, 3))
    canvas.rod(bone, ((15, -14, -40), (54, -36, -44)), (6, 13), both=True)  # petrous pyramids
    canvas.rod(bone, ((57, -44, -48), (56, -40, -66)), (12, 8), both=True)  # mastoids
    canvas.rod(bone, ((9, 3, -25), (46, 21, -25), (60, 26, -22)), (3, 3.2, 3), both=True)  # sphenoid wings
    canvas.rod(bone, ((24, 16, -42), (22, 14, -66)), (4, 2), both=True)  # pterygoid plates
    canvas.rod(colours["csf"], ((18, -24, -38), (30, -27, -38)), (2.2, 1.8), both=True)  # internal auditory canal
    for x, y, z, radius in (
        (22, -6, -46, 3),
        (27, -12, -48, 1.5),
        (26, -34, -56, 4.5),
    ):  # oval, spinous, jugular foramen
        canvas.rod(colours["mucosa"], ((x, y, z + 4), (x, y, z - 14)), radius, both=True)


def _face(canvas: Canvas, colours: Colours, within: Array) -> None:
    bone = colours["bone"]
    canvas.rod(bone, ((50, 52, -34), (52, 48, -50), (66, 24, -50), (71, -6, -46)), (4, 6, 2.8, 3), both=True)  # zygoma
    canvas.rod(bone, ((14, 78, -16), (30, 80, -12), (48, 66, -16), (51, 53, -34)), 4, both=True)  # brow
    canvas.rod(bone, ((22, 56, -62), (36, 44, -62)), (15.5, 14), both=True, clip=within)  # maxilla
    canvas.rod(bone, ((6, 78, -20), (7, 82, -34)), (3.5, 2.5), both=True)  # nasal bones
    canvas.blob(bone, (0, 50, -86), (28, 27, 5), clip=within)  # palate
    arch = np.linspace(0, np.pi, 15)
    for angle in arch:  # upper teeth
        x, y = 25 * np.cos(angle), 46 + 28 * np.sin(angle)
        canvas.rod(bone * 1.4 if bone > 0 else bone, ((x, y, -88), (x, y, -97)), (3.2, 2.4), clip=within)
    jaw = ((62, -8, -52), (56, -2, -82), (50, 14, -112), (20, 66, -118), (0, 74, -119))
    canvas.rod(bone, jaw, (4.5, 4.5, 5, 6, 6), both=True)


def _neck(canvas: Canvas, colours: Colours) -> None:
    """Atlas, axis and dens around the spinal canal."""
    bone = colours["bone"]
    for z in (-78, -96):
        canvas.rod(
            bone, ((0, -29, z), (13, -33, z), (16, -43, z), (10, -56, z), (0, -61, z)), (4, 6, 4, 3, 3.5), both=True
        )
        canvas.rod(colours["diploe"], ((8, -31, z), (13, -33, z)), (2, 4), both=True)
    canvas.rod(bone, ((0, -29, -100), (0, -30, -76)), (7, 4.5))


def _air(canvas: Canvas, colours: Colours, within: Array, outside_brain: Array, cells: SmoothField) -> None:
    air, bone = colours["air"], colours["bone"]
    clip = within * outside_brain
    septa = np.clip(np.abs(cells.on_grid(canvas.axes)) * 6 - 0.3, 0, 1) * clip
    canvas.rod(bone, ((0, 66, -34), (0, 28, -36)), (10, 13), clip=clip)  # ethmoid
    canvas.rod(air, ((5, 66, -34), (6, 28, -36)), (5, 7), both=True, clip=septa)
    canvas.blob(air, (7.5, 12, -41), (8, 12, 9), both=True, clip=clip)  # sphenoid
    canvas.blob(air, (13, 79, -10), (11, 3.5, 9), both=True, clip=septa)  # frontal
    canvas.rod(air, ((22, 56, -62), (36, 44, -62)), (13.8, 12.4), both=True, clip=clip)  # maxillary
    canvas.blob(air, (55, -44, -50), (9, 9, 13), both=True, clip=septa)  # mastoid cells
    canvas.blob(air, (44, -27, -44), (4, 4, 5), both=True, clip=septa)  # middle ear
    canvas.rod(air, ((50, -24, -44), (86, -22, -40)), (2.4, 3.5), both=True)  # ear canal
    canvas.blob(air, (0, 52, -64), (13, 30, 17), clip=within)  # nose, its septum and turbinates
    canvas.blob(bone, (0.6, 52, -64), (0.9, 27, 17), clip=within)
    for z, radius in ((-73, 4.5), (-62, 4.0), (-53, 2.6)):
        canvas.rod(colours["mucosa"], ((6.5, 70, z), (6.5, 32, z)), radius, both=True, clip=within)
    canvas.rod(air, ((0, 20, -66), (0, 8, -72), (0, 2, -100), (0, 0, -150)), (8, 8, 7, 7), clip=within)  # pharynx


def _eyes(canvas: Canvas, colours: Colours, clip: Array) -> None:
    canvas.rod(colours["bone"], ((16, 22, -25), (31, 62, -31)), (6, 21), both=True, clip=clip)
    canvas.rod(colours["fat"], ((15, 18, -25), (31, 66, -31)), (4, 20), both=True, clip=clip)
    for dx, dz in ((14, 0), (-12, 0), (0, 13), (0, -13)):  # straight muscles
        path = ((16, 20, -25), (32 + 0.8 * dx, 50, -31 + 0.8 * dz), (32 + 0.85 * dx, 66, -31 + 0.85 * dz))
        canvas.rod(colours["muscle"], path, (1.5, 2.6, 1.5), both=True)
    canvas.rod(colours["stem"], ((8, 6, -22), (14, 18, -25), (27, 44, -29), (31, 56, -31)), (2, 2, 2.3, 2.3), both=True)
    canvas.blob(colours["skin"], (32, 67, -31), (13.2, 13.2, 13.2), both=True)
    canvas.blob(colours["eye"], (32, 67, -31), (11.8, 11.8, 11.8), both=True)
    canvas.blob(colours["lens"], (32.5, 75.5, -31), (4.6, 2.2, 4.6), both=True)
