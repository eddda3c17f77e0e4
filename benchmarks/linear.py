"""Products of few rows with the default library and with weights packed once by oneDNN.

Run: taskset -c 0 python -m benchmarks.linear --threads 1
"""

import torch
from torch.nn import functional as F

from benchmarks.common import command_line, interleaved, median, ratio, report, timed
from policies.linear import packed_product, packing_pays

SHAPES = ((256, 768), (256, 1024), (1024, 256), (384, 1536), (256, 4096), (384, 50257))


def products_rate(product, x, weights):
    """Products per second of `x` with each of `weights` in turn."""

    @torch.inference_mode()
    def run() -> float:
        return len(weights) / timed(lambda: [product(x, weight, None) for weight in weights])

    return run


def main() -> None:
    """Measure every shape with 32 rows."""
    parser = command_line(__doc__)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for inside, outside in SHAPES:
        x = torch.randn(32, inside)
        # As many matrices as fill 32 MB: a network streams its weights, it does not repeat one.
        weights = [torch.randn(outside, inside) for _ in range(max(1, 2**23 // (inside * outside)))]
        packed = [torch.ops.mkldnn._reorder_linear_weight(weight, None) for weight in weights]
        sides = {
            "default": products_rate(F.linear, x, weights),
            "packed": products_rate(packed_product, x, packed),
        }
        figures = interleaved(sides, arguments.repeats)
        flops = 2 * 32 * inside * outside / 1e9
        rows.append(
            {
                "product": f"32 x {inside} x {outside}",
                "default GFLOP/s": flops * median(figures["default"]),
                "packed GFLOP/s": flops * median(figures["packed"]),
                "ratio": ratio(figures, "packed", "default"),
            }
        )
    report("linear", rows, packed_here=packing_pays(), repeats=arguments.repeats)


if __name__ == "__main__":
    main()
