"""Draws the pictures of choose-a-pattern.md: `python docs/how-to/patterns/draw.py`, after a change of what is below."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

ROW, TOP, LEFT, MIDDLE, RIGHT, WIDTH = 34, 30, 12, 210, 430, 560


class Picture(NamedTuple):
    """What comes in, what the route does, what goes out to whom; a dashed one is only a copy, or a maybe."""

    name: str
    incoming: list[str]
    act: str
    outgoing: list[tuple[str, str, bool]]  # message, service, dashed


PICTURES = [
    Picture("content-based-router", ["order SE"], "conditions", [("order SE", "eu", False), ("", "world", True)]),
    Picture(
        "recipient-list",
        ["to: a, c"],
        "recipients",
        [("to: a, c", "a", False), ("", "b", True), ("to: a, c", "c", False)],
    ),
    Picture("splitter", ["[1, 2, 3]"], "split", [("1", "stock", False), ("2", "stock", False), ("3", "stock", False)]),
    Picture("aggregator", ["1", "2", "3"], "aggregate", [("[1, 2, 3]", "invoice", False)]),
    Picture("resequencer", ["3", "1", "2"], "resequence", [("1, then 2, then 3", "ledger", False)]),
    Picture("routing-slip", ["order"], "slip", [("order", "check", False), ("its answer", "store", False)]),
    Picture(
        "scatter-gather",
        ["question", "offer N", "offer S"],
        "two routes",
        [("question", "north, south", False), ("[offer N, offer S]", "buyer", False)],
    ),
    Picture(
        "content-enricher", ["order 7"], "enrich", [("who is 7?", "customers", True), ("order 7 + who", "desk", False)]
    ),
    Picture("wire-tap", ["order"], "any strategy", [("order", "desk", False), ("order", "audit", True)]),
    Picture("load-balancer", ["1", "2", "3"], "round_robin", [("1, 3", "a", False), ("2", "b", False)]),
    Picture("request-reply", ["question"], "replyTo", [("question", "clerk", False), ("its answer", "asker", False)]),
]

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2937 }
  .small { font-size: 11px; fill: #4b5563 }
  .box { fill: #eef2ff; stroke: #4f46e5 }
  .end { fill: #ecfdf5; stroke: #059669 }
  .line { stroke: #6b7280; fill: none; marker-end: url(#tip) }
  .maybe { stroke-dasharray: 4 4 }
"""


def main() -> None:
    """Write a file for each picture, beside this one."""
    for picture in PICTURES:
        Path(__file__).with_name(f"{picture.name}.svg").write_text(drawn(picture), encoding="utf-8")


def drawn(picture: Picture) -> str:
    """The SVG of a picture."""
    rows = max(len(picture.incoming), len(picture.outgoing))
    height = TOP + rows * ROW
    centre = height / 2
    parts = [box(MIDDLE, centre, 110, picture.act, "box")]
    for y, text in zip(places(len(picture.incoming), height), picture.incoming, strict=True):
        parts += [label(LEFT, y + 4, text), line(LEFT + 90, y, MIDDLE, centre, maybe=False)]
    for y, (message, service, maybe) in zip(places(len(picture.outgoing), height), picture.outgoing, strict=True):
        parts += [line(MIDDLE + 110, centre, RIGHT, y, maybe=maybe), box(RIGHT, y, 110, service, "end")]
        parts.append(label(RIGHT - 8, y - 5 if y <= centre else y + 15, message, "small", anchor="end"))
    title = escape(picture.name.replace("-", " "))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n"
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#6b7280"/></marker></defs>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def places(count: int, height: float) -> list[float]:
    """The heights of so many rows, evenly about the middle."""
    return [height / 2 + (place - (count - 1) / 2) * ROW for place in range(count)]


def box(x: float, y: float, width: float, text: str, kind: str) -> str:
    """A box with its text."""
    rect = f'<rect class="{kind}" x="{x:g}" y="{y - 13:g}" width="{width:g}" height="26" rx="6"/>'
    return rect + label(x + width / 2, y + 4, text, anchor="middle")


def label(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    """A text."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def line(x: float, y: float, to_x: float, to_y: float, *, maybe: bool) -> str:
    """An arrow."""
    return f'<path class="line{" maybe" if maybe else ""}" d="M{x:g} {y:g} L{to_x:g} {to_y:g}"/>'


if __name__ == "__main__":
    main()
