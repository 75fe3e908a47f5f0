"""What adapts to a task and answers it, as one graph of plain tensor operations."""
