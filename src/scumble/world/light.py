"""How much light reaches a point, and what a lit surface sends to the camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.world.build import Bodies
from scumble.world.field import distance
from scumble.world.march import box, compact, put, shadow, take
from scumble.world.places import mix, smooth
from scumble.world.stage import Stage

__all__ = [
    "NEAR",
    "Surface",
    "glow_on",
    "ground_openness",
    "shaded",
    "sunlight",
    "surface_openness",
    "surface_sunlight",
]

NEAR = 0.3
"""Ground further from every thing than this is not darkened by it."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Points where rays meet the bodies of a layer, n of each."""

    layer: Bodies
    points: Tensor
    """(T, 3, n) in the world."""
    local: Tensor
    """(T, 3, n) in the bodies' frames."""
    field: Tensor
    """(T, 3, n) unit normals in the bodies' frames."""
    normal: Tensor
    """(T, 3, n) unit normals in the world."""
    seen: Tensor
    """(T, 3, n) unit directions from the camera."""
    paint: Tensor
    """(T, 9, n): see `build.PAINT`."""

    @property
    def facing(self) -> Tensor:
        """(T, n): cosine of the angle between normal and camera."""
        return -(self.normal * self.seen).sum(1).clamp(max=0.0)


def sunlight(stage: Stage, points: Tensor, start: float, wanted: Tensor | None = None) -> Tensor:
    """Share of the sun (S, n) that reaches world points (S, 3, n), where `wanted` (S, n); 1 elsewhere."""
    share = torch.ones_like(points[:, 0])
    for layer in stage.layers:
        local = layer.local(points[layer.scene])
        light = layer.local_directions(stage.light[layer.scene][..., None])
        near, far = box(layer.low, layer.high, local, light)
        index, valid = compact((far > near) if wanted is None else (far > near) & wanted[layer.scene])
        if index.shape[1] == 0:
            continue
        ends = take(near, index), take(far, index)
        found = shadow(layer.solid, take(local, index), light, *ends, start=start)
        one = put(torch.ones_like(far), index, valid, found)
        share = share.index_copy(0, layer.scene, share[layer.scene] * one)
    return share


def surface_sunlight(stage: Stage, surface: Surface) -> Tensor:
    """Share of the sun (T, n) that reaches a surface, for what faces away from it 1."""
    rows = surface.layer.scene
    raised = surface.points + surface.normal * 0.012
    points = raised.new_zeros(len(stage.light), 3, raised.shape[2]).index_copy(0, rows, raised)
    turned = (surface.normal * stage.light[rows][..., None]).sum(1) > -0.08
    wanted = torch.zeros_like(points[:, 0], dtype=torch.bool).index_copy(0, rows, turned)
    return sunlight(stage, points, 0.02, wanted)[rows]


def surface_openness(surface: Surface) -> Tensor:
    """How open surface points (T, n) lie to light from all sides, in [0.25, 1]: one step along the normal."""
    close = distance(surface.layer.solid, surface.local + surface.field * 0.09)
    return (0.42 + 0.58 * (close / 0.09)).clamp(0.25, 1.0)


def ground_openness(stage: Stage, points: Tensor) -> Tensor:
    """How open ground points (S, 3, n) lie to light from all sides, (S, n) in [0.45, 1]."""
    closest = torch.full_like(points[:, 0], NEAR)
    for layer in stage.layers:
        local = layer.local(points[layer.scene])
        index, valid = compact(_outside(layer, local) < NEAR)
        if index.shape[1] == 0:
            continue
        away = distance(layer.solid, take(local, index)) * layer.scale[:, None]
        one = put(torch.full_like(local[:, 0], NEAR), index, valid, away.clamp(0.0, NEAR))
        closest = closest.index_copy(0, layer.scene, torch.minimum(closest[layer.scene], one))
    return 0.45 + 0.55 * smooth(-0.02, 0.26, closest)


def glow_on(stage: Stage, points: Tensor) -> Tensor:
    """Light (S, 3, n) that glowing bodies throw on ground points (S, 3, n)."""
    light = torch.zeros_like(points)
    for layer in stage.layers:
        if bool((layer.glow > 0.0).any()):
            fall = torch.exp(-3.2 * _outside(layer, layer.local(points[layer.scene])))
            light = light.index_add(0, layer.scene, 0.8 * layer.glow[..., None] * fall[:, None])
    return light


