"""The work of scripts/bench_peers: brats beside MONAI, TorchIO, nnU-Net and plain scripts."""
