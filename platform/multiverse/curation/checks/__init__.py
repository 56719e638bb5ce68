"""What is checked of rows before and after they are structured."""
