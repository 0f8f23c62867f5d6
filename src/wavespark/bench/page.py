"""What all pages of benchmarks say alike."""


def verdict(met: bool | None) -> str:
    """In a word; nothing where nothing was promised."""
    return "" if met is None else "met" if met else "MISSED"
