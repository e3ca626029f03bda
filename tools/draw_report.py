#!/usr/bin/env python
"""Draws the upper parts of a report as a PNG, such as that of the README; it needs cairosvg.

tools/draw_report.py report.html docs/report.png
"""

import argparse
import base64
import html
import io
import re
from pathlib import Path

from cairosvg import svg2png
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

WIDTH, EDGE = 1000, 24
SHOWN = ("Curves", "Reliability", "Best and worst images")
INK, SOFT, LINE = "#1c2530", "#5b6770", "#dfe5ea"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--strips", type=int, default=3, help="classes whose images are shown (default: 3)")
    options = parser.parse_args()
    page = options.report.read_text(encoding="utf-8")
    parts = [title(page), cards(page)]
    for section in re.findall(r"<section>.*?</section>", page, re.DOTALL):
        inner = [figure(svg) for svg in re.findall(r"<svg.*?</svg>", section, re.DOTALL)]
        inner += [strip(text) for text in re.findall(r'<div class="strip">.*?</div>', section, re.DOTALL)]
        heading = re.search(r"<h2>(.*?)</h2>", section, re.DOTALL)[1]
        if heading in SHOWN:
            parts += [headline(heading), *inner[: options.strips]]
    whole = Image.new("RGB", (WIDTH, sum(part.height for part in parts) + 2 * EDGE), "white")
    top = EDGE
    for part in parts:
        whole.paste(part, (EDGE, top))
        top += part.height
    whole.quantize(128).save(options.picture, optimize=True)


def title(page: str) -> Image.Image:
    """The page's heading, and its first lines."""
    heading = re.search(r"<h1>(.*?)</h1>\s*<p>(.*?)</p>", page, re.DOTALL)
    canvas, pen = blank(70)
    pen.text((0, 0), html.unescape(heading[1]), INK, font(24))
    pen.text((0, 38), html.unescape(heading[2]), SOFT, font(13))
    return canvas


def headline(text: str) -> Image.Image:
    """Of a section."""
    canvas, pen = blank(34)
    pen.text((0, 8), text, INK, font(16))
    return canvas


def cards(page: str) -> Image.Image:
    """The numbers of the first run."""
    found = re.findall(r'<div class="card"><span>(.*?)</span><b>(.*?)</b><span>(.*?)</span>', page)[:6]
    canvas, pen = blank(96)
    wide = (WIDTH - 2 * EDGE) // len(found)
    for n, (name, value, interval) in enumerate(found):
        pen.rounded_rectangle((n * wide, 0, (n + 1) * wide - 12, 80), 8, outline=LINE)
        for (text, colour, size), y in zip(
            [(name, SOFT, 12), (value, INK, 22), (interval, SOFT, 12)], (8, 24, 56), strict=True
        ):
            pen.text((n * wide + 12, y), html.unescape(text), colour, font(size))
    return canvas


def figure(svg: str) -> Image.Image:
    """A figure over the whole width."""
    drawn = svg2png(svg.encode(), output_width=WIDTH - 2 * EDGE, background_color="white")
    return Image.open(io.BytesIO(drawn)).convert("RGB")


def strip(text: str) -> Image.Image:
    """A class's best and worst images."""
    canvas, pen = blank(104)
    pen.text((0, 30), html.unescape(re.search(r"<h3>(.*?)</h3>", text)[1]), INK, font(15))
    colours = {"good": "#2f8f5b", "missed": "#d1602d", "false": "#b3892b"}
    images = re.findall(r'<figure class="(\w+)">.*?base64,(.*?)"><figcaption>(.*?)<', text, re.DOTALL)
    for n, (kind, data, prob) in enumerate(images):
        left = 70 + 97 * n
        picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").resize((82, 82))
        pen.rectangle((left - 2, 4, left + 83, 89), colours[kind])
        canvas.paste(picture, (left, 6))
        pen.text((left, 90), prob, SOFT, font(10))
    return canvas


def blank(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """White, as wide as the page."""
    canvas = Image.new("RGB", (WIDTH - 2 * EDGE, height), "white")
    return canvas, ImageDraw.Draw(canvas)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Of matplotlib."""
    return ImageFont.truetype(findfont("DejaVu Sans"), size)


if __name__ == "__main__":
    main()
