"""Draws the pictures and clips of the example posts: flat cartoon faces in meme layouts, nothing but Pillow and numpy.

A `Look` fixes everything about a scene that is not feeling (who, colours, where, clutter); an `Expression` is the
feeling, a bundle of numbers that can be blended, so that a clip is the same scene with the feeling growing. Everything
is drawn at `SCALE` times its final size and shrunk at the end, which is what smooths the edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

Mood = Literal["happy", "angry", "calm", "surprised", "sad"]
Colour = tuple[int, int, int]
Point = tuple[float, float]

SCALE = 2
IMAGE_SIZE = 272
CLIP_SIZE = 224
CLIP_FRAMES = 24
CLIP_FPS = 12


@dataclass(frozen=True, slots=True)
class Expression:
    """What the face does; 0 is rest. `smile` and `brow_tilt` go from -1 to 1 (sad to glad, worried to angry)."""

    smile: float = 0.0
    gape: float = 0.0
    mouth: float = 0.34
    brow_tilt: float = 0.0
    brow_lift: float = 0.0
    eyes: float = 0.62
    teeth: float = 0.0
    tears: float = 0.0
    flush: float = 0.0
    blush: float = 0.0
    hands: float = 0.0

    def towards(self, other: Expression, share: float) -> Expression:
        """The expression `share` of the way from this one to `other`."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return Expression(**{name: a + (b - a) * share for name, (a, b) in pairs.items()})


EXPRESSIONS: dict[Mood, Expression] = {
    "happy": Expression(smile=1.0, gape=0.8, mouth=0.52, brow_lift=0.5, eyes=1.0, blush=1.0),
    "angry": Expression(
        smile=-0.9, gape=0.45, mouth=0.46, brow_tilt=1.0, brow_lift=-0.7, eyes=0.72, teeth=1.0, flush=1.0
    ),
    "calm": Expression(),
    "surprised": Expression(gape=1.0, mouth=0.24, brow_lift=1.5, eyes=1.45, hands=1.0),
    "sad": Expression(smile=-0.85, mouth=0.36, brow_tilt=-1.0, brow_lift=0.4, eyes=0.8, tears=1.0),
}

# background, strong accent, light accent
PALETTES: dict[Mood, tuple[tuple[str, str, str], ...]] = {
    "happy": (("#FFD166", "#F78C3B", "#FFF0BF"), ("#FFC98B", "#F2643D", "#FFEBD2"), ("#F8E16C", "#F29E4C", "#FFF9D6")),
    "angry": (("#D7263D", "#7A0C1E", "#FF8C61"), ("#C8321F", "#5B0F0A", "#FFB347"), ("#B51A3A", "#3D0814", "#FF6B4A")),
    "calm": (("#D5DED3", "#8FA58C", "#F2F5EE"), ("#E4D8CB", "#A8937E", "#F7F0E8"), ("#D3D6DC", "#8C94A3", "#F1F3F6")),
    "surprised": (
        ("#8B4BD8", "#FF7AD9", "#F1E0FF"),
        ("#6A3FC8", "#3DDBD9", "#E6DEFF"),
        ("#B04FD0", "#FFD84D", "#FBE3FF"),
    ),
    "sad": (("#4F7CA3", "#264663", "#B7D4E8"), ("#5B7391", "#2A3950", "#C3D1E2"), ("#3E6D8E", "#1B3A52", "#A5CBE0")),
}
HEADS: dict[str, tuple[str, ...]] = {
    "person": ("#F6D2B8", "#E8B48F", "#C98B62", "#9A633F", "#6F4429"),
    "cat": ("#F2A65A", "#9AA0A8", "#F3E3C7", "#5C5F6B"),
    "bear": ("#A9714B", "#C99A5B", "#F2EBE1", "#7D5A44"),
    "frog": ("#8CC152", "#6FB98F", "#B5CC5A"),
    "blob": ("#F29CB7", "#7FD1C7", "#B9A4EC", "#F7C873"),
}
HAIR = ("#2B2118", "#5A3A22", "#A5562B", "#E0B050", "#7A7F8A", "#B5487A")
SHIRTS = ("#3D5A80", "#EE6C4D", "#2A9D8F", "#F4F1DE", "#6D597A", "#E9C46A", "#293241", "#81B29A")
DESKS = ("#B08968", "#CDB4A0", "#8D99AE", "#DDE5B6", "#EDC7B7", "#5F6F7F", "#A3B9C9")
INK: Colour = (38, 32, 42)
WHITE: Colour = (255, 255, 255)


