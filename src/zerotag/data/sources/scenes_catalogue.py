"""Contents of the scenes: things, places and light, each with its tags.

All tags are among NUS-WIDE's 1,006. Those among its 81 concepts are unseen in training; the others stand for the
user tags of Flickr.
"""

from dataclasses import dataclass

# The 81 concepts of NUS-WIDE's ground truth, in the order of its list.
CONCEPTS = (
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds computer coral cow "
    "dancing dog earthquake elk fire fish flags flowers food fox frost garden glacier grass harbor horses house lake "
    "leaf map military moon mountain nighttime ocean person plane plants police protest railroad rainbow reflection "
    "road rocks running sand sign sky snow soccer sports statue street sun sunset surf swimmers tattoo temple tiger "
    "tower town toy train tree valley vehicle water waterfall wedding whales window zebra"
).split()


@dataclass(frozen=True)
class Thing:
    """A thing with Twemoji artwork.

    Attributes:
        code: its code point, the name of its artwork.
        tags: its tags, most specific first.
        habitat: where it can stand: land, farm, wild, snow, sky, water, sea (below the surface), town, room.
        size: its width as a share of the image's, in the foreground.
    """

    code: str
    tags: tuple[str, ...]
    habitat: str
    size: float


@dataclass(frozen=True)
class Place:
    """A backdrop.

    Attributes:
        name: its painter in `scenes`.
        tags: its tags.
        habitats: of the things that can stand there.
        lights: those of day, clouds, sunset and night that suit it.
        share: relative sampling weight.
    """

    name: str
    tags: tuple[str, ...]
    habitats: tuple[str, ...]
    lights: tuple[str, ...]
    share: float


def _things(habitat: str, size: float, rows: str) -> list[Thing]:
    """One thing per line: code point and tags."""
    return [Thing(row.split()[0], tuple(row.split()[1:]), habitat, size) for row in rows.strip().splitlines()]


