"""What the commands do: the job of `train`, its speeches, environments, chat, the recipe."""
