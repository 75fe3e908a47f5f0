"""Adversarial meta-transfer: the game, its discriminator, the generator of starts."""
