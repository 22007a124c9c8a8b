"""Train every architecture of the DigitCells benchmark from scratch: the table that comes with the package.

    python benchmarks/digit_cells.py --seeds 0,1,2 --work runs/digit_cells --out digit_cells.csv

729 architectures (a 1x1 convolution, a 3x3 convolution or a skip connection on each of the six edges of one
NAS-Bench-201 cell), each trained alone. A killed command goes on where it was when it is given again.
``--shard 0/2`` and ``--shard 1/2`` split the work among processes that share a folder; the csv file is written when
all is there.
``--limit 3`` trains the first three architectures only.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import torch  # isort: skip
from torch import Tensor, nn  # isort: skip
from torch.nn.functional import cross_entropy  # isort: skip

from nni_supernet_ext.benchmarks import DigitImages, digit_images, with_noise  # isort: skip
from nni_supernet_ext.benchmarks.nasbench201_codes import EDGES, OPERATIONS  # isort: skip
from nni_supernet_ext.functional import kendall_tau  # isort: skip
from nni_supernet_ext.spaces import nasbench201_network  # isort: skip

CHANNELS = 8
EPOCHS, BATCH, RATE, MOMENTUM, DECAY = 30, 64, 0.1, 0.9, 5e-4
_IMAGE = -1


class SideBySide(nn.Module):
    """Several networks of one architecture, each in its own group of channels: fewer, larger operations.

    Nothing flows from one to another, so each computes and learns what it would alone, up to rounding.

    Args:
        networks: Networks of the same architecture with different weights.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.groups = len(networks)
        self.features = copy.deepcopy(networks[0])
        others = [dict(network.named_modules()) for network in networks]
        for name, module in self.features.named_modules():
            same = [modules[name] for modules in others]
            if isinstance(module, nn.Conv2d):
                module.groups = self.groups
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = torch.cat([one.running_mean for one in same])
                module.running_var = torch.cat([one.running_var for one in same])
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.weight = nn.Parameter(torch.cat([one.weight.detach() for one in same]))
            if isinstance(module, nn.BatchNorm2d):
                module.bias = nn.Parameter(torch.cat([one.bias.detach() for one in same]))
        self.features.head[-1] = nn.Identity()
        classifiers = [network.head[-1] for network in networks]
        self.weight = nn.Parameter(torch.stack([one.weight.detach() for one in classifiers]))
        self.bias = nn.Parameter(torch.stack([one.bias.detach() for one in classifiers]))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape [N, networks, classes] for images of shape [N, networks, H, W]."""
        features = self.features(x).view(len(x), self.groups, -1)
        return torch.einsum("ngc,gkc->ngk", features, self.weight) + self.bias


def train(code: str, seeds: Sequence[int], images: DigitImages) -> list[dict[str, Any]]:
    """Train one architecture from scratch, with several seeds side by side.

    Args:
        code: One digit per edge.
        seeds: Seeds of the weights, the batches and the noise on the training images.
        images: The benchmark's images.

    Returns:
        For each seed the accuracies in percent on validation and test images, and the mean training loss of the
        last epoch; and the seconds that all of them took.
    """
    since = time.perf_counter()
    network = SideBySide([untrained(code, seed) for seed in seeds])
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)
    angle = math.pi / (EPOCHS * (len(images.y_train) // BATCH))
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(angle * step)))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(EPOCHS):
        losses = []
        for batches in zip(*(_batches(images, generator) for generator in generators), strict=True):
            x = torch.cat([x for x, _ in batches], dim=1).contiguous(memory_format=torch.channels_last)
            y = torch.stack([y for _, y in batches], dim=1)
            optimizer.zero_grad()
            loss = cross_entropy(network(x).transpose(1, 2), y, reduction="none").mean(dim=0)
            loss.sum().backward()
            optimizer.step()
            cosine.step()
            losses.append(loss.detach())
    network.eval()
    valid = _accuracies(network, images.x_valid, images.y_valid)
    test = _accuracies(network, images.x_test, images.y_test)
    last = torch.stack(losses).mean(dim=0).tolist()
    seconds = round(time.perf_counter() - since, 2)
    return [
        {"valid": round(v, 4), "test": round(t, 4), "loss": round(loss, 5), "seconds": seconds}
        for v, t, loss in zip(valid, test, last, strict=True)
    ]


def untrained(code: str, seed: int) -> nn.Module:
    """Build the network of an architecture with the weights of a seed."""
    sample = {f"cell/{edge}": OPERATIONS[int(digit)] for edge, digit in zip(EDGES, code, strict=True)}
    torch.manual_seed(seed)
    return nasbench201_network(sample, CHANNELS, cells_per_stage=1, in_channels=1, stages=1)


def _batches(images: DigitImages, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch of one seed."""
    for chosen in torch.randperm(len(images.y_train), generator=generator).split(BATCH):
        yield with_noise(images.x_train[chosen], generator), images.y_train[chosen]


