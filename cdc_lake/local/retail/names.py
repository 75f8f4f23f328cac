"""Names for a made-up retailer, from word lists: towns, streets, people, products. No real person or shop is meant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product as pairs
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


REGIONS = ("North", "North East", "North West", "Midlands", "East", "South East", "South West", "Coast")
_TOWN_STARTS = _words("""
Ash Beck Birch Brack Brook Carl Chester Clay Cold Dun East Elm Fair Farn Glen Grim Hart Hazel Holm Kings Lang
Lin Marl Mill North Oak Ox Pen Raven Red Rose Rush Sel Stam Thorn Wake West Whit Wood
""")
_TOWN_ENDS = _words(
    "borough bourne bridge bury by combe dale field ford ham haven ley mere minster mouth port stead ton"
)
_STREET_STARTS = _words("""
Abbey Albion Bridge Canal Castle Cathedral Chapel Church Clarence Corn Cross Dock Fountain Garden George
Granary Guildhall Harbour High Hill Kiln Lime Long Market Meadow Mill Minster Orchard Park Priory Quay River
School Silver Spring Station Tanner Tower Union Victoria Wharf Windmill
""")
_STREET_ENDS = _words("Street Road Lane Row Square Way Parade Walk")
_FIRST_NAMES = _words("""
Ada Aisha Alan Amara Anders Anika Arthur Beatriz Ben Carla Cedric Chen Clara Dara David Elena Elif Emeka Erik
Esme Fatima Felix Freya Gita Grace Hana Hugo Ines Ivan Jana Jonas Kavya Kenji Lars Leila Liam Lucia Maja
Marco Mei Mila Nadia Nils Noor Olga Omar Owen Paula Priya Rafael Rosa Samir Sofia Tariq Tessa Tomas Uma
Viktor Wanda Yusuf Zoe
""")
_LAST_NAMES = _words("""
Abbott Almeida Bakker Banerjee Barnes Becker Berg Brandt Castillo Costa Dahl Demir Diaz Dubois Ekström Farrell
Fischer Fontaine Gallo Grant Haddad Hansen Hayashi Herrera Holm Ito Ivanov Jansen Kaya Keller Kovač Kumar
Laurent Lindqvist Marino Mensah Meyer Moreau Murphy Nakamura Novak Nwosu O'Brien Okafor Olsen Patel Pereira
Quinn Rossi Ryan Sato Schmidt Silva Singh Sørensen Tanaka Torres Vasquez Weber Yilmaz Zhang
""")
_ADJECTIVES = _words(
    "Classic Organic Everyday Family Fresh Golden Harvest Light Mountain Original Premium River Rustic Sunny"
)

# A category: the range of prices in cents, the sizes, and what it sells.
_CATEGORIES = """
Bakery: 90-590: 2, 4, 6 slices: Baguette, Bagels, Brioche, Rye Bread, Sourdough, Muffins, Scones, Wraps
Dairy: 79-690: 200 g, 500 g, 1 l: Butter, Cheddar, Cream, Gouda, Kefir, Milk, Mozzarella, Yoghurt
Produce: 89-499: 500 g, 1 kg, 2 kg: Apples, Carrots, Grapes, Leeks, Lemons, Mushrooms, Potatoes, Tomatoes
Pantry: 99-1290: 400 g, 750 g, 1 kg: Basmati Rice, Chickpeas, Granola, Honey, Lentils, Olive Oil, Pasta, Porridge Oats
Drinks: 69-1490: 330 ml, 1 l, 6 × 1 l: Apple Juice, Cola, Ginger Beer, Coffee, Iced Tea, Lemonade, Sparkling Water, Tea
Frozen: 149-899: 300 g, 450 g, 1 kg: Berries, Fish Fingers, Garden Peas, Ice Cream, Pizza, Dumplings, Spinach, Wedges
Household: 129-1990: 1, 4, 10: Bin Bags, Candles, Dish Soap, Foil, Kitchen Roll, Laundry Powder, Light Bulbs, Sponges
Care: 119-1690: 75 ml, 250 ml, 2 × 250 ml: Body Lotion, Conditioner, Hand Soap, Plasters, Shampoo, Sun Cream, Toothpaste
Garden: 249-5990: S, M, L: Bird Feeder, Garden Hose, Gloves, Plant Pot, Potting Soil, Secateurs, Watering Can
Stationery: 99-3490: A5, A4, box of 12: Envelopes, Fountain Pen, Gel Pens, Notebook, Paper, Pencils, Sticky Notes
Kitchen: 399-8990: small, medium, large: Chopping Board, Coffee Press, Frying Pan, Kettle, Mixing Bowl, Saucepan
Pets: 149-3990: 100 g, 1 kg, 5 kg: Bird Food, Cat Litter, Cat Treats, Chew Toy, Dog Biscuits, Dog Lead, Fish Flakes
"""
_SENTENCES = (
    "Made in small batches by a supplier we have known for years.",
    "Checked twice on its way from the warehouse to the shelf.",
    "Best kept in a cool and dry place once it has been opened.",
    "The packaging can be recycled wherever paper is collected.",
    "Goes well with almost anything from the same aisle.",
    "A favourite with customers who come back for it every week.",
    "Tested against the leading brand, and found to be at least as good.",
    "Delivered to stores before opening time on working days.",
    "Please read the label if you are sensitive to some ingredients.",
    "Ask our staff if the shelf is empty: there may be more in the back.",
)


@dataclass(frozen=True, slots=True)
class Article:
    """A product's name, category and price range in cents."""

    name: str
    category: str
    cents: tuple[int, int]


