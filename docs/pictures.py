"""Renews the pictures of this folder from a finished run: the page and the report in a browser, two plots, the house.

``python -m docs.pictures`` in the project's folder, after ``dvc repro``. Needs the extra ``test`` and chromium.
``curve_mosi.png`` is ``plots/evaluate/curve.png`` of a run on real corpora, and stays as it is.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from docs import house

DOCS = Path(__file__).parent
GALLERY = 848
"""So many rows of pixels of the contact sheet: its first two rows of posts."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESK, PHONE = (1100, 820), (390, 820)
COLOURS = 256


def main() -> None:
    plots = Path("plots", "evaluate")
    shutil.copyfile(plots / "transfer.png", DOCS / "transfer.png")
    house.draw(DOCS / "house.png")
    sheet = Image.open(plots / "contact_sheet.png")
    kept(sheet.crop((0, 0, sheet.width, GALLERY)), "gallery")
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        sys.exit(f"error: no browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        report = Path(folder, "report.html")
        subprocess.run([sys.executable, "-m", "pipeline", "report", "--out", report], check=True)
        for name, size, scheme in (("report", DESK, "light"), ("report_phone", PHONE, "dark")):
            with opened(browser, report.as_uri(), size, scheme) as page:
                taken(page, name)
        with served() as address:
            for name, size, scheme, example in (("page", DESK, "light", 2), ("page_phone", PHONE, "dark", 3)):
                with opened(browser, address, size, scheme) as page:
                    page.select_option("#coverage", "0.9")
                    page.locator("#examples button").nth(example).click()
                    page.wait_for_selector("#answer h2")
                    page.locator("#answer").evaluate("it => it.scrollIntoView()")
                    taken(page, name)
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, size: tuple[int, int], scheme: str) -> Iterator[Page]:
    look = "dark" if scheme == "dark" else "light"
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=look,
        device_scale_factor=1.5,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(address, wait_until="networkidle")
    yield page
    context.close()


@contextmanager
def served() -> Iterator[str]:
    """The address of a server of the project's models."""
    command = [sys.executable, "-m", "pipeline", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[0]
        finally:
            process.terminate()


def taken(page: Page, name: str) -> None:
    """What the window shows."""
    kept(Image.open(BytesIO(page.screenshot())), name)


def kept(picture: Image.Image, name: str) -> None:
    """Saved in few enough colours for a repository."""
    picture.convert("RGB").quantize(COLOURS).save(DOCS / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
