"""Products of few rows with the default library and with weights packed once by oneDNN.

Run: taskset -c 0 python -m benchmarks.linear --threads 1
"""

import torch
from torch.nn import functional as F

from benchmarks.common import command_line, interleaved, median, ratio, report, timed
from policies.linear import _packed_product, small_layers_pay

SHAPES = ((256, 768), (256, 1024), (1024, 256), (384, 1536), (256, 4096), (384, 50257))


def products_rate(x, weight, packed, repeats: int):
    """Products per second."""

    def run() -> float:
        with torch.inference_mode():
            if packed is None:
                return repeats / timed(lambda: [F.linear(x, weight) for _ in range(repeats)])
            return repeats / timed(
                lambda: [_packed_product(x, packed, None) for _ in range(repeats)]
            )

    return run


def main() -> None:
    """Measure every shape with 32 rows."""
    parser = command_line(__doc__)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for inside, outside in SHAPES:
        x, weight = torch.randn(32, inside), torch.randn(outside, inside)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        repeats = max(5, int(2e9 / (64 * inside * outside)))
        sides = {
            "default": products_rate(x, weight, None, repeats),
            "packed": products_rate(x, weight, packed, repeats),
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
    report("linear", rows, small_layers_packed=small_layers_pay(), repeats=arguments.repeats)


if __name__ == "__main__":
    main()
