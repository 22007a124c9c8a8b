"""The arguments of the ranking command, checked as a whole before anything runs."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from baselines import BASELINES
from grounds import GROUNDS
from methods import make_method
from parts import MODIFIERS, PARTS, Part
from protocols import PROTOCOLS, Protocol
from settings import overridden

from nni_supernet_ext.errors import ConfigurationError

_T = TypeVar("_T")

DEVICES: dict[str, Callable[[], bool]] = {
    "cpu": lambda: True,
    "gpu": torch.cuda.is_available,
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
}
"""Accelerator -> whether there is one."""

_ADDED: dict[Path, set[str]] = {}
"""File with parts -> the names that it has added."""


def parsed(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Parse and check the arguments; ends the process with a message where something is wrong with them.

    Returns:
        The options, with ``protocol``, ``methods``, ``seeds`` and ``part`` in the form they are used in.
    """
    parser = _parser(description)
    options = parser.parse_args(arguments)
    try:
        _check(options)
    except ConfigurationError as error:
        parser.error(str(error))
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def checked_methods(text: str, protocol: Protocol) -> list[str]:
    """Return the methods named in a text; refuses what does not exist or cannot be put together."""
    methods = _distinct("methods", text.split(","))
    problems: list[str] = []
    for name in methods:
        if name in BASELINES:
            continue
        try:
            make_method(name, protocol, GROUNDS[protocol.benchmark])
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
    return methods


def checked_seeds(text: str) -> list[int]:
    """Return the seeds in a text."""
    seeds = text.split(",")
    if not all(seed.isascii() and seed.isdigit() and int(seed) < 2**32 for seed in seeds):
        raise ConfigurationError(
            f"Argument `seeds` is expected to be integers of at least 0, but got {text!r}. Use for example 0,1,2."
        )
    return _distinct("seeds", [int(seed) for seed in seeds])


def _check(options: argparse.Namespace) -> None:
    options.protocol = overridden(PROTOCOLS[options.protocol], options.set)
    if options.data is None and GROUNDS[options.protocol.benchmark].needs_data:
        raise ConfigurationError(
            "Argument `data` is expected to be the folder of table and images, but got none. Use --data or set "
            "NNI_SUPERNET_DATA."
        )
    if not DEVICES[options.accelerator]():
        raise ConfigurationError(
            f"Argument `accelerator` is expected to be a device that torch finds here, but got "
            f"{options.accelerator!r}. Use cpu, or install torch with support for it."
        )
    options.methods = checked_methods(options.methods, options.protocol)
    options.seeds = checked_seeds(options.seeds)
    options.work = options.work or Path(f"{options.out}.work")
    if options.jobs > 1 and options.part is not None:
        raise ConfigurationError(
            f"Arguments `jobs` and `part` are expected to exclude each other, but got {options.jobs} and "
            f"{options.part[0]}/{options.part[1]}. Use `jobs` alone: it deals out the parts."
        )
    options.part = options.part or (0, 1)


def _distinct(name: str, values: list[_T]) -> list[_T]:
    if len(set(values)) < len(values):
        text = ",".join(map(str, values))
        raise ConfigurationError(
            f"Argument `{name}` is expected to hold each once, but got {text}. Remove the second."
        )
    return values


def _part(text: str) -> tuple[int, int]:
    """Read ``number/count``."""
    part, parts = map(int, text.split("/"))
    if not 0 <= part < parts:
        raise ValueError(text)
    return part, parts


def further_parts(file: str) -> Path:
    """Run a Python file that adds entries to `PARTS`."""
    _refuse_a_known_module(Path(file))
    path = Path(file).resolve()
    for name in _ADDED.pop(path, ()):  # it runs again in this process, and adds them again
        PARTS.pop(name, None)
    before = dict(PARTS)
    try:
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file")
        # Under its name, since checkpoints and copies find classes by it.
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:
        raise argparse.ArgumentTypeError(
            f"expected a Python file that runs, but got {type(error).__name__}: {error}. Correct {file}."
        ) from error
    if before == PARTS:
        raise argparse.ArgumentTypeError(
            f"expected a Python file that adds a part, but got {file}, which adds none. Write into `PARTS` of "
            "`parts`: PARTS['mine'] = lambda run: Method({...})."
        )
    _refuse_other_names(file, before)
    _ADDED[path] = set(PARTS) - set(before)
    return Path(file)


def _refuse_a_known_module(file: Path) -> None:
    """Refuse a name under which the file would take the place of a module, of the command's own for example."""
    place = getattr(sys.modules.get(file.stem), "__file__", None)
    if file.stem in sys.modules and (place is None or Path(place).resolve() != file.resolve()):
        raise argparse.ArgumentTypeError(
            f"expected a Python file with a name of its own, but got {file}, and `{file.stem}` is a module "
            "already. Give the file another name."
        )


def _refuse_other_names(file: str, before: Mapping[str, Part]) -> None:
    """Refuse parts that no method could name, or whose name says something else in results."""
    taken = {name for name, part in before.items() if PARTS.get(name) is not part} | (
        (set(PARTS) - set(before)) & {*BASELINES, *MODIFIERS}
    )
    wrong = sorted(taken | {name for name in PARTS if set(name) & set("+, /")})
    if wrong:
        PARTS.clear()
        PARTS.update(before)
        raise argparse.ArgumentTypeError(
            f"expected parts with new names without '+', ',', '/' and spaces, but got {', '.join(wrong)} in "
            f"{file}. Give them other names."
        )


def at_least_one(text: str) -> int:
    """Read a count."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def _parser(description: str | None) -> argparse.ArgumentParser:
    # No abbreviations: a process started for `--jobs` gives some arguments once more, under their full names.
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add: Callable[..., object] = parser.add_argument
    parts = f"{', '.join(BASELINES)}; parts of trained methods: {', '.join((*PARTS, *MODIFIERS))}"
    add("--protocol", choices=sorted(PROTOCOLS), required=True)
    add("--methods", default="params,flops,spos,calr+ms", help=f"{parts}. Default: %(default)s")
    add("--parts", type=further_parts, action="append", metavar="FILE", help="Python file with parts of your own")
    add("--seeds", default="0,1,2", help="default: %(default)s")
    add("--data", type=Path, default=os.environ.get("NNI_SUPERNET_DATA"), help="folder with the data")
    add("--out", type=Path, required=True, help="file of JSON lines to append to")
    add("--work", type=Path, help="folder for checkpoints; default: beside the results")
    add("--accelerator", choices=tuple(DEVICES), default="cpu", help="default: %(default)s")
    add("--jobs", type=at_least_one, default=1, help="processes side by side; default: %(default)s")
    add("--part", type=_part, help=argparse.SUPPRESS)
    add("--parent", type=int, help=argparse.SUPPRESS)
    add("--rescore", action="store_true", help="only compute the metrics of the results anew")
    add("--threads", type=at_least_one, help="threads of torch; default: torch's own")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting")
    return parser
