"""One trial: train the sub-supernet whose number NNI chose; see config.yml."""

import sys

from training import few_shot, train

from nni_supernet_ext.trial import Trial

with Trial({"part": 0, "epochs": 3 if "--smoke" in sys.argv else 60}) as trial:
    train(few_shot(trial.shared_folder, only=[trial.parameters["part"]]), trial.parameters["epochs"])
    trial.final()
