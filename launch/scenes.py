"""Pictures made by rule, with exact truth: solids on a floor, their classes, depths, normals, and captions of two kinds.

A scene is a function of (seed, number). Each has a camera of its own: the horizon's height. Objects stand on the floor, are smaller
the farther they are, hide what is behind them, and are lit from one side. Colours have noise, so that no pixel tells its class.
The caption of the web's kind names one object, with words dropped and shuffled. The synthetic one names all objects and how they
lie.
"""

import dataclasses

import numpy as np

SHAPES = ("floor", "sphere", "square", "triangle")  # the classes
COLOURS = {
    "red": (205, 50, 45),
    "green": (60, 160, 70),
    "blue": (55, 90, 200),
    "yellow": (225, 200, 60),
    "purple": (140, 70, 170),
    "white": (225, 225, 220),
}
NEAR, FAR = 1.0, 9.0
_VISIBLE = 12  # pixels of an object that captions speak of


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object that can be seen. `x` is the middle of what is seen, in pixels from the left, and `area` its number of pixels."""

    shape: str
    colour: str
    depth: float
    x: float
    area: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclasses.dataclass(frozen=True)
class Scene:
    """`pixels` uint8 [S, S, 3]; `classes` uint8 [S, S], positions in SHAPES; `depth` float32 [S, S] from NEAR to FAR; `normals`
    float32 [S, S, 3], right, down and towards the viewer; `things` from left to right."""

    pixels: np.ndarray
    classes: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    things: tuple[Thing, ...]
    caption: str
    synthetic_caption: str


def scene(seed: int, number: int, size: int = 64, objects: int = 5) -> Scene:
    """Returns a scene of so many objects on a square of `size` pixels."""
    random = np.random.default_rng([seed, number])
    across, down = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    horizon = random.uniform(0.15, 0.4) * size
    depth, normals, shade = _floor(down, horizon, size)
    pixels = shade[..., None] * random.uniform(70, 140, 3)
    classes, owner = np.zeros((size, size), np.uint8), np.full((size, size), -1)
    drawn = sorted((random.uniform(1.5, 6.0), random.integers(1, 4), random.integers(6)) for _ in range(objects))[::-1]
    for index, (distance, shape, colour) in enumerate(drawn):
        radius = random.uniform(0.25, 0.42) * size / distance**0.8
        ground = horizon + (1 / distance - 1 / FAR) / (1 / NEAR - 1 / FAR) * (size - horizon)
        x, y = (across - random.uniform(0.05, 0.95) * size) / radius, (down - ground + radius) / radius
        mask, facing, light = _solid(SHAPES[shape], x, y)
        classes[mask], owner[mask] = shape, index
        depth[mask] = distance - (0.3 * facing[mask, 2] if SHAPES[shape] == "sphere" else 0.0)
        normals[mask] = facing[mask]
        pixels[mask] = np.array(list(COLOURS.values())[colour]) * light[mask, None] * random.uniform(0.85, 1.1)
    pixels += random.normal(0, 9, pixels.shape)
    things = _things(drawn, owner, across)
    return Scene(
        np.clip(pixels.round(), 0, 255).astype(np.uint8),
        classes,
        np.clip(depth, NEAR, FAR).astype(np.float32),
        normals.astype(np.float32),
        things,
        _web_caption(things, random),
        _synthetic_caption(things, random),
    )


def _floor(down: np.ndarray, horizon: float, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns depth, normals and brightness of a floor that rises to a wall at the horizon. Its inverse depth is even in `down`."""
    share = np.clip((down - horizon) / (size - horizon), 0, 1)
    depth = 1 / (1 / FAR + share * (1 / NEAR - 1 / FAR))
    normals = np.where((down > horizon)[..., None], (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
    return depth, normals, 0.55 + 0.45 * share


def _solid(shape: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns where a solid of radius 1 is, its normals, and its brightness."""
    flat = np.broadcast_to(np.array((0.0, 0.0, 1.0)), (*x.shape, 3))
    if shape == "sphere":
        height = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
        normals = np.stack([x, y, height], -1)
        light = 0.35 + 0.65 * np.clip(normals @ np.array((-0.5, -0.6, 0.62)), 0, 1)
        return x**2 + y**2 < 1, normals, light
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.85, flat, 0.9 - 0.12 * x
    return (y < 0.9) & (abs(x) < (y + 1) / 1.9 * 0.95), flat, 0.9 + 0.1 * y


def _things(drawn, owner: np.ndarray, across: np.ndarray) -> tuple[Thing, ...]:
    """Returns the objects that can be seen, from left to right."""
    seen = []
    for index, (distance, shape, colour) in enumerate(drawn):
        mask = owner == index
        if mask.sum() >= _VISIBLE:
            seen.append(
                Thing(
                    SHAPES[shape], list(COLOURS)[colour], float(distance), float(across[mask].mean()), int(mask.sum())
                )
            )
    return tuple(sorted(seen, key=lambda thing: thing.x))


def _web_caption(things: tuple[Thing, ...], random: np.random.Generator) -> str:
    """Returns words of one object, of which two in five are dropped, in any order; at least one stays."""
    if not things:
        return "picture"
    words = ["photo", "of", "a", *random.choice(np.array(things, object)).name.split()]
    kept = [word for word in words if random.random() < 0.6] or words[-1:]
    return " ".join(random.permutation(kept))


def _synthetic_caption(things: tuple[Thing, ...], random: np.random.Generator) -> str:
    """Returns a sentence of all objects from left to right, and one of how two of them lie in depth."""
    if not things:
        return "an empty floor."
    listed = ", ".join(f"a {thing.name}" for thing in things)
    if len(things) == 1:
        return f"{listed} on a floor."
    one, other = random.choice(len(things), 2, replace=False)
    nearer = "in front of" if things[one].depth < things[other].depth else "behind"
    return f"from left to right {listed}. the {things[one].name} is {nearer} the {things[other].name}."
