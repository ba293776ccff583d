"""The demo model's pictures: small shaded still lifes, drawn by sphere tracing from nothing but numbers.

Every picture is one object in one colour on a table, lit from one side, with a soft shadow. Pose, size, place, light
and tint are random, so the set has no end, needs no download and may be given to anybody (this file is its source).
"""

import math
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .prompts import COLOURS, OBJECTS

# Hue in degrees, saturation and value 0..1 of what a prompt calls by name.
TINTS = {
    "red": (0, 0.85, 0.82),
    "orange": (28, 0.9, 0.95),
    "yellow": (52, 0.85, 0.95),
    "green": (125, 0.7, 0.62),
    "blue": (218, 0.8, 0.85),
    "purple": (275, 0.65, 0.7),
    "pink": (335, 0.45, 0.95),
    "white": (40, 0.04, 0.95),
}
# What an object has besides its own colour, as RGB 0..1: part 0 is the colour of the prompt.
PARTS = torch.tensor(
    [
        [0.0, 0.0, 0.0],
        [0.93, 0.91, 0.86],  # 1 cream
        [0.42, 0.27, 0.16],  # 2 brown
        [0.95, 0.50, 0.12],  # 3 orange
        [0.07, 0.07, 0.09],  # 4 black
        [0.30, 0.55, 0.22],  # 5 leaf
        [0.80, 0.60, 0.36],  # 6 dough
    ]
)
CAMERA = torch.tensor([0.0, 1.75, 4.3])
LOOK_AT = torch.tensor([0.0, 0.66, 0.0])
FIELD_OF_VIEW = 33.0  # degrees
REACH = 1.45  # radius of a sphere around (0, 0.8, 0) that holds every object
Part = "tuple[Tensor, int]"  # (n,) distances, and which of PARTS


