"""Makes the input of the warehouse job, and works out what it has to give, apart from Gapless.

    python3 make.py [FOLDER]      writes data/ and expected/ there, else beside this file
"""

import csv
import datetime
import decimal
import pathlib
import random
import sys

D = decimal.Decimal
CENT = D("0.01")
DAYS = [datetime.date(2026, 11, 16) + datetime.timedelta(days=n) for n in range(4)]
COUNTRIES = {"NO": "north", "SE": "north", "PE": "south", "EC": "south", "DE": "middle"}
RATES = {"EUR": D("1.000000"), "NOK": D("0.085130"), "PEN": D("0.262470")}
REASONS = {"D": "damaged", "L": "late", "W": "wrong size"}


def write(path, rows, **dialect):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n", **dialect).writerows(rows)


def main(folder):
    chance = random.Random(20261120)
    head = ["order_id", "customer", "country", "currency", "amount", "day"]
    files, rejected, figures = [[head], [head]], [], {}
    for order in range(1, 601):
        country = chance.choice(["NO", "SE", "PE", "EC", "DE", "XX"])
        currency = chance.choice(list(RATES))
        amount = D(chance.randrange(100, 500_000)) / 100
        day = chance.choice(DAYS)
        row = [order, f"customer {chance.randrange(90)}", country, currency, f"{amount:.2f}", day.isoformat()]
        fault = {50: (4, "12,5"), 150: (4, "-3.00"), 250: (5, "2026-02-30"), 350: (3, "XYZ"), 450: (4, "NaN")}.get(order)
        if fault:
            row[fault[0]] = fault[1]
            rejected.append(order)
        else:
            euro = (amount * RATES[currency]).quantize(CENT, decimal.ROUND_HALF_UP)
            entry = figures.setdefault((COUNTRIES.get(country, "unknown"), day), [0, D(0)])
            entry[0] += 1
            entry[1] += euro
        files[order > 400].append(row)
    for number, rows in enumerate(files, 1):
        write(folder / f"data/orders-{number}.csv", rows)
    write(folder / "data/countries.csv", [["country", "region"], *COUNTRIES.items()])
    write(folder / "data/rates.csv", [["currency", "rate"], *RATES.items()])
    write(folder / "data/reasons.csv", [["code", "reason"], *REASONS.items()])
    returns, reasons = [["order_id", "code", "returned"]], {}
    for order in sorted(chance.sample(range(1, 601), 70)):
        code = chance.choice(["D", "L", "W", "?"])
        returns.append([order, code, (DAYS[-1] + datetime.timedelta(days=chance.randrange(9))).isoformat()])
        reason = REASONS.get(code, "other")
        reasons[reason] = reasons.get(reason, 0) + 1
    write(folder / "data/returns.csv", returns, delimiter="|")

    revenue = sorted([region, day.isoformat(), orders, euro] for (region, day), (orders, euro) in figures.items())
    write(folder / "expected/revenue.csv", [["region", "day", "orders", "euro"], *revenue])
    write(folder / "expected/reasons.csv", [["reason", "returns"], *sorted(reasons.items())])
    write(folder / "expected/rejected.csv", [["order_id"], *([order] for order in rejected)])


main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
