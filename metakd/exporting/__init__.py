"""A trained student for other runtimes: it goes on learning new classes there."""
