"""Have torchvision and NNI prepared in every interpreter, also in those that never import this package.

NNI starts processes of its own (``nnictl``, trials) that import it first and this package later or never.
So ``setup.py`` writes this file's code into a ``.pth`` file, which Python runs when an interpreter starts.
For that reason it is short, uses the standard library only, imports nothing at start, and lets no exception
out. What is to be prepared, and how, stands in `guards`, which is loaded when a guarded module is imported.
"""

import sys


class NniSupernetExtGate:
    """Have `guards` find the modules that need preparation; know nothing of all others."""

    def find_spec(self, name, path=None, target=None):
        """Return the spec of a guarded module, else None."""
        if name == "nni" or name == "torchvision._meta_registrations":
            try:
                return load_beside("guards").guarded_spec(name, path, load_beside)
            except Exception:  # The import then goes on as if there were no gate.
                return None


def load_beside(name):
    """Load a file of this folder by its path, because importing the package would import NNI half-way."""
    from importlib.util import find_spec, module_from_spec, spec_from_file_location

    folder = find_spec("nni_supernet_ext").submodule_search_locations[0]  # type: ignore[union-attr, index]
    spec = spec_from_file_location("_nni_supernet_ext_" + name, f"{folder}/_compat/{name}.py")
    sys.modules[spec.name] = module = module_from_spec(spec)  # type: ignore[union-attr, arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def open_gate():
    """Put the gate in front of the import system unless one stands there already."""
    if all(type(finder).__name__ != "NniSupernetExtGate" for finder in sys.meta_path):
        sys.meta_path.insert(0, NniSupernetExtGate())


open_gate()
