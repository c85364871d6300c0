"""Plain text for people: at most 100 columns, colour only on a terminal and without NO_COLOR."""
import os
import sys
import textwrap
import time

WIDTH = 100
COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
_CODES = {"bold": "1", "dim": "2", "good": "32", "bad": "31"}


def paint(text, style):
    return f"\033[{_CODES[style]}m{text}\033[0m" if COLOUR and style else text


def heading(text):
    print(f"\n{paint(text, 'bold')}\n{paint('=' * len(text), 'bold')}", flush=True)


def say(text, indent=0):
    print(textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent),
          flush=True)


class step:
    """One line per thing that takes a while: what, then how long it took."""

    def __init__(self, what):
        self.what = what

    def __enter__(self):
        print(f"  {self.what} ...", end="", flush=True)
        self.begun = time.monotonic()
        return self

    def __exit__(self, kind, *_):
        took = f"{time.monotonic() - self.begun:.1f} s"
        print(paint(f" {took}" if kind is None else f" failed after {took}", "dim" if kind is None else "bad"), flush=True)


def cell(value):
    """(text, style) of a value; a value may come with its style."""
    value, style = value if isinstance(value, tuple) else (value, None)
    if value is None:
        return "-", style
    if isinstance(value, bool):
        return "yes" if value else "no", style
    if isinstance(value, float):
        return f"{value:,.1f}", style
    return f"{value:,}" if isinstance(value, int) else str(value), style


def good_if(ok, value):
    return value, "good" if ok else "bad"


def table(head, rows, first=38, width=None):
    """The first column left, the others right; a row is [label, value...], value may be (value, style)."""
    width = width or min(20, (WIDTH - 2 - first) // (len(head) - 1))
    print("  " + paint(head[0].ljust(first) + "".join(h.rjust(width) for h in head[1:]), "bold"))
    for label, *values in rows:
        line = "  " + label.ljust(first)
        for text, style in map(cell, values):
            line += paint(text.rjust(width), style)
        print(line)
    sys.stdout.flush()


def side_by_side(left_head, left, right_head, right):
    """Two timelines, each a list of (milliseconds, text)."""
    half = (WIDTH - 4) // 2
    texts = []
    for lines in (left, right):
        texts.append([f"{at:>8,.0f}  {text}"[:half] for at, text in lines])
    print("  " + paint(f"{'ms':>8}  {left_head}".ljust(half) + f"{'ms':>8}  {right_head}", "bold"))
    for row in range(max(map(len, texts))):
        one, two = (column[row] if row < len(column) else "" for column in texts)
        print("  " + (one.ljust(half) + two).rstrip())
    sys.stdout.flush()


def moments(entries):
    """One timeline: (milliseconds, text)."""
    for at, text in entries:
        print(textwrap.fill(text, WIDTH, initial_indent=f"    {at:>+8,.0f} ms  ", subsequent_indent=" " * 17))
    sys.stdout.flush()
