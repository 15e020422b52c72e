"""The demo's data set: photographs of invented people, drawn by ray casting, identical byte for byte each time.

Every number below comes from additions, multiplications, divisions and square roots, which IEEE 754 rounds the same
way on every processor. Sines, exponentials, matrix products and reductions do not keep that promise, so none is used.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from celebflow.data.given_tables import ATTRIBUTES_TABLE
from celebflow.data.tables import save_table
from celebflow.errors import CelebflowError
from celebflow.paths import write_whole

Array = NDArray[np.float64]
Vector = Sequence[float] | Array  # of three numbers
PHOTOGRAPHS_PER_PERSON = 30
PHOTOGRAPH_SIZE_PX = 128
_SUPERSAMPLING = 2
_BEARD_FROM, _MOUSTACHE_FROM, _GLASSES_FROM = 0.62, 0.66, 0.7  # the traits from which people have them
_SEED = 31
_NAMES = (
    "Aderyn Voss, Anselm Kirkwall, Bram Oakhollow, Calla Winterbourne, Corvin Hale, Dagny Felltree, Edda Marsh, "
    "Fenno Brightwater, Fleur Tamsin, Gideon Larkspur, Hedda Quill, Ilse Ravenhurst, Ivo Stonebridge, "
    "Juna Copperfield, Kasimir Dell, Linnea Ashgrove, Lorcan Pike, Maren Thistledown, Milo Hawksworth, "
    "Nerys Holloway, Odilo Fenwick, Petra Saltmarsh, Quentin Barrow, Rosalind Amberley, Søren Tidewell, "
    "Tilda Moorcroft, Ulrik Greyfriar, Veda Lindqvale, Wenzel Harrow, Ysolde Birch, Zoë Nightingill"
)
PEOPLE = tuple(_NAMES.split(", "))
PHOTOGRAPH_COUNT = len(PEOPLE) * PHOTOGRAPHS_PER_PERSON


@dataclass(frozen=True)
class Traits:
    """What makes an invented person who they are; lengths in head radii, colors in 0–1."""

    skin: float
    skin_redness: float
    hair_hue: float
    hair_darkness: float
    hair_length: float
    hair_volume: float
    hairline: float
    head_width: float
    head_height: float
    jaw_width: float
    jaw_length: float
    eye_distance: float
    eye_size: float
    eye_hue: float
    eye_height: float
    brow_thickness: float
    brow_tilt: float
    brow_darkness: float
    nose_width: float
    nose_length: float
    nose_height: float
    mouth_width: float
    mouth_height: float
    lip_redness: float
    lip_fullness: float
    beard: float
    moustache: float
    ear_size: float
    glasses: float


@dataclass(frozen=True)
class Look:
    """What an invented person wears and does in one photograph; lengths in head radii."""

    clothes: Array
    smile: float  # how far the corners of the mouth are above its middle
    opening: float  # of the mouth
    brow_raise: float
    lids: float  # how far the eyes are open, in 0–1
    gaze: float
    glasses: bool


# What the drawing shows of a person and of a photograph, for attributes.csv.
_ATTRIBUTES: dict[str, Callable[[Traits, Look], bool]] = {
    "Beard": lambda traits, _: traits.beard > _BEARD_FROM,
    "Dark_Hair": lambda traits, _: traits.hair_darkness > 0.5,
    "Dark_Skin": lambda traits, _: traits.skin > 0.5,
    "Glasses": lambda _, look: look.glasses,
    "Long_Hair": lambda traits, _: traits.hair_length > 0.6,
    "Mouth_Open": lambda _, look: look.opening > 0.03,
    "Mustache": lambda traits, _: traits.moustache > _MOUSTACHE_FROM,
    "Smiling": lambda _, look: look.smile > 0.02,
}


@dataclass(frozen=True)
class Scene:
    """Where the camera's rays meet the world, in (height, width) arrays with one entry per pixel."""

    x: Array
    y: Array
    depth: Array  # of the nearest surface so far, −inf where there is none
    color: Array  # (height, width, 3)
    light: Vector  # toward it, of length 1
    ambient: float

    def draw_ellipsoid(
        self, rotation: Array, center: Vector, radii: Vector, color: Vector, above: float = -np.inf, shine: float = 0
    ) -> None:
        """Cast the pixels' parallel rays at an ellipsoid that turns with the head; draw where it is nearest.

        `center` and `radii` are in the head's axes (x right, y up, z out of the face). The part of the ellipsoid whose
        y + 0.45 z is below `above` is not drawn, which gives hair its hairline.
        """
        middle = _dot(rotation.T, center)
        reach = max(radii)
        rows = np.flatnonzero(np.abs(self.y[:, 0] - middle[1]) <= reach)
        columns = np.flatnonzero(np.abs(self.x[0] - middle[0]) <= reach)
        if not rows.size or not columns.size:
            return
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        dx, dy = self.x[window] - middle[0], self.y[window] - middle[1]
        # In the head's axes, scaled to the unit sphere, a ray is start + t · way.
        start = [(rotation[0, i] * dx + rotation[1, i] * dy) / radii[i] for i in range(3)]
        way = rotation[2] / radii
        a, b, c = _dot(way, way), _dot(start, way), _dot(start, start) - 1
        discriminant = b * b - a * c
        # From here on only for the pixels that are hit: most of them are the background or another surface.
        hit = np.nonzero(discriminant > 0)
        t = (np.sqrt(discriminant[hit]) - b[hit]) / a
        point = [start[i][hit] + t * way[i] for i in range(3)]
        visible = t + middle[2] > self.depth[window][hit]
        visible &= point[1] * radii[1] + center[1] + 0.45 * (point[2] * radii[2] + center[2]) > above
        hit, t = (hit[0][visible], hit[1][visible]), t[visible]
        normal = [point[i][visible] / radii[i] for i in range(3)]
        length = np.sqrt(_dot(normal, normal))
        turned = [_dot(row, normal) / length for row in rotation]
        facing = np.clip(_dot(turned, self.light), 0, 1)
        glint = facing * facing * facing * facing
        glint = shine * glint * glint * glint * glint
        brightness = self.ambient + (1 - self.ambient) * facing
        shaded = np.clip(brightness[..., None] * np.asarray(color) + glint[..., None], 0, 1)
        self.depth[window][hit] = t + middle[2]
        self.color[window][hit] = shaded


