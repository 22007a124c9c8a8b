"""The wheels: what is inside, and that an interpreter with one installed starts, imports and stays clean."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import timeit
import zipfile
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest
import torchvision.extension

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

from nni_supernet_ext._compat import noise

ROOT = Path(__file__).resolve().parents[1]
PTH = "nni_supernet_ext_startup.pth"

broken_torchvision = pytest.mark.skipif(
    torchvision.extension._has_ops(), reason="torchvision's compiled operators work here"
)


def run(python: Path | str, code: str, *options: str) -> str:
    command = [str(python), "-W", "error", *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the plain and the editable wheel from a copy, so that the checkout stays clean."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "LICENSE", "MANIFEST.in"):
        copy(ROOT / name, source)
    copytree(ROOT / "nni_supernet_ext", source / "nni_supernet_ext", ignore=ignore_patterns("__pycache__"))
    code = (
        "import os, sys; os.chdir(sys.argv[1]); sys.argv = ['setup.py'];"
        "from setuptools import build_meta as backend;"
        "os.makedirs('plain'); os.makedirs('editable');"
        "backend.build_wheel('plain'); backend.build_editable('editable')"
    )
    command = [sys.executable, "-c", code, str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return {kind: next((source / kind).glob("*.whl")) for kind in ("plain", "editable")}


@pytest.fixture(scope="module", params=["plain", "editable"])
def installed(
    request: pytest.FixtureRequest, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the python of an environment with the wheel unpacked into it and this one's packages behind."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
    python = next(folder.glob("bin/python")) if sys.platform != "win32" else folder / "Scripts/python.exe"
    site = Path(run(python, "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    zipfile.ZipFile(wheels[request.param]).extractall(site)
    (site / "zz_others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


@pytest.mark.parametrize("kind", ["plain", "editable"])
def test_the_wheel_carries_the_startup_file_and_records_it_for_uninstall(
    wheels: dict[str, Path], kind: str
) -> None:
    with zipfile.ZipFile(wheels[kind]) as wheel:
        record = next(name for name in wheel.namelist() if name.endswith(".dist-info/RECORD"))
        assert re.search(rf"^{re.escape(PTH)},sha256=", wheel.read(record).decode(), re.MULTILINE)
        content = wheel.read(PTH).decode()
    assert content.startswith("import sys; exec(")
    assert content.count("\n") == 1


def test_only_the_package_is_in_the_wheel(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["plain"]) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"nni_supernet_ext", PTH, "nni_supernet_ext-0.1.0.dist-info"}


@pytest.mark.parametrize("suffix", ["*.md", "*.csv", "*.js"])
def test_data_files_of_the_package_are_in_the_wheel(wheels: dict[str, Path], suffix: str) -> None:
    with zipfile.ZipFile(wheels["plain"]) as wheel:
        packed = set(wheel.namelist())
    present = {str(path.relative_to(ROOT)) for path in (ROOT / "nni_supernet_ext").rglob(suffix)}
    assert present <= packed


@broken_torchvision
def test_torchvision_imports_and_works_in_a_process_that_never_imports_this_package(installed: Path) -> None:
    printed = run(
        installed,
        "import sys, torch, torchvision\n"
        "from torchvision.transforms import v2\n"
        "model = torchvision.models.mobilenet_v3_small(weights=None)\n"
        "model.eval()\n"
        "print(tuple(model(torch.zeros(1, 3, 32, 32)).shape))\n"
        "print(tuple(v2.RandAugment()(torch.zeros(3, 8, 8, dtype=torch.uint8)).shape))\n"
        "print(len(torchvision.datasets.FakeData(4)))\n"
        "for nms in (torchvision.ops.nms, torch.ops.torchvision.nms):\n"
        "    try:\n"
        "        nms(torch.zeros(2, 4), torch.zeros(2), 0.5)\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "print('nni_supernet_ext' in sys.modules)\n",
    )
    lines = printed.splitlines()
    assert lines[:3] == ["(1, 1000)", "(3, 8, 8)", "4"]
    assert all("Install the torchvision build that belongs to this torch" in line for line in lines[3:5])
    assert lines[5] == "False"


@pytest.mark.parametrize("installed", ["plain"], indirect=True)
def test_nni_nas_imports_without_a_warning_in_such_a_process(installed: Path) -> None:
    run(installed, "import nni.nas.nn.pytorch, nni.nas.evaluator.pytorch")


@pytest.mark.parametrize("installed", ["plain"], indirect=True)
def test_nnictl_starts_without_a_warning(installed: Path) -> None:
    code = "import sys; sys.argv = ['nnictl', '--version']; from nni.tools.nnictl.nnictl import parse_args; "
    assert run(installed, code + "parse_args()").splitlines()[-1].startswith("3.0")


@pytest.mark.parametrize("installed", ["plain"], indirect=True)
def test_the_spawned_worker_of_a_loader_can_import_torchvision(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "loader.py"
    script.write_text(
        "import torch\n"
        "class Data(torch.utils.data.Dataset):\n"
        "    def __len__(self):\n"
        "        return 2\n"
        "    def __getitem__(self, index):\n"
        "        from torchvision.transforms.functional import hflip\n"
        "        return hflip(torch.tensor([[0.0, 1.0]]))\n"
        "if __name__ == '__main__':\n"
        "    options = {'num_workers': 1, 'multiprocessing_context': 'spawn'}\n"
        "    loader = torch.utils.data.DataLoader(Data(), 2, **options)\n"
        "    print(next(iter(loader)).flatten().tolist())\n",
        encoding="utf-8",
    )
    done = subprocess.run([installed, script], capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.strip() == "[1.0, 0.0, 1.0, 0.0]", done.stderr


def startup_line(wheels: dict[str, Path]) -> str:
    with zipfile.ZipFile(wheels["plain"]) as wheel:
        return wheel.read(PTH).decode()


def test_startup_imports_nothing_and_takes_under_a_millisecond(wheels: dict[str, Path]) -> None:
    line = startup_line(wheels)
    code = f"import sys; before = set(sys.modules); exec({line!r}); print(sorted(set(sys.modules) - before))"
    assert run(sys.executable, code, "-S", "-I").strip() == "[]"
    assert min(timeit.repeat(lambda: exec(line), number=10, repeat=30)) / 10 < 1e-3


def test_startup_is_inert_where_the_package_is_gone(wheels: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "nni.py").write_text("found = True", encoding="utf-8")
    code = (
        f"import sys; exec({startup_line(wheels)!r}); sys.path.insert(0, {str(tmp_path)!r})\n"
        "import nni; print(nni.found)\n"
        "try:\n    import torchvision\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    assert run(sys.executable, code, "-S", "-I").splitlines() == ["True", "No module named 'torchvision'"]


def test_startup_twice_leaves_one_gate(wheels: dict[str, Path]) -> None:
    line = startup_line(wheels)
    code = (
        f"import sys; exec({line!r}); exec({line!r})\n"
        "print([type(finder).__name__ for finder in sys.meta_path].count('NniSupernetExtGate'))"
    )
    assert run(sys.executable, code, "-S", "-I").strip() == "1"


def test_the_tests_ignore_what_the_package_ignores() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        configured = tomllib.load(file)["tool"]["pytest"]["ini_options"]["filterwarnings"]
    assert {entry.as_pytest_option() for entry in noise.WARNINGS} <= set(configured)


def test_the_constraints_are_plain_pins_of_what_is_required() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    names = {pin.partition("==")[0].lower() for pin in pins}
    assert {"nni", "torch", "torchvision", "pytorch-lightning", "setuptools", "pytest", "peewee"} <= names
    # The CUDA libraries of PyPI's torch are gigabytes; nvidia-ml-py is NNI's GPU monitor, pure Python.
    assert {name for name in names if name.startswith("nvidia-")} <= {"nvidia-ml-py"}