def places(rng: Random, count: int) -> list[tuple[str, str]]:
    """`count` different pairs of town and street."""
    towns = [a + b for a, b in pairs(_TOWN_STARTS, _TOWN_ENDS)]
    rng.shuffle(towns)
    streets = [f"{a} {b}" for a, b in pairs(_STREET_STARTS, _STREET_ENDS)]
    # Larger towns have several stores, each in another street.
    in_use = towns[: max(1, count * 3 // 5)]
    found: dict[tuple[str, str], None] = {}
    while len(found) < count:
        found[rng.choice(in_use), rng.choice(streets)] = None
    return list(found)


def town(rng: Random) -> str:
    """A town where customers live."""
    return rng.choice(_TOWN_STARTS) + rng.choice(_TOWN_ENDS)


def person(rng: Random) -> tuple[str, str]:
    """A first and a last name."""
    return rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)


def email(first: str, last: str, number: int) -> str:
    """An address that cannot exist (`example` is reserved), unique by `number`."""
    plain = f"{first}.{last}".lower().encode("ascii", "ignore").decode().replace("'", "")
    return f"{plain}.{number}@mail.example"


def articles(rng: Random, count: int) -> list[Article]:
    """`count` products with different names; beyond the word lists' reach a number is added."""
    every = list(_every_article())
    rng.shuffle(every)
    rounds, rest = divmod(count, len(every))
    numbered = [replace(a, name=f"{a.name} ({n + 1})") for n in range(1, rounds + 1) for a in every]
    return (every + numbered)[: rounds * len(every) + rest]


def article(rng: Random) -> Article:
    """One product; its name may have been used before."""
    return rng.choice(_every_article())


@cache
def _every_article() -> tuple[Article, ...]:
    found = []
    for line in _CATEGORIES.strip().splitlines():
        category, prices, sizes, nouns = (part.strip() for part in line.split(":"))
        low, high = (int(cents) for cents in prices.split("-"))
        for adjective, noun, size in pairs(_ADJECTIVES, nouns.split(", "), sizes.split(", ")):
            found.append(Article(f"{adjective} {noun}, {size}", category, (low, high)))
    return tuple(found)


def description(rng: Random, characters: int) -> str:
    """A product text of at least `characters`."""
    parts: list[str] = []
    length = 0
    while length < characters:
        parts.append(rng.choice(_SENTENCES))
        length += len(parts[-1]) + 1
    return " ".join(parts)
