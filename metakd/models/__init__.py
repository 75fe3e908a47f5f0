"""Networks: backbones, normalisation, weights and what a network costs."""
