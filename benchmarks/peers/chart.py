"""A bar chart as SVG. It is read on a bright and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

LEFT, WIDTH, ROW, BAR = 190, 760, 30, 18
#: What is ours, and what is not.
OURS, OTHERS = "#2b7bba", "#9a9a9a"


def bar_chart(title: str, bars: Sequence[tuple[str, float, bool]]) -> str:
    """Horizontal bars, one below the other.

    Args:
        title: stands above them.
        bars: for each its name, its length, and whether it is ours.
    """
    scale = (WIDTH - LEFT - 70) / max(length for _, length, _ in bars)
    height = 40 + ROW * len(bars) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' font-family="sans-serif" font-size="14">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text x="12" y="25" font-weight="bold" fill="#222222">{escape(title)}</text>',
    ]
    for row, (name, length, ours) in enumerate(bars):
        top, reach = 40 + ROW * row, length * scale
        middle, fill = top + BAR - 4, OURS if ours else OTHERS
        lines += [
            f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end" fill="#222222">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{reach:.1f}" height="{BAR}" fill="{fill}"/>',
            f'<text x="{LEFT + reach + 6:.1f}" y="{middle}" fill="#222222">{length:,.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
