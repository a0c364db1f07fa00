"""Distributed processes, mixed precision, torch.compile, signals and the environment."""
