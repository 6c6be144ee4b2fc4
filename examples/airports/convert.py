"""Made Airport.parquet and Route.parquet, once, from the npm package vega-datasets 3.2.1 (BSD-3-Clause).

    npm pack vega-datasets@3.2.1 && tar -xzf vega-datasets-3.2.1.tgz
    pip install duckdb && python convert.py package/data
"""

import sys

import duckdb

source = sys.argv[1]
duckdb.sql(f"""
    COPY (
        SELECT iata, name, city, state, country, latitude, longitude
        FROM read_csv('{source}/airports.csv', all_varchar = false, types = {{'iata': 'VARCHAR'}})
        ORDER BY iata
    ) TO 'Airport.parquet' (FORMAT parquet, COMPRESSION zstd)
""")
duckdb.sql(f"""
    COPY (
        SELECT origin AS "from", destination AS "to", "count" AS flights
        FROM read_csv('{source}/flights-airport.csv')
        ORDER BY "from", "to"
    ) TO 'Route.parquet' (FORMAT parquet, COMPRESSION zstd)
""")