def render(objects: Tensor, colours: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw pictures.

    Args:
        objects: (b,) index into `prompts.OBJECTS`.
        colours: (b,) index into `prompts.COLOURS`.
        size: rows and columns of a picture.
        generator: where pose, light and tint come from.

    Returns:
        (b, 3, size, size) uint8.
    """
    pictures = torch.zeros(len(objects), 3, size, size, dtype=torch.uint8)
    for index in objects.unique().tolist():  # one shape at a time: a shape is a function
        rows = (objects == index).nonzero()[:, 0]
        pictures[rows] = _draw(SHAPES[OBJECTS[index]], colours[rows], size, generator)
    return pictures


def _draw(shape: "Callable[[Tensor], list]", colours: Tensor, size: int, generator: torch.Generator) -> Tensor:
    batch, side = len(colours), 2 * size  # four rays a pixel

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return torch.rand(batch, *more, generator=generator) * (high - low) + low

    yaw = uniform(-0.75, 0.75)
    scale = uniform(0.78, 1.0)
    place = torch.stack([uniform(-0.28, 0.28), torch.zeros(batch), uniform(-0.25, 0.2)], -1)
    azimuth = uniform(0.35, 1.25) * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    height = uniform(0.6, 1.0)
    light = F.normalize(torch.stack([azimuth.sin(), height, azimuth.cos() * 0.8 + 0.25], -1), dim=-1)
    tints = torch.tensor([TINTS[name] for name in COLOURS])[colours]
    tints = tints + torch.stack([uniform(-7, 7), uniform(-0.06, 0.06), uniform(-0.08, 0.04)], -1)
    parts = PARTS.repeat(batch, 1, 1)
    parts[:, 0] = _rgb(tints)
    table = _rgb(torch.stack([uniform(20, 45), uniform(0.1, 0.35), uniform(0.55, 0.8)], -1))
    wall = _rgb(torch.stack([uniform(190, 230), uniform(0.05, 0.3), uniform(0.45, 0.85)], -1))

    cos, sin = yaw.cos(), yaw.sin()

    def distances(points: Tensor, rows: Tensor) -> "list":
        """The parts' distances at (n, 3) points in the world, each of picture `rows` (n,)."""
        x, y, z = ((points - place[rows]) / scale[rows, None]).unbind(-1)
        c, s = cos[rows], sin[rows]
        local = torch.stack([c * x - s * z, y, s * x + c * z], -1)
        return [(distance * scale[rows], part) for distance, part in shape(local)]

    def nearest(points: Tensor, rows: Tensor) -> Tensor:
        return torch.stack([distance for distance, _ in distances(points, rows)]).amin(0)

    rays = _rays(side).repeat(batch, 1, 1).reshape(-1, 3)  # (b * side * side, 3)
    rows = torch.arange(batch).repeat_interleave(side * side)
    centre = torch.tensor([0.0, 0.8, 0.0])
    along = (centre - CAMERA) @ rays.T
    missed_by = ((CAMERA + along[:, None] * rays) - centre).norm(dim=-1)

    # The table is the plane y = 0, fading into the wall.
    to_table = torch.where(rays[:, 1] < -1e-3, -CAMERA[1] / rays[:, 1].clamp(max=-1e-3), 1e3)
    near = (missed_by < REACH).nonzero()[:, 0]
    depth = _trace(lambda d, i: nearest(CAMERA + d[:, None] * rays[near[i]], rows[near[i]]), (along - REACH)[near])
    hit = torch.isfinite(depth) & (depth < to_table[near])
    seen, depth = near[hit], depth[hit]

    ground = CAMERA + to_table.clamp(max=60.0)[:, None] * rays
    lit = light[rows]
    shade = torch.ones(len(rays))
    shadowed = ((ground - centre).norm(dim=-1) < 4.5).nonzero()[:, 0]
    shade[shadowed] = _shadow(nearest, ground[shadowed], lit[shadowed], rows[shadowed])
    # Contact darkens the table where the object is close.
    contact = torch.ones(len(rays))
    contact[shadowed] = (0.45 + 0.9 * nearest(ground[shadowed], rows[shadowed]).clamp(min=0)).clamp(max=1)
    table_light = 0.35 * contact + 0.75 * shade * lit[:, 1]
    fade = ((to_table - 5.0) / 6.0).clamp(0, 1)[:, None]
    back = wall[rows] * (0.8 + 0.5 * rays[:, 1:2].clamp(-0.5, 0.5))
    picture = torch.lerp(table[rows] * table_light[:, None], back, fade)

    points = CAMERA + depth[:, None] * rays[seen]
    row = rows[seen]
    normal = _normal(nearest, points, row)
    found = distances(points, row)
    which = torch.stack([distance for distance, _ in found]).argmin(0)
    which = torch.tensor([part for _, part in found])[which]
    colour = parts[row, which]
    facing = (normal * light[row]).sum(-1).clamp(min=0)
    facing = facing * _shadow(nearest, points + 0.02 * normal, light[row], row)
    sky = 0.5 + 0.5 * normal[:, 1]
    half = F.normalize(light[row] - rays[seen], dim=-1)
    shine = (normal * half).sum(-1).clamp(min=0) ** 40 * (facing > 0)
    lightness = 0.16 + 0.24 * sky + 0.78 * facing
    bounce = 0.12 * (1 - sky)[:, None] * table[row]
    picture[seen] = colour * (lightness[:, None] + bounce) + 0.35 * shine[:, None]

    picture = picture.clamp(0, 1).reshape(batch, size, 2, size, 2, 3).mean((2, 4)).permute(0, 3, 1, 2)
    return (picture * 255).round().to(torch.uint8)


def _rays(side: int) -> Tensor:
    """(side * side, 3) directions, row by row from the top left."""
    forward = F.normalize(LOOK_AT - CAMERA, dim=0)
    right = F.normalize(torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0])), dim=0)
    up = torch.linalg.cross(right, forward)
    steps = ((torch.arange(side) + 0.5) / side * 2 - 1) * math.tan(math.radians(FIELD_OF_VIEW / 2))
    rays = forward + steps[None, :, None] * right - steps[:, None, None] * up
    return F.normalize(rays, dim=-1).reshape(-1, 3)


def _trace(distance: "Callable[[Tensor, Tensor], Tensor]", start: Tensor, steps: int = 40) -> Tensor:
    """Walk every ray by the distance to what is nearest; infinity where nothing is met."""
    depth = start.clamp(min=0.0).clone()
    end = start + 2 * REACH
    open_rays = torch.arange(len(depth))
    done = torch.full_like(depth, math.inf)
    for _ in range(steps):
        if not len(open_rays):
            break
        step = distance(depth[open_rays], open_rays)
        arrived = step < 4e-3
        done[open_rays[arrived]] = depth[open_rays[arrived]]
        depth[open_rays] += 0.9 * step
        open_rays = open_rays[~arrived & (depth[open_rays] < end[open_rays])]
    return done


def _shadow(nearest: Callable, points: Tensor, light: Tensor, rows: Tensor) -> Tensor:
    """How much light arrives, 0..1, with a soft edge (Quilez, "soft shadows in raymarched SDFs")."""
    light_left = torch.ones(len(points))
    walked = torch.full((len(points),), 0.05)
    for _ in range(18):
        distance = nearest(points + walked[:, None] * light, rows)
        light_left = torch.minimum(light_left, (7 * distance / walked).clamp(0, 1))
        walked = walked + distance.clamp(0.04, 0.3)
    return light_left