@torch.no_grad()
def _accuracies(network: SideBySide, x: Tensor, y: Tensor) -> list[float]:
    logits = network(x.expand(-1, network.groups, -1, -1).contiguous(memory_format=torch.channels_last))
    return (100 * (logits.argmax(2) == y[:, None]).float().mean(dim=0)).tolist()


def network_of(code: str) -> str:
    """Return a text that is equal for exactly those architectures which are the same network.

    Each convolution is a term of its own, however often its output is used; skip connections pass on sums of terms,
    and a sum that is passed on is no term. What convolutions are called does not matter: of all texts the first
    counts. The strings by which NAS-Bench-201's authors count isomorphic cells cannot tell a convolution that is
    used twice from two of the same input.
    """
    operations = dict(zip(EDGES, code, strict=True))
    kinds: list[str] = []
    inputs: list[Counter[int]] = []
    nodes = [Counter({_IMAGE: 1})]
    for node in (1, 2, 3):
        terms: Counter[int] = Counter()
        for source in range(node):
            kind = operations[f"{source}_{node}"]
            if kind == "1":
                terms += nodes[source]
            else:
                terms[len(kinds)] += 1
                kinds.append(kind)
                inputs.append(nodes[source])
        nodes.append(terms)
    return min(_text(kinds, inputs, nodes[-1], names) for names in itertools.permutations(range(len(kinds))))


def _text(kinds: Sequence[str], inputs: Sequence[Counter[int]], output: Counter[int], names: Sequence[int]) -> str:
    """Write a network down, its convolutions in the order of their names."""

    def total(terms: Counter[int]) -> str:
        named = {"x" if term == _IMAGE else str(names[term]): count for term, count in terms.items()}
        return "+".join(f"{count}*{name}" for name, count in sorted(named.items()))

    parts = {name: f"{kind}({total(terms)})" for name, kind, terms in zip(names, kinds, inputs, strict=True)}
    return "; ".join([total(output), *(parts[name] for name in range(len(parts)))])


Results = dict[tuple[str, int], dict[str, Any]]


def write_table(results: Results, codes: list[str], seeds: list[int], out: Path) -> None:
    """Write one row per architecture."""
    groups: dict[str, int] = {}
    measures = [f"{part}_{seed}" for seed in seeds for part in ("valid", "test", "loss")]
    lines = [",".join(["code", "group", *measures])]
    for code in codes:
        group = groups.setdefault(network_of(code), len(groups))
        values = [str(results[code, seed][part]) for seed in seeds for part in ("valid", "test", "loss")]
        lines.append(",".join([code, str(group), *values]))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{out}: {len(codes)} architectures, {len(groups)} different networks")
    for one, other in itertools.combinations(seeds, 2):
        pair = [[results[code, seed]["test"] for code in codes] for seed in (one, other)]
        print(f"Kendall's tau between the test accuracies of seeds {one} and {other}: {kendall_tau(*pair):.3f}")


def _seeds(text: str) -> list[int]:
    """Read a list of seeds."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas between them, such as 0,1,2, but got {text!r}"
        )
    return [int(seed) for seed in text.split(",")]


def _shard(text: str) -> tuple[int, int]:
    """Read which share of the work is meant."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected k/n with k from 0 to n - 1, such as 0/2, but got {text!r}")
    return int(found[1]), int(found[2])


def main() -> None:
    """Train what is not trained yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=_seeds, default="0,1,2", help="default: %(default)s")
    parser.add_argument("--work", type=Path, required=True, help="folder of the results so far")
    parser.add_argument("--out", type=Path, help="csv file to write when all is trained")
    parser.add_argument(
        "--shard", type=_shard, default="0/1", help="train only each n-th: k/n; default: %(default)s"
    )
    parser.add_argument("--limit", type=int, help="only the first architectures")
    options = parser.parse_args()
    seeds, (shard, shards) = options.seeds, options.shard
    codes = ["".join(digits) for digits in itertools.product("123", repeat=6)][: options.limit]
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    images = digit_images()
    done = _done(options.work)
    own = options.work / f"shard{shard}of{shards}.jsonl"
    for number, code in enumerate(codes):
        left = [seed for seed in seeds if (code, seed) not in done]
        if number % shards == shard and left:
            lines = [{"code": code, "seed": seed} for seed in left]
            for line, result in zip(lines, train(code, left, images), strict=True):
                line.update(result)
            with own.open("a", encoding="utf-8") as file:
                # The line break first: the line before may be cut off.
                file.write("".join(f"\n{json.dumps(line)}" for line in lines))
    done = _done(options.work)
    missing = len(seeds) * len(codes) - sum((code, seed) in done for code in codes for seed in seeds)
    if missing:
        print(f"{missing} trainings are still missing")
    elif options.out:
        write_table(done, codes, seeds, options.out)


def _done(work: Path) -> Results:
    """Read the finished trainings; a line that was cut off is left out."""
    done = {}
    for file in sorted(work.glob("*.jsonl")):
        for text in file.read_text(encoding="utf-8").splitlines():
            if text.startswith("{") and text.endswith("}"):
                line = json.loads(text)
                done[line["code"], line["seed"]] = line
    return done


if __name__ == "__main__":
    main()