THINGS: list[Thing] = [
    *_things(
        "farm",
        0.42,
        """
        1f404 cow cows animal farm
        1f402 cow cows animal farm
        1f40e horses horse animal farm
        1f411 sheep animal farm
        1f410 goat animal farm
        1f983 turkey animal farm
        """,
    ),
    *_things(
        "land",
        0.38,
        """
        1f415 dog dogs pet animal
        1f9ae dog dogs pet animal
        1f429 dog puppy pet animal
        1f408 cat cats pet animal
        1f408-200d-2b1b cat kitty pet animal
        1f407 rabbit animal cute
        1f43f squirrel animal nature
        1f422 tortoise reptile animal
        1f33b flowers flower yellow garden
        1f337 flowers tulip flower garden
        1f339 flowers rose red garden
        1f333 tree trees nature
        1f332 tree trees woods
        1f6b6 person man walking
        1f3c3 running run person
        26bd soccer ball sports
        1f483 dancing dance woman
        1f470 wedding bride woman
        1f6b2 bicycle bike
        """,
    ),
    *_things(
        "wild",
        0.46,
        """
        1f418 elephant elephants animal safari
        1f992 giraffe animal safari
        1f993 zebra stripes animal safari
        1f405 tiger animal zoo
        1f406 leopard animal wildlife
        1f98c elk deer animal wildlife
        1f40d snake reptile animal
        1f98e lizard reptile animal
        """,
    ),
    *_things(
        "snow",
        0.4,
        """
        1f427 penguin birds animal cold
        1f43a wolf animal wildlife
        1f98a fox animal wildlife
        1f43b bear animal wildlife
        26f7 skiing sports
        """,
    ),
    *_things(
        "sky",
        0.34,
        """
        1f985 birds eagle wings flight
        1f426 birds bird wings
        1f98b butterfly insect wings
        1f388 balloons red
        2708 plane airplane flight aviation
        1f6e9 plane aircraft flight aviation
        1f681 helicopter flight aviation
        """,
    ),
    *_things(
        "water",
        0.44,
        """
        26f5 boats sailboat sail
        1f6a2 boats ship cruise
        1f6f6 boats canoe
        1f986 birds bird pond
        1f9a2 birds bird white
        1f3c4 surf waves person
        1f3ca swimmers swim person
        """,
    ),
    *_things(
        "sea",
        0.42,
        """
        1f41f fish marine diving
        1f420 fish reef diving
        1f421 fish marine diving
        1f40b whales marine animal
        1f433 whales marine animal
        1f980 crab marine animal
        1fab8 coral reef diving
        """,
    ),
    *_things(
        "town",
        0.44,
        """
        1f697 cars car auto vehicle
        1f699 cars car automobile vehicle
        1f695 cars traffic vehicle
        1f693 police cars vehicle
        1f68c bus vehicle transportation
        1f69a truck vehicle transportation
        1f3cd motorcycle vehicle
        1f682 train locomotive railroad
        1f686 train railway railroad
        1f3e0 house home
        1f3e1 house home garden
        1f3e2 buildings architecture
        1f3ec buildings architecture shopping
        26ea church architecture
        1f3f0 castle architecture
        1f5fc tower architecture tokyo
        1f5fd statue sculpture
        26f2 fountain park
        """,
    ),
    *_things(
        "room",
        0.46,
        """
        1f355 food restaurant cheese
        1f354 food restaurant
        1f34e food fruit red
        1f34a food fruit orange
        1f353 food fruit red
        1f370 food cake
        2615 coffee cafe mug
        1f4bb computer digital office
        1f4d6 book library
        1f9f8 toy toys bears
        1f686 toy toys train
        1f408 cat cats pet animal
        1f415 dog dogs pet animal
        """,
    ),
]
PLACES: list[Place] = [
    Place("meadow", ("grass", "meadow"), ("farm", "land", "sky"), ("day", "clouds", "sunset"), 3),
    Place("savanna", ("grass", "africa"), ("wild",), ("day", "sunset"), 2),
    Place("forest", ("forest", "tree"), ("wild", "land"), ("day", "clouds"), 1.5),
    Place("snow", ("snow", "winter"), ("snow",), ("day", "clouds", "sunset", "night"), 2),
    Place("mountain", ("mountain", "mountains"), ("sky", "snow", "wild"), ("day", "clouds", "sunset", "night"), 1.5),
    Place("desert", ("sand", "desert"), ("wild", "sky"), ("day", "sunset", "night"), 1),
    Place("beach", ("beach", "sand", "sea"), ("water", "land"), ("day", "clouds", "sunset"), 2),
    Place("ocean", ("ocean", "sea", "water"), ("water", "sky"), ("day", "clouds", "sunset", "night"), 2),
    Place("lake", ("lake", "water", "reflection"), ("water",), ("day", "sunset", "night"), 1.5),
    Place("underwater", ("underwater", "water"), ("sea",), ("day",), 2.5),
    Place("street", ("street", "road", "city"), ("town",), ("day", "clouds", "sunset", "night"), 3),
    Place("skyline", ("cityscape", "skyline", "city"), ("sky", "town"), ("day", "sunset", "night"), 1.5),
    Place("heaven", ("sky", "blue"), ("sky",), ("day", "clouds", "sunset"), 1.5),
    Place("room", ("interior",), ("room",), ("day",), 3),
]

# Tags of the light; most places show the sky.
LIGHT_TAGS: dict[str, tuple[str, ...]] = {
    "day": ("sky", "sunny"),
    "clouds": ("clouds", "cloudy"),
    "sunset": ("sunset", "dusk"),
    "night": ("nighttime", "night"),
}

ALL_TAGS = sorted(
    {tag for thing in THINGS for tag in thing.tags}
    | {tag for place in PLACES for tag in place.tags}
    | {tag for tags in LIGHT_TAGS.values() for tag in tags}
    | {"moon", "stars", "rainbow", "sun"}
)
