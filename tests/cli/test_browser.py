"""Dashboard and report as a person sees them: a real browser on a real study. Screenshots stay under test-output/."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SHOTS = Path(__file__).parents[2] / "test-output"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--window-size=1400,1800", "--hide-scrollbars"),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("Chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    SHOTS.mkdir(exist_ok=True)
    yield driver
    driver.quit()


def wait_for(browser: Any, words: str, seconds: float = 40.0) -> str:
    """The page's text once it holds `words`; fails with the text otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        text = str(browser.find_element("tag name", "body").text)
        if words in text:
            return text
        assert time.monotonic() < deadline, f"no {words!r} in: {text[:3000]}"
        time.sleep(0.3)


def shoot(browser: Any, name: str) -> None:
    """Keeps a screenshot; fails where the console's log since the last call holds anything."""
    browser.save_screenshot(str(SHOTS / f"{name}.png"))
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.fixture
def served(study_copy: Any) -> Iterator[str]:
    """The address of the study in `searchft dashboard`, token included, once every kept trial has its figures."""
    command = [sys.executable, "-m", "searchft", "dashboard", "faces", "--studies", str(study_copy.studies), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert process.stderr is not None
        address = ""
        while not re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard/studies/\d+\?token=\S+", address):
            address = process.stderr.readline()
            assert address, "the dashboard ended"
            address = address.strip()
        deadline = time.monotonic() + 240
        while len(list((study_copy.folder / "artifacts").glob("*"))) < 7:  # three curves; matrix and mistakes of two trials
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        yield address
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_the_dashboard_shows_trials_notes_artifacts_and_importances(served: str, browser: Any) -> None:
    browser.get(served)
    wait_for(browser, "Hyperparameter Importance")
    served = served.partition("?")[0]  # the browser remembers the token
    assert browser.current_url == served
    shoot(browser, "dashboard-history")

    browser.get(f"{served}/trials?numbers=1")
    text = wait_for(browser, "confusion_matrix.png")
    assert "learning_curve.png" in text and "most_confused.png" in text
    assert "last stage open, head 256 with dropout 0.5, batch 16, lr 1e-3" in text, "the recipe in words"
    assert "layer4" in text and "0.001" in text, "real values, not indices"
    for state in ("Complete", "Pruned", "Fail", "Running"):
        assert state in text
    time.sleep(1.0)
    sizes = browser.execute_script(
        "return [...document.images].filter(i => i.src.includes('/artifacts/')).map(i => [i.complete, i.naturalWidth])"
    )
    assert len(sizes) == 3 and all(complete and width > 300 for complete, width in sizes)
    shoot(browser, "dashboard-trial")

    browser.get(f"{served}/note")
    text = wait_for(browser, "orl_faces")
    assert "unfrozen: [head, layer4]" in text
    shoot(browser, "dashboard-note")

    browser.get(f"{served}/analytics")
    wait_for(browser, "Slice")
    shoot(browser, "dashboard-analytics")


def test_the_report_opens_from_disk_and_nothing_is_cut_or_empty(study_copy: Any, browser: Any) -> None:
    command = [sys.executable, "-m", "searchft", "report", "faces", "--studies", str(study_copy.studies)]
    page = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    alone = study_copy.studies / "alone.html"  # moved away from its folder: it must not need it
    shutil.move(page, alone)
    browser.get("about:blank")
    browser.get_log("browser")  # what the dashboard still asked for when it was stopped
    for width in (1400, 420):
        browser.set_window_size(width, 1800)
        browser.get(alone.absolute().as_uri())
        wait_for(browser, "Ground")
        images = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
        assert len(images) >= 5 and all(complete and natural > 200 for complete, natural, _ in images)
        overflow = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, "the page must not scroll sideways"
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.set_window_size(width, min(9000, int(height) + 200))
        shoot(browser, f"report-{width}")
