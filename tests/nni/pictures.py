"""Take pictures of NNI's web page. One command makes those of the documentation again, from fresh runs:

``python -m tests.nni.pictures --out docs/images``

It needs Chromium and some minutes. Everything runs in a home of its own, because its path is in the pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from .browser import Browser
from .nnictl import ROOT, NnictlExperiment, wait

HOME = Path(tempfile.gettempdir(), "nni-pictures")
SMOKE: dict[str, dict[str, Any]] = {
    "nnictl_compare": {
        "searchSpace": {
            "method": {"_type": "choice", "_value": ["spos", "calr"]},
            "epochs": {"_type": "choice", "_value": [2]},
        },
        "maxTrialNumber": 2,
    },
    "nnictl_search": {
        "tuner": {
            "className": "nni_supernet_ext.trial.OnceTuner",
            "codeDirectory": ".",
            "classArgs": {"parameters": {"stage": "supernet", "epochs": 2, "population": 5, "cycles": 1}},
        }
    },
}
"""Changes of the examples' configurations for a quick run."""
ROWS = "document.querySelectorAll('.ms-DetailsRow').length"


def overview(browser: Browser, port: int, path: Path) -> float:
    """Picture the overview; return the seconds until it shows trials, which may be many on a busy machine."""
    browser.open(f"http://127.0.0.1:{port}/oview")
    seconds = browser.wait(f"{ROWS} > 0 && document.body.innerText.includes('Top trials')", 240)
    _take(browser, path)
    return seconds


def open_details(browser: Browser, port: int) -> float:
    """Go to the page of the trials; return the seconds until it shows some."""
    browser.open(f"http://127.0.0.1:{port}/detail")
    return browser.wait(f"{ROWS} > 0 && document.body.innerText.includes('Trial jobs')", 240)


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


@contextmanager
def finished(example: str, home: Path, changes: Mapping[str, Any]) -> Iterator[NnictlExperiment]:
    """Run an example to its end and serve its page; the home is made for it and removed again."""
    if home.exists() and any(home.iterdir()):
        raise SystemExit(f"{home} is expected to be absent or empty. Remove it, or give another `--home`.")
    source = ROOT / "examples" / example
    shutil.copytree(source, home / "code", ignore=shutil.ignore_patterns("__pycache__"))
    config = yaml.safe_load((source / "config.yml").read_text())
    space = json.loads((source / config.pop("searchSpaceFile")).read_text())
    del config["trialCodeDirectory"]
    experiment = NnictlExperiment(home, {**config, "searchSpace": space, **changes})
    experiment.create()
    try:
        wait(lambda: experiment.status() in ("DONE", "TUNER_NO_MORE_TRIAL"), 3600)
        wait(lambda: all(trial.state == "SUCCEEDED" for trial in experiment.trials()))
        yield experiment
    finally:
        experiment.end()
        shutil.rmtree(home)


def compare_pictures(browser: Browser, port: int, out: Path) -> None:
    """Take the pictures of `examples/nnictl_compare`."""
    open_details(browser, port)
    intermediate_results(browser, out / "compare_intermediate_results.png")
    hyper_parameters(browser, out / "compare_hyper_parameters.png")


def search_pictures(browser: Browser, port: int, out: Path) -> None:
    """Take the pictures of `examples/nnictl_search`."""
    overview(browser, port, out / "overview.png")
    open_details(browser, port)
    hyper_parameters(browser, out / "search_hyper_parameters.png")
    open_details(browser, port)
    trial(browser, out / "trial_detail.png", row=1)


PICTURES: dict[str, Callable[[Browser, int, Path], None]] = {
    "nnictl_compare": compare_pictures,
    "nnictl_search": search_pictures,
}


def main(arguments: list[str] | None = None) -> None:
    """Take the pictures of the documentation."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--home", type=Path, default=HOME, help="home of the runs, seen in the pictures")
    parser.add_argument("--smoke", action="store_true", help="make the runs as small as can be")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        # All are taken before any is replaced.
        for example, take in PICTURES.items():
            changes = SMOKE[example] if given.smoke else {}
            with finished(example, given.home, changes) as experiment:
                profile = Path(made, example)
                with Browser(profile) as browser:
                    take(browser, experiment.port, Path(made))
                shutil.rmtree(profile, ignore_errors=True)
        given.out.mkdir(parents=True, exist_ok=True)
        for picture in Path(made).glob("*.png"):
            shutil.copy(picture, given.out)


if __name__ == "__main__":
    main()
