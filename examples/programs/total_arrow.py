"""Reads and writes Arrow: whole batches at a time, no text in between."""

import sys

import pyarrow as pa
import pyarrow.compute as pc

with pa.ipc.open_stream(sys.stdin.buffer) as orders:
    schema = pa.schema([("id", pa.int64()), ("total", pa.float64())])
    with pa.ipc.new_stream(sys.stdout.buffer, schema) as totals:
        for batch in orders:
            total = pc.multiply(batch.column("price"), pc.cast(batch.column("quantity"), pa.float64()))
            totals.write_batch(pa.record_batch([batch.column("id"), total], schema=schema))