def _normal(nearest: Callable, points: Tensor, rows: Tensor) -> Tensor:
    corners = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])  # of a tetrahedron
    slope = sum(corner * nearest(points + 3e-3 * corner, rows)[:, None] for corner in corners)
    return F.normalize(slope, dim=-1)


def _rgb(hsv: Tensor) -> Tensor:
    """(..., 3) hue in degrees, saturation and value 0..1, to RGB 0..1."""
    hue, saturation, value = hsv.unbind(-1)
    k = (torch.tensor([5.0, 3.0, 1.0]) + hue[..., None] / 60) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    value, saturation = value.clamp(0, 1)[..., None], saturation.clamp(0, 1)[..., None]
    return value * (1 - saturation * ramp)


# Distances to simple bodies (Quilez, "distance functions"); points (n, 3), result (n,).


def _sphere(p: Tensor, centre: "tuple", radius: float) -> Tensor:
    return (p - p.new_tensor(centre)).norm(dim=-1) - radius


def _ellipsoid(p: Tensor, centre: "tuple", radii: "tuple") -> Tensor:
    p, radii = p - p.new_tensor(centre), p.new_tensor(radii)
    k = (p / radii).norm(dim=-1)
    return k * (k - 1) / (p / radii**2).norm(dim=-1).clamp(min=1e-6)


def _box(p: Tensor, centre: "tuple", half: "tuple", rounding: float = 0.04) -> Tensor:
    q = (p - p.new_tensor(centre)).abs() - p.new_tensor(half) + rounding
    return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0) - rounding


def _ring(p: Tensor, centre: "tuple", radius: float, tube: float, axis: int = 1) -> Tensor:
    p = p - p.new_tensor(centre)
    flat = p[:, [i for i in range(3) if i != axis]].norm(dim=-1) - radius
    return torch.hypot(flat, p[:, axis]) - tube


def _capsule(p: Tensor, start: "tuple", end: "tuple", radius: float) -> Tensor:
    start, way = p.new_tensor(start), p.new_tensor(end) - p.new_tensor(start)
    share = (((p - start) @ way) / way.dot(way)).clamp(0, 1)
    return (p - start - share[:, None] * way).norm(dim=-1) - radius


def _cylinder(p: Tensor, bottom: float, top: float, radius: float, rounding: float = 0.03) -> Tensor:
    return _cone(p, bottom, top, radius, radius, rounding)


def _cone(p: Tensor, bottom: float, top: float, wide: float, narrow: float, rounding: float = 0.03) -> Tensor:
    """An upright cone on the axis x = z = 0 that goes from radius `wide` to `narrow`."""
    across, y = p[:, [0, 2]].norm(dim=-1), p[:, 1]
    middle, half = (bottom + top) / 2, (top - bottom) / 2
    slope = (wide - narrow) / (2 * half)
    side = (across - (wide + narrow) / 2 + slope * (y - middle)) / math.hypot(1, slope) + rounding
    ends = (y - middle).abs() - half + rounding
    outside = torch.hypot(side.clamp(min=0), ends.clamp(min=0))
    return outside + torch.maximum(side, ends).clamp(max=0) - rounding


def _where(inside: Tensor, distance: Tensor, parts: "tuple[int, int]") -> "list":
    """One body in two colours: the first where `inside`."""
    far = torch.full_like(distance, 1e3)
    return [(torch.where(inside, distance, far), parts[0]), (torch.where(inside, far, distance), parts[1])]


def _apple(p: Tensor) -> "list":
    leaf = _ellipsoid(p, (0.24, 1.42, 0.0), (0.26, 0.09, 0.14))
    return [(_ring(p, (0, 0.7, 0), 0.26, 0.56), 0), (_capsule(p, (0, 0.95, 0), (0.06, 1.45, 0), 0.055), 2), (leaf, 5)]


def _ball(p: Tensor) -> "list":
    angle = torch.atan2(p[:, 0], p[:, 2])
    return _where((angle * 6 / (2 * math.pi)).floor() % 2 == 0, _sphere(p, (0, 0.85, 0), 0.85), (0, 1))


def _cube(p: Tensor) -> "list":
    return [(_box(p, (0, 0.65, 0), (0.65, 0.65, 0.65), 0.06), 0)]


