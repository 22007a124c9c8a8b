"""NNI's own web page, seen by a browser: a recorded training and search of 600 subnets."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest

from nni_supernet_ext._compat.nni_experiment import RunningExperiment
from nni_supernet_ext.core import Domain
from nni_supernet_ext.recording.own_experiment import OwnExperiment
from nni_supernet_ext.spaces import nasbench201, nasbench201_flops, nasbench201_params

from . import pictures
from .browser import Browser, find_browser

SUBNETS = 600
METHODS = ("spos", "calr", "calr+ms")


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")
def test_page_shows_the_search(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    space = nasbench201(4, 1)
    domain, rng = Domain(space), np.random.default_rng(0)
    running = RunningExperiment("page", "recorded search", tmp_path, port, resumed=False)
    with OwnExperiment(running, domain, space, training=False, metric="val_acc", mode="max") as recording:
        try:
            for shift, method in enumerate(METHODS):
                trial = recording._record.begin({"stage": "supernet", "method": method})
                for epoch in range(8):
                    trial.intermediate(epoch, {"default": 0.1 * (shift + 1) + 0.05 * epoch})
                trial.finish({"default": 0.1 * (shift + 1) + 0.35})
            recorded = 0
            while recorded < SUBNETS:
                sample = domain.random(rng)
                costs = {"parameters": nasbench201_params(sample), "flops": nasbench201_flops(sample)}
                accuracy = 0.5 + 0.4 * costs["parameters"] / 1.6e6
                recorded += recording._record.subnet(sample, {"default": accuracy, "val_acc": accuracy, **costs})
            connections = psutil.Process(recording._page._manager.pid).net_connections("tcp")  # type: ignore[union-attr]
            assert {c.laddr.ip for c in connections if c.status == "LISTEN"} == {"127.0.0.1"}
            end = time.monotonic() + 120
            while _trials(port) < SUBNETS + len(METHODS):  # live, during the run
                assert time.monotonic() < end
                time.sleep(0.2)
            with Browser(tmp_path / "profile") as browser:
                _look(browser, port, tmp_path)
        finally:
            recording._stop()


def _trials(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/nni/trial-jobs", timeout=30) as answer:
        return len(json.load(answer))


def _look(browser: Browser, port: int, folder: Path) -> None:
    pictures.overview(browser, port, folder / "overview.png")
    pictures.open_details(browser, port)
    axes = pictures.hyper_parameters(browser, folder / "hyper_parameters.png")
    expected = ["stage", "cell/0_1", "cell/2_3", "default", "val_acc", "parameters", "flops"]
    assert [axis for axis in axes if axis in expected] == expected
    pictures.intermediate_results(browser, folder / "intermediate_results.png")
    pictures.open_details(browser, port)
    text = pictures.trial(browser, folder / "trial.png", row=len(METHODS))
    assert "cell/0_1:" in text
    for name in ("overview", "hyper_parameters", "intermediate_results", "trial"):
        assert (folder / f"{name}.png").stat().st_size > 10_000


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")
def test_one_command_makes_the_pictures_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    take = pictures._take

    def watched(browser: Browser, path: Path) -> None:
        take(browser, path)
        texts.append(str(browser.evaluate("document.body.innerText")))

    monkeypatch.setattr(pictures, "_take", watched)
    home, out = tmp_path / "home", tmp_path / "out"
    pictures.main(["--out", str(out), "--home", str(home), "--smoke"])
    committed = {path.name for path in (pictures.ROOT / "docs" / "images").glob("*.png")}
    assert {path.name for path in out.glob("*.png")} == committed and len(texts) == len(committed)
    assert all((out / name).stat().st_size > 10_000 for name in committed)
    assert any(str(home) in text for text in texts), "the pages show the home they ran in"
    for path in (Path.home(), pictures.ROOT):
        assert not any(f"{path}/" in text for text in texts)
    assert not home.exists()