def rgb(colour: str) -> Colour:
    """`#RRGGBB` as three numbers."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` of the way from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in outline font, the only one that is on every machine."""
    loaded = ImageFont.load_default(size=size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, which the example pictures need for their captions")
    return loaded


class Pen:
    """Draws in face units (head radius 1, y down) onto a canvas: scaled, turned, squashed and moved."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, origin: Point, radius: float, angle: float = 0.0, squash: float = 1.0
    ) -> None:
        self.draw = draw
        self.radius = radius
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        self._matrix = np.diag([radius / math.sqrt(squash), radius * squash]) @ turn
        self._origin = np.array(origin)

    def _place(self, points: Sequence[Point] | np.ndarray) -> list[Point]:
        placed = np.asarray(points, dtype=float) @ self._matrix + self._origin
        return [(x, y) for x, y in placed.tolist()]

    def polygon(self, points: Sequence[Point] | np.ndarray, fill: Colour) -> None:
        self.draw.polygon(self._place(points), fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        self.polygon(oval(x, y, rx, ry), fill)

    def stroke(self, points: Sequence[Point] | np.ndarray, width: float, fill: Colour) -> None:
        """A line with round joints and ends."""
        placed = self._place(points)
        pixels = max(2, round(width * self.radius))
        self.draw.line(placed, fill=fill, width=pixels, joint="curve")
        for x, y in (placed[0], placed[-1]):
            self.draw.ellipse((x - pixels / 2, y - pixels / 2, x + pixels / 2, y + pixels / 2), fill=fill)


def oval(x: float, y: float, rx: float, ry: float, points: int = 36) -> np.ndarray:
    """The outline of an ellipse, (points, 2)."""
    return _circle(points) * (rx, ry) + (x, y)


@lru_cache(maxsize=8)
def _circle(points: int) -> np.ndarray:
    turn = np.linspace(0, 2 * math.pi, points, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def star(x: float, y: float, outer: float, inner: float, spikes: int, turn: float = 0.0) -> np.ndarray:
    """The outline of a star, (2 * spikes, 2)."""
    angles = turn + np.arange(2 * spikes) * math.pi / spikes
    radii = np.where(np.arange(2 * spikes) % 2 == 0, outer, inner)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)


def heart(x: float, y: float, size: float) -> np.ndarray:
    """The outline of a heart, (24, 2)."""
    turn = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    height = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return np.stack([x + size * np.sin(turn) ** 3, y - size * height / 16], axis=1)


@dataclass(frozen=True, slots=True)
class Look:
    """Everything about a scene except the feeling; places are shares of the canvas."""

    kind: str
    skin: Colour
    hair: Colour
    shirt: Colour
    haircut: int
    extra: int
    pattern: int
    palette: tuple[Colour, Colour, Colour]
    centre: Point
    radius: float
    tilt: float
    decorated: bool
    grins: bool
    dots: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, mood: Mood) -> Look:
        """A random look. Four scenes in five have their mood's colours, nine in ten its decorations."""
        kind = str(rng.choice(list(HEADS), p=[0.4, 0.2, 0.15, 0.1, 0.15]))
        shade: Mood = mood if rng.random() < 0.8 else list(PALETTES)[rng.integers(len(PALETTES))]
        background, strong, light = PALETTES[shade][rng.integers(3)]
        return cls(
            kind=kind,
            skin=rgb(str(rng.choice(HEADS[kind]))),
            hair=rgb(str(rng.choice(HAIR))),
            shirt=rgb(str(rng.choice(SHIRTS))),
            haircut=int(rng.integers(4)),
            extra=int(rng.integers(8)),
            pattern=int(rng.integers(5)),
            palette=(rgb(background), rgb(strong), rgb(light)),
            centre=(float(rng.uniform(0.34, 0.66)), float(rng.uniform(0.47, 0.58))),
            radius=float(rng.uniform(0.25, 0.31)),
            tilt=float(rng.uniform(-0.16, 0.16)),
            decorated=bool(rng.random() < 0.9),
            grins=bool(rng.random() < 0.5),
            dots=rng.random((28, 3)),
        )


def _paint_pattern(draw: ImageDraw.ImageDraw, size: tuple[int, int], look: Look, colour: Colour) -> None:
    """Wallpaper that carries no feeling: it keeps one scene from looking like another."""
    width, height = size
    if look.pattern == 0:
        slant, step = look.dots[0, 0] * 1.6 - 0.8, width * (0.12 + 0.1 * look.dots[0, 1])
        for k in range(-8, 16):
            x = k * step
            draw.polygon(
                [(x, 0), (x + step / 2, 0), (x + step / 2 + slant * height, height), (x + slant * height, height)],
                colour,
            )
    elif look.pattern == 1:
        for x, y, r in look.dots[:14]:
            reach = width * (0.03 + 0.1 * r)
            draw.ellipse((x * width - reach, y * height - reach, x * width + reach, y * height + reach), fill=colour)
    elif look.pattern == 2:
        level = height * (0.3 + 0.4 * look.dots[0, 0])
        draw.rectangle((0, level, width, height), fill=colour)
    elif look.pattern == 3:
        x, y = look.dots[0, 0] * width, look.dots[0, 1] * height
        draw.ellipse((x - width * 0.5, y - width * 0.5, x + width * 0.5, y + width * 0.5), fill=colour)
    else:
        draw.polygon(
            [(0, height * look.dots[0, 0]), (width, height * look.dots[0, 1]), (width, height), (0, height)], colour
        )


def _paint_decor(pen: Pen, look: Look, mood: Mood, level: float, phase: float) -> None:
    """What surrounds the head: rays, spikes, speed lines or rain, as strong as `level` and as far as `phase`."""
    background, strong, light = look.palette
    if mood == "happy":
        for k in range(12):
            a = k * math.pi / 6 + phase * 0.6
            wedge = [(0.0, 0.0), (4 * math.cos(a), 4 * math.sin(a)), (4 * math.cos(a + 0.26), 4 * math.sin(a + 0.26))]
            pen.polygon(wedge, mix(background, light, 0.75 * level))
        for k, (x, y, r) in enumerate(look.dots[:16]):
            place = (5 * x - 2.5, ((4 * y + phase * 1.5) % 4) - 2)
            tint = (strong, rgb("#FF5D8F"), rgb("#34A0A4"), WHITE)[k % 4]
            pen.polygon(
                heart(*place, 0.16 * level) if k % 4 == 1 else star(*place, 0.14 * level, 0.14 * level, 2, 6 * r), tint
            )
    elif mood == "angry":
        pen.polygon(star(0, 0, 1.2 + 0.75 * level, 1.0 + 0.25 * level, 13, phase * 0.5), mix(background, strong, level))
        for x, y, r in look.dots[:5]:
            bolt = np.array([(0, 0), (0.3, 0.02), (0.16, 0.3), (0.42, 0.3), (-0.08, 0.95), (0.06, 0.45), (-0.18, 0.45)])
            pen.polygon(bolt * (0.5 + 0.4 * r) * level + (4.4 * x - 2.2, -1.9 + 0.9 * y), rgb("#FFD23F"))
    elif mood == "surprised":
        for k, (_, y, r) in enumerate(look.dots):
            a = (k + r) * 2 * math.pi / len(look.dots)
            near, half = 1.45 + 0.5 * y, 0.02 + 0.035 * r
            rim = [(4 * math.cos(a - half), 4 * math.sin(a - half)), (4 * math.cos(a + half), 4 * math.sin(a + half))]
            pen.polygon([(near * math.cos(a), near * math.sin(a)), *rim], mix(background, light, level))
    elif mood == "sad":
        for x, y, r in look.dots[:22]:
            drop = (5.4 * x - 2.7, ((4.4 * y + phase * 5) % 4.4) - 2.2)
            pen.stroke([drop, (drop[0] - 0.1, drop[1] + 0.3 + 0.2 * r)], 0.05, mix(background, light, level))
        for x, width in ((-0.75, 0.55), (0.0, 0.75), (0.75, 0.5)):
            pen.ellipse(x, -1.75 + 0.25 * (1 - level), width, 0.42 * level, mix(background, strong, 0.8))


def _paint_signs(pen: Pen, look: Look, mood: Mood, level: float, phase: float) -> None:
    """What flies in front of the head: steam, exclamation marks, sparkles."""
    if mood == "angry":
        for side in (-1, 1):
            for k in range(3):
                drift = (phase * 2 + k / 3) % 1
                puff = (0.12 + 0.13 * drift) * level
                pen.ellipse(side * (1.15 + 0.55 * drift), -0.35 - 0.75 * drift, puff, puff, (250, 244, 238))
        for a in np.arange(4) * math.pi / 2 + 0.4:
            x, y = 0.62 + 0.1 * math.cos(a), -0.72 + 0.1 * math.sin(a)
            pen.stroke(
                [(x, y), (x + 0.17 * level * math.cos(a + 0.5), y + 0.17 * level * math.sin(a + 0.5))],
                0.06,
                rgb("#8D0B1D"),
            )
    elif mood == "surprised":
        for side in (-1, 1):
            x, lift = side * 1.38, 0.2 * (1 - level) - 0.06 * math.sin(9 * phase)
            top = [(x - 0.14, -1.25 + lift), (x + 0.14, -1.25 + lift), (x + 0.07, -0.6 + lift), (x - 0.07, -0.6 + lift)]
            pen.polygon(top, mix(look.palette[0], rgb("#FFE94A"), level))
            pen.ellipse(x, -0.42 + lift, 0.1, 0.1, mix(look.palette[0], rgb("#FFE94A"), level))
    elif mood == "happy":
        for k, (x, y) in enumerate(((-1.35, -0.75), (1.35, -0.6), (1.15, -1.15))):
            reach = (0.2 + 0.07 * math.sin(7 * phase + k)) * level
            pen.polygon(star(x, y, reach, reach * 0.35, 4), WHITE)


def _paint_head(pen: Pen, look: Look, skin: Colour) -> None:
    """Shoulders, ears, hair and skull: all that tells who it is."""
    dark, soft = mix(skin, INK, 0.25), mix(skin, WHITE, 0.4)
    if look.kind == "person" and look.haircut == 1:
        pen.ellipse(0, 0.2, 1.2, 1.3, look.hair)
    pen.ellipse(0, 2.15, 1.25, 1.2, look.shirt)
    pen.ellipse(0, 1.02, 0.36, 0.26, mix(skin, INK, 0.15))
    if look.kind == "person":
        if look.haircut == 2:
            pen.ellipse(0.0, -1.2, 0.42, 0.4, look.hair)
        for side in (-1, 1):
            pen.ellipse(side * 0.98, 0.05, 0.17, 0.22, dark)
    for side in (-1, 1):
        if look.kind == "cat":
            pen.polygon([(side * 0.95, -0.3), (side * 0.9, -1.35), (side * 0.22, -0.8)], skin)
            pen.polygon([(side * 0.82, -0.55), (side * 0.8, -1.1), (side * 0.42, -0.8)], rgb("#F4A6A6"))
        elif look.kind == "bear":
            pen.ellipse(side * 0.75, -0.78, 0.36, 0.36, skin)
            pen.ellipse(side * 0.75, -0.78, 0.2, 0.2, soft)
        elif look.kind == "frog":
            pen.ellipse(side * 0.42, -0.72, 0.4, 0.4, skin)
        elif look.kind == "blob":
            pen.stroke([(side * 0.4, -0.8), (side * 0.55, -1.3)], 0.07, dark)
            pen.ellipse(side * 0.55, -1.32, 0.13, 0.13, look.palette[1])
    pen.ellipse(0, 0, 1.04 if look.kind != "person" else 0.96, 1.0, skin)
    if look.kind == "bear":
        pen.ellipse(0, 0.36, 0.56, 0.46, soft)
    elif look.kind == "person" and look.haircut < 3:
        x = np.linspace(-1, 1, 41)
        crown = -1.03 * np.sqrt(1 - x**2)
        fringe = (-0.52, -0.6, -0.66)[look.haircut] + 0.14 * np.cos((2.5, 4.0, 1.6)[look.haircut] * x)
        pen.polygon(
            np.concatenate([np.stack([x, crown], axis=1), np.stack([x, np.maximum(crown, fringe)], axis=1)[::-1]]),
            look.hair,
        )


def _paint_eyes(pen: Pen, look: Look, face: Expression, skin: Colour) -> None:
    """Eyes cut off by their lids, and the brows above them."""
    brow_tint = mix(look.hair if look.kind == "person" else skin, INK, 0.6)
    big = 0.235 * (0.9 + 0.5 * max(face.eyes - 1, 0))
    for side in (-1, 1):
        x, y = side * 0.39, -0.13
        edge = y - 1.08 * big + 2.16 * big * max(1 - face.eyes, 0)
        if face.smile > 0.85 and look.grins:
            u = np.linspace(-1, 1, 13)
            pen.stroke(np.stack([x + 0.2 * u, y + 0.06 - 0.2 * (1 - u**2)], axis=1), 0.085, INK)
        else:
            for share, tint in ((1.0, WHITE), (0.6 if face.eyes < 1.2 else 0.36, INK)):
                shape = oval(x, y, big * share, 1.08 * big * share)
                lid = edge - 0.5 * face.brow_tilt * side * (shape[:, 0] - x)
                pen.polygon(np.stack([shape[:, 0], np.maximum(shape[:, 1], lid)], axis=1), tint)
            if face.eyes < 0.95:
                fall = 0.5 * face.brow_tilt * big
                pen.stroke([(x - side * big, edge + fall), (x + side * big, edge - fall)], 0.05, INK)
            else:
                pen.ellipse(x + 0.05, y - 0.06, 0.045, 0.05, WHITE)
        brow = -0.52 - 0.13 * face.brow_lift
        bend = 0.15 * face.brow_tilt
        pen.stroke([(side * 0.64, brow - bend), (side * 0.4, brow - 0.04), (side * 0.16, brow + bend)], 0.1, brow_tint)


def _paint_mouth(pen: Pen, face: Expression) -> None:
    """Lips as two curves over -1..1: corners follow `smile`, their distance follows `gape`."""
    u = np.linspace(-1, 1, 25)
    arch = np.sqrt(1 - u**2)
    middle = 0.46 - 0.22 * face.smile * (u**2 - 0.45)
    above = middle - 0.32 * face.gape * arch * (1 - abs(face.smile)) - 0.22 * face.gape * arch * max(-face.smile, 0)
    below = middle + 0.42 * face.gape * arch * (1 if face.smile > -0.1 else 0.35)
    x = face.mouth * u
    if face.gape < 0.06:
        pen.stroke(np.stack([x, middle], axis=1), 0.075, INK)
        return
    outline = np.concatenate([np.stack([x, above], axis=1), np.stack([x, below], axis=1)[::-1]])
    pen.polygon(outline, mix(rgb("#6B1D2A"), WHITE, face.teeth))
    if face.smile > 0.3:
        pen.polygon(
            np.concatenate([np.stack([x, above], axis=1), np.stack([x, above + 0.3 * (below - above)], axis=1)[::-1]]),
            WHITE,
        )
        pen.ellipse(0, float(below[12]) - 0.09 * face.gape, 0.22, 0.09 * face.gape, rgb("#F28482"))
    if face.teeth > 0.3:
        pen.stroke(np.stack([x, (above + below) / 2], axis=1), 0.03, INK)
        for k in (4, 8, 12, 16, 20):
            pen.stroke([(x[k], above[k]), (x[k], below[k])], 0.03, INK)
    pen.stroke(np.concatenate([outline, outline[:1]]), 0.05, INK)


def _paint_cheeks(pen: Pen, look: Look, face: Expression, skin: Colour, phase: float) -> None:
    """Blush, tears and hands on the cheeks, and what an animal or a fashionable person wears."""
    for side in (-1, 1):
        if face.blush > 0.05:
            pen.ellipse(side * 0.66, 0.22, 0.18, 0.12, mix(skin, rgb("#FF5C7A"), 0.55 * face.blush))
        if face.tears > 0.05:
            x, length = side * 0.43, 0.75 * face.tears
            pen.stroke([(x, 0.12), (x + side * 0.05, 0.12 + length)], 0.15, rgb("#63C5F2"))
            fall = (phase * 2 + 0.5 * (side > 0)) % 1
            pen.ellipse(x + side * 0.06, 0.2 + length + 0.35 * fall, 0.1, 0.14, rgb("#63C5F2"))
        if face.hands > 0.05:
            y = 1.7 - 1.15 * face.hands
            pen.stroke([(side * 1.15, 2.4), (side * 0.92, y)], 0.3, look.shirt)
            pen.ellipse(side * 0.86, y, 0.2, 0.3, mix(skin, INK, 0.12))
        if look.kind == "cat":
            for rise in (-0.05, 0.08):
                pen.stroke([(side * 0.6, 0.2 + rise), (side * 1.2, 0.14 + 2 * rise)], 0.025, mix(skin, INK, 0.6))
        if look.extra == 0:
            rim = oval(side * 0.39, -0.13, 0.31, 0.31)
            pen.stroke(np.concatenate([rim, rim[:1]]), 0.05, INK)
            pen.stroke([(side * 0.7, -0.13), (side * 0.97, -0.2)], 0.05, INK)
    if look.kind in ("cat", "bear"):
        pen.polygon([(-0.1, 0.1), (0.1, 0.1), (0, 0.22)], mix(rgb("#D96C75"), INK, 0.5 * (look.kind == "bear")))
    elif look.kind == "person":
        pen.stroke([(-0.02, -0.02), (0.06, 0.17), (-0.05, 0.19)], 0.045, mix(skin, INK, 0.35))
    if look.extra == 1:
        turn = np.linspace(math.pi, 2 * math.pi, 24)
        pen.polygon(np.stack([1.02 * np.cos(turn), -0.62 + 0.66 * np.sin(turn)], axis=1), look.palette[1])
        pen.stroke([(-1.0, -0.68), (1.0, -0.68)], 0.16, mix(look.palette[1], WHITE, 0.35))
    elif look.extra == 2:
        pen.polygon([(0.55, -0.95), (0.95, -1.25), (0.95, -0.65)], look.shirt)
        pen.polygon([(0.55, -0.95), (0.15, -1.25), (0.15, -0.65)], look.shirt)
        pen.ellipse(0.55, -0.95, 0.12, 0.12, mix(look.shirt, INK, 0.3))


def paint_face(pen: Pen, look: Look, face: Expression, phase: float = 0.0) -> None:
    """A head with this expression, at the pen's place."""
    skin = mix(mix(look.skin, rgb("#E5383B"), 0.5 * face.flush), rgb("#7FA6C9"), 0.2 * face.tears)
    _paint_head(pen, look, skin)
    _paint_eyes(pen, look, face, skin)
    _paint_mouth(pen, face)
    _paint_cheeks(pen, look, face, skin, phase)


def paint_scene(size: tuple[int, int], look: Look, mood: Mood, level: float = 1.0, phase: float = 0.3) -> Image.Image:
    """A face in its surroundings, `size` in canvas pixels; the feeling is `level` strong (0 is a calm face)."""
    width, height = size
    calm = rgb(PALETTES["calm"][look.pattern % 3][0])
    background = mix(calm, look.palette[0], 0.25 + 0.75 * level)
    canvas = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(canvas)
    _paint_pattern(draw, size, look, mix(background, look.palette[2], 0.35))
    shift_x, shift_y, squash, turn = _motion(mood, level, phase)
    reach = look.radius * min(width, height)
    origin = (look.centre[0] * width + shift_x * reach, look.centre[1] * height + shift_y * reach)
    still = Pen(draw, (look.centre[0] * width, look.centre[1] * height), reach)
    if look.decorated:
        _paint_decor(still, look, mood, level, phase)
    face = EXPRESSIONS["calm"].towards(EXPRESSIONS[mood], level)
    paint_face(Pen(draw, origin, reach, look.tilt + turn, squash), look, face, phase)
    if look.decorated:
        _paint_signs(still, look, mood, level, phase)
    return canvas


def _motion(mood: Mood, level: float, phase: float) -> tuple[float, float, float, float]:
    """How the head moves: (right, down) in head radii, squash (1 is none) and turn in radians."""
    if mood == "angry":
        return (
            0.09 * level * math.sin(40 * phase),
            0.04 * level * math.cos(53 * phase),
            1.0,
            0.05 * level * math.sin(31 * phase),
        )
    if mood == "happy":
        hop = abs(math.sin(9 * phase))
        return 0.0, -0.28 * level * hop, 1 + 0.08 * level * (hop - 0.5), 0.08 * level * math.sin(9 * phase)
    if mood == "sad":
        return 0.0, 0.22 * level, 1 - 0.05 * level, 0.16 * level
    if mood == "surprised":
        return 0.0, -0.16 * level, 1 + 0.1 * level, 0.0
    return 0.06 * math.sin(3 * phase), 0.0, 1.0, 0.03 * math.sin(3 * phase)


def paint_object(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A photo of things without a face: hills, a mug, a pizza, a plant or a skyline. It says nothing of feeling."""
    width, height = size
    shade: Mood = list(PALETTES)[rng.integers(len(PALETTES))]
    background, strong, light = (rgb(c) for c in PALETTES[shade][rng.integers(3)])
    canvas = Image.new("RGB", size, mix(background, light, 0.5))
    draw = ImageDraw.Draw(canvas)
    middle = (width * rng.uniform(0.36, 0.64), height * rng.uniform(0.48, 0.6))
    pen = Pen(draw, middle, 0.3 * min(size) * rng.uniform(0.85, 1.15), rng.uniform(-0.06, 0.06))
    theme = int(rng.integers(5))
    if theme == 0:
        pen.ellipse(rng.uniform(-1, 1), rng.uniform(-1.2, -0.7), 0.4, 0.4, light)
        for k in range(4):
            x = rng.uniform(-1.8, 1.8)
            peak = (x, rng.uniform(-0.9, 0.1) + 0.25 * k)
            pen.polygon(
                [peak, (x + rng.uniform(1.2, 2.2), 2.5), (x - rng.uniform(1.2, 2.2), 2.5)],
                mix(strong, background, 0.2 * k),
            )
    elif theme == 4:
        for k in range(9):
            left, top = -2.4 + 0.55 * k, rng.uniform(-1.1, 0.6)
            pen.polygon(
                [(left, top), (left + 0.5, top), (left + 0.5, 3), (left, 3)], mix(strong, INK, rng.uniform(0, 0.5))
            )
            for row in range(5):
                pen.ellipse(left + rng.choice([0.15, 0.35]), top + 0.2 + 0.3 * row, 0.06, 0.08, light)
    else:
        pen.polygon([(-4, 0.75), (4, 0.75), (4, 5), (-4, 5)], mix(strong, light, 0.3))
        _paint_thing(pen, theme, rgb(str(rng.choice(SHIRTS))), rng)
    return canvas


def _paint_thing(pen: Pen, theme: int, tint: Colour, rng: np.random.Generator) -> None:
    """A mug (1), a pizza (2) or a potted plant (3) on a table."""
    if theme == 1:
        pen.ellipse(0.75, 0.35, 0.4, 0.38, tint)
        pen.ellipse(0.75, 0.35, 0.24, 0.22, mix(tint, WHITE, 0.7))
        pen.polygon([(-0.7, -0.3), (0.7, -0.3), (0.6, 1.05), (-0.6, 1.05)], tint)
        pen.ellipse(0, -0.3, 0.7, 0.18, rgb("#5C3D2E"))
        for k in range(3):
            x = 0.35 * (k - 1)
            pen.stroke([(x, -0.6), (x + 0.1, -0.8), (x - 0.05, -1.0), (x + 0.05, -1.2)], 0.06, WHITE)
    elif theme == 2:
        for reach, colour in ((1.1, "#C98442"), (0.98, "#F4C95D")):
            pen.ellipse(0, 0.45, reach, 0.8 * reach, rgb(colour))
        for _ in range(9):
            a, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 0.8)
            pen.ellipse(
                far * math.cos(a),
                0.45 + 0.8 * far * math.sin(a),
                0.15,
                0.12,
                rgb("#C0392B" if rng.random() < 0.7 else "#4F772D"),
            )
    else:
        for a in np.linspace(-1.2, 1.2, 7) + rng.uniform(-0.1, 0.1, 7):
            tip = (1.3 * math.sin(a), 0.35 - 1.3 * math.cos(a))
            pen.polygon(
                [(0.0, 0.5), (0.6 * tip[0] - 0.18, 0.6 * tip[1]), tip, (0.6 * tip[0] + 0.18, 0.6 * tip[1] + 0.2)],
                rgb("#52976B"),
            )
        pen.polygon([(-0.5, 0.3), (0.5, 0.3), (0.38, 1.1), (-0.38, 1.1)], tint)


def wrap(text: str, size: int, width: float) -> list[str]:
    """`text` in lines no wider than `width` pixels in the font of this size."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: tuple[float, float, float, float],
    size: int,
    fill: Colour,
    *,
    outline: int = 0,
    centred: bool = True,
) -> float:
    """Writes wrapped text from the top of `box` and returns where it ends; shrinks the font until it fits."""
    left, top, right, bottom = box
    lines = wrap(text, size, right - left)
    while size > 12 and (
        len(lines) * size * 1.15 > bottom - top or max(font(size).getlength(x) for x in lines) > right - left
    ):
        size -= 2
        lines = wrap(text, size, right - left)
    for k, line in enumerate(lines):
        x = (left + right - font(size).getlength(line)) / 2 if centred else left
        draw.text((x, top + k * size * 1.15), line, fill=fill, font=font(size), stroke_width=outline, stroke_fill=INK)
    return top + len(lines) * size * 1.15


def _stick(canvas: Image.Image, rng: np.random.Generator, count: int) -> None:
    """Stickers along the edges, where they hide no face."""
    width, height = canvas.size
    draw = ImageDraw.Draw(canvas)
    for _ in range(count):
        along = rng.uniform(0.06, 0.94)
        near = rng.choice([0.07, 0.93])
        x, y = (along * width, near * height) if rng.random() < 0.4 else (near * width, along * height)
        pen = Pen(draw, (x, y), 0.06 * width * rng.uniform(0.7, 1.2), rng.uniform(0, 6))
        tint = rgb(str(rng.choice(SHIRTS)))
        shape = int(rng.integers(4))
        for grow, colour in ((1.25, WHITE), (1.0, tint)):
            outlines = (
                star(0, 0, grow, grow * 0.5, 5),
                heart(0, 0, grow),
                oval(0, 0, grow, grow),
                star(0, 0, grow, grow * 0.6, 8),
            )
            pen.polygon(outlines[shape], colour)


def _round_paste(canvas: Image.Image, picture: Image.Image, place: tuple[int, int], corner: int) -> None:
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, picture.width - 1, picture.height - 1), corner, fill=255)
    canvas.paste(picture, place, mask)


