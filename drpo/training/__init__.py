"""Training of rewriters through TRL: BPO's fine-tuning on pairs, Align-Pro's policy gradient for a reward."""