def draw_sample_data(folder: Path) -> Iterator[Path]:
    """Write the demo's photographs into `folder`, one subfolder per person, and yield each path after writing it.

    At the end, attributes.csv says what they show. Raises CelebflowError, before anything is written, when `folder`
    holds other files.
    """
    planned = {
        folder / name / f"{number + 1:02d}.jpg": (person, number)
        for person, name in enumerate(PEOPLE)
        for number in range(PHOTOGRAPHS_PER_PERSON)
    }
    table, header = folder / ATTRIBUTES_TABLE, ["photograph", "person", *_ATTRIBUTES]
    own = {*planned, table} if _starts_with(table, ",".join(header)) else planned.keys()
    others = [path for path in folder.rglob("*") if path.is_file() and path not in own]
    if others:
        raise CelebflowError(
            f"{folder} contains files that do not belong to the demo, for example {min(others)}. Choose another folder."
        )
    rows = []
    for path, (person, number) in planned.items():
        # Standard Huffman tables and 4:2:0 subsampling: libjpeg-turbo's integer transform is exact everywhere.
        content = io.BytesIO()
        photograph, labels = _draw_photograph(person, number)
        rows.append((path.relative_to(folder).as_posix(), PEOPLE[person], *labels))
        photograph.save(content, "JPEG", quality=88, subsampling=2, optimize=False)
        with write_whole(path) as part:  # it may be a link into DVC's cache, which must not change
            part.write_bytes(content.getvalue())
        yield path
    save_table(table, header, rows)


def _starts_with(file: Path, line: str) -> bool:
    """Tell whether this is the first line of a file, as of a table that was drawn before."""
    return file.is_file() and file.read_bytes().startswith(f"{line}\n".encode())


def draw_photograph(person: int, number: int) -> Image.Image:
    """Draw photograph `number` of invented person `person`: an RGB image, PHOTOGRAPH_SIZE_PX square."""
    return _draw_photograph(person, number)[0]


