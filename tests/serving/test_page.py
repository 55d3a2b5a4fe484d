"""The page in a real browser: by keyboard, with files, in the dark, on a phone."""

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pipeline.encoders import face_models
from pipeline.serving import bundle
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from pipeline.synthetic.posts import CLIP_SIZE, write_clip
from tests.encoders.test_faces import folder_of
from tests.encoders.test_sound_features import tone
from tests.serving import test_streams
from tests.serving.conftest import Trained, serving

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FAKE_DEVICES = ("--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required")
"""A camera that shows a moving picture, and a microphone that beeps once a second."""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_DEVICES])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    with shown(browser, address, **getattr(request, "param", {})) as page:
        expect(page.locator("#examples button")).to_have_count(4)
        yield page


@contextmanager
def shown(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """A fresh page, which must neither complain nor ask anyone but its own server."""
    context = browser.new_context(reduced_motion="reduce", **options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if foreign(asked.url, address) else None)
    page.goto(address)
    yield page
    context.close()
    assert complaints == []


def foreign(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", f"blob:{address}"))


def picture(path: Path) -> Path:
    Image.new("RGB", (40, 30), (200, 30, 30)).save(path)
    return path


def test_a_text_by_keyboard_alone(page: Page, predictor: Predictor) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Text")).to_be_focused()
    page.keyboard.type("so happy <b>today</b>")
    (known,) = predictor.predict([Post("so happy <b>today</b>")])
    page.keyboard.press("Control+Enter")
    answer = page.locator("#answer")
    expect(answer.locator("h2")).to_have_text(known.label)
    expect(answer).to_be_focused()
    expect(answer.locator(".panel")).to_have_count(2)  # together, and the text alone
    rows = answer.locator(".panel").first.locator("tr")
    expect(rows).to_have_count(2)
    shares = [int(text.strip(" %")) for text in rows.locator("td.n").all_inner_texts()]
    assert shares == sorted((round(100 * share) for share in known.probabilities.values()), reverse=True)


def test_every_control_is_reached_by_keyboard_and_has_a_name(page: Page) -> None:
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
    for wanted in ("text", "image", "video", "record", "coverage", "explain", "go", "clear", "A text", "A clip"):
        assert wanted in reached
    for control in page.locator("input, select, textarea, button").all():
        if control.is_visible():
            named = control.evaluate("node => (node.labels?.[0] ?? node).innerText.trim()")
            assert named


def test_everything_at_once_with_reasons(page: Page, tmp_path: Path) -> None:
    page.get_by_label("Text").fill("so happy\nor so <i>sad</i>")
    page.get_by_label("Picture").set_input_files(picture(tmp_path / "a.png"))
    frames = [Image.new("RGB", (32, 32), (60 * at, 0, 0)) for at in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=200)
    page.get_by_label("Clip").set_input_files(tmp_path / "a.gif")
    expect(page.locator(".preview img")).to_have_count(2)
    page.get_by_label("Name labels until right").select_option("0.9")
    page.get_by_label("Say what each word").check()
    page.get_by_role("button", name="Predict").click()
    answer = page.locator("#answer")
    expect(answer.locator("h2")).to_be_visible()
    expect(answer.locator(".each .panel h3")).to_have_text(["Text alone", "Picture alone", "Clip alone"])
    expect(answer.get_by_text("Cannot be ruled out")).to_be_visible()
    expect(answer.locator(".said:not(.key) mark")).to_have_text(["so", "happy", "or", "so", "<i>sad</i>"])
    expect(answer.locator(".patched rect")).to_have_count(25)
    expect(answer.locator("li img")).to_have_count(3)
    widths = answer.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert sorted(widths) == [32, 32, 32, 40]


def test_a_dropped_file_is_taken(page: Page) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(file, "PNG")
    drop = """([place, bytes]) => {
        const box = new DataTransfer();
        box.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
        document.querySelector(place).dispatchEvent(new DragEvent("drop", { dataTransfer: box, bubbles: true }));
    }"""
    page.evaluate(drop, ["[data-for=image]", list(file.getvalue())])
    expect(page.locator(".preview img")).to_be_visible()
    page.locator("#go").click()
    expect(page.locator("#answer .each h3")).to_have_text("Picture alone")
    page.get_by_role("button", name="Remove picture").click()
    expect(page.locator(".preview img")).to_have_count(0)
    page.locator("#go").click()
    expect(page.get_by_role("alert")).to_have_text("Give a text, a picture or a clip.")


def test_examples_answer_at_a_click(page: Page) -> None:
    for name, parts in (("Words against picture", 2), ("A clip", 1), ("A text", 1)):
        with page.expect_response("**/api/predict") as asked:
            page.get_by_role("button", name=name).click()
        assert asked.value.ok
        expect(page.locator("#answer .each .panel")).to_have_count(parts)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#answer h2")).to_have_count(0)
    expect(page.get_by_label("Text")).to_have_value("")


def test_what_cannot_be_read_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not what it should be")
    page.get_by_label("Text").fill("so happy")
    page.get_by_label("Picture").set_input_files(tmp_path / "a.png")
    page.locator("#go").click()
    expect(page.locator(".unread")).to_contain_text("Picture not used: not a picture")


RECORDING = pytest.mark.parametrize("page", [{"permissions": ["camera", "microphone"]}], indirect=True)


@RECORDING
def test_a_clip_is_recorded_by_keyboard_and_answered(page: Page) -> None:
    button = page.get_by_role("button", name="Record", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_focused()
    expect(page.locator("#watching video")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("Recording, for 59 seconds at most.")
    page.wait_for_timeout(2500)
    assert tallest(page, "#watching .wave") > 0.1  # it has beeped
    page.keyboard.press("Enter")
    expect(page.locator("#watching")).to_be_hidden()
    expect(button).to_be_focused()
    shown = page.locator(".preview:not(#watching)").nth(1)
    expect(shown.locator("video")).to_be_visible()
    expect(shown.locator(".wave")).to_be_visible()
    assert tallest(page, ".preview:not(#watching) .wave") > 0.1
    page.wait_for_function("document.querySelector('.preview video').duration < 10")
    page.locator("#go").click()
    answer = page.locator("#answer")
    expect(answer.locator(".each h3")).to_have_text("Clip alone")
    expect(answer.locator(".unread")).to_have_count(0)
    expect(answer.get_by_text("The frames that were looked at")).to_be_visible()


def tallest(page: Page, place: str) -> float:
    """The largest amplitude that a drawing of sound shows."""
    drawn = page.locator(f"{place} path").get_attribute("d") or ""
    return max(float(half) / 2 for half in re.findall(r"h\.7v([0-9.]+)", drawn))


@RECORDING
def test_a_recording_that_is_thrown_away_leaves_nothing(page: Page) -> None:
    for discard in (lambda: page.keyboard.press("Escape"), lambda: page.get_by_role("button", name="Discard").click()):
        page.locator("#record").click()
        expect(page.locator("#watching video")).to_be_visible()
        discard()
        expect(page.locator("#watching")).to_be_hidden()
        expect(page.get_by_role("status")).to_have_text("Discarded.")
        assert page.evaluate("document.getElementById('video').files.length") == 0
    page.locator("#record").click()
    expect(page.locator("#watching video")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#watching")).to_be_hidden()
    assert page.evaluate("document.getElementById('video').files.length") == 0


@RECORDING
def test_what_is_under_way_is_sent_with_the_post(page: Page) -> None:
    page.get_by_label("Text").fill("so happy")
    page.locator("#record").click()
    expect(page.locator("#watching video")).to_be_visible()
    page.wait_for_timeout(1000)
    page.locator("#go").click()
    expect(page.locator("#answer .each h3")).to_have_text(["Text alone", "Clip alone"])


def test_a_camera_that_is_refused_is_said(page: Page) -> None:
    page.locator("#record").click()
    expect(page.get_by_role("alert")).to_have_text("The browser was not allowed to use camera and microphone.")
    expect(page.locator("#watching")).to_be_hidden()


def test_the_streams_of_a_clip_say_what_each_did(page: Page) -> None:
    """Of an answer as the server gives it."""
    parts = {
        "frames": {"present": True, "reason": None, "change": -0.24},
        "sound": {"present": False, "reason": "no sound: silence", "change": 0},
    }
    told = page.evaluate(
        "parts => streams(parts, 'Joy').flatMap(list => [...list.children].map(one => one.textContent))", parts
    )
    assert told == ["its pictures: −0.2 away from Joy", "its sound: no sound: silence"]
    assert page.evaluate("[streams(undefined, 'Joy'), streams({ frames: {} }, 'Joy')]") == [[], []]


# --- a clip with a face ----------------------------------------------------------------------------------------------

FACE = (0.3, 0.3, 0.7, 0.7)
"""Left, top, right and bottom of what `test_streams.made_of` takes for a face, as shares of a square frame."""


def take_made_nets() -> None:
    face_models.load = lambda params: test_streams.made_of(face_models.read(params)[0])


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trained, str]]:
    """A model that measures faces and hears, and the address that serves it; its nets of faces are made ones."""
    root = tmp_path_factory.mktemp("watching")
    models = folder_of(root / "nets", "detector", "mesh", "expression")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOCARE_CACHE", str(root / "cache"))
        patch.setattr(face_models, "load", lambda params: test_streams.made_of(face_models.read(params)[0]))
        streams = ["faces", "frames", "sound"]
        trained = test_streams.train(root / "project", streams, faces={"models": str(models), "frames": 3})
        bundle.export(trained.params, trained.layout, root / "bundle")
        with serving(root / "bundle", before=take_made_nets) as (_, address):
            yield trained, address


def talking(path: Path) -> Path:
    """A clip of three pictures and a deep voice: a drawn face in the first and the last, nothing in the second."""
    side = CLIP_SIZE
    face = Image.new("RGB", (side, side), (40, 60, 90))
    draw = ImageDraw.Draw(face)
    draw.ellipse([share * side for share in FACE], fill=(236, 196, 160))
    for eye in (0.42, 0.58):
        draw.ellipse([eye * side - 5, 0.44 * side - 5, eye * side + 5, 0.44 * side + 5], fill=(40, 30, 30))
    draw.arc([0.4 * side, 0.48 * side, 0.6 * side, 0.62 * side], 20, 160, fill=(150, 40, 40), width=3)
    black = Image.new("RGB", (side, side))
    frames = [*[face] * 4, *[black] * 4, *[face] * 4]
    write_clip(path, iter(frames), tone(150.0, 1.0).astype(np.float32))
    return path


def test_the_face_of_a_clip_is_framed_and_its_streams_say_what_each_did(
    browser: Browser, watching: tuple[Trained, str], tmp_path: Path
) -> None:
    trained, address = watching
    clip = talking(tmp_path / "talking.mp4")
    with shown(browser, address) as page:
        expect(page.locator("#examples button")).to_have_text(["A clip"])  # it reads nothing else
        page.get_by_label("Clip").set_input_files(clip)
        with page.expect_response("**/api/predict") as asked:
            page.locator("#go").click()
        answer = asked.value.json()
        panel = page.locator("#answer .panel", has=page.get_by_role("heading", name="The faces that were measured"))
        names = panel.locator("img").evaluate_all("all => all.map(one => one.alt)")
        assert names == [f"Frame {at + 1} of 3: {'no face' if at == 1 else 'a face'}" for at in range(3)]
        expect(panel.locator("figcaption")).to_have_text(["no face"])
        assert panel.locator("rect").count() == 2
        for at in range(2):
            drawn, picture = (panel.locator(f".patched {of}").nth(at).bounding_box() for of in ("rect", "img"))
            assert drawn is not None
            assert picture is not None
            box = [(drawn[of] - picture[of]) / picture[size] for of, size in (("x", "width"), ("y", "height"))]
            box += [start + drawn[size] / picture[size] for start, size in zip(box, ("width", "height"), strict=True)]
            assert box == pytest.approx(FACE, abs=0.02)
        parts = answer["modalities"]["video"]["streams"]
        assert set(parts) == {"faces", "frames", "sound"}
        assert abs(parts["sound"]["change"]) == max(abs(of["change"]) for of in parts.values()) > 0.1
        expect(page.locator("#answer .streams li").last).to_have_text(
            f"its sound: +{parts['sound']['change']:.1f} towards {answer['label']}"
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face_models, "load", lambda params: test_streams.made_of(face_models.read(params)[0]))
        (known,) = trained.predictor().predict([Post(video=clip)])
    assert answer["label"] == known.label == "low"


def test_an_amplitude_is_the_largest_of_its_part(page: Page) -> None:
    assert page.evaluate("peaks([0, 0.5, -0.75, 0.25, 0, 2], 3)") == [0.5, 0.75, 1]
    assert page.evaluate("outline([0, 0.5])") == "M0.15 0.980h.7v0.040h-.7zM1.15 0.500h.7v1.000h-.7z"


@pytest.mark.parametrize(
    ("page", "dark"),
    [({"color_scheme": "light"}, False), ({"color_scheme": "dark"}, True)],
    indirect=["page"],
    ids=["light", "dark"],
)
def test_it_is_as_dark_as_the_reader_likes_and_legible(page: Page, dark: bool) -> None:
    page.get_by_label("Text").fill("so happy")
    page.locator("#go").click()
    expect(page.locator("#answer h2")).to_be_visible()
    assert (luminance(colour(page, "body", "backgroundColor")) < 0.2) is dark
    for place, ground in (
        (".sub", "body"),
        ("#text", "#text"),
        ("#go", "#go"),
        ("#clear", "#clear"),
        ("#answer h2", "body"),
        ("#answer .says", ".panel"),
        ("#answer .bars tr.top th", ".panel"),
        (".computed", "#ask"),
        ("#record", "#record"),
        ("#about", "body"),
    ):
        pair = sorted((luminance(colour(page, place, "color")), luminance(colour(page, ground, "backgroundColor"))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, place


def colour(page: Page, place: str, what: str) -> list[float]:
    value = page.locator(place).first.evaluate(f"node => getComputedStyle(node).{what}")
    return [float(part) for part in value.removeprefix("rgb(").rstrip(")").split(",")]


def luminance(rgb: list[float]) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [value / 3294.6 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}], indirect=True
)
def test_a_phone_shows_it_without_scrolling_sideways(page: Page, tmp_path: Path) -> None:
    page.get_by_label("Text").fill("a" * 300 + " so happy")
    page.get_by_label("Picture").set_input_files(picture(tmp_path / ("a" * 90 + ".png")))
    page.get_by_label("Say what each word").check()
    page.locator("#go").click()
    expect(page.locator("#answer .patched")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    small = page.locator("button:visible").evaluate_all("all => all.filter(one => one.offsetHeight < 24).length")
    assert small == 0
