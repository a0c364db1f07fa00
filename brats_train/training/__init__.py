"""The training loop and its parts: step, recipe, losses, schedule, validation, run directory."""
