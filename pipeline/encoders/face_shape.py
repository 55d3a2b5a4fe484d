"""The mesh of a face → numbers with names: how far the mouth is open, where the brows are, where the head turns.

The mesh is moved, turned and scaled until the outer corners of the eyes lie where they always do: what stays is the
same whatever the size of the face, its place, and the tilt and turn of the head. Points are numbered as in MediaPipe's
canonical face model; right and left are the person's own.

After the actions of Ekman and Friesen, "Facial action coding system", 1978, as far as a mesh shows them.
"""

import numpy as np

RIGHT = {"outer": 33, "inner": 133, "upper": 159, "lower": 145, "cheek": 50, "wing": 48, "corner": 61}
LEFT = {"outer": 263, "inner": 362, "upper": 386, "lower": 374, "cheek": 280, "wing": 278, "corner": 291}
RIGHT_BROW = {"inner": 55, "middle": 105, "outer": 46}
LEFT_BROW = {"inner": 285, "middle": 334, "outer": 276}
"""Of each side: corners and lids of the eye, cheek, wing of the nose, corner of the mouth; points of the brow."""

FOREHEAD, CHIN, NOSE, UNDER_NOSE = 10, 152, 1, 2
UPPER_LIP, INSIDE_UPPER, INSIDE_LOWER, LOWER_LIP = 0, 13, 14, 17

NAMES = (
    "mouth_open",
    "mouth_width",
    "mouth_corners",
    "mouth_corners_uneven",
    "upper_lip",
    "lower_lip",
    "upper_lip_raise",
    "lower_lip_drop",
    "jaw_open",
    "jaw_aside",
    "eye_open",
    "eye_uneven",
    "brow_raise_inner",
    "brow_raise_middle",
    "brow_raise_outer",
    "brow_uneven",
    "brow_gap",
    "cheek_raise",
    "nose_wrinkle",
    "head_turn",
    "head_nod",
    "head_tilt",
)
"""Lengths in distances between the outer corners of the eyes, angles in radians. ``…_corners`` and ``…_raise`` grow
upwards; ``…_uneven`` is the difference of both sides, whichever it favours."""


def measures(meshes: np.ndarray, tilts: np.ndarray) -> np.ndarray:
    """The numbers of NAMES, float64 [n, len(NAMES)].

    Args:
        meshes: float64 [n, 468, 3], each turned level.
        tilts: by how much they were turned, in radians, [n].
    """
    axes = _axes(meshes)
    scale = np.linalg.norm(meshes[:, LEFT["outer"]] - meshes[:, RIGHT["outer"]], axis=1)
    middle = (meshes[:, LEFT["outer"]] + meshes[:, RIGHT["outer"]]) / 2
    head = np.einsum("nij,nkj->nki", axes, meshes - middle[:, None]) / np.maximum(scale, 1e-9)[:, None, None]
    turn, nod = np.arcsin(axes[:, 0, 2].clip(-1, 1)), np.arcsin(axes[:, 1, 2].clip(-1, 1))
    tilt = tilts + np.arctan2(axes[:, 0, 1], axes[:, 0, 0])
    return np.stack([*_mouth(head), *_eyes(head), turn, nod, tilt], axis=1)


def _axes(meshes: np.ndarray) -> np.ndarray:
    """The head's own axes, float64 [n, 3, 3], one a row: to the person's left, down the face, away from the camera."""
    across = _unit(meshes[:, LEFT["outer"]] - meshes[:, RIGHT["outer"]])
    down = meshes[:, CHIN] - meshes[:, FOREHEAD]
    down = _unit(down - (down * across).sum(axis=1, keepdims=True) * across)
    return np.stack([across, down, np.cross(across, down)], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _mouth(head: np.ndarray) -> list[np.ndarray]:
    """Of meshes in the head's own frame, float64 [n, 468, 3]; each float64 [n]."""

    def between(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(head[:, a] - head[:, b], axis=1)

    corners = head[:, [RIGHT["corner"], LEFT["corner"]], 1]
    lips = head[:, [INSIDE_UPPER, INSIDE_LOWER], 1].mean(axis=1)
    return [
        between(INSIDE_UPPER, INSIDE_LOWER),
        between(RIGHT["corner"], LEFT["corner"]),
        lips - corners.mean(axis=1),
        np.abs(corners[:, 0] - corners[:, 1]),
        between(UPPER_LIP, INSIDE_UPPER),
        between(INSIDE_LOWER, LOWER_LIP),
        -between(UNDER_NOSE, UPPER_LIP),
        -between(LOWER_LIP, CHIN),
        between(NOSE, CHIN),
        head[:, CHIN, 0],
    ]


def _eyes(head: np.ndarray) -> list[np.ndarray]:
    """Of meshes in the head's own frame, float64 [n, 468, 3]; each float64 [n]."""

    def height(name: str) -> np.ndarray:
        """y of a point of both sides, [n, 2]; it grows downwards."""
        return head[:, [RIGHT[name], LEFT[name]], 1]

    opened = height("lower") - height("upper")
    level = (height("outer") + height("inner")) / 2
    brows = {name: level - head[:, [RIGHT_BROW[name], LEFT_BROW[name]], 1] for name in RIGHT_BROW}
    return [
        opened.mean(axis=1),
        np.abs(opened[:, 0] - opened[:, 1]),
        *(brows[name].mean(axis=1) for name in ("inner", "middle", "outer")),
        np.abs(brows["middle"][:, 0] - brows["middle"][:, 1]),
        np.linalg.norm(head[:, RIGHT_BROW["inner"]] - head[:, LEFT_BROW["inner"]], axis=1),
        -(height("cheek") - height("lower")).mean(axis=1),
        -(height("wing") - height("inner")).mean(axis=1),
    ]