def _draw_photograph(person: int, number: int) -> tuple[Image.Image, list[int]]:
    """Return a photograph, and the label of each of _ATTRIBUTES."""
    traits = _draw_traits(person)
    random = np.random.default_rng([_SEED, 2, person, number])
    scene = _open_scene(random)
    rotation = _rotation(_between(random, -0.14, 0.14), _between(random, -0.06, 0.06), _between(random, -0.05, 0.05))
    look = _draw_look(traits, random)
    _draw_head(scene, traits, rotation, look)
    _occlude(scene, random)
    return _expose(scene, random), [int(holds(traits, look)) for holds in _ATTRIBUTES.values()]


def _between(random: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(random.random())


def _draw_color(random: np.random.Generator) -> Array:
    return np.array([_between(random, 0.05, 0.95) for _ in range(3)])


def _draw_traits(person: int) -> Traits:
    """Draw a person's traits from a Latin hypercube, so that the people fill the range of each trait evenly."""
    randoms = [np.random.default_rng([_SEED, 1, number]) for number in range(len(fields(Traits)))]
    ranks = [int(random.permutation(len(PEOPLE))[person]) for random in randoms]
    return Traits(*((rank + 0.5) / len(PEOPLE) for rank in ranks))


def _rotation(yaw: float, pitch: float, roll: float) -> Array:
    """Compose a (3, 3) rotation from half-angle tangents t; sines are 2t / (1 + t²), cosines (1 − t²) / (1 + t²)."""
    tangents = np.array([yaw, pitch, roll])
    squares = tangents * tangents
    sy, sp, sr = 2 * tangents / (1 + squares)
    cy, cp, cr = (1 - squares) / (1 + squares)
    x_row = [cr * cy - sr * sp * sy, -sr * cp, cr * sy + sr * sp * cy]
    y_row = [sr * cy + cr * sp * sy, cr * cp, sr * sy - cr * sp * cy]
    z_row = [-cp * sy, sp, cp * cy]
    return np.array([x_row, y_row, z_row])


def _dot(first: Sequence[Any] | Array, second: Sequence[Any] | Array) -> Any:
    """Return the sum of the products of three pairs of numbers or arrays, always added in the same order.

    With a rotation as `first`, it is the vector `second` rotated backward; with the rotation's transpose, forward.
    """
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _blend(first: Vector, second: Vector, fraction: float | Array) -> Array:
    start: Array = np.asarray(first)
    end: Array = np.asarray(second)
    return start + (end - start) * fraction


def _open_scene(random: np.random.Generator) -> Scene:
    """Set up the pixel grid, the background and the light."""
    size = PHOTOGRAPH_SIZE_PX * _SUPERSAMPLING
    zoom = _between(random, 1.15, 1.3)
    steps = (np.arange(size) + 0.5) / size * 2 - 1
    x = np.repeat(steps[None, :], size, axis=0) * zoom + _between(random, -0.05, 0.05)
    y = np.repeat(-steps[:, None], size, axis=1) * zoom + _between(random, -0.05, 0.05)
    near, far = _draw_color(random), _draw_color(random)
    fraction = np.clip((x * _between(random, -1, 1) + y) / 4 + 0.5, 0, 1)
    color = _blend(near, far, fraction[..., None])
    for _ in range(int(random.integers(2, 7))):  # objects behind the person
        left, bottom = _between(random, -1.8, 1.4), _between(random, -1.8, 1.4)
        inside = (x > left) & (x < left + _between(random, 0.1, 1.0))
        inside &= (y > bottom) & (y < bottom + _between(random, 0.1, 1.4))
        color[inside] = _draw_color(random)
    side, height = _between(random, -0.5, 0.5), _between(random, -0.1, 0.5)
    length = float(np.sqrt(side * side + height * height + 1))
    light = (side / length, height / length, 1 / length)
    return Scene(x, y, np.full((size, size), -np.inf), color, light, ambient=_between(random, 0.5, 0.7))


def _draw_look(traits: Traits, random: np.random.Generator) -> Look:
    """Draw the clothes, expression and glasses of a photograph."""
    return Look(
        clothes=_draw_color(random),
        smile=_between(random, -0.06, 0.1),
        opening=_between(random, 0, 1) * _between(random, 0, 0.13),
        brow_raise=_between(random, -0.03, 0.06),
        lids=_between(random, 0.45, 1.0),
        gaze=_between(random, -0.03, 0.03),
        glasses=float(random.random()) < 0.1 + 0.75 * (traits.glasses > _GLASSES_FROM),
    )


def _draw_head(scene: Scene, traits: Traits, rotation: Array, look: Look) -> None:
    """Draw a person as about thirty ellipsoids."""
    skin = _blend((0.98, 0.83, 0.72), (0.36, 0.22, 0.15), traits.skin)
    skin = _blend(skin, (0.9, 0.45, 0.4), 0.22 * traits.skin_redness)
    hair = _blend((0.85, 0.7, 0.4), (0.5, 0.2, 0.08), traits.hair_hue)
    hair = _blend(hair, (0.06, 0.05, 0.05), traits.hair_darkness)
    lips = _blend(skin, (0.75, 0.15, 0.2), 0.25 + 0.5 * traits.lip_redness)
    iris = _blend((0.25, 0.45, 0.7), (0.25, 0.14, 0.06), traits.eye_hue)
    brow = _blend(hair, (0.05, 0.04, 0.04), 0.6 * traits.brow_darkness)

    width, height = 0.62 + 0.2 * traits.head_width, 0.86 + 0.16 * traits.head_height
    draw_upright = partial(scene.draw_ellipsoid, _rotation(0, 0, 0))
    draw_upright((0, -1.75, -0.35), (1.25, 0.75, 0.5), look.clothes)
    draw_upright((0, -0.95, -0.3), (0.36, 0.6, 0.34), skin)
    draw = partial(scene.draw_ellipsoid, rotation)

    def draw_pair(center: Vector, radii: Vector, color: Vector, shine: float = 0) -> None:
        draw((-center[0], center[1], center[2]), radii, color, shine=shine)
        draw(center, radii, color, shine=shine)

    draw((0, 0.1, 0), (width, height - 0.1, 0.8), skin, shine=0.1)
    jaw = 0.36 + 0.28 * traits.jaw_width
    chin = -0.4 - 0.22 * traits.jaw_length
    draw((0, chin, 0.12), (jaw, 0.44, 0.6), skin, shine=0.1)
    ear = 0.1 + 0.1 * traits.ear_size
    draw_pair((width + 0.02, 0, -0.05), (0.07, ear * 1.4, ear), skin)

    volume = 0.04 + 0.14 * traits.hair_volume
    hairline = 0.62 + 0.45 * traits.hairline
    draw((0, 0.14, -0.06), (width + volume, height - 0.06 + volume, 0.82 + volume), hair, above=hairline, shine=0.15)
    if traits.hair_length > 0.4:
        fall = 1.1 * (traits.hair_length - 0.4)
        draw_pair((width - 0.02, -0.25 * fall, -0.2), (0.14 + volume, 0.5 + fall, 0.45), hair, shine=0.15)

    if traits.beard > _BEARD_FROM:
        beard = _blend(skin, hair, 0.55 + traits.beard - _BEARD_FROM)
        draw((0, chin - 0.05, 0.15), (jaw + 0.02, 0.42, 0.61), beard)
        draw((0, chin + 0.26, 0.35), (0.34, 0.2, 0.42), skin)
    if traits.moustache > _MOUSTACHE_FROM:
        draw((0, -0.3, 0.72), (0.12 + 0.16 * traits.moustache, 0.05, 0.08), _blend(skin, hair, 0.8))

    eye_x, eye_y = 0.22 + 0.11 * traits.eye_distance, 0.06 + 0.1 * traits.eye_height
    eye = 0.085 + 0.05 * traits.eye_size
    draw_pair((eye_x, eye_y, 0.66), (eye * 1.35, eye * look.lids, 0.12), (0.95, 0.95, 0.93), shine=0.3)
    for side in (-1, 1):
        draw((side * eye_x + look.gaze, eye_y, 0.72), (eye * 0.72, eye * 0.72 * look.lids, 0.09), iris, shine=0.4)
        draw(
            (side * eye_x + look.gaze, eye_y, 0.76),
            (eye * 0.34, eye * 0.34 * look.lids, 0.06),
            (0.03, 0.03, 0.03),
            shine=0.5,
        )
        tilt = _rotation(0, 0, side * (0.12 * traits.brow_tilt - 0.05))
        turned = np.array([_dot(tilt, row) for row in rotation])
        center = _dot(tilt, (side * eye_x, eye_y + 0.2 + look.brow_raise, 0.68))
        scene.draw_ellipsoid(turned, center, (0.17, 0.02 + 0.04 * traits.brow_thickness, 0.12), brow)

    bridge = 0.3 + 0.2 * traits.nose_length
    tip = eye_y - bridge
    draw((0, tip + bridge * 0.45, 0.7), (0.06 + 0.03 * traits.nose_width, bridge * 0.55, 0.17), skin, shine=0.15)
    draw((0, tip, 0.78), (0.07 + 0.1 * traits.nose_width, 0.08, 0.1 + 0.12 * traits.nose_height), skin, shine=0.2)

    mouth_y, mouth = tip - 0.17 - 0.1 * traits.mouth_height, 0.16 + 0.14 * traits.mouth_width
    full = 0.03 + 0.05 * traits.lip_fullness
    for side in (-1, 0, 1):  # three pieces, so that the corners rise with a smile
        corner = (side * mouth * 0.6, mouth_y + abs(side) * look.smile, 0.69 - 0.06 * abs(side))
        draw(corner, (mouth * 0.55, full + look.opening * (1 - 0.4 * abs(side)), 0.1), lips, shine=0.15)
        if look.opening > 0.02:
            inside = (corner[0], corner[1], corner[2] + 0.03)
            draw(inside, (mouth * 0.5, look.opening * (1 - 0.5 * abs(side)), 0.09), (0.22, 0.05, 0.06))

    if look.glasses:
        _draw_glasses(scene, rotation, eye_x, eye_y, 0.19 + 0.03 * traits.glasses)


def _draw_glasses(scene: Scene, rotation: Array, eye_x: float, eye_y: float, radius: float) -> None:
    """Draw two rims and a bridge in the plane z = 0.86 in front of the face."""
    depth = (0.86 - rotation[0, 2] * scene.x - rotation[1, 2] * scene.y) / rotation[2, 2]
    x = _dot(rotation[:, 0], (scene.x, scene.y, depth))
    y = _dot(rotation[:, 1], (scene.x, scene.y, depth)) - eye_y
    across = np.abs(x) - eye_x
    distance = np.sqrt(across * across + y * y)
    rim = np.abs(distance - radius) < 0.022
    rim |= (np.abs(x) < eye_x - radius) & (np.abs(y - 0.04) < 0.02)
    rim &= depth > scene.depth - 0.15
    scene.color[rim] = (0.06, 0.06, 0.07)


def _occlude(scene: Scene, random: np.random.Generator) -> None:
    """Sometimes draw something in front: a microphone, a shoulder, a hand, the brim of a hat."""
    if float(random.random()) > 0.12:
        return
    x, y = _between(random, -0.9, 0.9), _between(random, -1.3, 0.9)
    width, height = _between(random, 0.12, 0.45), _between(random, 0.12, 0.45)
    color = _draw_color(random)
    turn = _rotation(0, 0, _between(random, -1, 1))
    scene.draw_ellipsoid(turn, _dot(turn, (x, y, 1.4)), (width, height, 0.2), color)


def _expose(scene: Scene, random: np.random.Generator) -> Image.Image:
    """Turn the scene into a photograph: exposure, white balance, grain, and sometimes a blur or no color."""
    exposure = _between(random, 0.85, 1.15)
    warmth = _between(random, -0.08, 0.08)
    grain = _between(random, 2, 14)
    noise = (random.random((PHOTOGRAPH_SIZE_PX, PHOTOGRAPH_SIZE_PX, 1)) - 0.5) * grain
    gains = np.array([exposure * (1 + warmth), exposure, exposure * (1 - warmth)])
    color, step = scene.color, _SUPERSAMPLING
    mean = (color[::step, ::step] + color[1::step, ::step] + color[::step, 1::step] + color[1::step, 1::step]) / 4
    pixels = np.clip(np.floor(mean * gains * 255 + noise + 0.5), 0, 255).astype(np.uint8)
    photograph = Image.fromarray(pixels)
    if float(random.random()) < 0.2:
        photograph = photograph.filter(ImageFilter.BoxBlur(int(random.integers(1, 3))))
    if float(random.random()) < 0.03:
        photograph = photograph.convert("L").convert("RGB")
    return photograph
