"""The runtimes that a graph can be exported for, one a file."""
