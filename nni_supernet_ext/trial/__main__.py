"""Start NNI's own trial entry with this package imported first, which makes ``nni.nas`` importable.

``python -m nni_supernet_ext.trial -m nni.nas.execution.training_service trial``: the form in which NNI's training
service engine can be told to use it.
"""

from __future__ import annotations

import runpy
import sys

import nni_supernet_ext  # noqa: F401

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "-m":
        sys.exit("Usage: python -m nni_supernet_ext.trial -m <module> [arguments]")
    module = sys.argv[2]
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