def _cup(p: Tensor) -> "list":
    bowl = torch.maximum(_cylinder(p, 0, 1.2, 0.6), -_cylinder(p, 0.15, 2.0, 0.48))
    handle = torch.maximum(_ring(p, (0.6, 0.62, 0), 0.32, 0.095, axis=2), 0.52 - p[:, [0, 2]].norm(dim=-1))
    return [(torch.minimum(bowl, handle), 0)]


def _donut(p: Tensor) -> "list":
    tilt = math.radians(50)  # stands up against nothing, so that its hole is seen
    y, z = p[:, 1] - 0.75, p[:, 2]
    turned = torch.stack(
        [p[:, 0], math.cos(tilt) * y + math.sin(tilt) * z, math.cos(tilt) * z - math.sin(tilt) * y], -1
    )
    body = _ring(turned, (0, 0, 0), 0.6, 0.34)
    return _where(turned[:, 1] > -0.02, body, (0, 6))


def _duck(p: Tensor) -> "list":
    body = _ellipsoid(p, (0, 0.48, 0), (0.85, 0.5, 0.58))
    tail = _ellipsoid(p, (-0.75, 0.78, 0), (0.28, 0.2, 0.22))
    head = _sphere(p, (0.42, 1.18, 0), 0.42)
    beak = _ellipsoid(p, (0.9, 1.1, 0), (0.28, 0.1, 0.2))
    eyes = torch.minimum(_sphere(p, (0.68, 1.3, 0.3), 0.085), _sphere(p, (0.68, 1.3, -0.3), 0.085))
    return [(torch.stack([body, tail, head]).amin(0), 0), (beak, 3), (eyes, 4)]


def _house(p: Tensor) -> "list":
    walls = _box(p, (0, 0.42, 0), (0.72, 0.42, 0.6), 0.02)
    y = p[:, 1] - 0.78
    roof = torch.maximum((p[:, 2].abs() * 0.75 + y * 0.8) / math.hypot(0.75, 0.8) - 0.46, -y)
    roof = torch.maximum(roof, p[:, 0].abs() - 0.86)
    door = _box(p, (-0.25, 0.3, 0.6), (0.16, 0.3, 0.03), 0.0)
    window = _box(p, (0.32, 0.48, 0.6), (0.17, 0.15, 0.03), 0.0)
    return [(roof, 0), (walls, 1), (torch.minimum(door, window), 2)]


def _mushroom(p: Tensor) -> "list":
    cap = torch.maximum(_ellipsoid(p, (0, 0.72, 0), (0.95, 0.8, 0.95)), 0.72 - p[:, 1])
    spots = p.new_tensor(
        [[0, 1.52, 0.1], [0.55, 1.3, 0.35], [-0.5, 1.32, 0.35], [0.05, 1.15, 0.83], [-0.78, 0.98, 0.38]]
    )
    spots = torch.cat([spots, spots.new_tensor([[0.8, 0.95, 0.4], [0.0, 1.3, -0.65]])])
    spotted = torch.cdist(p, spots).amin(-1) < 0.2
    return _where(spotted, cap, (1, 0)) + [(_cone(p, 0, 0.8, 0.4, 0.3), 1)]


def _snowman(p: Tensor) -> "list":
    balls = torch.minimum(_sphere(p, (0, 0.52, 0), 0.56), _sphere(p, (0, 1.28, 0), 0.38))
    scarf = _ring(p, (0, 0.98, 0), 0.3, 0.12)
    hat = torch.minimum(_cylinder(p, 1.56, 2.0, 0.27), _cylinder(p, 1.52, 1.6, 0.42))
    nose = _capsule(p, (0, 1.3, 0.3), (0.04, 1.28, 0.62), 0.06)
    eyes = torch.minimum(_sphere(p, (-0.14, 1.42, 0.33), 0.06), _sphere(p, (0.14, 1.42, 0.33), 0.06))
    return [(torch.minimum(scarf, hat), 0), (balls, 1), (nose, 3), (eyes, 4)]


def _tree(p: Tensor) -> "list":
    tiers = [_cone(p, 0.35, 1.05, 0.85, 0.35), _cone(p, 0.85, 1.5, 0.68, 0.22), _cone(p, 1.3, 2.05, 0.5, 0.03)]
    return [(torch.stack(tiers).amin(0), 0), (_cylinder(p, 0, 0.5, 0.17), 2)]


SHAPES: "dict[str, Callable[[Tensor], list]]" = {
    "apple": _apple,
    "ball": _ball,
    "cube": _cube,
    "cup": _cup,
    "donut": _donut,
    "duck": _duck,
    "house": _house,
    "mushroom": _mushroom,
    "snowman": _snowman,
    "tree": _tree,
}
