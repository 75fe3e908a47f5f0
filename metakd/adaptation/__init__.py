"""What algorithms are built from: their interface, inner loops, update rules, outer gradients."""
