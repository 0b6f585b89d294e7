"""Each record with how many of its columns are filled: JSON in, JSON out, an object a line."""

import json
import sys

for line in sys.stdin:
    record = json.loads(line)
    record["filled"] = sum(value is not None for value in record.values())
    print(json.dumps(record))
