"""Makes the input of the feature job, and works out what it has to give, apart from Gapless.

    python3 make.py [FOLDER]      writes data/ and expected/ there, else beside this file
"""

import csv
import hashlib
import math
import pathlib
import random
import sys


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def is_test(user):
    """The same users on any machine, with any number of partitions, whatever else is in the file."""
    return int(hashlib.sha256(user.encode()).hexdigest()[:2], 16) < 51


def main(folder):
    chance = random.Random(7)
    users = []
    for number in range(2_000):
        spent = round(math.exp(chance.gauss(3, 1)), 2)
        visits = chance.randrange(0, 60)
        users.append([f"user-{number:05}", visits, f"{spent:.2f}", chance.choice(["phone", "web", "shop"])])
    for number in range(4):
        head = [["user_id", "visits", "spent", "channel"]]
        write(folder / f"data/users-{number}.csv", head + users[number::4])

    # Statistics are those of the training set alone: nothing of the test set may leak into it.
    train = [user for user in users if not is_test(user[0])]
    columns = {"visits": [float(user[1]) for user in train], "spent": [float(user[2]) for user in train]}
    stats = {}
    for name, values in columns.items():
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
        stats[name] = (mean, deviation)
    for name, wanted in (("train", False), ("test", True)):
        rows = [["user_id", "visits_z", "spent_z", "is_phone", "is_web", "is_shop"]]
        for user, visits, spent, channel in users:
            if is_test(user) == wanted:
                scaled = [
                    (float(value) - stats[column][0]) / stats[column][1]
                    for column, value in (("visits", visits), ("spent", spent))
                ]
                shown = [f"{value:.6f}" for value in scaled]
                rows.append([user, *shown, *(int(channel == known) for known in ("phone", "web", "shop"))])
        write(folder / f"expected/{name}.csv", rows)


main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
