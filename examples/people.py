"""Make people.csv and new_people.csv, made-up tables as people have them: text, blanks, dates, an id.

python examples/people.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

NAMES = ["customer id", "age", "city", "smoker", "joined", "income", "renewed"]
CITIES = ["Aachen", "Bonn", "Köln"]


def rows(count: int, seed: int) -> list[list[object]]:
    """Return rows of which age, city, smoking and time of the year decide, by chance, whether a contract is renewed."""
    draw = np.random.default_rng(seed)
    found: list[list[object]] = []
    for number in range(count):
        age, city, smoker = int(draw.integers(18, 80)), str(draw.choice(CITIES)), bool(draw.random() < 0.3)
        joined = np.datetime64("2021-01-01") + int(draw.integers(0, 900))
        income = float(draw.normal(40_000, 9_000))
        score = 0.06 * (age - 45) + {"Aachen": 0.0, "Bonn": 1.2, "Köln": -1.0}[city] - 1.5 * smoker
        score += np.sin(2 * np.pi * int((joined - joined.astype("datetime64[Y]")).astype(int)) / 365)
        renewed = "yes" if draw.random() < 1 / (1 + np.exp(-2 * score)) else "no"
        known_age = "" if draw.random() < 0.05 else age
        known_city = "" if draw.random() < 0.03 else city
        found.append(
            [f"C{seed}-{number:04}", known_age, known_city, str(smoker).lower(), joined, f"{income:,.2f}", renewed]
        )
    return found


if __name__ == "__main__":
    for name, count, seed in (("people.csv", 600, 1), ("new_people.csv", 20, 2)):
        with (Path(__file__).parent / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(NAMES)
            writer.writerows(rows(count, seed))
