"""What each ray of a stage sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scumble.world.build import Bodies
from scumble.world.field import distance
from scumble.world.light import (
    Surface,
    glow_on,
    ground_openness,
    shaded,
    sunlight,
    surface_openness,
    surface_sunlight,
)
from scumble.world.march import MISS, approach, box, compact, normals, put, take, trace
from scumble.world.places import GROUNDS, LIGHTS, column, ground_colour, mix, sky_colour, smooth
from scumble.world.stage import Stage
from scumble.world.surface import surface_paint

__all__ = ["TABLE_END", "Known", "Reach", "Samples", "approached", "see", "sky"]

TABLE_END = -2.3
"""z of the far edge of the table."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What N rays of each of S scenes see."""

    colour: Tensor
    """(S, 3, N) linear light, 1 for a white surface in full light."""
    depth: Tensor
    """(S, N) ray length; `MISS` for the sky."""
    body: Tensor
    """(S, N) 0 or 1 for the thing seen, -1 for the ground, -2 for the sky."""
    normal: Tensor
    """(S, 3, N) in the world; 0 for the sky."""
    sunlight: Tensor
    """(S, N) share of the sun that is not in shadow."""
    openness: Tensor
    """(S, N) share of the light from all sides that arrives."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where rays may meet things, known from coarser ones."""

    since: Tensor
    """(S, N) a length before which they meet no thing."""
    until: Tensor
    """(S, N) a length after which they meet no thing."""


@dataclass(frozen=True, slots=True)
class Known:
    """Soft light where rays will meet something, known from coarser ones."""

    sunlight: Tensor
    """(S, 3, N) for the ground, the first and the second thing: share of the sun."""
    openness: Tensor
    """(S, 3, N) likewise."""


def see(stage: Stage, rays: Tensor, pixel: float, reach: Reach, known: Known | None = None) -> Samples:
    """What rays (S, 3, N) from the camera see; `pixel` is how far apart neighbouring rays are at length 1."""
    lengths = torch.stack([_lengths(stage, layer, rays, pixel, reach) for layer in stage.layers])  # (K, S, N)
    nearest, body = lengths.min(0)
    down = rays[:, 1]
    flat = -stage.camera.origin[:, 1:2] / down.clamp(max=-1e-4)
    flat = torch.where((down < -1e-4) & (flat < 60.0), flat, MISS)
    if stage.place == "table":
        flat = torch.where(stage.camera.origin[:, 2:3] + flat * rays[:, 2] > TABLE_END, flat, MISS)
    elif stage.place == "green screen":
        flat = torch.full_like(flat, MISS)
    hit = nearest < flat
    body = torch.where(hit, body, torch.where(flat < MISS, -1, -2))
    depth = torch.minimum(nearest, flat)
    zero, one = torch.zeros_like(rays), torch.ones_like(depth)
    samples = Samples(zero, depth, body, zero.clone(), one, one.clone())
    samples = _with_sky(stage, rays, samples)
    samples = _with_ground(stage, rays, samples, pixel, known)
    for k, layer in enumerate(stage.layers):
        samples = _with_things(stage, layer, k, rays, samples, pixel, known)
    return samples


def _lengths(stage: Stage, layer: Bodies, rays: Tensor, pixel: float, reach: Reach) -> Tensor:
    """Ray lengths (S, N) at which a layer's bodies are met."""
    origin, direction, near, far = _within(stage, layer, rays)
    near = torch.maximum(near, reach.since[layer.scene] / layer.scale[:, None])
    far = torch.minimum(far, reach.until[layer.scene] / layer.scale[:, None])
    found = trace(layer.solid, origin, direction, near, far, width=0.35 * pixel)
    return _in_world(layer, rays, found)


def approached(stage: Stage, rays: Tensor, width: float) -> Tensor:
    """Lengths (S, N) before which cones about rays (S, 3, N), `width` wide at length 1, meet no thing."""
    lengths: list[Tensor] = []
    for layer in stage.layers:
        origin, direction, near, far = _within(stage, layer, rays, width)
        found = approach(layer.solid, origin, direction, near, far, width=width)
        lengths.append(_in_world(layer, rays, found))
    return torch.stack(lengths).amin(0)


