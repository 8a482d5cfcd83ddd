"""What goes on around a run: its start, its progress, its cost, its failures and its summary."""
