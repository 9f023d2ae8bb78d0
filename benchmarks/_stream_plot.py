"""Line charts as SVG: a few curves over a number, no library."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, TOP = 360, 220, 56, 34
COLOURS = ("#c0392b", "#1f6f8b", "#d99a2b")
STYLE = "text{font:11px sans-serif;fill:#555}.t{font-weight:bold;fill:#222}"

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    title: str
    curves: dict[str, Points]


def drawn(charts: list[Chart]) -> str:
    """Two to a row, each on its own scale, on a white ground."""
    across, down = WIDTH + LEFT + 24, HEIGHT + 2 * TOP + 12
    width, height = 2 * across, (len(charts) + 1) // 2 * down
    panels = "\n".join(
        f'<g transform="translate({LEFT + index % 2 * across},{TOP + index // 2 * down})">{_panel(chart)}</g>'
        for index, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>\n{panels}\n</svg>\n'
    )


def _panel(chart: Chart) -> str:
    points = [point for curve in chart.curves.values() for point in curve]
    far, high = max(x for x, _ in points) or 1, _round_up(max(y for _, y in points))
    parts = [f'<text class="t" x="0" y="-14">{escape(chart.title)}</text>']
    parts += [_rule(share, share * high) for share in (0.0, 0.5, 1.0)]
    parts += [
        f'<text x="{share * WIDTH:.0f}" y="{HEIGHT + 16}" text-anchor="middle">{share * far:,.0f}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    for place, (name, curve) in enumerate(chart.curves.items()):
        path = " ".join(f"{x / far * WIDTH:.1f},{HEIGHT - y / high * HEIGHT:.1f}" for x, y in curve)
        colour = COLOURS[place % len(COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{WIDTH - 4}" y="{14 + 14 * place}" text-anchor="end" style="fill:{colour}">{name}</text>'
        )
    return "".join(parts)


def _rule(share: float, value: float) -> str:
    y = HEIGHT * (1 - share)
    return (
        f'<line x2="{WIDTH}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>'
        f'<text x="-6" y="{y + 4:.0f}" text-anchor="end">{value:,.4g}</text>'
    )


def _round_up(value: float) -> float:
    """To a number that is read at a glance."""
    step = 10.0 ** (len(f"{value:.0f}") - 1)
    return next((step * share for share in (1, 2, 4, 6, 8, 10) if step * share >= value), value) or 1.0
