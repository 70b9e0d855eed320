"""Light on surfaces: what each ray of a stage sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.world.build import Bodies
from scumble.world.field import distance, exposed
from scumble.world.march import MISS, box, compact, normals, put, shadow, take, trace
from scumble.world.marks import MARK_RADIUS, mark_distance
from scumble.world.places import GROUNDS, LIGHTS, column, ground_colour, mix, sky_colour, smooth

from scumble.world.stage import Stage

GREEN_SCREEN = (0.0, 177.0 / 255.0, 64.0 / 255.0)


@dataclass(frozen=True, slots=True)
class Samples:
    """What N rays of each of S scenes see."""

    colour: Tensor
    """(S, 3, N) linear light, 1 for a white surface in full light."""
    depth: Tensor
    """(S, N) ray length; `MISS` for the sky."""
    body: Tensor
    """(S, N) 0 or 1 for the thing seen, -1 for ground and sky."""
    normal: Tensor
    """(S, 3, N) in the world."""


def see(stage: Stage, rays: Tensor, pixel: float, since: Tensor | None = None) -> Samples:
    """What rays (S, 3, N) from the camera see; `pixel` is how far apart neighbouring rays are at length 1,
    `since` (S, N) a length before which they meet nothing."""
    lengths = torch.stack([_lengths(stage, layer, rays, pixel, since) for layer in stage.layers])  # (K, S, N)
    nearest, body = lengths.min(0)
    down = rays[:, 1]
    flat = torch.where(down < -1e-4, -stage.camera.origin[:, 1:2] / down.clamp(max=-1e-4), MISS)
    hit = (nearest < flat) & (nearest < MISS)
    body = torch.where(hit, body, -1)
    colour, normal = _surroundings(stage, rays, flat, hit, pixel)
    for k, layer in enumerate(stage.layers):
        colour, normal = _things(stage, layer, rays, nearest, body == k, colour, normal, pixel)
    return Samples(colour, torch.where(hit, nearest, flat.clamp(max=MISS)), body, normal)


def _lengths(stage: Stage, layer: Bodies, rays: Tensor, pixel: float, since: Tensor | None) -> Tensor:
    """Ray lengths (S, N) at which a layer's bodies are met."""
    whole = len(layer.scene) == rays.shape[0]
    own = rays if whole else rays[layer.scene]
    origin = layer.local(stage.camera.origin[layer.scene][..., None])
    direction = layer.local_directions(own)
    near, far = box(layer.low, layer.high, origin, direction)
    if since is not None:
        near = torch.maximum(near, since[layer.scene] / layer.scale[:, None])
    local = trace(layer.solid, origin, direction, near, far, width=0.35 * pixel)
    length = torch.where(local < MISS, local * layer.scale[:, None], MISS)
    if whole:
        return length
    return torch.full_like(rays[:, 0], MISS).index_copy(0, layer.scene, length)


def lit(stage: Stage, points: Tensor, start: float, wanted: Tensor | None = None) -> Tensor:
    """Share of the sun (S, n) that reaches world points (S, 3, n), where `wanted` (S, n)."""
    share = torch.ones_like(points[:, 0])
    for layer in stage.layers:
        local = layer.local(points[layer.scene])
        light = layer.local_directions(stage.light[layer.scene][..., None])
        near, far = box(layer.low, layer.high, local, light)
        index, valid = compact((far > near) if wanted is None else (far > near) & wanted[layer.scene])
        if index.shape[1] == 0:
            continue
        base = take(local, index)
        found = shadow(layer.solid, base, light, take(near, index), take(far, index), start=start)
        one = put(torch.ones_like(far), index, valid, found)
        share = share.index_copy(0, layer.scene, share[layer.scene] * one)
    return share