def _outside(layer: Bodies, local: Tensor) -> Tensor:
    """Distance (T, n) of points in the bodies' frames to the bodies' boxes."""
    past = torch.maximum(layer.low[..., None] - local, local - layer.high[..., None]).clamp(min=0.0)
    return past.square().sum(1).sqrt()


def shaded(stage: Stage, surface: Surface, sun_share: Tensor, openness: Tensor) -> Tensor:
    """Light (T, 3, n) that surface points send to the camera.

    Diffuse light of the sun, sky, ground and a lamp at the camera; the sun's highlight (Blinn-Phong); the
    surroundings in shiny surfaces."""
    rows, paint = surface.layer.scene, surface.paint
    sun, sky, fill = (c[rows][..., None] for c in (stage.sun, stage.sky, stage.fill))
    light = stage.light[rows][..., None]
    cosine = (surface.normal * light).sum(1)
    share = sun_share * smooth(-0.08, 0.12, cosine)
    openness = openness * (0.62 + 0.38 * smooth(-0.02, 0.22, surface.points[:, 1]))
    above = 0.5 + 0.5 * surface.normal[:, 1]
    ambient = sky * (above * openness)[:, None]
    ambient = ambient + (sky * 0.45 + sun * 0.22) * ((1.0 - above) * openness)[:, None]
    ambient = ambient + fill * (0.4 + 0.6 * surface.facing)[:, None]
    diffuse = sun * (cosine.clamp(min=0.0) * share)[:, None] + ambient
    albedo, mirror, metal = paint[:, :3], paint[:, 7], paint[:, 8]
    half = light - surface.seen
    half = half / half.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
    bent = _bent(surface)
    shine = paint[:, 5] * ((bent * half).sum(1).clamp(0.0, 1.0) + 1e-6).pow(paint[:, 6]) * share
    tint = mix(torch.ones_like(albedo), albedo * 1.25, metal)
    lamp = paint[:, 4] * 1.6 + 0.75 * (surface.layer.glow.amax(1) > 0.0)[:, None]
    result = albedo * (diffuse * (1.0 - 0.85 * mirror * metal)[:, None] + lamp[:, None])
    mirrored = _mirrored(stage, surface, bent) * openness[:, None]
    return result + tint * ((sun * 0.9 + fill) * shine[:, None] + mirrored)


def _bent(surface: Surface) -> Tensor:
    """Normals bent away from the middle of the body, so that highlights run over flat faces too."""
    layer = surface.layer
    centre, half = (layer.low + layer.high) / 2, (layer.high - layer.low).square().sum(1).sqrt() / 2
    out = layer.turn @ (surface.local - centre[..., None]) / half[:, None, None]
    bent = surface.normal + 0.55 * out
    return bent / bent.square().sum(1, keepdim=True).sqrt()


def _mirrored(stage: Stage, surface: Surface, normal: Tensor) -> Tensor:
    """The surroundings (T, 3, n) in shiny surfaces: sky over ground; metal is brushed."""
    rows, mirror, metal = surface.layer.scene, surface.paint[:, 7], surface.paint[:, 8]
    bounced = surface.seen - 2.0 * (normal * surface.seen).sum(1, keepdim=True) * normal
    sky = (stage.sky * 1.5 + stage.sun * 0.75)[rows][..., None]
    ground = (stage.sky * 0.22 + stage.sun * 0.07)[rows][..., None]
    up = bounced[:, 1]
    band = smooth(-0.05, 0.04, up)
    fall = 1.0 - 0.62 * smooth(0.02, 0.75, up) + 0.5 * smooth(0.62, 0.70, up) * smooth(0.95, 0.80, up)
    around = (
        ground * ((1.0 + 0.9 * smooth(-0.2, -0.9, up)) * (1.0 - band))[:, None] + sky * (band * fall)[:, None]
    )
    streak = 1.0 + 0.10 * torch.sin(surface.local[:, 1] * 170.0) * metal
    fresnel = (1.0 - surface.facing).clamp(0.0, 1.0).pow(3.0) * smooth(0.0, 0.08, mirror) * 0.45
    return around * (mirror * (0.55 + 0.45 * metal) * streak + fresnel)[:, None]