def _subject(size: tuple[int, int], mood: Mood | None, rng: np.random.Generator) -> Image.Image:
    """What the layout is about: a face or a thing, with stickers along its edges."""
    if mood is None:
        scene = paint_object(size, rng)
    else:
        scene = paint_scene(size, Look.draw(rng, mood), mood, float(rng.uniform(0.85, 1.0)), float(rng.random()))
    _stick(scene, rng, int(rng.choice([0, 0, 1, 2, 3])))
    return scene


def _meme(side: int, mood: Mood | None, caption: str, rng: np.random.Generator) -> Image.Image:
    """A scene from edge to edge, white captions with a black rim above and perhaps below."""
    canvas = _subject((side, side), mood, rng)
    draw = ImageDraw.Draw(canvas)
    first, _, second = caption.upper().partition(" / ")
    _write(draw, first, (20, 12, side - 20, side * 0.22), 44, WHITE, outline=4)
    if second:
        _write(draw, second, (20, side * 0.86, side - 20, side - 6), 44, WHITE, outline=4)
    return canvas


def _panel(side: int, mood: Mood | None, caption: str, rng: np.random.Generator) -> Image.Image:
    """A white strip of text above the reaction."""
    strip = int(side * rng.uniform(0.16, 0.24))
    ground, ink = ((INK, WHITE), (WHITE, INK))[int(rng.random() < 0.75)]
    canvas = Image.new("RGB", (side, side), ground)
    below = bool(rng.random() < 0.25)
    canvas.paste(_subject((side, side - strip), mood, rng), (0, 0 if below else strip))
    top = side - strip if below else 0
    _write(
        ImageDraw.Draw(canvas),
        caption.replace(" / ", " "),
        (20, top + 14, side - 20, top + strip - 4),
        40,
        ink,
        centred=bool(rng.random() < 0.4),
    )
    return canvas


