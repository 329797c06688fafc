"""An explanation as one picture: rollouts, then layers and heads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.heat_map import colour, draw_over
from pipeline.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from model import ExplainedLabel, Explanation

_MARGIN = 40
_GAP = 20
_TILE = 232
_TILES_IN_ROW = 5
_WIDTH = 2 * _MARGIN + _TILES_IN_ROW * _TILE + (_TILES_IN_ROW - 1) * _GAP
_HEADS_IN_ROW = 8
_SMALL_GAP = 16
_SMALL_TILE = (_WIDTH - 2 * _MARGIN - (_HEADS_IN_ROW - 1) * _SMALL_GAP) // _HEADS_IN_ROW
_GROUND, _INK, _QUIET = "#ffffff", "#1c1e21", "#5a6068"
_TITLE, _HEADING, _TEXT, _SMALL = 28, 22, 18, 14
_OUTLINES = ("#f2b705", "#27a4f2")
_CHIP = 20
_MAX_CHARACTERS = 200
_MAX_TILES = 50


@dataclass(frozen=True, slots=True)
class _Tile:
    """A picture with one or two lines below."""

    image: Image.Image
    title: str
    note: str


def write_picture(explanation: Explanation, address: str, stream: IO[bytes]) -> None:
    """Writes a PNG with the photograph, the rollouts of all labels, and each head's attention.

    The heads are those of the answer position, from which all labels are read, and of the best label's own tokens.

    Args:
        address: where the photograph lies, for people.
    """
    shown = explanation.labels[:_MAX_TILES]
    n_more = len(explanation.labels) - len(shown)
    strips = [_text_strip("What the model looked at", _TITLE, above=_MARGIN)]
    strips.append(_text_strip(address, _TEXT, _QUIET))
    strips.append(
        _text_strip(f"Attention rollout{f' (and {n_more} labels more)' if n_more else ''}", _HEADING, above=24)
    )
    strips += _grid(_rollout_tiles(explanation, shown), _TILES_IN_ROW, _GAP)
    for seen, square in zip(explanation.views, _squares(explanation), strict=True):
        heading = f"{_with_square('Before any label', square)}, where all first tokens are read"
        strips += _head_strips(seen.image, heading, seen.answer_maps)
    for best in shown[:1]:
        view = explanation.views[best.label.view].image
        strips += _head_strips(view, f'The tokens of "{best.label.text}"', best.maps)
    strips.append(_scale_strip())
    picture = Image.new("RGB", (_WIDTH, sum(strip.height for strip in strips) + _MARGIN), _GROUND)
    top = 0
    for strip in strips:
        picture.paste(strip, (0, top))
        top += strip.height
    picture.save(stream, "PNG")


def _rollout_tiles(explanation: Explanation, shown: list[ExplainedLabel]) -> list[_Tile]:
    views = [seen.image.resize((_TILE, _TILE), Image.Resampling.BICUBIC) for seen in explanation.views]
    squares = _squares(explanation)
    tiles = [] if len(views) == 1 else [_Tile(_outlined(explanation), "the photograph", f"{len(views)} squares")]
    tiles += [_Tile(view, "what the model saw", square) for view, square in zip(views, squares, strict=True)]
    for view, seen, square in zip(views, explanation.views, squares, strict=True):
        tiles.append(_Tile(draw_over(view, seen.answer_rollout, _TILE), "before any label", square))
    for explained in shown:
        label = explained.label
        drawn = draw_over(views[label.view], explained.rollout, _TILE)
        tiles.append(_Tile(drawn, label.text, _with_square(f"{label.score:.3f}", squares[label.view])))
    return tiles


def _squares(explanation: Explanation) -> list[str]:
    """What tells the views apart; nothing where there is one."""
    n_views = len(explanation.views)
    return [""] if n_views == 1 else [f"square {number}" for number in range(1, n_views + 1)]


def _with_square(text: str, square: str) -> str:
    return f"{text}, {square}" if square else text


def _outlined(explanation: Explanation) -> Image.Image:
    """The photograph in a tile, with the outlines of its views."""
    # Boxes are in pixels of the photograph, and reach from end to end of it.
    scale = _TILE / max(edge for seen in explanation.views for edge in seen.box)
    width, height = (round(scale * max(seen.box[side] for seen in explanation.views)) for side in (2, 3))
    photograph = explanation.photograph.resize((width, height), Image.Resampling.BICUBIC)
    tile = Image.new("RGB", (_TILE, _TILE), _GROUND)
    pen = ImageDraw.Draw(tile)
    tile.paste(photograph, (0, 0))
    for number, seen in enumerate(explanation.views):
        left, top, right, bottom = (round(scale * edge) for edge in seen.box)
        colour_name = _OUTLINES[number % len(_OUTLINES)]
        pen.rectangle((left, top, right - 1, bottom - 1), outline=colour_name, width=3)
        # On any picture a number can be read on a ground of its own.
        pen.rectangle((left, top, left + _CHIP, top + _CHIP), fill=colour_name)
        pen.text((left + _CHIP / 2, top + _CHIP / 2), str(number + 1), _INK, _font(_SMALL), anchor="mm")
    return tile


def _head_strips(view: Image.Image, heading: str, maps_LHPP: Tensor) -> list[Image.Image]:
    strips = [_text_strip(heading, _HEADING, above=16)]
    strips.append(_text_strip("with the share of the head's attention that goes to the image", _TEXT, _QUIET))
    for tiles in _head_tiles(view, maps_LHPP):
        strips += _grid(tiles, _HEADS_IN_ROW, _SMALL_GAP)
    return strips


def _head_tiles(view: Image.Image, maps_LHPP: Tensor) -> list[list[_Tile]]:
    n_layers, n_heads = maps_LHPP.shape[:2]
    tiles: list[list[_Tile]] = [[] for _ in range(n_layers)]
    for layer, head in product(range(n_layers), range(n_heads)):
        drawn = draw_over(view, maps_LHPP[layer, head], _SMALL_TILE)
        tiles[layer].append(_Tile(drawn, f"layer {layer} head {head}", f"{float(maps_LHPP[layer, head].sum()):.0%}"))
    return tiles


def _grid(tiles: list[_Tile], n_in_row: int, gap: int) -> list[Image.Image]:
    """Strips of tiles side by side, title and note below each."""
    return [_row(tiles[start : start + n_in_row], gap) for start in range(0, len(tiles), n_in_row)]


def _row(tiles: list[_Tile], gap: int) -> Image.Image:
    side = tiles[0].image.width
    size = _TEXT if side == _TILE else _SMALL
    line = round(1.35 * size)
    strip = Image.new("RGB", (_WIDTH, side + 2 * line + gap + 14), _GROUND)
    pen = ImageDraw.Draw(strip)
    for column, tile in enumerate(tiles):
        left = _MARGIN + column * (side + gap)
        strip.paste(tile.image, (left, 8))
        pen.text((left, side + 14), _fitted(tile.title, size, side), _INK, _font(size))
        pen.text((left, side + 14 + line), tile.note, _QUIET, _font(size))
    return strip


def _text_strip(text: str, size: int, colour_name: str = _INK, above: int = 0) -> Image.Image:
    strip = Image.new("RGB", (_WIDTH, above + round(1.5 * size)), _GROUND)
    fitted = _fitted(text, size, _WIDTH - 2 * _MARGIN)
    ImageDraw.Draw(strip).text((_MARGIN, above), fitted, colour_name, _font(size))
    return strip


def _scale_strip() -> Image.Image:
    """What the colours mean."""
    strip = Image.new("RGB", (_WIDTH, 40), _GROUND)
    ramp = Image.fromarray(np.tile(colour(np.linspace(0, 1, _TILE)), (14, 1, 1)))
    strip.paste(ramp, (_MARGIN, 20))
    text = "none, to the most of any patch of the same map"
    ImageDraw.Draw(strip).text((_MARGIN + _TILE + _GAP, 18), text, _QUIET, _font(_SMALL))
    return strip


def _fitted(text: str, size: int, width: int) -> str:
    """Text as one line that is no wider: what cannot be printed as spaces, what is too long cut."""
    line = printable(text[:_MAX_CHARACTERS])
    font = _font(size)
    if len(text) <= _MAX_CHARACTERS and font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line + "..."


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that Pillow brings along, which has Latin letters alone."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
