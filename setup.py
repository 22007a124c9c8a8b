"""Metadata and dependencies; the settings of the development tools live in pyproject.toml."""

import ast
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
README = HERE / "README.md"
STARTUP_SOURCE = HERE / "nni_supernet_ext" / "_compat" / "startup.py"
STARTUP_PTH = "nni_supernet_ext_startup.pth"


def startup_line() -> str:
    """Return the start-up code as the single import line that Python runs from a .pth file.

    Without docstrings, because every interpreter compiles it; and whatever goes wrong in it must not reach
    the interpreter that is starting.
    """
    tree = ast.parse(STARTUP_SOURCE.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            del node.body[0]
    guarded = ast.parse("try:\n    pass\nexcept Exception:\n    pass")
    guarded.body[0].body = tree.body
    return f"import sys; exec({ast.unparse(guarded)!r}, {{'__name__': 'nni_supernet_ext_startup'}})\n"


def version() -> str:
    """Return the package's own version, without importing it."""
    tree = ast.parse((HERE / "nni_supernet_ext" / "__init__.py").read_text(encoding="utf-8"))
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(assigned["__version__"])


class BuildWithStartup(build_py):
    """Build the package together with the .pth file, in a plain wheel and in an editable one."""

    def run(self):
        super().run()
        # An editable wheel leaves build_lib out and carries what lies in the install folder.
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, STARTUP_PTH).write_text(startup_line(), encoding="utf-8")

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(Path(self.build_lib, STARTUP_PTH))]


setup(
    name="nni_supernet_ext",
    version=version(),
    description="Supernet training methods for NNI's neural architecture search",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The nni_supernet_ext authors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["nni_supernet_ext", "nni_supernet_ext.*"]),
    package_data={"": ["*.md", "*.csv", "*.csv.gz", "*.js", "*.yml", "py.typed"]},
    install_requires=[
        "nni==3.0",
        "torch>=2.1",
        # Imported by torchmetrics, hence by all of nni.nas, wherever it is installed.
        "torchvision",
        "pytorch-lightning>=2,<3",
        "numpy",
        "scipy",
        # nnictl needs pkg_resources, which setuptools 82 removed; torch needs at least 77.0.3.
        "setuptools>=77.0.3,<82",
        "matplotlib",
        "scikit-learn",
    ],
    extras_require={
        # nni.nas.benchmark imports playhouse.sqlite_ext's SqliteExtDatabase, which peewee 4 removed.
        "benchmark": ["peewee<4"],
        "test": ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "networkx", "ruff", "mypy"],
    },
    cmdclass={"build_py": BuildWithStartup},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Typing :: Typed",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
