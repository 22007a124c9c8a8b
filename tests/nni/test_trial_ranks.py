"""A trial whose training runs in two processes: one of them reports, both end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from pathlib import Path
import nni_supernet_ext
import nni
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toys
from nni_supernet_ext.trial import Trial

@nni.trace
class Module(toys.ToyModule):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("mean_loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True)
        return loss

toys.ToyModule = Module
root = Path(sys.argv[1])
plan = DDPStrategy(find_unused_parameters=True, process_group_backend="gloo")
evaluator = toys.toy_evaluator(root=root, strategy=plan, devices=2, plugins=[TorchElasticEnvironment()])
with Trial(folder=root / "trial") as trial:
    strategy = SupernetStrategy(checkpoint_dir=root / "supernet")
    strategy(RawFormatModelSpace(ToySpace(), evaluator), SequentialExecutionEngine())
    trial.final()
print("ended as it should")
"""


def test_two_ranks_train_report_once_and_end(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "job.py"), str(tmp_path)],
            env={
                **os.environ,
                **common,
                "MASTER_PORT": port,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "TORCHELASTIC_RUN_ID": "trial",
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0 and "ended as it should" in output, output[-3000:]
    lines = (tmp_path / "trial" / "reports.jsonl").read_text(encoding="utf-8").splitlines()
    reports = [json.loads(line) for line in lines]
    assert [report["index"] for report in reports] == [0, 1]
    assert all("mean_loss" in report["metrics"] for report in reports)
