"""Pages of `mlcv audit` of handwritten digits; `python -m tests.audit_pages docs` makes the pictures of the docs."""

import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mlcv.audits.instructions import examples_of_class
from mlcv.commands.audit_page import ClassExamples, Entry, Example, thumbnail, write_page
from mlcv.data import DigitScenesDataModule


def data_of(corrections=None):
    return DigitScenesDataModule(120, 24, 24, image_size=160, batch_size=8, corrections=corrections)


def digits_page(path, count=12, **options):
    """A page of the first images of the training split, each with a label that is turned or not; and its entries."""
    labeled = data_of().read_split("train")
    images, states = labeled.images, labeled.states
    random = np.random.default_rng(0)
    features = np.stack([cv2.resize(image[..., 0], (16, 16)).ravel() for image in images]).astype(float)
    doubt = random.random(states.shape) ** 3
    examples = {str(c): _examples(images, states, features, doubt, c) for c in range(10)}
    entries = []
    for row in range(count):
        c = row % 3 if row % 4 else int(np.flatnonzero(states[row] == 1)[0])
        given = int(states[row, c])
        entries.append(
            Entry(
                labeled.name(row), str(c), -1 if row == 5 else given, 1 - given, float(0.97 - 0.05 * row % 0.9),
                f"called {'present' if given else 'absent'} here; of 45 such entries of this class 31 were wrong",
                thumbnail(images[row]), _heated(images[row]) if row % 2 == 0 else None,
                tuple(map(str, np.flatnonzero(states[row] == 1))),
                [_example(images, states, other) for other in (row + 1, row + 2)], "train",
            )
        )  # fmt: skip
    write_page(path, entries, examples, **options)
    return entries


def _heated(image):
    heat = cv2.GaussianBlur(image[..., 0].astype(np.float32), (0, 0), 12)[..., None]
    strength = 0.7 * heat / heat.max()
    return thumbnail((image * (1 - strength) + np.array([215, 48, 39]) * strength).astype(np.uint8))


def _examples(images, states, features, doubt, c):
    shown = examples_of_class(features, states[:, c], doubt[:, c])
    kinds = (shown.typical, shown.confusing, shown.doubtful)
    return ClassExamples(*([_example(images, states, row) for row in rows] for rows in kinds))


def _example(images, states, row):
    labels = tuple(map(str, np.flatnonzero(states[row] == 1)))
    return Example(f"image {row}", thumbnail(images[row], 160), labels)


def browser(folder, width=1280, height=900):
    """Chromium without a window, which saves files in a folder; a reason in words where there is none."""
    try:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError:
        return 'needs selenium: pip install "mlcv[test]"'
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        return "needs Chromium and its driver: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    try:
        found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    except WebDriverException as error:
        return f"Chromium does not start here ({str(error).splitlines()[0]})"
    resize(found, width, height)
    return found


def resize(found, width, height):
    """A window narrower than Chromium allows is one of a device."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def main(folder):
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "audit.html"
        digits_page(page)
        found = browser(place)
        for name, width, height in (("audit_page", 1280, 960), ("audit_page_phone", 390, 844)):
            resize(found, width, height)
            found.get(page.as_uri())
            found.execute_script("localStorage.clear()")
            found.refresh()
            found.execute_script("at('asked').value = 'Ada'; at('ask').close()")
            for does in ("wrong", "right", "wrong", "next"):
                found.execute_script(f"DOES.{does}()")
            path = Path(folder) / f"{name}.png"
            found.save_screenshot(str(path))
            Image.open(path).convert("RGB").quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)
        found.quit()


if __name__ == "__main__":
    main(sys.argv[1])
