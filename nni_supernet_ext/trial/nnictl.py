"""Run ``nnictl`` with NNI's manager on the loopback interface only: ``python -m nni_supernet_ext.trial.nnictl``.

Takes the arguments of ``nnictl``. Stock ``nnictl`` serves its page, without authentication, on every interface.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

from nni_supernet_ext._compat.nni_database import stored_configuration
from nni_supernet_ext._compat.nni_experiment import RESUME_REMEDY
from nni_supernet_ext._compat.nni_manager import manager_environment, wait_longer_for_managers


def main() -> None:
    """Run nnictl in this process."""
    if sys.argv[1:2] == ["resume"]:
        _refuse_scripts(sys.argv[2:])
    os.environ.update(manager_environment())
    wait_longer_for_managers()
    from nni.tools.nnictl.nnictl import parse_args

    sys.argv[0] = "nnictl"
    parse_args()


def _refuse_scripts(arguments: list[str]) -> None:
    """Leave an experiment alone that a Python script recorded: NNI would only note that its trial failed."""
    from nni.tools.nnictl.config_utils import Experiments

    for experiment, entry in Experiments().get_all_experiments().items():
        database = Path(entry.get("logDir") or ".", experiment, "db", "nni.sqlite")
        if experiment not in arguments or not database.exists():
            continue
        try:
            configuration, _, _ = stored_configuration(database)
        except sqlite3.Error:
            continue  # nnictl says what is wrong with it.
        if RESUME_REMEDY in str(configuration.get("trialCommand")):
            sys.exit(f"ERROR: {RESUME_REMEDY}")


if __name__ == "__main__":
    main()
