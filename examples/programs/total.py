import json, sys
for line in sys.stdin:
    order = json.loads(line); print(json.dumps({"id": order["id"], "total": order["price"] * order["quantity"]}))
