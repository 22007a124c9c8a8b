"""Take pictures of NNI's web page.

``python -m tests.nni.pictures --compare PORT --search PORT --out docs/images``
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from PIL import Image

from .browser import Browser

ROWS = "document.querySelectorAll('.ms-DetailsRow').length"


def overview(browser: Browser, port: int, path: Path) -> float:
    """Picture the overview; return the seconds until it shows trials."""
    browser.open(f"http://127.0.0.1:{port}/oview")
    seconds = browser.wait(f"{ROWS} > 0 && document.body.innerText.includes('Top trials')", 120)
    _take(browser, path)
    return seconds


def open_details(browser: Browser, port: int) -> float:
    """Go to the page of the trials; return the seconds until it shows some."""
    browser.open(f"http://127.0.0.1:{port}/detail")
    return browser.wait(f"{ROWS} > 0 && document.body.innerText.includes('Trial jobs')", 120)


def hyper_parameters(browser: Browser, path: Path) -> list[str]:
    """Picture the parallel coordinates; return the names of the axes."""
    browser.click("Hyper-parameter")
    browser.wait("document.querySelectorAll('svg .dimension').length > 0", 60)
    _take(browser, path)
    names = "[...document.querySelectorAll('svg .dimension .label')].map(e => e.textContent)"
    return [str(name) for name in browser.evaluate(names)]


def intermediate_results(browser: Browser, path: Path) -> None:
    """Picture the curves of all trials."""
    browser.click("Intermediate result")
    browser.wait("document.querySelectorAll('canvas').length > 0", 60)
    _take(browser, path)


def trial(browser: Browser, path: Path, row: int) -> str:
    """Picture a row of the trials, opened; return the page's text."""
    found = f"document.querySelectorAll('.ms-DetailsRow')[{row}]"
    browser.evaluate(f"{found}.querySelector('[data-automation-key=_expand] i').click()")
    browser.evaluate("document.querySelector('.ms-DetailsRow').scrollIntoView({block: 'start'})")
    browser.wait("document.body.innerText.includes('Parameters')")
    _take(browser, path)
    return str(browser.evaluate("document.body.innerText"))


def _take(browser: Browser, path: Path) -> None:
    time.sleep(2)  # the page draws its curves in an animation
    browser.picture(path)
    Image.open(path).convert("RGB").quantize(96).save(path, optimize=True)


def main() -> None:
    """Take the pictures of the documentation from two experiments that are being served."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", type=int, required=True)
    parser.add_argument("--search", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with Browser(Path(tempfile.mkdtemp())) as browser:
        overview(browser, arguments.search, arguments.out / "overview.png")
        open_details(browser, arguments.search)
        hyper_parameters(browser, arguments.out / "search_hyper_parameters.png")
        open_details(browser, arguments.compare)
        intermediate_results(browser, arguments.out / "compare_intermediate_results.png")
        hyper_parameters(browser, arguments.out / "compare_hyper_parameters.png")
        open_details(browser, arguments.search)
        trial(browser, arguments.out / "trial_detail.png", row=1)


if __name__ == "__main__":
    main()