def _within(
    stage: Stage, layer: Bodies, rays: Tensor, width: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Origin and directions in the bodies' frames; where rays `width` wide enter and leave their boxes."""
    origin = layer.local(stage.camera.origin[layer.scene][..., None])
    direction = layer.local_directions(rays[layer.scene])
    margin = width * origin.square().sum(1).sqrt()
    return origin, direction, *box(layer.low - margin, layer.high + margin, origin, direction)


def _in_world(layer: Bodies, rays: Tensor, local: Tensor) -> Tensor:
    """Lengths (T, N) in the bodies' frames as those in the world (S, N), `MISS` for scenes without a body."""
    length = torch.where(local < MISS, local * layer.scale[:, None], MISS)
    return torch.full_like(rays[:, 0], MISS).index_copy(0, layer.scene, length)


def _with_sky(stage: Stage, rays: Tensor, samples: Samples) -> Samples:
    """Samples with the colours of what is neither ground nor thing."""
    index, valid = compact(samples.body == -2)
    if index.shape[1] == 0 or stage.place == "green screen":
        return samples
    return replace(samples, colour=put(samples.colour, index, valid, sky(stage, take(rays, index))))


def sky(stage: Stage, rays: Tensor) -> Tensor:
    """Light (S, 3, n) that comes along rays (S, 3, n) that meet nothing."""
    light = torch.zeros_like(rays)
    for time in dict.fromkeys(stage.times):
        rows = torch.tensor([i for i, t in enumerate(stage.times) if t == time], device=rays.device)
        light = light.index_copy(0, rows, sky_colour(stage.place, time, rays[rows], stage.seed[rows]))
    return light


def _with_ground(stage: Stage, rays: Tensor, samples: Samples, pixel: float, known: Known | None) -> Samples:
    """Samples with the ground filled in."""
    index, valid = compact(samples.body == -1)
    if index.shape[1] == 0:
        return samples
    near, length = take(rays, index), take(samples.depth, index)
    points = stage.camera.origin[..., None] + near * length[:, None]
    if known is None:
        share, openness = sunlight(stage, points, 0.012), ground_openness(stage, points)
    else:
        share, openness = take(known.sunlight[:, 0], index), take(known.openness[:, 0], index)
    up = torch.tensor([0.0, 1.0, 0.0], device=rays.device)[:, None].expand_as(near)
    return replace(
        samples,
        colour=put(
            samples.colour, index, valid, _ground(stage, near, points, length, pixel, share, openness)
        ),
        normal=put(samples.normal, index, valid, up),
        sunlight=put(samples.sunlight, index, valid, share),
        openness=put(samples.openness, index, valid, openness),
    )


def _ground(
    stage: Stage, rays: Tensor, points: Tensor, length: Tensor, pixel: float, share: Tensor, openness: Tensor
) -> Tensor:
    """Light (S, 3, n) that ground points send to the camera."""
    width = pixel * length / rays[:, 1].abs().clamp(min=0.03)
    albedo, mirror = ground_colour(stage.place, points[:, 0], points[:, 2], width, stage.seed)
    direct = stage.sun[..., None] * (stage.light[:, 1:2] * share)[:, None]
    ambient = (stage.sky + stage.fill * 0.6)[..., None] * openness[:, None]
    colour = albedo * (direct + ambient + glow_on(stage, points))
    if stage.place == "table":
        return colour
    if stage.place == "studio":
        return mix(colour, sky(stage, rays), smooth(3.4, 7.0, length))
    if stage.place == "beach":
        up = torch.tensor([1.0, -1.0, 1.0], device=rays.device)[:, None]
        colour = mix(colour, sky(stage, rays * up), mirror)
    fog = 1.0 - torch.exp(-(length / (40.0 if stage.place == "moon" else 16.0)).square())
    return mix(colour, _haze(stage), fog)


def _haze(stage: Stage) -> Tensor:
    """The colour that the ground fades to, (S, 3, 1): that of the near hills, or of the horizon."""
    rows: list[Tensor] = []
    hills = GROUNDS[stage.place].hills
    for time in stage.times:
        light = LIGHTS[time]
        haze = column(light.horizon, stage.sun)
        if hills is not None:
            tint = [s * 0.62 + k + f for s, k, f in zip(light.sun, light.sky, light.fill, strict=True)]
            near = column(hills[1], haze) * torch.tensor(tint, device=haze.device)[None, :, None]
            haze = near if stage.place == "moon" else near * 0.84 + haze * 0.16
        rows.append(haze)
    return torch.cat(rows)


def _with_things(
    stage: Stage, layer: Bodies, k: int, rays: Tensor, samples: Samples, pixel: float, known: Known | None
) -> Samples:
    """Samples with the bodies of layer `k` filled in."""
    rows = layer.scene
    index, valid = compact((samples.body == k)[rows])
    if index.shape[1] == 0:
        return samples
    seen, length = take(rays[rows], index), take(samples.depth[rows], index)
    points = stage.camera.origin[rows][..., None] + seen * length[:, None]
    local = layer.local(points)
    field = normals(lambda p: distance(layer.solid, p), local, 0.004)
    paint = surface_paint(layer, local, field, pixel * length / layer.scale[:, None])
    surface = Surface(layer, points, local, field, layer.turn @ field, seen, paint)
    if known is None:
        share, openness = surface_sunlight(stage, surface), surface_openness(surface)
    else:
        share, openness = (take(v[rows, k + 1], index) for v in (known.sunlight, known.openness))

    def filled(values: Tensor, new: Tensor) -> Tensor:
        return values.index_copy(0, rows, put(values[rows], index, valid, new))

    return replace(
        samples,
        colour=filled(samples.colour, shaded(stage, surface, share, openness)),
        normal=filled(samples.normal, surface.normal),
        sunlight=filled(samples.sunlight, share),
        openness=filled(samples.openness, openness),
    )
