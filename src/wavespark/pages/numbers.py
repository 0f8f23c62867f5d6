"""Numbers formatted for reading; `None` and values that are not finite become words."""

import math

NOT_RECORDED = "not recorded"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 3) -> str:
    """Format a value with `digits` significant figures.

    >>> number(0.71234), number(1234.5), number(3.2e-7), number(None)
    ('0.712', '1,234', '3.20 × 10⁻⁷', 'not recorded')
    """
    if value is None:
        return NOT_RECORDED
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    exponent = int(power)
    if -4 <= exponent < 9:
        return f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return f"{mantissa} × 10{str(exponent).translate(_SUPERSCRIPT)}"


def count(value: float | None, one: str = "", many: str = "") -> str:
    """Format a whole number, with its noun when given.

    >>> count(1, "volume"), count(12000, "volume"), count(2, "series", "series")
    ('1 volume', '12,000 volumes', '2 series')
    """
    if value is None or not math.isfinite(value):
        return NOT_RECORDED
    whole = round(value)
    noun = one if whole == 1 else many or (one + "s" if one else "")
    return f"{whole:,} {noun}".rstrip()


def share(value: float | None) -> str:
    """Format a share as per cent.

    >>> share(0.6), share(0.0123)
    ('60 %', '1.2 %')
    """
    if value is None or not math.isfinite(value):
        return NOT_RECORDED
    return f"{100 * value:.0f} %" if abs(value) >= 0.1 or value == 0 else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Format a time span in seconds.

    >>> duration(0.0123), duration(0.834), duration(272), duration(9000)
    ('12.3 ms', '0.834 s', '4 min 32 s', '2 h 30 min')
    """
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return NOT_RECORDED
    if seconds < 0.1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def parameters(value: float | None) -> str:
    """Format a number of parameters.

    >>> parameters(5_990_000), parameters(8123)
    ('5.99 million', '8,123')
    """
    if value is None or not math.isfinite(value):
        return NOT_RECORDED
    return f"{value / 1e6:.3g} million" if value >= 1e6 else f"{value:,.0f}"