def _screenshot(side: int, mood: Mood | None, caption: str, rng: np.random.Generator) -> Image.Image:
    """A short message with avatar, name and a picture with round corners."""
    dark = bool(rng.random() < 0.4)
    ground, ink, grey = (rgb("#15202B"), WHITE, rgb("#8899A6")) if dark else (WHITE, INK, rgb("#7A8894"))
    canvas = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(canvas)
    left = int(rng.integers(16, 40))
    draw.ellipse((left, 16, left + 56, 72), fill=rgb(str(rng.choice(SHIRTS))))
    draw.ellipse((left + 17, 26, left + 39, 48), fill=WHITE)
    draw.rounded_rectangle((left + 72, 24, left + 72 + rng.uniform(90, 190), 40), 8, fill=ink)
    draw.rounded_rectangle((left + 72, 50, left + 72 + rng.uniform(60, 130), 62), 6, fill=grey)
    end = int(_write(draw, caption.replace(" / ", " "), (left, 84, side - left, 156), 34, ink, centred=False)) + 14
    picture = _subject((side - 2 * left, side - end - 52), mood, rng)
    _round_paste(canvas, picture, (left, end), 26)
    for k in range(4):
        x = left + 20 + k * (side - 2 * left) / 4
        draw.polygon([(float(px), float(py)) for px, py in heart(x, side - 26, 11)], fill=grey)
        draw.rounded_rectangle((x + 20, side - 32, x + 62, side - 22), 5, fill=grey)
    return canvas


