"""Words and numbers as a paper writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pennyweight.evaluation.metrics import Headline

__all__ = [
    "cite",
    "duration",
    "interval",
    "join",
    "markdown_table",
    "percent",
    "plural",
    "score",
    "short_name",
    "spell",
    "title",
]

# Characters of a name beside an axis.
_NAME_LENGTH = 27
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# How papers write the names; a name that is not listed stays as recipes write it.
_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": "accuracy",
        "adafactor": "Adafactor",
        "adalora": "AdaLoRA",
        "adam": "Adam",
        "adamw": "AdamW",
        "beft": "BEFT",
        "bitfit": "BitFit",
        "boft": "BOFT",
        "brier": "Brier score",
        "c3a": "C3A",
        "cpu": "a CPU",
        "cuda": "a GPU",
        "deft": "DEFT",
        "delora": "DeLoRA",
        "dora": "DoRA",
        "ece": "calibration error",
        "fourierft": "FourierFT",
        "full": "full fine-tuning",
        "glora": "GLoRA",
        "gralora": "GraLoRA",
        "hira": "HiRA",
        "hra": "HRA",
        "ia3": "IA3",
        "int8": "8-bit integers",
        "lion": "Lion",
        "ln-tuning": "LN tuning",
        "loha": "LoHa",
        "lokr": "LoKr",
        "lora": "LoRA",
        "lora-fa": "LoRA-FA",
        "macro_f1": "macro F1",
        "mean_average_precision": "mean average precision",
        "micro_f1": "micro F1",
        "miss": "MiSS",
        "muon": "Muon",
        "nf4": "4-bit NormalFloat (NF4)",
        "nll": "negative log-likelihood",
        "oft": "OFT",
        "osf": "OSF",
        "peanut": "PEANuT",
        "psoft": "PSOFT",
        "pvera": "PVeRA",
        "randlora": "RandLoRA",
        "rmsprop": "RMSProp",
        "road": "RoAd",
        "rsdora": "rsDoRA",
        "rslora": "rsLoRA",
        "sgd": "SGD",
        "shira": "SHiRA",
        "tinylora": "TinyLoRA",
        "unilora": "Uni-LoRA",
        "vblora": "VB-LoRA",
        "vera": "VeRA",
        "waveft": "WaveFT",
    }
)

_MINUTE, _HOUR = 60.0, 3600.0


def percent(fraction: float) -> str:
    """Return a fraction in percent with two decimals."""
    return f"{100 * fraction:.2f}%"


def interval(bounds: tuple[float, float]) -> str:
    """Return the bounds of an interval in percent, without the sign."""
    low, high = bounds
    return f"{100 * low:.2f}\N{EN DASH}{100 * high:.2f}"


def score(headline: Headline) -> str:
    """Return the value of a metric with its interval, if it has one."""
    value = percent(headline.value)
    if headline.interval is None:
        return value
    return f"{value} (95% interval {interval(headline.interval)})"


def join(parts: Sequence[str]) -> str:
    """Return a list in words: "a", "a and b", or "a, b, and c"."""
    *others, last = parts
    match len(others):
        case 0:
            return last
        case 1:
            return f"{others[0]} and {last}"
        case _:
            return f"{', '.join(others)}, and {last}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, whose plural ends in "s"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def spell(number: int) -> str:
    """Return a number, in words below ten."""
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours, whichever reads best."""
    if seconds < 3 * _MINUTE:
        return plural(round(seconds), "second")
    if seconds < 3 * _HOUR:
        return f"{seconds / _MINUTE:.0f} minutes"
    return f"{seconds / _HOUR:.1f} hours"


def title(name: str) -> str:
    """Return a name as papers write it; a name that is not known stays as recipes write it."""
    return _TITLES.get(name, name)


def cite(*keys: str) -> str:
    """Return the mark that cites some references, with a space before it; "" without keys."""
    return f" [cite:{','.join(keys)}]" if keys else ""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; a bar in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def short_name(name: str) -> str:
    """Return a name that fits beside an axis; the middle of a long one is left out."""
    if len(name) <= _NAME_LENGTH:
        return name
    half = (_NAME_LENGTH - 1) // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"
