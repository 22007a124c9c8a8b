"""Collect the parts that the trials have trained, train what they left, and search over all of them.

python search.py ~/nni-experiments/<id>/shared
"""

import sys
from pathlib import Path

from training import NasExperiment, evaluator, few_shot, train

from nni_supernet_ext.strategies import SupernetEvolution

smoke = "--smoke" in sys.argv
epochs = 3 if smoke else 60
strategy = few_shot(Path(sys.argv[1]))
train(strategy, epochs)  # reads finished parts and goes on with those whose trial was killed
search = SupernetEvolution(
    weights=strategy.weights,
    population=4 if smoke else 50,
    cycles=1 if smoke else 10,
    recalibrate_batches=0,
    journal=strategy.checkpoint_dir / "search.jsonl",
    progress=False,
)
NasExperiment(strategy.trained.model, evaluator(epochs), search).run()
print(f"{len(strategy.weights.parts)} parts, {len(search.history)} subnets, the best:")
print(f"{search.best.metrics['val_acc']:.4f}", search.best.sample)
