"""Run ``nnictl`` with NNI's manager on the loopback interface only: ``python -m nni_supernet_ext.trial.nnictl``.

Takes the arguments of ``nnictl``. Stock ``nnictl`` serves its page, without authentication, on every interface.
"""

from __future__ import annotations

import os
import sys

from nni_supernet_ext._compat.nni_manager import bind_to_loopback, serves_everywhere, wait_longer_for_managers


def main() -> None:
    """Run nnictl in this process."""
    if not serves_everywhere():
        os.environ.update(bind_to_loopback())
    wait_longer_for_managers()
    from nni.tools.nnictl.nnictl import parse_args

    sys.argv[0] = "nnictl"
    parse_args()


if __name__ == "__main__":
    main()
