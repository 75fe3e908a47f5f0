"""What a teacher knows and how a student learns it: losses, objectives, the frozen teacher."""
