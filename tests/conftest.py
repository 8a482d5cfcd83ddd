"""The order of the tests."""

# It makes the run that other tests wait for, and takes longest of the quick tests.
FIRST_FILE = "test_tiny_run.py"


def pytest_collection_modifyitems(items):
    """Start with the longest file, so that it does not run alone at the end."""
    items.sort(key=lambda item: item.path.name != FIRST_FILE)