def _card(side: int, mood: Mood | None, caption: str, rng: np.random.Generator) -> Image.Image:
    """An instant photo with a line written under it, lying askew on a desk."""
    desk = rgb(str(rng.choice(DESKS)))
    canvas = Image.new("RGB", (side, side), desk)
    draw = ImageDraw.Draw(canvas)
    for y in np.sort(rng.uniform(0, side, 5)):
        draw.line((0, y, side, y + rng.uniform(-60, 60)), fill=mix(desk, INK, 0.12), width=6)
    photo = (int(side * 0.78), int(side * 0.7))
    paper = Image.new("RGBA", (photo[0] + 44, photo[1] + 100), (250, 248, 242, 255))
    paper.paste(_subject(photo, mood, rng), (22, 22))
    _write(
        ImageDraw.Draw(paper), caption.replace(" / ", " "), (22, photo[1] + 32, photo[0] + 22, photo[1] + 96), 34, INK
    )
    turned = paper.rotate(rng.uniform(-7, 7), Image.Resampling.BICUBIC, expand=True)
    place = (
        int((side - turned.width) / 2 + rng.uniform(-20, 20)),
        int((side - turned.height) / 2 + rng.uniform(-14, 14)),
    )
    canvas.paste(mix(desk, INK, 0.4), (place[0] + 8, place[1] + 10), turned.getchannel("A"))
    canvas.paste(turned, place, turned)
    return canvas


