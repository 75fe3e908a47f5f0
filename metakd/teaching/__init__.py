"""Teachers that adapt or learn beside the student: mutual learning, co-meta, feedback."""
