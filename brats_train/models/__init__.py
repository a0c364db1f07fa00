"""Networks, pretrained encoder weights and the checkpoint format."""
