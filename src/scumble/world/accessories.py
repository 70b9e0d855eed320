"""The table of what things wear, in the frame of the anchor that it hangs on, and how it is hung there."""

from __future__ import annotations

from dataclasses import replace

from scumble.world.kinds import Kind, anchor, part, rod
from scumble.world.scene import Look
from scumble.world.solid import Part, Vec3

__all__ = ["BOW_SIZE", "BOW_TIE", "CROWN", "PARTY_HAT", "SCARF", "SUNGLASSES", "Parts", "worn"]

Parts = tuple[Part, ...]

BOW_SIZE = 0.16
"""Half the width of a bow tie, less the curve of its ends."""

PARTY_HAT: Parts = (
    part("cone", (0, 1.30, 0), (1.06, 1.35, 0.05), "wear", edge=0.03),
    part("torus", (0, 0.12, 0), (1.0, 0.17, 0), "light"),
    part("torus", (0, 1.05, 0), (0.63, 0.11, 0), "light"),
    part("ellipsoid", (0, 2.72, 0), (0.34, 0.34, 0.34), "light"),
)
CROWN: Parts = (
    part("cylinder", (0, 0.42, 0), (1.06, 0.46, 0), "wear", edge=0.05),
    part("cone", (0.90, 1.10, 0), (0.30, 0.36, 0.02), "wear", "x", edge=0.02),
    part("cone", (0, 1.10, 0.90), (0.30, 0.36, 0.02), "wear", "xz", edge=0.02),
    part("cone", (0.64, 1.10, 0.64), (0.30, 0.36, 0.02), "wear", "xz", edge=0.02),
    part("ellipsoid", (0, 0.42, 1.04), (0.20, 0.24, 0.12), "light", "xz"),
    part("ellipsoid", (0.74, 0.42, 0.74), (0.16, 0.20, 0.16), "light", "xz"),
)
SUNGLASSES: Parts = (
    part("box", (1.08, -0.05, 0.16), (1.02, 0.80, 0.14), "wear", "x", edge=0.14),
    part("box", (1.08, -0.05, 0.27), (0.74, 0.53, 0.12), "dark", "x", edge=0.10),
    rod((-0.4, 0.30, 0.18), (0.4, 0.30, 0.18), 0.17, "wear"),
    rod((1.95, 0.25, 0.10), (2.15, 0.25, -2.2), 0.13, "wear", "x"),
)
SCARF: Parts = (
    part("torus", (0, 0, 0), (1.0, 0.36, 0), "wear"),
    part("ellipsoid", (0.42, -0.05, 1.02), (0.34, 0.36, 0.30), "wear"),
    part("box", (0.52, -0.72, 1.10), (0.33, 0.66, 0.13), "wear", turn=(-8, 10, 8), edge=0.10),
    part("box", (0.60, -1.16, 1.17), (0.345, 0.10, 0.15), "light", turn=(-8, 10, 8), edge=0.06),
)
BOW_TIE: Parts = (
    part("cone", (0.62, 0, 0), (0.58, 0.48, 0.18), "wear", "x", turn=(0, 0, 90), edge=0.06),
    part("ellipsoid", (0, 0, 0.06), (0.26, 0.30, 0.28), "wear"),
    part("ellipsoid", (0.72, 0.0, 0.42), (0.13, 0.13, 0.13), "light", "x"),
)


def worn(accessory: str, kind: Kind, look: Look) -> Parts:
    """The parts of an accessory on a kind with a look; none for a kind that wears nothing."""
    if kind.top is None or kind.eyes is None or kind.neck is None:
        return ()
    if accessory in ("party hat", "crown"):
        at, size = kind.top
        return _hung(
            PARTY_HAT if accessory == "party hat" else CROWN,
            anchor(at, "head", kind, look),
            size * look.head,
            0.0,
        )
    if accessory == "sunglasses":
        at, size = kind.eyes
        return _hung(SUNGLASSES, anchor(at, "head", kind, look), size * look.head, 0.0)
    at, radius, front, tilt = kind.neck
    if accessory == "scarf":
        return _hung(SCARF, anchor(at, "body", kind, look), radius, tilt)
    return _hung(BOW_TIE, anchor((at[0], at[1] - 0.02, at[2] + front), "body", kind, look), BOW_SIZE, 0.0)


def _hung(parts: Parts, at: Vec3, size: float, tilt: float) -> Parts:
    """Parts scaled by `size` and moved to `at`, joined with creases; rings about y tilt forwards by degrees.

    Mirroring front to back is about `at`, so each such part becomes two."""
    placed: list[Part] = []
    for p in parts:
        scaled = replace(
            p,
            size=(p.size[0] * size, p.size[1] * size, p.size[2] * size),
            round=p.round * size,
            turn=(tilt, 0.0, 0.0) if tilt and p.shape == "torus" else p.turn,
            mirror=p.mirror[:1],
            hard=True,
        )
        for z in (p.at[2], -p.at[2]) if "z" in p.mirror else (p.at[2],):
            placed.append(
                replace(scaled, at=(at[0] + p.at[0] * size, at[1] + p.at[1] * size, at[2] + z * size))
            )
    return tuple(placed)
