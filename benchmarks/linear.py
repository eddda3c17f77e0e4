"""Products of few rows with the default library, oneDNN's packed weights, and our panels.

Run: taskset -c 0 python -m benchmarks.linear --threads 1
"""

import torch
from torch import nn

from benchmarks.common import command_line, interleaved, median, ratio, report, timed
from policies.kernels import Panels
from policies.linear import pack_for_onednn, packing_pays

ROWS = (1, 8, 32, 128)
SHAPES = ((256, 768), (1024, 256), (384, 1536), (256, 4096), (384, 50257))


def products_rate(products, x):
    """Products per second of `x` with each weight in turn."""

    @torch.inference_mode()
    def run() -> float:
        return len(products) / timed(lambda: [product(x) for product in products])

    return run


def figures_of(rows: int, inside: int, outside: int, repeats: int):
    """One row of the table."""
    x = torch.randn(rows, inside)
    # Enough matrices to fill 32 MB: a network streams its weights and does not repeat one.
    layers = [nn.Linear(inside, outside) for _ in range(max(1, 2**23 // (inside * outside)))]
    sides = {
        "default": products_rate(layers, x),
        "oneDNN": products_rate([pack_for_onednn(layer.weight, layer.bias) for layer in layers], x),
        "panels": products_rate([Panels(layer.weight, layer.bias) for layer in layers], x),
    }
    figures = interleaved(sides, repeats)
    flops = 2 * rows * inside * outside / 1e9
    return {
        "product": f"{rows} x {inside} x {outside}",
        **{f"{side} GFLOP/s": flops * median(figures[side]) for side in sides},
        "panels to default": ratio(figures, "panels", "default"),
        "panels to oneDNN": ratio(figures, "panels", "oneDNN"),
    }


def main() -> None:
    """Measure every shape."""
    parser = command_line(__doc__)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = (figures_of(n, *shape, arguments.repeats) for shape in SHAPES for n in ROWS)
    report("linear", rows, packed_here=packing_pays(), repeats=arguments.repeats)


if __name__ == "__main__":
    main()