def nearness(stage: Stage, points: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (S, n) of ground points (S, 3, n) to the nearest body, at most 0.3, and light (S, 3, n) from bodies
    that glow."""
    closest = torch.full_like(points[:, 0], 0.3)
    glow = torch.zeros_like(points)
    for layer in stage.layers:
        local = layer.local(points[layer.scene])
        past = torch.maximum(layer.low[..., None] - local, local - layer.high[..., None]).clamp(min=0.0)
        away = past.square().sum(1).sqrt()
        if bool((layer.glow > 0.0).any()):
            fall = torch.exp(-3.2 * away)
            glow = glow.index_add(0, layer.scene, 0.8 * layer.glow[..., None] * fall[:, None])
        index, valid = compact(away < 0.3)
        if index.shape[1] == 0:
            continue
        nearest = distance(layer.solid, take(local, index)) * layer.scale[:, None]
        one = put(torch.full_like(away, 0.3), index, valid, nearest.clamp(0.0, 0.3))
        closest = closest.index_copy(0, layer.scene, torch.minimum(closest[layer.scene], one))
    return closest, glow


def _surroundings(
    stage: Stage, rays: Tensor, flat: Tensor, hit: Tensor, pixel: float
) -> tuple[Tensor, Tensor]:
    """Colours and normals (S, 3, N) of ground and sky; anything where things are hit."""
    normal = torch.zeros_like(rays)
    if stage.place == "green screen":
        green = column(GREEN_SCREEN, rays).expand_as(rays).clone()
        return green, normal
    colour = torch.zeros_like(rays)
    ground = ~hit & (flat < 60.0)
    if stage.place == "table":
        ground &= stage.camera.origin[:, 2:3] + flat * rays[:, 2] > -2.3
    index, valid = compact(~hit & ~ground)
    if index.shape[1]:
        colour = put(colour, index, valid, _sky(stage, take(rays, index)))
    index, valid = compact(ground)
    if index.shape[1]:
        near = take(rays, index)
        colour = put(colour, index, valid, _ground(stage, near, take(flat, index), pixel))
        normal = put(
            normal,
            index,
            valid,
            torch.zeros_like(near) + torch.tensor([0.0, 1.0, 0.0], device=rays.device)[:, None],
        )
    return colour, normal


def _sky(stage: Stage, rays: Tensor) -> Tensor:
    if len(set(stage.times)) == 1:
        return sky_colour(stage.place, stage.times[0], rays, stage.seed)
    rows = [
        sky_colour(stage.place, t, rays[i : i + 1], stage.seed[i : i + 1]) for i, t in enumerate(stage.times)
    ]
    return torch.cat(rows)


def _ground(stage: Stage, rays: Tensor, length: Tensor, pixel: float) -> Tensor:
    points = stage.camera.origin[..., None] + rays * length[:, None]
    width = pixel * length / rays[:, 1].abs().clamp(min=0.03)
    albedo, mirror = ground_colour(stage.place, points[:, 0], points[:, 2], width, stage.seed)
    cosine = stage.light[:, 1:2]
    share = lit(stage, points, 0.012)
    close, glow = nearness(stage, points)
    ambient = 0.45 + 0.55 * smooth(-0.02, 0.26, close)
    light = (
        stage.sun[..., None] * (cosine * share)[:, None]
        + (stage.sky + stage.fill * 0.6)[..., None] * ambient[:, None]
    )
    colour = albedo * (light + glow)
    back = rays * torch.tensor([1.0, -1.0, 1.0], device=rays.device)[:, None]
    if GROUNDS[stage.place].kind == "sea":
        colour = mix(colour, _sky(stage, back), mirror)
    if GROUNDS[stage.place].kind == "studio":
        return mix(colour, _sky(stage, rays), smooth(3.4, 7.0, length))
    if GROUNDS[stage.place].kind == "table":
        return colour
    haze = _sky_low(stage, rays)
    fog = 1.0 - torch.exp(-(length / (16.0 if stage.place != "moon" else 40.0)).square())
    return mix(colour, haze, fog)


def _sky_low(stage: Stage, rays: Tensor) -> Tensor:
    """The colour that distance fades to, (S, 3, 1)."""
    rows: list[Tensor] = []
    for time in stage.times:
        light = LIGHTS[time]
        hills = GROUNDS[stage.place].hills
        haze = column(light.horizon, rays)
        if hills is not None:
            tint = [s * 0.62 + k + f for s, k, f in zip(light.sun, light.sky, light.fill, strict=True)]
            near = column(hills[1], rays) * torch.tensor(tint, device=rays.device)[None, :, None]
            haze = near * (0.84 if stage.place != "moon" else 1.0) + haze * (
                0.16 if stage.place != "moon" else 0.0
            )
        rows.append(haze)
    return torch.cat(rows)


def _things(
    stage: Stage,
    layer: Bodies,
    rays: Tensor,
    length: Tensor,
    mask: Tensor,
    colour: Tensor,
    normal: Tensor,
    pixel: float,
) -> tuple[Tensor, Tensor]:
    """`colour` and `normal` with the pixels filled in where the layer's bodies are seen."""
    index, valid = compact(mask[layer.scene])
    if index.shape[1] == 0:
        return colour, normal
    seen = take(rays[layer.scene], index)
    far = take(length[layer.scene], index)
    points = stage.camera.origin[layer.scene][..., None] + seen * far[:, None]
    local = layer.local(points)
    width = pixel * far / layer.scale[:, None]
    field = normals(lambda p: distance(layer.solid, p), local, 0.004)
    paint = surface(layer, local, field, width)
    world = layer.turn @ field
    shaded = _light(stage, layer, points, local, world, field, seen, paint)
    colour = colour.index_copy(0, layer.scene, put(colour[layer.scene], index, valid, shaded))
    normal = normal.index_copy(0, layer.scene, put(normal[layer.scene], index, valid, world))
    return colour, normal


def surface(layer: Bodies, points: Tensor, field: Tensor, width: Tensor) -> Tensor:
    """Paint (T, 9, n) at surface points, blended over a pixel where parts meet, patterns applied."""
    weights = torch.softmax(-exposed(layer.solid, points) / (0.45 * width[:, None]), dim=1)
    paint = layer.paint.transpose(1, 2) @ weights
    paint = _patterned(layer, points, field, width, paint)
    if bool((layer.mark > 0).any()):
        paint = _marked(layer, points, field, width, paint)
    if bool((layer.snow > 0.0).any()):
        paint = _snowed(layer, points, field, paint)
    return paint


def _patterned(layer: Bodies, points: Tensor, field: Tensor, width: Tensor, paint: Tensor) -> Tensor:
    if not bool((layer.pattern > 0).any()):
        return paint
    share = pattern_share(layer, points, field, width) * paint[:, 3]
    plain = mix(paint[:, :3], layer.pattern_colour[..., None].expand(-1, -1, share.shape[1]), share)
    wood = _wood(points, paint[:, :3], paint[:, 3])
    wooden = (layer.pattern == 1)[:, None, None]
    return torch.cat([torch.where(wooden, wood, plain), paint[:, 3:]], dim=1)


def _marked(layer: Bodies, points: Tensor, field: Tensor, width: Tensor, paint: Tensor) -> Tensor:
    """Paint with the mark on what faces the front."""
    u = (points[:, 0] - layer.mark_at[:, :1]) / MARK_RADIUS
    v = (points[:, 1] - layer.mark_at[:, 1:2]) / MARK_RADIUS
    rows = [
        mark_distance(int(mark), u[i : i + 1], v[i : i + 1]) if mark else torch.ones_like(u[i : i + 1])
        for i, mark in enumerate(layer.mark.tolist())
    ]
    inside = smooth(0.0, 1.0, 0.5 - torch.cat(rows) * MARK_RADIUS / width) * smooth(0.05, 0.2, field[:, 2])
    inside = inside * (points[:, 2] > 0)
    return torch.cat([mix(paint[:, :3], layer.mark_colour[..., None], inside), paint[:, 3:]], dim=1)


def _snowed(layer: Bodies, points: Tensor, field: Tensor, paint: Tensor) -> Tensor:
    """Paint with snow on what faces up, with a ragged edge."""
    x, y, z = points.unbind(1)
    ragged = 0.10 * torch.sin(x * 31.0 + 2.0 * torch.sin(y * 17.0)) * torch.sin(z * 27.0 + 2.0)
    inside = smooth(0.18, 0.30, field[:, 1] + ragged) * layer.snow[:, None]
    white = column((0.97, 0.98, 1.0), points)
    rest = paint[:, 3:] * (1.0 - inside)[:, None]
    rest = torch.cat([rest[:, :3], rest[:, 3:4] + 20.0 * inside[:, None], rest[:, 4:]], dim=1)
    return torch.cat([mix(paint[:, :3], white, inside), rest], dim=1)


def _wood(points: Tensor, colour: Tensor, share: Tensor) -> Tensor:
    x, y, z = points.unbind(1)
    rings = ((x - 0.17).square() + (0.9 * z + 0.55 + 0.10 * torch.sin(y * 5.0)).square()).sqrt()
    wave = torch.sin(rings * 78.0 + 1.3 * torch.sin(y * 7.0 + x * 3.0)) * 0.5 + 0.5
    fine = torch.sin(rings * 260.0) * 0.5 + 0.5
    dark = (0.55 * wave.square() + 0.12 * fine) * share
    tan = column((0.72, 0.50, 0.28), points)
    warm = mix(colour, tan, 0.16 * share)
    return warm * (1.0 - dark)[:, None]


def pattern_share(layer: Bodies, points: Tensor, field: Tensor, width: Tensor) -> Tensor:
    """How much of the pattern's second colour shows, (T, n) in [0, 1]."""
    size = layer.grain[:, None]
    x, y, z = (points / size[:, None]).unbind(1)
    soft = width / size
    across = (y * 5.6 - (y * 5.6).floor() - 0.5).abs()
    stripes = smooth(0.0, 1.0, (across - 0.25) / (soft * 5.6) + 0.5)
    cell = 5.4
    signs = [
        torch.clamp(torch.sin(a * cell * 3.14159265 + b) / (soft * cell * 3.14159265), -1.0, 1.0)
        for a, b in ((x, 1.5708), (y, 0.4), (z, 1.5708))
    ]
    checks = 0.5 + 0.5 * signs[0] * signs[1] * signs[2]
    dots = _dots(torch.stack([x, y, z], dim=1), field, soft)
    kind = layer.pattern[:, None]
    return torch.where(kind == 2, stripes, torch.where(kind == 3, dots, torch.where(kind == 4, checks, 0.0)))


def _dots(points: Tensor, field: Tensor, soft: Tensor) -> Tensor:
    """Dots on the plane that the surface faces most."""
    axis = field.abs().argmax(1, keepdim=True)
    x, y, z = points.unbind(1)
    u = torch.where(axis[:, 0] == 0, z, x) * 5.2
    v = torch.where(axis[:, 0] == 1, z, y) * 5.2
    row = v.floor()
    u = u + 0.5 * (row - 2.0 * (row / 2.0).floor())
    away = ((u - u.floor() - 0.5).square() + (v - row - 0.5).square()).sqrt()
    return smooth(0.0, 1.0, (0.31 - away) / (soft * 5.2) + 0.5)


def _light(
    stage: Stage,
    layer: Bodies,
    points: Tensor,
    local: Tensor,
    world: Tensor,
    field: Tensor,
    seen: Tensor,
    paint: Tensor,
) -> Tensor:
    """Light (T, 3, n) that leaves surface points towards the camera."""
    rows = layer.scene
    light = stage.light[rows][..., None]
    sun, sky, fill = (c[rows][..., None] for c in (stage.sun, stage.sky, stage.fill))
    cosine = (world * light).sum(1)
    facing = -(world * seen).sum(1).clamp(max=0.0)
    raised = points + world * 0.012
    full = raised.new_zeros(stage.light.shape[0], 3, raised.shape[2]).index_copy(0, rows, raised)
    facing_sun = torch.zeros_like(full[:, 0], dtype=torch.bool).index_copy(0, rows, cosine > -0.08)
    share = lit(stage, full, 0.02, facing_sun)[rows] * smooth(-0.08, 0.12, cosine)
    close = distance(layer.solid, local + field * 0.09)
    open_ = (0.42 + 0.58 * (close / 0.09)).clamp(0.25, 1.0) * (
        0.62 + 0.38 * smooth(-0.02, 0.22, points[:, 1])
    )
    albedo, mirror, metal = paint[:, :3], paint[:, 7], paint[:, 8]
    above = 0.5 + 0.5 * world[:, 1]
    bounce = sky * 0.45 + sun * 0.22
    ambient = (
        sky * (above * open_)[:, None]
        + bounce * ((1.0 - above) * open_)[:, None]
        + fill * (0.4 + 0.6 * facing)[:, None]
    )
    diffuse = sun * (cosine.clamp(min=0.0) * share)[:, None] + ambient
    half = light - seen
    half = half / half.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
    bent = _bent(layer, local, world)
    shine = paint[:, 5] * ((bent * half).sum(1).clamp(0.0, 1.0) + 1e-6).pow(paint[:, 6]) * share
    tint = mix(torch.ones_like(albedo), albedo * 1.25, metal)
    bright = (sun * 0.9 + fill)[:, :] * tint * shine[:, None]
    lamp = paint[:, 4] * 1.6 + 0.75 * (layer.glow.amax(1) > 0.0)[:, None]
    result = albedo * (diffuse * (1.0 - 0.85 * mirror * metal)[:, None] + lamp[:, None]) + bright
    if bool((paint[:, 7] > 0.0).any()):
        result = result + _mirrored(stage, layer, local, bent, seen, tint, mirror, metal, facing, open_)
    return result


def _bent(layer: Bodies, local: Tensor, world: Tensor) -> Tensor:
    """Normals bent away from the middle of the body, so that highlights and reflections run over flat faces too."""
    centre, half = (layer.low + layer.high) / 2, (layer.high - layer.low).square().sum(1).sqrt() / 2
    out = layer.turn @ (local - centre[..., None]) / half[:, None, None]
    bent = world + 0.55 * out
    return bent / bent.square().sum(1, keepdim=True).sqrt()


def _mirrored(
    stage: Stage,
    layer: Bodies,
    local: Tensor,
    world: Tensor,
    seen: Tensor,
    tint: Tensor,
    mirror: Tensor,
    metal: Tensor,
    facing: Tensor,
    open_: Tensor,
) -> Tensor:
    """The surroundings in shiny surfaces: sky over ground, sharpened at the horizon."""
    rows = layer.scene
    bounced = seen - 2.0 * (world * seen).sum(1, keepdim=True) * world
    sky = (stage.sky * 1.5 + stage.sun * 0.75)[rows][..., None]
    ground = (stage.sky * 0.22 + stage.sun * 0.07)[rows][..., None]
    up = bounced[:, 1]
    band = smooth(-0.05, 0.04, up)
    fall = 1.0 - 0.62 * smooth(0.02, 0.75, up) + 0.5 * smooth(0.62, 0.70, up) * smooth(0.95, 0.80, up)
    streak = 1.0 + 0.10 * torch.sin(local[:, 1] * 170.0) * metal
    around = (
        ground * (1.0 + 0.9 * smooth(-0.2, -0.9, up))[:, None] * (1.0 - band)[:, None]
        + sky * (band * fall)[:, None]
    )
    fresnel = (1.0 - facing).clamp(0.0, 1.0).pow(3.0) * smooth(0.0, 0.08, mirror) * 0.45
    share = (mirror * (0.55 + 0.45 * metal) * streak + fresnel) * open_
    return around * tint * share[:, None]
