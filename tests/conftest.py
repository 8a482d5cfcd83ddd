"""The order of the tests."""

# It makes the run that others wait for, and takes longest of the quick ones.
FIRST_FILE = "test_tiny_run.py"


def pytest_collection_modifyitems(items):
    """Begin with the longest, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != FIRST_FILE)
