"""What textenv costs, side by side with its peers: `python -m benchmarks.NAME`."""
