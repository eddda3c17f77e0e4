"""How an optimiser step is taken: minibatches, micro-batches, precision."""