def render_picture(mood: Mood | None, caption: str, rng: np.random.Generator) -> Image.Image:
    """An RGB picture, `IMAGE_SIZE` square: this mood's face (or a thing, for None) in one of four layouts.

    ` / ` in the caption parts its upper from its lower line.
    """
    layout = (_meme, _panel, _screenshot, _card)[int(rng.choice(4, p=[0.36, 0.28, 0.2, 0.16]))]
    canvas = layout(IMAGE_SIZE * SCALE, mood, caption, rng)
    picture = canvas.reduce(SCALE)
    if rng.random() < 0.3:
        grain = rng.normal(0, rng.uniform(2, 6), (picture.height, picture.width, 1))
        picture = Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
    return picture


def render_clip(mood: Mood, caption: str, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Yields `CLIP_FRAMES` RGB frames, `CLIP_SIZE` square: a calm face, full of `mood` within a second."""
    side = CLIP_SIZE * SCALE
    look = Look.draw(rng, mood)
    banner = Image.new("RGBA", (CLIP_SIZE, 44))
    start, start_phase = rng.uniform(0.02, 0.15), rng.random()
    plate = ImageDraw.Draw(banner)
    ground, ink = ((INK, WHITE), (WHITE, INK))[int(rng.random() < 0.6)]
    plate.rounded_rectangle((8, 4, CLIP_SIZE - 8, 40), 10, fill=(*ground, 225))
    _write(plate, caption.replace(" / ", " "), (16, 12, CLIP_SIZE - 16, 40), 16, ink)
    place = (0, 4 if rng.random() < 0.5 else CLIP_SIZE - 50)
    for k in range(CLIP_FRAMES):
        time = k / (CLIP_FRAMES - 1)
        ramp = min(max((time - start) / 0.25, 0.0), 1.0)
        level = ramp * ramp * (3 - 2 * ramp)
        frame = paint_scene((side, side), look, mood, level, start_phase + 1.4 * time).reduce(SCALE)
        frame.paste(banner, place, banner)
        yield frame
